#!/usr/bin/env bash
# Generates src/schemas/*_capnp.rs from schemas/*.capnp. With --check, only says whether they are fresh.
# Needs the capnp tool and the capnpc-rust plugin of the version in Cargo.lock: cargo install capnpc --version 0.27.0
set -euo pipefail
cd "$(dirname "$0")"
for tool in capnp capnpc-rust; do
  if ! command -v "$tool" >/dev/null; then
    echo "schemas: skipped, because $tool is not installed"
    exit 0
  fi
done
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
capnp compile -I. -orust:"$fresh" tick.capnp reading.capnp bench.capnp
status=0
for file in "$fresh"/*_capnp.rs; do
  name=../src/schemas/$(basename "$file")
  if [ "${1:-}" = --check ]; then
    cmp -s "$file" "$name" || { echo "schemas: $name is stale; run schemas/generate.sh"; status=1; }
  else
    cp "$file" "$name"
  fi
done
[ "$status" = 0 ] && echo "schemas: fresh"
exit "$status"
