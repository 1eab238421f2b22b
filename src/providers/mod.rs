//! Endpoints outside the program: what protects one from being asked while it fails, and from being asked too often.

pub mod breaker;
pub mod rate;
pub mod retries;
