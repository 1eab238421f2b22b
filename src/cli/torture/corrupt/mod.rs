//! `torture corrupt`: builds one store, damages a copy of it per case, and starts on it in a process of its own.
//!
//! A case passes when the damage is found and nothing that was acknowledged is lost silently; a start that ends by a
//! signal, prints a panic, or does not end is a violation like a wrong state.

mod damage;
mod judge;
mod probe;
mod sample;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::{
    damage::{Damage, contents, copy, inflict},
    judge::{Outcome, Whole, judge},
    probe::Found,
};
use crate::{
    runtime::{failure::Exit, terminal::tell},
    store::{files, identity},
};

/// A start that has not ended by then hangs; an ordinary one takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(5);

/// What `torture corrupt` takes.
#[derive(clap::Args, Debug, Clone)]
pub struct CorruptArgs {
    /// Damaged copies in all
    #[arg(long, default_value_t = 200)]
    pub cases: u64,
    /// Draws the store and the damages; the same seed gives the same cases
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Begin with this case: `--first N --cases 1` repeats case N
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Cases at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub parallel: u64,
    /// Folder for the copies; those of violations stay [default: one in the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Start on this store and print what was found: the other side of a case
    #[arg(long, value_name = "DIR", hide = true)]
    pub probe: Option<PathBuf>,
}

/// One case and what became of it.
struct Case {
    number: u64,
    damage: Damage,
    /// The embedded library panicked over it.
    panicked: bool,
    outcome: Result<Outcome, String>,
}

/// The ways a store is left, and what each folds to.
struct Samples {
    home: PathBuf,
    /// By a kill; after a clean stop; by a kill after one more start.
    stores: Vec<(&'static str, Whole)>,
}

/// Runs all cases and prints the table; exit 1 when one is a violation.
///
/// # Errors
/// No place to work in, or a sample that cannot be built.
pub fn corrupt(args: &CorruptArgs) -> Result<Exit> {
    if let Some(dir) = &args.probe {
        tell!("{}", serde_json::to_string(&probe::probe(dir, args.seed)?)?);
        return Ok(Exit::Done);
    }
    let home = args.dir.clone().unwrap_or_else(|| {
        // Copies need no disk: what is tried is damage, not a power loss.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        base.join(format!("triplegain-corrupt-{}-{}", args.seed, std::process::id()))
    });
    let samples = samples(&home, args.seed)?;
    let next = AtomicU64::new(args.first);
    let last = args.first.saturating_add(args.cases);
    let cases: Mutex<Vec<Case>> = Mutex::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..args.parallel).map(|_| scope.spawn(|| work(args, &samples, &next, last, &cases))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let mut cases = cases.into_inner().unwrap_or_else(PoisonError::into_inner);
    cases.sort_by_key(|case| case.number);
    let violations = report(&cases, args.seed, &home);
    if violations == 0 {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    Ok(if violations == 0 { Exit::Done } else { Exit::Failed })
}

fn samples(home: &Path, seed: u64) -> Result<Samples> {
    files::create_dir(home)?;
    let [killed, stopped, restarted] = ["killed", "stopped", "restarted"].map(|name| home.join(name));
    for old in [&killed, &stopped, &restarted] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot clear {}", old.display()))?;
        }
    }
    sample::build(&killed, &stopped, seed)?;
    copy(&stopped, &restarted)?;
    identity::adopt(&restarted)?;
    sample::restart(&restarted, seed)?;
    let read = |dir: &Path| Whole::read(dir).map_err(|text| anyhow!("the sample store is not sound: {text}"));
    let (killed_whole, state) = read(&killed)?;
    let (stopped_whole, _) = read(&stopped)?;
    let (restarted_whole, _) = read(&restarted)?;
    let names = |name: &str| files::names(&restarted.join(name)).unwrap_or_default().join(" ");
    tell!(
        "seed {seed}: {} records, {} fills, {} positions; journal {}; checkpoint {}; state {}",
        killed_whole.records,
        state.totals.fills,
        state.positions.len(),
        names("journal"),
        names("checkpoint"),
        names("state"),
    );
    let stores = vec![("killed", killed_whole), ("restarted", restarted_whole), ("stopped", stopped_whole)];
    Ok(Samples { home: home.to_owned(), stores })
}

fn work(args: &CorruptArgs, samples: &Samples, next: &AtomicU64, last: u64, cases: &Mutex<Vec<Case>>) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= last {
            return Ok(());
        }
        let case = one(args.seed, number, samples)?;
        cases.lock().unwrap_or_else(PoisonError::into_inner).push(case);
    }
}

/// Damages one copy, starts on it, judges. The copy is removed unless the case is a violation.
fn one(seed: u64, number: u64, samples: &Samples) -> Result<Case> {
    let dir = samples.home.join(format!("case-{number}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let store = dir.join("store");
    // Never empty: three are made above.
    let (name, whole) = &samples.stores[(number % samples.stores.len() as u64) as usize];
    copy(&samples.home.join(name), &store)?;
    // The copy stands for the original in its place: it must not be halted for having moved.
    identity::adopt(&store)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let damage = inflict(&store, &mut rng)?;
    let segment: fn(&str) -> bool = |name| name.ends_with(".jsonl");
    let before = contents(&store.join("journal"), segment)?;
    let had_state = store.join("state").exists();
    let mut panicked = false;
    let outcome = start(&dir, &store, seed).and_then(|found| {
        panicked = found.warnings.iter().any(|warning| warning.contains("panicked"));
        let names = files::names(&store).unwrap_or_default();
        let set_aside = names.iter().any(|name| name.starts_with("state."));
        if found.frozen && contents(&store.join("journal"), segment).ok() != Some(before) {
            return Err("the damaged journal was changed".to_owned());
        }
        judge(whole, &damage, &found, set_aside, had_state)
    });
    if outcome.is_ok() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(Case { number, damage, panicked, outcome })
}

/// A start in a process of its own: an abort or a hang of it is a finding, not the end of the torture.
fn start(dir: &Path, store: &Path, seed: u64) -> Result<Found, String> {
    let words = |error: std::io::Error| format!("the start cannot be tried: {error}");
    let (out, err) = (dir.join("out"), dir.join("err"));
    let mut child = Command::new(std::env::current_exe().map_err(words)?)
        .args(["torture", "corrupt", "--seed", &seed.to_string(), "--probe"])
        .arg(store)
        .stdin(Stdio::null())
        .stdout(File::create(&out).map_err(words)?)
        .stderr(File::create(&err).map_err(words)?)
        .spawn()
        .map_err(words)?;
    let ended = wait(&mut child).map_err(words)?;
    let told = fs::read_to_string(&err).map_err(words)?;
    let Some(status) = ended else { return Err(format!("the start hangs; it said: {}", told.trim())) };
    if !status.success() {
        return Err(format!("the start ended with {status}: {}", told.trim()));
    }
    if !told.trim().is_empty() {
        return Err(format!("the start printed on standard error: {}", told.trim()));
    }
    let text = fs::read_to_string(&out).map_err(words)?;
    serde_json::from_str(&text).map_err(|error| format!("what the start found cannot be read: {error}: {text}"))
}

fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::park_timeout(STEP);
    }
}

/// Prints cases by kind and outcome, then every violation; gives their number.
fn report(cases: &[Case], seed: u64, home: &Path) -> usize {
    let mut table: BTreeMap<(&str, &str), BTreeMap<String, u64>> = BTreeMap::new();
    let mut columns: BTreeMap<String, u64> = BTreeMap::new();
    let (mut lost, mut most) = (0, 0);
    for case in cases {
        let column = case.outcome.as_ref().map_or_else(|_| "VIOLATION".to_owned(), Outcome::column);
        *columns.entry(column.clone()).or_default() += 1;
        let row = table.entry((case.damage.target.name(), case.damage.way.name())).or_default();
        *row.entry(column).or_default() += 1;
        if let Ok(Outcome::TailLost(records)) = case.outcome {
            lost += records;
            most = most.max(records);
        }
    }
    let mut print = comfy_table::Table::new();
    print.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    print.set_header(["file", "damage"].into_iter().map(str::to_owned).chain(columns.keys().cloned()));
    for ((target, way), row) in &table {
        let counts = columns.keys().map(|column| row.get(column).map_or(String::new(), u64::to_string));
        print.add_row([(*target).to_owned(), (*way).to_owned()].into_iter().chain(counts));
    }
    let sums = columns.values().map(u64::to_string);
    print.add_row(["all".to_owned(), cases.len().to_string()].into_iter().chain(sums));
    tell!("{print}");
    if lost > 0 {
        tell!("damaged tails took {lost} acknowledged records with them, at most {most} in one case, each HALTED");
    }
    let panicked = cases.iter().filter(|case| case.panicked).count();
    tell!("the embedded library panicked in {panicked} cases; each panic became a sentence");
    let violations: Vec<_> = cases.iter().filter_map(|case| Some((case, case.outcome.as_ref().err()?))).collect();
    for (case, what) in &violations {
        let (target, way, place) = (case.damage.target.name(), case.damage.way.name(), &case.damage.place);
        tell!("violation: case {} ({target}, {way}: {place}): {what}", case.number);
        tell!(
            "  kept in {}; again: torture corrupt --seed {seed} --first {} --cases 1",
            home.join(format!("case-{}", case.number)).display(),
            case.number
        );
    }
    tell!("{} cases, {} violations", cases.len(), violations.len());
    violations.len()
}
