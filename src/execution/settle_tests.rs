//! Tests of the settle rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::{
    execution::venue::{Fault, FaultyVenue},
    model::{Decimal, TradeKey},
    settings::EntryOrderType,
};

fn submitted() -> (Book, TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    (book, key)
}

#[test]
fn c4_filled_is_never_alone() {
    let (mut book, key) = submitted();
    let price = tick(btc(), dec!(39_990), book.now);
    let events = book.venue(key, &price);
    let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["TradeFill", "PositionOpened", "TradeSettled"]);
    // A repeated execution of the same submission gives the identical events.
    let (mut again, key) = submitted();
    assert_eq!(again.venue(key, &price), events);
}

#[test]
fn a183_e09_a_refusal_is_counted_once_and_moves_nothing() {
    let (mut book, key) = submitted();
    let stale = tick(btc(), dec!(40_000), T0.plus_ms(-120_000));
    let events = book.venue(key, &stale);
    assert!(matches!(events.as_slice(), [Event::TradeRejected { .. }]), "{events:?}");
    assert_eq!((book.free("USDT"), book.locked("USDT")), (dec!(10_000), Decimal::ZERO));
    assert_eq!(book.state.risk.order_errors, 0, "a business refusal is no order error");
}

#[test]
fn a183_a_fill_beyond_the_lock_needs_free_funds() {
    let mut book = Book::usdt(dec!(1250));
    book.execution.entry_order_type = EntryOrderType::Market;
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let mut other = Book { state: book.state.clone(), now: book.now, ..Book::usdt(dec!(1)) };
    // The price rose between the intent and the match: within the free funds they pay for it, beyond it is refused.
    let dearer = tick(btc(), dec!(41_000), book.now);
    book.venue(key, &dearer);
    assert_eq!(book.trade_state(key), TradeState::Settled);
    assert!(book.free("USDT") > Decimal::ZERO);
    let too_dear = tick(btc(), dec!(42_000), other.now);
    let events = other.venue(key, &too_dear);
    let [Event::TradeRejected { reason, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(reason.starts_with("INSUFFICIENT_FUNDS"), "{reason}");
    assert_eq!(other.free("USDT"), dec!(1250));
}

#[test]
fn e05_an_unknown_outcome_is_never_sent_again_blindly() {
    let (mut book, key) = submitted();
    let mut venue = FaultyVenue { inner: venue(&book.execution), failures: 1, fault: Fault::Ambiguous, calls: 0 };
    let price = tick(btc(), dec!(39_990), book.now);
    book.venue_with(&mut venue, key, &price);
    assert_eq!(book.trade_state(key), TradeState::Unknown);
    assert!(book.locked("USDT") > Decimal::ZERO, "its funds stay held");
    let trade = book.state.trades[&key].clone();
    let again = submitting(&trade, book.now);
    assert!(book.try_commit(vec![again]).is_err(), "UNKNOWN does not go back to SUBMITTING");
}

#[test]
fn an_overlarge_fill_is_a_broken_account() {
    let (book, key) = submitted();
    let trade = &book.state.trades[&key];
    let fill = VenueFill {
        quantity: dec!(1),
        price: dec!(1),
        value: dec!(1),
        fee: dec!(0),
        liquidity: crate::model::Liquidity::Taker,
        price_id: "test:1".into(),
        evidence: None,
        venue_fill: None,
    };
    assert!(answer(&book.state, trade, VenueAnswer::Filled(fill), &book.desk()).is_err());
    let early = VenueAnswer::TooEarly { until: book.now };
    assert_eq!(answer(&book.state, trade, early, &book.desk()), Ok(Vec::new()));
}

/// Found by a simulated month whose feed was absurd: 7.7 · 10^14 USDT, and the two sides of the books differed by the last
/// of 14 decimals.
#[test]
fn books_that_would_round_refuse_the_order_instead() {
    use crate::{
        execution::intent::unaffordable,
        model::{AMOUNT_ENTRY_MAX, AMOUNT_MAX},
    };
    let smallest = Decimal::new(1, ledger::MONEY_DECIMALS);
    assert_eq!((AMOUNT_MAX, AMOUNT_ENTRY_MAX), (dec!(100_000_000_000_000), dec!(10_000_000_000_000)));
    assert_eq!(AMOUNT_MAX * dec!(7) + smallest - AMOUNT_MAX * dec!(7), smallest, "seven of them add exactly");

    for (held, refused) in [(AMOUNT_ENTRY_MAX - smallest, false), (AMOUNT_ENTRY_MAX, true)] {
        let mut book = Book::usdt(held);
        let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
        let rules = rules()[&btc()];
        let trade = crate::execution::intent::entry(book.state.meta.store, &order, &rules, &book.execution, book.now);
        let reason = unaffordable(&book.state, &trade.unwrap(), &rules);
        assert_eq!(reason.is_some_and(|reason| reason.starts_with("AMOUNT_TOO_LARGE")), refused, "{held}");
    }

    // An order that was made before ends as refused when its fill would not fit, and nothing moved.
    let (mut book, key) = submitted();
    book.state
        .account
        .ledger
        .entry("BTC".parse().unwrap())
        .or_default()
        .insert(crate::model::LedgerAccount::Bought, AMOUNT_MAX);
    let price = tick(btc(), dec!(39_990), book.now);
    let trade = book.state.trades[&key].clone();
    let answered = venue(&book.execution).execute(&trade, Some(&price), book.now);
    let events = answer(&book.state, &trade, answered, &book.desk()).unwrap();
    let [Event::TradeRejected { reason, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(reason.starts_with("AMOUNT_TOO_LARGE: Bought of BTC"), "{reason}");
}

#[test]
fn an_exit_that_would_round_the_books_is_left_to_the_operator_and_a_deposit_is_refused() {
    use crate::model::{AMOUNT_MAX, LedgerAccount};
    let (mut book, key) = submitted();
    let price = tick(btc(), dec!(39_990), book.now);
    book.venue(key, &price);
    let position = book.state.positions.values().next().unwrap().clone();
    let purpose = crate::execution::intent::ExitFor::Cause(crate::model::ExitCause::Stop);
    let rules = rules()[&btc()];
    let exit =
        crate::execution::intent::exit(book.state.meta.store, &position, purpose, position.quantity, &rules, book.now)
            .unwrap();
    let usdt = "USDT".parse().unwrap();
    book.state.account.ledger.entry(usdt).or_default().insert(LedgerAccount::Free, AMOUNT_MAX);
    let mut venue = venue(&book.execution);
    let events = at_once(&book.state, exit, &mut venue, Some(&price), None, &book.desk()).unwrap();
    let Some(Event::TradeManual { reason, .. }) = events.last() else { panic!("{events:?}") };
    assert!(reason.contains("AMOUNT_TOO_LARGE: Free of USDT"), "{reason}");

    let mut rich = Book::usdt(AMOUNT_MAX);
    let refused = rich.try_commit(vec![Event::Deposit { asset: usdt, amount: Decimal::new(1, 14) }]).unwrap_err();
    assert!(format!("{refused:?}").contains("exact up to"), "{refused:?}");
}
