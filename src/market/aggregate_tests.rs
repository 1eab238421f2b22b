//! Aggregation: alignment, closing, gaps, rejects.

use super::*;
use crate::model::time::{HOUR_MS, MINUTE_MS};

fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

fn minute(m: i64, price: f64) -> Candle {
    Candle { open_time: Ts(m * MINUTE_MS), open: price, high: price + 1.0, low: price - 1.0, close: price, volume: 2.0 }
}

struct Run {
    aggregator: Aggregator,
    closed: Vec<ClosedFrame>,
    gaps: Vec<Gap>,
}

impl Run {
    fn new() -> Run {
        Run { aggregator: Aggregator::new(btc(), Timeframe::M1), closed: vec![], gaps: vec![] }
    }
    fn push(&mut self, candle: &Candle) -> Result<(), Reject> {
        self.aggregator.push(candle, &mut self.closed, &mut self.gaps)
    }
    fn of(&self, frame: Timeframe) -> Vec<ClosedFrame> {
        self.closed.iter().filter(|c| c.frame == frame).copied().collect()
    }
}

#[test]
fn a_full_day_of_minutes_gives_every_frame_and_no_gap() {
    let mut run = Run::new();
    for m in 0..1440 {
        run.push(&minute(m, 100.0 + m as f64)).unwrap();
    }
    for frame in Timeframe::ALL {
        let closed = run.of(frame);
        assert_eq!(closed.len() as i64, 1440 / frame.minutes(), "{frame}");
        for (i, c) in closed.iter().enumerate() {
            let first = i as i64 * frame.minutes();
            let last = first + frame.minutes() - 1;
            assert_eq!(c.candle.open_time, Ts(first * MINUTE_MS));
            assert_eq!((c.candle.open, c.candle.close), (100.0 + first as f64, 100.0 + last as f64));
            assert_eq!((c.candle.low, c.candle.high), (99.0 + first as f64, 101.0 + last as f64));
            assert_eq!((c.candle.volume, c.partial), (2.0 * frame.minutes() as f64, false));
        }
    }
    assert!(run.gaps.is_empty());
}

#[test]
fn a_hole_is_declared_and_nothing_is_invented() {
    let mut run = Run::new();
    for m in (0..70).chain(150..240) {
        run.push(&minute(m, 100.0)).unwrap();
    }
    let gap =
        |frame, from: i64, to: i64| Gap { symbol: btc(), frame, from: Ts(from * MINUTE_MS), to: Ts(to * MINUTE_MS) };
    assert_eq!(run.gaps, [gap(Timeframe::M1, 70, 150), gap(Timeframe::M5, 70, 150), gap(Timeframe::M15, 75, 150)]);
    assert_eq!(run.gaps[0].candles(), 80);
    let hours = run.of(Timeframe::H1);
    let facts: Vec<(i64, f64, bool)> =
        hours.iter().map(|c| (c.candle.open_time.0 / HOUR_MS, c.candle.volume, c.partial)).collect();
    assert_eq!(facts, [(0, 120.0, false), (1, 20.0, true), (2, 60.0, true), (3, 120.0, false)]);
}

#[test]
fn one_silent_minute_in_an_hour_is_a_gap_but_no_partial_hour() {
    let mut run = Run::new();
    for m in (0..60).filter(|m| *m != 30) {
        run.push(&minute(m, 100.0)).unwrap();
    }
    assert_eq!(run.gaps.len(), 1);
    assert!(!run.of(Timeframe::H1)[0].partial);
    assert!(run.of(Timeframe::M5)[6].partial);
}

#[test]
fn time_closes_what_no_candle_closes_but_not_at_the_very_instant_of_the_end() {
    let mut run = Run::new();
    for m in 0..58 {
        run.push(&minute(m, 100.0)).unwrap();
    }
    run.aggregator.advance(Ts(HOUR_MS), &mut run.closed);
    assert!(run.of(Timeframe::H1).is_empty(), "the last minute may arrive at this very instant");
    run.aggregator.advance(Ts(HOUR_MS + 1), &mut run.closed);
    assert_eq!(run.of(Timeframe::H1).len(), 1);
    assert_eq!(run.of(Timeframe::H4).len(), 0);
    assert_eq!(run.push(&minute(59, 100.0)), Err(Reject::Late), "the hour is closed and never changes");
    assert_eq!(run.push(&minute(60, 100.0)), Ok(()));
}

#[test]
fn an_hour_whose_beginning_was_not_seen_is_left_out() {
    let mut run = Run::new();
    for m in 20..180 {
        run.push(&minute(m, 100.0)).unwrap();
    }
    let starts: Vec<i64> = run.of(Timeframe::H1).iter().map(|c| c.candle.open_time.0 / HOUR_MS).collect();
    assert_eq!(starts, [1, 2]);
}

#[test]
fn duplicates_late_defective_and_crooked_candles_change_nothing() {
    let mut run = Run::new();
    run.push(&minute(5, 100.0)).unwrap();
    run.push(&minute(6, 100.0)).unwrap();
    let before = run.closed.clone();
    assert_eq!(run.push(&minute(6, 101.0)), Err(Reject::Duplicate));
    assert_eq!(run.push(&minute(5, 101.0)), Err(Reject::Late));
    assert!(matches!(run.push(&Candle { low: f64::NAN, ..minute(7, 1.0) }), Err(Reject::Defect(_))));
    assert!(matches!(run.push(&Candle { volume: -1.0, ..minute(7, 2.0) }), Err(Reject::Defect(_))));
    assert!(matches!(run.push(&Candle { open_time: Ts(7 * MINUTE_MS + 1), ..minute(7, 2.0) }), Err(Reject::Defect(_))));
    assert_eq!(run.closed, before);
    assert!(run.gaps.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever minutes are missing: every traded minute is in exactly its hour, and every hour is closed or declared.
    #[test]
    fn any_pattern_of_outages_loses_and_invents_nothing(traded in proptest::collection::vec(proptest::bool::weighted(0.6), 600)) {
        let mut run = Run::new();
        let minutes: Vec<i64> = (0..600).filter(|m| *m == 0 || *m == 599 || (traded[*m as usize] && !(200..400).contains(m))).collect();
        for m in &minutes {
            run.push(&minute(*m, 100.0 + *m as f64)).unwrap();
        }
        let hours = run.of(Timeframe::H1);
        let mut expected = std::collections::BTreeMap::<i64, (f64, f64, f64)>::new();
        for m in &minutes {
            let price = 100.0 + *m as f64;
            expected.entry(m / 60).and_modify(|e| { e.1 = price; e.2 += 2.0; }).or_insert((price, price, 2.0));
        }
        let built: Vec<_> = hours.iter().map(|c| (c.candle.open_time.0 / HOUR_MS, (c.candle.open, c.candle.close, c.candle.volume))).collect();
        proptest::prop_assert_eq!(built, expected.into_iter().collect::<Vec<_>>());
        let missing: i64 = run.gaps.iter().filter(|g| g.frame == Timeframe::H1).map(Gap::candles).sum();
        proptest::prop_assert_eq!(hours.len() as i64 + missing, 10);
        let missing: i64 = run.gaps.iter().filter(|g| g.frame == Timeframe::M1).map(Gap::candles).sum();
        proptest::prop_assert_eq!(minutes.len() as i64 + missing, 600);
    }
}
