//! The degradation level: what the program may use, from windows of outcomes per capability (resilience §2, F04).
//!
//! Up at once, down one step at a time after a dwell: one lucky success changes nothing, and levels do not flap.
//! Directions come from comparing levels, never from the cause (D45). It counts; it never calls anybody.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Capability, Decimal, DegradationLevel, Event, Ts, time::MINUTE_MS},
    settings::DegradationSettings,
};

/// Outcomes kept in one word; windows are at most this long.
const BITS: u32 = 64;
/// Levels from the best to the worst.
const LEVELS: [DegradationLevel; 4] =
    [DegradationLevel::Normal, DegradationLevel::Reduced, DegradationLevel::Limited, DegradationLevel::Emergency];

/// Windows, level and dwell of one capability. Serialisable: it is persisted and a boot goes on with it (A120).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tracker {
    /// 1 = failure; the newest outcome is the lowest bit.
    failures: u64,
    /// When each outcome in the word happened, oldest first.
    at: VecDeque<Ts>,
    in_a_row_ok: u32,
    in_a_row_failed: u32,
    level: DegradationLevel,
    since: Ts,
    dwell_ms: i64,
    last_down: Option<Ts>,
    last_change: Option<Ts>,
    /// First failure of each incident that may still take others in.
    incidents: Vec<(String, Ts)>,
}

impl Tracker {
    /// An empty tracker at the stored level.
    pub fn new(level: DegradationLevel, settings: &DegradationSettings, now: Ts) -> Tracker {
        Tracker {
            failures: 0,
            at: VecDeque::new(),
            in_a_row_ok: 0,
            in_a_row_failed: 0,
            level,
            since: now,
            dwell_ms: dwell(settings.dwell_seconds),
            last_down: None,
            last_change: None,
            incidents: Vec::new(),
        }
    }

    /// The level from outcomes alone.
    pub const fn level(&self) -> DegradationLevel {
        self.level
    }

    /// At NORMAL, and no failure among the outcomes kept: another success changes nothing.
    pub fn is_spotless(&self) -> bool {
        self.level == DegradationLevel::Normal && self.in_a_row_failed == 0 && self.newest(BITS).1 == 0
    }

    /// Successes of a spotless tracker, oldest first: they are remembered, and no level follows from them.
    fn passed(&mut self, at: &[Ts], settings: &DegradationSettings) {
        for at in at {
            self.in_a_row_ok = self.in_a_row_ok.saturating_add(1);
            self.push(false, settings, *at);
        }
    }

    /// A success.
    pub fn success(&mut self, settings: &DegradationSettings, limit: DegradationLevel, now: Ts) {
        self.in_a_row_ok = self.in_a_row_ok.saturating_add(1);
        self.in_a_row_failed = 0;
        self.push(false, settings, now);
        self.step(settings, limit, now);
    }

    /// A failure. `incident` names provider and cause: failures of one name within `incident_merge_ms` of its first
    /// are one incident and count once (D43, A122).
    pub fn failure(&mut self, incident: &str, settings: &DegradationSettings, limit: DegradationLevel, now: Ts) {
        let window = i64::from(settings.incident_merge_ms);
        self.incidents.retain(|(_, first)| now.since_ms(*first) <= window);
        if self.incidents.iter().any(|(known, _)| known == incident) {
            return;
        }
        if window > 0 {
            self.incidents.push((incident.to_owned(), now));
        }
        self.in_a_row_failed = self.in_a_row_failed.saturating_add(1);
        self.in_a_row_ok = 0;
        self.push(true, settings, now);
        self.step(settings, limit, now);
    }

    fn push(&mut self, failed: bool, settings: &DegradationSettings, now: Ts) {
        self.failures = self.failures << 1 | u64::from(failed);
        self.at.push_back(now);
        let oldest = i64::from(settings.sample_max_age_minutes) * MINUTE_MS;
        let keep = settings.recover_window.max(settings.escalate_window).clamp(1, BITS) as usize;
        while self.at.len() > keep || self.at.front().is_some_and(|at| now.since_ms(*at) > oldest) {
            self.at.pop_front();
        }
    }

    /// Samples and failures among the newest `window` outcomes.
    fn newest(&self, window: u32) -> (u32, u32) {
        let samples = (self.at.len() as u32).min(window).min(BITS);
        let mask = if samples >= BITS { u64::MAX } else { (1u64 << samples) - 1 };
        (samples, (self.failures & mask).count_ones())
    }

    fn step(&mut self, settings: &DegradationSettings, limit: DegradationLevel, now: Ts) {
        let calm = i64::from(settings.calm_seconds) * 1000;
        if self.last_change.is_some_and(|at| now.since_ms(at) >= calm) {
            self.dwell_ms = dwell(settings.dwell_seconds);
        }
        let target = self.target(settings).min(limit);
        if target > self.level {
            let relapse = i64::from(settings.relapse_seconds) * 1000;
            if self.last_down.is_some_and(|at| now.since_ms(at) <= relapse) {
                self.dwell_ms = (self.dwell_ms * 2).min(dwell(settings.dwell_max_seconds));
            }
            self.change(target, now);
        } else if self.may_step_down(settings, now) {
            self.last_down = Some(now);
            // A level's number is its index; one below it is in range.
            self.change(LEVELS[(self.level as usize).saturating_sub(1)], now);
        }
    }

    fn change(&mut self, to: DegradationLevel, now: Ts) {
        self.level = to;
        self.since = now;
        self.last_change = Some(now);
    }

    /// Highest level whose rate or run of failures is reached.
    fn target(&self, settings: &DegradationSettings) -> DegradationLevel {
        let (samples, failed) = self.newest(settings.escalate_window);
        let rate = if samples >= settings.min_samples.max(1) { f64::from(failed) / f64::from(samples) } else { 0.0 };
        let reached = |i: &usize| {
            let by_rate = settings.escalate_rates.get(*i).is_some_and(|limit| rate >= *limit && rate > 0.0);
            let by_run = settings.escalate_consecutive.get(*i).is_some_and(|run| self.in_a_row_failed >= *run);
            by_rate || by_run
        };
        // i is at most 2, so i + 1 is in range.
        (0..3usize).rev().find(reached).map_or(DegradationLevel::Normal, |i| LEVELS[i + 1])
    }

    fn may_step_down(&self, settings: &DegradationSettings, now: Ts) -> bool {
        if self.level == DegradationLevel::Normal || now.since_ms(self.since) < self.dwell_ms {
            return false;
        }
        if self.in_a_row_ok >= settings.recover_in_a_row {
            return true;
        }
        let (samples, failed) = self.newest(settings.recover_window);
        let full = samples >= settings.recover_window.min(BITS);
        let limit = settings.recover_rates.get(self.level as usize - 1).copied().unwrap_or_default();
        full && self.in_a_row_ok >= settings.recover_recent && f64::from(failed) / f64::from(samples) <= limit
    }
}

fn dwell(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}

/// All capabilities of the program: those without an entry in `capabilities` do not exist.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Degradation {
    trackers: BTreeMap<Capability, Tracker>,
    /// Capabilities with an open provider breaker whose chain still works: at least REDUCED.
    strained: BTreeMap<Capability, bool>,
    /// Newest change of each capability's level, whatever it came from.
    #[serde(default)]
    changed_at: BTreeMap<Capability, Ts>,
    /// Lowest global level from outside (abandoned threads).
    floor: DegradationLevel,
}

impl Degradation {
    /// Starts each capability at its stored level.
    pub fn new(
        capabilities: &[Capability],
        stored: &BTreeMap<Capability, DegradationLevel>,
        settings: &DegradationSettings,
        now: Ts,
    ) -> Degradation {
        let tracker = |capability: &Capability| {
            let level = stored.get(capability).copied().unwrap_or_default();
            (*capability, Tracker::new(level, settings, now))
        };
        Degradation {
            trackers: capabilities.iter().map(tracker).collect(),
            strained: BTreeMap::new(),
            changed_at: BTreeMap::new(),
            floor: DegradationLevel::Normal,
        }
    }

    /// Level of one capability; NORMAL when it does not exist.
    pub fn level(&self, capability: Capability) -> DegradationLevel {
        let Some(tracker) = self.trackers.get(&capability) else { return DegradationLevel::Normal };
        let strained = self.strained.get(&capability).copied().unwrap_or(false);
        if strained { tracker.level.max(DegradationLevel::Reduced) } else { tracker.level }
    }

    /// The level of the program: the worst of its capabilities, and at least the floor.
    pub fn global(&self) -> DegradationLevel {
        let worst = self.trackers.keys().map(|capability| self.level(*capability)).max();
        worst.unwrap_or_default().max(self.floor)
    }

    /// A success of the capability changes nothing; true when it does not exist.
    pub fn is_spotless(&self, capability: Capability) -> bool {
        self.trackers.get(&capability).is_none_or(Tracker::is_spotless)
    }

    /// Counts successes at these instants, oldest first, of a capability that is spotless: no level changes.
    pub fn passed(&mut self, capability: Capability, at: &[Ts], settings: &DegradationSettings) {
        if let Some(tracker) = self.trackers.get_mut(&capability).filter(|tracker| tracker.is_spotless()) {
            tracker.passed(at, settings);
        }
    }

    /// Counts a success; answers the change of the capability's level.
    pub fn success(&mut self, capability: Capability, settings: &DegradationSettings, now: Ts) -> Option<Event> {
        self.observe(capability, now, |tracker| tracker.success(settings, limit(capability, settings), now))
    }

    /// Counts a failure; see [`Tracker::failure`] for `incident`.
    pub fn failure(
        &mut self,
        capability: Capability,
        incident: &str,
        settings: &DegradationSettings,
        now: Ts,
    ) -> Option<Event> {
        self.observe(capability, now, |tracker| tracker.failure(incident, settings, limit(capability, settings), now))
    }

    /// A provider breaker of the capability is open while its chain works, or no longer (A124). As any level, this one
    /// is not left within a dwell of the newest change: a breaker that opens and closes does not make levels flap. Who
    /// says so says it again with every outcome.
    pub fn strained(
        &mut self,
        capability: Capability,
        strained: bool,
        settings: &DegradationSettings,
        now: Ts,
    ) -> Option<Event> {
        let dwell_ms = dwell(settings.dwell_seconds);
        let is_held = self.changed_at.get(&capability).is_some_and(|at| now.since_ms(*at) < dwell_ms);
        let was = self.strained.get(&capability).copied().unwrap_or(false);
        let from = self.level(capability);
        self.strained.insert(capability, strained || was && is_held);
        self.tell(capability, from, now)
    }

    /// Sets the lowest global level (scheduling B7: too much abandoned work → LIMITED).
    pub fn set_floor(&mut self, floor: DegradationLevel) {
        self.floor = floor;
    }

    fn observe(&mut self, capability: Capability, now: Ts, count: impl FnOnce(&mut Tracker)) -> Option<Event> {
        let from = self.level(capability);
        count(self.trackers.get_mut(&capability)?);
        self.tell(capability, from, now)
    }

    fn tell(&mut self, capability: Capability, from: DegradationLevel, now: Ts) -> Option<Event> {
        let to = self.level(capability);
        if from == to {
            return None;
        }
        self.changed_at.insert(capability, now);
        Some(Event::DegradationChanged { capability, from, to })
    }
}

fn limit(capability: Capability, settings: &DegradationSettings) -> DegradationLevel {
    settings.max_level.get(&capability).copied().unwrap_or(DegradationLevel::Emergency)
}

/// `up` when things got worse, `down` when they got better (D45).
pub fn direction(from: DegradationLevel, to: DegradationLevel) -> &'static str {
    if to > from { "up" } else { "down" }
}

/// New entries are allowed.
pub fn allows_entries(level: DegradationLevel) -> bool {
    level <= DegradationLevel::Reduced
}

/// New rebalance plans may be made and legs executed; otherwise legs stay PLANNED.
pub fn allows_plans(level: DegradationLevel) -> bool {
    level == DegradationLevel::Normal
}

/// `sentiment_analysis` is started and counts as an eligible opinion and as a required dependency.
pub fn allows_sentiment(level: DegradationLevel) -> bool {
    level == DegradationLevel::Normal
}

/// `trading_decision` is started.
pub fn allows_decisions(level: DegradationLevel) -> bool {
    level <= DegradationLevel::Limited
}

/// A model may be asked about conflicts; otherwise they wait.
pub fn allows_resolver(level: DegradationLevel) -> bool {
    level <= DegradationLevel::Reduced
}

/// Model voters are asked: always up to REDUCED, at LIMITED only while a position is open, never at EMERGENCY.
pub fn allows_model_voters(level: DegradationLevel, position_open: bool) -> bool {
    level <= DegradationLevel::Reduced || (level == DegradationLevel::Limited && position_open)
}

/// Opinion agents may use a model; at EMERGENCY they run on rules.
pub fn allows_model_opinions(level: DegradationLevel) -> bool {
    level <= DegradationLevel::Limited
}

/// Factor of new entries: 1 at NORMAL, the configured one at REDUCED, 0 above.
pub fn size_factor(level: DegradationLevel, settings: &DegradationSettings) -> Decimal {
    match level {
        DegradationLevel::Normal => Decimal::ONE,
        DegradationLevel::Reduced => settings.reduced_size_factor.clamp(Decimal::ZERO, Decimal::ONE),
        DegradationLevel::Limited | DegradationLevel::Emergency => Decimal::ZERO,
    }
}

#[cfg(test)]
#[path = "degradation_tests.rs"]
mod tests;
