//! Everything that was answered and shown, kept beside the store, and the oracle over the whole store with all of it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;
use triplegain::{
    coordinator::status::Status,
    model::{CommandAnswer, Money, State},
    store::{
        frame,
        oracle::{Ack, acks},
        twice, verify,
    },
};

use crate::process_support::*;

fn file(store: &Path) -> PathBuf {
    store.with_extension("acks.jsonl")
}

fn add(store: &Path, acks: impl IntoIterator<Item = Ack>) {
    let mut out = fs::File::options().append(true).create(true).open(file(store)).unwrap();
    for ack in acks {
        writeln!(out, "{}", serde_json::to_string(&ack).unwrap()).unwrap();
    }
}

/// A command was answered; anything but an answer acknowledges nothing.
pub fn answered(store: &Path, key: &str, answer: &Value) {
    if let Ok(answer) = serde_json::from_value::<CommandAnswer>(answer.clone()) {
        add(store, [Ack::Command { key: key.to_owned(), answer }]);
    }
}

/// Everything a status shows is durable: plans, legs, orders, and the newest record.
pub fn shown(store: &Path, status: &Value) {
    let status: Status = serde_json::from_value(status.clone()).unwrap();
    let mut acks = Vec::new();
    if status.journal.seq > 0 {
        acks.push(Ack::Record { seq: status.journal.seq, hash: status.journal.hash.clone() });
    }
    let keyed = |text: &str, state: Option<&str>, filled| Ack::Trade {
        key: text.parse().unwrap(),
        state: state.map(str::to_owned),
        filled,
    };
    acks.extend(status.orders.iter().map(|order| keyed(&order.trade_key, Some(&order.state), order.filled)));
    acks.extend(status.scheduled.iter().map(|leg| keyed(&leg.trade_key, None, Money::ZERO)));
    let plan = status.scheduled.first().map(|leg| leg.plan.parse().unwrap());
    acks.extend(plan.map(|id| Ack::Plan { id }));
    add(store, acks);
}

/// `journal verify --acks --recover-twice`: all seven checks with everything that was ever acknowledged, and recovering
/// twice equals recovering once.
///
/// # Errors
/// What the oracle says.
pub fn prove(store: &Path) -> Result<(), String> {
    let acks = file(store);
    let known = fs::read_to_string(&acks).unwrap_or_default();
    if !store.join("journal").is_dir() {
        // It died before it made anything: nothing can have been acknowledged.
        return if known.is_empty() { Ok(()) } else { Err("the journal is gone".to_owned()) };
    }
    let mut args = vec!["--store", store.to_str().unwrap(), "journal", "verify"];
    if !known.is_empty() {
        args.extend(["--acks", acks.to_str().unwrap()]);
    }
    // A store that was not finished has nothing to adopt.
    if store.join("identity.json").exists() {
        args.push("--recover-twice");
    }
    let output = run_to_end(&args);
    if output.status.success() {
        return Ok(());
    }
    let said = format!("{}{}", stdout(&output), stderr(&output));
    // A kill in the middle of the embedded library's own writing can leave a file it cannot read. What counts then is
    // that the journal alone gives everything back.
    let list = acks::parse(&known)?;
    if output.status.code() == Some(65) && verify::check_with(store, &list).is_rebuilt_by_a_start() {
        println!("an embedded store could not be read; made anew from the journal");
        return twice::recover_twice(store, &super::store_settings()).map(drop);
    }
    Err(said)
}

/// As [`prove`], and what must hold of the records themselves.
pub fn proven(store: &Path) -> Vec<Value> {
    prove(store).unwrap_or_else(|said| panic!("the oracle: {said}"));
    sound_records(store)
}

/// The fold of the first `count` records.
pub fn fold(store: &Path, count: usize) -> State {
    let (mut state, mut scratch) = (State::default(), Vec::new());
    for line in lines(store).iter().take(count) {
        let (record, _) = frame::decode(line.as_bytes(), &mut scratch).unwrap();
        state.apply(&record).unwrap();
    }
    state
}
