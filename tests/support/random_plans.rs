//! Random plans, agents and operators: the invariants hold after every step, and jumping to the next wake-up gives the
//! same effects as looking every 100 ms. Prints its seed on failure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triplegain::{coordinator::schedule::*, model::*, settings::sections::OnStale};

use crate::timeline::{DAY, Plan, symbol};

/// What a run does, drawn from its identity alone, so that two drivers see the same world.
fn fate(seed: u64, request: &RunRequest, hang_pct: u32) -> Option<(i64, RunOutcome)> {
    let place = request.key.symbol.to_string().bytes().map(u64::from).sum::<u64>();
    let at = request.started_at.0 as u64;
    let mut rng =
        ChaCha8Rng::seed_from_u64(seed ^ at.wrapping_mul(31) ^ (place << 32) ^ ((request.key.task as u64) << 50));
    if rng.random_range(0..100) < hang_pct {
        return None;
    }
    let takes = if rng.random_bool(0.7) { rng.random_range(0..2_000) } else { rng.random_range(0..40_000) };
    let cause = |class| RunOutcome::Failed(FailCause { class, message: String::new() });
    let outcome = match rng.random_range(0..10) {
        0 => cause(FailClass::Transient),
        1 => cause(FailClass::Validation),
        2 => RunOutcome::Abstained(String::new()),
        _ => RunOutcome::Succeeded,
    };
    Some((takes, outcome))
}

fn random_plan(rng: &mut ChaCha8Rng) -> Plan {
    let mut plan = Plan { seed: rng.random(), ..Plan::default() };
    let count = rng.random_range(1..8);
    plan.symbols = (0..count).map(|i| symbol(&format!("S{i}/USDT"))).collect();
    plan.scheduler.max_concurrent_runs = rng.random_range(1..8);
    plan.scheduler.spread_ms = [0, 100, 250][rng.random_range(0..3)];
    plan.scheduler.ageing_seconds = rng.random_range(5..40);
    plan.scheduler.max_per_provider = rng.random_range(1..4);
    for task in TaskName::ALL {
        let asked = ["a", "b"].into_iter().filter(|_| rng.random_bool(0.3)).map(str::to_owned);
        plan.providers.insert(task, asked.collect());
    }
    for (name, task) in &mut plan.tasks {
        let interval = [10, 30, 60, 300][rng.random_range(0..4)];
        let interval = if *name == TaskName::TradingDecision { interval * 4 } else { interval };
        task.interval_seconds = interval;
        task.timeout_seconds = rng.random_range(1..interval.min(60));
        task.snapshot_timeout_seconds = 0;
        task.max_parallel = rng.random_range(1..5);
        task.catch_up_seconds = rng.random_range(0..=interval);
        task.start_deadline_seconds = rng.random_range(1..=interval);
        task.on_stale = [OnStale::Skip, OnStale::RunStale, OnStale::Fail][rng.random_range(0..3)];
        if *name == TaskName::SentimentAnalysis {
            task.enabled = rng.random_bool(0.5);
        }
        for dependency in &mut task.depends_on {
            dependency.max_age_seconds = if rng.random_bool(0.5) { 0 } else { rng.random_range(20..600) };
            dependency.require_new = rng.random_bool(0.5);
        }
    }
    plan
}

#[derive(Default)]
struct Witness {
    running: BTreeMap<RunKey, RunId>,
    claimed: BTreeSet<(RunKey, i64)>,
    lines: Vec<String>,
}

impl Witness {
    fn see(&mut self, now: Ts, effect: &Effect) {
        self.lines.push(format!("{} {effect:?}", now.0));
        match effect {
            Effect::Start(request) => {
                let other = self.running.insert(request.key, request.run_id);
                assert_eq!(other, None, "{} runs twice", request.key);
                if let (SlotId::Grid(n), 1) = (&request.slot, request.attempt) {
                    assert!(self.claimed.insert((request.key, *n)), "{} slot {n} claimed twice", request.key);
                }
            }
            Effect::Ended { key, run_id, .. } => assert_eq!(self.running.remove(key), Some(*run_id)),
            _ => {}
        }
    }
}

/// Plays an hour; with `fine` it also looks every 100 ms.
fn play(seed: u64, fine: bool) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let plan = random_plan(&mut rng);
    let hang_pct = rng.random_range(0..25);
    let start = DAY.plus_ms(rng.random_range(0..3_600_000));
    let until = start.plus_ms(3_600_000);
    let mut stimuli: BTreeMap<(Ts, u64), Input> = BTreeMap::new();
    for number in 0..20_u64 {
        let at = start.plus_ms(rng.random_range(0..3_600_000));
        let input = match rng.random_range(0..4) {
            0 => Input::Force {
                command_id: format!("c{number}"),
                task: TaskName::ALL[rng.random_range(0..5)].name().into(),
                symbol: "S0/USDT".into(),
            },
            1 => Input::Gates(Gates {
                state: [CoordinatorState::Running, CoordinatorState::Paused, CoordinatorState::Halted]
                    [rng.random_range(0..3)],
                level: [DegradationLevel::Normal, DegradationLevel::Reduced][rng.random_range(0..2)],
                unpaid: TaskName::ALL.into_iter().filter(|_| rng.random_bool(0.2)).collect(),
            }),
            2 => Input::Switch {
                task: TaskName::SentimentAnalysis,
                enabled: [None, Some(true), Some(false)][rng.random_range(0..3)],
            },
            _ => Input::Gates(Gates::default()),
        };
        stimuli.insert((at, number), input);
    }
    let mut next = 1_000_u64;
    let mut scheduler = plan.build(start).unwrap();
    let mut witness = Witness::default();
    let (mut effects, mut now, mut input) = (vec![], start, Input::Tick);
    let mut fine_at = start;
    while now <= until {
        scheduler.step(now, input, &mut effects);
        scheduler.check().unwrap_or_else(|e| panic!("seed {seed} at {now}: {e}"));
        for effect in effects.drain(..) {
            witness.see(now, &effect);
            if let Effect::Start(request) = &effect
                && let Some((takes, outcome)) = fate(seed, request, hang_pct)
            {
                let report = RunReport { id: request.id, run_id: request.run_id, outcome, as_of: now };
                next += 1;
                stimuli.insert((now.plus_ms(takes), next), Input::Finished(report));
            }
        }
        let wakeup = scheduler.next_wakeup().unwrap_or(Ts(i64::MAX)).max(now);
        if fine && now >= fine_at {
            fine_at = fine_at.plus_ms(100);
        }
        let tick = if fine { wakeup.min(fine_at) } else { wakeup };
        input = match stimuli.first_entry().filter(|first| first.key().0 <= tick) {
            Some(first) => {
                now = first.key().0.max(now);
                first.remove()
            }
            None => {
                now = tick;
                Input::Tick
            }
        };
    }
    witness.lines
}

#[test]
fn random_plans_keep_the_invariants_and_wakeups_miss_nothing() {
    let first: u64 = std::env::var("SCHEDULER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + 60 {
        println!("seed {seed}");
        let jumping = play(seed, false);
        assert!(jumping.len() > 20, "seed {seed} does nothing");
        if seed % 4 == 0 {
            let fine = play(seed, true);
            for (a, b) in jumping.iter().zip(&fine) {
                assert_eq!(a, b, "seed {seed}");
            }
            assert_eq!(jumping.len(), fine.len(), "seed {seed}");
        }
    }
}

#[test]
fn a031_waits_are_bounded_although_a_third_of_the_runs_hang() {
    let symbols = (0..50).map(|i| symbol(&format!("S{i}/USDT"))).collect();
    let mut plan = Plan { symbols, ..Plan::default() };
    plan.tasks.retain(|name, _| *name == TaskName::TechnicalAnalysis);
    plan.scheduler.retry.max_attempts = 1;
    plan.quarantine.consecutive = 1_000_000;
    plan.quarantine.failures_of_20 = 21;
    let ta = plan.task(TaskName::TechnicalAnalysis);
    (ta.interval_seconds, ta.catch_up_seconds, ta.start_deadline_seconds, ta.max_parallel) = (600, 600, 600, 50);
    let timeout = i64::from(ta.timeout_seconds) + i64::from(plan.scheduler.cancel_grace_seconds);
    let bound_ms = (30 * (3 - 1) + 10 * timeout) * 1_000;
    let mut scheduler = plan.build(DAY).unwrap();
    let (mut now, mut input, mut effects) = (DAY, Input::Tick, vec![]);
    let mut due: BTreeMap<(Ts, u64), Input> = BTreeMap::new();
    let (mut worst, mut worst_safety, mut number) = (0, 0, 0_u64);
    let mut asked: HashMap<String, Ts> = HashMap::new();
    for hour in 0..24 * 6 {
        let id = format!("f{hour}");
        let at = DAY.plus_ms(hour * 600_000 + 137_000);
        let force = Input::Force {
            command_id: id.clone(),
            task: "technical_analysis".into(),
            symbol: format!("S{}/USDT", hour % 50),
        };
        asked.insert(id, at);
        due.insert((at, number), force);
        number += 1;
    }
    while now < DAY.plus_ms(86_400_000) {
        scheduler.step(now, input, &mut effects);
        scheduler.check().unwrap();
        for effect in effects.drain(..) {
            let Effect::Start(request) = &effect else { continue };
            let wait = now.since_ms(request.due);
            match &request.slot {
                SlotId::Manual(id) => worst_safety = worst_safety.max(now.since_ms(asked[id])),
                _ => worst = worst.max(wait),
            }
            let safety = request.class == 0;
            if safety || fate(31, request, 30).is_some() {
                number += 1;
                let takes = if safety { 500 } else { 2_000 };
                let report =
                    RunReport { id: request.id, run_id: request.run_id, outcome: RunOutcome::Succeeded, as_of: now };
                due.insert((now.plus_ms(takes), number), Input::Finished(report));
            }
        }
        let wakeup = scheduler.next_wakeup().unwrap();
        input = match due.first_entry().filter(|first| first.key().0 <= wakeup) {
            Some(first) => {
                now = first.key().0.max(now);
                first.remove()
            }
            None => {
                now = wakeup.max(now);
                Input::Tick
            }
        };
    }
    assert!(worst <= bound_ms, "waited {worst} ms, bound {bound_ms} ms");
    assert!(worst > 30_000, "the test must load the queue, worst wait {worst} ms");
    assert!(worst_safety <= 1_000, "class 0 waited {worst_safety} ms");
}

#[test]
fn a034_a035_a_forward_jump_runs_each_key_once_and_a_backward_one_repeats_nothing() {
    let plan = Plan::default();
    let mut scheduler = plan.build(DAY).unwrap();
    let mut effects = vec![];
    let starts = |effects: &mut Vec<Effect>| -> Vec<RunRequest> {
        effects.drain(..).filter_map(|e| if let Effect::Start(r) = e { Some(r) } else { None }).collect()
    };
    let mut seen = BTreeSet::new();
    for second in (0..600).chain(7_830..8_400).chain(4_800..6_000) {
        let now = DAY.plus_ms(second * 1_000);
        scheduler.step(now, Input::Tick, &mut effects);
        let mut begun = starts(&mut effects);
        if second == 7_830 {
            let per_task = begun.iter().filter(|r| r.key.task == TaskName::TechnicalAnalysis).count();
            assert_eq!(per_task, 3, "one catch-up run per key");
        }
        while let Some(request) = begun.pop() {
            assert!(seen.insert((request.key, request.slot.clone())), "{} {} repeated", request.key, request.slot);
            assert!(!(4_800..7_830).contains(&second), "logical time ran backwards");
            let report =
                RunReport { id: request.id, run_id: request.run_id, outcome: RunOutcome::Succeeded, as_of: now };
            scheduler.step(now, Input::Finished(report), &mut effects);
            begun.extend(starts(&mut effects));
        }
        scheduler.check().unwrap();
    }
}
