@0xd6a4f1b27c9e5083;

# The typed message that the benchmark sends: five scalars and sixty-four bytes of data.
struct Sample {
  sequence @0 :UInt64;
  complement @1 :UInt64;
  price @2 :Float64;
  quantity @3 :UInt32;
  side @4 :UInt16;
  data @5 :Data;
}
