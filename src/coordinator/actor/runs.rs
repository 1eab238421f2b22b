//! One run from start to report: claim, snapshot, agent, answer. Runs outside the coordinator's mailbox and comes back
//! as one message; aborting it is always safe because agents have no side effects.

use std::{pin::Pin, rc::Rc, sync::Arc};

use actix::{Addr, Message, dev::Request};
use tokio::time::timeout_at;

use super::{
    Coordinator, Links,
    schedule::{RunReport, RunRequest},
};
use crate::{
    agents::{
        actor::{RunPortfolio, RunRegime, RunSentiment, RunTechnical, RunTrading},
        contract::{Answer, RunContext},
        portfolio_rebalance::PortfolioOutput,
        portfolio_view::PortfolioView,
    },
    coordinator::degradation,
    market::actor::ReadSnapshot,
    model::{
        Clock, DegradationLevel, FailCause, FailClass, NamedBallot, RegimeOutput, RunOutcome, SentimentOutput, Signal,
        Snapshot, TaOutput, TaskName, Ts,
    },
    risk::board::Prices,
    runtime::{clock::LogicalClock, failpoint, post::post},
    settings::Settings,
    store::{
        actor::{Commit, StoreActor},
        view::StateView,
    },
};

/// An answer worth keeping until the scheduler has accepted its run.
pub enum Reply {
    /// An opinion.
    Technical(Arc<TaOutput>),
    /// An opinion.
    Regime(Arc<RegimeOutput>),
    /// An opinion.
    Sentiment(Arc<SentimentOutput>),
    /// A signal with the snapshot it was made from.
    Signal(Box<Signal>, Arc<Snapshot>),
    /// A plan or none.
    Portfolio(Box<PortfolioOutput>),
    /// The ballots of a poll in which nobody voted; its run has abstained.
    NoVotes(Vec<NamedBallot>),
}

/// A run without output.
struct Without {
    outcome: RunOutcome,
    ballots: Vec<NamedBallot>,
}

impl From<RunOutcome> for Without {
    fn from(outcome: RunOutcome) -> Without {
        Without { outcome, ballots: Vec::new() }
    }
}

/// A run is over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Arrived {
    /// For the scheduler.
    pub report: RunReport,
    /// Present for outputs.
    pub reply: Option<Reply>,
}

/// What a run may read, fixed when it starts.
pub struct Supply {
    /// What the program is told.
    pub settings: Rc<Settings>,
    /// Logical time.
    pub clock: LogicalClock,
    /// Newest durable state.
    pub view: StateView,
    /// Newest prices.
    pub prices: Prices,
    /// Degradation level when the run starts.
    pub level: DegradationLevel,
    /// Accepted opinion of the run's symbol.
    pub ta: Option<Arc<TaOutput>>,
    /// Accepted opinion of the run's symbol.
    pub regime: Option<Arc<RegimeOutput>>,
    /// Accepted opinion of the run's symbol.
    pub sentiment: Option<Arc<SentimentOutput>>,
}

/// The claim of a run, on its way to the store. Most runs have none, so it is no part of every run.
pub type Claim = Pin<Box<Request<StoreActor, Commit>>>;

/// Performs a run and reports to `coordinator`.
pub async fn perform(
    request: RunRequest,
    claim: Option<Claim>,
    links: Rc<Links>,
    supply: Supply,
    coordinator: Addr<Coordinator>,
) {
    let (outcome, as_of, reply) = match attempt(&request, claim, &links, &supply).await {
        Ok((reply, as_of)) => (RunOutcome::Succeeded, as_of, Some(reply)),
        Err(Without { outcome, ballots }) => {
            let reply = (!ballots.is_empty()).then_some(Reply::NoVotes(ballots));
            (outcome, supply.clock.now(), reply)
        }
    };
    failpoint::effect("run.arrived", request.key.task.name());
    let report = RunReport { id: request.id, run_id: request.run_id, outcome, as_of };
    post("coordinator", &coordinator, Arrived { report, reply });
}

async fn attempt(
    request: &RunRequest,
    claim: Option<Claim>,
    links: &Links,
    supply: &Supply,
) -> Result<(Reply, Ts), Without> {
    if let Some(claim) = claim {
        match claim.await {
            Ok(Ok(_)) => failpoint::effect("run.claimed", request.key.task.name()),
            Ok(Err(refused)) => return Err(failed(FailClass::Validation, refused.to_string()).into()),
            Err(_) => return Err(failed(FailClass::Halted, "the store does not answer".to_owned()).into()),
        }
    }
    let symbol = request.key.symbol;
    let mut ctx = RunContext {
        run_id: request.run_id,
        slot: request.slot.clone(),
        symbol,
        as_of: supply.clock.now(),
        started_at: request.started_at,
        now: supply.clock.now(),
        degraded: false,
    };
    let mut snapshot = None;
    if !matches!(request.key.task, TaskName::SentimentAnalysis | TaskName::PortfolioRebalance) {
        let read = links.snapshots.send(ReadSnapshot { symbol, by: request.snapshot_deadline });
        let answered = match request.snapshot_deadline {
            Some(at) => timeout_at(supply.clock.instant_at(at), read)
                .await
                .map_err(|_| RunOutcome::TimedOut("snapshot".into()))?,
            None => read.await,
        };
        let read = answered.map_err(|_| failed(FailClass::Transient, "the market does not answer".to_owned()))?;
        let read = read.ok_or_else(|| RunOutcome::Abstained("data_stale".into()))?;
        ctx.as_of = read.as_of;
        ctx.now = supply.clock.now();
        snapshot = Some(read);
    }
    failpoint::effect("run.ask", request.key.task.name());
    ask(request, ctx, snapshot, links, supply).await
}

async fn ask(
    request: &RunRequest,
    ctx: RunContext,
    snapshot: Option<Arc<Snapshot>>,
    links: &Links,
    supply: &Supply,
) -> Result<(Reply, Ts), Without> {
    let as_of = ctx.as_of;
    let ask_models = degradation::allows_model_opinions(supply.level);
    let stale = || RunOutcome::Abstained("data_stale".into());
    match request.key.task {
        TaskName::TechnicalAnalysis => {
            let run = RunTechnical { ctx, snapshot: snapshot.ok_or_else(stale)?, ask_models };
            let output = output(links.technical.send(run).await)?;
            Ok((Reply::Technical(Arc::from(output)), as_of))
        }
        TaskName::RegimeDetection => {
            let (previous, ta) = (supply.regime.clone(), supply.ta.clone());
            let run = RunRegime { ctx, snapshot: snapshot.ok_or_else(stale)?, previous, ta, ask_models };
            let output = output(links.regime.send(run).await)?;
            Ok((Reply::Regime(Arc::from(output)), as_of))
        }
        TaskName::SentimentAnalysis => {
            let output = output(links.sentiment.send(RunSentiment { ctx, ask_models }).await)?;
            Ok((Reply::Sentiment(Arc::from(output)), as_of))
        }
        // What they carry would make the future of every run, which is moved whole, as large as the largest.
        TaskName::TradingDecision => {
            let reply = Box::pin(ask_voters(ctx, snapshot.ok_or_else(stale)?, links, supply)).await?;
            Ok((reply, as_of))
        }
        TaskName::PortfolioRebalance => Ok((Box::pin(ask_allocator(ctx, links, supply)).await?, as_of)),
    }
}

async fn ask_voters(
    ctx: RunContext,
    snapshot: Arc<Snapshot>,
    links: &Links,
    supply: &Supply,
) -> Result<Reply, Without> {
    let position = supply.view.read().positions.values().find(|held| held.symbol == ctx.symbol).cloned();
    let ask_models = degradation::allows_model_voters(supply.level, position.is_some());
    let run = RunTrading {
        ctx,
        snapshot: Arc::clone(&snapshot),
        ta: supply.ta.clone(),
        regime: supply.regime.clone(),
        sentiment: supply.sentiment.clone(),
        position,
        ask_models,
    };
    Ok(Reply::Signal(output(links.trading.send(run).await)?, snapshot))
}

async fn ask_allocator(ctx: RunContext, links: &Links, supply: &Supply) -> Result<Reply, Without> {
    let run = {
        let state = supply.view.read();
        let prices = supply.prices.read();
        let newest = prices.ticks.values().copied();
        let currency = supply.settings.account_currency;
        let view = PortfolioView::of(&state.account, &state.positions, newest, currency);
        // A model for the pace is off where no plan may be made: from LIMITED on (resilience §2).
        let ask_models = degradation::allows_model_voters(supply.level, false);
        RunPortfolio { ctx, store: state.meta.store, view, plans: state.plans.clone(), ask_models }
    };
    Ok(Reply::Portfolio(output(links.portfolio.send(run).await)?))
}

/// A closed mailbox in the middle of a request means that the agent panicked on it.
fn output<T>(answer: Result<Answer<T>, actix::MailboxError>) -> Result<Box<T>, Without> {
    match answer {
        Ok(Answer::Output(output)) => Ok(output),
        Ok(Answer::Abstain(reason)) => Err(RunOutcome::Abstained(reason.into_owned()).into()),
        Ok(Answer::NoVotes(reason, ballots)) => {
            Err(Without { outcome: RunOutcome::Abstained(reason.into_owned()), ballots })
        }
        Ok(Answer::Failed(cause)) => Err(RunOutcome::Failed(cause).into()),
        Err(_) => Err(failed(FailClass::Panic, "the agent panicked on this run".to_owned()).into()),
    }
}

fn failed(class: FailClass, message: String) -> RunOutcome {
    RunOutcome::Failed(FailCause { class, message })
}
