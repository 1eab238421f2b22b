//! Tests of the breakers rules of `risk`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    model::{EmergencyAction, State},
    risk::fixtures::{apply, dec, rules},
};

struct Bench {
    state: State,
    keeper: PeakKeeper,
}

fn at(text: &str) -> Ts {
    Ts::parse(text).unwrap()
}

/// Started on Wednesday 2026-01-07 at 10 000.
fn bench() -> Bench {
    let state = State::default();
    let keeper = PeakKeeper::new(&state.risk, at("2026-01-07"));
    let mut bench = Bench { state, keeper };
    assert_eq!(bench.mark("10000", "2026-01-07T12:00").len(), 1, "the first mark only starts the periods");
    bench
}

impl Bench {
    fn mark(&mut self, equity: &str, now: &str) -> Vec<Event> {
        let mut out = Vec::new();
        on_mark(&self.state.risk, &mut self.keeper, &rules(), dec(equity), at(now), &mut out);
        apply(&mut self.state, at(now), &out);
        out
    }

    fn latched(&self) -> Vec<BreakerKind> {
        self.state.risk.latched.keys().copied().collect()
    }
}

fn trips(events: &[Event]) -> Vec<(BreakerKind, String, EmergencyAction)> {
    let trip = |event: &Event| match event {
        Event::BreakerTripped { latch, action } => Some((latch.breaker, latch.period.clone(), *action)),
        _ => None,
    };
    events.iter().filter_map(trip).collect()
}

#[test]
fn a097_d26_r12_r13_daily_loss_trips_once_at_exactly_the_limit() {
    let mut bench = bench();
    assert!(bench.mark("9500.01", "2026-01-07T13:00").is_empty());
    let events = bench.mark("9500.00", "2026-01-07T13:01");
    let day = at("2026-01-07").day().to_string();
    assert_eq!(trips(&events), [(BreakerKind::DailyLoss, day, EmergencyAction::PauseTrading)]);
    assert!(bench.mark("9400.00", "2026-01-07T13:02").is_empty(), "one alert");
}

#[test]
fn a098_r16_midnight_rearms_without_any_trade() {
    let mut bench = bench();
    bench.mark("9500", "2026-01-07T13:00");
    let events = bench.mark("9500", "2026-01-08T00:00");
    assert!(events.iter().any(|event| matches!(event, Event::BreakerRearmed { breaker: BreakerKind::DailyLoss, .. })));
    assert!(bench.latched().is_empty());
    assert_eq!(bench.state.risk.day_start_equity, dec("9500"));
    assert_eq!(bench.state.risk.week_start_equity, dec("10000"), "the week goes on");
}

#[test]
fn a099_r06_latches_are_separate() {
    let mut bench = bench();
    bench.mark("12000", "2026-01-07T13:00");
    let events = bench.mark("9600", "2026-01-07T14:00");
    assert_eq!(trips(&events).iter().map(|trip| trip.0).collect::<Vec<_>>(), [BreakerKind::MaxDrawdown]);
    bench.mark("9500", "2026-01-07T15:00");
    assert_eq!(bench.latched(), [BreakerKind::DailyLoss, BreakerKind::MaxDrawdown]);
    bench.mark("9500", "2026-01-08T00:00");
    assert_eq!(bench.latched(), [BreakerKind::MaxDrawdown]);
}

#[test]
fn a100_r07_a_reset_rebases_the_peak() {
    let mut bench = bench();
    bench.mark("8000", "2026-01-07T13:00");
    assert!(bench.latched().contains(&BreakerKind::MaxDrawdown));
    let events = reset_drawdown(&bench.state.risk, &mut bench.keeper, dec("8000"), at("2026-01-07T14:00"));
    apply(&mut bench.state, at("2026-01-07T14:00"), &events);
    assert_eq!((bench.state.risk.peak, bench.keeper.peak()), (dec("8000"), dec("8000")));
    assert!(trips(&bench.mark("7999", "2026-01-07T14:01")).is_empty());
    assert!(!bench.latched().contains(&BreakerKind::MaxDrawdown));
    assert_eq!(period_of(&bench.state.risk, BreakerKind::MaxDrawdown), "2");
}

#[test]
fn a_week_rolls_on_monday_and_total_loss_trips_everything() {
    let mut bench = bench();
    let events = bench.mark("9000", "2026-01-08T01:00");
    assert!(trips(&events).iter().any(|trip| trip.0 == BreakerKind::WeeklyLoss && trip.1 == "202602"));
    bench.mark("9000", "2026-01-12T00:00");
    assert!(bench.latched().is_empty());
    assert_eq!(bench.state.risk.week, 202_603);
    assert_eq!(trips(&bench.mark("0", "2026-01-12T01:00")).len(), 3);
}

#[test]
fn time_that_goes_back_rolls_nothing() {
    let mut bench = bench();
    assert!(bench.mark("10000", "2026-01-06T12:00").is_empty());
}

#[test]
fn the_peak_is_durable_before_any_fall_that_matters() {
    let mut bench = bench();
    assert!(bench.mark("10040", "2026-01-07T12:01").is_empty(), "a small rise is kept in memory");
    assert_eq!(bench.keeper.peak(), dec("10040"));
    let events = bench.mark("9985", "2026-01-07T12:02");
    assert_eq!(events, [Event::PeakChanged { peak: dec("10040") }], "the fall from it writes it");
    assert!(bench.mark("9980", "2026-01-07T12:03").is_empty(), "once");
    assert_eq!(bench.mark("10100", "2026-01-07T12:04"), [Event::PeakChanged { peak: dec("10100") }], "a large rise");
    bench.mark("10101", "2026-01-07T12:30");
    assert_eq!(bench.mark("10101", "2026-01-07T13:04"), [Event::PeakChanged { peak: dec("10101") }], "hourly");
}

#[test]
fn a_crash_never_costs_more_than_the_bound() {
    let mut bench = bench();
    let mut equity = dec("10000");
    let mut highest = equity;
    let mut seed = 7u64;
    for step in 0..5_000u32 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        equity += Decimal::from((seed >> 33) as i64 % 41 - 18);
        let now = at("2026-01-07T12:00").plus_ms(i64::from(step) * 1000);
        let mut out = Vec::new();
        on_mark(&bench.state.risk, &mut bench.keeper, &rules(), equity, now, &mut out);
        apply(&mut bench.state, now, &out);
        highest = highest.max(equity);
        let stored = bench.state.risk.peak;
        let fell = equity * dec("1000") <= highest * dec("995");
        assert!(if fell { stored == highest } else { stored * dec("1.005") > highest }, "step {step}");
    }
    assert!(bench.state.meta.seq < 400, "lazily: {} records", bench.state.meta.seq);
}

#[test]
fn the_measure_of_a_trip_is_told_in_percent_and_an_account_without_anything_trips_nothing() {
    let mut bench = bench();
    let events = bench.mark("9000", "2026-01-07T13:00");
    let measured: Vec<Decimal> = events
        .iter()
        .filter_map(|event| if let Event::BreakerTripped { latch, .. } = event { Some(latch.measured) } else { None })
        .collect();
    assert_eq!(measured, [dec("10"), dec("10")], "day and week");

    let state = State::default();
    let keeper = PeakKeeper::new(&state.risk, at("2026-01-07"));
    let mut empty = Bench { state, keeper };
    for time in ["12:00", "13:00"] {
        assert!(trips(&empty.mark("0", &format!("2026-01-07T{time}"))).is_empty(), "nothing was lost at {time}");
    }
}
