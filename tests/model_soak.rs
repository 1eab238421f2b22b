//! A month in virtual time with models on every agent: one provider fails half of its calls in every way there is, the
//! other is well, both are gone for some hours. The real router, ledger, breakers and agents; only the wire is played.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "support/played_providers.rs"]
mod played_providers;
#[path = "support/world/mod.rs"]
mod support;

use std::{collections::BTreeMap, rc::Rc};

use played_providers::Providers;
use serde_json::Value;
use support::*;
use triplegain::{
    coordinator::resolver::{Resolve, settle},
    llm::actor::http::Http,
    settings::{Sources, load_with},
};

const DAY_S: i64 = 86_400;

/// `MODEL_SOAK_DAYS`, or a month with optimisation, as `cargo test --release` runs it, and without as much as minutes allow.
fn days() -> i64 {
    let asked = std::env::var("MODEL_SOAK_DAYS").ok().map(|text| text.parse().unwrap());
    asked.unwrap_or(if cfg!(debug_assertions) { 3 } else { 30 })
}

/// When both providers are gone, seconds after the start.
fn dark() -> (i64, i64) {
    let from = days() / 2 * DAY_S;
    (from, from + 6 * 3_600)
}

/// The shipped program with models on every agent, as a file of settings would have it: not every minute, and each
/// age that reads an opinion fits.
const EVERYONE: &str = r#"
runtime.speed = 1
[chains]
main = ["sick/m", "well/m"]
[providers.sick]
kind = "openai"
key_file = "KEY"
base_url = "https://sick/v1"
timeout_seconds = 20
[providers.sick.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.002
max_output_tokens = 800
[providers.well]
kind = "anthropic"
key_file = "KEY"
base_url = "https://well/v1"
timeout_seconds = 20
[providers.well.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.002
max_output_tokens = 800
[risk.breakers]                        # votes and market are drawn: a bad day must not be what stops trading
daily_loss_pct = 100
weekly_loss_pct = 100
max_drawdown_pct = 100
consecutive_losses = 50
[budget]
daily_usd = 4.00
warn_usd = 3.20
per_decision_usd = 0.15
[tasks.technical_analysis]
interval_seconds = 900
[tasks.regime_detection]
interval_seconds = 1800
[tasks.sentiment_analysis]
enabled = true
interval_seconds = 3600
[consensus.max_age_seconds]
technical_analysis = 1380
regime_detection = 2760
sentiment_analysis = 5520
[bus.ttl_seconds]
ta_signals = 1380
regime_updates = 2760
sentiment_updates = 5520
[conflicts]
chain = "main"
[agents.technical_analysis]
chain = "main"
[agents.regime_detection]
chain = "main"
[agents.sentiment_analysis]
social = "main"
news = "main"
[agents.portfolio_rebalance]
chain = "main"
[agents.trading_decision]
voters = [
    { name = "ema_cross", strategy = "ema_cross", enabled = true },
    { name = "rsi_trend", strategy = "rsi_trend", enabled = true },
    { name = "first", kind = "model", chain = "main", enabled = true },
    { name = "second", kind = "model", chain = "main", enabled = true },
]
"#;

fn configured(providers: &Rc<Providers>, text: &str) -> Setup {
    let stand = Rc::clone(providers);
    let http = Http::standing(Rc::new(move |url: &str, body: Option<&Value>| stand.carry(url, body)));
    let sources = Sources { file: Some("soak.toml".into()), ..Sources::default() };
    let text = text.replace("\"KEY\"", &format!("{:?}", key_file()));
    let settings = load_with(&sources, &|_| Ok(text.clone())).unwrap_or_else(|problems| panic!("{problems}")).settings;
    Setup { settings, providers: Some(http), ..Setup::shipped() }
}

/// A key nobody checks: the providers are played.
fn key_file() -> String {
    static PATH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let written = || {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("model-soak-key");
        std::fs::write(&path, "sk-played").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    PATH.get_or_init(written).clone()
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_107);
    println!("SEED={seed}");
    seed
}

/// Every change of the capability's level: seconds after the start, before, after.
fn levels(world: &World) -> Vec<(i64, DegradationLevel, DegradationLevel)> {
    let change = |record: &Record| match record.event {
        Event::DegradationChanged { capability: Capability::Llm, from, to } => {
            Some((record.ts.since_ms(world.start) / 1_000, from, to))
        }
        _ => None,
    };
    world.records().iter().filter_map(change).collect()
}

/// One reservation and what became of it.
struct Booked {
    day: i64,
    decision: Option<DecisionId>,
    held: Money,
    settled: Vec<(Money, Option<String>)>,
}

/// The journal's own account, by number of the call. On the way no limit is passed, held money included.
fn booked(world: &World) -> BTreeMap<u64, Booked> {
    let budget = &world.settings.budget;
    let mut calls = BTreeMap::<u64, Booked>::new();
    let mut days = BTreeMap::<i64, (Money, Money)>::new();
    let mut decisions = BTreeMap::<DecisionId, Money>::new();
    for record in world.records() {
        match record.event {
            Event::BudgetReserved { call, day, decision, amount, .. } => {
                let of_day = days.entry(day).or_default();
                of_day.0 += amount;
                match decision {
                    Some(id) => *decisions.entry(id).or_default() += amount,
                    None => of_day.1 += amount,
                }
                assert!(of_day.0 <= budget.daily_usd, "day {day}: {}", of_day.0);
                let opinions = budget.daily_usd * (Decimal::ONE - budget.decision_reserve_ratio);
                assert!(of_day.1 <= opinions, "opinions of day {day}: {}", of_day.1);
                let dearest = decisions.values().max().copied().unwrap_or_default();
                assert!(dearest <= budget.per_decision_usd, "a decision: {dearest}");
                let settled = Vec::new();
                assert!(
                    calls.insert(call, Booked { day, decision, held: amount, settled }).is_none(),
                    "call {call} twice"
                );
            }
            Event::BudgetSettled { call, cost, failure, over, .. } => {
                let booked = calls.get_mut(&call).unwrap();
                assert!(cost <= booked.held && over.is_zero(), "call {call}: {cost} of {} held", booked.held);
                let back = booked.held - cost;
                days.get_mut(&booked.day).unwrap().0 -= back;
                match booked.decision {
                    Some(id) => *decisions.get_mut(&id).unwrap() -= back,
                    None => days.get_mut(&booked.day).unwrap().1 -= back,
                }
                booked.settled.push((cost, failure));
            }
            _ => {}
        }
    }
    calls
}

fn sum(calls: &BTreeMap<u64, Booked>, pick: impl Fn(&Booked, Option<&str>) -> bool) -> Money {
    let of = |call: &Booked| {
        let (cost, failure) = &call.settled[0];
        if pick(call, failure.as_deref()) { *cost } else { Money::ZERO }
    };
    calls.values().map(of).sum()
}

/// The providers' bill, the journal and the state agree to the last digit.
fn money_agrees(world: &World, providers: &Providers) {
    let calls = booked(world);
    assert!(calls.values().all(|call| call.settled.len() == 1), "a reservation that was not settled once");
    let paid = ["sick", "well", "paid probe"].map(|what| providers.counted(what)).into_iter().sum::<usize>();
    assert_eq!(calls.len(), paid, "calls without a reservation");
    // Nobody counted these: nothing arrived, or the worst is taken for it.
    let uncounted = |failure: Option<&str>| matches!(failure, Some("timeout" | "connection" | "empty"));
    for call in calls.values().filter(|call| uncounted(call.settled[0].1.as_deref())) {
        let cost = call.settled[0].0;
        assert!(cost == call.held || cost.is_zero(), "{cost} of {}", call.held);
    }
    assert_eq!(sum(&calls, |_, failure| !uncounted(failure)), providers.billed.get(), "the providers' bill");
    let state = world.state();
    let today = state.models.day;
    assert_eq!(sum(&calls, |call, _| call.day == today), state.models.total(), "the newest day");
    assert_eq!(state.models.reserved(), Money::ZERO);
    let told = world.all(|event| match event {
        Event::BudgetExhausted { day, limit, .. } => Some((*day, limit.clone())),
        _ => None,
    });
    let mut once = told.clone();
    once.dedup();
    assert_eq!(told, once, "told once a day");
    assert!(!told.is_empty(), "the month never met a limit");
    let held: Money = calls.values().map(|call| call.held).sum();
    let failed = calls.values().filter(|call| call.settled[0].1.is_some()).count();
    println!(
        "{} days: {} calls, {failed} of them failed, {} USD ({held} held), {} limits told",
        days(),
        calls.len(),
        sum(&calls, |_, _| true),
        told.len()
    );
}

/// Above REDUCED only while both were gone; every way down by one step; nobody asked at EMERGENCY.
fn levels_follow_the_outage(world: &World) {
    let dark = dark();
    use DegradationLevel::{Emergency, Normal, Reduced};
    let changes = levels(world);
    let line = format!("{changes:?}");
    let mut level = Normal;
    for (_, from, to) in &changes {
        assert_eq!(*from, level, "{line}");
        assert!(*to > level || *to as u8 + 1 == level as u8, "more than one step down: {line}");
        level = *to;
    }
    assert!(level <= Reduced, "{line}");
    let high: Vec<_> = changes.iter().filter(|(_, from, to)| *to > Reduced || *from > Reduced).collect();
    let (first, last) = (high.first().unwrap().0, high.last().unwrap().0);
    assert!(first >= dark.0 && first < dark.1, "{line}");
    assert!(last > dark.1 && last < dark.1 + 3_600, "back within an hour: {line}");
    let emergencies: Vec<_> = changes.iter().filter(|(_, from, to)| Emergency == *from || Emergency == *to).collect();
    assert_eq!(emergencies.len(), 2, "one way in, one way out: {line}");
    let (into, out) = (emergencies[0].0, emergencies[1].0);
    // Probes pay as well, and are told apart by what they are for.
    let asked = world.each(|record| {
        let is_question = record.event.kind() == "BudgetReserved" && record.corr != "probe";
        is_question.then(|| record.ts.since_ms(world.start) / 1_000)
    });
    let asked = asked.into_iter();
    // A chain that was under way when the level rose ends within its deadline.
    let late: Vec<i64> = asked.filter(|at| (into + 180..out).contains(at)).collect();
    assert!(late.is_empty(), "asked at EMERGENCY: {late:?}");
    let soonest = changes.windows(2).filter(|pair| pair[1].2 < pair[1].1).map(|pair| pair[1].0 - pair[0].0).min();
    println!("{} changes of level, the soonest step down after {soonest:?} s", changes.len());
    // Both ends are cut to whole seconds.
    assert!(soonest.is_none_or(|after| after >= 119), "a level was left after {soonest:?} s: {line}");
}

#[test]
fn a_month_with_models_on_every_agent_and_a_provider_that_fails_half_its_calls() {
    let providers = Providers::new(seed());
    let (days, dark) = (days(), dark());
    let began = std::time::Instant::now();
    configured(&providers, EVERYONE).play(async |world| {
        world.until(dark.0).await;
        providers.dark.set(true);
        world.until(dark.1).await;
        providers.dark.set(false);
        // Between two slots, when every question has ended.
        world.until(days * DAY_S + 3_300).await;
        println!("{:?} {:?}", providers.calls.borrow(), providers.asked.borrow());
        // Nothing hangs, nothing broke.
        let stats = world.stats().await.stats;
        let sums = &stats.sums;
        assert_eq!((sums.timed_out, sums.failed, sums.panics, sums.interrupted), (0, 0, 0, 0), "{sums:?}");
        assert_eq!(sums.started, sums.succeeded + sums.abstained, "{sums:?}");
        assert_eq!((stats.running, stats.queued, stats.abandoned, stats.totals.late_results), (0, 0, 0, 0));
        assert_eq!(providers.open.get(), 0, "calls under way");
        money_agrees(world, &providers);
        levels_follow_the_outage(world);
        // Everybody asked, and both providers and the rules were heard.
        let opinions = ["technical_analysis", "regime_detection", "sentiment_analysis", "trading_decision"];
        for form in opinions.into_iter().chain(if days < 30 { &[][..] } else { &["conflict_resolution"][..] }.to_vec())
        {
            assert!(providers.asked.borrow().get(form).is_some_and(|count| *count > 0), "nobody asked for {form}");
        }
        let ballots: Vec<NamedBallot> = world
            .all(|event| match event {
                Event::SignalReceived { signal, .. } => Some(signal.ballots.clone()),
                _ => None,
            })
            .concat();
        let of = |wanted: &str| {
            let is = |b: &&NamedBallot| b.model.as_ref().is_some_and(|call| call.model.as_deref() == Some(wanted));
            ballots.iter().filter(is).count()
        };
        let ruled = ballots.iter().filter(|ballot| ballot.model.is_none()).count();
        assert!(of("sick/m") > 0 && of("well/m") > 0 && ruled > 0, "{} {} {ruled}", of("sick/m"), of("well/m"));
        // Trading goes on: signals on every day, entries before and after the outage.
        let signals = world.times("SignalReceived");
        let pauses = world.all(|event| match event {
            Event::PauseReasonAdded { reason } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(pauses, ["degradation"], "only the outage stops trading");
        assert_eq!((world.is(), world.reasons()), (CoordinatorState::Running, String::new()));
        for day in 0..days {
            let (from, to) = ((day * DAY_S) as f64, ((day + 1) * DAY_S) as f64);
            let count = signals.iter().filter(|at| (from..to).contains(*at)).count();
            assert!(count >= 24, "day {day}: {count} signals");
        }
        let entries = world.times("PositionOpened");
        let after = entries.iter().filter(|at| **at > dark.1 as f64).count();
        println!(
            "{} signals, {} entries, {after} after the outage, {:.1?}",
            signals.len(),
            entries.len(),
            began.elapsed()
        );
        assert!(after > 0 && after < entries.len(), "{entries:?}");
    });
}

#[test]
fn a_probe_that_no_breaker_lets_through_is_no_failure() {
    let providers = Providers::new(seed());
    let alone = EVERYONE.replace("[\"sick/m\", \"well/m\"]", "[\"well/m\"]");
    // Nine failed attempts, three at most to a call, open the breaker for an hour and make the level REDUCED.
    let breaker = "consecutive = 9\nopen_seconds = 3600\nopen_max_seconds = 3600\njitter = 0.0";
    let text = format!("{alone}[breaker]\n{breaker}\n[degradation]\nincident_merge_ms = 0\n");
    configured(&providers, &text).play(async |world| {
        providers.dark.set(true);
        // The first slot is due after two minutes.
        world.until(121).await;
        let failed = levels(world);
        assert_eq!(providers.counted("well"), 9, "{failed:?}");
        assert!(!failed.is_empty(), "the failures counted");
        world.until(3_600).await;
        assert_eq!(levels(world), failed, "a call that was never made is no failure");
        providers.dark.set(false);
        world.until(3 * 3_600).await;
        assert_eq!(levels(world).last().unwrap().2, DegradationLevel::Normal);
    });
}

#[test]
fn d37_a_hung_primary_leaves_the_fallback_its_part_of_a_resolution() {
    let providers = Providers::new(seed());
    configured(&providers, EVERYONE).play(async |world| {
        providers.hangs.set(true);
        let (clock, limits) = (&world.clock, &world.settings.conflicts);
        let asked = clock.now();
        let question = Resolve {
            decision: DecisionId::default(),
            symbol: btc(),
            side: Side::Buy,
            confidence: Score::from_f64(0.7),
            entry: dec("45000"),
            stop: Some(dec("44100")),
            target: Some(dec("46800")),
            leverage: 1,
            conflicts: vec![Conflict { kind: ConflictKind::RegimeConflict, facts: String::new() }],
            until: asked.plus_ms(i64::from(limits.max_resolution_ms)),
            ask_models: true,
        };
        let settled = settle(&world.system.links.resolver, question, clock, limits).await;
        let took = clock.now().since_ms(asked);
        assert_eq!(settled.by, "well/m", "{settled:?}");
        assert!(settled.errors.len() == 1 && settled.errors[0].starts_with("sick/m: timeout"), "{:?}", settled.errors);
        assert!((5_000..10_000).contains(&took), "{took} ms");
    });
}
