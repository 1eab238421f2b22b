//! Settings: raw text → validated values. Nothing else in the program sees raw values.

pub mod sections;

pub use sections::*;
