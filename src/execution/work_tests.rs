//! What is to be done next, asked in states in which nothing may be traded. Never runs an actor.

use super::{super::testkit::*, *};
use crate::{
    model::{Halt, Trailing},
    settings::{Sources, load},
};

fn desk<'a>(book: &'a Book, settings: &'a Settings, board: &'a Board) -> Desk<'a> {
    Desk { settings, rules: &book.risk, board, level: DegradationLevel::Emergency, now: book.now }
}

fn halted() -> Event {
    let halt = Halt { id: "H1".into(), reason: "test".into(), actor: "test".into(), at: T0 };
    Event::StateChanged {
        from: CoordinatorState::Running,
        to: CoordinatorState::Halted,
        reason: "test".into(),
        halt: Some(halt),
    }
}

/// HALTED at the worst level: an order that has not left expires, and a stop that is hit still closes the position.
#[test]
fn d24_a110_a_halt_stops_entries_and_not_supervision() {
    let settings = load(&Sources::default()).unwrap().settings;
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let position = *book.state.positions.keys().next().unwrap();
    book.commit(vec![Event::StopMoved { position, stop: Some(dec!(39_000)), trailing: Trailing::default() }]);
    let order = book.entry_order(btc(), dec!(500), dec!(40_000));
    let trade = intent::entry(
        book.state.meta.store,
        &order,
        &super::super::testkit::rules()[&btc()],
        &book.execution,
        book.now,
    )
    .unwrap();
    let key = trade.key;
    let intent::Insertion::New(event) = intent::insert(&book.state, trade) else { panic!("key is used") };
    book.commit(vec![*event, halted()]);

    book.now = book.now.plus_ms(1_000);
    let hit = tick(btc(), dec!(38_990), book.now);
    let prices = crate::risk::board::PriceBoard::new("USDT".parse().unwrap());
    prices.set(hit);
    let (reader, mut ticks) = (prices.reader(), Ticks::default());
    let (board, mut venue) = (reader.read(), venue(&book.execution));
    ticks.push(hit);
    let mut done = Vec::new();
    loop {
        let work = match next(&book.state, &mut ticks, &mut venue, &desk(&book, &settings, &board)).unwrap() {
            Next::Commit(work) => work,
            Next::Idle(_) => break,
        };
        done.extend(work.events.iter().map(Event::kind));
        book.commit(work.events);
        assert!(done.len() < 50, "{done:?}");
    }
    assert!(done.contains(&"TradeExpired") && !book.state.trades.contains_key(&key), "{done:?}");
    assert!(book.state.positions.is_empty(), "the stop closed the position: {done:?}");
    assert_eq!(book.state.coordinator.state, CoordinatorState::Halted);
}

#[test]
fn the_venue_is_asked_only_after_submitting_is_durable() {
    let settings = load(&Sources::default()).unwrap().settings;
    let mut book = Book::usdt(dec!(10_000));
    book.state.coordinator.state = CoordinatorState::Running;
    let order = book.entry_order(btc(), dec!(500), dec!(40_000));
    let rounding = super::super::testkit::rules()[&btc()];
    let trade = intent::entry(book.state.meta.store, &order, &rounding, &book.execution, book.now).unwrap();
    let key = trade.key;
    let intent::Insertion::New(event) = intent::insert(&book.state, trade) else { panic!("key is used") };
    book.commit(vec![*event]);
    book.now = book.now.plus_ms(1_000);
    let prices = crate::risk::board::PriceBoard::new("USDT".parse().unwrap());
    prices.set(tick(btc(), dec!(39_990), book.now));
    let (reader, mut ticks) = (prices.reader(), Ticks::default());
    let board = reader.read();
    let inner = venue(&book.execution);
    let mut counted = crate::execution::venue::FaultyVenue {
        inner,
        failures: 0,
        fault: crate::execution::venue::Fault::Definite,
        calls: 0,
    };
    for (kind, calls) in [("TradeSubmitting", 0), ("TradeFill", 1)] {
        let open = Desk { level: DegradationLevel::Normal, ..desk(&book, &settings, &board) };
        let Next::Commit(work) = next(&book.state, &mut ticks, &mut counted, &open).unwrap() else { panic!("{kind}") };
        assert_eq!((work.events[0].kind(), counted.calls), (kind, calls));
        book.commit(work.events);
    }
    assert_eq!(book.trade_state(key), TradeState::Settled);
}

#[test]
fn a_batch_that_moves_legs_expects_them_to_be_planned() {
    let plan = crate::execution::legs::tests::plan(2, 1_000);
    let mut state = State::default();
    state.plans.insert(plan.id, plan.clone());
    let all: Vec<(Uuid, TradeKey)> = plan.legs.iter().map(|leg| (plan.id, leg.key)).collect();
    let due = plan.legs.iter().map(|leg| (leg.key, T0)).collect();
    let mut claimed = claimed_legs(&state, &[Event::LegsRespread { plan: plan.id, due }]);
    claimed.sort();
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(claimed, expected);
    assert_eq!(claimed_legs(&state, &[Event::PlanExpired { plan: plan.id }]), all);
}
