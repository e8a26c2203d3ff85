#!/bin/sh
# Rewrites the lock files from the .in files beside them. Run it in the prepared environment.
set -eu
cd "$(dirname "$0")"
for set in run train encoders dev peers; do
  # The peers are measured as their users install them: nothing is overridden.
  [ "$set" = peers ] && with= || with='--override overrides.in'
  # shellcheck disable=SC2086
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    $with "$set.in" --output-file "$set.lock"
done
# Programs that run in environments of their own: no overrides of ours.
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url airbyte.in \
  --output-file airbyte.lock
