//! `journal verify` on stores of the disk: each line of its report, its exit codes, acknowledgements, the embedded store
//! tree by tree, and that recovering twice equals recovering once.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod store_support;

use std::{fs, path::Path};

use store_support::*;
use triplegain::{
    cli::journal::{Verification, verify, verify_with},
    model::*,
    store::{oracle::Ack, twice, verify as check},
};

fn command(key: &str, answer: &str) -> Vec<Event> {
    vec![
        Event::CommandReceived { key: key.into(), command: Command::Resume {}, body_hash: "h".into() },
        Event::CommandDone { key: key.into(), result: serde_json::json!({ "state": answer }) },
    ]
}

/// A store with one command, as a kill would leave it.
fn store_with(data: &Path, answer: &str) {
    let (mut store, _) = open(data).unwrap();
    store.commit(batch(command("k1", answer))).unwrap().unwrap();
}

fn with_acks(data: &Path, acks: &[Ack]) -> triplegain::cli::journal::Answer {
    let file = data.with_extension("acks.jsonl");
    let lines: String = acks.iter().map(|ack| serde_json::to_string(ack).unwrap() + "\n").collect();
    fs::write(&file, lines).unwrap();
    verify_with(data, &Verification { acks: Some(file), ..Verification::default() })
}

fn ok(answer: &str) -> CommandAnswer {
    CommandAnswer::Ok { result: serde_json::json!({ "state": answer }) }
}

#[test]
fn a_sound_store_has_one_line_per_check_and_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    store_with(&data, "PAUSED");
    let answer = verify(&data);
    assert_eq!(answer.code, 0, "{}", answer.text);
    for number in 1..=7 {
        let start = format!("check {number} ");
        let line = answer.text.lines().find(|line| line.starts_with(&start)).unwrap();
        // Nobody gave anything that was acknowledged.
        assert!(line.contains(if number == 2 { ": not compared; " } else { ": holds; " }), "{line}");
    }
    let json = verify_with(&data, &Verification { json: true, ..Verification::default() });
    let report: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(report["checks"].as_array().unwrap().len(), 7);
    for check in report["checks"].as_array().unwrap() {
        let held = if check["number"] == 2 { serde_json::Value::Null } else { true.into() };
        assert_eq!(check["holds"], held, "{report}");
    }
    assert_eq!(report["defects"], serde_json::json!([]));
}

#[test]
fn what_was_acknowledged_and_is_not_there_is_named_and_the_exit_code_is_65() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    store_with(&data, "PAUSED");
    let report = check::check(&data);
    let head = Ack::Record { seq: report.records, hash: report.head.clone() };
    let held = [Ack::Command { key: "k1".into(), answer: ok("PAUSED") }, head];
    let answer = with_acks(&data, &held);
    assert_eq!(answer.code, 0, "{}", answer.text);
    assert!(answer.text.contains("2 acknowledgements compared"), "{}", answer.text);
    assert!(answer.text.contains("check 2 everything acknowledged is present: holds; "), "{}", answer.text);

    let lost = [
        (Ack::Command { key: "k2".into(), answer: ok("PAUSED") }, "command k2"),
        (Ack::Command { key: "k1".into(), answer: ok("RUNNING") }, "command k1"),
        (Ack::Plan { id: uuid::Uuid::from_u128(1) }, "plan 0000"),
        (Ack::Record { seq: 99, hash: report.head.clone() }, "record 99"),
        (Ack::Record { seq: report.records - 1, hash: report.head }, "was shown with the hash"),
    ];
    for (ack, words) in lost {
        let answer = with_acks(&data, std::slice::from_ref(&ack));
        assert_eq!(answer.code, 65, "{ack:?}: {}", answer.text);
        for part in [words, "check 2", "VIOLATED", "what to do about check 2", "NOT sound"] {
            assert!(answer.text.contains(part), "`{part}` is missing: {}", answer.text);
        }
    }
    let absent = Verification { acks: Some(data.join("absent")), ..Verification::default() };
    assert_eq!(verify_with(&data, &absent).code, 1, "an unreadable file is no verdict about the store");
}

#[test]
fn an_embedded_store_that_differs_is_told_tree_by_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("store"), folder.path().join("other"));
    store_with(&data, "PAUSED");
    store_with(&other, "RUNNING");
    // The same record number, another content: what only a comparison of contents can see.
    fs::remove_dir_all(data.join("state")).unwrap();
    fs::rename(other.join("state"), data.join("state")).unwrap();
    let answer = verify(&data);
    assert_eq!(answer.code, 65, "{}", answer.text);
    assert!(answer.text.contains("tree commands does not equal the fold"), "{}", answer.text);
    assert!(answer.text.lines().any(|line| line.starts_with("check 7 ") && line.contains("VIOLATED")));
    assert!(answer.text.lines().any(|line| line.starts_with("check 3 ") && line.contains("holds")));
}

#[test]
fn an_embedded_store_ahead_of_its_journal_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("store"), folder.path().join("other"));
    store_with(&data, "PAUSED");
    store_with(&other, "PAUSED");
    {
        let (mut store, _) = open(&other).unwrap();
        store.commit(batch(vec![note("more")])).unwrap().unwrap();
    }
    fs::remove_dir_all(data.join("state")).unwrap();
    fs::rename(other.join("state"), data.join("state")).unwrap();
    let answer = verify(&data);
    assert!(answer.code == 65 && answer.text.contains("the journal ends at"), "{}", answer.text);
}

#[test]
fn k41_recovering_twice_equals_recovering_once_whatever_a_kill_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    store_with(&data, "PAUSED");
    let segment = fs::read_dir(data.join("journal")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&segment).unwrap();
    let before = check::check(&data).head;
    let cut = whole.len() - 7;
    for what in ["as it is", "a torn last line", "a torn batch, HALTED once", "no embedded store"] {
        match what {
            "a torn last line" => fs::write(&segment, [&whole[..], b"{\"v\":1"].concat()).unwrap(),
            "a torn batch, HALTED once" => fs::write(&segment, &whole[..cut]).unwrap(),
            "no embedded store" => fs::remove_dir_all(data.join("state")).unwrap(),
            _ => {}
        }
        let twice = twice::recover_twice(&data, &settings());
        assert!(twice.is_ok(), "{what}: {twice:?}");
        fs::write(&segment, &whole).unwrap();
        assert_eq!(check::check(&data).head, before, "the original is only read");
    }
    let how = Verification { recover_twice: Some(settings()), ..Verification::default() };
    let answer = verify_with(&data, &how);
    assert!(answer.code == 0 && answer.text.contains("three recoveries"), "{}", answer.text);
    let mut broken = whole.clone();
    broken[200] ^= 1;
    fs::write(&segment, broken).unwrap();
    let answer = verify_with(&data, &how);
    assert!(answer.code == 65 && answer.text.contains("nothing can be recovered twice"), "{}", answer.text);
}

/// Found by `torture kill --seed 42`: a part of an order changes the index of trades and the leg of its plan as well, but
/// the embedded store was not told, so that the next start took it for damaged and built it anew.
#[test]
fn e10_a_partial_fill_of_a_leg_brings_every_tree_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let (mut store, _) = open(&data).unwrap();
    let (key, plan) = (TradeKey([8; 32]), uuid::Uuid::from_u128(5));
    let dec = |text: &str| text.parse::<Decimal>().unwrap();
    let at = info().now;
    let leg = Leg {
        key,
        batch: 0,
        asset: symbol().base,
        symbol: symbol(),
        side: Side::Buy,
        amount: dec("1000"),
        due_at: at,
        state: TradeState::Planned,
    };
    let made = Plan {
        id: plan,
        created_at: at,
        spacing_ms: 1,
        legs: vec![leg],
        deviation_pct: dec("5"),
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    };
    let body = serde_json::json!({"symbol": "BTC/USDT", "side": "buy", "quantity": "1", "type": "market",
        "time_in_force": "GTC", "leverage": 1});
    let trade: Trade = serde_json::from_value(serde_json::json!({"key": key, "kind": "rebalance", "plan": plan,
        "leg": "0", "body": body, "state": "intent", "lock": {"asset": "USDT", "amount": "1000"}, "attempt": 0,
        "created_at": at, "filled": "0", "filled_value": "0", "fees": "0", "fills": 0}))
    .unwrap();
    let (base, quote) = (symbol().base, symbol().quote);
    let post = |asset, account, amount: &str| Posting { asset, account, amount: dec(amount) };
    let fill = Event::TradeFill {
        trade_key: key,
        fill_id: format!("{key}:0"),
        symbol: symbol(),
        side: Side::Buy,
        quantity: dec("0.5"),
        price: dec("900"),
        value: dec("450"),
        fee: dec("1"),
        liquidity: Liquidity::Taker,
        price_id: "test:1".into(),
        evidence: None,
        venue_fill: None,
        postings: vec![
            post(quote, LedgerAccount::Locked, "-451"),
            post(quote, LedgerAccount::AtCost, "450"),
            post(quote, LedgerAccount::Fees, "1"),
            post(base, LedgerAccount::Free, "0.5"),
            post(base, LedgerAccount::Bought, "0.5"),
        ],
    };
    let steps = [
        Event::PlanCreated { plan: Box::new(made) },
        Event::TradeIntent { trade: Box::new(trade) },
        Event::TradeSubmitting { trade_key: key, attempt: 1, deadline: at, reference: None },
        fill,
    ];
    for event in steps {
        store.commit(batch(vec![event])).unwrap().unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "{}", report.text());
    }
    drop(store);
    let (_, opened) = open(&data).unwrap();
    assert!(!opened.recovered.rebuilt, "{:?}", opened.warnings);
}
