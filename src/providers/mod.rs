//! Endpoints outside the program: what protects one from being asked while it fails.

pub mod breaker;
