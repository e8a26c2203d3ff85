#!/bin/sh
# Rewrites the lock files from the .in files beside them. Run it in the prepared environment.
set -eu
cd "$(dirname "$0")"
for set in run dev; do
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --override overrides.in "$set.in" --output-file "$set.lock"
done
