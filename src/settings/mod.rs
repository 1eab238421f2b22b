//! Settings: raw text → validated values. Nothing else in the program sees raw values.

pub mod sections;

pub use sections::*;

/// The complete, commented defaults, embedded in the binary.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

impl Settings {
    /// The settings of `config/default.toml`, validated and resolved.
    #[expect(clippy::expect_used, reason = "a test loads the embedded defaults")]
    pub fn defaults() -> Settings {
        let mut settings: Settings = toml::from_str(DEFAULT_TOML).expect("the embedded defaults are valid");
        settings.resolve();
        settings
    }

    /// Replaces every "0 or empty means computed" by its value.
    fn resolve(&mut self) {
        if self.runtime.speed == 0 {
            self.runtime.speed = if self.market.source == MarketSource::Simulated { 60 } else { 1 };
        }
        let factor = self.scheduler.freshness_interval_factor;
        let timing: std::collections::BTreeMap<_, _> =
            self.tasks.iter().map(|(name, task)| (*name, (task.interval_seconds, task.timeout_seconds))).collect();
        for (name, task) in &mut self.tasks {
            if task.symbols.is_empty() {
                task.symbols = match name {
                    crate::model::TaskName::PortfolioRebalance => vec![crate::model::Symbol::PORTFOLIO],
                    _ => self.symbols.clone(),
                };
            }
            for dependency in task.depends_on.iter_mut().filter(|d| d.max_age_seconds == 0) {
                if let Some((interval, timeout)) = timing.get(&dependency.task) {
                    dependency.max_age_seconds = (factor * f64::from(*interval)) as u32 + timeout;
                }
            }
        }
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
