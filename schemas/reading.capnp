@0xe1f0a9d87c3b2a64;
# One row of a recorded sensor series.

using Rust = import "rust.capnp";
$Rust.parentModule("schemas");

struct Reading {
  source @0 :UInt32;
  # Which publisher.
  index @1 :UInt64;
  # Row in the data set.
  publishedNs @2 :UInt64;
  # Monotonic clock of the machine, nanoseconds.
  timestamp @3 :Text;
  # As recorded: "2013-12-02 21:15:00".
  value @4 :Float64;
  # As recorded, degrees.
  check @5 :UInt64;
  # Hash of the row, so that a reader can tell that it is whole.
}
