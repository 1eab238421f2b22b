//! Tests of the recovery rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::{
    execution::settle,
    model::{Decimal, PositionId},
};

const MAX_AGE: i64 = 120_000;

fn found(state: &State, now: Ts) -> Vec<RecoveryStep> {
    steps(state, &execution(), MAX_AGE, now)
}

fn intent() -> (Book, TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let rules = rules()[&btc()];
    let trade =
        crate::execution::intent::entry(book.state.meta.store, &order, &rules, &book.execution, book.now).unwrap();
    let key = trade.key;
    book.commit(vec![Event::TradeIntent { trade: Box::new(trade) }]);
    (book, key)
}

#[test]
fn c5_intent_goes_on_or_expires_after_120_s() {
    let (mut book, key) = intent();
    assert_eq!(found(&book.state, T0.plus_ms(MAX_AGE)), [RecoveryStep::Recheck(key)]);
    book.now = T0.plus_ms(MAX_AGE + 1);
    let found_steps = found(&book.state, book.now);
    let [RecoveryStep::Commit(event)] = found_steps.as_slice() else { panic!("{found_steps:?}") };
    book.commit(vec![event.clone()]);
    assert_eq!((book.trade_state(key), book.free("USDT")), (TradeState::Expired, dec!(10_000)));
    assert!(found(&book.state, book.now).is_empty(), "re-entrant");
}

#[test]
fn c5_submitting_and_unknown_are_executed_again_with_the_identical_fill() {
    let (mut book, key) = intent();
    let trade = book.state.trades[&key].clone();
    book.commit(vec![settle::submitting(&trade, book.now)]);
    let mut killed = Book { state: book.state.clone(), ..Book::usdt(dec!(1)) };
    killed.commit(vec![Event::TradeUnknown { trade_key: key, reason: "killed".into() }]);
    let mut fills = Vec::new();
    for mut book in [book, killed] {
        let later = T0.plus_ms(5_000);
        assert_eq!(found(&book.state, later), [RecoveryStep::Execute(key)]);
        assert_eq!(found(&book.state, later), [RecoveryStep::Execute(key)], "asking changes nothing");
        book.now = later;
        let price = tick(btc(), dec!(39_990), later);
        fills.push(book.venue(key, &price));
        assert!(found(&book.state, later).is_empty());
    }
    assert_eq!(fills[0], fills[1]);
}

#[test]
fn c5_not_executed_retries_expires_or_is_exhausted() {
    let (mut book, key) = intent();
    let trade = book.state.trades[&key].clone();
    let retry_at = Some(T0.plus_ms(5_000));
    book.commit(vec![
        settle::submitting(&trade, book.now),
        Event::TradeNotExecuted { trade_key: key, reason: "x".into(), retry_at },
    ]);
    assert_eq!(found(&book.state, T0), [RecoveryStep::Retry(key, T0.plus_ms(5_000))]);
    assert_eq!(found(&book.state, T0.plus_ms(60_000)), [RecoveryStep::Retry(key, T0.plus_ms(60_000))]);
    let old = found(&book.state, T0.plus_ms(MAX_AGE + 1));
    assert!(matches!(old.as_slice(), [RecoveryStep::Commit(Event::TradeExpired { .. })]), "{old:?}");
    for attempt in 2..=4 {
        let deadline = book.now;
        book.commit(vec![
            Event::TradeSubmitting { trade_key: key, attempt, deadline },
            Event::TradeNotExecuted { trade_key: key, reason: "x".into(), retry_at: None },
        ]);
    }
    let done = found(&book.state, T0);
    let [RecoveryStep::Commit(event)] = done.as_slice() else { panic!("{done:?}") };
    book.commit(vec![event.clone()]);
    assert_eq!(book.trade_state(key), TradeState::Rejected);
}

#[test]
fn c5_resting_orders_rest_again_or_expire() {
    let (mut book, key) = intent();
    let trade = book.state.trades[&key].clone();
    book.commit(vec![settle::submitting(&trade, book.now)]);
    book.now = T0.plus_ms(100);
    let above = tick(btc(), dec!(40_100), book.now);
    book.venue(key, &above);
    assert_eq!(found(&book.state, T0.plus_ms(3_600_000)), [RecoveryStep::Rest(key)]);
    let end = found(&book.state, T0.plus_ms(24 * 3_600_000));
    let [RecoveryStep::Commit(event)] = end.as_slice() else { panic!("{end:?}") };
    book.commit(vec![event.clone()]);
    assert_eq!(book.free("USDT"), dec!(10_000));
}

#[test]
fn c5_partial_market_orders_fill_on_and_filled_ones_settle() {
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let position = book.state.positions[&PositionId(1)].clone();
    let purpose = crate::execution::intent::ExitFor::Cause(crate::model::ExitCause::Signal);
    let rules = rules()[&btc()];
    let store = book.state.meta.store;
    let exit = crate::execution::intent::exit(store, &position, purpose, position.quantity, &rules, book.now).unwrap();
    let key = book.submit_trade(exit);
    book.execution.paper.partial_fills.enabled = true;
    book.execution.paper.partial_fills.chance = 1.0;
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    let events = book.venue(key, &price);
    assert_eq!(book.trade_state(key), TradeState::Partial);
    assert_eq!(found(&book.state, book.now), [RecoveryStep::Execute(key)]);
    assert!(book.state.positions[&PositionId(1)].quantity < position.quantity);
    assert!(events.len() == 2 && book.free("USDT") > Decimal::ZERO);
    let trade = book.state.trades.get_mut(&key).unwrap();
    (trade.filled, trade.state) = (trade.body.quantity, TradeState::Filled);
    let settle = found(&book.state, book.now);
    assert_eq!(settle, [RecoveryStep::Commit(Event::TradeSettled { trade_key: key })]);
}
