//! Model voters beside the rules voters: failures count as failures, and the vote goes on.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rust_decimal_macros::dec;

use super::*;
use crate::{
    agents::{
        Answer,
        answers::ground::Tolerance,
        fixtures::*,
        trading_decision::{DecisionRules, decide_with},
    },
    llm::question::FailureKind,
    model::*,
};

const BUY: &str =
    r#"{"action":"BUY","confidence":0.7,"entry":100,"stop":98,"target":104,"position_size_pct":8,"reasoning":""}"#;

fn ground() -> Ground {
    let tolerance = Tolerance { price_pct: dec!(10), indicator_pct: 2.0 };
    Ground::of(&snapshot(btc(), quiet()), &[btc(), xrp()], tolerance).unwrap()
}

fn said(text: &str) -> Result<Answered, Unanswered> {
    Ok(Answered {
        text: text.to_owned(),
        reasoning: None,
        provider: "double".to_owned(),
        model: "m".to_owned(),
        input_tokens: 1,
        output_tokens: 1,
        cost_usd: Money::ZERO,
        took_ms: 1,
        before: Vec::new(),
        prompt_sha256: String::new(),
    })
}

fn silent(kind: FailureKind) -> Result<Answered, Unanswered> {
    Err(Unanswered { attempts: Vec::new(), cost_usd: Money::ZERO, kind })
}

fn decided(ctx: &RunContext, models: &[Reply]) -> Answer<Signal> {
    // Five rules voters hold, one buys.
    let snapshot = snapshot(btc(), Indicators { supertrend_up: Some(true), ..quiet() });
    let decision = decision_settings();
    let inputs = DecisionInputs { snapshot: &snapshot, ta: None, regime: None, sentiment: None, position: None };
    let rules = DecisionRules { decision: &decision, regimes: &regimes(), stop: &stop_settings(), symbol: &cents() };
    decide_with(ctx, &inputs, &rules, models)
}

#[test]
fn a_failure_is_a_failed_ballot_with_its_kind_and_never_hold() {
    let kinds = [("I would not buy here", "unparsable"), ("", "empty"), ("{\"action\":", "truncated")];
    for (text, kind) in kinds {
        assert_eq!(ballot(&said(text), &ground()), Ballot::Failed(kind.to_owned()));
    }
    assert_eq!(ballot(&silent(FailureKind::Budget), &ground()), Ballot::Failed("budget".to_owned()));
    assert!(matches!(ballot(&said(BUY), &ground()), Ballot::Vote(vote) if vote.action == Action::Buy));
}

#[test]
fn a072_a_silent_and_a_late_model_are_late_and_the_others_decide() {
    let mut ctx = context(btc());
    ctx.now = ctx.started_at.plus_ms(30_000);
    let late = ctx.started_at.plus_ms(30_001);
    let models = [
        Reply { voter: "hung".into(), ballot: None, call: None },
        Reply { voter: "slow".into(), ballot: Some((ballot(&said(BUY), &ground()), late)), call: None },
        Reply { voter: "good".into(), ballot: Some((ballot(&said(BUY), &ground()), ctx.now)), call: None },
    ];
    let signal = decided(&ctx, &models).output().unwrap();
    assert_eq!((signal.voters_asked, signal.voters_valid), (9, 7));
    let of = |name: &str| &signal.ballots.iter().find(|named| &*named.voter == name).unwrap().ballot;
    assert_eq!(*of("hung"), Ballot::Failed("late".to_owned()));
    assert_eq!(*of("slow"), Ballot::Failed("late".to_owned()));
    assert!(matches!(of("good"), Ballot::Vote(_)));
}

#[test]
fn the_question_carries_its_own_check_and_is_the_same_for_the_same_inputs() {
    let snapshot = snapshot(btc(), quiet());
    let inputs = DecisionInputs { snapshot: &snapshot, ta: None, regime: None, sentiment: None, position: None };
    let ask = |now: Ts| {
        let ctx = RunContext { now, started_at: now, ..context(btc()) };
        question("main", &ctx, &inputs, &[], &BTreeMap::new(), &ground(), now.plus_ms(30_000))
    };
    let asked = ask(NOW);
    assert_eq!(asked.prompt, ask(NOW.plus_ms(5)).prompt);
    assert!((asked.check)(BUY).is_ok());
    assert_eq!((asked.check)("BUY").unwrap_err().kind, FailureKind::Unparsable);
    assert_eq!(asked.prompt.template, "trading_decision@1");
}

/// 30 days of hourly decisions over pure rules: half of the replies of two model voters fail at random.
#[test]
fn half_of_the_models_replies_fail_and_every_count_adds_up() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let failures = [said("buy"), said("{"), said("[]"), silent(FailureKind::Timeout), silent(FailureKind::Budget)];
    let (mut valid, mut failed, mut decisions) = (0_u32, 0_u32, 0_u32);
    for _ in 0..30 * 24 {
        let mut healthy = 0;
        let models = ["one", "two"].map(|name| {
            let reply = if random.random_bool(0.5) {
                failures[random.random_range(0..failures.len())].clone()
            } else {
                healthy += 1;
                said(BUY)
            };
            Reply { voter: name.into(), ballot: Some((ballot(&reply, &ground()), NOW)), call: None }
        });
        let signal = decided(&context(btc()), &models).output().unwrap();
        assert_eq!((signal.voters_asked, signal.voters_valid), (8, 6 + healthy), "seed {seed}");
        assert_eq!(signal.action, Action::Hold, "five rules voters hold, seed {seed}");
        for name in ["one", "two"] {
            match &signal.ballots.iter().find(|named| &*named.voter == name).unwrap().ballot {
                Ballot::Vote(vote) => {
                    assert_eq!(vote.action, Action::Buy, "a failure in disguise, seed {seed}");
                    valid += 1;
                }
                Ballot::Failed(_) => failed += 1,
                Ballot::Abstain(reason) => panic!("{name} abstained: {reason}, seed {seed}"),
            }
        }
        decisions += 1;
    }
    assert_eq!((valid + failed, decisions), (2 * 720, 720), "seed {seed}");
    assert!(failed > 0 && valid > 0, "seed {seed}");
}
