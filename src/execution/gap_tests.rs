//! Tests of the gap rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::{
    execution::supervise::{Verdict, supervise},
    model::{Decimal, PositionId, TradeState, Trailing, Ts},
};

/// A long from 40 000 with a stop at 39 000 and a target at 42 000, a resting buy at 38 800, and a gap in which the
/// price fell to 38 500, rose to 42 500 and came back.
fn down() -> (Book, crate::model::TradeKey, Vec<PriceTick>, PriceTick) {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1200), dec!(40_000));
    let mut position = book.state.positions[&PositionId(1)].clone();
    position.target = Some(dec!(42_000));
    book.commit(vec![
        Event::PositionChanged { position: Box::new(position) },
        Event::StopMoved { position: PositionId(1), stop: Some(dec!(39_000)), trailing: Trailing::default() },
    ]);
    let order = book.entry_order(btc(), dec!(388), dec!(38_800));
    let resting = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    book.venue(resting, &price);
    let minute = |n: i64| Ts(T0.0 + n * 60_000);
    let candles = vec![
        candle(btc(), [dec!(40_000), dec!(40_100), dec!(39_500), dec!(39_600)], minute(2)),
        candle(btc(), [dec!(39_600), dec!(39_600), dec!(38_500), dec!(39_200)], minute(3)),
        candle(btc(), [dec!(39_200), dec!(42_500), dec!(39_200), dec!(41_000)], minute(4)),
    ];
    book.now = minute(30);
    (book, resting, candles, tick(btc(), dec!(38_700), minute(30)))
}

#[test]
fn a190_pessimistic_exits_at_the_worse_of_stop_and_first_price() {
    let (mut book, resting, candles, first) = down();
    let steps = steps(&book.state, btc(), &candles, &first, RestartFillPolicy::Pessimistic);
    let [GapStep::Exit(call)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(call.price.price, dec!(38_700));
    let events = book.exit(call);
    let evidence = events.iter().find_map(|e| match e {
        Event::TradeFill { price, evidence, .. } => Some((*price, evidence.clone())),
        _ => None,
    });
    let (price, evidence) = evidence.unwrap();
    assert_eq!(price, dec!(38_700));
    assert!(evidence.unwrap().contains("reached 38500"));
    assert_eq!(book.trade_state(resting), TradeState::Acked, "limits are not filled from the gap");
    // Had the market recovered, the stop itself is the worse one.
    let (book, _, candles, first) = down();
    let above = PriceTick { price: dec!(41_000), ..first };
    let call = crossed_stop(&book.state.positions[&PositionId(1)], &candles, &above).unwrap();
    assert_eq!(call.price.price, dec!(39_000));
    assert_eq!(crossed_stop(&book.state.positions[&PositionId(1)], &candles[..1], &first), None);
}

#[test]
fn a190_cancel_drops_resting_entries_and_exits_as_pessimistic() {
    let (mut book, resting, candles, first) = down();
    let steps = steps(&book.state, btc(), &candles, &first, RestartFillPolicy::Cancel);
    let [GapStep::Commit(cancel), GapStep::Exit(call)] = steps.as_slice() else { panic!("{steps:?}") };
    book.commit(vec![cancel.clone()]);
    assert_eq!(book.trade_state(resting), TradeState::Cancelled);
    assert_eq!(call.price.price, dec!(38_700));
}

#[test]
fn a190_replay_walks_the_candles_adverse_extreme_first() {
    let (mut book, resting, candles, first) = down();
    let mut exits = Vec::new();
    for step in steps(&book.state, btc(), &candles, &first, RestartFillPolicy::Replay) {
        let GapStep::Replay { tick, evidence } = step else { panic!() };
        assert!(evidence.contains("replay"));
        // A replayed price is judged at its own instant; otherwise it would be stale.
        book.now = tick.at;
        for position in book.state.positions.clone().values() {
            if let Verdict::Exit(call) = supervise(position, &tick, &book.execution, 60_000, tick.at) {
                exits.push((position.id, call.price.price));
                book.exit(&call);
            }
        }
        if book.state.trades.contains_key(&resting) {
            book.venue(resting, &tick);
        }
    }
    assert_eq!(exits, [(PositionId(1), dec!(39_000))], "the stop, not the later target");
    assert_eq!(book.trade_state(resting), TradeState::Settled, "limits fill in a replay");
}
