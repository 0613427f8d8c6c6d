@0x9d2b6f7a51c08e3d;
# What the benchmarks send: five scalars and a block of bytes.

using Rust = import "rust.capnp";
$Rust.parentModule("schemas");

struct Sample {
  sequence @0 :UInt64;
  # Dense.
  time @1 :UInt64;
  # Nanoseconds.
  value @2 :Float64;
  # Any number.
  source @3 :UInt32;
  # Who sent it.
  flags @4 :UInt32;
  # Any bits.
  data @5 :Data;
  # 64 bytes.
}
