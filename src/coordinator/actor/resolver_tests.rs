//! The resolver in virtual time: its limit, its errors, its bounds.

use actix::ResponseFuture;

use super::*;
use crate::{
    model::{ConflictKind, Modifications, ResolutionAction, Ts},
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
        conflicts: vec![Conflict { kind, facts: String::new() }],
    }
}

/// Settles in virtual time; the resolution and the milliseconds it took.
fn settled(symbol: &'static str, kind: ConflictKind, reply: ResolverReply) -> (Resolution, i64) {
    run_virtual(START, |place| async move {
        let resolver = supervise("double", Policy::default(), move || Double(reply.clone()), |_| ()).recipient();
        let settled = settle(&resolver, question(symbol, kind), 1, &place.clock, &conflicts()).await;
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
    })
}

#[test]
fn a059_a_hanging_resolver_ends_at_its_limit_with_the_fallback_and_its_error() {
    let silent = ResolverReply::Failed(Vec::new());
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
            settle(&resolver, question, 1, &clock, &settings).await;
            clock.now().since_ms(START)
        };
        futures_util::future::join(ask("BTC/USDT"), ask("XRP/BTC")).await
    });
    assert_eq!(took.unwrap(), (10_000, 0));
}

#[test]
fn a060_f14_every_error_is_kept_and_a_panic_is_one() {
    let errors = vec!["first: refused".to_owned(), "second: timeout".to_owned()];
    let failed = ResolverReply::Failed(errors.clone());
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
