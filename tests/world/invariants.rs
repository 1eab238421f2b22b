//! What a broken invariant does to the running program: HALTED, a bundle, and the end when it is the account.

use std::path::Path;

use triplegain::store::{Batch, Commit};

use crate::support::*;

async fn commit(world: &World, events: Vec<Event>) {
    let batch = Batch::new("test", "test", "test", world.now(), events);
    world.system.links.store.send(Commit(batch)).await.unwrap().unwrap();
}

fn durable(folder: &Path) -> Setup {
    let data = folder.to_string_lossy().into_owned();
    Setup::new().durable(folder).with(|s| s.data_dir = data)
}

fn bundles(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("bundles")) else { return Vec::new() };
    entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn r6_a_broken_account_halts_durably_leaves_a_bundle_and_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    durable(folder.path()).play(async |world| {
        world.until(10).await;
        assert_eq!(expected_fatal(), Vec::<String>::new());
        commit(world, vec![Event::Deposit { asset: asset("USDT"), amount: dec("-20000") }]).await;
        // The next tick of the schedule finds it.
        world.until(70).await;
        assert_eq!(world.is(), CoordinatorState::Halted);
        let halt = world.state().coordinator.halt.clone().unwrap();
        assert!(halt.reason.starts_with("invariant: account: "), "{halt:?}");
        let fatal = expected_fatal();
        assert_eq!(fatal.len(), 1, "{fatal:?}");
        assert!(fatal[0].contains("USDT is below zero"), "{fatal:?}");
        let found = bundles(folder.path());
        assert_eq!(found.len(), 1);
        let mut lines = found[0].lines();
        assert!(lines.next().unwrap().contains("below zero"));
        assert!(lines.any(|line| line.contains("\"Deposit\"") && line.contains("-20000")), "the event itself is in it");
    });
    durable(folder.path()).at(START.plus_ms(120_000)).play(async |world| {
        assert_eq!(world.is(), CoordinatorState::Halted, "the next start does not trade on it");
        // It is looked at again, and found again.
        world.until(5).await;
        assert_eq!(expected_fatal().len(), 1);
    });
}

#[test]
fn r7_the_operator_acknowledges_a_clock_pause_and_nothing_else() {
    Setup::new().play(async |world| {
        world.until(10).await;
        assert_eq!(world.refusal("k1", Command::ClockAck {}).await, "not_paused");
        let paused = CoordinatorState::Paused;
        let to =
            Event::StateChanged { from: CoordinatorState::Running, to: paused, reason: "clock".into(), halt: None };
        commit(world, vec![Event::PauseReasonAdded { reason: "clock".into() }, to]).await;
        world.order("k2", Command::Pause { reason: String::new() }).await;
        world.order("k3", Command::ClockAck {}).await;
        assert_eq!((world.reasons().as_str(), world.is()), ("operator", paused), "the operator's own pause stays");
        world.order("k4", Command::Resume {}).await;
        assert_eq!(world.is(), CoordinatorState::Running);
    });
}

#[test]
fn r6_an_entry_that_leaves_while_paused_halts_without_ending_the_process() {
    let folder = tempfile::tempdir().unwrap();
    durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish { entry_pct: -0.5, ..Wish::buy() });
        world.until(130).await;
        let entry = world.state().trades.values().find(|trade| trade.is_entry()).cloned();
        let mut entry = entry.unwrap_or_else(|| panic!("no entry rests: {}", world.timeline()));
        world.order("k1", Command::Pause { reason: String::new() }).await;
        let store = world.state().meta.store;
        entry.key = TradeKey::derive(store, entry.kind, "another", "0", entry.body.symbol, entry.body.side);
        (entry.state, entry.attempt) = (TradeState::Intent, 0);
        let sent = Event::TradeSubmitting {
            trade_key: entry.key,
            attempt: 1,
            deadline: world.now().plus_ms(60_000),
            reference: None,
        };
        commit(world, vec![Event::TradeIntent { trade: Box::new(entry) }, sent]).await;
        world.pass(2).await;
        assert_eq!(world.is(), CoordinatorState::Halted);
        let halt = world.state().coordinator.halt.clone().unwrap();
        assert!(halt.reason.contains("was sent while PAUSED"), "{halt:?}");
        assert_eq!(expected_fatal(), Vec::<String>::new(), "trading is halted; the process lives");
        assert_eq!(bundles(folder.path()).len(), 1);
    });
}
