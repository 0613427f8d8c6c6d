@0xb1a0d5f2c4e39605;
# The same types later: a field in a nested type, a member of a union, a field that became the first member of a union.

using Rust = import "/rust.capnp";
$Rust.parentModule("samples");

struct Point @0x9e21c7b4d05fa381 {
  x @0 :Float64;
  y @1 :Float64;
  z @2 :Float64;
}

struct Pair @0xc0a96be81d27f534 (Left, Right) {
  left @0 :Left;
  right @1 :Right;
}

struct Shape @0xa4d7e0931bc86f25 {
  number @0 :UInt32 = 7;
  name @1 :Text = "none";
  center :group {
    x @2 :Float64;
    y @3 :Float64;
  }
  union {
    dot @4 :Void;
    radius @5 :Float64;
    corners @6 :List(Point);
    path @15 :Text;
  }
  bounds @7 :Pair(Point, Point);
  label @8 :Pair(Text, Data);
  parent @9 :Shape;
  anchors @10 :List(Point) = [(x = 1, y = 2)];
  more @11 :AnyPointer;
  grid @12 :List(List(UInt16));
  load :union {
    weight @13 :UInt32;
    force @14 :Float64;
  }
}
