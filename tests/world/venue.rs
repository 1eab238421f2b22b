//! A venue that is out of service, frozen, or refuses every order: entries end, stops stay owed, and nothing goes out
//! twice when it is back.

use std::{collections::BTreeMap, rc::Rc};

use triplegain::market::feed::kraken::view::{Shared, SymbolLink};

use crate::support::*;

/// A link over which every symbol is heard.
fn online() -> Shared {
    let link = Shared::default();
    link.change(|view| {
        view.connected = true;
        for symbol in [btc(), xrp(), sym("XRP/BTC")] {
            let line = SymbolLink { subscribed: true, last_message_at: Some(START), ..SymbolLink::default() };
            view.symbols.insert(symbol, line);
        }
    });
    link
}

fn engine(link: &Shared, word: &str) {
    link.change(|view| view.system = word.to_owned());
}

fn frozen(link: &Shared, world: &World, yes: bool) {
    if yes {
        world.tape.silence(btc())
    } else {
        world.tape.speak(btc())
    }
    link.change(|view| view.symbols.values_mut().for_each(|line| line.silent = yes));
}

fn buy_now(symbol: Symbol) -> Command {
    Command::RunTask { task: "trading_decision".into(), symbol: symbol.to_string() }
}

/// How often each order left and was filled, by symbol and side.
fn orders(world: &World) -> BTreeMap<(Symbol, Side), (usize, usize)> {
    let mut orders: BTreeMap<(Symbol, Side), (usize, usize)> = BTreeMap::new();
    let intents = world.all(|event| match event {
        Event::TradeIntent { trade } => Some((trade.body.symbol, trade.body.side)),
        _ => None,
    });
    for order in intents {
        orders.entry(order).or_default().0 += 1;
    }
    let fills = world.all(|event| match event {
        Event::TradeFill { symbol, side, .. } => Some((*symbol, *side)),
        _ => None,
    });
    for order in fills {
        orders.entry(order).or_default().1 += 1;
    }
    orders
}

fn exits(world: &World) -> Vec<ClosedPosition> {
    world.all(|event| match event {
        Event::PositionClosed { closed } => Some((**closed).clone()),
        _ => None,
    })
}

fn suppressed(world: &World) -> usize {
    world.ends().iter().filter(|end| **end == DecisionEnd::Suppressed("paused".into())).count()
}

const PAUSED: &str = "venue";

/// Decided while the venue goes out of service, and asked for while it is: neither is ever sent, also not afterwards.
#[test]
fn an_entry_decided_while_the_venue_is_out_of_service_is_never_sent_and_the_stop_is_executed() {
    let link = online();
    let mut setup = Setup::new();
    setup.link = Some(link.clone());
    setup.doubles.reserve = Some(Rc::new(|_| Reply::Pass(5_000)));
    setup.play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        assert_eq!(world.state().positions.len(), 1, "{}", world.timeline());
        // Risk thinks about the entry while the venue says that it stops.
        world.wishes.set(xrp(), Wish::buy());
        world.order("buy", buy_now(xrp())).await;
        world.pass(2).await;
        engine(&link, "maintenance");
        world.pass(20).await;
        assert_eq!((world.is(), world.reasons().as_str()), (CoordinatorState::Paused, PAUSED));
        assert_eq!(suppressed(world), 1, "{}", world.timeline());
        assert_eq!(world.refusal("again", buy_now(xrp())).await, "state_paused");
        // Prices still come; the position is supervised as ever.
        world.tape.set(btc(), 44_000.0);
        world.pass(10).await;
        assert_eq!(exits(world).iter().map(|c| c.cause).collect::<Vec<_>>(), [ExitCause::Stop], "{}", world.timeline());
        assert_eq!(world.is(), CoordinatorState::Paused);
        engine(&link, "online");
        world.pass(120).await;
        assert_eq!(world.is(), CoordinatorState::Running, "{}", world.reasons());
        let once = BTreeMap::from([((btc(), Side::Buy), (1, 1)), ((btc(), Side::Sell), (1, 1))]);
        assert_eq!(orders(world), once, "{}", world.timeline());
        // The loss cools entries down for ten minutes; after that the venue takes them again.
        world.pass(600).await;
        world.wishes.set(xrp(), Wish::buy());
        world.order("buy at last", buy_now(xrp())).await;
        world.pass(20).await;
        assert_eq!(orders(world).get(&(xrp(), Side::Buy)), Some(&(1, 1)), "{:?} {}", world.ends(), world.timeline());
    });
}

/// An order the venue refused for the moment waits for its next attempt when the pause comes.
#[test]
fn the_next_attempt_of_an_entry_does_not_leave_into_a_pause_for_the_venue() {
    let link = online();
    let mut setup = Setup::new();
    setup.link = Some(link.clone());
    setup.play(async |world| {
        world.faults.set(Some((1, Fault::Definite)));
        world.wishes.set(btc(), Wish::buy());
        world.until(122).await;
        assert_eq!(world.count("TradeNotExecuted"), 1, "{}", world.timeline());
        engine(&link, "cancel_only");
        world.until(200).await;
        let ended = world.all(|event| match event {
            Event::TradeExpired { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(ended, ["suppressed(paused)"], "{}", world.timeline());
        engine(&link, "online");
        world.until(400).await;
        assert_eq!(world.is(), CoordinatorState::Running);
        assert_eq!(orders(world), BTreeMap::from([((btc(), Side::Buy), (1, 0))]), "{}", world.timeline());
        assert_eq!(world.state().account.locked(asset("USDT")), Decimal::ZERO);
    });
}

/// The feed is frozen, the process killed, the price has meanwhile passed the stop.
#[test]
fn a_stop_passed_while_the_venue_was_frozen_is_owed_once_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let link = online();
    let mut setup = Setup::new().durable(folder.path());
    setup.link = Some(link.clone());
    setup.play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        frozen(&link, world, true);
        world.pass(20).await;
        assert!(world.reasons().contains(PAUSED), "{}", world.reasons());
        assert_eq!(world.refusal("buy", buy_now(xrp())).await, "state_paused");
        assert_eq!(world.state().positions.len(), 1);
    });
    let mut setup = Setup::new().durable(folder.path()).at(START.plus_ms(400_000));
    setup.link = Some(link.clone());
    setup.tape.follow(|symbol, at| match at.since_ms(START) / 1_000 {
        _ if symbol == xrp() => 0.60,
        _ if symbol == sym("XRP/BTC") => 0.000_013_33,
        ..=410 => 45_000.0,
        _ => 44_000.0,
    });
    setup.tape.silence(btc());
    setup.play(async |world| {
        world.until(120).await;
        assert!(world.reasons().contains(PAUSED), "{}", world.reasons());
        assert_eq!(exits(world).len(), 0, "no price, no exit: {}", world.timeline());
        frozen(&link, world, false);
        // The level recovers as well: the market of one symbol was silent.
        world.pass(1_200).await;
        assert_eq!(world.is(), CoordinatorState::Running, "{}", world.reasons());
        assert_eq!(exits(world).iter().map(|c| c.cause).collect::<Vec<_>>(), [ExitCause::Stop], "{}", world.timeline());
        assert_eq!(orders(world), BTreeMap::from([((btc(), Side::Sell), (1, 1))]), "{}", world.timeline());
        assert!(world.state().positions.is_empty());
    });
}

/// Every order is refused: after nine in a row nothing is entered any more, and the stop is tried until it goes through.
#[test]
fn a_stop_that_the_venue_refuses_is_tried_until_it_goes_through_while_entries_are_shut() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        assert_eq!(world.state().positions.len(), 1);
        world.faults.set(Some((u32::MAX, Fault::Definite)));
        world.tape.set(btc(), 44_000.0);
        world.until(1_200).await;
        assert_eq!((world.is(), world.reasons().as_str()), (CoordinatorState::Paused, "degradation"));
        assert_eq!(world.refusal("buy", buy_now(xrp())).await, "state_paused");
        assert_eq!((world.state().positions.len(), exits(world).len()), (1, 0), "{}", world.timeline());
        world.faults.set(None);
        world.pass(120).await;
        assert_eq!(exits(world).iter().map(|c| c.cause).collect::<Vec<_>>(), [ExitCause::Stop], "{}", world.timeline());
        assert_eq!(orders(world)[&(btc(), Side::Sell)].1, 1, "{}", world.timeline());
        // Asked every 30 s how it is, also while only candles come: twenty answers in a row end the emergency.
        world.pass(600).await;
        assert_eq!(world.is(), CoordinatorState::Running, "{}", world.reasons());
        world.pass(3_000).await;
        assert_eq!(exits(world).len(), 1);
        assert!(!orders(world).contains_key(&(xrp(), Side::Buy)));
    });
}
