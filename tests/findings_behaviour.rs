//! Known failures that belong to no single module: what an agent can reach, what an operator was told, what a
//! second start may change.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod store_support;

use std::{fs, path::Path};

use store_support::{asset, batch, info, open, settings};
use triplegain::{
    coordinator::states,
    model::{Command, CommandAnswer, CoordinatorState, Decimal, Event},
    store::{OpenInfo, Store},
};

/// Code of a folder's files without their tests, joined.
fn code(dir: &Path, skip: &[&str], found: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !skip.contains(&name.as_str()) {
                code(&path, skip, found);
            }
        } else if name.ends_with(".rs")
            && !["tests.rs", "fixtures.rs", "testkit.rs"].iter().any(|end| name.ends_with(end))
        {
            let text = fs::read_to_string(&path).unwrap();
            found.push_str(text.split("#[cfg(test)]").next().unwrap());
        }
    }
}

fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The deadline of a run can cut off an agent, so no agent may be able to place an order or write.
#[test]
fn d15_no_agent_can_reach_execution_or_the_store() {
    let mut agents = String::new();
    code(&src().join("agents"), &[], &mut agents);
    assert!(agents.len() > 10_000, "the agents were read");
    for forbidden in
        ["execution::actor", "execution::venue", "execution::work", "execution::settle", "store::", "TradeIntent"]
    {
        assert!(!agents.contains(forbidden), "an agent names {forbidden}");
    }
}

#[test]
fn f13_a169_commands_are_typed_and_anything_else_is_refused() {
    let halt: Command = serde_json::from_str(r#"{"command":"halt","reason":"x"}"#).unwrap();
    assert_eq!(halt, Command::Halt { reason: "x".into() });
    for bad in [
        r#"{"command":"stop"}"#,
        r#"{"command":"reset"}"#,
        r#"{"command":"halt","force":true}"#,
        r#"{"command":"run_task","task":"technical_analysis"}"#,
        r#"{"reason":"x"}"#,
    ] {
        assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
    }
}

#[test]
fn f13_d22_a_halt_and_its_answer_are_there_after_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let (key, command) = ("k-1".to_owned(), Command::Halt { reason: "drill".into() });
    let halt = states::halt(&store.state().coordinator, "drill", "operator:test", info().now);
    let result = serde_json::json!({"halt_id": "H1"});
    let events = vec![
        Event::CommandReceived { key: key.clone(), command, body_hash: "b".repeat(64) },
        halt,
        Event::CommandDone { key: key.clone(), result: result.clone() },
    ];
    store.commit(batch(events)).unwrap().unwrap();
    drop(store); // no close and no clean stop: as after a kill
    let (store, opened) = open(data.path()).unwrap();
    let state = store.state();
    assert!(!opened.recovered.clean);
    assert_eq!(state.coordinator.state, CoordinatorState::Halted);
    let stored = state.coordinator.halt.as_ref().unwrap();
    assert_eq!((stored.id.as_str(), stored.reason.as_str(), stored.at), ("H1", "drill", info().now));
    assert_eq!(state.commands[&key].answer, Some(CommandAnswer::Ok { result }));
}

/// The baseline of the account is written once; a later start with another amount changes nothing.
#[test]
fn e10_the_first_deposit_is_never_replaced() {
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path()).unwrap());
    let richer = OpenInfo { deposits: [(asset("USDT"), Decimal::from(99_000))].into(), ..info() };
    let (store, _) = Store::open(data.path(), &settings(), &richer).unwrap();
    assert_eq!(store.state().account.free(asset("USDT")), Decimal::from(10_000));
}
