#!/usr/bin/env bash
# Generates the Rust code of every schema: schemas/*.capnp into src/schemas, tests/schemas/*.capnp into
# tests/schemas/generated. With --check it writes nothing and fails if the committed code is stale.
# Needs the tool `capnp`, and the plugin `capnpc-rust`: cargo install capnpc --version 0.27.0
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mode=${1:-write}
case $mode in
  write | --check) ;;
  *) echo "usage: schemas/generate.sh [--check]" >&2; exit 2 ;;
esac
for tool in capnp capnpc-rust; do
  if ! command -v "$tool" >/dev/null; then
    echo "schemas: skipped, because $tool is not installed"
    exit 0
  fi
done
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
status=0

# generate FROM TO: compiles every schema in FROM, each alone, because several may be versions of one type. It runs in
# FROM, so that the names in the code have no folders.
generate() {
  local from=$root/$1 to=$root/$2 out=$fresh/$2 file name
  mkdir -p "$out" "$to"
  for file in "$from"/*.capnp; do
    [ "$(basename "$file")" != rust.capnp ] || continue
    (cd "$from" && capnp compile -I"$root/schemas" -orust:"$out" "$(basename "$file")")
  done
  for file in "$out"/*_capnp.rs; do
    name=$to/$(basename "$file")
    if [ "$mode" = write ]; then
      cmp -s "$file" "$name" || cp "$file" "$name"
    elif ! cmp -s "$file" "$name"; then
      echo "schemas: ${name#"$root"/} is stale: run schemas/generate.sh" >&2
      status=1
    fi
  done
  for name in "$to"/*_capnp.rs; do
    if [ -e "$name" ] && [ ! -e "$out/$(basename "$name")" ]; then
      echo "schemas: ${name#"$root"/} has no schema: remove it" >&2
      status=1
    fi
  done
}

generate schemas src/schemas
generate tests/schemas tests/schemas/generated
[ "$status" -ne 0 ] || echo "schemas: fresh"
exit "$status"
