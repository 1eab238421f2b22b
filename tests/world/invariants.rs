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
fn r6_an_entry_that_leaves_while_paused_halts_without_ending_the_process() {
    let folder = tempfile::tempdir().unwrap();
    durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish { entry_pct: -0.5, ..Wish::buy() });
        world.until(130).await;
        let entry = world.state().trades.values().find(|trade| trade.is_entry()).map(|trade| trade.key);
        let entry = entry.unwrap_or_else(|| panic!("no entry rests: {}", world.timeline()));
        world.order("k1", Command::Pause { reason: String::new() }).await;
        commit(world, vec![Event::TradeSubmitting { trade_key: entry, attempt: 9, deadline: world.now() }]).await;
        world.pass(2).await;
        assert_eq!(world.is(), CoordinatorState::Halted);
        let halt = world.state().coordinator.halt.clone().unwrap();
        assert!(halt.reason.contains("was sent while PAUSED"), "{halt:?}");
        assert_eq!(expected_fatal(), Vec::<String>::new(), "trading is halted; the process lives");
        assert_eq!(bundles(folder.path()).len(), 1);
    });
}
