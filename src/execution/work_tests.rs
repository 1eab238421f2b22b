//! What is to be done next, asked in states in which nothing may be traded. Never runs an actor.

use super::{super::testkit::*, *};
use crate::{
    execution::venue::VenueAnswer,
    model::{Decimal, Halt, PositionId, Trailing},
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
fn a_second_ambiguous_answer_records_nothing_and_is_asked_again_later() {
    let (mut book, key) = intent();
    let trade = book.state.trades[&key].clone();
    book.commit(vec![settle::submitting(&trade, book.now)]);
    book.commit(vec![Event::TradeUnknown { trade_key: key, reason: "no answer".into() }]);
    let settings = load(&Sources::default()).unwrap().settings;
    book.now = T0.plus_ms(5_000);
    let prices = crate::risk::board::PriceBoard::new("USDT".parse().unwrap());
    prices.set(tick(btc(), dec!(39_990), book.now));
    let (reader, mut ticks) = (prices.reader(), Ticks::default());
    let board = reader.read();
    let mut mute = crate::execution::venue::FaultyVenue {
        inner: venue(&book.execution),
        failures: u32::MAX,
        fault: crate::execution::venue::Fault::Ambiguous,
        calls: 0,
    };
    let desk = Desk { level: DegradationLevel::Normal, ..desk(&book, &settings, &board) };
    let again = next(&book.state, &mut ticks, &mut mute, &desk).unwrap();
    assert!(matches!(again, Next::Idle(Some(at)) if at > book.now), "{again:?}");
    assert_eq!(mute.calls, 1);
}

/// A long from 40 000 that trails 1.5 % behind; its stop follows the close of a candle whose low came before.
#[test]
fn a_stop_moved_by_a_candle_is_not_judged_by_that_candle() {
    let mut settings = load(&Sources::default()).unwrap().settings;
    settings.execution.trailing.enabled = true;
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let prices = crate::risk::board::PriceBoard::new("USDT".parse().unwrap());
    let minute = |n: i64| T0.plus_ms(n * 60_000);
    let candles = [
        candle(btc(), [dec!(40_000), dec!(41_000), dec!(40_000), dec!(41_000)], minute(2)),
        candle(btc(), [dec!(41_000), dec!(42_000), dec!(41_000), dec!(42_000)], minute(3)),
        candle(btc(), [dec!(42_000), dec!(42_000), dec!(41_360), dec!(41_500)], minute(4)),
    ];
    let mut ticks = Ticks::default();
    let mut seen = Vec::new();
    for tick in candles {
        book.now = tick.at;
        prices.set(tick);
        ticks.push(tick);
        let reader = prices.reader();
        let board = reader.read();
        let mut venue = venue(&book.execution);
        while let Next::Commit(work) =
            next(&book.state, &mut ticks, &mut venue, &desk(&book, &settings, &board)).unwrap()
        {
            seen.push((tick.at, work.events[0].kind()));
            book.commit(work.events);
            assert!(seen.len() < 10, "{seen:?}");
        }
    }
    let expected = [(minute(2), "StopMoved"), (minute(3), "StopMoved"), (minute(4), "TradeIntent")];
    assert_eq!(seen, expected, "41 000 came before the stop moved to 41 370, 41 360 after");
}

// ---- what a boot finds (C5): the same question, asked with nothing remembered

fn intent() -> (Book, TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let step = super::super::testkit::rules()[&btc()];
    let trade = intent::entry(book.state.meta.store, &order, &step, &book.execution, book.now).unwrap();
    let key = trade.key;
    book.commit(vec![Event::TradeIntent { trade: Box::new(trade) }]);
    (book, key)
}

/// Boots at `book.now` with a price of that instant and works until nothing is left; asking again changes nothing.
fn boot(book: &mut Book, price: Decimal) -> Vec<Event> {
    let mut settings = load(&Sources::default()).unwrap().settings;
    settings.execution = book.execution.clone();
    let prices = crate::risk::board::PriceBoard::new("USDT".parse().unwrap());
    prices.set(tick(btc(), price, book.now));
    let reader = prices.reader();
    let board = reader.read();
    let mut done = Vec::new();
    loop {
        let (mut ticks, mut venue) = (Ticks::default(), venue(&book.execution));
        let desk = Desk { level: DegradationLevel::Normal, ..desk(book, &settings, &board) };
        let Next::Commit(work) = next(&book.state, &mut ticks, &mut venue, &desk).unwrap() else { return done };
        done.extend(work.events.iter().cloned());
        book.commit(work.events);
        assert!(done.len() < 50, "{done:?}");
    }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::kind).collect()
}

#[test]
fn c5_intent_goes_on_or_expires_after_120_s() {
    for (age_ms, first, end) in
        [(120_000, "TradeSubmitting", TradeState::Settled), (121_000, "TradeExpired", TradeState::Expired)]
    {
        let (mut book, key) = intent();
        book.now = T0.plus_ms(age_ms);
        let done = boot(&mut book, dec!(39_990));
        assert_eq!((done[0].kind(), book.trade_state(key)), (first, end), "{done:?}");
        assert!(boot(&mut book, dec!(39_990)).is_empty(), "re-entrant");
    }
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
        book.now = T0.plus_ms(5_000);
        fills.push(boot(&mut book, dec!(39_990)));
        assert!(boot(&mut book, dec!(39_990)).is_empty());
    }
    let fill = |events: &[Event]| events.iter().find(|event| matches!(event, Event::TradeFill { .. })).cloned();
    assert!(fill(&fills[0]).is_some());
    assert_eq!(fill(&fills[0]), fill(&fills[1]));
}

#[test]
fn c5_not_executed_retries_expires_or_is_exhausted() {
    let failed = || {
        let (mut book, key) = intent();
        let trade = book.state.trades[&key].clone();
        let retry_at = Some(T0.plus_ms(5_000));
        let failure = Event::TradeNotExecuted { trade_key: key, reason: "x".into(), retry_at };
        book.commit(vec![settle::submitting(&trade, book.now), failure]);
        (book, key)
    };
    for (at_ms, state) in
        [(4_999, TradeState::NotExecuted), (5_000, TradeState::Settled), (121_000, TradeState::Expired)]
    {
        let (mut book, key) = failed();
        book.now = T0.plus_ms(at_ms);
        boot(&mut book, dec!(39_990));
        assert_eq!(book.trade_state(key), state, "{at_ms} ms");
    }
    let (mut book, key) = failed();
    for attempt in 2..=4 {
        let trade = book.state.trades[&key].clone();
        assert_eq!((trade.attempt, trade.state), (attempt - 1, TradeState::NotExecuted));
        book.commit(vec![settle::submitting(&trade, book.now)]);
        let trade = book.state.trades[&key].clone();
        let answer = VenueAnswer::NotExecuted { reason: "x".into() };
        let events = settle::answer(&book.state, &trade, answer, &book.desk()).unwrap();
        book.commit(events);
    }
    assert_eq!(book.trade_state(key), TradeState::Rejected, "exhausted");
}

#[test]
fn c5_resting_orders_rest_again_or_expire() {
    let (mut book, key) = intent();
    book.now = T0.plus_ms(100);
    boot(&mut book, dec!(40_100));
    assert_eq!(book.trade_state(key), TradeState::Acked);
    book.now = T0.plus_ms(3_600_000);
    assert!(boot(&mut book, dec!(40_100)).is_empty(), "it rests");
    book.now = T0.plus_ms(24 * 3_600_000);
    assert_eq!(kinds(&boot(&mut book, dec!(40_100))), ["TradeExpired"]);
    assert_eq!(book.free("USDT"), dec!(10_000));
}

#[test]
fn c5_partial_market_orders_fill_on_and_filled_ones_settle() {
    let mut book = Book::usdt(dec!(10_000));
    book.buy(btc(), dec!(1200), dec!(40_000));
    let position = book.state.positions[&PositionId(1)].clone();
    let purpose = intent::ExitFor::Cause(crate::model::ExitCause::Signal);
    let step = super::super::testkit::rules()[&btc()];
    let exit = intent::exit(book.state.meta.store, &position, purpose, position.quantity, &step, book.now).unwrap();
    let key = book.submit_trade(exit);
    book.execution.paper.partial_fills.enabled = true;
    book.execution.paper.partial_fills.chance = 1.0;
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    book.venue(key, &price);
    assert_eq!(book.trade_state(key), TradeState::Partial);
    book.execution.paper.partial_fills.enabled = false;
    let filled = Book { state: book.state.clone(), ..Book::usdt(dec!(1)) };
    boot(&mut book, dec!(40_000));
    assert_eq!((book.trade_state(key), book.state.positions.len()), (TradeState::Settled, 0));
    let mut filled = Book { now: book.now, ..filled };
    let trade = filled.state.trades.get_mut(&key).unwrap();
    (trade.filled, trade.state) = (trade.body.quantity, TradeState::Filled);
    assert_eq!(kinds(&boot(&mut filled, dec!(40_000))), ["TradeSettled"]);
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
