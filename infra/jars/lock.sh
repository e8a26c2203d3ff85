#!/bin/sh
# Rewrites the lock files of the jar sets with jgo. The registry's archive is locked by hand: its lock
# holds one sha-256, and resolving the application's own dependencies would only repeat what the archive carries.
set -eu
cd "$(dirname "$0")"
for set in kafka flink tools connect neo4j s3; do
  ( cd "$set"
    jgo lock
    grep -vE '^(generated|jgo_version|spec_hash) = |^\[metadata\]$|^link_strategy = ' jgo.lock.toml > lock.new
    mv lock.new jgo.lock.toml )
done
