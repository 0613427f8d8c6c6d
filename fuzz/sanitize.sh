#!/usr/bin/env bash
# What the sanitizers of a nightly toolchain say. Where there is none it says so, and nothing is wrong.
#
#   fuzz/sanitize.sh            all of it
#   fuzz/sanitize.sh threads    the algorithms between threads, under ThreadSanitizer
#   fuzz/sanitize.sh canary     the same with an edge broken: the sanitizer has to report it
#   fuzz/sanitize.sh corpus     the corpus and the same threads, under AddressSanitizer
#   fuzz/sanitize.sh topics     the tests with threads of the library, under ThreadSanitizer
#   fuzz/sanitize.sh library    the same under AddressSanitizer, and the tests of allocations
#   fuzz/sanitize.sh fuzz N     every target for N seconds, beginning with the corpus; needs cargo-fuzz
#
# The standard library is not built anew, so it is not instrumented, and the flag below says that this is
# meant. What it synchronises with generic code is compiled with ours and seen.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
host=x86_64-unknown-linux-gnu
targets=(lane log message open order queue schema topic)
output=${CARGO_TARGET_DIR:-$PWD/target}

if ! rustc +nightly --version >/dev/null 2>&1; then
  echo "sanitizers: skipped, there is no nightly toolchain (rustup toolchain install nightly)"
  exit 0
fi
if [[ $(uname -sm) != 'Linux x86_64' ]]; then
  echo "sanitizers: skipped, they are set up for $host only"
  exit 0
fi

# under SANITIZER COMMAND…: with all of our code instrumented.
under() {
  local sanitizer=$1
  shift
  RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" \
    CARGO_TARGET_DIR="$output/$sanitizer" \
    TSAN_OPTIONS="suppressions=$here/tsan.supp halt_on_error=1 ${TSAN_OPTIONS:-}" \
    ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}" \
    "$@"
}

threads() {
  under thread cargo +nightly test --quiet --release --target $host --test threads -- --test-threads=1
}

# The same tests on a copy of the sources in which the ordering of one line is weakened.
weakened() {
  local file=$1 from=$2 to=$3 copy
  copy=$output/canary
  mkdir -p "$copy/fuzz"
  cp -r ../src ../Cargo.toml "$copy/"
  cp -r ../tests "$copy/"
  mkdir -p "$copy/benches" "$copy/examples"
  cp ../benches/*.rs "$copy/benches/"
  cp ../README.md "$copy/"
  sed -i '/^members\|^default-members/d' "$copy/Cargo.toml"
  cp -r Cargo.toml Cargo.lock src tests fuzz_targets "$copy/fuzz/"
  grep -qF "$from" "$copy/$file" || { echo "canary: $file has no line with $from"; return 1; }
  python3 - "$copy/$file" "$from" "$to" <<'PY' 2>/dev/null || sed -i "s|$from|$to|" "$copy/$file"
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
open(path, 'w').write(text.replace(old, new))
PY
  if (cd "$copy/fuzz" && under thread cargo +nightly test --quiet --release --target $host \
    --test threads -- --test-threads=1) >"$copy/report" 2>&1; then
    echo "canary: the sanitizer missed that $from became $to"
    return 1
  fi
  grep -q 'ThreadSanitizer: data race' "$copy/report" || { cat "$copy/report"; return 1; }
  echo "canary: reported, as it should be: $from became $to"
}

canary() {
  weakened src/ring/writer.rs 'store(frame::frame(len, self.sequence), Release)' \
    'store(frame::frame(len, self.sequence), Relaxed)'
  weakened src/ring/pins.rs 'fetch_sub(1, Release)' 'fetch_sub(1, Relaxed)'
}

corpus() {
  under address cargo +nightly test --quiet --release --target $host
}

# Processes cannot be followed; the participants of these tests are threads. A publisher has another mapping
# of its lane than subscribers, so what is seen here is all but the lanes.
topics() {
  (cd .. && under thread cargo +nightly test --quiet --target $host --package windlass --lib -- \
    --test-threads=1 topic message layout ring)
  (cd .. && WINDLASS_TEST_SCALE=0.2 under thread cargo +nightly test --quiet --target $host \
    --package windlass --test it -- --test-threads=1 thread)
}

# The same, and what is counted of the allocator, under AddressSanitizer.
library() {
  local run="cargo +nightly test --quiet --target $host --package windlass"
  (cd .. && under address $run --lib -- topic message layout ring)
  (cd .. && under address $run --test alloc)
  (cd .. && WINDLASS_TEST_SCALE=0.2 under address $run --test it -- thread)
}

fuzz() {
  local seconds=$1 target
  if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: skipped, there is no cargo-fuzz (cargo install cargo-fuzz)"
    return 0
  fi
  for target in "${targets[@]}"; do
    mkdir -p "$output/found/$target"
    cargo +nightly fuzz run --features fuzzing "$target" "$output/found/$target" "corpus/$target" -- \
      -max_total_time="$seconds" -timeout=20 -max_len=2048 -print_final_stats=1
  done
}

case ${1:-all} in
  all) threads && canary && corpus && topics && library ;;
  threads | canary | corpus | topics | library) "$1" ;;
  fuzz) fuzz "${2:-60}" ;;
  *) sed -n '2,13p' "$0" && exit 2 ;;
esac
