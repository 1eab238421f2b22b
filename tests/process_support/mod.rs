//! Starts the real binary on a free loopback port and a temporary store, and talks to it as its user would.
#![allow(dead_code)] // every test file uses a part
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long anything may take before a test fails; far above what it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(180);
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// How the panic of a wait that came to nothing begins.
pub const IN_VAIN: &str = "waited in vain";

/// Looks until there is an answer, or says what was waited for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{IN_VAIN}, {DEADLINE:?}, for: {what}");
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
}

/// The binary without anything of this machine's environment that could change its settings.
pub fn triplegain() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triplegain"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIPLEGAIN__")) {
        command.env_remove(name);
    }
    // Tests kill on purpose, and more often than anybody should put up with; the test of that rule takes this back.
    command.env("TRIPLEGAIN__SUPERVISOR__CRASH_LOOP__STARTS", "0");
    command.env_remove("NOTIFY_SOCKET").env_remove("TRIPLEGAIN_CHAOS");
    for name in ["RUST_BACKTRACE", "TRIPLEGAIN_FAILPOINTS", "TRIPLEGAIN_FAILPOINTS_TRACE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run_to_end(args: &[&str]) -> Output {
    triplegain().args(args).output().unwrap()
}

/// A port for a program about to start: below those that connections take for themselves, and of no other test.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(61);
    loop {
        let port = 10_000 + (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A message for people: the wanted words, one sentence, no panic and no backtrace.
pub fn assert_clear(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for bad in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Err(", "Os {"] {
        assert!(!text.contains(bad), "`{bad}` is nothing for people: {text}");
    }
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

/// A running process. Killed when dropped.
pub struct Program {
    child: Child,
    pub store: PathBuf,
    pub port: u16,
    log: PathBuf,
}

impl Program {
    /// Starts without waiting for anything.
    pub fn spawn(store: &Path, args: &[&str]) -> Program {
        Program::spawn_with(triplegain(), store, args)
    }

    /// As [`Program::spawn`] with an environment of the test's own.
    pub fn spawn_with(mut command: Command, store: &Path, args: &[&str]) -> Program {
        let port = free_port();
        let log = store.with_extension(format!("log.{port}"));
        let child = command
            .arg("--store")
            .arg(store)
            .args(["--listen", &format!("127.0.0.1:{port}"), "run"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Program { child, store: store.to_owned(), port, log }
    }

    /// Starts and waits until it answers.
    pub fn start(store: &Path, args: &[&str]) -> Program {
        Program::start_with(triplegain(), store, args)
    }

    /// As [`Program::start`] with an environment of the test's own.
    pub fn start_with(command: Command, store: &Path, args: &[&str]) -> Program {
        Program::spawn_with(command, store, args).answering()
    }

    /// Waits until it answers.
    pub fn answering(self) -> Program {
        let mut program = self;
        until("the program to answer", || {
            if let Some(status) = program.child.try_wait().unwrap() {
                panic!("it ended at once with {status}: {}", program.said());
            }
            program.try_status()
        });
        program
    }

    /// Everything it has written to standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn token(&self) -> String {
        fs::read_to_string(self.store.join("token")).unwrap().trim().to_owned()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn try_status(&self) -> Option<Value> {
        let token = fs::read_to_string(self.store.join("token")).ok()?;
        let answer = client().get(self.url("/v1/status")).bearer_auth(token.trim()).send().ok()?;
        answer.status().is_success().then(|| answer.json().unwrap())
    }

    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no status: {}", self.said()))
    }

    /// Polls the status until it satisfies `good`.
    pub fn status_when(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.try_status().filter(&good))
    }

    /// A subcommand that talks to this process.
    pub fn cli(&self, args: &[&str]) -> Output {
        let listen = format!("127.0.0.1:{}", self.port);
        triplegain().arg("--store").arg(&self.store).args(["--listen", &listen]).args(args).output().unwrap()
    }

    /// A subcommand that must be done; its answer.
    pub fn done(&self, args: &[&str]) -> Value {
        let output = self.cli(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["result"].clone()
    }

    /// A subcommand that must be refused, with its code; the text for people.
    pub fn refused(&self, args: &[&str], code: &str) -> String {
        let output = self.cli(args);
        assert_clear(&output, 1, &[&format!("refused ({code})")]);
        stderr(&output)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the process to end", || self.child.try_wait().unwrap())
    }

    /// Drains it and checks that it ended with 0.
    pub fn stop(mut self, signal: &str) -> PathBuf {
        self.signal(signal);
        let ended = self.wait();
        assert_eq!(ended.code(), Some(0), "{}", self.said());
        self.store.clone()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn client() -> reqwest::blocking::Client {
    // Made once: its roots of trust cost more than a request, and some tests ask forty times a second. No connection is
    // kept, because a process ends when a test says so.
    static CLIENT: LazyLock<reqwest::blocking::Client> = LazyLock::new(|| {
        let builder = reqwest::blocking::Client::builder().no_proxy().pool_max_idle_per_host(0);
        builder.timeout(Duration::from_secs(15)).build().unwrap()
    });
    CLIENT.clone()
}

/// The lines of the journal in order; a torn last line is left out, as a reader would.
pub fn lines(store: &Path) -> Vec<String> {
    let mut names: Vec<PathBuf> = fs::read_dir(store.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
    names.sort();
    let text: String =
        names.iter().map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| line.trim_end().to_owned()).collect()
}

/// The records of the journal, parsed.
pub fn records(store: &Path) -> Vec<Value> {
    lines(store).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn of_kind<'r>(records: &'r [Value], kind: &str) -> Vec<&'r Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

/// The hash that `status` shows for a line.
pub fn line_hash(line: &str) -> String {
    hex::encode(Sha256::digest(line.as_bytes()))[..32].to_owned()
}

/// What must hold whatever happened: the journal verifies, epochs rise by one boot each, no fill is booked twice, no
/// trade is filled above its quantity, no leg is executed twice.
pub fn assert_sound(store: &Path) -> Vec<Value> {
    let output = run_to_end(&["--store", store.to_str().unwrap(), "journal", "verify"]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    sound_records(store)
}

/// As [`assert_sound`] for a journal that has been verified.
pub fn sound_records(store: &Path) -> Vec<Value> {
    let records = records(store);
    let epochs: Vec<u64> = of_kind(&records, "Booted").iter().map(|boot| boot["epoch"].as_u64().unwrap()).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "epochs must rise: {epochs:?}");
    let mut seen = std::collections::BTreeSet::new();
    let mut filled: BTreeMap<String, f64> = BTreeMap::new();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    for fill in of_kind(&records, "TradeFill") {
        let data = &fill["data"];
        let key = data["trade_key"].as_str().unwrap().to_owned();
        assert!(seen.insert((key.clone(), data["fill_id"].to_string())), "booked twice: {fill}");
        *filled.entry(key).or_default() += number(&data["quantity"]);
    }
    let mut wanted: BTreeMap<String, f64> = BTreeMap::new();
    for intent in of_kind(&records, "TradeIntent") {
        let trade = &intent["data"]["trade"];
        let key = trade["key"].as_str().unwrap().to_owned();
        assert!(wanted.insert(key, number(&trade["body"]["quantity"])).is_none(), "two intents of one key: {intent}");
    }
    for (key, quantity) in filled {
        assert!(quantity <= wanted[&key] * 1.000_000_001, "{key} filled {quantity} of {}", wanted[&key]);
    }
    records
}

/// Copies a directory, as it is at this moment: files that go meanwhile are left out.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(fs::copy(entry.path(), target))
        }
    }
}
