//! Quarantine of one key (resilience §5, B9): when it goes out, for how long, and how it comes back. Pure.
//!
//! It never decides what a run is; the scheduler reports the end of slots and asks whether a run may begin.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Ts, state::QuarantineEntry, time::DAY_MS, time::MINUTE_MS},
    settings::sections::QuarantineSettings,
};

/// Length of the outcome ring.
const RING: u32 = 20;
const RING_MASK: u32 = (1 << RING) - 1;
/// Successes in a row that reset the time out to its base.
const CALM_SUCCESSES: u8 = 2;

/// Limits in milliseconds and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineRules {
    consecutive: u32,
    of_ring: u32,
    base_ms: i64,
    max_ms: i64,
    sticky_after: u32,
    /// A slot interrupted more often than this is poison.
    pub poison_crashes: u32,
}

impl QuarantineRules {
    /// From `[quarantine]`.
    pub fn new(settings: &QuarantineSettings) -> Self {
        QuarantineRules {
            consecutive: settings.consecutive.max(1),
            of_ring: settings.failures_of_20.max(1),
            base_ms: i64::from(settings.base_minutes) * MINUTE_MS,
            max_ms: i64::from(settings.max_minutes) * MINUTE_MS,
            sticky_after: settings.sticky_after.max(1),
            poison_crashes: settings.poison_crashes,
        }
    }
}

/// Whether a run of the key may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As usual.
    Free,
    /// Not now.
    Out,
    /// One run decides whether the key is back.
    Probe,
}

/// What became of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuarantineChange {
    /// Out (again).
    Out {
        /// Absent = until released.
        until: Option<Ts>,
        /// For people.
        reason: String,
        /// How often within 24 h, this one included.
        count: u32,
    },
    /// Back.
    Ended,
}

/// Everything remembered of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    past: Past,
    out: Option<Out>,
}

/// What went wrong with a key so far; kept beside the truth, so that a restart is no amnesty. Whether the key is out is
/// the journal's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Newest outcome in bit 0; a set bit is a failed slot.
    ring: u32,
    consecutive: u32,
    /// Successes since the last end.
    calm: u8,
    /// Length of the newest time out; 0 = base.
    length_ms: i64,
    /// Starts within the last 24 h, oldest first.
    starts: Vec<Ts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    until: Option<Ts>,
    count: u32,
}

impl Quarantine {
    /// A key as it was: `entry` is what the journal says, `past` what was kept beside it, which may be a second older.
    pub fn restored(entry: Option<&QuarantineEntry>, mut past: Past, now: Ts) -> Self {
        past.starts.retain(|start| (0..DAY_MS).contains(&now.since_ms(*start)));
        let out = entry.map(|entry| Out { until: entry.until, count: entry.count });
        let missing = out.map_or(0, |out| (out.count as usize).saturating_sub(past.starts.len()));
        past.starts.extend(std::iter::repeat_n(now, missing));
        Quarantine { past, out }
    }

    /// What is kept over a restart.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Whether a run may begin at `now`.
    pub fn admission(&self, now: Ts) -> Admission {
        match self.out {
            None => Admission::Free,
            Some(Out { until: Some(until), .. }) if until <= now => Admission::Probe,
            Some(_) => Admission::Out,
        }
    }

    /// True from the start of a quarantine until its end, probe included.
    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Failed slots in a row.
    pub fn consecutive_failures(&self) -> u32 {
        self.past.consecutive
    }

    /// A slot ended well (success or abstention).
    pub fn succeeded(&mut self) -> Option<QuarantineChange> {
        self.past.ring = (self.past.ring << 1) & RING_MASK;
        self.past.consecutive = 0;
        if self.past.length_ms != 0 {
            self.past.calm = self.past.calm.saturating_add(1);
            if self.past.calm >= CALM_SUCCESSES {
                self.past.length_ms = 0;
            }
        }
        self.out.take().map(|_| {
            // Old failures have been paid for: without this the ring would send the key out again at once.
            self.past.ring = 0;
            QuarantineChange::Ended
        })
    }

    /// A slot failed for good (after its retries).
    pub fn failed(&mut self, now: Ts, rules: &QuarantineRules) -> Option<QuarantineChange> {
        self.past.ring = ((self.past.ring << 1) | 1) & RING_MASK;
        self.past.consecutive = self.past.consecutive.saturating_add(1);
        self.past.calm = 0;
        if let Some(out) = self.out {
            // A failed probe prolongs the same quarantine; it is no new one of the day.
            return Some(self.prolong(now, out, rules));
        }
        let failures = self.past.ring.count_ones();
        if self.past.consecutive >= rules.consecutive {
            return Some(self.begin(now, rules, format!("{} slots failed in a row", self.past.consecutive)));
        }
        (failures >= rules.of_ring)
            .then(|| self.begin(now, rules, format!("{failures} of the last {RING} slots failed")))
    }

    /// A slot was interrupted by more crashes than allowed.
    pub fn poisoned(&mut self, now: Ts, rules: &QuarantineRules, crashes: u32) -> QuarantineChange {
        self.begin(now, rules, format!("poison: the same slot was interrupted by {crashes} crashes"))
    }

    /// The actor that does the work panicked too often and is gone.
    pub fn given_up(&mut self, now: Ts, rules: &QuarantineRules) -> QuarantineChange {
        self.begin(now, rules, "its actor panicked too often".to_owned())
    }

    /// The operator's release.
    pub fn release(&mut self) -> Option<QuarantineChange> {
        let was_out = self.out.is_some();
        *self = Quarantine::default();
        was_out.then_some(QuarantineChange::Ended)
    }

    fn begin(&mut self, now: Ts, rules: &QuarantineRules, reason: String) -> QuarantineChange {
        self.past.starts.retain(|start| now.since_ms(*start) < DAY_MS);
        self.past.starts.push(now);
        let count = u32::try_from(self.past.starts.len()).unwrap_or(u32::MAX);
        self.past.length_ms = self.next_length(rules);
        let until = (count < rules.sticky_after).then(|| now.plus_ms(self.past.length_ms));
        self.out = Some(Out { until, count });
        QuarantineChange::Out { until, reason, count }
    }

    fn prolong(&mut self, now: Ts, out: Out, rules: &QuarantineRules) -> QuarantineChange {
        if out.until.is_none() {
            return QuarantineChange::Out { until: None, reason: "failed while out".into(), count: out.count };
        }
        self.past.length_ms = if self.past.length_ms == 0 { rules.base_ms } else { self.past.length_ms };
        self.past.length_ms = self.next_length(rules);
        let until = Some(now.plus_ms(self.past.length_ms));
        self.out = Some(Out { until, ..out });
        QuarantineChange::Out { until, reason: "the probe run failed".into(), count: out.count }
    }

    fn next_length(&self, rules: &QuarantineRules) -> i64 {
        if self.past.length_ms == 0 {
            rules.base_ms
        } else {
            (self.past.length_ms * 2).min(rules.max_ms.max(rules.base_ms))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> QuarantineRules {
        QuarantineRules {
            consecutive: 5,
            of_ring: 10,
            base_ms: 5 * MINUTE_MS,
            max_ms: 60 * MINUTE_MS,
            sticky_after: 3,
            poison_crashes: 2,
        }
    }

    fn fail(q: &mut Quarantine, minute: i64) -> Option<(Option<i64>, u32)> {
        match q.failed(Ts(minute * MINUTE_MS), &rules()) {
            Some(QuarantineChange::Out { until, count, .. }) => Some((until.map(|t| t.0 / MINUTE_MS), count)),
            _ => None,
        }
    }

    #[test]
    fn a030_five_failures_then_probe_failure_doubles_and_success_ends() {
        let mut q = Quarantine::default();
        for minute in 0..4 {
            assert_eq!(fail(&mut q, minute), None);
        }
        assert_eq!(fail(&mut q, 4), Some((Some(9), 1)));
        assert_eq!(q.admission(Ts(8 * MINUTE_MS)), Admission::Out);
        assert_eq!(q.admission(Ts(9 * MINUTE_MS)), Admission::Probe);
        assert_eq!(fail(&mut q, 9), Some((Some(19), 1)));
        assert_eq!(fail(&mut q, 19), Some((Some(39), 1)));
        assert_eq!(fail(&mut q, 39), Some((Some(79), 1)));
        assert_eq!(fail(&mut q, 79), Some((Some(139), 1)), "60 min is the limit");
        assert_eq!(q.succeeded(), Some(QuarantineChange::Ended));
        assert_eq!(q.admission(Ts(0)), Admission::Free);
    }

    #[test]
    fn two_successes_reset_the_time_and_one_does_not() {
        for (successes, minutes) in [(1, 10), (2, 5)] {
            let mut q = Quarantine::default();
            (0..5).for_each(|m| assert_eq!(fail(&mut q, m).is_some(), m == 4));
            (0..successes).for_each(|n| assert_eq!(q.succeeded().is_some(), n == 0));
            (0..4).for_each(|m| assert_eq!(fail(&mut q, 100 + m), None));
            assert_eq!(fail(&mut q, 104), Some((Some(104 + minutes), 2)));
        }
    }

    #[test]
    fn ten_of_twenty_failures_send_the_key_out() {
        let mut q = Quarantine::default();
        for minute in 0..9 {
            assert_eq!(fail(&mut q, 2 * minute), None);
            assert_eq!(q.succeeded(), None);
        }
        assert_eq!(fail(&mut q, 18), Some((Some(23), 1)));
    }

    #[test]
    fn the_third_quarantine_of_a_day_stays_until_released() {
        let mut q = Quarantine::default();
        for round in 0..3 {
            let mut last = None;
            (0..5).for_each(|m| last = fail(&mut q, round * 100 + m));
            let until = (round < 2).then_some(()).and(last.and_then(|l| l.0));
            assert_eq!(last.map(|l| (l.0, l.1)), Some((until, round as u32 + 1)));
            if round < 2 {
                q.succeeded();
                q.succeeded();
            }
        }
        assert_eq!(q.admission(Ts(i64::MAX)), Admission::Out);
        assert_eq!(q.release(), Some(QuarantineChange::Ended));
        assert_eq!(q.release(), None);
        assert_eq!(q.admission(Ts(0)), Admission::Free);
    }

    /// Two keys with the same history, one of them restarted after every slot.
    #[test]
    fn a_restart_is_no_amnesty() {
        let mut whole = Quarantine::default();
        let mut restarted = Quarantine::default();
        let slots = "FFFFF.f.f.fSSFFFF.FsFFFFFSFFFFF..";
        for (minute, slot) in (0_i64..).zip(slots.chars()) {
            for q in [&mut whole, &mut restarted] {
                match slot {
                    'F' | 'f' => drop(q.failed(Ts(minute * 3 * MINUTE_MS), &rules())),
                    'S' | 's' => drop(q.succeeded()),
                    _ => {}
                }
            }
            let now = Ts(minute * 3 * MINUTE_MS);
            let entry =
                restarted.out.map(|out| QuarantineEntry { until: out.until, reason: String::new(), count: out.count });
            let kept = serde_json::to_string(restarted.past()).unwrap();
            restarted = Quarantine::restored(entry.as_ref(), serde_json::from_str(&kept).unwrap(), now);
            assert_eq!(restarted, whole, "after slot {minute} of {slots}");
        }
        assert!(whole.is_out());
    }

    #[test]
    fn without_what_was_kept_the_journal_alone_counts() {
        let entry = QuarantineEntry { until: Some(Ts(9 * MINUTE_MS)), reason: String::new(), count: 2 };
        let mut q = Quarantine::restored(Some(&entry), Past::default(), Ts(8 * MINUTE_MS));
        assert_eq!(q.admission(Ts(8 * MINUTE_MS)), Admission::Out);
        assert_eq!(fail(&mut q, 9), Some((Some(19), 2)), "a failed probe doubles the base");
        let of_the_future = Past { starts: vec![Ts(90 * MINUTE_MS)], ..Past::default() };
        assert_eq!(Quarantine::restored(None, of_the_future, Ts(0)), Quarantine::default());
    }
}
