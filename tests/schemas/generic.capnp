@0xb1a0d5f2c4e39606;
# Types that are found only through what is bound to a parameter.

using Rust = import "/rust.capnp";
$Rust.parentModule("samples");

struct Box (Content) {
  content @0 :Content;
}

struct Left {
  number @0 :UInt32;
}

struct Right {
  number @0 :UInt32;
}

struct Holder {
  left @0 :Box(Left);
  right @1 :Box(Right);
  both @2 :List(Box(Box(Left)));
}
