//! A backtest that records its models over real HTTP: the replay has the same bytes without a server, failures included,
//! and a recording that was cut short goes on where it ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};

const KEY: &str = "sk-recorded-5ecr3t";

/// What one request gets.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    Hold,
    /// Which repeats the key.
    Error500,
    /// Nothing until the client goes.
    Hang,
    /// A head that promises more than comes.
    Disconnect,
    SlowDown,
}

/// A provider on loopback that plays a script in order, then holds; counts what it was asked.
struct Server {
    url: String,
    shared: Arc<(Mutex<Script>, Condvar)>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    plays: Vec<Play>,
    asked: usize,
    gone: bool,
}

impl Server {
    fn start(plays: &[Play]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script { plays: plays.to_vec(), ..Script::default() };
        let shared = Arc::new((Mutex::new(script), Condvar::new()));
        let own = Arc::clone(&shared);
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.0.lock().unwrap().gone {
                    return;
                }
                let own = Arc::clone(&own);
                std::thread::spawn(move || serve(stream.unwrap(), &own));
            }
        });
        Server { url, shared, listening }
    }

    fn asked(&self) -> usize {
        self.shared.0.lock().unwrap().asked
    }

    fn play(&self, plays: &[Play]) {
        let mut script = self.shared.0.lock().unwrap();
        script.plays = plays.to_vec();
        script.asked = 0;
    }

    /// Waits until so many requests came.
    fn wait_for(&self, asked: usize) {
        let script = self.shared.0.lock().unwrap();
        let limit = Duration::from_secs(60);
        let waited = self.shared.1.wait_timeout_while(script, limit, |script| script.asked < asked).unwrap();
        assert!(!waited.1.timed_out(), "{asked} requests never came");
    }

    /// Nobody listens there afterwards.
    fn end(self) {
        self.shared.0.lock().unwrap().gone = true;
        let address = self.url.trim_start_matches("http://").to_owned();
        drop(TcpStream::connect(&address));
        self.listening.join().unwrap();
        assert!(TcpStream::connect(&address).is_err());
    }
}

fn serve(mut stream: TcpStream, shared: &(Mutex<Script>, Condvar)) {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let Ok(count) = stream.read(&mut part) else { return };
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.trim().parse::<usize>().unwrap() {
            break;
        }
    }
    let play = {
        let mut script = shared.0.lock().unwrap();
        let play = script.plays.get(script.asked).copied().unwrap_or(Play::Hold);
        script.asked += 1;
        shared.1.notify_all();
        play
    };
    let said = r#"{"action":"HOLD","confidence":0.6,"reasoning":"mixed"}"#;
    let whole = json!({
        "choices": [{"finish_reason": "stop", "message": {"content": said}}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
    });
    let (status, more, body) = match play {
        Play::Hold | Play::Disconnect => (200, "", whole.to_string()),
        Play::Error500 => (500, "", format!("{{\"error\":{{\"message\":\"no good day for {KEY}\"}}}}")),
        Play::SlowDown => (429, "retry-after: 1\r\n", "{}".to_owned()),
        Play::Hang => {
            let _gone = stream.read(&mut part);
            return;
        }
    };
    let promised = body.len() + if play == Play::Disconnect { 100 } else { 0 };
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{more}content-length: {promised}\r\n\r\n");
    // A client that went away is part of the play.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// 2024-01-01.
const START: i64 = 1_704_067_200;
/// Enough for 250 hours of warm-up and six hours.
const CANDLES: i64 = 12 * (252 + 6);

/// A folder with candles of two symbols and two voters that ask the same chain the same.
fn folder(url: &str, timeout_seconds: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    candles(folder.path(), 0.0);
    let config = format!(
        r#"
[providers.p]
kind = "openai"
base_url = "{url}"
key_env = "RECORDED_KEY"
timeout_seconds = {timeout_seconds}
calls_per_minute = 6000
[providers.p.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.001
max_output_tokens = 500
[providers.q]
kind = "ollama"
base_url = "{url}"
timeout_seconds = {timeout_seconds}
calls_per_minute = 6000
[providers.q.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.001
max_output_tokens = 500
[chains]
main = ["p/m", "q/m"]
[cassette]
dir = "tape"
[agents.trading_decision]
voters = [
    {{ name = "ema_cross", strategy = "ema_cross", enabled = true }},
    {{ name = "supertrend", strategy = "supertrend", enabled = true }},
    {{ name = "thinker", kind = "model", chain = "main", enabled = true }},
    {{ name = "second", kind = "model", chain = "main", enabled = true }},
]
"#
    );
    fs::write(folder.path().join("my.toml"), config).unwrap();
    folder
}

/// Candles whose last hours are higher by `lift`.
fn candles(folder: &Path, lift: f64) {
    for (file, price) in [("XBTUSDT_5.csv", 40_000.0), ("XRPUSDT_5.csv", 0.5)] {
        let mut rows = String::new();
        for i in 0..CANDLES {
            let late = if i > CANDLES - 40 { lift } else { 0.0 };
            let shape = 1.0 + 0.02 * (i as f64 / 180.0).sin() + i as f64 / 120_000.0 + late;
            let [open, high, low, close] = [-0.0001, 0.0008, -0.0008, 0.0].map(|part| price * (shape + part));
            writeln!(rows, "{},{open:.5},{high:.5},{low:.5},{close:.5},3.5,10", START + i * 300).unwrap();
        }
        fs::write(folder.join("data").join(file), rows).unwrap();
    }
}

fn command(folder: &Path, mode: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triplegain"));
    command
        .current_dir(folder)
        .env("TRIPLEGAIN__CASSETTE__MODE", mode)
        .args(["--config", "my.toml", "backtest", "--symbols", "BTC/USDT,XRP/USDT", "--data", "data"])
        .args(["--report", mode, "--from", "2024-01-11T12:00:00Z"]);
    // A replay needs no key.
    match mode {
        "record" => command.env("RECORDED_KEY", KEY),
        _ => command.env_remove("RECORDED_KEY"),
    };
    command
}

fn backtest(folder: &Path, mode: &str) -> Output {
    command(folder, mode).output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(folder: &Path, mode: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join(mode).join("report.json")).unwrap()).unwrap()
}

/// The replay's journal is the recording's, to the byte.
fn assert_same(folder: &Path) {
    let journal = |mode: &str| fs::read_to_string(folder.join(mode).join("journal.jsonl")).unwrap();
    let (record, replay) = (journal("record"), journal("replay"));
    for (recorded, replayed) in record.lines().zip(replay.lines()) {
        assert_eq!(recorded, replayed);
    }
    assert_eq!(record.len(), replay.len());
    assert_eq!(report(folder, "record")["journal_sha256"], report(folder, "replay")["journal_sha256"]);
}

/// Files of the recording by name.
fn tape(folder: &Path) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(folder.join("tape")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect()
}

fn attempts(tape: &BTreeMap<String, Value>) -> usize {
    tape.values().map(|file| file["attempts"].as_array().unwrap().len()).sum()
}

/// How the journal calls what the models' ballots failed of, and their latencies.
fn failures(folder: &Path) -> Vec<(String, i64)> {
    let journal = fs::read_to_string(folder.join("record/journal.jsonl")).unwrap();
    let mut found = Vec::new();
    for line in journal.lines().filter(|line| line.contains("SignalReceived")) {
        let record: Value =
            serde_json::Deserializer::from_str(&line[line.find('{').unwrap()..]).into_iter().next().unwrap().unwrap();
        collect(&record, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<(String, i64)>) {
    match value {
        Value::Object(fields) => {
            for failure in fields.get("failures").and_then(Value::as_array).into_iter().flatten() {
                found.push((failure.as_str().unwrap().to_owned(), fields["latency_ms"].as_i64().unwrap()));
            }
            fields.values().for_each(|field| collect(field, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, found)),
        _ => {}
    }
}

#[test]
fn a_recording_backtest_asks_over_http_and_its_replay_has_the_same_bytes_with_the_server_gone() {
    use Play::{Disconnect, Error500, Hang, Hold, SlowDown};
    let server = Server::start(&[Hold, Hold, Error500, Disconnect, Hold, Hang, Hold, SlowDown]);
    let folder = folder(&server.url, 3);
    let folder = folder.path();
    let recorded = backtest(folder, "record");
    assert!(recorded.status.success(), "{}", words(&recorded));
    let (asked, tape) = (server.asked(), tape(folder));
    assert!(asked > 8, "{asked}");
    assert_eq!(attempts(&tape), asked, "every attempt is kept");
    assert!(tape.values().any(|file| file["attempts"].as_array().unwrap().len() > 1), "two voters ask the same");
    assert_eq!(report(folder, "record")["recording"]["asked"].as_u64(), Some(asked as u64));

    let found = failures(folder);
    for kind in ["server_error", "connection", "timeout", "rate_limited"] {
        assert!(found.iter().any(|(failure, _)| failure.ends_with(&format!(": {kind}"))), "{kind}: {found:?}");
    }
    // Program time went on by what the call took: the whole of its part.
    assert!(found.iter().any(|(failure, took_ms)| failure.ends_with(": timeout") && *took_ms >= 3000), "{found:?}");
    assert!(!tape.values().any(|file| file.to_string().contains(KEY)), "the key was repeated and is not kept");

    server.end();
    let replayed = backtest(folder, "replay");
    assert!(replayed.status.success(), "{}", words(&replayed));
    assert_same(folder);

    // Other prices, another prompt: what was not asked then is named, with the file that would hold it.
    candles(folder, 0.001);
    let other = backtest(folder, "replay");
    let said = words(&other);
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(["not in the recording", " to p/m", "tape/"].iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn a_recording_that_was_killed_is_readable_and_goes_on_where_it_ended() {
    let server = Server::start(&[Play::Hold, Play::Hold, Play::Hold, Play::Hold, Play::Hang]);
    let folder = folder(&server.url, 600);
    let folder = folder.path();
    let mut killed = command(folder, "record").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    server.wait_for(5);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let kept = attempts(&tape(folder));
    assert!(kept >= 4, "what was answered is kept");
    // What a kill in the middle of a write may leave is no recording.
    fs::write(folder.join("tape/half.json.tmp"), "{").unwrap();
    let short = backtest(folder, "replay");
    assert_eq!(short.status.code(), Some(1), "{}", words(&short));
    assert!(words(&short).contains("not in the recording"), "{}", words(&short));

    server.play(&[]);
    let whole = backtest(folder, "record");
    assert!(whole.status.success(), "{}", words(&whole));
    let known = report(folder, "record")["recording"]["known"].as_u64();
    let all = attempts(&tape(folder));
    assert_eq!((known, all), (Some(kept as u64), kept + server.asked()), "nothing is asked twice");
    server.end();
    assert!(backtest(folder, "replay").status.success());
    assert_same(folder);
}

#[test]
fn a_recording_pays_no_more_than_it_may_and_goes_on_when_it_may_more() {
    let server = Server::start(&[]);
    let folder = folder(&server.url, 30);
    let folder = folder.path();
    let poor = command(folder, "record").env("TRIPLEGAIN__CASSETTE__MAX_USD", "0.012").output().unwrap();
    let said = words(&poor);
    assert_eq!(poor.status.code(), Some(1), "{said}");
    assert!(["the recording stopped", "cassette.max_usd = 0.012"].iter().all(|part| said.contains(part)), "{said}");
    let paid = server.asked();
    // A call is held for several times of what it costs.
    assert!(paid > 0 && paid < 8, "{paid} calls of 0.00092 USD");
    assert_eq!(backtest(folder, "replay").status.code(), Some(1), "what was left out is missing in the replay");
    assert_same(folder);

    let rich = backtest(folder, "record");
    assert!(rich.status.success(), "{}", words(&rich));
    assert_eq!(attempts(&tape(folder)), server.asked());
    assert!(backtest(folder, "replay").status.success());
    assert_same(folder);
}

#[test]
fn a_recording_of_an_older_version_is_refused_in_words_before_anything_is_paid() {
    let server = Server::start(&[]);
    let folder = folder(&server.url, 30);
    fs::create_dir(folder.path().join("tape")).unwrap();
    let sha = "ab".repeat(32);
    let old = json!({
        "version": 1, "request_sha256": sha, "kind": "openai", "model": "m", "template": "trading_decision@1",
        "status": 200, "body": "",
    });
    fs::write(folder.path().join(format!("tape/{sha}.json")), old.to_string()).unwrap();
    for mode in ["replay", "record"] {
        let refused = backtest(folder.path(), mode);
        let said = words(&refused);
        assert!(!refused.status.success(), "{mode}");
        assert!(["version 1", "version 2", "record anew"].iter().all(|part| said.contains(part)), "{mode}: {said}");
    }
    assert_eq!(server.asked(), 0);
}
