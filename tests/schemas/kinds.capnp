@0xb1a0d5f2c4e39607;
# A field of every kind, alone, in lists and in unions, with defaults and without.

using Rust = import "/rust.capnp";
$Rust.parentModule("samples");

enum Color {
  red @0;
  green @1;
  darkBlue @2;
}

struct Inner {
  number @0 :UInt32 = 5;
  text @1 :Text;
  inner @2 :Inner;
}

struct Kinds {
  void @0 :Void;
  bool @1 :Bool;
  int8 @2 :Int8;
  int16 @3 :Int16;
  int32 @4 :Int32;
  int64 @5 :Int64;
  uint8 @6 :UInt8;
  uint16 @7 :UInt16;
  uint32 @8 :UInt32;
  uint64 @9 :UInt64;
  float32 @10 :Float32;
  float64 @11 :Float64;
  color @12 :Color;
  text @13 :Text;
  data @14 :Data;
  inner @15 :Inner;

  boolSet @16 :Bool = true;
  int8Set @17 :Int8 = -8;
  int16Set @18 :Int16 = -16;
  int64Set @19 :Int64 = -64;
  uint64Set @20 :UInt64 = 18446744073709551615;
  float32Set @21 :Float32 = 0.5;
  float64Set @22 :Float64 = -inf;
  colorSet @23 :Color = darkBlue;
  textSet @24 :Text = "set";
  dataSet @25 :Data = 0x"00ff";
  innerSet @26 :Inner = (number = 9, text = "nine");
  listSet @27 :List(Text) = ["a", "b"];

  voids @28 :List(Void);
  bools @29 :List(Bool);
  int8s @30 :List(Int8);
  int16s @31 :List(Int16);
  int32s @32 :List(Int32);
  int64s @33 :List(Int64);
  uint8s @34 :List(UInt8);
  uint16s @35 :List(UInt16);
  uint32s @36 :List(UInt32);
  uint64s @37 :List(UInt64);
  float32s @38 :List(Float32);
  float64s @39 :List(Float64);
  colors @40 :List(Color);
  texts @41 :List(Text);
  datas @42 :List(Data);
  inners @43 :List(Inner);
  lists @44 :List(List(List(Int16)));
  listsOfInners @45 :List(List(Inner));

  group :group {
    number @46 :UInt16;
    deep :group {
      text @47 :Text;
    }
  }

  union {
    nothing @48 :Void;
    count @49 :UInt8;
    word @50 :Text;
    pair :group {
      left @51 :UInt8;
      right @52 :Text;
    }
    items @53 :List(Inner);
    choice :union {
      first @54 :UInt32;
      second @55 :Text;
    }
  }

  generic @56 :Box(Text);
  nested @57 :Box(Box(Inner));
  genericList @58 :List(Box(List(UInt8)));
  any @59 :AnyPointer;
  anyStruct @60 :AnyStruct;
  anyList @61 :AnyList;
  capability @62 :Capability;
  unbound @63 :Box;
  chain @64 :Chain(Text);
}

struct Box (Content) {
  content @0 :Content;
}

struct Chain (Content) {
  content @0 :Content;
  next @1 :Chain(Content);
  boxed @3 :Box(Box(Content));
  inside @2 :Inside;

  struct Inside {
    content @0 :Content;
  }
}
