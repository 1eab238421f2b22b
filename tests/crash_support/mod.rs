//! Runs one case of the crash matrix: the real binary dies at a failpoint, perhaps dies again while it recovers, and starts
//! cleanly; what it left is compared with what the row requires.

pub mod drives;
pub mod others;
pub mod outcomes;
pub mod proof;
pub mod verdict;

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use serde_json::Value;
use triplegain::{
    model::Ts,
    settings::sections::{CheckpointSettings, FreeSpaceSettings, GroupSettings, StoreSettings},
    store::{OpenInfo, Store},
};

use self::verdict::{Failed, Outcome, judged};
use crate::process_support::*;

/// Program seconds per second.
pub const FAST: &str = "600";
/// When the program time of prepared stores begins: 00:05 UTC, so that no day ends within a case.
pub const MORNING: i64 = 1_767_225_900;
/// A morning whose market makes the first decisions buy both symbols.
pub const BUYS: i64 = MORNING + 86_400;
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
    /// Where nothing is written there is no I/O error: a panic in its place.
    Panic,
}

impl Death {
    pub const fn action(self) -> &'static str {
        match self {
            Death::Kill => "kill",
            Death::Torn => "torn",
            Death::Error => "error",
            Death::Panic => "panic",
        }
    }

    /// Which column of the matrix it is.
    pub const fn mode(self) -> Mode {
        match self {
            Death::Kill | Death::Torn => Mode::Kill,
            Death::Error | Death::Panic => Mode::Error,
        }
    }

    /// Whether the process ended as it was to.
    fn is(self, ended: ExitStatus) -> bool {
        match self {
            Death::Kill | Death::Torn => killed(ended),
            Death::Error | Death::Panic => ended.code() == Some(70),
        }
    }
}

/// The columns of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// SIGKILL, and half a write before it.
    Kill,
    /// An injected error, or a panic where nothing is written.
    Error,
    /// A second death while the start that follows recovers.
    Again,
}

pub const MODES: [Mode; 3] = [Mode::Kill, Mode::Error, Mode::Again];

/// What is done to the process once it answers.
pub type Drive = fn(&Program) -> Value;
/// Whether the clean process has written what is waited for.
pub type Settled = fn(&Evidence) -> bool;
/// Settings by their variables; `-speed` is an option.
pub type Settings = &'static [(&'static str, &'static str)];
/// What must hold afterwards.
pub type Check = fn(&Evidence) -> Outcome;

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
    /// A store made on a morning on which both symbols are bought at once, when entries are market orders.
    Buys,
    /// A store made shortly before midnight.
    Evening,
    /// As Morning, and a process died in the middle of an append.
    Torn,
}

/// What a case left behind.
pub struct Evidence {
    pub store: PathBuf,
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

fn store_settings() -> StoreSettings {
    StoreSettings {
        segment_mib: 64,
        group: GroupSettings { max_events: 100 },
        aux_flush_ms: 1_000,
        cache_mib: 16,
        checkpoint: CheckpointSettings { events: 10_000, hours: 24, keep: 3 },
        free_space: FreeSpaceSettings { alert_mib: 1_024, pause_mib: 200 },
    }
}

/// A store as the program leaves it, made without the program and therefore at a chosen time.
fn prepare(store: &Path, at: i64) {
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
    let (made, _) = Store::open(store, &store_settings(), &info).unwrap();
    made.close().unwrap();
}

fn uuid(at: i64) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(at.unsigned_abs()))
}

pub fn make_world(world: World, store: &Path) {
    match world {
        World::New => {}
        World::Morning => prepare(store, MORNING),
        World::Buys => prepare(store, BUYS),
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
        if let Some(ended) = program.ended() {
            return Some(Some(ended));
        }
        proof::shown(&program.store, &program.try_status()?);
        Some(None)
    })
}

/// Places every start passes. Which one a case gets depends on its number, so that all of them meet many rows.
pub const RECOVERY: [&str; 10] = [
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

/// Runs the case once. What kept it from its point is told from what must not be; either way the store it left is sound.
pub fn run(case: &Case, death: Death, again: Option<usize>) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let done = judged(|| run_in(&store, case, death, again));
    let done = match done {
        Err(Failed::NotReached(why)) => Err(judged(|| Ok(proof::prove(&store)?))
            .err()
            .map_or(Failed::NotReached(why.clone()), |wrong| Failed::Violated(format!("{wrong}, after: {why}")))),
        done => done,
    };
    if done.is_err() && std::env::var_os("CRASH_KEEP").is_some() {
        println!("kept: {}", folder.keep().display());
    }
    done
}

fn run_in(store: &Path, case: &Case, death: Death, again: Option<usize>) -> Outcome {
    make_world(case.world, store);
    let (place, hit) = case.place.split_once('@').unwrap_or((case.place, "1"));
    let rules = format!("{place}={}@{hit}", death.action());

    let mut program = launch(store, &rules, case.settings);
    let alive = answering_or_dead(&mut program).is_none();
    let driven = judged(|| Ok(if alive { (case.drive)(&program) } else { Value::Null }));
    if let (Err(why), Some(ended)) = (&driven, program.ended()) {
        // Nobody to talk to any more: because of the point, or for a reason of its own?
        let text = format!("it ended with {ended} ({why}): {}", program.said());
        return Err(if death.is(ended) { Failed::NotReached(text) } else { Failed::Violated(text) });
    }
    let heard = driven?;
    let status = program.wait();
    if !death.is(status) {
        let text = format!("it ended with {status}: {}", program.said());
        return Err(if status.success() { Failed::NotReached(text) } else { Failed::Violated(text) });
    }
    proof::prove(store)?;
    let crashed = if store.join("journal").exists() { whole_batches(records(store)) } else { Vec::new() };

    if let Some(number) = again {
        die_again(store, RECOVERY[number % RECOVERY.len()], case.settings)?;
    }

    let program = launch_at(store, "", case.settings, true).answering();
    let mut evidence = Evidence {
        store: store.to_owned(),
        again: again.is_some(),
        crashed,
        status: program.status(),
        heard,
        later: Value::Null,
        all: Vec::new(),
    };
    proof::shown(store, &evidence.status);
    until(&format!("what {} at {} waits for; {}", case.row, case.place, store.display()), || {
        evidence.all = records(store);
        (case.settled)(&evidence).then_some(())
    });
    evidence.later = (case.later)(&program);
    proof::shown(store, &program.status());
    program.stop("TERM");
    evidence.all = proof::proven(store);
    (case.check)(&evidence)
}

/// A start that is killed at this place of its recovery.
fn die_again(store: &Path, place: &str, settings: Settings) -> Outcome {
    let mut program = launch_at(store, &format!("{place}=kill"), settings, true);
    let status = program.wait();
    verdict::require(killed(status), || {
        format!("the second process was to die at {place}, but ended with {status}: {}", program.said())
    })?;
    Ok(proof::prove(store)?)
}

/// Sends a command under a key of its own choice; the answer, or null when none came.
pub fn command(program: &Program, key: &str, body: &Value) -> Value {
    let request = client().post(program.url("/v1/commands")).bearer_auth(program.token());
    let request = request.header("X-Triplegain", "1").header("Idempotency-Key", key).json(body);
    let answer: Value = request.send().ok().and_then(|answer| answer.json().ok()).unwrap_or_default();
    proof::answered(&program.store, key, &answer);
    answer
}
