//! The agents as actors: one mailbox each, under the project's supervisor. They answer with values and do nothing else.
//!
//! An agent's memory travels with its inputs (the last accepted regime output carries the hysteresis), so a restarted
//! actor has lost nothing.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix::{Actor, ActorResponse, Context, Handler, Message, MessageResult, Supervised, WrapFuture};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    answers::ground::{Ground, Tolerance},
    contract::{Answer, RunContext},
    model_voter::{self, Reply},
    portfolio_rebalance::{self, PortfolioInputs, PortfolioOutput},
    portfolio_view::PortfolioView,
    regime_detection, sentiment_analysis, technical_analysis,
    trading_decision::{self, DecisionInputs, DecisionRules},
};
use crate::{
    llm::actor::Models,
    model::{FailCause, FailClass, Plan, Position, RegimeOutput, SentimentOutput, Signal, Snapshot, TaOutput},
    runtime::supervisor::Worker,
    settings::Settings,
};

macro_rules! agent {
    ($(#[$meta:meta])* $actor:ident) => {
        $(#[$meta])*
        pub struct $actor {
            settings: Rc<Settings>,
            models: Models,
        }
        impl $actor {
            /// A fresh agent; it has no state but its settings and the models it may ask.
            pub fn new(settings: Rc<Settings>, models: Models) -> Self {
                Self { settings, models }
            }
        }
        impl Actor for $actor {
            type Context = Context<Self>;
        }
        impl Supervised for $actor {}
        impl Worker for $actor {}
    };
}

agent!(
    /// The technical analyst.
    TechnicalAnalysis
);
agent!(
    /// The regime detector.
    RegimeDetection
);
agent!(
    /// The sentiment reader; without a provider it abstains.
    SentimentAnalysis
);
agent!(
    /// The voters and their vote.
    TradingDecision
);
agent!(
    /// The allocator.
    PortfolioRebalance
);

/// Asks for an opinion on one snapshot.
#[derive(Message)]
#[rtype(result = "Answer<TaOutput>")]
pub struct RunTechnical {
    /// Which run.
    pub ctx: RunContext,
    /// What to look at.
    pub snapshot: Arc<Snapshot>,
}

impl Handler<RunTechnical> for TechnicalAnalysis {
    type Result = MessageResult<RunTechnical>;
    fn handle(&mut self, run: RunTechnical, _: &mut Context<Self>) -> Self::Result {
        let settings = &self.settings;
        MessageResult(match settings.market.symbol.get(&run.ctx.symbol) {
            Some(rules) => {
                technical_analysis::analyse(&run.ctx, &run.snapshot, rules, &settings.agents.technical_analysis)
            }
            None => unknown_symbol(&run.ctx),
        })
    }
}

/// Asks for a regime.
#[derive(Message)]
#[rtype(result = "Answer<RegimeOutput>")]
pub struct RunRegime {
    /// Which run.
    pub ctx: RunContext,
    /// What to look at.
    pub snapshot: Arc<Snapshot>,
    /// The last accepted output of the same symbol: the memory of the hysteresis.
    pub previous: Option<Arc<RegimeOutput>>,
}

impl Handler<RunRegime> for RegimeDetection {
    type Result = MessageResult<RunRegime>;
    fn handle(&mut self, run: RunRegime, _: &mut Context<Self>) -> Self::Result {
        let settings = &self.settings.agents.regime_detection;
        MessageResult(regime_detection::detect(&run.ctx, &run.snapshot, run.previous.as_deref(), settings))
    }
}

/// Asks for the mood around one asset.
#[derive(Message)]
#[rtype(result = "Answer<SentimentOutput>")]
pub struct RunSentiment;

impl Handler<RunSentiment> for SentimentAnalysis {
    type Result = MessageResult<RunSentiment>;
    fn handle(&mut self, _: RunSentiment, _: &mut Context<Self>) -> Self::Result {
        MessageResult(sentiment_analysis::analyse())
    }
}

/// Asks for a signal. All inputs by value: accepted outputs of the same symbol and the own position in it.
#[derive(Message)]
#[rtype(result = "Answer<Signal>")]
pub struct RunTrading {
    /// Which run.
    pub ctx: RunContext,
    /// What to look at.
    pub snapshot: Arc<Snapshot>,
    /// Accepted technical opinion.
    pub ta: Option<Arc<TaOutput>>,
    /// Accepted regime.
    pub regime: Option<Arc<RegimeOutput>>,
    /// Accepted mood.
    pub sentiment: Option<Arc<SentimentOutput>>,
    /// Own position in the symbol.
    pub position: Option<Position>,
    /// Whether the degradation level lets voters ask their models.
    pub ask_models: bool,
}

impl RunTrading {
    fn inputs(&self) -> DecisionInputs<'_> {
        DecisionInputs {
            snapshot: &self.snapshot,
            ta: self.ta.as_deref(),
            regime: self.regime.as_deref(),
            sentiment: self.sentiment.as_deref(),
            position: self.position.as_ref(),
        }
    }

    fn decided(&self, ctx: &RunContext, settings: &Settings, models: &[Reply]) -> Answer<Signal> {
        let Some(symbol) = settings.market.symbol.get(&ctx.symbol) else {
            return unknown_symbol(ctx);
        };
        let rules = DecisionRules {
            decision: &settings.agents.trading_decision,
            regimes: &settings.regimes,
            stop: &settings.risk.stop,
            symbol,
        };
        trading_decision::decide_with(ctx, &self.inputs(), &rules, models)
    }
}

/// Rules answer at once; while models think, the actor goes on with other symbols, and its end ends the thinking.
impl Handler<RunTrading> for TradingDecision {
    type Result = ActorResponse<Self, Answer<Signal>>;
    fn handle(&mut self, run: RunTrading, _: &mut Context<Self>) -> Self::Result {
        let (settings, inputs) = (&self.settings, run.inputs());
        let mut voters = model_voter::voters(&settings.agents.trading_decision).peekable();
        let tolerance = Tolerance::from(&settings.agents.grounding);
        let ground = Ground::of(&run.snapshot, &settings.symbols, tolerance);
        let (Some(_), Some(ground), true) = (voters.peek(), ground, trading_decision::is_ready(&run.ctx, &inputs))
        else {
            return ActorResponse::reply(run.decided(&run.ctx, settings, &[]));
        };
        if !run.ask_models {
            let unasked: Vec<Reply> = voters.map(|(name, _)| model_voter::forbidden(name, run.ctx.now)).collect();
            return ActorResponse::reply(run.decided(&run.ctx, settings, &unasked));
        }
        let asked = model_voter::questions(&run.ctx, &inputs, &settings.agents, &ground);
        let (models, settings) = (self.models.clone(), Rc::clone(settings));
        let thinking = async move {
            let replies = join_all(asked.iter().map(async |asked| {
                let answer = models.ask(asked.question.clone()).await;
                model_voter::reply(asked, &answer, &ground, models.now_or(run.ctx.now))
            }));
            let replies = replies.await;
            run.decided(&run.ctx, &settings, &replies)
        };
        ActorResponse::r#async(thinking.into_actor(self))
    }
}

/// Asks whether the allocation needs a plan.
#[derive(Message)]
#[rtype(result = "Answer<PortfolioOutput>")]
pub struct RunPortfolio {
    /// Which run.
    pub ctx: RunContext,
    /// Store identity, part of plan id and trade keys.
    pub store: Uuid,
    /// The account by value.
    pub view: PortfolioView,
    /// The active plan and the last ended ones.
    pub plans: BTreeMap<Uuid, Plan>,
}

impl Handler<RunPortfolio> for PortfolioRebalance {
    type Result = MessageResult<RunPortfolio>;
    fn handle(&mut self, run: RunPortfolio, _: &mut Context<Self>) -> Self::Result {
        let inputs = PortfolioInputs {
            store: run.store,
            view: &run.view,
            plans: &run.plans,
            symbols: &self.settings.symbols,
            settings: &self.settings.portfolio,
            price_max_age_ms: i64::from(self.settings.market.price_max_age_seconds) * 1_000,
        };
        MessageResult(portfolio_rebalance::plan(&run.ctx, &inputs))
    }
}

fn unknown_symbol<T>(ctx: &RunContext) -> Answer<T> {
    let message = format!("{} has no rounding rules; add market.symbol.\"{}\"", ctx.symbol, ctx.symbol);
    Answer::Failed(FailCause { class: FailClass::Configuration, message })
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
