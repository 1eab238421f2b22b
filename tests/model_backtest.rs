//! A backtest whose voters are models: offline from a recording, the same bytes twice, and no silence about what was not
//! recorded. The recording is written by hand from what a first replay says is missing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

const CONFIG: &str = r#"
[providers.p]
kind = "ollama"
[providers.p.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.001
max_output_tokens = 500
[chains]
main = ["p/m"]
[cassette]
mode = "replay"
dir = "tape"
[agents.trading_decision]
voters = [
    { name = "ema_cross", strategy = "ema_cross", enabled = true },
    { name = "supertrend", strategy = "supertrend", enabled = true },
    { name = "thinker", kind = "model", chain = "main", enabled = true },
]
"#;

/// 2024-01-01.
const START: i64 = 1_704_067_200;
/// Enough for 250 hours of warm-up and a day.
const CANDLES: i64 = 12 * (252 + 24);

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    for i in 0..CANDLES {
        let close = 40_000.0 + 800.0 * (i as f64 / 180.0).sin() + i as f64 / 3.0;
        let (open, high, low) = (close - 5.0, close + 30.0, close - 30.0);
        writeln!(rows, "{},{open:.2},{high:.2},{low:.2},{close:.2},3.5,10", START + i * 300).unwrap();
    }
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::create_dir(folder.path().join("tape")).unwrap();
    fs::write(folder.path().join("data/XBTUSDT_5.csv"), rows).unwrap();
    fs::write(folder.path().join("my.toml"), CONFIG).unwrap();
    folder
}

fn backtest(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_triplegain"))
        .current_dir(folder)
        .args(["--config", "my.toml", "backtest", "--symbols", "BTC/USDT", "--data", "data", "--report", "report"])
        .args(["--from", "2024-01-11T12:00:00Z"])
        .args(more)
        .output()
        .unwrap()
}

fn report(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("report/report.json")).unwrap()).unwrap()
}

fn ballots(folder: &Path) -> Vec<Value> {
    let journal = fs::read_to_string(folder.join("report/journal.jsonl")).unwrap();
    let ballots = journal.lines().filter(|line| line.contains("SignalReceived")).flat_map(|line| {
        let start = line.find('{').unwrap();
        let record: Value = serde_json::Deserializer::from_str(&line[start..]).into_iter().next().unwrap().unwrap();
        find(&record, "ballots").unwrap().as_array().unwrap().clone()
    });
    ballots.filter(|ballot| ballot["voter"] == "thinker").collect()
}

fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(name).or_else(|| fields.values().find_map(|field| find(field, name))),
        Value::Array(elements) => elements.iter().find_map(|element| find(element, name)),
        _ => None,
    }
}

/// Writes a HOLD for every question the last replay missed; answers their files.
fn fill(folder: &Path) -> Vec<String> {
    let missed = report(folder)["not_recorded"]["first"].as_array().cloned().unwrap_or_default();
    let files = missed.iter().map(|miss| miss["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for file in &files {
        let said = r#"{"action":"HOLD","confidence":0.6,"reasoning":"mixed"}"#;
        let body = json!({
            "choices": [{"finish_reason": "stop", "message": {"content": said}}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
        });
        let sha = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let recorded = json!({
            "version": 2, "request_sha256": sha, "kind": "ollama", "model": "m", "template": "trading_decision@1",
            "attempts": [{"took_ms": 800, "outcome": {"reply": {"status": 200, "retry_after_ms": null, "body": body.to_string()}}}],
        });
        fs::write(folder.join(file), recorded.to_string()).unwrap();
    }
    files
}

#[test]
fn a_backtest_replays_its_models_offline_to_the_same_bytes_and_names_what_is_not_recorded() {
    let folder = folder();
    let folder = folder.path();
    let empty = backtest(folder, &[]);
    let words = String::from_utf8_lossy(&empty.stderr).into_owned();
    assert_eq!(empty.status.code(), Some(1), "{words}");
    let all = ["trading_decision@1 of trading_decision", "BTC/USDT", "p/m", "tape/", ".json", "record them"];
    assert!(all.iter().all(|part| words.contains(part)), "{words}");
    let failed = ballots(folder);
    assert!(!failed.is_empty() && failed.iter().all(|b| b["ballot"]["failed"] == "not_recorded"), "{failed:?}");

    // A vote may change what is held, and with it what is asked next: the recording grows until nothing is missing.
    let mut files = Vec::new();
    let whole = (0..8).any(|_| {
        files.extend(fill(folder));
        backtest(folder, &[]).status.success()
    });
    assert!(whole, "{:?}", report(folder)["not_recorded"]);
    let first = report(folder);
    assert!(backtest(folder, &[]).status.success());
    assert_eq!(first["journal_sha256"], report(folder)["journal_sha256"]);
    let votes = ballots(folder);
    assert!(votes.len() >= 20, "{}", votes.len());
    for ballot in &votes {
        assert_eq!(ballot["ballot"]["vote"]["action"], "HOLD");
        assert_eq!(
            (&ballot["model"]["model"], &ballot["model"]["template"]),
            (&json!("p/m"), &json!("trading_decision@1"))
        );
        assert_eq!(ballot["model"]["prompt_sha256"].as_str().unwrap().len(), 64);
    }
    let rows = first["per_voter"].as_array().unwrap();
    let row = rows.iter().find(|row| row["voter"] == "thinker").unwrap();
    assert_eq!(row["votes"].as_u64(), Some(votes.len() as u64));
    assert_eq!(row["models"]["calls"], row["votes"]);
    // 920 tokens at a thousandth of a dollar per thousand, each.
    let cost: f64 = row["models"]["cost_usd"]
        .as_str()
        .map_or_else(|| row["models"]["cost_usd"].as_f64(), |c| c.parse().ok())
        .unwrap();
    assert!((cost - votes.len() as f64 * 0.00092).abs() < 1e-9, "{cost}");
    let rules = rows.iter().find(|row| row["voter"] == "ema_cross").unwrap();
    assert!(rules.get("models").is_none());

    fs::remove_file(folder.join(files.last().unwrap())).unwrap();
    let torn = backtest(folder, &[]);
    let words = String::from_utf8_lossy(&torn.stderr).into_owned();
    assert_eq!(torn.status.code(), Some(1));
    assert!(words.contains(files.last().unwrap().as_str()), "{words}");
}

#[test]
fn a_backtest_refuses_voters_that_would_need_a_network() {
    let folder = folder();
    fs::write(folder.path().join("my.toml"), CONFIG.replace("mode = \"replay\"", "mode = \"off\"")).unwrap();
    let refused = backtest(folder.path(), &[]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("cassette.mode"), "{words}");
}
