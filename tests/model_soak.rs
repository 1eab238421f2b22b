//! A month in virtual time with models on every agent: one provider fails half of its calls in every way there is, the
//! other is well, both are gone for some hours. The real router, ledger, breakers and agents; only the wire is played.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "support/world/mod.rs"]
mod support;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use support::*;
use triplegain::{
    coordinator::resolver::{Resolve, settle},
    llm::{
        actor::http::{Broken, Http, Raw},
        budget,
        question::{FailureKind, Rejected},
        wire::Usage,
    },
    settings::{ModelSettings, Sources, load_with},
};

/// A month with optimisation, as `cargo test --release` runs it; without, as much as a minute allows.
const DAYS: i64 = if cfg!(debug_assertions) { 3 } else { 30 };
const DAY_S: i64 = 86_400;
/// When both providers are gone, seconds after the start.
const DARK: (i64, i64) = (DAYS / 2 * DAY_S, DAYS / 2 * DAY_S + 6 * 3_600);

fn priced() -> ModelSettings {
    ModelSettings {
        input_usd_per_1k: dec("0.001"),
        output_usd_per_1k: dec("0.002"),
        max_output_tokens: 800,
        temperature: None,
    }
}

/// What the providers know: a bill of their own, kept apart from the program's ledger.
struct Providers {
    draws: RefCell<ChaCha8Rng>,
    dark: Cell<bool>,
    /// The sick one never says anything.
    hangs: Cell<bool>,
    /// USD of the replies that said what they used.
    billed: Cell<Money>,
    /// Calls by provider and what became of them.
    calls: RefCell<BTreeMap<String, usize>>,
    /// Questions by the name of their form.
    asked: RefCell<BTreeMap<String, usize>>,
    /// Calls under way now.
    open: Cell<i64>,
}

/// Counts a call as under way until it is answered or dropped.
struct Open(Rc<Providers>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Providers {
    fn new(seed: u64) -> Rc<Providers> {
        Rc::new(Providers {
            draws: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            dark: Cell::default(),
            hangs: Cell::default(),
            billed: Cell::default(),
            calls: RefCell::default(),
            asked: RefCell::default(),
            open: Cell::default(),
        })
    }

    fn draw(&self, below: u32) -> u32 {
        self.draws.borrow_mut().random_range(0..below)
    }

    fn count(&self, what: &str) {
        *self.calls.borrow_mut().entry(what.to_owned()).or_default() += 1;
    }

    fn counted(&self, what: &str) -> usize {
        self.calls.borrow().get(what).copied().unwrap_or_default()
    }

    /// A reply that says what it used, and the bill for it.
    fn bill(&self, text: &str, finish: &str, prompt: &str) -> Vec<u8> {
        let (input, output) = (prompt.chars().count() as u32 / 4, text.chars().count() as u32 / 4);
        self.billed.set(self.billed.get() + budget::price(&priced(), Usage { input, output }));
        json!({
            "choices": [{"finish_reason": finish, "message": {"content": text}}],
            "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output},
        })
        .to_string()
        .into_bytes()
    }

    /// Any of the choices.
    fn one<'a>(&self, of: &[&'a str]) -> &'a str {
        of[self.draw(of.len() as u32) as usize]
    }

    /// A valid answer to a question.
    fn answer(&self, form: &str, data: &Value) -> String {
        let sure = f64::from(65 + self.draw(30)) / 100.0;
        let reasoning = "as shown";
        match form {
            "trading_decision" => {
                let price: f64 = data["market"]["price"].as_str().unwrap().parse().unwrap();
                match self.one(&["BUY", "BUY", "BUY", "HOLD", "CLOSE_LONG"]) {
                    "BUY" => json!({
                        "action": "BUY", "confidence": sure, "entry": price, "stop": price * 0.98,
                        "target": price * 1.04, "position_size_pct": 10, "reasoning": reasoning,
                    }),
                    other => json!({"action": other, "confidence": sure, "reasoning": reasoning}),
                }
            }
            "technical_analysis" => json!({
                "bias": self.one(&["long", "long", "neutral", "short"]), "trend_strength": 0.6, "momentum_score": 0.2,
                "rsi_signal": "neutral", "macd_signal": "bullish", "support_levels": [], "resistance_levels": [],
                "current_position": "mid_range", "primary_signal": "trend", "confidence": sure, "reasoning": reasoning,
            }),
            "regime_detection" => json!({
                "regime": self.one(&["trending_bull", "trending_bull", "ranging", "trending_bear"]), "confidence": sure,
                "reasoning": reasoning,
            }),
            "sentiment_analysis" => json!({
                "bias": "neutral", "score": f64::from(self.draw(9)) / 10.0 - 0.4, "confidence": sure, "events": [],
                "narratives": [],
            }),
            "portfolio_rebalance" => {
                json!({"execution": self.one(&["dca", "defer", "immediate"]), "confidence": sure, "reasoning": reasoning})
            }
            "conflict_resolution" => {
                json!({"action": self.one(&["proceed", "wait", "abort"]), "confidence": sure, "reasoning": reasoning})
            }
            other => panic!("nobody should ask for `{other}`"),
        }
        .to_string()
    }

    /// One call, over a wire that is not there.
    fn carry(self: &Rc<Self>, url: &str, body: Option<&Value>) -> LocalBoxFuture<'static, Result<Raw, Broken>> {
        let (own, body) = (Rc::clone(self), body.cloned());
        let sick = url.starts_with("http://sick");
        Box::pin(async move {
            own.open.set(own.open.get() + 1);
            let _open = Open(Rc::clone(&own));
            let raw = |status, body: Vec<u8>| Raw { status, retry_after: None, date: None, body };
            let broken = |unsent, detail: &str| {
                let why = Rejected { kind: FailureKind::Connection, detail: detail.to_owned() };
                Err(Broken { why, unsent })
            };
            let fails = own.dark.get() || sick && (own.hangs.get() || own.draw(2) == 0);
            let Some(body) = body else {
                own.count("probe");
                return if fails { broken(true, "refused") } else { Ok(raw(200, b"{\"data\":[]}".to_vec())) };
            };
            own.count(if sick { "sick" } else { "well" });
            let form = body["response_format"]["json_schema"]["name"].as_str().unwrap().to_owned();
            *own.asked.borrow_mut().entry(form.clone()).or_default() += 1;
            let said = |part: usize| body["messages"][part]["content"].as_str().unwrap().to_owned();
            let (prompt, data) = (said(0) + &said(1), serde_json::from_str(&said(1)).unwrap());
            if own.dark.get() {
                return broken(true, "refused");
            }
            tokio::time::sleep(Duration::from_millis(u64::from(300 + own.draw(4_000)))).await;
            if !fails {
                let text = own.answer(&form, &data);
                return Ok(raw(200, own.bill(&text, "stop", &prompt)));
            }
            match if own.hangs.get() { 0 } else { own.draw(9) } {
                0 => std::future::pending().await,
                1 => Ok(raw(500, b"oops".to_vec())),
                2 => Ok(raw(503, b"<html>".to_vec())),
                3 => Ok(Raw { retry_after: Some("4".to_owned()), ..raw(429, b"{}".to_vec()) }),
                4 => broken(true, "refused"),
                5 => broken(false, "reset by peer"),
                6 => Ok(raw(200, b"\n \n".to_vec())),
                7 => Ok(raw(200, own.bill("I would not buy here.", "stop", &prompt))),
                _ => Ok(raw(200, own.bill("{\"action\":", "length", &prompt))),
            }
        })
    }
}

/// The shipped program with models on every agent, as a file of settings would have it: not every minute, and each
/// age that reads an opinion fits.
const EVERYONE: &str = r#"
runtime.speed = 1
[chains]
main = ["sick/m", "well/m"]
[providers.sick]
kind = "ollama"
base_url = "http://sick/v1"
timeout_seconds = 20
[providers.sick.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.002
max_output_tokens = 800
[providers.well]
kind = "ollama"
base_url = "http://well/v1"
timeout_seconds = 20
[providers.well.models.m]
input_usd_per_1k = 0.001
output_usd_per_1k = 0.002
max_output_tokens = 800
[budget]
daily_usd = 1.50
warn_usd = 1.20
per_decision_usd = 0.05
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
    let settings =
        load_with(&sources, &|_| Ok(text.to_owned())).unwrap_or_else(|problems| panic!("{problems}")).settings;
    Setup { settings, providers: Some(http), ..Setup::shipped() }
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
            Event::BudgetSettled { call, cost, failure, .. } => {
                let booked = calls.get_mut(&call).unwrap();
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
    assert_eq!(calls.len(), providers.counted("sick") + providers.counted("well"), "calls without a reservation");
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
    println!("{} calls, {} USD, {} limits told", calls.len(), sum(&calls, |_, _| true), told.len());
}

/// Above REDUCED only while both were gone; every way down by one step; nobody asked at EMERGENCY.
fn levels_follow_the_outage(world: &World) {
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
    assert!(first >= DARK.0 && first < DARK.1, "{line}");
    assert!(last > DARK.1 && last < DARK.1 + 3_600, "back within an hour: {line}");
    let emergencies: Vec<_> = changes.iter().filter(|(_, from, to)| Emergency == *from || Emergency == *to).collect();
    assert_eq!(emergencies.len(), 2, "one way in, one way out: {line}");
    let (into, out) = (emergencies[0].0, emergencies[1].0);
    let asked = world.times("BudgetReserved").into_iter().map(|at| at as i64);
    // A chain that was under way when the level rose ends within its deadline.
    let late: Vec<i64> = asked.filter(|at| (into + 180..out).contains(at)).collect();
    assert!(late.is_empty(), "asked at EMERGENCY: {late:?}");
    let soonest = changes.windows(2).filter(|pair| pair[1].2 < pair[1].1).map(|pair| pair[1].0 - pair[0].0).min();
    println!("{} changes of level, the soonest step down after {soonest:?} s", changes.len());
}

#[test]
fn a_month_with_models_on_every_agent_and_a_provider_that_fails_half_its_calls() {
    let providers = Providers::new(seed());
    let began = std::time::Instant::now();
    configured(&providers, EVERYONE).play(async |world| {
        world.until(DARK.0).await;
        providers.dark.set(true);
        world.until(DARK.1).await;
        providers.dark.set(false);
        // Between two slots, when every question has ended.
        world.until(DAYS * DAY_S + 3_300).await;
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
        for form in opinions.into_iter().chain(if DAYS < 30 { &[][..] } else { &["conflict_resolution"][..] }.to_vec())
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
        for day in 0..DAYS {
            let (from, to) = ((day * DAY_S) as f64, ((day + 1) * DAY_S) as f64);
            let count = signals.iter().filter(|at| (from..to).contains(*at)).count();
            assert!(count >= 24, "day {day}: {count} signals");
        }
        let entries = world.times("PositionOpened");
        let after = entries.iter().filter(|at| **at > DARK.1 as f64).count();
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
