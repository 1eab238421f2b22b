//! The real binary with a voter that is a model, against a server on loopback that speaks a provider's dialect: what it
//! answers is a ballot, prose is a failed one, and silence ends with the poll while the rules decide.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "process_support/mod.rs"]
mod process_support;
#[path = "support/webhook_sink.rs"]
mod webhook_sink;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use process_support::{Program, records, triplegain, until};
use serde_json::{Value, json};
use webhook_sink::Sink;

/// What the provider says, as text of its model; nothing at all when absent.
type Words = Arc<Mutex<Option<&'static str>>>;

const HOLD: &str = r#"{"action":"HOLD","confidence":0.7,"reasoning":"mixed"}"#;
const PROSE: &str = "Well. I would rather not BUY here, all things considered; then again one could. ";

/// A key nobody may find anywhere.
const CANARY: &str = "sk-canary-7f3a9c51e2d84b60a1";

/// A provider of models; it ends with the test's process.
fn provider(words: &Words) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let words = Arc::clone(words);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let words = Arc::clone(&words);
            std::thread::spawn(move || serve(&stream, &words));
        }
    });
    url
}

fn serve(stream: &TcpStream, words: &Words) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let Some(text) = *words.lock().unwrap() else {
            // Silent until the other side has had enough.
            drop(reader.read(&mut [0]));
            return;
        };
        let body = json!({
            "choices": [{"finish_reason": "stop", "message": {"content": text}}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
        })
        .to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut out = stream;
        if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// The program with three voters by rules and one model, whose poll ends after so many seconds.
fn start(folder: &Path, url: &str, poll_seconds: u32) -> Program {
    start_as("ollama", folder, url, poll_seconds, "")
}

/// The same with a provider of another kind, which has a key, and with more tables of settings.
fn start_as(kind: &str, folder: &Path, url: &str, poll_seconds: u32, more: &str) -> Program {
    let key = if kind == "ollama" { "" } else { "key_env = \"CANARY_KEY\"" };
    let config = folder.join("my.toml");
    let tape = folder.join("tape");
    let text = format!(
        r#"
runtime.speed = 1
symbols = ["BTC/USDT"]
[providers.p]
kind = "{kind}"
{key}
base_url = "{url}"
timeout_seconds = 60
[providers.p.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.001
max_output_tokens = 500
[chains]
main = ["p/m"]
[cassette]
mode = "record"
dir = "{}"
# Only what the test asks for is decided.
[tasks.trading_decision]
interval_seconds = 604800
[agents.trading_decision]
poll_timeout_seconds = {poll_seconds}
voters = [
    {{ name = "ema_cross", strategy = "ema_cross", enabled = true }},
    {{ name = "macd_momentum", strategy = "macd_momentum", enabled = true }},
    {{ name = "rsi_trend", strategy = "rsi_trend", enabled = true }},
    {{ name = "thinker", kind = "model", chain = "main", enabled = true }},
]
{more}
"#,
        tape.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = triplegain();
    command.arg("--config").arg(&config).env("CANARY_KEY", CANARY);
    Program::start_with(command, &folder.join("store"), &[])
}

/// Signals in the journal.
fn signals(store: &Path) -> Vec<Value> {
    let records = records(store).into_iter().filter(|record| record["kind"] == "SignalReceived");
    records.map(|record| record["data"]["signal"].clone()).collect()
}

/// Forces decisions until there is one that was asked for after now; its ballots by rules and the model's.
fn next_decision(program: &Program) -> (Vec<Value>, Value) {
    let before = signals(&program.store).len();
    let mut accepted = false;
    let signal = until("the next decision", || {
        let now = signals(&program.store);
        if !accepted && now.len() == before {
            // Refused while one is under way: then that one is waited for.
            accepted = program.cli(&["run-task", "trading_decision", "BTC/USDT"]).status.success();
        }
        now.get(before).cloned()
    });
    let ballots = signal["ballots"].as_array().unwrap().clone();
    let (model, rules) = ballots.into_iter().partition::<Vec<_>, _>(|ballot| ballot["voter"] == "thinker");
    (rules, model[0].clone())
}

fn all_voted(rules: &[Value]) -> bool {
    rules.len() == 3 && rules.iter().all(|ballot| ballot["ballot"].get("failed").is_none())
}

#[test]
fn a_models_answer_is_its_ballot_and_prose_is_a_failed_one() {
    let folder = tempfile::tempdir().unwrap();
    let words: Words = Arc::new(Mutex::new(Some(HOLD)));
    let program = start(folder.path(), &provider(&words), 60);
    let (rules, model) = next_decision(&program);
    assert!(all_voted(&rules), "{rules:?}");
    assert_eq!(model["ballot"]["vote"]["action"], "HOLD");
    assert_eq!((&model["model"]["model"], &model["model"]["template"]), (&json!("p/m"), &json!("trading_decision@1")));
    assert_eq!(model["model"]["cost_usd"].as_str(), Some("0.00092"));
    let tape = fs::read_dir(folder.path().join("tape")).unwrap().count();
    assert_eq!(tape, 1, "the call was recorded");

    *words.lock().unwrap() = Some(Box::leak(PROSE.repeat(200).into_boxed_str()));
    let (rules, model) = next_decision(&program);
    assert!(all_voted(&rules), "{rules:?}");
    assert_eq!(model["ballot"]["failed"], "unparsable");
    assert_eq!(model["model"]["failures"], json!(["p/m: unparsable"]));

    // The journal is ahead of what is on show for a moment.
    program.status_when("both ballots in the statistics of the voter", |status| {
        let row = status["voters"].as_array().and_then(|rows| rows.iter().find(|row| row["voter"] == "thinker"));
        row.is_some_and(|row| {
            row["votes"] == 1 && row["failures_by_kind"]["unparsable"] == 1 && row["models"]["calls"] == 2
        })
    });
    let store = program.stop("TERM");
    process_support::assert_sound(&store);
}

#[test]
fn a_silent_provider_ends_with_the_poll_and_the_rules_decide() {
    let folder = tempfile::tempdir().unwrap();
    let words: Words = Arc::new(Mutex::new(None));
    let program = start(folder.path(), &provider(&words), 2);
    let (rules, model) = next_decision(&program);
    assert!(all_voted(&rules), "{rules:?}");
    let why = model["ballot"]["failed"].as_str().unwrap();
    assert!(why == "timeout" || why == "late", "{model}");
    let signal = &signals(&program.store)[0];
    assert_eq!((&signal["voters_asked"], &signal["voters_valid"]), (&json!(4), &json!(3)));
    let store = program.stop("TERM");
    process_support::assert_sound(&store);
}

/// A call is paid from the moment its reservation is durable: what was under way at the kill stays spent.
#[test]
fn a132_a_call_killed_between_reservation_and_answer_stays_spent_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let words: Words = Arc::new(Mutex::new(None));
    let url = provider(&words);
    let program = start(folder.path(), &url, 60);
    let usd = |status: &Value, field: &str| status["budget"][field].as_str().unwrap_or("0").to_owned();
    let mut accepted = false;
    let held = until("a reservation", || {
        // Refused until there is history, or while one is under way.
        accepted = accepted || program.cli(&["run-task", "trading_decision", "BTC/USDT"]).status.success();
        Some(program.status()).filter(|status| usd(status, "reserved_usd") != "0")
    });
    let store = program.store.clone();
    program.kill9();
    let kinds = |kind: &str| records(&store).iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((kinds("BudgetReserved"), kinds("BudgetSettled")), (1, 0), "killed before the answer");

    let again = start(folder.path(), &url, 60);
    let status = again.status();
    let day = |status: &Value| status["now"].as_str().unwrap()[..10].to_owned();
    if day(&status) == day(&held) {
        assert_eq!(usd(&status, "spent_usd"), usd(&held, "spent_usd"), "{}", status["budget"]);
        assert_ne!(usd(&status, "spent_usd"), "0");
    } else {
        eprintln!("skipped: midnight UTC passed, and a new day begins empty");
    }
    process_support::assert_sound(&again.stop("TERM"));
}

/// The warning comes with the hold for the call that passes the limit, once for all calls of the day.
#[test]
fn spending_beyond_the_warning_is_posted_once_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, notify) = Sink::start(folder.path(), false);
    let words: Words = Arc::new(Mutex::new(Some(HOLD)));
    let program =
        start_as("ollama", folder.path(), &provider(&words), 60, &format!("{notify}[budget]\nwarn_usd = 0.0005\n"));
    let day = |record: &Value| record["ts"].as_str().unwrap()[..10].to_owned();
    for _ in 0..2 {
        let (_, model) = next_decision(&program);
        assert_eq!(model["ballot"]["vote"]["action"], "HOLD", "{model}");
    }
    let told = until("the notification", || sink.about("BudgetReserved").pop());
    assert_eq!(
        (&told["level"], &told["text"]),
        (&json!("warning"), &json!("model calls: today's spending passed budget.warn_usd"))
    );
    program.status_when("all of them to be taken", |status| status["notifications"]["waiting"] == 0);
    let store = program.stop("TERM");
    let held: Vec<Value> = records(&store).into_iter().filter(|record| record["kind"] == "BudgetReserved").collect();
    let days: BTreeSet<String> = held.iter().map(day).collect();
    assert!(held.len() >= 2, "two calls: {held:?}");
    assert_eq!(sink.about("BudgetReserved").len(), days.len(), "once a day");
    process_support::assert_sound(&store);
}

/// Every file under a folder that holds one of the words, and the words it holds.
fn holding(folder: &Path, words: &[&str], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, words, found);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for word in words {
            if bytes.windows(word.len()).any(|part| part == word.as_bytes()) {
                found.push(format!("{} holds {word}", path.display()));
            }
        }
    }
}

/// The provider itself repeats the key, in an answer that counts and in one that does not.
#[test]
fn a174_a_key_is_in_no_log_journal_store_recording_or_reply() {
    let folder = tempfile::tempdir().unwrap();
    let said = format!(r#"{{"action":"HOLD","confidence":0.7,"reasoning":"my key is {CANARY}"}}"#);
    let words: Words = Arc::new(Mutex::new(Some(Box::leak(said.into_boxed_str()))));
    let program = start_as("openai", folder.path(), &provider(&words), 60, "");
    let (_, model) = next_decision(&program);
    assert_eq!(model["ballot"]["vote"]["action"], "HOLD", "{model}");
    *words.lock().unwrap() = Some(Box::leak(format!("{CANARY} is no JSON").into_boxed_str()));
    let (_, model) = next_decision(&program);
    assert_eq!(model["ballot"]["failed"], "unparsable", "{model}");
    let token = fs::read_to_string(program.store.join("token")).unwrap().trim().to_owned();
    let status = program.status().to_string();
    assert!(!status.contains(CANARY) && !status.contains(&token), "{status}");
    let exported = program.cli(&["journal", "export"]);
    assert!(!String::from_utf8_lossy(&exported.stdout).contains(CANARY));
    let store = program.stop("TERM");
    fs::remove_file(store.join("token")).unwrap();
    let mut found = Vec::new();
    holding(folder.path(), &[CANARY, &token], &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
