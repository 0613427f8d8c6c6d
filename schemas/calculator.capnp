@0xd7a4c1f09b3e5826;
# A question to a calculator and its answer, for the example of a service.

using Rust = import "rust.capnp";
$Rust.parentModule("schemas");

enum Operation {
  add @0;
  multiply @1;
  divide @2;
}

struct Question {
  operation @0 :Operation;
  left @1 :Float64;
  right @2 :Float64;
}

struct Answer {
  value @0 :Float64;
  server @1 :UInt32;
  # The process that has calculated.
}
