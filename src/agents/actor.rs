//! The agents as actors: one mailbox each, under the project's supervisor. They answer with values and do nothing else.
//!
//! An agent's memory travels with its inputs (the last accepted regime output carries the hysteresis), so a restarted
//! actor has lost nothing.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix::{Actor, ActorResponse, Context, Handler, Message, Supervised, WrapFuture};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    answers::ground::{Ground, Tolerance},
    contract::{Answer, RunContext, usable},
    model_path::{self, Role},
    model_voter::{self, Reply},
    portfolio_rebalance::{self, PortfolioInputs, PortfolioOutput},
    portfolio_view::PortfolioView,
    regime_detection, technical_analysis,
    technical_path::opinion,
    trading_decision::{self, DecisionInputs, DecisionRules},
};
use crate::{
    llm::{actor::Models, question::Question},
    model::{
        FailCause, FailClass, ModelCall, OutputHead, Plan, Position, RegimeOutput, SentimentOutput, Signal, Snapshot,
        TaOutput, Ts,
    },
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
    /// Whether the degradation level lets a model be asked.
    pub ask_models: bool,
}

impl Handler<RunTechnical> for TechnicalAnalysis {
    type Result = ActorResponse<Self, Answer<TaOutput>>;
    fn handle(&mut self, run: RunTechnical, _: &mut Context<Self>) -> Self::Result {
        let settings = Rc::clone(&self.settings);
        let own = &settings.agents.technical_analysis;
        let Some(rules) = settings.market.symbol.get(&run.ctx.symbol) else {
            return ActorResponse::reply(unknown_symbol(&run.ctx));
        };
        let Some(ground) = askable(&own.chain, &run.ctx, &run.snapshot, &settings) else {
            return ActorResponse::reply(technical_analysis::analyse(&run.ctx, &run.snapshot, rules, own));
        };
        if !run.ask_models {
            let reply = model_path::forbidden();
            return ActorResponse::reply(opinion(&run.ctx, &run.snapshot, rules, own, &ground, &reply));
        }
        let models = self.models.clone();
        let (rules, question) = (*rules, model_path::technical(&run.ctx, &run.snapshot, &settings, &ground));
        let thinking = async move {
            let (reply, call, now) = think(&models, &question, run.ctx.now).await;
            let ctx = RunContext { now, ..run.ctx };
            let own = &settings.agents.technical_analysis;
            let answer = opinion(&ctx, &run.snapshot, &rules, own, &ground, &reply);
            with_call(answer, |output| &mut output.head, vec![call])
        };
        ActorResponse::r#async(thinking.into_actor(self))
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
    /// Accepted technical opinion, for a model.
    pub ta: Option<Arc<TaOutput>>,
    /// Whether the degradation level lets a model be asked.
    pub ask_models: bool,
}

impl Handler<RunRegime> for RegimeDetection {
    type Result = ActorResponse<Self, Answer<RegimeOutput>>;
    fn handle(&mut self, run: RunRegime, _: &mut Context<Self>) -> Self::Result {
        let settings = Rc::clone(&self.settings);
        let own = &settings.agents.regime_detection;
        let Some(ground) = askable(&own.chain, &run.ctx, &run.snapshot, &settings) else {
            let previous = run.previous.as_deref();
            return ActorResponse::reply(regime_detection::detect(&run.ctx, &run.snapshot, previous, own));
        };
        if !run.ask_models {
            let (previous, reply) = (run.previous.as_deref(), model_path::forbidden());
            let answer = model_path::detected(&run.ctx, &run.snapshot, previous, own, &ground, &reply);
            return ActorResponse::reply(answer);
        }
        let models = self.models.clone();
        let question = model_path::regime(&run.ctx, &run.snapshot, run.ta.as_deref(), &settings, &ground);
        let thinking = async move {
            let (reply, call, now) = think(&models, &question, run.ctx.now).await;
            let (ctx, previous) = (RunContext { now, ..run.ctx }, run.previous.as_deref());
            let own = &settings.agents.regime_detection;
            let answer = model_path::detected(&ctx, &run.snapshot, previous, own, &ground, &reply);
            with_call(answer, |output| &mut output.head, vec![call])
        };
        ActorResponse::r#async(thinking.into_actor(self))
    }
}

/// Asks for the mood around one asset.
#[derive(Message)]
#[rtype(result = "Answer<SentimentOutput>")]
pub struct RunSentiment {
    /// Which run.
    pub ctx: RunContext,
    /// Whether the degradation level lets models be asked.
    pub ask_models: bool,
}

impl Handler<RunSentiment> for SentimentAnalysis {
    type Result = ActorResponse<Self, Answer<SentimentOutput>>;
    fn handle(&mut self, run: RunSentiment, _: &mut Context<Self>) -> Self::Result {
        let settings = Rc::clone(&self.settings);
        let own = &settings.agents.sentiment_analysis;
        let sources = [(Role::Social, &own.social), (Role::News, &own.news)];
        let asked = sources.into_iter().filter(|(_, chain)| !chain.is_empty());
        if !run.ask_models || !own.has_provider() {
            let replies: Vec<_> = asked.map(|(role, _)| (role, model_path::forbidden())).collect();
            return ActorResponse::reply(model_path::sentiment(&run.ctx, own, &replies));
        }
        let questions: Vec<_> = asked.map(|(role, _)| (role, model_path::mood(&run.ctx, role, &settings))).collect();
        let models = self.models.clone();
        let thinking = async move {
            let thoughts = questions.iter().map(|(_, question)| think(&models, question, run.ctx.now));
            let (mut replies, mut calls, mut now) = (Vec::new(), Vec::new(), run.ctx.now);
            for ((role, _), (reply, call, at)) in questions.iter().zip(join_all(thoughts).await) {
                replies.push((*role, reply));
                calls.push(call);
                now = now.max(at);
            }
            let ctx = RunContext { now, ..run.ctx };
            let answer = model_path::sentiment(&ctx, &settings.agents.sentiment_analysis, &replies);
            with_call(answer, |output| &mut output.head, calls)
        };
        ActorResponse::r#async(thinking.into_actor(self))
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
    /// Whether the degradation level lets a model be asked.
    pub ask_models: bool,
}

impl RunPortfolio {
    fn inputs<'a>(&'a self, settings: &'a Settings) -> PortfolioInputs<'a> {
        PortfolioInputs {
            store: self.store,
            view: &self.view,
            plans: &self.plans,
            symbols: &settings.symbols,
            settings: &settings.portfolio,
            price_max_age_ms: i64::from(settings.market.price_max_age_seconds) * 1_000,
        }
    }
}

/// The rules plan; a model only chooses when a plan there is is carried out.
impl Handler<RunPortfolio> for PortfolioRebalance {
    type Result = ActorResponse<Self, Answer<PortfolioOutput>>;
    fn handle(&mut self, run: RunPortfolio, _: &mut Context<Self>) -> Self::Result {
        let settings = Rc::clone(&self.settings);
        let answer = portfolio_rebalance::plan(&run.ctx, &run.inputs(&settings));
        let planned = match answer {
            Answer::Output(output)
                if output.plan.is_some() && !settings.agents.portfolio_rebalance.chain.is_empty() =>
            {
                *output
            }
            rules => return ActorResponse::reply(rules),
        };
        if !run.ask_models {
            let reply = model_path::forbidden();
            return ActorResponse::reply(model_path::paced(&run.ctx, &run.inputs(&settings), planned, &reply));
        }
        let (models, question) = (self.models.clone(), model_path::pace(&run.ctx, &planned, &settings));
        let thinking = async move {
            let (reply, call, now) = think(&models, &question, run.ctx.now).await;
            let mut answer = model_path::paced(&run.ctx, &run.inputs(&settings), planned, &reply);
            if let Answer::Output(output) = &mut answer {
                output.head.produced_at = now;
                output.head.latency_ms = now.since_ms(run.ctx.started_at);
            }
            with_call(answer, |output| &mut output.head, vec![call])
        };
        ActorResponse::r#async(thinking.into_actor(self))
    }
}

/// What an answer of a model would be held against; none when nobody is configured, or when the inputs give no opinion
/// anyway and no model needs to be asked.
fn askable(chain: &str, ctx: &RunContext, snapshot: &Snapshot, settings: &Settings) -> Option<Ground> {
    if chain.is_empty() || usable(ctx, snapshot).is_err() {
        return None;
    }
    Ground::of(snapshot, &settings.symbols, Tolerance::from(&settings.agents.grounding))
}

/// Asks, and says what came when; `known` is the time where nobody can be asked.
async fn think(models: &Models, question: &Question, known: Ts) -> (model_path::Reply, ModelCall, Ts) {
    let began = models.now_or(known);
    let reply = models.ask(question.clone()).await;
    let now = models.now_or(known);
    let call = question.call(&reply, now.since_ms(began));
    (reply, call, now)
}

fn with_call<T>(mut answer: Answer<T>, head: fn(&mut T) -> &mut OutputHead, calls: Vec<ModelCall>) -> Answer<T> {
    if let Answer::Output(output) = &mut answer {
        head(output).models = calls;
    }
    answer
}

fn unknown_symbol<T>(ctx: &RunContext) -> Answer<T> {
    let message = format!("{} has no rounding rules; add market.symbol.\"{}\"", ctx.symbol, ctx.symbol);
    Answer::Failed(FailCause { class: FailClass::Configuration, message })
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
