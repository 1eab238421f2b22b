//! Tests of the intent rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};

fn trade(book: &mut Book, notional: Decimal, price: Decimal) -> Trade {
    let order = book.entry_order(btc(), notional, price);
    entry(book.state.meta.store, &order, &rules()[&btc()], &book.execution, book.now).unwrap()
}

#[test]
fn a184_quantities_are_floored() {
    let rules = rules();
    let btc_rules = rules[&btc()];
    let quantity = quantity_for(dec!(1500), dec!(41_237.50), &btc_rules).unwrap();
    assert_eq!((quantity, quantity * dec!(41_237.50)), (dec!(0.03637465), dec!(1499.999629375)));
    let xrp = quantity_for(dec!(1500), dec!(0.61230), &rules[&symbol("XRP/USDT")]).unwrap();
    assert_eq!((xrp, xrp * dec!(0.61230)), (dec!(2449), dec!(1499.5227)));
    assert!(quantity_for(dec!(1), Decimal::ZERO, &btc_rules).is_err());
    assert!(quantity_for(Decimal::MAX, Decimal::new(1, 20), &btc_rules).is_err());
}

#[test]
fn a148_same_slot_twice_is_one_trade() {
    let mut book = Book::usdt(dec!(10_000));
    let first = trade(&mut book, dec!(1200), dec!(40_000));
    let Insertion::New(event) = insert(&book.state, first.clone()) else { panic!() };
    book.commit(vec![*event]);
    let locked = book.locked("USDT");
    // Made again later: the body is the same, so the first trade is the answer.
    let again = Trade { created_at: T0.plus_ms(5_000), ..first.clone() };
    let Insertion::Existing(stub) = insert(&book.state, again.clone()) else { panic!() };
    assert_eq!(stub.state, TradeState::Intent);
    // Even after it ended.
    book.commit(vec![Event::TradeExpired { trade_key: first.key, reason: "test".into() }]);
    let Insertion::Existing(stub) = insert(&book.state, again.clone()) else { panic!() };
    assert_eq!(stub.state, TradeState::Expired);
    assert!(locked > Decimal::ZERO && book.locked("USDT").is_zero());
    // The fold refuses what the insertion would have refused.
    assert!(book.try_commit(vec![Event::TradeIntent { trade: Box::new(again) }]).is_err());
}

#[test]
fn a149_same_key_with_another_quantity_is_refused_with_an_alert() {
    let mut book = Book::usdt(dec!(10_000));
    let first = trade(&mut book, dec!(1200), dec!(40_000));
    let Insertion::New(event) = insert(&book.state, first.clone()) else { panic!() };
    book.commit(vec![*event]);
    let mut other = first.clone();
    other.body.quantity += dec!(0.01);
    let Insertion::Conflict(alert) = insert(&book.state, other) else { panic!() };
    let Event::Noted { what, facts } = *alert else { panic!() };
    assert_eq!(what, "trade_key_conflict");
    assert_eq!(facts["trade_key"], first.key.to_string());
}

#[test]
fn keys_follow_c3() {
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let position = book.state.positions.values().next().unwrap().clone();
    let (store, rules) = (book.state.meta.store, rules()[&btc()]);
    let make = |position: &Position, purpose, quantity| exit(store, position, purpose, quantity, &rules, T0).unwrap();
    let stop = make(&position, ExitFor::Cause(ExitCause::Stop), position.quantity);
    assert_eq!((stop.plan.as_str(), stop.leg.as_str()), ("P1:stop", "0"));
    let next = make(&Position { exit_seq: 1, ..position.clone() }, ExitFor::Cause(ExitCause::Stop), position.quantity);
    assert_ne!(stop.key, next.key);
    let target = make(&position, ExitFor::Cause(ExitCause::Target), position.quantity);
    assert_ne!(stop.key, target.key);
    let breach = EmergencyKey {
        breach: "weekly_loss".into(),
        period: "202447".into(),
        action: crate::model::EmergencyAction::ReducePositions,
    };
    let half = make(&position, ExitFor::Emergency(breach.clone(), 0), position.quantity / dec!(2));
    assert_eq!((half.plan.as_str(), half.leg.as_str()), ("weekly_loss:202447:reduce_positions", "P1"));
    assert_ne!(half.key, make(&position, ExitFor::Emergency(breach, 1), position.quantity).key);
    // A rest that could never be sold alone goes with it.
    let most = make(&position, ExitFor::Cause(ExitCause::Signal), position.quantity - dec!(0.00005));
    assert_eq!(most.body.quantity, position.quantity);
    // The attempt is not part of the key or of the client order id.
    let retried = Trade { attempt: 3, ..stop.clone() };
    assert_eq!(retried.key.client_order_id(), stop.key.client_order_id());
}

#[test]
fn a183_too_small_or_not_affordable_is_rejected_once() {
    let mut book = Book::usdt(dec!(1000));
    let rules = rules()[&btc()];
    let whole = trade(&mut book, dec!(1000), dec!(40_000));
    let reason = unaffordable(&book.state, &whole, &rules).unwrap();
    assert!(reason.starts_with("INSUFFICIENT_FUNDS"), "{reason}");
    let events = refuse(whole.clone(), reason, book.now);
    book.commit(events);
    assert_eq!((book.free("USDT"), book.locked("USDT")), (dec!(1000), Decimal::ZERO));
    assert_eq!(book.trade_state(whole.key), TradeState::Rejected);
    assert!(book.state.trades.is_empty());
    assert_eq!(book.state.totals.orders, 1);
    let small = trade(&mut book, dec!(3), dec!(40_000));
    assert!(unaffordable(&book.state, &small, &rules).unwrap().starts_with("BELOW_MINIMUM"));
    // What fits to the last cent is made and never overdraws, whatever slippage draws.
    let fits = trade(&mut book, dec!(997), dec!(40_000));
    assert_eq!(unaffordable(&book.state, &fits, &rules), None);
    let key = book.submit_trade(fits);
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    book.venue(key, &price);
    assert!(book.free("USDT") >= Decimal::ZERO);
    assert_eq!(book.trade_state(key), TradeState::Settled);
}

#[test]
fn a_new_signal_replaces_resting_entries() {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    assert!(!is_blocked(&book.state, btc()));
    let mut unknown = Book { state: book.state.clone(), ..Book::usdt(dec!(1)) };
    unknown.commit(vec![Event::TradeUnknown { trade_key: key, reason: "no answer".into() }]);
    assert!(is_blocked(&unknown.state, btc()) && !is_blocked(&unknown.state, symbol("XRP/USDT")));
    assert_eq!(gate(&unknown.state, btc(), DegradationLevel::Normal), Some("order_unknown"));
    book.commit(vec![Event::TradeAcked { trade_key: key, expires_at: None }]);
    assert!(cancel_entries(&book.state, Some(symbol("XRP/USDT")), "replaced").is_empty());
    let cancels = cancel_entries(&book.state, Some(btc()), "replaced");
    book.commit(cancels);
    assert_eq!((book.trade_state(key), book.free("USDT")), (TradeState::Cancelled, dec!(10_000)));
}
