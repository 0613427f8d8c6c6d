@0x83b3c14c3c8dd083;
# The annotation by which the Rust plugin learns where the code it generates will be included.

annotation parentModule @0xabee386cd1450364 (file) :Text;
# A module path, from the root of the crate.
