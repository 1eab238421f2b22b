//! `torture kill`: starts the real program with heavy traffic, kills it at a random instant, starts it again on the same
//! store, and asks the oracle each time whether anything acknowledged is lost or anything happened twice.
//!
//! A killed process says nothing about power loss: what the kernel holds survives it.

mod client;
pub mod corrupt;
mod lane;
mod program;
mod totals;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::{
    lane::{Lane, Trouble},
    totals::Totals,
};
use super::Global;
use crate::runtime::{
    failure::{Exit, Failure},
    terminal::{self, note, tell},
};

/// Settings under which much happens in little time.
const TRAFFIC: &str = include_str!("../../../config/torture.toml");
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Subcommands of `torture`.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum TortureCommand {
    /// Kill the program at random instants and check its store after every kill
    Kill(KillArgs),
    /// Damage copies of a store in one way each and open them: every damage is found and nothing is lost silently
    Corrupt(corrupt::CorruptArgs),
}

/// What `torture kill` takes.
#[derive(clap::Args, Debug, Clone)]
pub struct KillArgs {
    /// Kills in all
    #[arg(long, default_value_t = 300)]
    pub cycles: u64,
    /// Draws the instants and the commands; printed, so that a run can be asked again [default: drawn]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Programs at a time, each with a store of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub parallel: u64,
    /// A fresh store after so many kills, so that a check stays short
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub fresh_every: u64,
    /// The kill comes within so many milliseconds of the start, each instant equally likely
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..))]
    pub window_ms: u64,
    /// Program clock against real time; a slow build or machine wants less
    #[arg(long, default_value_t = 3600, value_name = "N")]
    pub speed: u32,
}

/// Everything the lanes share.
struct Shared {
    exe: PathBuf,
    config: PathBuf,
    window: Duration,
    speed: u32,
    fresh_every: u64,
    /// Kills that are given out already.
    taken: AtomicU64,
    cycles: u64,
    stop: AtomicBool,
    totals: Mutex<Totals>,
}

impl Shared {
    /// True when one more kill is to be made.
    fn take(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.taken.fetch_add(1, Ordering::Relaxed) < self.cycles
    }

    fn add(&self, facts: &Totals) {
        if let Ok(mut totals) = self.totals.lock() {
            totals.add(facts);
        }
    }

    fn totals(&self) -> Totals {
        self.totals.lock().map(|totals| totals.clone()).unwrap_or_default()
    }
}

/// Runs a subcommand.
///
/// # Errors
/// A directory that is not empty, or anything that keeps the harness itself from working. A violation is no error: it is
/// printed with its seed, and the exit code of `kill` is 65.
pub fn torture(global: &Global, command: &TortureCommand) -> Result<Exit> {
    match command {
        TortureCommand::Kill(args) => kill(global, args),
        TortureCommand::Corrupt(args) => corrupt::corrupt(args),
    }
}

fn kill(global: &Global, args: &KillArgs) -> Result<Exit> {
    let seed = args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::now_v7().as_u128() as u32));
    let base = base_dir(global.store.as_deref())?;
    let config = match &global.config {
        Some(own) => std::path::absolute(own)?,
        None => {
            let path = base.join("torture.toml");
            std::fs::write(&path, TRAFFIC).with_context(|| format!("cannot write {}", path.display()))?;
            path
        }
    };
    let shared = Arc::new(Shared {
        exe: std::env::current_exe().context("this program cannot find itself")?,
        config,
        window: Duration::from_millis(args.window_ms),
        speed: args.speed,
        fresh_every: args.fresh_every,
        taken: AtomicU64::new(0),
        cycles: args.cycles,
        stop: AtomicBool::new(false),
        totals: Mutex::default(),
    });
    tell!("seed {seed}, {} kills, {} at a time, stores below {}", args.cycles, args.parallel, base.display());
    let begun = Instant::now();
    let troubles = run_lanes(&shared, seed, args.parallel, &base, begun)?;
    terminal::out(format_args!("{}", shared.totals().table(seed, begun.elapsed(), troubles.len())));
    for trouble in &troubles {
        note!("{trouble}");
        note!("again: triplegain torture kill --cycles {} --seed {seed} --parallel {}", args.cycles, args.parallel);
    }
    if troubles.is_empty() {
        std::fs::remove_dir_all(&base).with_context(|| format!("cannot remove {}", base.display()))?;
        return Ok(Exit::Done);
    }
    Ok(Exit::Unsound)
}

/// A directory that holds nothing yet: this command removes what it makes.
fn base_dir(asked: Option<&Path>) -> Result<PathBuf> {
    let base = asked.map_or_else(
        || std::env::temp_dir().join(format!("triplegain-torture-{}", std::process::id())),
        Path::to_path_buf,
    );
    let used = std::fs::read_dir(&base).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        let text =
            format!("--store {}: it is not empty; name a directory that this command may remove", base.display());
        return Err(Failure::new(Exit::Usage, text).into());
    }
    std::fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
    Ok(std::path::absolute(base)?)
}

/// Runs every lane on a thread of its own and prints progress until all have ended.
fn run_lanes(shared: &Arc<Shared>, seed: u64, parallel: u64, base: &Path, begun: Instant) -> Result<Vec<Trouble>> {
    let (sender, ended) = mpsc::channel::<Result<(), Trouble>>();
    let mut threads = Vec::new();
    for number in 1..=parallel {
        let mut lane = Lane::new(number, seeded(seed, number), base, Arc::clone(shared))?;
        let sender = sender.clone();
        threads.push(std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            // Nobody listens only when the harness itself has ended.
            let _ = sender.send(lane.run());
        })?);
    }
    drop(sender);
    let mut troubles = Vec::new();
    loop {
        match ended.recv_timeout(PROGRESS) {
            Ok(result) => {
                if let Err(trouble) = result {
                    shared.stop.store(true, Ordering::Relaxed);
                    troubles.push(trouble);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tell!("{}", shared.totals().line(shared.cycles, begun.elapsed()))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    for thread in threads {
        anyhow::ensure!(thread.join().is_ok(), "a lane of the harness panicked");
    }
    Ok(troubles)
}

/// The draws of one lane.
fn seeded(seed: u64, lane: u64) -> ChaCha8Rng {
    let mut first = ChaCha8Rng::seed_from_u64(seed);
    first.set_stream(lane);
    ChaCha8Rng::seed_from_u64(first.random())
}
