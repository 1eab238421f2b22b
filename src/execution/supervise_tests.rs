//! Tests of the supervise rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::model::ClosedPart;

const AGE: i64 = 60_000;

fn long(stop: Option<Decimal>, target: Option<Decimal>) -> Position {
    Position {
        id: PositionId(1),
        symbol: btc(),
        side: PositionSide::Long,
        quantity: dec!(2),
        cost: dec!(200),
        leverage: 1,
        stop,
        target,
        trailing: Trailing::default(),
        opened_at: T0,
        fees: Decimal::ZERO,
        realised: Decimal::ZERO,
        trades: Vec::new(),
        exit_seq: 0,
        exiting: None,
        past: ClosedPart::default(),
    }
}

fn short(stop: Option<Decimal>, target: Option<Decimal>) -> Position {
    Position { side: PositionSide::Short, ..long(stop, target) }
}

fn at(position: &Position, tick: &PriceTick) -> Verdict {
    supervise(position, tick, &execution(), AGE, tick.at)
}

fn exit_of(verdict: Verdict) -> (ExitCause, Decimal) {
    match verdict {
        Verdict::Exit(call) => (call.cause, call.price.price),
        other => panic!("{other:?}"),
    }
}

fn minute(n: i64) -> Ts {
    T0.plus_ms(n * 60_000)
}

#[test]
fn e04_stops_and_targets_fire_at_the_level_inclusive() {
    let position = long(Some(dec!(97)), Some(dec!(104)));
    for (price, expected) in
        [(dec!(97), Some(ExitCause::Stop)), (dec!(97.01), None), (dec!(104), Some(ExitCause::Target))]
    {
        let verdict = at(&position, &tick(btc(), price, minute(1)));
        assert_eq!(expected.map(|cause| (cause, price)), matches!(verdict, Verdict::Exit(_)).then(|| exit_of(verdict)));
    }
    let position = short(Some(dec!(103)), Some(dec!(96)));
    assert_eq!(exit_of(at(&position, &tick(btc(), dec!(103), minute(1)))).0, ExitCause::Stop);
    assert_eq!(exit_of(at(&position, &tick(btc(), dec!(96), minute(1)))).0, ExitCause::Target);
}

#[test]
fn a186_stop_comes_before_target() {
    let position = long(Some(dec!(97)), Some(dec!(104)));
    let wild = candle(btc(), [dec!(100), dec!(105), dec!(96), dec!(104)], minute(2));
    assert_eq!(exit_of(at(&position, &wild)), (ExitCause::Stop, dec!(97)));
}

#[test]
fn adverse_evidence_counts_from_overlapping_candles_favourable_from_later_ones() {
    let opened = T0.plus_ms(30_000);
    let position = Position { opened_at: opened, ..long(Some(dec!(97)), Some(dec!(104))) };
    // The candle [0, 60 s) overlaps the life that began at 30 s: its low counts, its high and open do not.
    let low = candle(btc(), [dec!(96), dec!(100), dec!(96), dec!(100)], minute(1));
    assert_eq!(exit_of(at(&position, &low)), (ExitCause::Stop, dec!(97)));
    let high = candle(btc(), [dec!(100), dec!(105), dec!(99), dec!(100)], minute(1));
    assert_eq!(at(&position, &high), Verdict::Hold);
    // The next candle counts for both; a gap through the stop fills at the open.
    let high = candle(btc(), [dec!(100), dec!(105), dec!(99), dec!(100)], minute(2));
    assert_eq!(exit_of(at(&position, &high)), (ExitCause::Target, dec!(104)));
    let gap = candle(btc(), [dec!(95), dec!(96), dec!(94), dec!(96)], minute(2));
    assert_eq!(exit_of(at(&position, &gap)), (ExitCause::Stop, dec!(95)));
    // A candle that ended when the position began is not part of its life.
    let fresh = Position { opened_at: minute(1), ..position.clone() };
    assert_eq!(at(&fresh, &low), Verdict::Hold);
    // Unless a resting order filled inside it.
    assert_eq!(same_candle_stop(&fresh, &low, &execution()).map(|c| c.price.price), Some(dec!(97)));
    assert_eq!(
        same_candle_stop(&Position { exiting: Some(crate::model::TradeKey([1; 32])), ..fresh }, &low, &execution()),
        None
    );
}

#[test]
fn nothing_fires_without_a_fresh_price_or_during_an_exit() {
    let position = long(Some(dec!(97)), None);
    let price = tick(btc(), dec!(90), minute(1));
    assert_eq!(supervise(&position, &price, &execution(), AGE, minute(2).plus_ms(1)), Verdict::Hold);
    assert!(matches!(supervise(&position, &price, &execution(), AGE, minute(2)), Verdict::Exit(_)));
    assert_eq!(at(&position, &tick(symbol("XRP/USDT"), dec!(90), minute(1))), Verdict::Hold);
    assert_eq!(at(&position, &tick(btc(), dec!(90), T0.plus_ms(-1))), Verdict::Hold);
    let exiting = Position { exiting: Some(crate::model::TradeKey([1; 32])), ..position };
    assert_eq!(at(&exiting, &price), Verdict::Hold);
}

#[test]
fn a185_trailing_sequence() {
    let mut settings = execution();
    settings.trailing.enabled = true;
    let mut position = long(Some(dec!(97)), None);
    let steps = [
        (dec!(100), dec!(97), false),
        (dec!(101), dec!(97), true),
        (dec!(102), dec!(100.47), true),
        (dec!(101.5), dec!(100.47), true),
        (dec!(103), dec!(101.455), true),
    ];
    for (n, (price, stop, active)) in steps.into_iter().enumerate() {
        let tick = tick(btc(), price, minute(n as i64 + 1));
        if let Verdict::Move(Event::StopMoved { stop, trailing, .. }) =
            supervise(&position, &tick, &settings, AGE, tick.at)
        {
            (position.stop, position.trailing) = (stop, trailing);
        }
        assert_eq!((position.stop, position.trailing.active), (Some(stop), active), "at {price}");
    }
    let tick = tick(btc(), dec!(101.4), minute(9));
    assert_eq!(exit_of(supervise(&position, &tick, &settings, AGE, tick.at)), (ExitCause::Trailing, dec!(101.4)));
}

#[test]
fn trailing_of_a_short_is_mirrored_and_break_even_moves_once() {
    let mut settings = execution();
    settings.trailing.enabled = true;
    let mut position = short(Some(dec!(103)), None);
    for (n, price) in [dec!(99), dec!(98)].into_iter().enumerate() {
        let tick = tick(btc(), price, minute(n as i64 + 1));
        let Verdict::Move(Event::StopMoved { stop, trailing, .. }) =
            supervise(&position, &tick, &settings, AGE, tick.at)
        else {
            panic!("no move at {price}")
        };
        (position.stop, position.trailing) = (stop, trailing);
    }
    assert_eq!(position.stop, Some(dec!(99.47)));

    settings.trailing.enabled = false;
    settings.break_even.enabled = true;
    let mut position = long(Some(dec!(97)), None);
    let hold = supervise(&position, &tick(btc(), dec!(100.99), minute(1)), &settings, AGE, minute(1));
    assert_eq!(hold, Verdict::Hold);
    let Verdict::Move(Event::StopMoved { stop, .. }) =
        supervise(&position, &tick(btc(), dec!(101), minute(1)), &settings, AGE, minute(1))
    else {
        panic!()
    };
    assert_eq!(stop, Some(dec!(100.1)));
    position.stop = stop;
    let hold = supervise(&position, &tick(btc(), dec!(102), minute(1)), &settings, AGE, minute(1));
    assert_eq!(hold, Verdict::Hold);
}

#[test]
fn a187_held_for_48_hours() {
    let position = long(None, None);
    let end = T0.plus_ms(48 * HOUR_MS);
    assert_eq!(at(&position, &tick(btc(), dec!(100), end.plus_ms(-1))), Verdict::Hold);
    assert_eq!(exit_of(at(&position, &tick(btc(), dec!(100), end))), (ExitCause::Time, dec!(100)));
    let off = ExecutionSettings { max_holding_hours: 0, ..execution() };
    assert_eq!(supervise(&position, &tick(btc(), dec!(100), end), &off, AGE, end), Verdict::Hold);
}

#[test]
fn e04_an_exit_is_one_commit_with_slippage_and_evidence() {
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let id = PositionId(1);
    book.commit(vec![Event::StopMoved { position: id, stop: Some(dec!(39_000)), trailing: Trailing::default() }]);
    book.now = minute(3);
    let gap = candle(btc(), [dec!(38_500), dec!(39_500), dec!(38_000), dec!(39_400)], minute(3));
    let verdict = supervise(&book.state.positions[&id], &gap, &book.execution, AGE, book.now);
    let Verdict::Exit(call) = verdict else { panic!("{verdict:?}") };
    let events = book.exit(&call);
    let fill = events.iter().find_map(|e| match e {
        Event::TradeFill { price, evidence, .. } => Some((*price, evidence.clone())),
        _ => None,
    });
    let (price, evidence) = fill.unwrap();
    assert!(price < dec!(38_500) && price >= dec!(38_461.5), "{price}");
    assert!(evidence.unwrap().contains("stop 39000"));
    assert!(book.state.positions.is_empty() && book.state.trades.is_empty());
    assert_eq!(book.free("BTC"), Decimal::ZERO);
}
