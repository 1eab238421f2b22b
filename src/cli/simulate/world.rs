//! One simulation from its first start to its horizon: one disk, one market, one true time, and process after process.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use anyhow::Result;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::{
    danger::Danger,
    disk_faults,
    history::History,
    life::{self, End, Life},
    monitor::{Monitor, Plant, Violation},
    operator::Operator,
    plan::{Plan, Until},
};
use crate::{
    cli::system,
    model::{Ts, time::HOUR_MS, time::MINUTE_MS, time::SECOND_MS},
    runtime::placement::run_virtual,
    settings::Loaded,
    store::{OpenInfo, Store, StoreError, memory_disk::MemoryDisk},
};

/// What one simulation was like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// SHA-256 of all bytes of the journal, hex.
    pub journal_sha256: String,
    /// Records.
    pub events: u64,
    /// Kills and power cuts.
    pub crashes: u32,
    /// Those that took the power along.
    pub power_cuts: u32,
    /// Those before the store was open: within a recovery.
    pub recovery_crashes: u32,
    /// Errors of the disk.
    pub store_faults: u32,
    /// Processes.
    pub lives: u32,
    /// Simulated milliseconds.
    pub simulated_ms: i64,
    /// Orders, fills and closed trades at the end.
    pub orders: u64,
    /// Fills.
    pub fills: u64,
    /// What must not be.
    pub violation: Option<Violation>,
}

/// Starts that fail one after the other before it is a violation: the disk does not fail for ever.
const FAILED_STARTS: u32 = 200;

/// Runs one simulation.
///
/// # Errors
/// The runtime or the settings cannot be made; violations are part of the outcome.
pub fn simulate(plan: &Plan, plant: Option<Plant>) -> Result<Outcome> {
    let loaded = plan.settings()?;
    let disk = MemoryDisk::default();
    let monitor = Monitor::new(disk.clone(), plan.until, plant, life::wake);
    let begins = plan.start();
    let horizon = begins.plus_ms(plan.length_ms);
    let wall_offset = Rc::new(Cell::new(0));
    let operator = RefCell::new(Operator::new(plan));
    let history = RefCell::new(History::default());
    let mut danger = Danger::default();
    let mut outcome = Outcome::default();
    let mut now = begins;
    let mut failed_starts = 0;
    let mut last_state = None;
    while now < horizon && !monitor.stopped() {
        if plan.until == Some(Until::Life(outcome.lives)) {
            break;
        }
        outcome.lives += 1;
        let number = outcome.lives;
        let mut rng = plan.stream("between", number);
        let mut opened_it = false;
        let arranged = danger.arrange(plan, number);
        monitor.begins(number, arranged.after_commit);
        let faults = arranged.disk;
        disk.fail_by(faults.as_ref().map(disk_faults::DiskFaults::injector));
        let wall = now.plus_ms(wall_offset.get());
        let end = match open(&disk, &loaded, plan, wall, &monitor) {
            Ok((store, opened)) => {
                failed_starts = 0;
                opened_it = true;
                monitor.opened(store.state());
                let start = wall.max(opened.last_logical_time);
                let life = Life {
                    plan,
                    number,
                    loaded: &loaded,
                    monitor: &monitor,
                    begins: now,
                    horizon,
                    wall_offset: &wall_offset,
                    operator: &operator,
                    history: &history,
                };
                let (end, at) = run_virtual(start, |place| life.run(place, store, opened))?;
                now = at;
                end
            }
            Err(error) => {
                failed_starts += 1;
                if !faults.as_ref().is_some_and(disk_faults::DiskFaults::struck) || failed_starts > FAILED_STARTS {
                    monitor.fail(format!("the store cannot be opened although the disk works: {error}"));
                }
                End::Died
            }
        };
        let said = life::take_fatal();
        let struck = faults.as_ref().is_some_and(disk_faults::DiskFaults::struck);
        if let Some(what) = said.first().filter(|_| !struck) {
            monitor.fail(format!("the program ended itself although the disk works: {what}"));
        }
        let dies = faults.as_ref().is_some_and(disk_faults::DiskFaults::is_crash);
        outcome.store_faults += u32::from(struck && !dies);
        let crashed = struck && dies || matches!(end, End::Killed | End::PowerCut);
        outcome.crashes += u32::from(crashed);
        outcome.recovery_crashes += u32::from(crashed && !opened_it);
        let power = match &end {
            End::Killed | End::PowerCut | End::Died if arranged.power.is_some() => arranged.power == Some(true),
            End::PowerCut => true,
            End::Died => rng.random_bool(0.5),
            _ => false,
        };
        outcome.power_cuts += u32::from(power);
        if power {
            disk.power_cut(&mut plan.stream("power", number));
        } else {
            disk.killed();
        }
        if let End::Over(state) = end {
            last_state = Some(state);
            break;
        }
        let down_ms = match rng.random_range(0..4) {
            0 => 0,
            1 => rng.random_range(0..10 * SECOND_MS),
            2 => rng.random_range(0..10 * MINUTE_MS),
            _ => rng.random_range(0..6 * HOUR_MS),
        };
        // A start that failed is tried again after a moment, as a service manager does.
        now = now.plus_ms(if failed_starts > 0 { SECOND_MS } else { down_ms });
    }
    let folded = monitor.verify();
    if let Some(state) = last_state.filter(|_| !monitor.stopped()) {
        if folded.is_some_and(|folded| folded != *state) {
            monitor.fail("the live state is not the fold of the journal".to_owned());
        }
        match disk.fold(true) {
            Ok(folded) if folded == *state => {}
            Ok(_) => monitor.fail("the live state is not what the newest checkpoint and the rest fold to".to_owned()),
            Err(error) => monitor.fail(format!("the journal cannot be folded: {error}")),
        }
        (outcome.orders, outcome.fills) = (state.totals.orders, state.totals.fills);
    }
    outcome.events = monitor.seq();
    outcome.simulated_ms = now.min(horizon).since_ms(begins);
    outcome.journal_sha256 = hex::encode(Sha256::digest(disk.journal_bytes()));
    outcome.violation = monitor.violation();
    Ok(outcome)
}

fn open(
    disk: &MemoryDisk,
    loaded: &Loaded,
    plan: &Plan,
    wall: Ts,
    monitor: &Monitor,
) -> Result<(Store, crate::store::Opened), StoreError> {
    let settings = &loaded.settings;
    let info = OpenInfo {
        seed: plan.seed.max(1),
        data_kind: "simulated".to_owned(),
        config_hash: loaded.hash.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: wall,
        deposits: system::deposits(settings),
        stands_still: false,
        store_id: None,
    };
    let monitor = monitor.clone();
    let tap = Box::new(move |records: &_, start| monitor.take(records, start));
    Store::on_disk(disk, &settings.store, &info, tap)
}
