//! A month in which one run in twenty goes wrong and the process is killed again and again: what the scheduler, the
//! account and the journal promise holds to the end. Real actors on a disk of memory, in virtual time.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/world/mod.rs"]
mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::*;
use triplegain::{
    agents::contract::{Answer, RunContext},
    execution::ledger,
    store::{
        memory_disk::MemoryDisk,
        oracle::Oracle,
        reader::{self, Start},
    },
};

/// The scenario's month with optimisation; without, as much as a few seconds allow.
const DAYS: i64 = if cfg!(debug_assertions) { 5 } else { 30 };
const SEED: u64 = 194;
const MINUTE: i64 = 60_000;
/// Between two technical analyses of a symbol, milliseconds.
const INTERVAL: i64 = 5 * MINUTE;
const HOUR: i64 = 60 * MINUTE;
/// The coordinator's tick, milliseconds.
const TICK: i64 = 1_000;
/// A run past its deadline holds its key for this long, milliseconds.
const GRACE: i64 = 5_000;

type Draws = Rc<RefCell<ChaCha8Rng>>;

/// One run as its agent saw it.
struct Ran {
    life: usize,
    key: RunKey,
    run: RunId,
    slot: SlotId,
    began: Ts,
    /// When its key is free again at the earliest.
    until: Ts,
}

#[derive(Clone, Default)]
struct Runs(Rc<RefCell<Vec<Ran>>>);

/// One run in twenty fails, hangs or panics; `answer` is what the others say.
fn mishap<T>(
    runs: &Runs,
    draws: &Draws,
    (life, task, timeout_ms): (usize, TaskName, i64),
    ctx: &RunContext,
    answer: impl FnOnce(&mut ChaCha8Rng) -> Reply<Answer<T>>,
) -> Reply<Answer<T>> {
    let mut draws = draws.borrow_mut();
    let (reply, held_ms) = match draws.random_range(0..100) {
        0..3 => (Reply::Now(failed()), 0),
        3 => (Reply::Panic, 0),
        4 => (Reply::Hang, timeout_ms + GRACE),
        _ => (answer(&mut draws), 0),
    };
    let (key, began) = (RunKey { task, symbol: ctx.symbol }, ctx.started_at);
    let ran = Ran { life, key, run: ctx.run_id, slot: ctx.slot.clone(), began, until: began.plus_ms(held_ms) };
    runs.0.borrow_mut().push(ran);
    reply
}

fn setup(disk: &MemoryDisk, start: Ts, life: usize, runs: &Runs) -> Setup {
    let setup = Setup { simulated: true, disk: Some(disk.clone()), seldom: 15, ..Setup::new() };
    let mut setup = setup.at(start).with(|settings| {
        settings.symbols = vec![btc(), xrp()];
        settings.market.simulated.step_seconds = 60;
        settings.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true;
        for (task, seconds) in [
            (TaskName::TechnicalAnalysis, INTERVAL as u32 / 1_000),
            (TaskName::RegimeDetection, 900),
            (TaskName::TradingDecision, 1_800),
        ] {
            settings.tasks.get_mut(&task).unwrap().interval_seconds = seconds;
        }
        settings.store.aux_flush_ms *= 15;
        // Every start takes the history in again.
        for (frame, candles) in &mut settings.market.lookback {
            *candles = (*candles).min(if frame.ms() > HOUR { 3 } else { 250 });
        }
    });
    let draws: Draws = Rc::new(RefCell::new(ChaCha8Rng::seed_from_u64(SEED + life as u64)));
    let of = |task: TaskName| (life, task, i64::from(setup.settings.tasks[&task].timeout_seconds) * 1_000);
    let (ta, regime, trading) =
        (of(TaskName::TechnicalAnalysis), of(TaskName::RegimeDetection), of(TaskName::TradingDecision));
    let (seen, rng) = (runs.clone(), Rc::clone(&draws));
    setup.doubles.technical = Rc::new(move |run| mishap(&seen, &rng, ta, &run.ctx, |_| Reply::Pass(0)));
    let (seen, rng) = (runs.clone(), Rc::clone(&draws));
    setup.doubles.regime = Rc::new(move |run| mishap(&seen, &rng, regime, &run.ctx, |_| Reply::Pass(0)));
    let seen = runs.clone();
    setup.doubles.trading = Some(Rc::new(move |run| {
        mishap(&seen, &draws, trading, &run.ctx, |rng| {
            let action = [Action::Buy, Action::Buy, Action::Sell, Action::Hold][rng.random_range(0..4)];
            Reply::Now(signal(run, &Wish { entry_pct: rng.random_range(-0.5..0.1), ..Wish::new(action) }))
        })
    }));
    setup
}

/// Pauses now and then and leads the program back to RUNNING, as an operator does.
async fn operate(world: &World, key: String, rng: &mut ChaCha8Rng) {
    match world.is() {
        CoordinatorState::Running if rng.random_bool(0.3) => {
            world.order(&key, Command::Pause { reason: "a look".into() }).await;
        }
        CoordinatorState::Running => {}
        CoordinatorState::Paused => drop(world.operate(&key, Command::Resume {}).await),
        CoordinatorState::Halted => {
            let halt_id = world.state().coordinator.halt.clone().unwrap().id;
            drop(world.operate(&key, Command::Reset { halt_id }).await);
        }
    }
}

/// Kill after kill; every life as `(began, ended)`.
fn month(disk: &MemoryDisk, runs: &Runs) -> Vec<(Ts, Ts)> {
    let horizon = START.plus_ms(DAYS * 24 * HOUR);
    let (mut now, mut lives, mut rng) = (START, Vec::new(), ChaCha8Rng::seed_from_u64(SEED));
    while now < horizon {
        let life = lives.len();
        let length = rng.random_range(1..30) * HOUR + rng.random_range(0..60) * MINUTE;
        // Half of the kills hit the moment in which runs begin and end.
        let kill = if rng.random_bool(0.5) { rng.random_range(0..40) } else { rng.random_range(0..MINUTE) };
        let end = now.plus_ms(length).floor_to(MINUTE).plus_ms(kill);
        let rng = &mut rng;
        let span = setup(disk, now, life, runs).play(async |world| {
            let mut hour = 0;
            while world.now().plus_ms(HOUR) < end {
                world.pass(HOUR / 1_000).await;
                hour += 1;
                operate(world, format!("{life}-{hour}"), rng).await;
                world.stats().await;
                ledger::check_conservation(&world.state()).unwrap();
            }
            world.clock.sleep_until(end).await;
            (world.start, world.now())
        });
        lives.push(span);
        if rng.random_bool(0.5) {
            disk.killed();
        } else {
            disk.power_cut(rng);
        }
        let down = [0, rng.random_range(0..90_000), rng.random_range(0..3 * HOUR)][rng.random_range(0..3)];
        now = span.1.plus_ms(down);
    }
    lives
}

/// No key ever ran twice at a time, and no run id or money-relevant slot was used twice.
fn one_run_per_key(runs: &[Ran], records: &[Record]) {
    let mut held: BTreeMap<RunKey, &Ran> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for ran in runs {
        assert!(ids.insert(ran.run), "run {} began twice", ran.run);
        if let Some(before) = held.insert(ran.key, ran).filter(|before| before.life == ran.life) {
            assert!(ran.began >= before.until, "{} began at {} within {}", ran.key, ran.began, before.run);
        }
    }
    // A failed attempt is repeated; what a crash cut off is not.
    let mut claimed = BTreeMap::new();
    for record in records {
        if let Event::RunClaimed { marker } = &record.event
            && let SlotId::Grid(slot) = marker.slot
        {
            let before = claimed.insert((marker.key, slot), record.epoch).unwrap_or(record.epoch);
            assert_eq!(before, record.epoch, "{} ran slot {slot} in two lives", marker.key);
        }
    }
}

/// Every slot of the grid that came while the process lived was begun within a tick, unless its key was busy; and no
/// slot was begun early. Held by the task without dependencies, whose start is owed to nobody else.
fn cadence(runs: &[Ran], lives: &[(Ts, Ts)]) -> usize {
    let mut kept = 0;
    for (life, (began, ended)) in lives.iter().enumerate() {
        for (place, symbol) in [btc(), xrp()].into_iter().enumerate() {
            let key = RunKey { task: TaskName::TechnicalAnalysis, symbol };
            let of_key: Vec<&Ran> = runs.iter().filter(|ran| ran.life == life && ran.key == key).collect();
            let mut first_of: BTreeMap<i64, Ts> = BTreeMap::new();
            for ran in &of_key {
                if let SlotId::Grid(slot) = ran.slot {
                    first_of.entry(slot).or_insert(ran.began);
                }
            }
            let due = |slot: i64| Ts(slot * INTERVAL + 250 * place as i64);
            // A start catches up first.
            let (first, last) = ((began.0 + 10_000) / INTERVAL + 1, (ended.0 - 2 * TICK) / INTERVAL);
            for slot in first..=last {
                match first_of.get(&slot) {
                    Some(began) => {
                        let late = began.since_ms(due(slot));
                        assert!((0..=TICK).contains(&late), "{key} slot {slot} of life {life}: {late} ms late");
                        kept += 1;
                    }
                    None => {
                        let busy = of_key.iter().any(|ran| ran.began < due(slot) && ran.until >= due(slot));
                        assert!(busy, "{key} slot {slot} of life {life} was left out");
                    }
                }
            }
        }
    }
    kept
}

/// Every order is told by the journal alone: an entry by the signal of its decision with what it was decided on, an
/// exit by the position it closes and that by its entry, a leg by its plan. Number of entries, exits and legs.
fn traceable(records: &[Record], runs: &[Ran]) -> (usize, usize, usize) {
    let by_id: BTreeMap<RunId, &Ran> = runs.iter().map(|ran| (ran.run, ran)).collect();
    let mut signals: BTreeMap<DecisionId, &Signal> = BTreeMap::new();
    let mut entries = BTreeSet::new();
    let mut positions = BTreeSet::new();
    let mut legs = BTreeSet::new();
    let (mut exits, mut ordered) = (0, 0);
    for record in records {
        match &record.event {
            Event::SignalReceived { decision, signal, inputs } => {
                assert!(!inputs.is_empty(), "{decision} was decided on nothing");
                let own = by_id[&decision.0];
                assert_eq!((own.key.task, own.key.symbol), (TaskName::TradingDecision, signal.head.symbol));
                for input in [signal.ta_run, signal.regime_run] {
                    let input = input.unwrap_or_else(|| panic!("{decision} names no input"));
                    let of = by_id[&input];
                    assert!(of.key.symbol == signal.head.symbol && of.began <= own.began, "{decision}: {input}");
                }
                signals.insert(*decision, signal);
            }
            Event::PlanCreated { plan } => legs.extend(plan.legs.iter().map(|leg| leg.key)),
            Event::TradeIntent { trade } if trade.body.position.is_some() => {
                assert!(positions.contains(&trade.body.position.unwrap()), "{} closes nothing", trade.key);
                assert!(trade.body.exit_cause.is_some() || trade.decision.is_some(), "{} has no cause", trade.key);
                exits += 1;
            }
            Event::TradeIntent { trade } if trade.kind == TradeKind::Rebalance => {
                assert!(legs.contains(&trade.key), "leg {} belongs to no plan", trade.key);
                ordered += 1;
            }
            Event::TradeIntent { trade } => {
                let signal = trade.decision.and_then(|decision| signals.get(&decision));
                let signal = signal.unwrap_or_else(|| panic!("order {} follows no signal", trade.key));
                assert_eq!((signal.action, signal.head.symbol), (Action::Buy, trade.body.symbol));
                entries.insert(trade.key);
            }
            Event::PositionOpened { position } => {
                assert!(position.trades.iter().all(|key| entries.contains(key)), "{}", position.id);
                positions.insert(position.id);
            }
            _ => {}
        }
    }
    (entries.len(), exits, ordered)
}

/// No order that is not an exit leaves while not RUNNING. Number of stretches that were not.
fn no_entry_while_stopped(records: &[Record]) -> usize {
    let mut state = CoordinatorState::Running;
    let (mut reduces, mut stretches) = (BTreeMap::new(), 0);
    for record in records {
        match &record.event {
            Event::StateChanged { to, .. } => {
                stretches += usize::from(state == CoordinatorState::Running && *to != state);
                state = *to;
            }
            Event::TradeIntent { trade } => drop(reduces.insert(trade.key, trade.body.position.is_some())),
            Event::TradeSubmitting { trade_key, .. } => {
                let entry = !reduces[trade_key];
                assert!(
                    !entry || state == CoordinatorState::Running,
                    "record {}: an entry while {state:?}",
                    record.seq
                );
            }
            _ => {}
        }
    }
    stretches
}

#[test]
fn a194_a_month_of_failures_and_kills_keeps_every_promise() {
    let disk = MemoryDisk::default();
    let runs = Runs::default();
    println!("seed {SEED}");
    let lives = month(&disk, &runs);
    let mut records: Vec<Record> = Vec::new();
    let take = &mut |batch: &mut Vec<Record>| {
        records.append(batch);
        Ok(())
    };
    reader::read_in(&disk, Start::BEGINNING, take).unwrap();
    let runs = runs.0.take();
    one_run_per_key(&runs, &records);
    let kept = cadence(&runs, &lives);
    let (entries, exits, legs) = traceable(&records, &runs);
    let stretches = no_entry_while_stopped(&records);
    // Balances, locks and fees are added up once more by books that know nothing of the program's.
    let (mut oracle, mut state) = (Oracle::new(), State::default());
    for record in &records {
        oracle.observe(record).unwrap_or_else(|wrong| panic!("record {}: {wrong:?}", record.seq));
        state.apply(record).unwrap();
        if oracle.is_between_batches() && oracle.money_moved() {
            oracle.compare(&state).unwrap_or_else(|wrong| panic!("after record {}: {wrong:?}", record.seq));
            ledger::check_conservation(&state).unwrap();
        }
    }
    let quarantined = records.iter().filter(|record| record.event.kind() == "Quarantined").count();
    println!(
        "{DAYS} days, {} lives, {} runs, {kept} slots, {} records, {entries} entries, {exits} exits, {legs} legs, \
         {stretches} stretches not RUNNING, {quarantined} quarantines",
        lives.len(),
        runs.len(),
        records.len()
    );
    assert_eq!(quarantined, 0, "one failure in twenty is no reason");
    assert!(lives.len() > 2 && kept > 1_000 && entries > 0 && exits > 0 && stretches > 0, "nothing was tried");
}
