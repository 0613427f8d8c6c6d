@0xb1a0d5f2c4e39601;
# A type in its first version.

using Rust = import "/rust.capnp";
$Rust.parentModule("samples");

enum Venue @0x8d3f5ab7c2e41906 {
  unknown @0;
  primary @1;
}

struct Tick @0xf3c5d8e7a9b06142 {
  symbol @0 :Text;
  price @1 :Float64;
  size @2 :UInt32;
  venue @3 :Venue;
}
