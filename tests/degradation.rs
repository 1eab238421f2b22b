//! Measures the degradation level and the provider breaker over whole days, for every failure rate from 0 to 1, and
//! holds them to their limits; `docs/degradation.md` says what is measured here (`DEGRADATION_WRITE=1` writes it).
//! A day is 8 640 outcomes, 10 s apart; every rate sees the same draws. Seeds are 1..=100, without optimisation 1..=10,
//! where the means may lie further off and the document is not compared.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{fmt::Write, path::Path, sync::OnceLock, thread};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triplegain::{
    coordinator::degradation::Tracker,
    model::{DegradationLevel, Ts},
    providers::breaker::{Breaker, BreakerState, Outcome},
    settings::{DegradationSettings, Settings},
};

const DAY: usize = 8_640;
const STEP_MS: i64 = 10_000;

/// 100 with optimisation or when the document is written; 10 else, because a whole measurement is 90 million outcomes.
fn seeds() -> u64 {
    if cfg!(debug_assertions) && std::env::var_os("DEGRADATION_WRITE").is_none() { 10 } else { 100 }
}

/// A capability alone, with a clock, and what the limits speak of.
struct Watched<'a> {
    tracker: Tracker,
    settings: &'a DegradationSettings,
    now: Ts,
    last: Option<Ts>,
    transitions: u32,
    /// Sum of the level over all outcomes.
    occupancy: u64,
    /// Shortest time between a step down and the change before it.
    shortest_ms: i64,
}

impl Watched<'_> {
    fn new(settings: &DegradationSettings) -> Watched<'_> {
        Watched {
            tracker: Tracker::new(DegradationLevel::Normal, settings, Ts(0)),
            settings,
            now: Ts(0),
            last: None,
            transitions: 0,
            occupancy: 0,
            shortest_ms: i64::MAX,
        }
    }

    fn see(&mut self, failed: bool) -> DegradationLevel {
        self.now = self.now.plus_ms(STEP_MS);
        let before = self.tracker.level();
        if failed {
            self.tracker.failure("", self.settings, DegradationLevel::Emergency, self.now);
        } else {
            self.tracker.success(self.settings, DegradationLevel::Emergency, self.now);
        }
        let after = self.tracker.level();
        if after != before {
            self.transitions += 1;
            if after < before {
                let since = self.last.map_or(i64::MAX, |last| self.now.since_ms(last));
                self.shortest_ms = self.shortest_ms.min(since);
            }
            self.last = Some(self.now);
        }
        self.occupancy += after as u64;
        after
    }

    /// Failures from now on until EMERGENCY.
    fn outage(&mut self) -> u32 {
        (1..=100).find(|_| self.see(true) == DegradationLevel::Emergency).unwrap_or(u32::MAX)
    }

    /// Successes from now on until NORMAL.
    fn recovery(&mut self) -> u32 {
        (1..=10_000).find(|_| self.see(false) == DegradationLevel::Normal).unwrap_or(u32::MAX)
    }
}

/// All seeds of one failure rate.
#[derive(Default)]
struct Rate {
    percent: u32,
    transitions: Vec<u32>,
    occupancy: u64,
    shortest_ms: i64,
    /// Most failures until EMERGENCY when an outage follows the day.
    detection: u32,
    /// Most successes until NORMAL after that.
    recovery: u32,
}

impl Rate {
    fn mean(&self) -> f64 {
        f64::from(self.transitions.iter().sum::<u32>()) / self.transitions.len() as f64
    }

    fn max(&self) -> u32 {
        self.transitions.iter().copied().max().unwrap()
    }

    /// Mean level over all outcomes, 0..3.
    fn level(&self) -> f64 {
        self.occupancy as f64 / (DAY * self.transitions.len()) as f64
    }
}

fn rate(percent: u32, settings: &DegradationSettings) -> Rate {
    let mut result = Rate { percent, shortest_ms: i64::MAX, ..Rate::default() };
    for seed in 1..=seeds() {
        // The same draws for every rate, so that rates are compared and not luck.
        let mut draws = ChaCha8Rng::seed_from_u64(seed);
        let mut day = Watched::new(settings);
        for _ in 0..DAY {
            day.see(draws.random_range(0..100) < percent);
        }
        result.transitions.push(day.transitions);
        result.occupancy += day.occupancy;
        let already = day.tracker.level() == DegradationLevel::Emergency;
        result.detection = result.detection.max(if already { 0 } else { day.outage() });
        result.recovery = result.recovery.max(day.recovery());
        result.shortest_ms = result.shortest_ms.min(day.shortest_ms);
    }
    result
}

/// Every whole percentage, measured once per process on all cores.
fn rates() -> &'static [Rate] {
    static RATES: OnceLock<Vec<Rate>> = OnceLock::new();
    RATES.get_or_init(|| {
        let settings = Settings::defaults().degradation;
        let workers = thread::available_parallelism().map_or(1, |n| n.get()) as u32;
        let mut all: Vec<Rate> = thread::scope(|scope| {
            let share = |worker: u32| (worker..=100).step_by(workers as usize);
            let settings = &settings;
            let run = |worker| scope.spawn(move || share(worker).map(|p| rate(p, settings)).collect::<Vec<_>>());
            let running: Vec<_> = (0..workers).map(run).collect();
            running.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        all.sort_by_key(|rate| rate.percent);
        all
    })
}

fn pattern(settings: &DegradationSettings, fails: impl Fn(usize) -> bool) -> Watched<'_> {
    let mut day = Watched::new(settings);
    for n in 0..DAY {
        day.see(fails(n));
    }
    day
}

const ROWS: [(u32, f64, f64); 7] =
    // Percentage, mean of the reference, allowed distance of our mean (the spread of its 20 to 60 seeds).
    [
        (2, 0.1, 0.3),
        (5, 2.4, 1.0),
        (10, 15.8, 1.5),
        (20, 23.4, 1.5),
        (30, 11.1, 2.0),
        (50, 3.8, 1.0),
        (80, 2.5, 0.5),
    ];

#[test]
fn a119_f04_the_reference_means_are_reproduced() {
    for (percent, mean, spread) in ROWS {
        let spread = if seeds() == 100 { spread } else { spread * 3.0 };
        let measured = rates()[percent as usize].mean();
        assert!(
            (measured - mean).abs() <= spread,
            "{percent} %: {measured:.1}, reference {mean}, seeds 1..={}",
            seeds()
        );
    }
}

/// Days with more than `limit` changes: rate, seed, changes.
fn days_over(limit: u32) -> Vec<(u32, usize, u32)> {
    let of = |rate: &'static Rate| rate.transitions.iter().enumerate().map(|(at, n)| (rate.percent, at + 1, *n));
    rates().iter().flat_map(of).filter(|(_, _, changes)| *changes > limit).collect()
}

/// The limit of 30 is one of chance: the rule as written, told twice (see below), passes it on about two days of a
/// thousand between 14 % and 21 %. So it is held as a share, and the document names the days.
#[test]
fn a119_more_than_30_changes_a_day_are_rarer_than_one_day_in_a_thousand() {
    let over = days_over(30);
    let days = rates().len() * seeds() as usize;
    assert!(over.len() * 1000 <= days, "{} of {days} days: {over:?} (percent, seed, changes)", over.len());
    let half = rates()[50].max();
    assert!(half <= 10, "50 %: {half} changes, seeds 1..={}", seeds());
}

/// The level once more, written from its text without a look at the program: slow, with plain lists.
#[derive(Default)]
struct Retold {
    outcomes: Vec<bool>,
    level: usize,
    since: i64,
    dwell: i64,
    last_down: Option<i64>,
    last: Option<i64>,
}

impl Retold {
    fn see(&mut self, failed: bool, now: i64) -> usize {
        self.outcomes.push(failed);
        let of = |n: usize| &self.outcomes[self.outcomes.len().saturating_sub(n)..];
        let share = |n: usize| of(n).iter().filter(|f| **f).count() as f64 / of(n).len() as f64;
        let run = |n: usize, failed: bool| of(n).len() == n && of(n).iter().all(|f| *f == failed);
        if self.dwell == 0 || self.last.is_some_and(|last| now - last >= 14_400) {
            self.dwell = 120;
        }
        let rate = if of(30).len() >= 10 { share(30) } else { 0.0 };
        let up = [(0.30, 3), (0.50, 6), (0.80, 9)].iter().rposition(|(r, n)| rate >= *r || run(*n, true));
        let target = up.map_or(0, |i| i + 1);
        let full = of(60).len() == 60;
        let calm = |level: usize| full && share(60) <= [0.05, 0.15, 0.30][level - 1] && run(5, false);
        if target > self.level {
            if self.last_down.is_some_and(|down| now - down <= 7200) {
                self.dwell = (self.dwell * 2).min(7200);
            }
            (self.level, self.since, self.last) = (target, now, Some(now));
        } else if self.level > 0 && now - self.since >= self.dwell && (calm(self.level) || run(20, false)) {
            (self.level, self.since, self.last, self.last_down) = (self.level - 1, now, Some(now), Some(now));
        }
        self.level
    }
}

#[test]
fn a118_a119_the_rule_told_twice_gives_the_same_levels() {
    let settings = Settings::defaults().degradation;
    for percent in [2, 5, 8, 10, 13, 17, 20, 25, 30, 40, 50, 80, 95] {
        for seed in 1..=2 {
            let mut draws = ChaCha8Rng::seed_from_u64(seed);
            let (mut ours, mut retold) = (Watched::new(&settings), Retold::default());
            for n in 1..=DAY {
                let failed = draws.random_range(0..100) < percent;
                let level = ours.see(failed) as usize;
                assert_eq!(level, retold.see(failed, n as i64 * 10), "{percent} %, seed {seed}, outcome {n}");
            }
        }
    }
}

#[test]
fn a119_no_step_down_comes_within_the_dwell() {
    for rate in rates() {
        assert!(rate.shortest_ms >= 120_000, "{} %: {} ms, seeds 1..={}", rate.percent, rate.shortest_ms, seeds());
    }
}

#[test]
fn a119_an_outage_is_detected_in_nine_failures_whatever_went_before() {
    for rate in rates() {
        assert!(rate.detection <= 9, "{} %: {} failures, seeds 1..={}", rate.percent, rate.detection, seeds());
    }
}

#[test]
fn a119_the_mean_level_grows_with_the_failure_rate() {
    for pair in rates().windows(2) {
        let (less, more) = (pair[0].level(), pair[1].level());
        assert!(less <= more, "{} %: {less}, {} %: {more}", pair[0].percent, pair[1].percent);
    }
}

#[test]
fn a119_the_four_patterns() {
    let settings = Settings::defaults().degradation;
    assert_eq!(pattern(&settings, |n| n % 2 == 0).transitions, 1, "alternating");
    assert_eq!(pattern(&settings, |n| n % 8 < 4).transitions, 2, "bursts of 4");
    assert_eq!(pattern(&settings, |n| n % 24 < 12).transitions, 3, "bursts of 12");
    for length in 1..=600 {
        let mut day = Watched::new(&settings);
        let reached: Vec<u32> = (1..=length)
            .filter(|_| {
                let t = day.transitions;
                day.see(true);
                day.transitions > t
            })
            .collect();
        let expected: Vec<u32> = [3, 6, 9].into_iter().filter(|n| *n <= length).collect();
        assert_eq!(reached, expected, "an outage of {length}");
        if length >= 3 {
            let successes = day.recovery();
            assert!(successes <= 60, "after {length} failures: {successes} successes, 10 s apart");
        }
    }
}

// ---- the breaker

const SECONDS: i64 = 86_400;

/// Share of calls let through in a day at one call per second.
fn let_through(percent: u32, seed: u64) -> f64 {
    let (mut breaker, limits) = (Breaker::default(), Settings::defaults().breaker);
    let mut draws = ChaCha8Rng::seed_from_u64(seed);
    let mut passed = 0;
    for second in 0..SECONDS {
        let now = Ts(second * 1000);
        let failed = draws.random_range(0..100) < percent;
        let jitter = draws.random_range(-1.0..=1.0);
        if let Ok(ticket) = breaker.admit(now) {
            passed += 1;
            let outcome = if failed { Outcome::Failed } else { Outcome::Answered { took_ms: 1, timeout_ms: 1000 } };
            breaker.record(ticket, outcome, &limits, jitter, now);
        }
    }
    assert!(percent > 0 || breaker.state() == BreakerState::Closed);
    100.0 * passed as f64 / SECONDS as f64
}

fn shares(percent: u32) -> Vec<f64> {
    (1..=seeds().min(20)).map(|seed| let_through(percent, seed)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Percentage of failures, reference share in percent, allowed distance of the mean.
const SHARES: [(u32, f64, f64); 5] =
    [(10, 100.0, 0.1), (20, 99.7, 0.3), (30, 70.0, 5.0), (50, 3.2, 0.5), (95, 0.7, 0.1)];

#[test]
fn a128_a129_the_share_of_calls_let_through() {
    for (percent, reference, spread) in SHARES {
        let measured = shares(percent);
        assert!((mean(&measured) - reference).abs() <= spread, "{percent} %: {measured:?}, reference {reference}");
    }
}

// ---- the document

const HEAD: &str = "# Degradation and provider breaker, measured

How often the level of a capability changes, how soon it sees an outage and how long it takes to come back; and which
share of calls the breaker of one provider lets through. Rules: `src/coordinator/degradation.rs`,
`src/providers/breaker.rs`, with the defaults of `config/default.toml`. Nothing here is written by hand:

```
cargo test --release --test degradation                        # measures, and fails when this page says otherwise
DEGRADATION_WRITE=1 cargo test --release --test degradation     # writes this page
```

A day is 8 640 outcomes, 10 s apart, failing at random with probability p. Seeds 1 to 100; every p sees the same draws.
";

fn patterns(text: &mut String) {
    let settings = Settings::defaults().degradation;
    let rows: [(&str, Watched); 4] = [
        ("alternating failure and success", pattern(&settings, |n| n % 2 == 0)),
        ("bursts of 4 failures and 4 successes", pattern(&settings, |n| n % 8 < 4)),
        ("bursts of 12 failures and 12 successes", pattern(&settings, |n| n % 24 < 12)),
        ("one outage of 60 failures, then successes", pattern(&settings, |n| n < 60)),
    ];
    writeln!(text, "\n## Patterns\n\n| pattern | changes a day | mean level |\n|---|---|---|").unwrap();
    for (name, day) in rows {
        writeln!(text, "| {name} | {} | {:.2} |", day.transitions, day.occupancy as f64 / DAY as f64).unwrap();
    }
    let mut day = Watched::new(&settings);
    let detected = day.outage();
    (detected..60).for_each(|_| {
        day.see(true);
    });
    let recovery = i64::from(day.recovery()) * STEP_MS / 1000;
    writeln!(text, "\nFrom calm: EMERGENCY at failure {detected}; after 60 failures NORMAL again in {recovery} s.")
        .unwrap();
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    let columns =
        "changes a day, mean | most | mean level (0 to 3) | failures until EMERGENCY, most | s until NORMAL, most";
    writeln!(text, "\n## Random failures\n\n| p | {columns} |\n|---|---|---|---|---|---|").unwrap();
    for rate in rates() {
        let (p, seconds) = (f64::from(rate.percent) / 100.0, i64::from(rate.recovery) * STEP_MS / 1000);
        let found = if rate.detection == 0 { "there already".to_owned() } else { rate.detection.to_string() };
        let (mean, most, level) = (rate.mean(), rate.max(), rate.level());
        writeln!(text, "| {p:.2} | {mean:.1} | {most} | {level:.3} | {found} | {seconds} |").unwrap();
    }
    let shortest = rates().iter().map(|rate| rate.shortest_ms).min().unwrap() / 1000;
    let over: Vec<String> =
        days_over(30).iter().map(|(p, seed, n)| format!("{n} at p = 0.{p:02} with seed {seed}")).collect();
    let days = rates().len() * seeds() as usize;
    let over = if over.is_empty() { "none".to_owned() } else { over.join(", ") };
    write!(
        text,
        "\nThe last two columns are what an outage right after such a day shows, and the successes after it: a dwell that\n\
         relapses have doubled (to 2 h at most) makes the way back long, by design. From calm it is below.\n\n\
         Shortest time between a step down and the change before it: {shortest} s. Days with more than 30 changes, of {days}: {over}.\n\
         Thirty is no bound of the rule but of chance; the rule retold without the program's code gives the same levels.\n"
    )
    .unwrap();
    patterns(&mut text);
    let head = "| p | mean share let through | least | most |\n|---|---|---|---|";
    writeln!(text, "\n## Provider breaker, one call per second for a day, 20 seeds\n\n{head}").unwrap();
    for (percent, _, _) in SHARES {
        let all = shares(percent);
        let (least, most) = all.iter().fold((f64::MAX, 0.0_f64), |(l, m), share| (l.min(*share), m.max(*share)));
        let (p, mean) = (f64::from(percent) / 100.0, mean(&all));
        writeln!(text, "| {p:.2} | {mean:.1} % | {least:.1} % | {most:.1} % |").unwrap();
    }
    text
}

#[test]
fn the_document_says_what_is_measured() {
    if seeds() < 100 {
        return println!("not compared: {} seeds only; run with --release or DEGRADATION_WRITE=1", seeds());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/degradation.md");
    let measured = document();
    if std::env::var_os("DEGRADATION_WRITE").is_some() {
        std::fs::write(&path, &measured).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == measured,
        "docs/degradation.md is out of date; run with DEGRADATION_WRITE=1. Measured:\n{measured}"
    );
}
