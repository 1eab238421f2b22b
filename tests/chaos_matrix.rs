//! A panic in every kind of actor at every kind of place (`--features failpoints`), in the whole program in virtual time.
//! Who comes back does so within its back-off, nobody else's slot is missed; who cannot come back ends the process. That
//! the process ends with 70 and the next start recovers is shown with the real binary in `chaos_process.rs`.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/world/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use support::*;
use triplegain::{
    runtime::{
        chaos::{Deed, Spot, Strike, arm_start},
        supervisor::{Lives, lives},
    },
    settings::{ModelSettings, ProviderKind, ProviderSettings},
};

/// What a panic must lead to.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    /// Fresh state, same address, everybody else undisturbed.
    ComesBack,
    /// The process ends, nothing is restarted in place.
    EndsTheProcess,
}
use Outcome::*;

/// Every actor of the program.
const ACTORS: [(&str, Outcome); 14] = [
    ("technical_analysis", ComesBack),
    ("regime_detection", ComesBack),
    ("sentiment_analysis", ComesBack),
    ("trading_decision", ComesBack),
    ("portfolio_rebalance", ComesBack),
    ("conflict_resolver", ComesBack),
    ("command_desk", ComesBack),
    ("risk", ComesBack),
    ("models", ComesBack),
    ("market", EndsTheProcess),
    ("bus", EndsTheProcess),
    ("execution", EndsTheProcess),
    ("store", EndsTheProcess),
    ("coordinator", EndsTheProcess),
];

/// Where in it.
const SPOTS: [Spot; 3] = [Spot::Handler, Spot::Future, Spot::Interval];

/// Everything enabled, the shipped agents behind doubles that only keep the log of starts.
fn program() -> Setup {
    let mut setup = Setup::new().with(|s| {
        s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true;
        add_models(s);
    });
    setup.doubles = Doubles::none();
    setup
}

/// A chain nobody asks: the router of models is there and idle.
fn add_models(s: &mut Settings) {
    let price = Decimal::ONE;
    let model = ModelSettings {
        input_usd_per_1k: price,
        output_usd_per_1k: price,
        max_output_tokens: 500,
        temperature: None,
        answer_form: None,
    };
    let provider = ProviderSettings {
        kind: ProviderKind::Ollama,
        base_url: String::new(),
        key_env: String::new(),
        key_file: String::new(),
        calls_per_minute: 60,
        burst: 10,
        timeout_seconds: 30,
        max_parallel: 4,
        daily_usd: None,
        models: [("m".to_owned(), model)].into(),
    };
    s.providers.insert("p".to_owned(), provider);
    s.chains.insert("main".to_owned(), vec!["p/m".to_owned()]);
}

/// The list above is every actor there is: a new one needs its row.
#[test]
fn r4_every_actor_of_the_program_has_its_row() {
    let _alone = alone();
    program().play(async |world| {
        let mut found: Vec<&str> = world.system.everyone().iter().map(|pulse| pulse.actor).collect();
        let mut known = ACTORS.map(|(actor, _)| actor);
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known);
    });
}

/// When every run began: the schedule as the agents saw it.
fn starts(world: &World) -> BTreeMap<String, Vec<i64>> {
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for start in world.seen.starts.borrow().iter() {
        let key = format!("{} {}", start.task, start.ctx.symbol);
        all.entry(key).or_default().push(start.ctx.started_at.since_ms(world.start));
    }
    all
}

/// The counters of lives belong to the whole process, so one test at a time; one that failed does not stop the others.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counted(actor: &str) -> Lives {
    lives().get(actor).copied().unwrap_or_default()
}

/// Asks for a pause as the HTTP surface does; it is in the desk's mailbox when this returns.
fn over_the_desk(world: &World) -> impl Future<Output = Result<Operated, actix::MailboxError>> + use<> {
    let command = Command::Pause { reason: "drill".into() };
    world.system.desk.send(Operate { key: "k".into(), command, source: "test".into() })
}

async fn strike(world: &World, actor: &str, spot: Spot) {
    let everyone = world.system.everyone();
    let pulse = everyone.iter().find(|pulse| pulse.actor == actor).unwrap_or_else(|| panic!("no actor `{actor}`"));
    // The one that is struck never answers.
    let _ = pulse.strike.send(Strike { spot, deed: Deed::Panic }).await;
}

/// Five minutes without any fault.
fn undisturbed() -> BTreeMap<String, Vec<i64>> {
    program().play(async |world| {
        world.until(310).await;
        starts(world)
    })
}

/// All in one test: the counters of lives belong to the whole process.
#[test]
fn r4_every_actor_at_every_place_comes_back_or_ends_the_process() {
    let _alone = alone();
    let calm = undisturbed();
    let mut table = Vec::new();
    for (actor, outcome) in ACTORS {
        for spot in SPOTS {
            let before = counted(actor);
            let case = format!("{actor} {spot:?}");
            program().play(async |world| {
                // Between two slots, so that no run is in its hands.
                world.until_ms(90_500).await;
                strike(world, actor, spot).await;
                world.until_ms(91_000).await;
                let fatal = expected_fatal();
                let after = counted(actor);
                assert_eq!(after.panics, before.panics + 1, "{case}: one panic, one count");
                match outcome {
                    ComesBack => {
                        assert_eq!(fatal, Vec::<String>::new(), "{case}");
                        assert_eq!(after.restarts, before.restarts + 1, "{case}: back within half a second");
                        world.until(310).await;
                        assert_eq!(starts(world), calm, "{case}: no slot of anybody was missed");
                        assert_eq!(world.notes("task_error").len(), 0, "{case}");
                        assert_eq!(world.is(), CoordinatorState::Running, "{case}");
                    }
                    EndsTheProcess => {
                        assert_eq!(after.restarts, before.restarts, "{case}: never in place");
                        assert!(
                            fatal.iter().any(|what| what.contains(&format!("{actor} panicked"))),
                            "{case}: {fatal:?}"
                        );
                    }
                }
                // Whatever followed from the loss of an actor in a process that would be gone by now.
                drop(expected_fatal());
            });
            table.push(format!("{case}: {outcome:?}"));
        }
    }
    assert_eq!(table.len(), ACTORS.len() * SPOTS.len(), "{table:#?}");
}

/// The futures the coordinator spawns and does not wait for, and those that belong to nobody; the latter are struck in
/// the real binary (`chaos_process.rs`).
const FUTURES: [&str; 7] = ["run", "decision", "record", "reduce", "command", "plan", "defer"];
const OF_NOBODY: [&str; 2] = ["api", "given up"];

/// The lists above are every guarded future there is: a new one needs its place.
#[test]
fn r4_every_guarded_future_of_the_program_is_struck() {
    fn names(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                names(&entry, found);
                continue;
            }
            let text = std::fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for call in ["task::guarded(\"", "links.spawn(\""] {
                found.extend(code.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }
    let mut found = BTreeSet::new();
    names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // A part of `simulate`, which ends with its life.
    assert!(found.remove("simulated operator"));
    let known = FUTURES.map(|what| format!("coordinator.{what}")).into_iter().chain(OF_NOBODY.map(str::to_owned));
    assert_eq!(found, known.collect());
}

/// An entry makes sales of the same asset give way; the future that moves them panics.
#[test]
fn r4_a_panic_as_legs_give_way_ends_the_process() {
    let _alone = alone();
    let setup = || {
        Setup::new().with(|s| {
            s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true;
            let balances = [("USDT", "3333.34"), ("BTC", "0.2"), ("XRP", "5555.55")];
            s.account.initial_balances = balances.map(|(a, m)| (asset(a), dec(m))).into();
        })
    };
    for struck in [false, true] {
        setup().play(async |world| {
            // A minute before the second batch of sales.
            world.until(120 + 4 * 3_600 - 60).await;
            if struck {
                arm_start("coordinator.defer", 1);
            }
            world.wishes.set(btc(), Wish::buy());
            let now = Command::RunTask { task: "trading_decision".into(), symbol: btc().to_string() };
            world.order("buy", now).await;
            world.pass(30).await;
            assert_eq!(world.count("LegsRespread"), 1, "the legs give way: {}", world.timeline());
            let fatal = expected_fatal();
            let told = fatal.iter().any(|text| text.contains("coordinator.defer panicked"));
            assert_eq!(told, struck, "{fatal:?}");
        });
    }
}

/// The panic of a spawned future would leave a decision without an end, a plan without its legs, or a command without an
/// answer.
#[test]
fn r4_a_panic_in_a_future_of_the_coordinator_ends_the_process() {
    let _alone = alone();
    for what in FUTURES.into_iter().filter(|what| *what != "defer") {
        let setup = if what == "plan" { program() } else { Setup::new() };
        let what = format!("coordinator.{what}");
        arm_start(&what, 1);
        setup.play(async |world| {
            world.wishes.set(btc(), Wish::buy());
            world.until(200).await;
            let command = Command::CloseAll { reason: "drill".into() };
            // Over the bus, and perhaps never answered.
            let asked = world.system.desk.send(Operate { key: "k".into(), command, source: "test".into() });
            world.until(400).await;
            drop(asked);
            let fatal = expected_fatal();
            assert!(fatal.iter().any(|text| text.contains(&format!("{what} panicked"))), "{what}: {fatal:?}");
        });
    }
}

/// Risk is rebuilt for a minute: who asks meanwhile is told at once that there is no account state.
#[test]
fn r4_a_decision_while_risk_is_rebuilt_is_refused_and_the_next_one_goes_on() {
    let _alone = alone();
    let slow = Setup::new().with(|s| (s.supervisor.backoff_ms, s.supervisor.backoff_max_ms) = (60_000, 60_000));
    slow.play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(110).await;
        strike(world, "risk", Spot::Handler).await;
        world.until(140).await;
        let refused = |end: &DecisionEnd| match end {
            DecisionEnd::Refused(refusal) => refusal.code == RiskCode::NoAccountState,
            _ => false,
        };
        let ends = world.ends();
        assert!(!ends.is_empty() && ends.iter().filter(|end| refused(end)).count() == 1, "{}", world.timeline());
        assert_eq!(world.count("TradeIntent"), 0);
        world.wishes.set(btc(), Wish::buy());
        world.until(150 + 3_600).await;
        assert!(world.count("TradeIntent") > 0, "{}", world.timeline());
        assert!(world.ends().iter().filter(|end| refused(end)).count() == 1);
        assert_eq!(expected_fatal(), Vec::<String>::new());
        let held: Vec<TradeKey> = world.state().risk.reservations.keys().copied().collect();
        assert!(held.iter().all(|key| world.state().trades.contains_key(key)), "nothing is held for nothing: {held:?}");
    });
}

#[test]
fn r4_who_has_a_fallback_is_given_up_with_an_alert() {
    let _alone = alone();
    for actor in ["conflict_resolver", "models"] {
        arm_start(actor, 6);
        program().play(async |world| {
            world.until(100).await;
            let gone = world.notes("actor_given_up");
            assert_eq!(gone.len(), 1, "one alert: {gone:?}");
            assert_eq!(gone[0]["actor"], actor);
            assert!(world.status().await.given_up.iter().eq([actor]), "status names it");
            assert_eq!(expected_fatal(), Vec::<String>::new());
            assert_eq!(world.is(), CoordinatorState::Running);
        });
    }
}

/// Five panics within a minute are five lives; the sixth is the last. Then decisions go on with the voters that are left.
#[test]
fn r4_models_that_panic_a_sixth_time_within_a_minute_are_given_up_and_the_rest_goes_on() {
    let _alone = alone();
    for strikes in [5u32, 6] {
        let mut setup = Setup::new().with(add_models);
        setup.doubles = Doubles::default();
        setup.play(async |world| {
            world.until(10).await;
            let before = counted("models");
            for struck in 1..=strikes {
                strike(world, "models", Spot::Handler).await;
                world.until(10 + i64::from(struck) * 8).await;
            }
            let lost = usize::from(strikes > 5);
            let after = counted("models");
            let lives = (after.panics - before.panics, after.restarts - before.restarts);
            assert_eq!(lives, (strikes.into(), 5), "{strikes} panics");
            let gone = world.notes("actor_given_up");
            assert_eq!(gone.iter().filter(|facts| facts["actor"] == "models").count(), lost, "{gone:?}");
            let status = world.status().await;
            assert_eq!(status.given_up.contains("models"), lost > 0, "{strikes} panics: {:?}", status.given_up);
            world.wishes.set(btc(), Wish::buy());
            world.until(150).await;
            assert_eq!(world.state().positions.len(), 1, "the decision goes on: {}", world.timeline());
            assert_eq!(expected_fatal(), Vec::<String>::new());
            assert_eq!(world.is(), CoordinatorState::Running);
        });
    }
}

#[test]
fn r4_a_first_life_that_panics_as_it_begins_is_followed_by_a_second_one() {
    let _alone = alone();
    let others = ACTORS.into_iter().filter(|(_, outcome)| *outcome == ComesBack).map(|(actor, _)| actor);
    for actor in others {
        let before = counted(actor);
        arm_start(actor, 1);
        program().play(async |world| {
            world.until(130).await;
            let after = counted(actor);
            assert_eq!((after.panics, after.restarts), (before.panics + 1, before.restarts + 1), "{actor}");
            assert_eq!(expected_fatal(), Vec::<String>::new(), "{actor}");
            assert_eq!(world.is(), CoordinatorState::Running, "{actor}");
            let runs = world.seen.of(TaskName::TechnicalAnalysis, btc());
            // An analyst that was not there for the first slot has its run tried again.
            assert!(runs.len() >= 3, "{actor}: {runs:?}");
            // Whoever commands go through is there again.
            let answer = over_the_desk(world).await.unwrap();
            assert!(matches!(answer, Operated::Answered(CommandAnswer::Ok { .. })), "{actor}: {answer:?}");
            assert_eq!(world.is(), CoordinatorState::Paused, "{actor}");
        });
    }
}

/// The mailbox outlives the actor: what waits in it when a life ends is for the next one.
#[test]
fn r4_a_question_that_waits_when_an_actor_panics_is_answered_by_its_next_life() {
    let _alone = alone();
    program().play(async |world| {
        world.until_ms(90_500).await;
        let before = counted("command_desk");
        let everyone = world.system.everyone();
        let desk = everyone.iter().find(|pulse| pulse.actor == "command_desk").unwrap();
        // Both are in the mailbox before it is served again, the panic first.
        let struck = desk.strike.send(Strike { spot: Spot::Handler, deed: Deed::Panic });
        let asked = over_the_desk(world);
        assert!(struck.await.is_err(), "the struck life answers nothing");
        let answer = asked.await.unwrap();
        assert!(matches!(answer, Operated::Answered(CommandAnswer::Ok { .. })), "{answer:?}");
        let after = counted("command_desk");
        assert_eq!((after.panics, after.restarts), (before.panics + 1, before.restarts + 1));
        assert_eq!(world.is(), CoordinatorState::Paused);
        assert_eq!(expected_fatal(), Vec::<String>::new());
    });
}

#[test]
fn r4_an_agent_that_is_given_up_fails_its_runs_and_its_keys_are_quarantined() {
    let _alone = alone();
    arm_start("regime_detection", 6);
    program().play(async |world| {
        world.until(1_900).await;
        assert_eq!(expected_fatal(), Vec::<String>::new(), "an agent never ends the process");
        let out = world.all(|event| match event {
            Event::Quarantined { key, .. } => Some(*key),
            _ => None,
        });
        for symbol in world.settings.symbols.clone() {
            assert!(out.contains(&RunKey { task: TaskName::RegimeDetection, symbol }), "{symbol}: {out:?}");
        }
        assert!(out.iter().all(|key| key.task == TaskName::RegimeDetection), "nobody else: {out:?}");
        let gone = world.notes("actor_given_up");
        assert_eq!(gone.len(), 1, "one alert: {gone:?}");
        assert_eq!(gone[0]["actor"], "regime_detection");
        let (task, symbol) = ("regime_detection".to_owned(), "BTC/USDT".to_owned());
        world.order("r1", Command::Release { task: task.clone(), symbol: symbol.clone() }).await;
        assert_eq!(world.count("QuarantineEnded"), 1, "the operator's release");
        assert_eq!(world.refusal("r2", Command::Release { task, symbol }).await, "not_quarantined");
        let analysts = world.seen.of(TaskName::TechnicalAnalysis, btc());
        assert!(analysts.len() >= 31, "the analyst goes on: {analysts:?}");
    });
}
