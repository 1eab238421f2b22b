//! Runs one case of the crash matrix: the real binary dies at a failpoint, perhaps dies again while it recovers, and starts
//! cleanly; what it left is compared with what the row requires.

pub mod drives;
pub mod others;
pub mod outcomes;

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus};

use serde_json::Value;
use triplegain::{
    model::Ts,
    settings::sections::{CheckpointSettings, FreeSpaceSettings, GroupSettings, StoreSettings},
    store::{OpenInfo, Store},
};

use crate::process_support::*;

/// Program seconds per second.
pub const FAST: &str = "600";
/// When the program time of prepared stores begins: 00:05 UTC, so that no day ends within a case.
pub const MORNING: i64 = 1_767_225_900;
/// Nearly midnight: the first day ends within a second.
pub const EVENING: i64 = 1_767_225_600 - 900;

/// How a first process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// SIGKILL, by itself.
    Kill,
    /// Half of the bytes are written, then SIGKILL.
    Torn,
    /// An I/O error instead: the process ends by itself.
    Error,
}

impl Death {
    pub const fn action(self) -> &'static str {
        match self {
            Death::Kill => "kill",
            Death::Torn => "torn",
            Death::Error => "error",
        }
    }
}

/// What is done to the process once it answers.
pub type Drive = fn(&Program) -> Value;
/// Whether the clean process has written what is waited for.
pub type Settled = fn(&Evidence) -> bool;
/// Settings by their variables; `-speed` is an option.
pub type Settings = &'static [(&'static str, &'static str)];
/// What must hold afterwards.
pub type Check = fn(&Evidence) -> Result<(), String>;

/// One way to reach a row.
#[derive(Clone, Copy)]
pub struct Case {
    pub row: &'static str,
    /// A site with what it is about, and the hit: `journal.append[TradeIntent]`, `@1` when left out.
    pub place: &'static str,
    /// Besides the kill.
    pub also: &'static [Death],
    pub world: World,
    pub settings: Settings,
    pub drive: Drive,
    /// Said to the clean process before it is stopped.
    pub later: Drive,
    /// What the clean process must have written before it is stopped.
    pub settled: Settled,
    pub check: Check,
}

/// What the first process finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// Nothing.
    New,
    /// A store made in the morning.
    Morning,
    /// A store made shortly before midnight.
    Evening,
    /// As Morning, and a process died in the middle of an append.
    Torn,
}

/// What a case left behind.
pub struct Evidence {
    /// A second process died while it recovered.
    pub again: bool,
    /// Whole records on disk when the first process was dead.
    pub crashed: Vec<Value>,
    /// The status of the clean process as soon as it answered.
    pub status: Value,
    /// What the first process answered.
    pub heard: Value,
    /// What the clean process answered.
    pub later: Value,
    /// All records at the end.
    pub all: Vec<Value>,
}

impl Evidence {
    /// Records written after the first death.
    pub fn after(&self) -> &[Value] {
        &self.all[self.crashed.len().min(self.all.len())..]
    }
}

pub fn idle(_: &Program) -> Value {
    Value::Null
}

/// A store as the program leaves it, made without the program and therefore at a chosen time.
fn prepare(store: &Path, at: i64) {
    let settings = StoreSettings {
        segment_mib: 64,
        group: GroupSettings { max_events: 100 },
        aux_flush_ms: 1_000,
        cache_mib: 16,
        checkpoint: CheckpointSettings { events: 10_000, hours: 24, keep: 3 },
        free_space: FreeSpaceSettings { alert_mib: 1_024, pause_mib: 200 },
    };
    let info = OpenInfo {
        seed: 1,
        data_kind: "simulated".into(),
        config_hash: "c".repeat(64),
        version: "test".into(),
        now: Ts::from_secs(at),
        deposits: BTreeMap::from([("USDT".parse().unwrap(), "10000".parse().unwrap())]),
        stands_still: true,
        store_id: Some(uuid(at)),
    };
    let (made, _) = Store::open(store, &settings, &info).unwrap();
    made.close().unwrap();
}

fn uuid(at: i64) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(at.unsigned_abs()))
}

pub fn make_world(world: World, store: &Path) {
    match world {
        World::New => {}
        World::Morning => prepare(store, MORNING),
        World::Torn => {
            prepare(store, MORNING);
            let mut program = launch(store, "journal.append=torn@6", &[]);
            let status = program.wait();
            assert!(killed(status), "it ended with {status}: {}", program.said());
        }
        World::Evening => prepare(store, EVENING),
    }
}

/// Starts the program in the small world.
pub fn launch(store: &Path, rules: &str, settings: &[(&str, &str)]) -> Program {
    launch_at(store, rules, settings, false)
}

fn launch_at(store: &Path, rules: &str, settings: &[(&str, &str)], later: bool) -> Program {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash_support/crash.toml");
    let mut variables = vec![("TRIPLEGAIN_FAILPOINTS", rules)];
    variables.extend(settings.iter().filter(|(name, _)| !name.starts_with('-')));
    let speed_of = |name: &str| settings.iter().find(|(given, _)| *given == name).map(|(_, speed)| *speed);
    // After the first death: a start takes seconds, and they must not be hours.
    let later = speed_of("-later-speed").filter(|_| later);
    let speed = later.or_else(|| speed_of("-speed")).unwrap_or(FAST);
    let mut command = triplegain();
    command.envs(variables.iter().copied());
    Program::spawn_with(command, store, &["--config", config, "--speed", speed])
}

/// The program as far as it gets: alive and answering, or dead.
pub fn answering_or_dead(program: &mut Program) -> Option<ExitStatus> {
    until("the program to answer or to end", || {
        let ended = program.ended();
        (ended.is_some() || program.try_status().is_some()).then_some(ended)
    })
}

/// Places every start passes. Which one a case gets depends on its number, so that all of them meet many rows.
const RECOVERY: [&str; 10] = [
    "lock.write",
    "state.open",
    "boot.epoch",
    "journal.append[Booted]",
    "journal.synced[Booted]",
    "state.transact[Booted]",
    "state.flush[Booted]",
    "aux.flush",
    "commit.boot",
    "journal.synced[RecoveryDone]",
];

fn killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// Without the records of a batch that was torn: a start cuts all of it.
fn whole_batches(mut records: Vec<Value>) -> Vec<Value> {
    let (mut whole, mut at) = (0, 0);
    while at < records.len() {
        at += usize::try_from(records[at]["n"].as_u64().unwrap_or(1)).unwrap();
        if at <= records.len() {
            whole = at;
        }
    }
    records.truncate(whole);
    records
}

/// Runs the case once; the error says what happened instead.
pub fn run(case: &Case, death: Death, again: Option<usize>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    make_world(case.world, &store);
    let (place, hit) = case.place.split_once('@').unwrap_or((case.place, "1"));
    let rules = format!("{place}={}@{hit}", death.action());

    let mut program = launch(&store, &rules, case.settings);
    let alive = answering_or_dead(&mut program).is_none();
    let heard = if alive { (case.drive)(&program) } else { Value::Null };
    let status = program.wait();
    let said = program.said();
    match death {
        Death::Kill | Death::Torn if !killed(status) => return Err(format!("it ended with {status}: {said}")),
        Death::Error if status.code() != Some(70) => return Err(format!("it ended with {status}: {said}")),
        _ => {}
    }
    let crashed = if store.join("journal").exists() { whole_batches(records(&store)) } else { Vec::new() };

    if let Some(number) = again {
        let rules = format!("{}=kill", RECOVERY[number % RECOVERY.len()]);
        let mut program = launch_at(&store, &rules, case.settings, true);
        let status = program.wait();
        if !killed(status) {
            return Err(format!(
                "the second process was to die at {rules}, but ended with {status}: {}",
                program.said()
            ));
        }
    }

    let program = launch_at(&store, "", case.settings, true).answering();
    let mut evidence = Evidence {
        again: again.is_some(),
        crashed,
        status: program.status(),
        heard,
        later: Value::Null,
        all: Vec::new(),
    };
    until(&format!("what {} at {} waits for; {}", case.row, case.place, store.display()), || {
        evidence.all = records(&store);
        (case.settled)(&evidence).then_some(())
    });
    evidence.later = (case.later)(&program);
    program.stop("TERM");
    evidence.all = assert_sound(&store);
    let done = (case.check)(&evidence);
    if done.is_err() && std::env::var_os("CRASH_KEEP").is_some() {
        drop(folder.keep());
    }
    done.map_err(|why| format!("{why} (store {})", store.display()))
}

/// Sends a command under a key of its own choice; the answer, or null when none came.
pub fn command(program: &Program, key: &str, body: &Value) -> Value {
    let request = client().post(program.url("/v1/commands")).bearer_auth(program.token());
    let request = request.header("X-Triplegain", "1").header("Idempotency-Key", key).json(body);
    request.send().ok().and_then(|answer| answer.json().ok()).unwrap_or_default()
}
