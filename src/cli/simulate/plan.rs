//! What a seed means: settings, workload and which faults happen. Every draw comes from a stream of the seed.

use std::{collections::BTreeSet, fmt, str::FromStr};

use anyhow::Result;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::{
    model::{Ts, time::DAY_MS, time::HOUR_MS, time::MINUTE_MS},
    runtime::failure::{Exit, Failure},
    settings::{Loaded, Sources, load},
};

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Kills and power cuts at any instant, also within a commit, and clean stops; then a start through recovery.
    Crash,
    /// The disk fails: input/output errors, no space, short writes, failed syncs.
    Store,
    /// Agents are slow, hang and panic.
    Agents,
    /// The feed freezes, has gaps, repeats itself, is late, and delivers absurd prices.
    Feed,
    /// The wall clock jumps forth and back.
    Clock,
    /// The operator does anything at any time.
    Commands,
    /// The venue fails, definitely and ambiguously.
    Venue,
}

impl Fault {
    /// All of them, in the order of the command line's help.
    pub const ALL: [Fault; 7] =
        [Fault::Crash, Fault::Store, Fault::Agents, Fault::Feed, Fault::Clock, Fault::Commands, Fault::Venue];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::Store => "store",
            Fault::Agents => "agents",
            Fault::Feed => "feed",
            Fault::Clock => "clock",
            Fault::Commands => "commands",
            Fault::Venue => "venue",
        }
    }
}

/// Which faults happen. Text form `all`, `none` or names with commas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults(BTreeSet<Fault>);

impl Faults {
    /// Every kind.
    pub fn all() -> Faults {
        Faults(Fault::ALL.into())
    }

    /// True when this kind happens.
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        match text {
            "all" => return Ok(Faults::all()),
            "none" => return Ok(Faults::default()),
            _ => {}
        }
        let one = |name: &str| {
            let found = Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
            let names = || Fault::ALL.map(Fault::name).join(", ");
            found.ok_or_else(|| format!("`{name}` is no fault; write all, none, or some of {}", names()))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("none"),
            n if n == Fault::ALL.len() => f.write_str("all"),
            _ => f.write_str(&self.0.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

/// Where a run ends early, to find the shortest one that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After this record of the journal.
    Record(u64),
    /// Before the start of the process after this one, counted from 1.
    Life(u32),
}

/// One simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Simulated time, milliseconds.
    pub length_ms: i64,
    /// What goes wrong.
    pub faults: Faults,
    /// An earlier end.
    pub until: Option<Until>,
}

impl Plan {
    /// The draws for one purpose in one life.
    pub fn stream(&self, purpose: &str, life: u32) -> ChaCha8Rng {
        let digest: [u8; 32] = Sha256::digest(format!("simulate:{}:{purpose}:{life}", self.seed)).into();
        ChaCha8Rng::from_seed(digest)
    }

    /// The first instant: some minute of some week of 2026.
    pub fn start(&self) -> Ts {
        let mut rng = self.stream("start", 0);
        Ts(1_767_571_200_000 + rng.random_range(0..50 * 7) * DAY_MS + rng.random_range(0..24 * 60) * MINUTE_MS)
    }

    /// The settings of this seed: shorter intervals and warm-up than the defaults, and rules that let much happen.
    ///
    /// # Errors
    /// Settings that do not fit together: a defect of this table.
    pub fn settings(&self) -> Result<Loaded> {
        let mut rng = self.stream("settings", 0);
        let mut pick = |values: &[&str]| values.choose(&mut rng).map_or_else(String::new, |value| (*value).to_owned());
        let analysis = pick(&["60", "300", "900", "900"]);
        let regime = pick(&["300", "900"]);
        let primary = pick(&["5m", "15m", "15m", "1h"]);
        let lookback = format!("market.lookback.{primary}");
        let set: Vec<(&str, String)> = vec![
            ("seed", self.seed.max(1).to_string()),
            ("runtime.speed", "1".into()),
            ("symbols", pick(&["BTC/USDT", "BTC/USDT,XRP/USDT"])),
            ("market.simulated.step_seconds", pick(&["20", "60", "60", "60", "60"])),
            ("market.price_max_age_seconds", pick(&["60", "120"])),
            ("market.silence_seconds", "70".into()),
            ("market.primary_timeframe", primary.clone()),
            (&lookback, "250".into()),
            ("bus.ttl_seconds.ta_signals", "4000".into()),
            ("bus.ttl_seconds.regime_updates", "8000".into()),
            ("tasks.technical_analysis.interval_seconds", analysis.clone()),
            ("tasks.technical_analysis.catch_up_seconds", analysis.clone()),
            ("tasks.regime_detection.interval_seconds", regime.clone()),
            ("consensus.max_age_seconds.technical_analysis", "2000".into()),
            ("consensus.max_age_seconds.regime_detection", "4000".into()),
            ("tasks.trading_decision.interval_seconds", pick(&["900", "1800", "3600"])),
            ("tasks.portfolio_rebalance.interval_seconds", pick(&["3600", "7200"])),
            ("portfolio.min_interval_hours", pick(&["1", "6", "24"])),
            ("portfolio.threshold_pct", pick(&["2", "5"])),
            ("portfolio.dca.threshold_usd", pick(&["100", "500"])),
            ("portfolio.dca.interval_hours", pick(&["1", "4"])),
            ("portfolio.dca.batches", pick(&["2", "6"])),
            ("legs.late_policy", pick(&["respread", "skip"])),
            ("execution.entry_order_type", pick(&["limit", "market"])),
            ("execution.limit_order_expiry_hours", pick(&["1", "24"])),
            ("execution.max_holding_hours", pick(&["4", "48"])),
            ("execution.trailing.enabled", pick(&["true", "false"])),
            ("execution.break_even.enabled", pick(&["true", "false"])),
            ("execution.paper.partial_fills.enabled", pick(&["true", "false"])),
            ("execution.paper.restart_fill_policy", pick(&["pessimistic", "replay", "cancel"])),
            ("execution.spot.sell_closes", pick(&["full", "sized"])),
            ("risk.cooldown_minutes.rebalance", "1".into()),
            ("risk.confidence_floor.base", "0.5".into()),
            ("store.checkpoint.events", pick(&["50", "300", "10000"])),
            ("store.checkpoint.hours", pick(&["2", "24"])),
        ];
        let overrides = set.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let sources = Sources { file: None, env: Vec::new(), overrides };
        let mut loaded = load(&sources).map_err(|problems| Failure::new(Exit::Internal, problems.to_string()))?;
        // Below what a person may ask for: every start takes the history in, and only the primary frame is looked at.
        let market = &mut loaded.settings.market;
        for (frame, candles) in &mut market.lookback {
            *candles = if *frame == market.primary_timeframe {
                250
            } else {
                (*candles).min(if frame.ms() > HOUR_MS { 1 } else { 60 })
            };
        }
        loaded.settings.store.aux_flush_ms *= self.seldom();
        Ok(loaded)
    }

    /// How many times less often than live what happens every second happens.
    pub fn seldom(&self) -> u32 {
        if self.seed.is_multiple_of(32) { 1 } else { 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in ["all", "none", "crash", "crash,feed"] {
            assert_eq!(text.parse::<Faults>().unwrap().to_string(), text);
        }
        assert!("crash,fire".parse::<Faults>().unwrap_err().contains("`fire`"));
    }

    #[test]
    fn every_seed_gives_settings_that_hold() {
        for seed in 0..60 {
            let plan = Plan { seed, length_ms: DAY_MS, faults: Faults::all(), until: None };
            plan.settings().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}
