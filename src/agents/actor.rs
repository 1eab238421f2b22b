//! The agents as actors: one mailbox each, under the project's supervisor. They answer with values and do nothing else.
//!
//! An agent's memory travels with its inputs (the last accepted regime output carries the hysteresis), so a restarted
//! actor has lost nothing.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix::{Actor, Context, Handler, Message, MessageResult, Supervised};
use uuid::Uuid;

use super::{
    contract::{Answer, RunContext},
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
}

impl Handler<RunTrading> for TradingDecision {
    type Result = MessageResult<RunTrading>;
    fn handle(&mut self, run: RunTrading, _: &mut Context<Self>) -> Self::Result {
        let Some(symbol) = self.settings.market.symbol.get(&run.ctx.symbol) else {
            return MessageResult(unknown_symbol(&run.ctx));
        };
        let inputs = DecisionInputs {
            snapshot: &run.snapshot,
            ta: run.ta.as_deref(),
            regime: run.regime.as_deref(),
            sentiment: run.sentiment.as_deref(),
            position: run.position.as_ref(),
        };
        let rules = DecisionRules {
            decision: &self.settings.agents.trading_decision,
            regimes: &self.settings.regimes,
            stop: &self.settings.risk.stop,
            symbol,
        };
        MessageResult(trading_decision::decide(&run.ctx, &inputs, &rules))
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
