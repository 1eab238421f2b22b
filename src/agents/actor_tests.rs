//! Whether a model is asked at all.

use std::cell::Cell;

use actix::ResponseFuture;

use super::*;
use crate::{
    agents::fixtures::*,
    llm::{
        actor::AskModel,
        question::{Answered, FailureKind, Unanswered},
    },
    model::{Ballot, Money},
    runtime::clock::LogicalClock,
    settings::{VoterKind, VoterSettings},
};

/// Counts its questions and answers none.
struct Counter(Rc<Cell<u32>>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<AskModel> for Counter {
    type Result = ResponseFuture<Result<Answered, Unanswered>>;
    fn handle(&mut self, _: AskModel, _: &mut Context<Self>) -> Self::Result {
        self.0.set(self.0.get() + 1);
        let nobody = Unanswered { attempts: Vec::new(), cost_usd: Money::ZERO, kind: FailureKind::Budget };
        Box::pin(async move { Err(nobody) })
    }
}

/// Questions asked, and the models' ballots; six voters by rules stand beside two models.
async fn polled(snapshot: &Snapshot, ask_models: bool) -> (u32, Vec<Ballot>, Answer<Signal>) {
    let mut settings = Settings::defaults();
    for name in ["one", "two"] {
        let (kind, chain) = (VoterKind::Model, Some("main".to_owned()));
        let voter = VoterSettings { name: name.to_owned(), kind, strategy: None, chain, enabled: true };
        settings.agents.trading_decision.voters.push(voter);
    }
    let asked = Rc::new(Cell::new(0));
    let router = Counter(Rc::clone(&asked)).start().recipient();
    let models = Models::through(router, LogicalClock::start(NOW, 1));
    let agent = TradingDecision::new(Rc::new(settings), models).start();
    let snapshot = Arc::new(snapshot.clone());
    let ctx = context(btc());
    let run = RunTrading { ctx, snapshot, ta: None, regime: None, sentiment: None, position: None, ask_models };
    let answer = agent.send(run).await.unwrap();
    let ballots = match &answer {
        Answer::Output(signal) => {
            signal.ballots.iter().filter(|b| ["one", "two"].contains(&&*b.voter)).map(|b| b.ballot.clone()).collect()
        }
        _ => Vec::new(),
    };
    (asked.get(), ballots, answer)
}

#[actix_rt::test]
async fn at_a_level_that_forbids_it_no_model_is_asked_and_none_is_left_out() {
    let (asked, ballots, answer) = polled(&snapshot(btc(), quiet()), false).await;
    assert_eq!((asked, ballots), (0, vec![Ballot::Failed("degraded".to_owned()); 2]));
    assert_eq!(answer.output().map(|signal| signal.voters_asked), Some(8));
    let (asked, ballots, _) = polled(&snapshot(btc(), quiet()), true).await;
    assert_eq!((asked, ballots), (2, vec![Ballot::Failed("budget".to_owned()); 2]));
}

#[actix_rt::test]
async fn nothing_is_asked_about_a_snapshot_nobody_may_use() {
    // The run is of another symbol than its snapshot.
    let (asked, _, answer) = polled(&snapshot(xrp(), quiet()), true).await;
    assert!(matches!(answer, Answer::Failed(_)));
    assert_eq!(asked, 0);
}
