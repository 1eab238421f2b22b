//! A damaged journal through the eyes of its owner: what `journal verify`, the start and `status` say of the part that
//! can be read and of the part that cannot, and what becomes of positions.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use process_support::*;
use serde_json::Value;
use triplegain::{
    model::{Event, Ts},
    store::{Batch, OpenInfo, Store},
};

/// Many trades in a short time.
const TRAFFIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/torture.toml");

fn verify(store: &Path) -> (Option<i32>, String) {
    let output = run_to_end(&["--store", store.to_str().unwrap(), "journal", "verify"]);
    (output.status.code(), stdout(&output) + &stderr(&output))
}

fn start(store: &Path) -> Program {
    Program::start(store, &["--config", TRAFFIC, "--speed", "3600"])
}

/// Changes one digit of the number in the line with record `seq`; everything else stays as it is.
fn damage(store: &Path, seq: u64) {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(store.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    for path in segments {
        let text = fs::read_to_string(&path).unwrap();
        let hit = text.lines().find(|line| serde_json::from_str::<Value>(line).unwrap()["seq"] == seq);
        if let Some(line) = hit {
            let changed = line.replacen(&format!("\"seq\":{seq}"), &format!("\"seq\":{}", seq + 1), 1);
            assert_ne!(changed, line);
            fs::write(&path, text.replacen(line, &changed, 1)).unwrap();
            // A start would go on from a checkpoint behind the damage, and hear of it only later.
            fs::remove_dir_all(store.join("checkpoint")).unwrap();
            return;
        }
    }
    panic!("there is no record {seq}");
}

/// A store with an open position whose stop is far above every price, so that it has to be sold at the first one; two
/// notes are behind it. Answers the record that opened the position.
fn store_with_a_position_to_close(store: &Path) -> u64 {
    let settings = triplegain::settings::Settings::defaults();
    let info = OpenInfo {
        seed: 1,
        data_kind: "simulated".into(),
        config_hash: "a".repeat(64),
        version: "test".into(),
        now: Ts(0),
        deposits: BTreeMap::new(),
        stands_still: true,
        store_id: None,
    };
    for _ in 0..20 {
        let program = start(store);
        program.status_when("a position", |status| !status["positions"].as_array().unwrap().is_empty());
        program.kill9();
        let (mut open, _) = Store::open(store, &settings.store, &info).unwrap();
        // It may have been closed between the look and the kill.
        let Some((position, held)) = open.state().positions.iter().next() else { continue };
        let (position, trailing) = (*position, held.trailing);
        let stop = Some("1000000".parse().unwrap());
        let note = || Event::Noted { what: "test".into(), facts: BTreeMap::new() };
        for event in [Event::StopMoved { position, stop, trailing }, note(), note()] {
            open.commit(Batch::new("test", "test", "test", info.now, vec![event])).unwrap().unwrap();
        }
        drop(open);
        let records = records(store);
        let opened = of_kind(&records, "PositionOpened").into_iter();
        let id = serde_json::to_value(position).unwrap();
        let opened = opened.filter(|record| record["data"]["position"]["id"] == id).last().unwrap();
        return opened["seq"].as_u64().unwrap();
    }
    panic!("twenty times every position was closed before the kill");
}

/// Half an hour of program time goes by, in which everything that can be carried out would have been.
fn half_an_hour_later(program: &Program) -> Value {
    let instant = |status: &Value| Ts::parse(status["now"].as_str().unwrap()).unwrap();
    let until = instant(&program.status()).plus_ms(30 * 60_000);
    program.status_when("half an hour", |status| {
        instant(status) > until && status["feeds"][0]["price"].is_string() && status["state"] == "HALTED"
    })
}

#[test]
fn a_damaged_journal_is_shown_as_the_part_it_is_and_nothing_is_carried_out_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, early) = (folder.path().join("store"), folder.path().join("early"));
    let opened = store_with_a_position_to_close(&store);
    copy(&store, &early);
    let last = records(&store).len() as u64;

    // Behind the position: it is known, and its stop is due at every price. Nothing could be recorded of its end, so it
    // is not closed, and the process says so instead of ending itself.
    damage(&store, last - 1);
    let before = lines(&store);
    let (code, said) = verify(&store);
    assert_eq!(code, Some(65), "{said}");
    let wanted = [
        format!("ONLY A PART OF THE JOURNAL COULD BE READ: {} records", last - 2),
        format!("1 intact records follow, the last one has number {last}; none of them counts"),
        format!("fills = ledger = positions = balances: holds up to record {}", last - 2),
        "check 2 everything acknowledged is present: not compared".to_owned(),
        "restore the journal from a backup".to_owned(),
    ];
    wanted.iter().for_each(|words| assert!(said.contains(words), "`{words}`: {said}"));
    for wrong in ["in 0 segments", "head 000000", "0 checkpoints"] {
        assert!(!said.contains(wrong), "`{wrong}`: {said}");
    }
    let program = start(&store);
    let status = half_an_hour_later(&program);
    assert_eq!(status["positions"].as_array().unwrap().len(), 1, "{status}");
    let reason = status["halt_reason"].as_str().unwrap();
    for words in ["read-only view", "not known to this process", "no stop, target or exit is carried out"] {
        assert!(reason.contains(words), "`{words}`: {reason}");
    }
    let refused = program.cli(&["close-all"]);
    assert_clear(&refused, 1, &["read-only", "restore journal/ from a backup"]);
    assert!(!stderr(&refused).contains("ask again"), "{}", stderr(&refused));
    program.stop("TERM");
    assert_eq!(lines(&store), before, "nothing is written");

    // In front of the position: this process does not know that it exists.
    damage(&early, opened);
    let program = start(&early);
    let status = half_an_hour_later(&program);
    let ids: Vec<&Value> = status["positions"].as_array().unwrap().iter().map(|held| &held["id"]).collect();
    let known = status["recovered"]["records"].as_u64().unwrap();
    assert!(known < opened, "{known} records, the position was opened by {opened}");
    let all = records(&early);
    let id = all.iter().find(|record| record["seq"] == opened + 1 && record["kind"] == "PositionOpened");
    let id = id.unwrap()["data"]["position"]["id"].as_u64().unwrap();
    assert!(ids.iter().all(|known| known.as_str().unwrap().trim_start_matches('P') != id.to_string()), "{ids:?}");
    program.stop("TERM");
}

#[test]
fn a_journal_that_cannot_be_read_at_all_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    Program::start(&store, &["--speed", "60"]).stop("TERM");
    damage(&store, 1);
    let (code, said) = verify(&store);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("ONLY A PART OF THE JOURNAL COULD BE READ: 0 records"), "{said}");
    assert!(said.contains("from line 1 on"), "{said}");
    assert!(!said.contains("holds"), "nothing holds over nothing: {said}");
}

#[test]
fn a_sound_journal_claims_nothing_it_did_not_compare() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &["--speed", "60"]);
    program.done(&["pause", "--reason", "to compare"]);
    program.kill9();
    let (code, said) = verify(&store);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is present: not compared; no acknowledgements to compare with"), "{said}");
    assert!(said.contains("1 commands answered") && !said.contains("0 checkpoints"), "{said}");
    // Only what is given can be compared.
    let acks = folder.path().join("acks");
    let all = lines(&store);
    let shown = format!("{{\"what\":\"record\",\"seq\":1,\"hash\":\"{}\"}}\n", line_hash(&all[0]));
    fs::write(&acks, shown).unwrap();
    let args = ["--store", store.to_str().unwrap(), "journal", "verify", "--acks", acks.to_str().unwrap()];
    let said = stdout(&run_to_end(&args));
    assert!(said.contains("is present: holds; 1 commands answered"), "{said}");
    assert!(said.contains("1 acknowledgements compared"), "{said}");
}
