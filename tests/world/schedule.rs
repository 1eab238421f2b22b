//! The scheduler with its actors.

use std::{cell::Cell, rc::Rc};

use crate::support::*;

const TA: TaskName = TaskName::TechnicalAnalysis;
const REGIME: TaskName = TaskName::RegimeDetection;
const TRADING: TaskName = TaskName::TradingDecision;

/// 2026-01-07 11:10:00.
const TEN_PAST: Ts = Ts(START.0 - 48 * 60_000);

/// Only the technical analyst: nobody else asks for its runs.
fn analyst_alone() -> Setup {
    Setup::new().with(|s| {
        for (task, settings) in &mut s.tasks {
            settings.enabled = *task == TA;
        }
    })
}

#[test]
fn a001_cold_start() {
    let setup =
        Setup::new().at(TEN_PAST).with(|s| s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true);
    setup.play(async |world| {
        world.until(3_050).await;
        for symbol in world.settings.symbols.clone() {
            let starts = world.seen.seconds(TA, symbol);
            assert_eq!(starts[..3], [0, 60, 120], "{symbol}");
            let regimes = world.seen.seconds(REGIME, symbol);
            assert!(regimes[0] <= 2 && (300..=302).contains(&regimes[1]), "{symbol}: {regimes:?}");
            let trading = world.seen.seconds(TRADING, symbol);
            assert_eq!(trading.len(), 1, "{symbol}: {trading:?}");
            assert!((3_000..=3_003).contains(&trading[0]), "{symbol}: {trading:?}");
        }
        let portfolio = world.seen.seconds(TaskName::PortfolioRebalance, Symbol::PORTFOLIO);
        assert_eq!(portfolio, [3_000]);
    });
}

#[test]
fn a003_a004_a_hanging_key_stays_alone_and_is_never_run_twice_at_once() {
    let mut setup = analyst_alone();
    let under_way = Rc::new(Cell::new(0));
    setup.doubles.technical = Rc::new(move |run| {
        if run.ctx.symbol == btc() {
            under_way.set(under_way.get() + 1);
            return Reply::Hang;
        }
        Reply::Now(ta(&run.ctx, Bias::Long))
    });
    setup.play(async |world| {
        world.until(425).await;
        let xrp_starts: Vec<i64> = world.seen.of(TA, xrp()).iter().map(|ms| ms / 60_000 * 60).collect();
        assert_eq!(xrp_starts, [0, 60, 120, 180, 240, 300, 360, 420]);
        let cross: Vec<i64> = world.seen.of(TA, sym("XRP/BTC")).iter().map(|ms| ms / 60_000 * 60).collect();
        assert_eq!(cross, xrp_starts);
        let starts = world.seen.of(TA, btc());
        // A run is given up after 30 s; no two of the key are closer than that.
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 30_000), "{starts:?}");
        let stats = world.stats().await.stats;
        let key = stats.keys.iter().find(|k| k.key == RunKey { task: TA, symbol: btc() }).unwrap();
        assert_eq!(key.counts.timed_out, starts.len() as u64 - u64::from(key.running));
        // Each that ignores its end is counted until it is given up for good, a minute later.
        assert!((1..=3).contains(&stats.abandoned), "{}", stats.abandoned);
    });
}

#[test]
fn a003_a_slot_that_falls_into_a_long_forced_run_is_skipped_and_counted_once() {
    let mut setup = analyst_alone().with(|s| s.tasks.get_mut(&TA).unwrap().timeout_seconds = 55);
    setup.doubles.technical = Rc::new(|run| {
        let takes_ms = if matches!(run.ctx.slot, SlotId::Manual(_)) { 50_000 } else { 100 };
        Reply::After(takes_ms, ta(&run.ctx, Bias::Long))
    });
    setup.play(async |world| {
        world.until(30).await;
        let skipped = async || {
            let stats = world.stats().await.stats;
            let key = stats.keys.iter().find(|k| k.key == RunKey { task: TA, symbol: btc() }).cloned().unwrap();
            (stats.skipped(SkipReason::Running), key.counts.skipped)
        };
        assert_eq!(skipped().await, (0, 0));
        world.order("f", Command::RunTask { task: TA.name().into(), symbol: btc().to_string() }).await;
        world.until(79).await;
        assert_eq!(skipped().await, (1, 1), "slot 60 while the forced run lasts");
        world.until(130).await;
        assert_eq!(world.seen.seconds(TA, btc()), [0, 30, 120]);
        assert_eq!(world.seen.seconds(TA, xrp()), [0, 60, 120]);
        assert_eq!(skipped().await, (1, 1));
    });
}

#[test]
fn a007_a_hanging_agent_is_timed_out_at_30_s_and_its_late_answer_discarded() {
    let mut setup = analyst_alone();
    let first = Cell::new(true);
    setup.doubles.technical = Rc::new(move |run| {
        if run.ctx.symbol == btc() && first.replace(false) {
            return Reply::After(40_000, ta(&run.ctx, Bias::Short));
        }
        Reply::Now(ta(&run.ctx, Bias::Long))
    });
    setup.play(async |world| {
        world.until_ms(29_900).await;
        assert_eq!(world.notes("task_error").len(), 0);
        world.until_ms(30_100).await;
        let errors = world.notes("task_error");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0]["cause"].contains("run"), "{errors:?}");
        world.until(35).await;
        assert_eq!(world.stats().await.stats.running, 0);
        world.until(45).await;
        let task = |status: &Status| status.tasks.iter().find(|t| t.task == TA && t.symbol == btc()).cloned().unwrap();
        // The retry succeeded in between; what arrived after 40 s changed nothing.
        let success = task(&world.status().await).last_success_at.unwrap();
        assert!(success < world.start.plus_ms(40_000), "{success}");
        let stats = world.stats().await.stats;
        assert_eq!((stats.totals.late_results, stats.sums.timed_out), (1, 1));
        assert_eq!(stats.abandoned, 0, "heard of again");
    });
}

#[test]
fn a008_a_market_that_does_not_answer_ends_the_run_at_15_s() {
    let mut setup = Setup::new();
    let silent = Cell::new(true);
    setup.doubles.market =
        Some(Rc::new(
            move |read| {
                if read.symbol == btc() && silent.replace(false) { Reply::Hang } else { Reply::Pass(0) }
            },
        ));
    setup.play(async |world| {
        world.until_ms(14_900).await;
        assert!(world.notes("task_error").is_empty());
        world.until_ms(15_200).await;
        let errors = world.notes("task_error");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0]["cause"].contains("snapshot"), "{errors:?}");
    });
}

#[test]
fn a009_a_failed_input_blocks_only_its_symbol() {
    let mut setup = Setup::new();
    setup.doubles.technical =
        Rc::new(|run| Reply::Now(if run.ctx.symbol == btc() { failed() } else { ta(&run.ctx, Bias::Long) }));
    setup.play(async |world| {
        world.until(420).await;
        assert!(world.seen.of(TRADING, btc()).is_empty());
        assert_eq!(world.seen.of(TRADING, xrp()).len(), 1);
        let status = world.status().await;
        let row = status.tasks.iter().find(|t| t.task == TRADING && t.symbol == btc()).unwrap();
        let reason = row.last_skip_reason.as_deref().unwrap();
        assert!(matches!(reason, "dep_stale" | "dep_never_ran" | "dep_unavailable"), "{reason}");
    });
}

#[test]
fn a010_trading_gets_exactly_the_outputs_of_its_instant() {
    let mut setup = Setup::new();
    setup.doubles.technical = Rc::new(|run| Reply::After(700, ta(&run.ctx, Bias::Long)));
    setup.doubles.regime = Rc::new(|run| Reply::After(900, regime(&run.ctx, Regime::TrendingBull)));
    setup.play(async |world| {
        world.until(150).await;
        for symbol in world.settings.symbols.clone() {
            let starts = world.seen.starts.borrow();
            let find = |task: TaskName| {
                let mut runs = starts.iter().filter(|s| s.task == task && s.ctx.symbol == symbol);
                runs.find(|s| s.ctx.started_at.since_ms(START) >= 120_000).unwrap()
            };
            let (ta, regime, trading) = (find(TA), find(REGIME), find(TRADING));
            assert_eq!(trading.inputs, [ta.ctx.run_id, regime.ctx.run_id], "{symbol}");
            let (began, opinion) = (trading.ctx.started_at, regime.ctx.started_at);
            assert!(began >= opinion.plus_ms(900), "{symbol}: {began} {opinion}");
        }
    });
}

#[test]
fn a018_trading_runs_with_two_inputs_while_sentiment_is_off() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        let consensus = world.all(|event| match event {
            Event::ConsensusComputed { consensus, .. } => Some((consensus.eligible, consensus.voters)),
            _ => None,
        });
        assert_eq!(consensus, [(2, 2)]);
    });
}

#[test]
fn a027_a_panic_fails_its_run_and_nothing_else() {
    let mut setup = Setup::new();
    let (left, memory) = (Rc::new(Cell::new(1)), Rc::new(Cell::new(0)));
    let (fuse, seen) = (Rc::clone(&left), Rc::clone(&memory));
    setup.doubles.regime = Rc::new(move |run| {
        if run.ctx.symbol == btc() {
            seen.set(run.previous.as_ref().map_or(0, |previous| previous.periods_in_regime));
            if run.previous.is_some() && fuse.replace(0) == 1 {
                return Reply::Panic;
            }
        }
        Reply::Now(regime(&run.ctx, Regime::TrendingBull))
    });
    setup.play(async |world| {
        world.until(150).await;
        assert_eq!(left.get(), 0, "nothing panicked");
        assert_eq!(memory.get(), 1, "the memory is gone");
        let stats = world.stats().await.stats;
        let of = |symbol| stats.keys.iter().find(|k| k.key == RunKey { task: REGIME, symbol }).unwrap().counts;
        assert_eq!((of(btc()).panics, of(btc()).failed), (1, 1));
        assert!(of(btc()).succeeded >= 2, "{:?}", of(btc()));
        assert_eq!((of(xrp()).failed, of(xrp()).succeeded), (0, 2));
        assert_eq!(world.seen.seconds(TA, btc()), [0, 60, 120]);
        assert_eq!(world.seen.of(TRADING, xrp()).len(), 1);
        assert_eq!(world.seen.of(TRADING, btc()).len(), 1);
    });
}

#[test]
fn a028_a_failing_slot_is_tried_three_times_with_the_same_delays_each_time() {
    let play = || {
        let mut setup = analyst_alone();
        setup.doubles.technical = Rc::new(|run| {
            if run.ctx.symbol != btc() {
                return Reply::Now(ta(&run.ctx, Bias::Long));
            }
            let cause = FailCause { class: FailClass::Transient, message: "not now".into() };
            Reply::Now(triplegain::agents::contract::Answer::Failed(cause))
        });
        setup.play(async |world| {
            world.until(59).await;
            world.seen.of(TA, btc())
        })
    };
    let starts = play();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(starts[1] - starts[0] <= 1_001 && starts[2] - starts[1] <= 2_001, "{starts:?}");
    assert_eq!(play(), starts);
}

#[test]
fn a032_a_second_start_on_the_same_store_is_impossible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let again = Setup::new().durable(&path);
    Setup::new().durable(&path).play(async |world| {
        world.until(5).await;
        let keys = world.status().await.tasks.len();
        let error = again.open().unwrap_err();
        assert_eq!(error.exit_code(), 73, "{error}");
        assert_eq!(world.status().await.tasks.len(), keys);
    });
}

#[test]
fn a033_three_hours_without_a_decision_are_told_once_and_so_is_the_recovery() {
    let mut setup = Setup::new();
    let broken = Rc::new(Cell::new(true));
    let switch = Rc::clone(&broken);
    setup.doubles.technical = Rc::new(move |run| {
        Reply::Now(if run.ctx.symbol == btc() && switch.get() { failed() } else { ta(&run.ctx, Bias::Long) })
    });
    setup.play(async |world| {
        let told = |name: &str| {
            let notes = world.notes(name);
            notes.iter().filter(|facts| facts["task"] == format!("trading_decision {}", btc())).count()
        };
        world.until(3 * 3_600 + 600).await;
        assert_eq!((told("task_starved"), told("task_recovered")), (1, 0));
        broken.set(false);
        world.until(6 * 3_600).await;
        assert_eq!((told("task_starved"), told("task_recovered")), (1, 1));
    });
}
