//! Tests of the degradation rules of `coordinator`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::risk::fixtures::{dec, degradation};

use DegradationLevel::{Emergency, Limited, Normal, Reduced};

/// A capability alone, with a clock.
struct Bench {
    tracker: Tracker,
    settings: DegradationSettings,
    now: Ts,
}

impl Bench {
    fn new() -> Bench {
        let settings = degradation();
        Bench { tracker: Tracker::new(Normal, &settings, Ts(0)), settings, now: Ts(0) }
    }

    /// One outcome `step` seconds after the last.
    fn see(&mut self, ok: bool, step: i64) -> DegradationLevel {
        self.now = self.now.plus_ms(step * 1000);
        if ok {
            self.tracker.success(&self.settings, Emergency, self.now);
        } else {
            self.tracker.failure("provider/timeout", &self.settings, Emergency, self.now);
        }
        self.tracker.level()
    }

    fn fail(&mut self, count: u32) -> Vec<DegradationLevel> {
        (0..count).map(|_| self.see(false, 10)).collect()
    }

    /// Numbers of the successes at which the level changed, with the level.
    fn recover(&mut self, count: u32, step: i64) -> Vec<(u32, DegradationLevel)> {
        let mut changes = Vec::new();
        for n in 1..=count {
            let before = self.tracker.level();
            let after = self.see(true, step);
            if after != before {
                changes.push((n, after));
            }
        }
        changes
    }
}

#[test]
fn a118_f04_d41_reference_sequences() {
    let mut bench = Bench::new();
    let up = [Normal, Normal, Reduced, Reduced, Reduced, Limited, Limited, Limited, Emergency];
    assert_eq!(bench.fail(9), up);
    assert_eq!(bench.recover(60, 10), [(20, Limited), (32, Reduced), (44, Normal)], "9 failures");

    let mut bench = Bench::new();
    bench.fail(100);
    assert_eq!(bench.recover(60, 10), [(20, Limited), (32, Reduced), (44, Normal)], "no unbounded debt");

    let mut bench = Bench::new();
    bench.fail(3);
    assert_eq!(bench.recover(40, 10), [(20, Normal)], "3 failures");

    let mut bench = Bench::new();
    bench.fail(9);
    assert_eq!(bench.recover(19, 10), []);
    assert_eq!(bench.fail(1), [Emergency]);
    assert_eq!(bench.recover(30, 10)[0], (20, Limited), "20 successes after the last failure");

    let mut bench = Bench::new();
    bench.fail(3);
    assert_eq!(bench.recover(40, 10), [(20, Normal)]);
    bench.fail(3);
    assert_eq!(bench.recover(40, 10), [(24, Normal)], "doubled dwell");
}

#[test]
fn a118_a123_probes_every_30_seconds_leave_emergency_without_anybody() {
    let mut bench = Bench::new();
    bench.fail(9);
    assert_eq!(bench.recover(40, 30), [(20, Limited), (24, Reduced), (28, Normal)]);
}

#[test]
fn one_success_between_failures_does_not_clear_the_count_of_the_window() {
    let mut bench = Bench::new();
    for n in 0..40 {
        bench.see(n % 2 == 0, 10);
    }
    assert_eq!(bench.tracker.level(), Limited, "half of the outcomes fail");
}

#[test]
fn a120_windows_and_dwell_survive_a_restart() {
    let mut bench = Bench::new();
    bench.fail(7);
    let stored = serde_json::to_string(&bench.tracker).unwrap();
    let mut again = Bench { tracker: serde_json::from_str(&stored).unwrap(), ..Bench::new() };
    again.now = bench.now;
    assert_eq!(again.tracker.level(), Limited);
    assert_eq!(again.fail(2), [Limited, Emergency]);
    let by_event = Tracker::new(Limited, &degradation(), Ts(0));
    assert_eq!(by_event.level(), Limited, "the level alone is enough to be no more permissive");
}

fn both() -> Degradation {
    Degradation::new(&[Capability::Llm, Capability::MarketData], &BTreeMap::new(), &degradation(), Ts(0))
}

#[test]
fn a121_d42_each_capability_has_its_own_counters() {
    let (mut all, settings) = (both(), degradation());
    for n in 1..=3 {
        all.failure(Capability::MarketData, "feed/timeout", &settings, Ts(n * 10_000));
    }
    for n in 4..=303 {
        all.success(Capability::Llm, &settings, Ts(n * 10_000));
    }
    assert_eq!((all.level(Capability::MarketData), all.global()), (Reduced, Reduced));
    let mut events = Vec::new();
    for n in 304..=323 {
        events.extend(all.success(Capability::MarketData, &settings, Ts(n * 10_000)));
    }
    let down = Event::DegradationChanged { capability: Capability::MarketData, from: Reduced, to: Normal };
    assert_eq!((events, all.global()), (vec![down], Normal));
}

#[test]
fn a122_d43_failures_of_one_cause_within_a_second_are_one_incident() {
    let (mut all, settings) = (both(), degradation());
    for ms in [0, 400, 1000] {
        assert_eq!(all.failure(Capability::Llm, "local/timeout", &settings, Ts(ms)), None);
    }
    assert_eq!(all.global(), Normal);
    all.failure(Capability::Llm, "local/timeout", &settings, Ts(1001));
    assert!(all.failure(Capability::Llm, "local/refused", &settings, Ts(1002)).is_some(), "another cause counts");
}

#[test]
fn a124_an_open_breaker_with_a_working_chain_is_reduced_and_not_more() {
    let (mut all, settings) = (both(), degradation());
    assert!(all.strained(Capability::Llm, true, &settings, Ts(0)).is_some());
    assert_eq!(all.global(), Reduced);
    assert!(all.strained(Capability::Llm, false, &settings, Ts(120_000)).is_some());
    assert_eq!(all.global(), Normal);
}

/// A month of models had steps down two seconds after the step up.
#[test]
fn a_breaker_that_opens_and_closes_does_not_make_the_level_flap() {
    let (mut all, settings) = (both(), degradation());
    let mut changes = Vec::new();
    for (second, strained) in [(0, true), (2, false), (3, true), (119, false), (119, true), (121, false), (150, true)] {
        let now = Ts(second * 1_000);
        changes.extend(all.strained(Capability::Llm, strained, &settings, now).map(|_| (second, all.global())));
    }
    assert_eq!(changes, [(0, Reduced), (121, Normal), (150, Reduced)]);
    // Outcomes brought it to LIMITED and back to REDUCED: that is a change as well.
    let mut at = 200;
    while all.global() < Limited {
        all.failure(Capability::Llm, &format!("incident {at}"), &settings, Ts(at * 1_000));
        at += 10;
    }
    while all.global() > Reduced {
        all.success(Capability::Llm, &settings, Ts(at * 1_000));
        at += 10;
    }
    // The outcomes alone would be at NORMAL by then.
    for _ in 0..100 {
        at += 10;
        all.success(Capability::Llm, &settings, Ts(at * 1_000));
    }
    assert_eq!(all.level(Capability::Llm), Reduced, "the breaker is open");
    assert!(all.strained(Capability::Llm, false, &settings, Ts((at + 1) * 1_000)).is_some(), "long since a change");
}

#[test]
fn a125_d38_d44_nothing_is_looser_when_degraded() {
    let settings = degradation();
    assert_eq!(size_factor(Reduced, &settings), dec("0.5"));
    assert!(
        !allows_sentiment(Reduced) && !allows_plans(Reduced) && allows_decisions(Reduced) && allows_entries(Reduced)
    );
    assert!(!allows_entries(Limited) && !allows_resolver(Limited) && allows_decisions(Limited));
    assert!(allows_model_voters(Limited, true) && !allows_model_voters(Limited, false));
    assert!(!allows_decisions(Emergency) && !allows_model_opinions(Emergency) && !allows_model_voters(Emergency, true));
    for pair in LEVELS.windows(2) {
        let (better, worse) = (pair[0], pair[1]);
        for allowed in [allows_entries, allows_plans, allows_sentiment, allows_decisions, allows_resolver] {
            assert!(allowed(better) || !allowed(worse), "{better:?} -> {worse:?}");
        }
        assert!(size_factor(better, &settings) >= size_factor(worse, &settings));
    }
}

#[test]
fn a127_d45_direction_is_compared() {
    assert_eq!((direction(Limited, Reduced), direction(Normal, Emergency)), ("down", "up"));
}

#[test]
fn a133_sentiment_never_makes_more_than_reduced() {
    let settings = degradation();
    let mut all = Degradation::new(&[Capability::Sentiment], &BTreeMap::new(), &settings, Ts(0));
    for n in 0..100 {
        all.failure(Capability::Sentiment, "news/timeout", &settings, Ts(n * 1_800_000));
    }
    assert_eq!(all.global(), Reduced);
    all.set_floor(Limited);
    assert_eq!(all.global(), Limited, "abandoned work");
}

/// What one simulated day did.
#[derive(Default)]
struct Day {
    transitions: u32,
    occupancy: u64,
}

/// 8640 outcomes, 10 s apart.
fn day(mut fails: impl FnMut(u32) -> bool) -> Day {
    let mut bench = Bench::new();
    let mut result = Day::default();
    let mut last = None;
    for n in 0..8640 {
        let before = bench.tracker.level();
        let after = bench.see(!fails(n), 10);
        if after != before {
            result.transitions += 1;
            if after < before {
                assert!(last.is_none_or(|at| bench.now.since_ms(at) >= 120_000), "a step down within the dwell");
            }
            last = Some(bench.now);
        }
        result.occupancy += after as u64;
    }
    result
}

fn random(p: f64, seed: u64) -> impl FnMut(u32) -> bool {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1;
    move |_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        ((word.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64) / (1u64 << 53) as f64 <= p && p > 0.0
    }
}

#[test]
fn a119_f04_transitions_per_day_stay_within_the_table() {
    // Failure probability, mean of the reference table, allowed distance of our mean.
    for (p, mean, spread) in [
        (0.02, 0.1, 0.5),
        (0.05, 2.4, 1.5),
        (0.10, 15.8, 3.0),
        (0.20, 23.4, 3.0),
        (0.30, 11.1, 3.0),
        (0.50, 3.8, 2.0),
        (0.80, 2.5, 1.0),
    ] {
        let days: Vec<u32> = (1..=20).map(|seed| day(random(p, seed)).transitions).collect();
        let ours = days.iter().sum::<u32>() as f64 / 20.0;
        assert!(
            (ours - mean).abs() <= spread,
            "p = {p}: mean {ours}, reference {mean}, days of seeds 1..=20: {days:?}"
        );
    }
    assert_eq!(day(|n| n % 2 == 0).transitions, 1, "alternating");
    assert_eq!(day(|n| n % 8 < 4).transitions, 2, "bursts of 4");
    assert_eq!(day(|n| n % 24 < 12).transitions, 3, "bursts of 12");
}

#[test]
fn a119_limits_hold_for_every_failure_rate() {
    let mut occupancy = Vec::new();
    for step in 0..=20 {
        let p = f64::from(step) / 20.0;
        let days: Vec<Day> = (1..=6).map(|seed| day(random(p, seed))).collect();
        assert!(days.iter().all(|day| day.transitions <= 30), "p = {p}, seeds 1..=6");
        if step == 10 {
            assert!(days.iter().all(|day| day.transitions <= 10), "p = 0.5, seeds 1..=6");
        }
        occupancy.push(days.iter().map(|day| day.occupancy).sum::<u64>());
    }
    assert!(occupancy.windows(2).all(|pair| pair[0] <= pair[1] + pair[1] / 50), "{occupancy:?}");
}

#[test]
fn a119_recovery_after_a_long_outage_is_bounded() {
    let mut bench = Bench::new();
    bench.fail(60);
    assert_eq!(bench.recover(60, 10).last(), Some(&(44, Normal)), "440 s");
}

#[test]
fn with_a_merge_window_of_zero_two_failures_of_one_instant_count_twice() {
    let mut bench = Bench::new();
    for (window, left) in [(1_000, Normal), (0, Reduced)] {
        bench.tracker = Tracker::new(Normal, &bench.settings, Ts(0));
        bench.settings.incident_merge_ms = window;
        for _ in 0..3 {
            bench.see(false, 0);
        }
        assert_eq!(bench.tracker.level(), left, "{window} ms");
    }
}

#[test]
fn what_passed_on_a_spotless_capability_is_remembered_as_the_same_successes_are() {
    let settings = degradation();
    let fresh = || Degradation::new(&[Capability::MarketData], &BTreeMap::new(), &settings, Ts(0));
    let instants: Vec<Ts> = (1..100).map(|i| Ts(i * 10_000)).collect();
    let (mut one, mut all) = (fresh(), fresh());
    for at in &instants {
        assert_eq!(one.success(Capability::MarketData, &settings, *at), None);
    }
    all.passed(Capability::MarketData, &instants, &settings);
    assert_eq!(one, all);
    // After a failure they could bring a level down or up: then each one counts for itself.
    assert!(one.is_spotless(Capability::MarketData));
    let _ = one.failure(Capability::MarketData, "silent", &settings, Ts(1_000_000));
    assert!(!one.is_spotless(Capability::MarketData));
    let before = one.clone();
    one.passed(Capability::MarketData, &[Ts(1_010_000)], &settings);
    assert_eq!(one, before);
}

#[test]
fn one_failure_among_the_kept_outcomes_leaves_a_spot() {
    let mut bench = Bench::new();
    assert!(bench.tracker.is_spotless());
    bench.see(false, 10);
    bench.see(true, 10);
    assert!(!bench.tracker.is_spotless(), "a success afterwards does not wipe it off");
}

#[test]
fn as_many_outcomes_are_kept_as_the_longest_window_has_and_none_older_than_an_hour() {
    let mut bench = Bench::new();
    for _ in 0..70 {
        bench.see(true, 10);
    }
    assert_eq!(bench.tracker.at.len(), bench.settings.recover_window as usize);
    let hour = i64::from(bench.settings.sample_max_age_minutes) * 60;
    let mut bench = Bench::new();
    bench.see(true, 0);
    bench.see(true, hour);
    assert_eq!(bench.tracker.at.len(), 2, "exactly an hour old");
    let mut bench = Bench::new();
    bench.see(true, 0);
    bench.see(true, hour + 1);
    assert_eq!(bench.tracker.at.len(), 1);
}

#[test]
fn a_level_reached_at_no_failures_needs_a_failure() {
    let mut bench = Bench::new();
    bench.settings.escalate_rates = [0.0, 0.5, 0.8];
    for _ in 0..30 {
        assert_eq!(bench.see(true, 10), Normal);
    }
    assert_eq!(bench.see(false, 10), Reduced);
}

#[test]
fn a_level_is_left_by_its_own_rate_over_a_full_window_and_five_successes_in_a_row() {
    let mut bench = Bench::new();
    let mut left = None;
    for n in 1..=90 {
        // Three failures, then one in twenty: never twenty successes in a row.
        let failed = n <= 3 || (n >= 21 && (n - 21) % 20 == 0);
        let level = bench.see(!failed, 10);
        if n == 60 {
            assert_eq!(level, Reduced, "5 of 60 are more than the 5 % of REDUCED, and less than what LIMITED needs");
        }
        if n > 3 && level == Normal {
            left = Some(n);
            break;
        }
    }
    // The window 4..63 has three failures, the newest at 61; the fifth success in a row is 66.
    assert_eq!(left, Some(66));
}

#[test]
fn what_each_level_allows() {
    type Allows = fn(DegradationLevel) -> bool;
    let table: [(&str, Allows, [bool; 4]); 6] = [
        ("plans", allows_plans, [true, false, false, false]),
        ("sentiment", allows_sentiment, [true, false, false, false]),
        ("entries", allows_entries, [true, true, false, false]),
        ("resolver", allows_resolver, [true, true, false, false]),
        ("decisions", allows_decisions, [true, true, true, false]),
        ("model opinions", allows_model_opinions, [true, true, true, false]),
    ];
    for (what, allows, expected) in table {
        assert_eq!([Normal, Reduced, Limited, Emergency].map(allows), expected, "{what}");
    }
    assert_eq!(
        [Normal, Reduced, Limited, Emergency].map(|level| allows_model_voters(level, true)),
        [true, true, true, false]
    );
    assert_eq!(
        [Normal, Reduced, Limited, Emergency].map(|level| allows_model_voters(level, false)),
        [true, true, false, false]
    );
}
