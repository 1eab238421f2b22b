//! Settings: raw text → validated values. Nothing else in the program sees raw values.
//!
//! [`layers`] reads the four layers into trees that know their origins, [`check`] holds each against the list in
//! [`keys`], `rules` judges what needs more than one key, [`load()`] puts it together, [`docs`] prints what is known.
//! The environment is handed in by the caller; [`load()`] reads one file, [`load_with`] none.

mod check;
pub mod docs;
pub mod keys;
pub mod layers;
pub mod load;
pub mod problem;
mod resolve;
mod rules;
pub mod sections;
pub mod tree;

pub use layers::{ENV_PREFIX, Sources};
pub use load::{Loaded, load, load_with};
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
mod tests {
    use super::*;
    use crate::model::TaskName;

    #[test]
    fn the_embedded_defaults_load_and_computed_values_are_filled_in() {
        let settings = Settings::defaults();
        assert_eq!(settings.runtime.speed, 60);
        let ages: Vec<u32> =
            settings.tasks[&TaskName::TradingDecision].depends_on.iter().map(|d| d.max_age_seconds).collect();
        assert_eq!(ages, [120, 510, 2820]);
    }
}
