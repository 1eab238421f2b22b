//! Voters that are models, in virtual time: who waits for whom, and what happens to the decision meanwhile.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use triplegain::{
    llm::{
        actor::{
            AskModel,
            http::{Broken, Http, Raw},
        },
        question::{Answered, AttemptFailure, FailureKind, Unanswered},
    },
    settings::{ModelSettings, ProviderKind, ProviderSettings, Sources, VoterKind, VoterSettings, load_with},
};

use crate::support::*;

const POLL_MS: i64 = 30_000;

/// A chain `main` of one model, 1 USD for 1000 tokens.
fn priced_chain(s: &mut Settings) {
    let model = ModelSettings {
        input_usd_per_1k: Decimal::ONE,
        output_usd_per_1k: Decimal::ONE,
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

/// Every voter is a model; who answers is up to `play`.
fn thinking(voters: usize, play: impl Fn(&AskModel) -> Reply<Result<Answered, Unanswered>> + 'static) -> Setup {
    let mut setup = Setup::new().with(|s| {
        priced_chain(s);
        s.agents.trading_decision.voters = (0..voters)
            .map(|n| VoterSettings {
                name: format!("model{n}"),
                kind: VoterKind::Model,
                strategy: None,
                chain: Some("main".to_owned()),
                enabled: true,
            })
            .collect();
    });
    setup.doubles.trading = Some(Rc::new(|_| Reply::Pass(0)));
    setup.doubles.models = Some(Rc::new(play));
    setup
}

/// A vote whose levels fit the price it was shown.
fn buys(ask: &AskModel) -> Result<Answered, Unanswered> {
    let shown: serde_json::Value = serde_json::from_str(&ask.0.prompt.user).unwrap();
    let price: f64 = shown["market"]["price"].as_str().unwrap().parse().unwrap();
    let (stop, target) = (price * 0.98, price * 1.04);
    let text = format!(
        r#"{{"action":"BUY","confidence":0.9,"entry":{price},"stop":{stop},"target":{target},"position_size_pct":10,"reasoning":"up"}}"#
    );
    assert_eq!((ask.0.check)(&text), Ok(()));
    Ok(said(&text))
}

fn said(text: &str) -> Answered {
    Answered {
        text: text.to_owned(),
        reasoning: None,
        provider: "p".to_owned(),
        model: "m".to_owned(),
        input_tokens: 10,
        output_tokens: 10,
        cost_usd: dec("0.02"),
        took_ms: 0,
        before: Vec::new(),
        prompt_sha256: String::new(),
    }
}

fn timed_out() -> Result<Answered, Unanswered> {
    let (provider, model, message) = ("p".to_owned(), "m".to_owned(), "no complete reply".to_owned());
    let attempt = AttemptFailure { provider, model, kind: FailureKind::Timeout, message };
    Err(Unanswered { attempts: vec![attempt], cost_usd: dec("0.01"), kind: FailureKind::Timeout })
}

fn of(world: &World, symbol: Symbol) -> Vec<(f64, Signal)> {
    world.all(|event| match event {
        Event::SignalReceived { signal, .. } if signal.head.symbol == symbol => {
            Some((signal.head.produced_at.since_ms(world.start) as f64 / 1_000.0, (**signal).clone()))
        }
        _ => None,
    })
}

fn is_btc(ask: &AskModel) -> bool {
    ask.0.key.symbol == btc()
}

#[test]
fn an_entry_whose_price_moved_while_a_model_thought_expires_with_its_reason() {
    for (price, traded) in [(45_000.0 * 1.006, false), (45_000.0 * 1.004, true)] {
        let setup =
            thinking(1, |ask| if is_btc(ask) { Reply::After(20_000, buys(ask)) } else { Reply::Now(timed_out()) });
        setup.play(async |world| {
            world.until(130).await;
            assert_eq!(world.count("SignalReceived"), 0, "the model still thinks");
            world.tape.set(btc(), price);
            world.until(160).await;
            let ended = world.all(|event| match event {
                Event::DecisionEnded { end, reason, .. } => Some((end.name().to_owned(), reason.clone())),
                _ => None,
            });
            let expired = ended.iter().find(|(end, _)| end == "expired");
            assert_eq!(expired.is_none(), traded, "{}", world.timeline());
            assert_eq!(world.count("TradeIntent") > 0, traded, "{}", world.timeline());
            assert!(world.state().risk.reservations.is_empty() || traded);
            if let Some((_, reason)) = expired {
                let reason = reason.as_deref().unwrap();
                assert!(reason.contains("price_moved") && reason.contains("0.6 %, limit 0.5 %"), "{reason}");
            }
        });
    }
}

#[test]
fn one_symbols_thinking_blocks_no_other_and_a_hanging_router_ends_with_the_poll() {
    let setup = thinking(2, |ask| if is_btc(ask) { Reply::Hang } else { Reply::After(2_000, buys(ask)) });
    setup.play(async |world| {
        world.until(125).await;
        assert_eq!(of(world, sym("XRP/USDT")).len(), 1, "{}", world.timeline());
        assert_eq!(world.count("RunFinished"), 2, "{}", world.timeline());
        // Nobody voted on BTC: that is no opinion, and no HOLD in disguise.
        world.until(120 + POLL_MS / 1_000 + 1).await;
        let outcomes = world.all(|event| match event {
            Event::RunFinished { key, outcome, .. } if key.symbol == btc() => Some(format!("{outcome:?}")),
            _ => None,
        });
        assert!(outcomes.len() == 1 && outcomes[0].contains("no_votes: timeout"), "{outcomes:?}");
        // Who said what is in the journal and on the board all the same.
        let ballots = world.all(|event| match event {
            Event::RunFinished { key, ballots, .. } if key.symbol == btc() => Some(ballots.clone()),
            _ => None,
        });
        let said: Vec<_> = ballots[0].iter().map(|named| (&*named.voter, &named.ballot)).collect();
        let timeout = Ballot::Failed("timeout".to_owned());
        assert_eq!(said, [("model0", &timeout), ("model1", &timeout)]);
        assert_eq!(ballots[0][0].model.as_deref().unwrap().template, "trading_decision@1");
        let rows = world.status().await.voters;
        let row = rows.iter().find(|row| row.voter == "model0").unwrap();
        assert_eq!((row.votes, row.failures_by_kind["timeout"]), (2, 1), "a vote on both XRP, none on BTC");
    });
}

#[test]
fn every_ballot_of_a_model_is_recorded_with_prompt_cost_time_and_failure_and_counted() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&asked);
    let setup = thinking(3, move |ask| {
        if !is_btc(ask) {
            return Reply::Now(timed_out());
        }
        seen.borrow_mut().push(ask.0.prompt.sha256());
        match seen.borrow().len() {
            1 => Reply::After(4_000, buys(ask)),
            2 => Reply::After(29_000, timed_out()),
            _ => Reply::Now(Ok(said("I would not buy here."))),
        }
    });
    setup.play(async |world| {
        world.until(155).await;
        let signals = of(world, btc());
        assert_eq!(signals.len(), 1, "{}", world.timeline());
        let (at, signal) = &signals[0];
        assert!((149.0..150.0).contains(at), "decided when the last one had failed: {at}");
        assert_eq!((signal.voters_asked, signal.voters_valid), (3, 1));
        assert_eq!(signal.vote_class, VoteClass::InsufficientQuorum);
        let ballots: Vec<_> = signal.ballots.iter().map(|b| (&b.ballot, b.model.as_deref().unwrap())).collect();
        assert!(matches!(ballots[0].0, Ballot::Vote(vote) if vote.action == Action::Buy));
        assert_eq!(*ballots[1].0, Ballot::Failed("timeout".into()));
        assert_eq!(*ballots[2].0, Ballot::Failed("unparsable".into()));
        for ((_, call), sha) in ballots.iter().zip(asked.borrow().iter()) {
            assert_eq!((call.template.as_str(), &call.prompt_sha256), ("trading_decision@1", sha));
            assert_eq!(call.model.as_deref(), Some("p/m"));
        }
        let timing: Vec<_> = ballots.iter().map(|(_, call)| (call.latency_ms, call.cost_usd)).collect();
        assert_eq!(timing, [(4_000, dec("0.02")), (29_000, dec("0.01")), (0, dec("0.02"))]);
        assert_eq!(ballots[1].1.failures, ["p/m: timeout"]);
        let rows = world.status().await.voters;
        let row = |name: &str| rows.iter().find(|row| row.voter == name).unwrap().clone();
        // On the two other symbols each model timed out at once, and nobody voted: that counts as well.
        assert_eq!((row("model0").votes, row("model0").models.unwrap().mean_latency_ms), (1, 4_000 / 3));
        assert_eq!((row("model1").failures, row("model1").failures_by_kind["timeout"]), (3, 3));
        assert_eq!(row("model2").failures_by_kind, [("timeout".to_owned(), 2), ("unparsable".to_owned(), 1)].into());
        assert_eq!(row("model1").models.unwrap().cost_usd, dec("0.03"));
    });
}

/// One call about a mood costs about 1 USD at worst; opinions may spend 60 % of the day.
#[test]
fn a_mood_nobody_can_pay_is_skipped_and_counted_and_the_decision_goes_on() {
    for (daily, asked) in [(1, false), (10, true)] {
        let mut setup = Setup::new().with(|s| {
            priced_chain(s);
            s.agents.sentiment_analysis.news = "main".to_owned();
            s.tasks.get_mut(&TaskName::SentimentAnalysis).unwrap().enabled = true;
            s.budget.daily_usd = Decimal::from(daily);
        });
        let bytes = Bytes::default();
        setup.journal = Some(bytes.clone());
        let questions = Rc::new(RefCell::new(0));
        let seen = Rc::clone(&questions);
        setup.doubles.models = Some(Rc::new(move |_| {
            *seen.borrow_mut() += 1;
            Reply::Now(timed_out())
        }));
        setup.play(async |world| {
            world.until(130).await;
            assert_eq!(*questions.borrow() > 0, asked, "{}", world.timeline());
            let status = world.status().await;
            // Three symbols, the slot before the start and the one of the full hour.
            assert_eq!(status.skips.get("budget").copied().unwrap_or_default(), if asked { 0 } else { 6 });
            let budget = status.budget.unwrap();
            assert_eq!(budget.unpaid, if asked { vec![] } else { vec![TaskName::SentimentAnalysis] });
            assert_eq!((budget.limit_usd, budget.spent_usd), (Decimal::from(daily), Decimal::ZERO));
            let told: &[&str] = if asked { &[] } else { &["sentiment_analysis"] };
            assert_eq!(budget.exhausted, told);
            let journal = String::from_utf8(bytes.0.lock().unwrap().clone()).unwrap();
            assert_eq!(journal.matches("BudgetExhausted").count(), told.len(), "told once");
            // A mood that may still come is waited for, one that cannot is not.
            assert_eq!(world.count("RunFinished"), if asked { 0 } else { 3 }, "{}", world.timeline());
        });
    }
}

#[test]
fn a131_an_opinion_nobody_can_pay_is_the_rules_degraded_and_shown() {
    let mut setup = Setup::new().with(|s| {
        priced_chain(s);
        s.agents.technical_analysis.chain = "main".to_owned();
    });
    setup.history_hours = 60;
    setup.doubles.technical = Rc::new(|_| Reply::Pass(0));
    setup.doubles.models = Some(Rc::new(|_| {
        let unpaid = Unanswered { attempts: Vec::new(), cost_usd: Decimal::ZERO, kind: FailureKind::Budget };
        Reply::Now(Err(unpaid))
    }));
    setup.play(async |world| {
        world.until(70).await;
        let status = world.status().await;
        let opinion = |task: TaskName| {
            let line = status.tasks.iter().find(|line| line.task == task && line.symbol == btc()).unwrap();
            line.opinion.clone().map(|opinion| (opinion.path, opinion.degraded, opinion.warnings))
        };
        let by_rules = ("rules".to_owned(), true, vec!["model: budget".to_owned()]);
        let line = status.tasks.iter().find(|line| line.task == TaskName::TechnicalAnalysis);
        assert_eq!(opinion(TaskName::TechnicalAnalysis), Some(by_rules), "{line:?}");
        assert_eq!(opinion(TaskName::RegimeDetection).map(|(_, degraded, _)| degraded), Some(false));
        assert_eq!(opinion(TaskName::TradingDecision), None);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["budget"]["limit_usd"], serde_json::json!("5"), "{}", json["budget"]);
    });
}

/// A question the budget refused is a failed ballot, and no call of the voter.
#[test]
fn what_the_budget_refused_is_counted_apart_from_the_calls() {
    let unpaid = || {
        let (provider, model, message) = ("p".to_owned(), "m".to_owned(), "used up".to_owned());
        let attempt = AttemptFailure { provider, model, kind: FailureKind::Budget, message };
        Err(Unanswered { attempts: vec![attempt], cost_usd: Decimal::ZERO, kind: FailureKind::Budget })
    };
    let setup = thinking(1, move |ask| Reply::Now(if is_btc(ask) { buys(ask) } else { unpaid() }));
    setup.play(async |world| {
        world.until(130).await;
        assert_eq!(world.count("RunFinished"), 3, "{}", world.timeline());
        let rows = world.status().await.voters;
        let row = &rows[0];
        let costs = row.models.unwrap();
        assert_eq!((row.votes, row.failures, row.failures_by_kind["budget"]), (1, 2, 2));
        assert_eq!((costs.calls, costs.unasked), (1, 2));
        assert_eq!(costs.cost_usd, dec("0.02"));
    });
}

/// Models on everything a decision needs, at the shipped limits of runs and calls.
const ALL_ASK: &str = r#"
runtime.speed = 1
[chains]
main = ["p/m"]
[providers.p]
kind = "ollama"
[providers.p.models.m]
input_usd_per_1k = 0
output_usd_per_1k = 0
max_output_tokens = 800
[tasks.technical_analysis]
interval_seconds = 900
[tasks.regime_detection]
interval_seconds = 1800
[consensus.max_age_seconds]
technical_analysis = 1380
regime_detection = 2760
[bus.ttl_seconds]
ta_signals = 1380
regime_updates = 2760
[agents.technical_analysis]
chain = "main"
[agents.regime_detection]
chain = "main"
[agents.trading_decision]
voters = [
    { name = "first", kind = "model", chain = "main", enabled = true },
    { name = "second", kind = "model", chain = "main", enabled = true },
]
"#;

/// Answers every question a second later; once `hangs` is set, those about one symbol only.
fn answers_one(hangs: &Rc<Cell<bool>>) -> Http {
    let hangs = Rc::clone(hangs);
    Http::standing(Rc::new(move |_: &str, body: Option<&serde_json::Value>| {
        let (body, hangs) = (body.cloned().unwrap(), hangs.get());
        let reply: LocalBoxFuture<'static, Result<Raw, Broken>> = Box::pin(async move {
            let user = body.pointer("/messages/1/content").and_then(serde_json::Value::as_str).unwrap();
            let data: serde_json::Value = serde_json::from_str(user).unwrap();
            if hangs && data["market"]["symbol"] != "XRP/BTC" {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let form = body.pointer("/response_format/json_schema/name").and_then(serde_json::Value::as_str).unwrap();
            let text = match form {
                "technical_analysis" => {
                    r#"{"bias":"long","trend_strength":0.6,"momentum_score":0.2,"rsi_signal":"neutral",
                        "macd_signal":"bullish","support_levels":[],"resistance_levels":[],
                        "current_position":"mid_range","primary_signal":"trend","confidence":0.7,"reasoning":""}"#
                }
                "regime_detection" => r#"{"regime":"trending_bull","confidence":0.7,"reasoning":""}"#,
                "trading_decision" => r#"{"action":"HOLD","confidence":0.6,"reasoning":""}"#,
                other => panic!("nobody should ask for {other}"),
            };
            let reply = serde_json::json!({"choices": [{"finish_reason": "stop", "message": {"content": text}}]});
            Ok(Raw { status: 200, retry_after_ms: None, body: reply.to_string().into_bytes() })
        });
        reply
    }))
}

/// As shipped, two symbols whose models never answer hold their places, and there are enough for the third.
#[test]
fn two_symbols_whose_models_hang_leave_the_third_its_decision_on_time() {
    let sources = Sources { file: Some("all.toml".into()), ..Sources::default() };
    let loaded = load_with(&sources, &|_| Ok(ALL_ASK.to_owned())).unwrap_or_else(|problems| panic!("{problems}"));
    let of_places = |warning: &&String| warning.contains("set it to");
    assert_eq!(loaded.warnings.iter().find(of_places), None, "the defaults have a place for everyone");
    let hangs = Rc::new(Cell::new(false));
    let providers = Some(answers_one(&hangs));
    Setup { settings: loaded.settings, providers, ..Setup::shipped() }.play(async |world| {
        world.until(119).await;
        assert_eq!(world.count("SignalReceived"), 0, "{}", world.timeline());
        hangs.set(true);
        // An opinion, a regime and the votes, a second each; nobody else ends before half a minute.
        world.until(120 + 8).await;
        let on_time = of(world, sym("XRP/BTC"));
        assert_eq!((on_time.len(), world.count("SignalReceived")), (1, 1), "{}", world.timeline());
        assert_eq!((on_time[0].1.voters_asked, on_time[0].1.voters_valid), (2, 2));
        // The others decide without their models: failures, not votes.
        world.until(120 + 170).await;
        assert!(of(world, btc()).iter().all(|(_, signal)| signal.voters_valid == 0), "{}", world.timeline());
    });
}
