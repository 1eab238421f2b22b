//! Settings: raw text → validated values. Nothing else in the program sees raw values.
//!
//! [`layers`] reads the four layers into trees that know their origins, `check` holds each against the list in
//! [`keys`], `rules` judges what needs more than one key, [`load()`] puts it together, [`docs`] prints what is known.
//! The environment is handed in by the caller; [`load()`] reads one file, [`load_with`] none.

mod asked;
mod check;
pub mod docs;
pub mod keys;
pub mod layers;
pub mod load;
pub mod models;
pub mod problem;
mod resolve;
mod rules;
pub mod sections;
pub mod tree;

pub use layers::{ENV_PREFIX, Sources};
pub use load::{Loaded, load, load_with};
pub use models::*;
pub use problem::{Problem, Problems};
pub use sections::*;

/// The complete, commented defaults, embedded in the binary.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

impl Settings {
    /// The settings of `config/default.toml`, validated and resolved.
    #[expect(clippy::expect_used, reason = "a test loads the embedded defaults")]
    pub fn defaults() -> Settings {
        load(&Sources::default()).expect("the embedded defaults are valid").settings
    }
}

#[cfg(test)]
mod defaults_tests;
