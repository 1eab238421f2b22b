//! The `triplegain` binary.

fn main() {}
