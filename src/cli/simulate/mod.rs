//! `simulate`: the whole program on one virtual clock from one seed, with crashes, a failing disk, bad agents, feeds and
//! clocks, and an operator who does anything; invariants are checked after every record.

pub mod agents;
pub mod danger;
pub mod disk_faults;
pub mod feed;
pub mod history;
pub mod invariants;
pub mod life;
pub mod monitor;
pub mod operator;
pub mod plan;
pub mod shrink;
pub mod venue;
pub mod world;

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, anyhow};
use clap::Args;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::Global;
use crate::{
    model::time::DAY_MS,
    runtime::{
        failure::Exit,
        terminal::{note, tell},
    },
};
use plan::{Faults, Plan, Until};
use world::{Outcome, simulate};

/// Flags of `simulate`.
#[derive(Args, Debug, Clone)]
pub struct SimulateArgs {
    /// Decides everything; the first one with --seeds
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Simulated days per seed
    #[arg(long, default_value_t = 7.0)]
    pub days: f64,
    /// What goes wrong: all, none, or some of crash, store, agents, feed, clock, commands, venue
    #[arg(long, default_value = "all")]
    pub faults: Faults,
    /// How many seeds
    #[arg(long, default_value_t = 1, value_name = "K")]
    pub seeds: u64,
    /// Seeds at a time [default: the processors of this machine]
    #[arg(long, value_name = "P")]
    pub parallel: Option<NonZeroUsize>,
    /// Run every seed twice and compare the journals
    #[arg(long)]
    pub twice: bool,
    /// End after this record of the journal
    #[arg(long, value_name = "N", conflicts_with = "until_life")]
    pub until_record: Option<u64>,
    /// End with this process, counted from 1
    #[arg(long, value_name = "N")]
    pub until_life: Option<u32>,
}

impl SimulateArgs {
    fn plan(&self, seed: u64) -> Plan {
        let until = self.until_record.map(Until::Record).or(self.until_life.map(Until::Life));
        Plan { seed, length_ms: (self.days * DAY_MS as f64) as i64, faults: self.faults.clone(), until }
    }
}

/// What all seeds were like together.
#[derive(Default)]
struct Sum {
    seeds: u64,
    simulated_ms: i64,
    lives: u64,
    crashes: u64,
    power_cuts: u64,
    recovery_crashes: u64,
    store_faults: u64,
    events: u64,
    orders: u64,
    fills: u64,
    failed: Vec<(Plan, String)>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome, runs: i64) {
        self.seeds += 1;
        self.simulated_ms += outcome.simulated_ms * runs;
        self.lives += u64::from(outcome.lives);
        self.crashes += u64::from(outcome.crashes);
        self.power_cuts += u64::from(outcome.power_cuts);
        self.recovery_crashes += u64::from(outcome.recovery_crashes);
        self.store_faults += u64::from(outcome.store_faults);
        self.events += outcome.events;
        self.orders += outcome.orders;
        self.fills += outcome.fills;
    }
}

/// Runs the simulations and prints what they found.
///
/// # Errors
/// The runtime or the settings cannot be made.
pub fn run(global: &Global, args: &SimulateArgs) -> Result<Exit> {
    quiet_panics();
    let began = Instant::now();
    let parallel = args.parallel.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let bar = progress_bar(args.seeds);
    let (next, broken) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= args.seeds || broken.load(Ordering::Relaxed) {
                return Ok(());
            }
            let plan = args.plan(args.seed.wrapping_add(number));
            let (outcome, found) = one(&plan, args.twice).inspect_err(|_| broken.store(true, Ordering::Relaxed))?;
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(&outcome, if args.twice { 2 } else { 1 });
            sum.failed.extend(found.map(|text| (plan, text)));
            bar.inc(1);
            bar.set_message(format!("{} violations", sum.failed.len()));
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let spawn = |number| {
            let thread = std::thread::Builder::new().name(format!("{THREAD}{number}"));
            thread.spawn_scoped(scope, work)
        };
        let threads = (0..parallel).map(spawn).collect::<std::io::Result<Vec<_>>>()?;
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a simulation panicked outside of the simulated program"))??;
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(global, args, &sum, began.elapsed().as_secs_f64());
    Ok(if sum.failed.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Runs one plan, perhaps twice; what is wrong, for people.
fn one(plan: &Plan, twice: bool) -> Result<(Outcome, Option<String>)> {
    let outcome = simulate(plan, None)?;
    if let Some(violation) = &outcome.violation {
        let shortest = shrink::shortest(plan, violation, None)?;
        return Ok((outcome.clone(), Some(shrink::text(plan, &shortest))));
    }
    if twice {
        let again = simulate(plan, None)?;
        if again != outcome {
            let text = format!(
                "seed {}: two runs differ: journal {} with {} records, then {} with {}",
                plan.seed, outcome.journal_sha256, outcome.events, again.journal_sha256, again.events
            );
            return Ok((outcome, Some(text)));
        }
    }
    Ok((outcome, None))
}

fn report(global: &Global, args: &SimulateArgs, sum: &Sum, seconds: f64) {
    let days = sum.simulated_ms as f64 / DAY_MS as f64;
    let rows = [
        ("seeds", sum.seeds.to_string()),
        ("simulated_days", format!("{days:.1}")),
        ("processes", sum.lives.to_string()),
        ("crashes", sum.crashes.to_string()),
        ("power_cuts", sum.power_cuts.to_string()),
        ("recovery_crashes", sum.recovery_crashes.to_string()),
        ("store_faults", sum.store_faults.to_string()),
        ("events", sum.events.to_string()),
        ("orders", sum.orders.to_string()),
        ("fills", sum.fills.to_string()),
        ("violations", sum.failed.len().to_string()),
        ("simulated_days_per_second", format!("{:.1}", days / seconds.max(1e-9))),
    ];
    for (_, text) in &sum.failed {
        note!("{text}\n");
    }
    if global.json {
        let facts: serde_json::Map<_, _> =
            rows.into_iter().map(|(name, value)| (name.to_owned(), serde_json::Value::from(value))).collect();
        tell!("{}", serde_json::Value::Object(facts));
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    for (name, value) in rows {
        table.add_row([name.replace('_', " "), value]);
    }
    let runs = if args.twice { "each run twice" } else { "each run once" };
    tell!("{table}\nfaults: {}; {runs}", args.faults);
}

/// Threads of simulations are known by their name.
const THREAD: &str = "simulate-";

/// Panics that are asked for say nothing; those of other threads are told as ever.
fn quiet_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let simulated = std::thread::current().name().is_some_and(|name| name.starts_with(THREAD));
        let asked_for =
            info.payload().downcast_ref::<&str>().is_some_and(|text| [agents::PANIC, life::ENDED].contains(text));
        if !simulated || !asked_for {
            tell(info);
        }
    }));
}

fn progress_bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} seeds {msg} (eta {eta})");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
