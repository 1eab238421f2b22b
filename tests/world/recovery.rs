//! Starting again: after a clean stop, and after the process was dropped in the middle.

use std::{cell::Cell, rc::Rc};

use crate::support::*;

const TA: TaskName = TaskName::TechnicalAnalysis;
const REGIME: TaskName = TaskName::RegimeDetection;
const TRADING: TaskName = TaskName::TradingDecision;

pub fn lines(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("journal")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect::<String>()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn recovered_runs(folder: &std::path::Path) -> Vec<RecoveredRun> {
    let mut found = Vec::new();
    for line in lines(folder) {
        if let Some(start) = line.find("{\"runs\":")
            && line.contains("InFlightRecovered")
        {
            let mut values = serde_json::Deserializer::from_str(&line[start..]).into_iter::<serde_json::Value>();
            let data = values.next().unwrap().unwrap();
            found.extend(serde_json::from_value::<Vec<RecoveredRun>>(data["runs"].clone()).unwrap());
        }
    }
    found
}

#[test]
fn a022_after_three_hours_down_analysis_runs_at_once_and_decisions_wait_for_their_hour() {
    let folder = tempfile::tempdir().unwrap();
    Setup::new().durable(folder.path()).play(async |world| world.until(150).await);
    // 12:00 + 3 h 40 min.
    let start = START.plus_ms((120 + 3 * 3_600 + 2_400) * 1_000);
    Setup::new().durable(folder.path()).at(start).play(async |world| {
        world.until(20 * 60 + 30).await;
        for symbol in [btc(), xrp()] {
            assert!(world.seen.of(TA, symbol)[0] <= 1_000);
            assert!(world.seen.of(REGIME, symbol)[0] <= 3_000);
            let trading = world.seen.seconds(TRADING, symbol);
            assert_eq!(trading.len(), 1);
            assert!((1_200..=1_203).contains(&trading[0]), "{trading:?}");
        }
    });
    let lines = lines(folder.path());
    for key in ["trading_decision BTC/USDT", "technical_analysis XRP/USDT"] {
        let told = lines.iter().filter(|line| line.contains("\"missed\"") && line.contains(key)).count();
        assert_eq!(told, 1, "{key}");
    }
}

#[test]
fn a023_a_slot_missed_by_four_minutes_is_run_once() {
    let folder = tempfile::tempdir().unwrap();
    Setup::new().at(START.plus_ms(-60_000)).durable(folder.path()).play(async |world| world.until(30).await);
    Setup::new().durable(folder.path()).at(START.plus_ms(360_000)).play(async |world| {
        world.until(300).await;
        assert_eq!(world.seen.of(TRADING, btc()).len(), 1, "{}", world.timeline());
        assert!(world.seen.of(TRADING, btc())[0] <= 10_000);
    });
}

fn crash_during_trading(folder: &std::path::Path) {
    let mut setup = Setup::new().durable(folder);
    setup.doubles.trading = Some(Rc::new(|_| Reply::Hang));
    setup.play(async |world| {
        world.until(150).await;
        assert_eq!(world.seen.of(TRADING, btc()).len(), 1);
    });
}

#[test]
fn a024_a135_a_claimed_decision_slot_is_not_run_again_and_the_next_one_is() {
    let folder = tempfile::tempdir().unwrap();
    crash_during_trading(folder.path());
    Setup::new().durable(folder.path()).at(START.plus_ms(180_000)).play(async |world| {
        world.until(600).await;
        assert!(world.seen.of(TRADING, btc()).is_empty(), "{}", world.timeline());
        world.until(3_600).await;
        assert_eq!(world.seen.of(TRADING, btc()).len(), 1);
    });
    let runs = recovered_runs(folder.path());
    assert_eq!(runs.iter().filter(|run| run.marker.key.task == TRADING && run.policy == "skip").count(), 3, "{runs:?}");
}

#[test]
fn a134_a_crash_during_analysis_is_found_and_the_slot_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::new().durable(folder.path());
    setup.doubles.technical = Rc::new(|run| {
        let second = run.ctx.started_at.since_ms(START) > 55_000;
        if second && run.ctx.symbol == btc() { Reply::Hang } else { Reply::Now(ta(&run.ctx, Bias::Long)) }
    });
    let slot = setup.play(async |world| {
        world.until(70).await;
        let starts = world.seen.starts.borrow();
        starts.iter().rfind(|start| start.task == TA && start.ctx.symbol == btc()).unwrap().ctx.slot.clone()
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(75_000)).play(async |world| {
        world.until(2).await;
        assert_eq!(world.system.recovered.interrupted_runs, 1);
        let first = world.seen.starts.borrow().iter().find(|s| s.task == TA && s.ctx.symbol == btc()).unwrap().clone();
        assert_eq!(first.ctx.slot, slot);
        assert!(first.ctx.started_at.since_ms(world.start) <= 1_000);
        world.until(10).await;
    });
    let runs = recovered_runs(folder.path());
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].marker.key, RunKey { task: TA, symbol: btc() });
    Setup::new().durable(folder.path()).at(START.plus_ms(90_000)).play(async |world| {
        assert_eq!(world.system.recovered.interrupted_runs, 0, "the marker is gone");
    });
}

#[test]
fn a136_a_slot_that_crashed_three_times_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let mut setup = Setup::new().durable(folder.path()).at(START.plus_ms(life * 5_000));
        setup.doubles.technical =
            Rc::new(|run| if run.ctx.symbol == btc() { Reply::Hang } else { Reply::Now(ta(&run.ctx, Bias::Long)) });
        setup.play(async |world| world.until(3).await);
    }
    Setup::new().durable(folder.path()).at(START.plus_ms(16_000)).play(async |world| {
        world.until(5).await;
        let key = RunKey { task: TA, symbol: btc() };
        let entry = world.state().coordinator.quarantine.get(&key).cloned();
        assert!(entry.is_some(), "{}", world.timeline());
        assert!(world.seen.of(TA, btc()).is_empty());
        assert!(!world.seen.of(TA, xrp()).is_empty() || world.seen.of(REGIME, xrp()).len() <= 1);
    });
    assert!(recovered_runs(folder.path()).iter().any(|run| run.policy == "poison"));
}

/// Five failed slots in a row, a probe, and another one, each in a life of its own that ends by a kill.
#[test]
fn a_restart_is_no_amnesty_for_a_failing_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = RunKey { task: TA, symbol: btc() };
    // The quarantines of a life between two seconds of the scenario, as minutes from their start to their end.
    let life = |from: i64, to: i64| {
        let mut setup = Setup::new().durable(folder.path()).at(START.plus_ms(from * 1_000));
        setup.doubles.technical = Rc::new(|run| match run.ctx.symbol == btc() {
            true => Reply::Now(failed()),
            false => Reply::Now(ta(&run.ctx, Bias::Long)),
        });
        setup.play(async |world| {
            world.until(to - from).await;
            let records = world.records();
            let minutes = records.iter().filter_map(|record| match &record.event {
                Event::Quarantined { key: out, until: Some(until), .. } if *out == key => {
                    Some(until.since_ms(record.ts) / 60_000)
                }
                _ => None,
            });
            minutes.collect::<Vec<_>>()
        })
    };
    assert_eq!(life(0, 175), Vec::<i64>::new(), "three slots failed");
    assert_eq!(life(180, 295), [5], "and two more");
    assert_eq!(life(400, 620), [10], "the probe failed");
    assert_eq!(life(1_000, 1_300), [20], "and the next one");
}

#[test]
fn a117_a_clean_stop_leaves_nothing_to_recover() {
    let folder = tempfile::tempdir().unwrap();
    let before = Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        world.order("p", Command::Pause { reason: String::new() }).await;
        world.stop().await;
        let state = world.state();
        (state.account.clone(), state.positions.clone(), state.coordinator.clone())
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(160_000)).play(async |world| {
        assert!(world.system.recovered.clean);
        assert_eq!(world.system.recovered.interrupted_runs, 0);
        let state = world.state();
        assert_eq!((state.account.clone(), state.positions.clone(), state.coordinator.clone()), before);
    });
    assert!(recovered_runs(folder.path()).is_empty());
}

#[test]
fn a148_the_same_slot_twice_makes_one_trade() {
    let mut setup = Setup::new();
    let slots: Rc<Cell<u32>> = Rc::default();
    let calls = Rc::clone(&slots);
    // The agent names the same slot for a forced run as for the grid's.
    setup.doubles.trading = Some(Rc::new(move |run| {
        if run.ctx.symbol != btc() {
            return Reply::Now(signal(run, &Wish::new(Action::Hold)));
        }
        calls.set(calls.get() + 1);
        let mut answer = signal(run, &Wish { entry_pct: -1.0, ..Wish::buy() });
        if let triplegain::agents::contract::Answer::Output(signal) = &mut answer {
            signal.head.slot = SlotId::Grid(1);
        }
        Reply::Now(answer)
    }));
    setup.play(async |world| {
        world.until(150).await;
        assert_eq!(world.count("TradeIntent"), 1, "{}", world.timeline());
        world.until(185).await;
        world.order("f", Command::RunTask { task: TRADING.to_string(), symbol: "BTC/USDT".into() }).await;
        world.until(300).await;
        assert_eq!(slots.get(), 2);
        assert_eq!(world.count("TradeIntent"), 1, "{}", world.timeline());
        assert_eq!(world.state().totals.orders, 1);
    });
}

/// What was accepted a moment before the end was perhaps never heard: the next start says it again, once, marked.
#[test]
fn k06_k25_what_was_durable_and_perhaps_untold_is_published_again_once_by_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let (run, trade) = Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until_ms(120_700).await;
        let signals = world.all(|event| match event {
            Event::SignalReceived { signal, .. } if signal.head.symbol == btc() => Some(signal.head.run_id),
            _ => None,
        });
        let settled = world.all(|event| match event {
            Event::TradeSettled { trade_key } | Event::TradeAcked { trade_key, .. } => Some(*trade_key),
            _ => None,
        });
        (signals[0], settled[0])
    });
    let said = |shown: &[std::sync::Arc<Envelope>], text: &str| -> Vec<String> {
        let about = shown.iter().filter(|said| format!("{:?}", said.payload()).contains(text));
        about.map(|said| said.source().to_owned()).collect()
    };
    let again = |world: &World| world.system.recovered.announced_again;
    Setup::new().durable(folder.path()).at(START.plus_ms(121_000)).play(async |world| {
        assert!(again(world) > 0);
        let signals = world.on_bus(Topic::TradingSignals).await;
        let runs: Vec<RunId> = signals
            .iter()
            .filter_map(|said| match said.payload() {
                Payload::Signal(signal) => Some(signal.head.run_id),
                _ => None,
            })
            .filter(|seen| *seen == run)
            .collect();
        assert_eq!(runs, [run], "once");
        assert_eq!(signals[0].source(), "boot", "marked");
        let orders = world.on_bus(Topic::ExecutionEvents).await;
        assert!(said(&orders, &format!("{trade:?}")).iter().all(|source| source == "boot"));
        assert!(!said(&orders, &format!("{trade:?}")).is_empty());
        world.until(10).await;
        world.stop().await;
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(140_000)).play(async |world| {
        assert_eq!(again(world), 0, "after a clean stop everything was said");
        assert!(world.on_bus(Topic::TradingSignals).await.is_empty());
    });
}
