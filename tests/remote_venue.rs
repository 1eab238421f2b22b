//! The protocol of an order at a venue that may not answer, against one that fails on purpose: in virtual time, with
//! crashes at every kind of instant, and many seeds. Whatever happens, no trade key is executed twice, and what the
//! program booked is what the venue did.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/faulty_venue.rs"]
mod faulty_venue;
#[path = "support/venue_world.rs"]
mod venue_world;

use std::collections::{BTreeMap, BTreeSet};

use faulty_venue::{Faults, Reply, Request};
use rand_chacha::rand_core::RngCore;
use rust_decimal::Decimal;
use rust_decimal_macros::dec;
use triplegain::{
    execution::{
        intent,
        remote::{Call, Order, Talks},
        work::Next,
    },
    model::*,
};
use venue_world::{START, World, btc};

fn submitted_at(world: &mut World, limit: Price) -> TradeKey {
    let key = world.entry(limit, dec!(0.01)).unwrap();
    world.run(world.now.plus_ms(1));
    key
}

/// The first thing that has to hold: no answer, found by query, adopted once.
#[test]
fn k17_k18_an_order_without_an_answer_is_found_open_or_closed() {
    for (limit, seen, end) in
        [(dec!(39_000), TradeState::Acked, "rests"), (dec!(40_100), TradeState::Settled, "is filled")]
    {
        let mut world = World::new(1, Faults { lose_answer: 1.0, ..Faults::none() });
        let key = submitted_at(&mut world, limit);
        world.venue().faults = Faults::none();
        world.run(START.plus_ms(13_000));
        assert_eq!(world.ended(key), TradeState::Unknown, "{end}");
        world.run(START.plus_ms(17_000));
        assert_eq!(world.ended(key), seen, "{end}");
        assert_eq!((world.taken(key).len(), world.count("TradeSubmitting")), (1, 1));
        world.check(&BTreeSet::from([key]), end);
    }
}

#[test]
fn k14_k15_what_never_arrived_is_proven_absent_and_sent_once_more() {
    let mut world = World::new(2, Faults { lose_request: 1.0, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    world.venue().faults = Faults::none();
    world.run(START.plus_ms(15_000));
    assert_eq!(world.ended(key), TradeState::Unknown);
    assert!(world.entry(dec!(40_100), dec!(0.01)).is_none(), "no entry of a symbol with an order of unknown fate");
    world.run(START.plus_ms(24_000));
    assert_eq!(world.ended(key), TradeState::Unknown, "two rounds prove nothing");
    world.run(START.plus_ms(40_000));
    assert_eq!(world.ended(key), TradeState::Settled);
    assert_eq!((world.count("TradeSubmitting"), world.count("TradeNotExecuted")), (2, 1));
    world.check(&BTreeSet::from([key]), "sent once more");
}

#[test]
fn the_same_client_id_goes_with_every_attempt_and_never_a_third_one() {
    let mut world = World::new(3, Faults { lose_request: 1.0, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    // Queries are answered, submissions never arrive.
    let mut sent = Vec::new();
    for _ in 0..200 {
        world.next();
        let calls = world.talks.take_calls();
        for ask in calls {
            if let Call::Submit(order) = &ask.call {
                sent.push(order.client_id);
            }
            world.venue().faults.lose_request = if matches!(ask.call, Call::Submit(_)) { 1.0 } else { 0.0 };
            world.call(ask);
        }
        world.now = world.now.plus_ms(500);
        world.hear();
        while let Next::Commit(work) = world.next() {
            world.commit(work.events);
        }
    }
    assert!(sent.iter().all(|id| *id == key.client_order_id()));
    assert_eq!((world.ended(key), world.count("TradeSubmitting")), (TradeState::Expired, 2));
}

#[test]
fn k16_an_order_taken_late_is_found_and_one_after_its_deadline_is_refused() {
    for (late_ms, taken) in [(9_900, 1), (10_001, 0)] {
        let mut world = World::new(4, Faults { lose_request: 1.0, order_lag_ms: 8_000, ..Faults::none() });
        let key = submitted_at(&mut world, dec!(40_100));
        let sent = world.state.trades[&key].remote.clone().unwrap();
        let trade = world.state.trades[&key].clone();
        let order = Order {
            client_id: key.client_order_id(),
            symbol: btc(),
            side: Side::Buy,
            quantity: trade.body.quantity,
            order_type: trade.body.order_type,
            time_in_force: trade.body.time_in_force,
            deadline: sent.deadline,
        };
        world.venue().hold(sent.sent_at.plus_ms(late_ms), Request::Submit { number: 999_999, order });
        world.venue().faults = Faults { order_lag_ms: 8_000, ..Faults::none() };
        world.run(START.plus_ms(24_000));
        assert_eq!(world.taken(key).len(), taken, "{late_ms} ms");
        world.run(START.plus_ms(90_000));
        assert_eq!((world.taken(key).len(), world.ended(key)), (1, TradeState::Settled), "{late_ms} ms");
        assert_eq!(world.count("TradeSubmitting"), 2 - taken, "{late_ms} ms");
        world.check(&BTreeSet::from([key]), "late");
    }
}

/// Filled at once and shown among the fills much later: only the list of closed orders tells.
#[test]
fn k18_fills_that_are_listed_late_do_not_hide_a_closed_order() {
    let mut world = World::new(5, Faults { lose_answer: 1.0, trades_lag_ms: 1, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    // Nothing is told by the stream either.
    world.talks = Talks::default();
    world.streamed_until = START.plus_ms(3_600_000);
    world.venue().faults = Faults::none();
    world.venue().lag_fills(120_000);
    world.run(START.plus_ms(110_000));
    assert_eq!(world.ended(key), TradeState::Unknown, "known to be there, not yet what it cost");
    world.run(START.plus_ms(200_000));
    assert_eq!((world.ended(key), world.taken(key).len()), (TradeState::Settled, 1));
    assert_eq!(world.count("TradeSubmitting"), 1);
}

#[test]
fn k22_a_fill_from_stream_and_list_is_booked_once() {
    let mut world = World::new(26, Faults { partial: 1.0, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    world.run(START.plus_ms(30_000));
    let fills: Vec<_> = world.taken(key)[0].fills.iter().map(|(_, fill)| fill.clone()).collect();
    assert!(fills.len() > 1);
    for fill in fills {
        world.talks.streamed(fill.clone());
        world.talks.streamed(fill);
    }
    world.run(START.plus_ms(60_000));
    world.check(&BTreeSet::from([key]), "stream and list");
}

#[test]
fn k26_the_query_decides_what_a_cancel_without_an_answer_did() {
    for arrives in [true, false] {
        let mut world = World::new(7, Faults::none());
        let key = submitted_at(&mut world, dec!(39_000));
        world.venue().never_fills(key.client_order_id());
        world.run(START.plus_ms(2_000));
        assert_eq!(world.ended(key), TradeState::Acked);
        let cancels = intent::cancel_entries(&world.state, None, "replaced");
        assert!(matches!(cancels.as_slice(), [Event::TradeCancelRequested { .. }]), "{cancels:?}");
        world.commit(cancels);
        assert!(intent::cancel_entries(&world.state, None, "again").is_empty(), "asked for once");
        // The program dies with the cancel on its way.
        world.crash();
        if arrives {
            let client_id = key.client_order_id();
            assert_eq!(
                world.venue().handle(Request::Cancel { number: 999_999, client_id }, world.now),
                Reply::Cancelled
            );
        } else {
            world.venue().fill_now(key.client_order_id(), world.now);
        }
        let seen = world.venue().seen;
        world.run(START.plus_ms(20_000));
        let end = if arrives { TradeState::Cancelled } else { TradeState::Settled };
        assert_eq!(world.ended(key), end);
        assert!(world.venue().seen > seen);
        assert_eq!(world.state.account.locked("USDT".parse().unwrap()), Decimal::ZERO);
        world.check(&BTreeSet::from([key]), "cancel");
    }
}

#[test]
fn an_unanswering_venue_is_told_after_a_minute_and_left_to_the_operator_after_fifteen() {
    let mut world = World::new(8, Faults { lose_request: 1.0, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    world.run(START.plus_ms(60_000));
    assert_eq!(world.alerts(), 0);
    world.run(START.plus_ms(74_000));
    assert_eq!(world.alerts(), 1);
    world.run(START.plus_ms(900_000));
    assert_eq!(world.ended(key), TradeState::Unknown);
    world.run(START.plus_ms(915_000));
    assert_eq!((world.ended(key), world.alerts()), (TradeState::Manual, 1));
    assert!(world.state.account.locked("USDT".parse().unwrap()) > Decimal::ZERO, "its funds stay held");
    assert!(world.entry(dec!(40_100), dec!(0.01)).is_none());
    world.venue().faults = Faults::none();
    world.run(START.plus_ms(1_000_000));
    assert_eq!(world.ended(key), TradeState::Manual);
}

/// A venue that forgot a resting order is asked for ever otherwise: told after a minute, the operator's after fifteen.
#[test]
fn c5_an_order_the_venue_took_and_no_longer_lists_is_told_and_left_to_the_operator() {
    let mut world = World::new(11, Faults::none());
    let key = submitted_at(&mut world, dec!(39_000));
    world.venue().never_fills(key.client_order_id());
    world.run(START.plus_ms(10_000));
    assert_eq!(world.ended(key), TradeState::Acked);
    world.venue().taken.clear();
    world.run(START.plus_ms(60_000));
    assert_eq!(world.alerts_of("order_lost"), 0);
    // Maintenance in between neither proves it nor makes it good.
    world.venue().faults.offline = true;
    world.run(START.plus_ms(100_000));
    world.venue().faults.offline = false;
    world.run(START.plus_ms(880_000));
    assert_eq!((world.ended(key), world.alerts_of("order_lost")), (TradeState::Acked, 1));
    world.run(START.plus_ms(930_000));
    assert_eq!((world.ended(key), world.alerts_of("order_lost")), (TradeState::Manual, 1));
    assert!(world.state.account.locked("USDT".parse().unwrap()) > Decimal::ZERO, "its funds stay held");
    let asked = world.venue().seen;
    world.crash();
    world.run(START.plus_ms(1_000_000));
    assert_eq!((world.ended(key), world.venue().seen), (TradeState::Manual, asked), "and nobody asks any more");
}

#[test]
fn an_order_that_is_listed_again_within_the_limit_goes_on() {
    let mut world = World::new(12, Faults::none());
    let key = submitted_at(&mut world, dec!(39_000));
    world.venue().never_fills(key.client_order_id());
    world.run(START.plus_ms(10_000));
    let kept = std::mem::take(&mut world.venue().taken);
    world.run(START.plus_ms(600_000));
    world.venue().taken = kept;
    world.run(START.plus_ms(1_400_000));
    assert_eq!((world.ended(key), world.alerts_of("order_lost")), (TradeState::Acked, 1));
    world.venue().taken.clear();
    world.run(START.plus_ms(2_100_000));
    assert_eq!((world.ended(key), world.alerts_of("order_lost")), (TradeState::Acked, 2), "its time began anew");
}

/// The venue reports more than was ordered, or more than the account can pay: no start can book it. The trade is the
/// operator's, once, and every later start goes on.
#[test]
fn c2_a_fill_the_account_cannot_book_is_left_to_the_operator_and_no_start_ends_by_it() {
    for (quantity, price, word) in [(dec!(0.5), dec!(39_000), "remaining"), (dec!(0.01), dec!(390_000_000), "paid")] {
        let mut world = World::new(13, Faults::none());
        let key = submitted_at(&mut world, dec!(39_000));
        world.venue().never_fills(key.client_order_id());
        world.run(START.plus_ms(10_000));
        world.venue().fill_now(key.client_order_id(), world.now);
        world.venue().taken.iter_mut().for_each(|taken| {
            taken.fills.iter_mut().for_each(|(_, fill)| (fill.quantity, fill.price) = (quantity, price));
        });
        world.run(START.plus_ms(30_000));
        for _ in 0..3 {
            world.crash();
            world.run(world.now.plus_ms(30_000));
        }
        assert_eq!(
            (world.ended(key), world.count("TradeManual"), world.count("TradeFill")),
            (TradeState::Manual, 1, 0)
        );
        let told = world.journal.iter().any(|record| match &record.event {
            Event::TradeManual { reason, .. } => reason.contains(word),
            _ => false,
        });
        assert!(told, "the damage is named");
        assert!(world.entry(dec!(39_000), dec!(0.01)).is_none());
        // The way out: the operator states what the account should hold.
        let fill = Some(ManualFill { quantity: dec!(0.01), price: dec!(39_000), fee: dec!(1) });
        let resolution = ManualResolution { fill, evidence: "the venue's statement".into(), source: "k".into() };
        world.commit(vec![Event::TradeResolved { trade_key: key, resolution }]);
        world.crash();
        world.run(world.now.plus_ms(1_000));
        assert_eq!((world.ended(key), world.count("TradeFill")), (TradeState::Settled, 1));
        assert!(world.entry(dec!(39_000), dec!(0.01)).is_some(), "entries go on");
    }
}

#[test]
fn a_venue_in_maintenance_proves_nothing() {
    let mut world = World::new(9, Faults { lose_request: 1.0, ..Faults::none() });
    let key = submitted_at(&mut world, dec!(40_100));
    world.venue().faults = Faults { offline: true, ..Faults::none() };
    world.run(START.plus_ms(120_000));
    assert_eq!(world.ended(key), TradeState::Unknown);
}

#[test]
fn k50_request_numbers_are_reserved_before_use_and_never_used_twice() {
    let mut world = World::new(10, Faults::none());
    let mut used = BTreeSet::new();
    for life in 0..5 {
        submitted_at(&mut world, dec!(39_000) - Decimal::from(life));
        for _ in 0..50 {
            while let Next::Commit(work) = world.next() {
                world.commit(work.events);
            }
            let calls = world.talks.take_calls();
            for ask in calls {
                let count = if matches!(ask.call, Call::Look { .. }) { 3 } else { 1 };
                for number in ask.number..ask.number + count {
                    assert!(number < world.state.meta.nonces, "{number} is not reserved");
                    assert!(used.insert(number), "{number} was used before");
                }
                world.call(ask);
            }
            world.now = world.now.plus_ms(700);
            world.hear();
        }
        world.crash();
    }
    assert_eq!(world.venue().repeated_numbers(), 0);
}

/// Many orders under every fault with crashes at random instants. `TRIPLEGAIN_SEED` plays one seed, `TRIPLEGAIN_SEEDS`
/// so many.
#[test]
fn k14_to_k26_random_faults_and_crashes_execute_no_key_twice() {
    let one = std::env::var("TRIPLEGAIN_SEED").ok().and_then(|seed| seed.parse().ok());
    let many = std::env::var("TRIPLEGAIN_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let seeds: Vec<u64> = one.map_or_else(|| (0..many).collect(), |seed| vec![seed]);
    let (mut crashed, mut resent, mut manual, mut unknown, mut ended) = (0, 0, 0, 0, BTreeMap::new());
    for seed in seeds {
        let context = format!("seed {seed}");
        println!("{context}");
        let mut world = World::new(seed, Faults::all());
        world.crashes = 0.02;
        let mut keys = BTreeSet::new();
        for step in 0..25 {
            let limit = if step % 3 == 0 { dec!(39_900) } else { dec!(40_100) };
            let made = if world.chance(0.3) { world.exit() } else { world.entry(limit, dec!(0.0123)) };
            keys.extend(made);
            let pause = 1_000 + (world.random.next_u64() % 30_000).cast_signed();
            world.run(world.now.plus_ms(pause));
            if world.chance(0.1) {
                let cancels = intent::cancel_entries(&world.state, None, "replaced");
                world.commit(cancels);
            }
        }
        world.venue().faults = Faults { order_lag_ms: 8_000, trades_lag_ms: 40_000, ..Faults::none() };
        world.crashes = 0.0;
        world.run(world.now.plus_ms(600_000));
        let cancels = intent::cancel_entries(&world.state, None, "the end");
        world.commit(cancels);
        world.run(world.now.plus_ms(600_000));
        world.check(&keys, &context);
        for key in &keys {
            let state = world.ended(*key);
            assert!(state.is_terminal() || state == TradeState::Manual, "{context}: {key:?} is {state:?}");
            *ended.entry(state).or_insert(0) += 1;
            manual += u32::from(state == TradeState::Manual);
        }
        crashed += world.crashed;
        unknown += world.count("TradeUnknown");
        resent += world.count("TradeNotExecuted");
    }
    println!("{crashed} crashes, {unknown} of unknown fate, {resent} proven absent, {manual} manual, ends {ended:?}");
    if one.is_none() {
        assert!(crashed > 100 && unknown > 100 && resent > 20, "the faults did not happen");
    }
}

/// The venue fills the entry, and in the same minute the price passes the stop and comes back. Wherever the process is
/// killed after the fill is booked, the stop is owed, and one order closes the position.
#[test]
fn a_stop_crossed_in_the_minute_of_the_fill_is_owed_once_wherever_the_process_is_killed() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Killed {
        Never,
        AfterTheFill,
        AfterTheIntentOfTheExit,
        WithTheExitUnanswered,
        AfterTheExit,
    }
    use Killed::*;
    for killed in [Never, AfterTheFill, AfterTheIntentOfTheExit, WithTheExitUnanswered, AfterTheExit] {
        let mut world = World::new(11, Faults::none());
        world.stop = Some(dec!(39_500));
        let entry = world.entry(dec!(40_100), dec!(0.01)).unwrap();
        world.run(START.plus_ms(5_000));
        assert_eq!(world.ended(entry), TradeState::Settled, "{killed:?}");
        assert_eq!(world.state.positions.values().map(|held| held.stop).collect::<Vec<_>>(), [Some(dec!(39_500))]);
        let booked = world.now;
        // The candle of the fill, closed after it: down to 39 000 and back.
        world.now = START.plus_ms(61_000);
        let range = PriceRange { from: START, open: dec!(40_000), high: dec!(40_050), low: dec!(39_000) };
        let candle = PriceTick {
            symbol: btc(),
            price: dec!(40_000),
            at: START.plus_ms(60_000),
            price_id: 2,
            range: Some(range),
        };
        world.board.set(PriceTick { at: world.now, range: None, price_id: 3, ..candle });
        let owed = |world: &World| world.state.trades.values().filter(|trade| trade.body.position.is_some()).count();
        match killed {
            Never => world.ticks.push(candle),
            AfterTheFill => world.restart(booked, &[candle], usize::MAX),
            AfterTheIntentOfTheExit => {
                world.restart(booked, &[candle], 1);
                assert_eq!(owed(&world), 1, "{killed:?}");
                world.restart(booked, &[candle], usize::MAX);
            }
            WithTheExitUnanswered => {
                world.restart(booked, &[candle], usize::MAX);
                world.venue().faults.lose_answer = 1.0;
                world.run(world.now.plus_ms(20));
                assert_eq!(world.count("TradeSubmitting"), 2, "{killed:?}");
                world.venue().faults = Faults::none();
                world.restart(booked, &[candle], usize::MAX);
            }
            AfterTheExit => {
                world.restart(booked, &[candle], usize::MAX);
                world.run(world.now.plus_ms(60_000));
                assert!(world.state.positions.is_empty());
                world.restart(booked, &[candle], usize::MAX);
            }
        }
        world.run(world.now.plus_ms(120_000));
        assert!(world.state.positions.is_empty(), "{killed:?}: {:?}", world.state.trades);
        let causes: Vec<ExitCause> = world
            .journal
            .iter()
            .filter_map(|record| match &record.event {
                Event::PositionClosed { closed } => Some(closed.cause),
                _ => None,
            })
            .collect();
        assert_eq!(causes, [ExitCause::Stop], "{killed:?}");
        let keys: BTreeSet<TradeKey> = world.state.trade_index.keys().copied().collect();
        assert_eq!(keys.len(), 2, "{killed:?}: the entry and one exit");
        assert!(keys.iter().all(|key| world.taken(*key).len() == 1), "{killed:?}");
        world.check(&keys, &format!("{killed:?}"));
    }
}
