//! The resolver in virtual time: its limit, its errors, its bounds.

use std::time::Duration;

use actix::ResponseFuture;

use super::*;
use crate::{
    llm::{actor::AskModel, question::FailureKind},
    model::{Clock, ConflictKind, Modifications, Money, ResolutionAction, Ts},
    risk::fixtures::{conflicts, dec, score, sym},
    runtime::{
        placement::run_virtual,
        supervisor::{Policy, supervise},
    },
};

const START: Ts = Ts(1_767_787_200_000);

/// A resolver that hangs for BTC/USDT, panics for XRP/USDT and says this otherwise.
struct Double(ResolverReply);

impl Actor for Double {
    type Context = Context<Self>;
}
impl Supervised for Double {}
impl Worker for Double {}

impl Handler<Resolve> for Double {
    type Result = ResponseFuture<ResolverReply>;
    fn handle(&mut self, question: Resolve, _: &mut Context<Self>) -> Self::Result {
        let reply = self.0.clone();
        match question.symbol.to_string().as_str() {
            "BTC/USDT" => Box::pin(std::future::pending()),
            "XRP/USDT" => panic!("a broken resolver"),
            _ => Box::pin(async { reply }),
        }
    }
}

fn question(symbol: &str, kind: ConflictKind) -> Resolve {
    Resolve {
        decision: DecisionId::default(),
        symbol: sym(symbol),
        side: Side::Buy,
        confidence: score("0.7"),
        entry: dec("100"),
        stop: Some(dec("97")),
        target: Some(dec("106")),
        leverage: 1,
        until: START.plus_ms(10_000),
        ask_models: true,
        conflicts: vec![Conflict { kind, facts: String::new() }],
    }
}

/// Settles in virtual time; the resolution and the milliseconds it took.
fn settled(symbol: &'static str, kind: ConflictKind, reply: ResolverReply) -> (Resolution, i64) {
    run_virtual(START, |place| async move {
        let resolver = supervise("double", Policy::default(), move || Double(reply.clone()), |_| ()).recipient();
        let settled = settle(&resolver, question(symbol, kind), &place.clock, &conflicts()).await;
        (settled, place.clock.now().since_ms(START))
    })
    .unwrap()
}

fn says(action: ResolutionAction, confidence: &str, modifications: Option<Modifications>) -> ResolverReply {
    ResolverReply::Answer(ResolverAnswer {
        by: "double".to_owned(),
        action,
        confidence: score(confidence),
        modifications,
        errors: Vec::new(),
        call: None,
    })
}

#[test]
fn a059_a_hanging_resolver_ends_at_its_limit_with_the_fallback_and_its_error() {
    let silent = ResolverReply::Failed(Vec::new(), None);
    let (resolution, took) = settled("BTC/USDT", ConflictKind::RegimeConflict, silent.clone());
    assert_eq!((resolution.action, took), (ResolutionAction::Abort, 10_000));
    assert_eq!(resolution.by, "fallback");
    assert!(resolution.errors[0].contains("10000 ms"), "{:?}", resolution.errors);
    let (resolution, _) = settled("BTC/USDT", ConflictKind::TaSentimentConflict, silent);
    assert_eq!(resolution.action, ResolutionAction::Wait);
}

#[test]
fn a059_other_symbols_go_on_meanwhile() {
    let took = run_virtual(START, |place| async move {
        let reply = says(ResolutionAction::Proceed, "0.9", None);
        let resolver: Recipient<Resolve> =
            supervise("double", Policy::default(), move || Double(reply.clone()), |_| ()).recipient();
        let (settings, clock) = (conflicts(), place.clock);
        let ask = async |symbol| {
            let question = question(symbol, ConflictKind::RegimeConflict);
            settle(&resolver, question, &clock, &settings).await;
            clock.now().since_ms(START)
        };
        futures_util::future::join(ask("BTC/USDT"), ask("XRP/BTC")).await
    });
    assert_eq!(took.unwrap(), (10_000, 0));
}

#[test]
fn a060_f14_every_error_is_kept_and_a_panic_is_one() {
    let errors = vec!["first: refused".to_owned(), "second: timeout".to_owned()];
    let failed = ResolverReply::Failed(errors.clone(), None);
    for (kind, action) in [
        (ConflictKind::TaSentimentConflict, ResolutionAction::Wait),
        (ConflictKind::RegimeConflict, ResolutionAction::Abort),
    ] {
        let (resolution, _) = settled("XRP/BTC", kind, failed.clone());
        assert_eq!((resolution.action, &resolution.errors), (action, &errors));
    }
    let (resolution, took) = settled("XRP/USDT", ConflictKind::RegimeConflict, failed);
    assert_eq!((resolution.action, resolution.errors.len(), took), (ResolutionAction::Abort, 1, 0));
}

#[test]
fn a061_a062_a064_answers_are_bounded_before_they_count() {
    let everything = Modifications { size_reduction_pct: Some(score("100")), ..Modifications::default() };
    for (reply, action, errors) in [
        (says(ResolutionAction::Proceed, "7", None), ResolutionAction::Abort, 1),
        (says(ResolutionAction::Modify, "0.9", None), ResolutionAction::Abort, 1),
        (says(ResolutionAction::Modify, "0.9", Some(everything)), ResolutionAction::Abort, 0),
        (says(ResolutionAction::Proceed, "0.29", None), ResolutionAction::Wait, 0),
        (says(ResolutionAction::Proceed, "0.30", None), ResolutionAction::Proceed, 0),
    ] {
        let (resolution, _) = settled("XRP/BTC", ConflictKind::RegimeConflict, reply.clone());
        assert_eq!((resolution.action, resolution.errors.len()), (action, errors), "{reply:?}");
    }
}

/// A router that thinks for so long in virtual time and then says this.
struct Thinker(i64, Result<Answered, Unanswered>);

impl Actor for Thinker {
    type Context = Context<Self>;
}

impl actix::Handler<AskModel> for Thinker {
    type Result = ResponseFuture<Result<Answered, Unanswered>>;
    fn handle(&mut self, asked: AskModel, _: &mut Context<Self>) -> Self::Result {
        assert_eq!(asked.0.chain, "judges");
        assert!(asked.0.prompt.user.contains("untrusted"), "{}", asked.0.prompt.user);
        let (pause, answer) = (Duration::from_millis(self.0.unsigned_abs()), self.1.clone());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            answer
        })
    }
}

fn failure(provider: &str, kind: FailureKind) -> AttemptFailure {
    AttemptFailure { provider: provider.into(), model: "m".into(), kind, message: String::new() }
}

fn answered(text: &str, before: Vec<AttemptFailure>) -> Result<Answered, Unanswered> {
    Ok(Answered {
        text: text.to_owned(),
        reasoning: None,
        provider: "second".into(),
        model: "m".into(),
        input_tokens: 1,
        output_tokens: 1,
        cost_usd: Money::ZERO,
        took_ms: 1,
        before,
        prompt_sha256: String::new(),
    })
}

/// What the real actor settles when its chain thinks for `thinks_ms`.
fn judged(thinks_ms: i64, answer: Result<Answered, Unanswered>, ask_models: bool) -> (Resolution, i64) {
    run_virtual(START, move |place| async move {
        let mut settings = crate::settings::load(&crate::settings::Sources::default()).unwrap().settings;
        settings.conflicts = conflicts();
        settings.conflicts.chain = "judges".to_owned();
        let settings = Rc::new(settings);
        let thinker = Thinker(thinks_ms, answer).start();
        let models = Models::through(thinker.recipient(), place.clock.clone());
        let own = Rc::clone(&settings);
        let make = move || ConflictResolver::new(Rc::clone(&own), models.clone());
        let resolver = supervise("conflict_resolver", Policy::default(), make, |_| ()).recipient();
        let asked = Resolve { ask_models, ..question("BTC/USDT", ConflictKind::RebalanceConflict) };
        let settled = settle(&resolver, asked, &place.clock, &settings.conflicts).await;
        (settled, place.clock.now().since_ms(START))
    })
    .unwrap()
}

const SMALLER: &str = r#"{"action":"modify","confidence":0.8,"reasoning":"x","modifications":
    {"leverage":5,"size_reduction_pct":40,"entry_adjustment_pct":-9}}"#;

#[test]
fn f14_a_models_answer_settles_within_its_bounds_and_the_errors_of_those_before_are_kept() {
    let before = vec![failure("first", FailureKind::Timeout)];
    let (settled, took) = judged(6_000, answered(SMALLER, before), true);
    assert_eq!((settled.action, took), (ResolutionAction::Modify, 6_000));
    assert_eq!((settled.by.as_str(), settled.errors.as_slice()), ("second/m", &["first/m: timeout".to_owned()][..]));
    let changes = settled.modifications.unwrap();
    assert_eq!((changes.leverage, changes.entry_adjustment_pct), (Some(1), Some(score("-2"))));
    let call = settled.model.unwrap();
    assert_eq!((call.template.as_str(), call.latency_ms), ("conflict_resolution@1", 6_000));
}

#[test]
fn f14_everyone_failing_is_the_fallback_with_every_error_and_never_a_resolution() {
    let attempts = vec![failure("first", FailureKind::Timeout), failure("second", FailureKind::Unparsable)];
    let nobody = Err(Unanswered { attempts, cost_usd: Money::ZERO, kind: FailureKind::Unparsable });
    let (settled, _) = judged(20, nobody, true);
    assert_eq!((settled.action, settled.by.as_str()), (ResolutionAction::Proceed, "fallback"));
    assert_eq!(settled.errors, ["first/m: timeout", "second/m: unparsable"]);
    let (settled, _) = judged(20, answered("you should proceed", Vec::new()), true);
    assert_eq!(settled.by, "fallback");
    assert!(settled.errors[0].starts_with("second/m: unparsable"), "{:?}", settled.errors);
    let (settled, took) = judged(60_000, answered(SMALLER, Vec::new()), true);
    assert_eq!((settled.by.as_str(), settled.errors.len()), ("fallback", 1));
    assert!(took <= 10_000, "{took}");
}

#[test]
fn a_level_that_forbids_models_waits_and_asks_nobody() {
    let (settled, took) = judged(5_000, answered(SMALLER, Vec::new()), false);
    assert_eq!((settled.action, settled.by.as_str(), took), (ResolutionAction::Wait, "fallback", 0));
    assert_eq!(settled.model, None);
}
