//! Each invariant holds for an account at work, and is found broken when it is.

use rust_decimal_macros::dec;

use super::*;
use crate::{
    execution::testkit::{Book, T0, btc},
    model::{Reservation, Side, TradeKey, TradeKind},
};

fn broken(state: &State) -> (Object, String) {
    let broken = check(state).unwrap_err();
    (broken.object, broken.what)
}

#[test]
fn an_account_with_money_holds() {
    assert_eq!(check(&Book::usdt(dec!(10000)).state), Ok(()));
    assert_eq!(check(&State::default()), Ok(()));
}

#[test]
fn a_negative_balance_is_found() {
    let mut book = Book::usdt(dec!(10000));
    let out = Event::Deposit { asset: "USDT".parse().unwrap(), amount: dec!(-10000.01) };
    assert!(concerns(&out));
    book.try_commit(vec![out]).unwrap();
    let (object, what) = broken(&book.state);
    assert_eq!(object, Object::Account);
    assert!(what.contains("USDT is below zero"), "{what}");
}

#[test]
fn exposure_of_a_trade_that_does_not_live_is_found() {
    let mut state = Book::usdt(dec!(10000)).state;
    let key = TradeKey::derive(state.meta.store, TradeKind::Decision, "plan", "0", btc(), Side::Buy);
    let reservation = Reservation { key, symbol: btc(), notional_usd: dec!(100), leverage: 1, funds: dec!(100) };
    state.risk.reservations.insert(key, reservation);
    assert_eq!(broken(&state).0, Object::Exposure);
}

#[test]
fn an_order_that_leaves_while_not_running_is_found_by_the_order_of_the_records() {
    let mut book = Book::usdt(dec!(10000));
    let order = book.entry_order(btc(), dec!(100), dec!(40000));
    let entry = book.submit(&order);
    let submitting = Event::TradeSubmitting { trade_key: entry, attempt: 1, deadline: T0, reference: None };
    let to = |to| Event::StateChanged { from: CoordinatorState::Running, to, reason: "test".into(), halt: None };
    let mut gate = Gate::new(CoordinatorState::Running);
    assert_eq!(gate.take(&submitting, &book.state), Ok(()));
    assert_eq!(gate.take(&to(CoordinatorState::Paused), &book.state), Ok(()));
    let found = gate.take(&submitting, &book.state).unwrap_err();
    assert_eq!(found.object, Object::Gate);
    assert!(found.what.ends_with("was sent while PAUSED"), "{found}");
    assert_eq!(gate.take(&to(CoordinatorState::Running), &book.state), Ok(()));
    assert_eq!(gate.take(&submitting, &book.state), Ok(()));
}
