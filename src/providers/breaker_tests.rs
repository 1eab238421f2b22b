//! Tests of the provider breaker, by the ids of the acceptance scenarios they hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const OK: Outcome = Outcome::Answered { took_ms: 100, timeout_ms: 1000 };

/// A breaker with a clock; calls one second apart, no jitter.
struct Bench {
    breaker: Breaker,
    limits: ProviderBreakerSettings,
    now: Ts,
    jitter: f64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            breaker: Breaker::default(),
            limits: crate::settings::Settings::defaults().breaker,
            now: Ts(0),
            jitter: 0.0,
        }
    }

    fn call(&mut self, outcome: Outcome) -> Result<BreakerState, Refused> {
        self.now = self.now.plus_ms(1000);
        let ticket = self.breaker.admit(self.now)?;
        self.breaker.record(ticket, outcome, &self.limits, self.jitter, self.now);
        Ok(self.breaker.state())
    }

    /// Milliseconds from now until probes pass.
    fn open_for(&self) -> i64 {
        let BreakerState::Open { until } = self.breaker.state() else { panic!("{:?}", self.breaker.state()) };
        until.since_ms(self.now)
    }

    fn wait(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    fn opened() -> Bench {
        let mut bench = Bench::new();
        for _ in 0..6 {
            bench.call(Outcome::Failed).unwrap();
        }
        bench
    }
}

#[test]
fn a128_six_failures_open_it_and_four_of_five_probes_close_it() {
    for (jitter, open_ms) in [(0.0, 30_000), (1.0, 36_000), (-1.0, 24_000), (7.0, 36_000)] {
        let mut bench = Bench { jitter, ..Bench::new() };
        for n in 1..=6 {
            assert_eq!(bench.call(Outcome::Failed).unwrap() == BreakerState::Closed, n < 6, "failure {n}");
        }
        assert_eq!(bench.open_for(), open_ms);
        bench.wait(open_ms - 1001);
        assert!(matches!(bench.call(OK), Err(Refused::Until(_))), "one millisecond early");
        bench.wait(-999);
        assert_eq!(bench.call(OK), Ok(BreakerState::HalfOpen));
        assert_eq!(bench.call(Outcome::Failed), Ok(BreakerState::HalfOpen), "one of five may fail");
        assert_eq!(bench.call(OK), Ok(BreakerState::HalfOpen));
        assert_eq!(bench.call(OK), Ok(BreakerState::HalfOpen));
        assert_eq!(bench.call(OK), Ok(BreakerState::Closed));
        for _ in 0..5 {
            assert_eq!(bench.call(Outcome::Failed), Ok(BreakerState::Closed), "counters are cleared");
        }
    }
}

#[test]
fn a128_probes_go_one_after_another() {
    let mut bench = Bench::opened();
    bench.wait(30_000);
    let ticket = bench.breaker.admit(bench.now).unwrap();
    assert!(ticket.is_probe());
    assert_eq!(bench.breaker.admit(bench.now), Err(Refused::Probing));
    bench.breaker.abandon(ticket);
    assert!(bench.breaker.admit(bench.now).unwrap().is_probe(), "an abandoned probe does not block the next");
}

#[test]
fn a128_two_failed_probes_open_it_again() {
    let mut bench = Bench::opened();
    bench.wait(30_000);
    bench.call(Outcome::Failed).unwrap();
    assert!(matches!(bench.call(Outcome::Failed), Ok(BreakerState::Open { .. })));
}

#[test]
fn a129_opening_again_within_the_window_doubles_the_time_up_to_its_limit() {
    let mut bench = Bench::opened();
    let mut times = vec![bench.open_for()];
    for _ in 0..5 {
        bench.wait(bench.open_for());
        bench.call(Outcome::Failed).unwrap();
        bench.call(Outcome::Failed).unwrap();
        times.push(bench.open_for());
    }
    assert_eq!(times, [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
    bench.wait(300_000);
    for _ in 0..4 {
        bench.call(OK).unwrap();
    }
    bench.wait(900_000);
    for _ in 0..6 {
        bench.call(Outcome::Failed).unwrap();
    }
    assert_eq!(bench.open_for(), 30_000, "calm for longer than the window");
}

#[test]
fn half_of_the_window_opens_it_from_twenty_calls_on() {
    let mut bench = Bench::new();
    for n in 1..=20 {
        let state = bench.call(if n % 2 == 0 { Outcome::Failed } else { OK }).unwrap();
        assert_eq!(state == BreakerState::Closed, n < 20, "call {n}");
    }
    let mut bench = Bench::new();
    for n in 0..400 {
        let failed = [1, 3, 6, 8].contains(&(n % 10));
        let state = bench.call(if failed { Outcome::Failed } else { OK });
        assert_eq!(state, Ok(BreakerState::Closed), "4 of 10 at call {n}");
    }
}

#[test]
fn a_slow_success_and_a_time_out_are_failures() {
    let mut bench = Bench::new();
    for n in 1..=6 {
        let slow = Outcome::Answered { took_ms: 801, timeout_ms: 1000 };
        assert_eq!(bench.call(slow).unwrap() == BreakerState::Closed, n < 6);
    }
    let limits = crate::settings::Settings::defaults().breaker;
    assert!(!is_failure(Outcome::Answered { took_ms: 800, timeout_ms: 1000 }, &limits));
    assert!(is_failure(Outcome::Failed, &limits));
}

#[test]
fn an_authentication_error_locks_it_until_it_is_released() {
    let mut bench = Bench::new();
    assert_eq!(bench.call(Outcome::Unauthorised), Ok(BreakerState::Locked));
    bench.wait(86_400_000);
    assert_eq!(bench.call(OK), Err(Refused::Locked));
    assert!(bench.breaker.is_open());
    assert_eq!(bench.breaker.release(), Some(BreakerChange { from: BreakerState::Locked, to: BreakerState::Closed }));
    assert_eq!(bench.call(OK), Ok(BreakerState::Closed));
}

#[test]
fn a130_retry_after_is_honoured_up_to_its_limit_and_survives_a_release() {
    for (asked_ms, held_ms) in [(45_000, 45_000), (86_400_000, 300_000), (-5, 0)] {
        let mut bench = Bench::new();
        bench.call(Outcome::TooMany { retry_after_ms: Some(asked_ms) }).unwrap();
        bench.breaker.release();
        let until = bench.now.plus_ms(held_ms);
        if held_ms > 0 {
            assert_eq!(bench.breaker.admit(until.plus_ms(-1)), Err(Refused::Until(until)));
        }
        assert!(bench.breaker.admit(until).is_ok());
    }
    let mut bench = Bench::new();
    for n in 1..=6 {
        let state = bench.call(Outcome::TooMany { retry_after_ms: None }).unwrap();
        assert_eq!(state == BreakerState::Closed, n < 6, "without a time it is a failure like others");
    }
}

#[test]
fn answers_from_before_the_opening_decide_nothing() {
    let mut bench = Bench::new();
    let old: Vec<Ticket> = (0..14).map(|_| bench.breaker.admit(bench.now).unwrap()).collect();
    for ticket in &old[..6] {
        bench.breaker.record(*ticket, Outcome::Failed, &bench.limits, 0.0, bench.now);
    }
    bench.wait(30_000);
    bench.call(OK).unwrap();
    for ticket in &old[6..] {
        assert_eq!(bench.breaker.record(*ticket, Outcome::Failed, &bench.limits, 0.0, bench.now), None);
    }
    for _ in 0..2 {
        assert_eq!(bench.call(OK), Ok(BreakerState::HalfOpen));
    }
    assert_eq!(bench.call(OK), Ok(BreakerState::Closed));
}

#[test]
fn a_restart_goes_on_where_it_was_and_a_lost_probe_does_not_block() {
    let mut bench = Bench::opened();
    let again =
        |breaker: &Breaker| -> Breaker { serde_json::from_str(&serde_json::to_string(breaker).unwrap()).unwrap() };
    let open = again(&bench.breaker);
    assert_eq!(open, bench.breaker);
    bench.wait(30_000);
    bench.breaker.admit(bench.now).unwrap();
    let mut half = again(&bench.breaker);
    assert_eq!(half.state(), BreakerState::HalfOpen);
    assert!(half.admit(bench.now).unwrap().is_probe());
}
