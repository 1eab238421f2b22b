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
use serde_json::{Value, json};
use triplegain::{
    model::{Event, Ts},
    store::{Batch, OpenInfo, Store},
};

const SLOW: [&str; 2] = ["--speed", "1"];

fn verify(store: &Path) -> (Option<i32>, String) {
    let output = run_to_end(&["--store", store.to_str().unwrap(), "journal", "verify"]);
    (output.status.code(), stdout(&output) + &stderr(&output))
}

fn start(store: &Path) -> Program {
    Program::start(store, &["--speed", "3600"])
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

/// A position as an entry opens it, in three commits; its stop is far above every price, so that it has to be sold at the
/// first one.
fn entry() -> Vec<Vec<Event>> {
    let at = "2026-01-01T00:00:00.000Z";
    let key = "08".repeat(32);
    let body = json!({"symbol": "BTC/USDT", "side": "buy", "quantity": "0.01", "type": "market", "time_in_force": "GTC",
        "leverage": 1, "stop": "1000000"});
    let trade = json!({"key": key, "kind": "decision", "plan": "test", "leg": "0", "body": body, "state": "intent",
        "lock": {"asset": "USDT", "amount": "500"}, "attempt": 0, "created_at": at, "filled": "0",
        "filled_value": "0", "fees": "0", "fills": 0});
    let post = |asset: &str, account: &str, amount: &str| json!({"asset": asset, "account": account, "amount": amount});
    let postings = json!([
        post("USDT", "locked", "-451"),
        post("USDT", "at_cost", "450"),
        post("USDT", "fees", "1"),
        post("BTC", "free", "0.01"),
        post("BTC", "bought", "0.01"),
    ]);
    let fill = json!({"trade_key": key, "fill_id": format!("{key}:0"), "symbol": "BTC/USDT", "side": "buy",
        "quantity": "0.01", "price": "45000", "value": "450", "fee": "1", "liquidity": "taker", "price_id": "test:1",
        "postings": postings});
    let position = json!({"id": 1, "symbol": "BTC/USDT", "side": "long", "quantity": "0.01", "cost": "450",
        "leverage": 1, "stop": "1000000", "target": null, "trailing": {"active": false, "extreme": null},
        "opened_at": at, "fees": "1", "realised": "0", "trades": [key], "exit_seq": 0});
    let event = |kind: &str, data: Value| -> Event {
        serde_json::from_value(json!({"kind": kind, "data": data})).unwrap_or_else(|error| panic!("{kind}: {error}"))
    };
    vec![
        vec![event("TradeIntent", json!({"trade": trade}))],
        vec![event("TradeSubmitting", json!({"trade_key": key, "attempt": 1, "deadline": at, "reference": null}))],
        vec![
            event("TradeFill", fill),
            event("PositionOpened", json!({"position": position})),
            event("TradeSettled", json!({"trade_key": key})),
        ],
    ]
}

/// A stopped store with that position and two notes behind it. Answers the record of its opening fill.
fn store_with_a_position_to_close(store: &Path) -> u64 {
    Program::start(store, &SLOW).stop("TERM");
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
    let (mut open, _) = Store::open(store, &settings.store, &info).unwrap();
    let note = || vec![Event::Noted { what: "test".into(), facts: BTreeMap::new() }];
    for events in entry().into_iter().chain([note(), note()]) {
        open.commit(Batch::new("test", "test", "test", info.now, events)).unwrap().unwrap();
    }
    drop(open);
    let all = assert_sound(store);
    of_kind(&all, "TradeFill")[0]["seq"].as_u64().unwrap()
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
        format!("intact records behind it: 1, the last has number {last}; none of them counts"),
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
    assert_eq!(status["recovered"]["records"], opened - 1);
    assert_eq!(status["positions"], json!([]));
    assert!(program.said().contains("are not known to this process"), "{}", program.said());
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
