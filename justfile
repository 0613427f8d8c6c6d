# Common tasks. `just` alone lists them.

default:
    @just --list

# Five processes, two of them killed, every message checked
demo *arguments:
    cargo run --release -- demo {{arguments}}

# Everything at once, killed and stopped for a while
soak *arguments:
    cargo run --release -- soak {{arguments}}

# Unit, integration and documentation tests
test:
    cargo test --workspace

# The same, and processes killed and stopped at every named step
kill:
    cargo test --workspace --features windlass/kill-points

# The models of every lock-free protocol
loom *arguments:
    RUSTFLAGS="--cfg windlass_loom" cargo test -p loom-tests --profile loom --target-dir target/loom {{arguments}}

# Every damage that the tests know, not a sample of it
hostile:
    WINDLASS_EXHAUSTIVE=1 cargo test --test it hostile

# The corpus of the fuzz targets, on whatever toolchain there is
corpus:
    cargo test --manifest-path fuzz/Cargo.toml

# ThreadSanitizer and AddressSanitizer; needs a nightly toolchain
sanitize *arguments:
    fuzz/sanitize.sh {{arguments}}

# Formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --package windlass --features kill-points -- -D warnings

# The documentation of the library
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Generated code of the schemas; needs the capnp tool
schemas:
    schemas/generate.sh

# Measure this machine: latency, throughput, fanout
bench what *arguments:
    cargo run --release -- bench {{what}} {{arguments}}

# What one message costs within one process
bench-calls:
    cargo bench --package windlass --bench topics

# Everything that has to hold before a change lands
ci:
    .ci/run
