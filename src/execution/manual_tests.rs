//! What contradicts the account waits for the operator, and what the operator states is booked once and exactly.

use super::{
    super::{testkit::*, venue::VenueAnswer},
    *,
};
use crate::{
    execution::intent,
    model::{Decimal, ExitCause, TradeKey},
};

/// An order that rests, and a fill of so much at such a price.
fn resting() -> (Book, TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(4000), dec!(40_000));
    let key = book.submit(&order);
    book.commit(vec![Event::TradeAcked { trade_key: key, expires_at: None }]);
    (book, key)
}

fn fill(quantity: Decimal, price: Decimal) -> VenueFill {
    VenueFill {
        quantity,
        price,
        value: quantity * price,
        fee: dec!(1),
        liquidity: Liquidity::Maker,
        price_id: "test:1".into(),
        evidence: None,
        venue_fill: None,
    }
}

fn stated(fill: Option<(Decimal, Decimal)>) -> ManualResolution {
    let fill = fill.map(|(quantity, price)| ManualFill { quantity, price, fee: dec!(2) });
    ManualResolution { fill, evidence: "statement of the venue, page 3".into(), source: "cmd-1".into() }
}

/// Left to the operator, resolved, and carried out by execution.
fn resolved(resolution: ManualResolution) -> (Book, TradeKey) {
    let (mut book, key) = resting();
    book.commit(vec![Event::TradeManual { trade_key: key, reason: "test".into() }]);
    book.commit(vec![Event::TradeResolved { trade_key: key, resolution }]);
    let events = carry_out(&book.state, &book.state.trades[&key], &book.desk());
    book.commit(events);
    (book, key)
}

#[test]
fn c2_a_fill_beyond_what_is_open_is_left_to_the_operator_once_with_the_damage_named() {
    let (mut book, key) = resting();
    let trade = book.state.trades[&key].clone();
    let answer = VenueAnswer::Filled(fill(dec!(0.2), dec!(40_000)));
    let violation = settle::answer(&book.state, &trade, answer, &book.desk()).unwrap_err();
    let events = hand_over(&trade, violation).unwrap();
    assert!(
        matches!(&events[..], [Event::TradeManual { reason, .. }] if reason.contains("0.2") && reason.contains("0.1")),
        "{events:?}"
    );
    book.commit(events);
    assert_eq!(book.trade_state(key), TradeState::Manual);
    assert!(carry_out(&book.state, &book.state.trades[&key], &book.desk()).is_empty(), "nothing was stated yet");
    assert!(book.locked("USDT") > Decimal::ZERO, "its funds stay held");
}

#[test]
fn what_has_not_left_is_a_bug_and_not_the_operators() {
    let (book, key) = resting();
    let intent = Trade { state: TradeState::Intent, ..book.state.trades[&key].clone() };
    assert_eq!(hand_over(&intent, Violation("x".into())), Err(Violation("x".into())));
}

#[test]
fn c2_nothing_executed_gives_the_funds_back() {
    let (book, key) = resolved(stated(None));
    assert_eq!(book.trade_state(key), TradeState::Expired);
    assert_eq!((book.free("USDT"), book.locked("USDT")), (dec!(10_000), Decimal::ZERO));
}

#[test]
fn c2_a_stated_fill_is_booked_to_the_last_unit() {
    for (quantity, end) in [(dec!(0.1), TradeState::Settled), (dec!(0.04), TradeState::Expired)] {
        let (book, key) = resolved(stated(Some((quantity, dec!(39_500)))));
        assert_eq!(book.trade_state(key), end);
        let position = book.state.positions.values().next().unwrap();
        assert_eq!((position.quantity, position.cost), (quantity, quantity * dec!(39_500)));
        assert_eq!(book.free("USDT"), dec!(10_000) - quantity * dec!(39_500) - dec!(2));
        assert_eq!(book.locked("USDT"), Decimal::ZERO);
    }
}

#[test]
fn a_statement_that_cannot_be_true_is_refused_with_the_reason() {
    let (mut book, key) = resting();
    book.commit(vec![Event::TradeManual { trade_key: key, reason: "test".into() }]);
    let trade = &book.state.trades[&key];
    let why = |fill| booked(&book.state, trade, &stated(Some(fill)), &book.desk()).unwrap_err().0;
    assert!(why((dec!(0.11), dec!(40_000))).contains("exceeds the remaining"));
    assert!(why((dec!(0.1), dec!(400_000))).contains("cannot be paid"));
    assert!(why((dec!(0), dec!(40_000))).contains("above zero"));
    assert!(why((dec!(0.1), dec!(-1))).contains("above zero"));
}

/// Typed with a few digits too many it used to end the process: the fee alone by a sum that cannot be represented, of a
/// sale by a balance below zero, at every start again.
#[test]
fn a_stated_fee_beyond_all_reason_is_refused_and_ends_nothing() {
    let (mut book, key) = resolved(stated(Some((dec!(0.1), dec!(39_500)))));
    assert_eq!(book.trade_state(key), TradeState::Settled);
    let position = book.state.positions.values().next().unwrap();
    let (purpose, rules) = (intent::ExitFor::Cause(ExitCause::Operator), rules()[&btc()]);
    let exit = intent::exit(book.state.meta.store, position, purpose, position.quantity, &rules, book.now).unwrap();
    let trade_key = exit.key;
    let submitting = settle::submitting(&exit, book.now);
    book.commit(vec![Event::TradeIntent { trade: Box::new(exit) }, submitting]);
    book.commit(vec![Event::TradeManual { trade_key, reason: "test".into() }]);
    let trade = &book.state.trades[&trade_key];
    let why = |fee| {
        let fill = Some(ManualFill { quantity: dec!(0.1), price: dec!(40_000), fee });
        booked(&book.state, trade, &ManualResolution { fill, ..stated(None) }, &book.desk()).unwrap_err().0
    };
    assert!(why(Decimal::MAX).contains("too large"));
    assert!(why(dec!(1_000_000)).contains("would leave"), "{}", why(dec!(1_000_000)));
}

#[test]
fn what_stopped_fitting_between_the_command_and_the_booking_waits_again() {
    let (mut book, key) = resting();
    book.commit(vec![Event::TradeManual { trade_key: key, reason: "test".into() }]);
    let resolution = stated(Some((dec!(0.1), dec!(400_000))));
    book.commit(vec![Event::TradeResolved { trade_key: key, resolution }]);
    let events = carry_out(&book.state, &book.state.trades[&key], &book.desk());
    assert!(
        matches!(&events[..], [Event::TradeManual { reason, .. }] if reason.contains("does not fit")),
        "{events:?}"
    );
    book.commit(events);
    let trade = &book.state.trades[&key];
    assert_eq!((trade.state, &trade.resolution), (TradeState::Manual, &None), "another word is waited for");
    assert!(carry_out(&book.state, trade, &book.desk()).is_empty());
}

#[test]
fn only_a_trade_left_to_the_operator_can_be_resolved() {
    let (mut book, key) = resting();
    let resolution = stated(None);
    let why = book.try_commit(vec![Event::TradeResolved { trade_key: key, resolution }]).unwrap_err();
    assert!(why.contains("not left to the operator"), "{why}");
}
