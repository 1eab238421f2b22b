//! Counters with exact meaning (§9). Counting only.

use crate::model::{RunKey, RunOutcome, SkipReason, Ts};

/// Number of skip reasons.
pub const REASONS: usize = SkipReason::DataStale as usize + 1;
/// Durations below this many milliseconds have a bucket each.
const EXACT: usize = 101;
/// Number of histogram buckets.
pub const BUCKETS: usize = EXACT + 18;

/// Durations: exact milliseconds up to 100 ms, then by power of two (101..=127, 128..=255, …), the last one everything
/// longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// Counts.
    pub buckets: [u64; BUCKETS],
    /// Longest, milliseconds.
    pub max_ms: i64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], max_ms: 0 }
    }
}

impl Histogram {
    /// Counts one duration; negative ones count as 0.
    pub fn record(&mut self, ms: i64) {
        let ms = ms.max(0);
        let exact = usize::try_from(ms).ok().filter(|ms| *ms < EXACT);
        // 101 ms needs seven bits: the first coarse bucket.
        let bucket = exact.unwrap_or_else(|| (i64::BITS - ms.leading_zeros()) as usize - 7 + EXACT);
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.max_ms = self.max_ms.max(ms);
    }

    /// The duration that a share of 0..=1 of all records do not exceed, to the resolution of the buckets, ms.
    pub fn quantile(&self, share: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let wanted = (share * total as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                if bucket == BUCKETS - 1 {
                    return self.max_ms as f64;
                }
                let longest = if bucket < EXACT { bucket as i64 } else { (1_i64 << (bucket - EXACT + 7)) - 1 };
                return longest.min(self.max_ms) as f64;
            }
        }
        0.0
    }
}

/// Counters of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyCounts {
    /// Grid slots accounted one by one: run or skipped.
    pub claimed: u64,
    /// Grid slots that passed unseen.
    pub missed: u64,
    /// Attempts begun.
    pub started: u64,
    /// Accepted successes.
    pub succeeded: u64,
    /// No opinion.
    pub abstained: u64,
    /// Failures.
    pub failed: u64,
    /// Deadlines passed.
    pub timed_out: u64,
    /// Found at boot or cut off by shutdown.
    pub interrupted: u64,
    /// Failures that were panics.
    pub panics: u64,
    /// Slots and requests that ended without a run.
    pub skipped: u64,
}

impl KeyCounts {
    pub(super) fn count(&mut self, outcome: &RunOutcome) {
        match outcome {
            RunOutcome::Succeeded => self.succeeded += 1,
            RunOutcome::Abstained(_) => self.abstained += 1,
            RunOutcome::Failed(cause) => {
                self.failed += 1;
                self.panics += u64::from(cause.class == crate::model::FailClass::Panic);
            }
            RunOutcome::TimedOut(_) => self.timed_out += 1,
            RunOutcome::Interrupted => self.interrupted += 1,
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.succeeded + self.abstained + self.failed + self.timed_out + self.interrupted
    }
}

/// Counters of the whole scheduler that are no sums of the keys'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// By [`SkipReason`] as index.
    pub skipped: [u64; REASONS],
    /// Further attempts planned.
    pub retries: u64,
    /// Runs requested by waiting dependents.
    pub pulls: u64,
    /// Results of runs that were not running any more.
    pub late_results: u64,
    /// From admission to start.
    pub queue_wait: Histogram,
    /// From start to end.
    pub run_duration: Histogram,
    /// From due to start.
    pub start_lateness: Histogram,
    /// Most runs at once.
    pub peak_running: u32,
}

/// One key in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyStats {
    /// Which.
    pub key: RunKey,
    /// Its counters.
    pub counts: KeyCounts,
    /// Running now (a cancelled run has ended).
    pub running: bool,
    /// Waiting for a permit now.
    pub queued: bool,
    /// Newest claimed slot.
    pub last_slot: i64,
    /// Absent while switched off in the settings.
    pub next_due: Option<Ts>,
    /// Newest start.
    pub last_started: Option<Ts>,
    /// Newest end.
    pub last_finished: Option<Ts>,
    /// Newest success.
    pub last_succeeded: Option<Ts>,
    /// Milliseconds since the newest success, or since boot without one.
    pub starvation_ms: i64,
    /// Out, probe included.
    pub quarantined: bool,
}

/// One consistent answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Sums over all keys.
    pub sums: KeyCounts,
    /// The rest.
    pub totals: Totals,
    /// Runs holding a permit, cancelled ones included.
    pub running: u32,
    /// Entries of the queue.
    pub queued: u32,
    /// Oldest entry of the queue, milliseconds.
    pub oldest_wait_ms: i64,
    /// Runs that ignored their cancellation and have not been heard of since.
    pub abandoned: u32,
    /// Ordered by task (dependencies first) and symbol.
    pub keys: Vec<KeyStats>,
}

impl Stats {
    /// Skips for one reason.
    pub fn skipped(&self, reason: SkipReason) -> u64 {
        self.totals.skipped[reason as usize]
    }
}

impl KeyCounts {
    pub(super) fn add(&mut self, other: &KeyCounts) {
        self.claimed += other.claimed;
        self.missed += other.missed;
        self.started += other.started;
        self.succeeded += other.succeeded;
        self.abstained += other.abstained;
        self.failed += other.failed;
        self.timed_out += other.timed_out;
        self.interrupted += other.interrupted;
        self.panics += other.panics;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_up_to_100_ms() {
        let mut lateness = Histogram::default();
        (1..=100).for_each(|ms| lateness.record(ms));
        assert_eq!([0.5, 0.99, 1.0].map(|share| lateness.quantile(share)), [50.0, 99.0, 100.0]);
        lateness.record(-5);
        [101, 127, 128, 255, i64::MAX].into_iter().for_each(|ms| lateness.record(ms));
        assert_eq!(lateness.buckets[EXACT..EXACT + 2], [2, 2]);
        assert_eq!((lateness.buckets[0], lateness.buckets[BUCKETS - 1], lateness.max_ms), (1, 1, i64::MAX));
        assert_eq!(Histogram::default().quantile(0.99), 0.0);
    }
}
