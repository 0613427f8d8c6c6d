@0xa1c5e7d3b94f2680;
# The one annotation of the Rust code generator that these schemas use; the generator knows it by its number.

annotation parentModule @0xabee386cd1450364 (file) :Text;
