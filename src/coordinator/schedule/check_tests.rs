//! What [`Scheduler::check`] finds: every count it looks at, wrong by one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

use super::{key::Phase, *};
use crate::{
    model::{
        RunOutcome,
        time::{HOUR_MS, MINUTE_MS},
    },
    settings::{Sources, load},
};

const START: Ts = Ts(1_767_571_200_000);

/// Three hours of the shipped tasks, one after another and all with one provider: runs that ended, one under way, others in the
/// queue, and slots nobody saw.
fn busy() -> Scheduler {
    let settings = load(&Sources { file: None, env: Vec::new(), overrides: Vec::new() }).unwrap().settings;
    let mut limits = settings.scheduler.clone();
    (limits.max_concurrent_runs, limits.reserved_safety_slots, limits.max_per_provider) = (1, 0, 1);
    let providers = TaskName::ALL.into_iter().map(|task| (task, BTreeSet::from(["p".to_owned()]))).collect();
    let setup = Setup {
        scheduler: &limits,
        tasks: &settings.tasks,
        providers: &providers,
        quarantine: &settings.quarantine,
        analysis_while_halted: true,
        symbols: &settings.symbols,
        seed: 1,
        epoch: 1,
        generation: Generation::default(),
    };
    let mut scheduler = Scheduler::new(&setup, START).unwrap();
    let mut effects = Vec::new();
    for now in [1, 2, 3, 4, 5, 170, 171, 172, 173, 174].map(|minute| START.plus_ms(minute * MINUTE_MS)) {
        scheduler.step(now, Input::Tick, &mut effects);
        while let Some(effect) = effects.pop() {
            if let Effect::Start(run) = effect {
                let report = RunReport { id: run.id, run_id: run.run_id, outcome: RunOutcome::Succeeded, as_of: now };
                scheduler.step(now, Input::Finished(report), &mut effects);
            }
        }
    }
    // Nobody answers any more: what starts now goes on.
    scheduler.step(START.plus_ms(3 * HOUR_MS), Input::Tick, &mut effects);
    scheduler
}

#[test]
fn every_count_that_is_wrong_by_one_is_found() {
    type Break = fn(&mut Scheduler, usize);
    let sound = busy();
    assert_eq!(sound.check(), Ok(()));
    let place = |of: &dyn Fn(&Key) -> bool| sound.keys.iter().position(of).unwrap();
    let running = place(&|key| key.phase == Phase::Running && key.work.asks);
    let missed = place(&|key| key.counts.missed > 0 && key.counts.claimed > 0 && key.counts.succeeded > 0);
    assert!(sound.queued > 0 && sound.general_used == 1, "{} queued", sound.queued);
    let breaks: [(&str, usize, Break); 17] = [
        ("slots elapsed", missed, |s, key| s.keys[key].last_slot += 1),
        ("slots elapsed", missed, |s, key| s.keys[key].base_slot += 1),
        ("slots elapsed", missed, |s, key| s.keys[key].counts.claimed += 1),
        ("slots elapsed", missed, |s, key| s.keys[key].counts.missed -= 1),
        ("runs started", missed, |s, key| s.keys[key].counts.started += 1),
        ("runs started", missed, |s, key| s.keys[key].counts.succeeded -= 1),
        ("runs started", running, |s, key| s.keys[key].counts.started -= 1),
        ("armed for", missed, |s, key| s.keys[key].armed = s.keys[key].armed.plus_ms(1)),
        ("1 counted, limit 0", running, |s, key| s.tasks[s.keys[key].task].max_parallel = 0),
        ("1 runs hold permits, 2 counted", running, |s, key| s.tasks[s.keys[key].task].running += 1),
        ("runs may ask each provider", running, |s, _| s.provider_used[0] += 1),
        ("runs may ask each provider", running, |s, _| s.limits.per_provider = 0),
        ("but 2 general and 0 reserved", running, |s, _| s.general_used += 1),
        ("but 1 general and 1 reserved", running, |s, _| s.reserved_used += 1),
        ("but 1 general and 0 reserved", running, |s, _| s.limits.general = 0),
        ("but 0 general and 1 reserved", running, |s, _| (s.general_used, s.reserved_used) = (0, 1)),
        ("keys are queued", running, |s, _| s.queued += 1),
    ];
    for (number, (words, key, breaks)) in breaks.into_iter().enumerate() {
        let mut broken = busy();
        breaks(&mut broken, key);
        let found = broken.check().unwrap_err();
        assert!(found.contains(words), "break {number}: {found}");
    }
    // At its limits everything is sound.
    let mut full = busy();
    full.limits.per_provider = 1;
    full.tasks[full.keys[running].task].max_parallel = 1;
    assert_eq!(full.check(), Ok(()));
    (full.general_used, full.reserved_used, full.limits.general, full.limits.reserved) = (0, 1, 0, 1);
    assert_eq!(full.check(), Ok(()));
}

#[test]
fn the_gauges_of_a_key_are_what_it_does() {
    let sound = busy();
    let stats = sound.stats();
    assert_eq!((stats.running, stats.queued), (1, sound.queued));
    for (held, shown) in sound.keys.iter().zip(&stats.keys) {
        assert_eq!(shown.running, held.phase == Phase::Running, "{}", shown.key);
        assert_eq!(shown.queued, held.phase == Phase::Queued, "{}", shown.key);
        assert_eq!(shown.next_due, (held.next_due < NEVER).then_some(held.next_due), "{}", shown.key);
        assert_eq!(shown.starvation_ms, sound.now.0 - held.alive_at.0, "{}", shown.key);
    }
    let waits = sound.keys.iter().filter(|held| held.phase == Phase::Queued).map(|held| held.work.queued_at);
    assert_eq!(stats.oldest_wait_ms, sound.now.0 - waits.min().unwrap().0);
    let claimed: u64 = sound.keys.iter().map(|held| held.counts.claimed).sum();
    assert!(claimed > 0 && stats.sums.claimed == claimed);
}
