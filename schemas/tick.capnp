@0xc8ea3f0d8d7b1c55;
# A trade or quote of one instrument.

using Rust = import "rust.capnp";
$Rust.parentModule("schemas");

enum Venue {
  unknown @0;
  primary @1;
  secondary @2;
  dark @3;
}

struct Tick {
  symbol @0 :Text;
  # Ticker symbol.
  price @1 :Float64;
  # In units of the instrument's currency.
  size @2 :UInt32;
  # In units of the instrument.
  number @3 :UInt64;
  # Dense, counted by whoever publishes.
  publishedNs @4 :UInt64;
  # Monotonic clock of the machine, nanoseconds.
  venue @5 :Venue;
}
