//! Agents, a market and a risk engine that do what a scenario says; by default agents answer at once and ask for
//! nothing.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, Addr, Context, Handler, Message, Recipient, ResponseFuture, Supervised};
use triplegain::{
    agents::{
        actor::{RunPortfolio, RunRegime, RunTechnical, RunTrading},
        contract::{Answer, RunContext},
    },
    coordinator::{actor::Links, resolver::Resolve},
    llm::actor::AskModel,
    market::actor::ReadSnapshot,
    model::*,
    risk::actor::Reserve,
    runtime::supervisor::{Policy, Worker, supervise},
};

/// What a double does with one question.
pub enum Reply<T> {
    Now(T),
    After(i64, T),
    Hang,
    Panic,
    /// Ask the real one after so many milliseconds.
    Pass(i64),
}

pub type Play<M> = Rc<dyn Fn(&M) -> Reply<<M as Message>::Result>>;

pub struct Double<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    play: Play<M>,
    real: Recipient<M>,
}

impl<M> Actor for Double<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Context = Context<Self>;
}
impl<M> Supervised for Double<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
}
impl<M> Worker for Double<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
}

impl<M> Handler<M> for Double<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, question: M, _: &mut Context<Self>) -> Self::Result {
        let reply = (self.play)(&question);
        let real = self.real.clone();
        Box::pin(async move {
            match reply {
                Reply::Now(answer) => answer,
                Reply::After(ms, answer) => {
                    tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await;
                    answer
                }
                Reply::Hang => std::future::pending().await,
                Reply::Panic => panic!("the scenario wants a panic"),
                Reply::Pass(ms) => {
                    if ms > 0 {
                        tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await;
                    }
                    real.send(question).await.expect("the real one answers")
                }
            }
        })
    }
}

fn double<M>(name: &'static str, play: &Play<M>, real: Recipient<M>) -> Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let play = Rc::clone(play);
    let make = move || Double { play: Rc::clone(&play), real: real.clone() };
    let address: Addr<Double<M>> = supervise(name, Policy::default(), make, |_| ());
    address.recipient()
}

/// Models that answer as a scenario says; nobody real stands behind them.
pub fn thinker(play: Play<AskModel>) -> Recipient<AskModel> {
    struct Nobody;
    impl Actor for Nobody {
        type Context = Context<Self>;
    }
    impl Handler<AskModel> for Nobody {
        type Result = actix::MessageResult<AskModel>;
        fn handle(&mut self, _: AskModel, _: &mut Context<Self>) -> Self::Result {
            panic!("a scenario of models passes nothing on")
        }
    }
    double("models_double", &play, Nobody.start().recipient())
}

/// Starts of runs, as the agents saw them.
#[derive(Clone)]
pub struct Log {
    pub starts: Rc<RefCell<Vec<Start>>>,
    pub start: Ts,
}

#[derive(Clone, Debug)]
pub struct Start {
    pub task: TaskName,
    pub ctx: RunContext,
    /// Run ids of the opinions a trading run was given.
    pub inputs: Vec<RunId>,
}

impl Log {
    fn push(&self, task: TaskName, ctx: &RunContext, inputs: Vec<RunId>) {
        self.starts.borrow_mut().push(Start { task, ctx: ctx.clone(), inputs });
    }

    /// Milliseconds after the start of this life at which a key's runs began.
    pub fn of(&self, task: TaskName, symbol: Symbol) -> Vec<i64> {
        let starts = self.starts.borrow();
        let of_key = starts.iter().filter(|start| start.task == task && start.ctx.symbol == symbol);
        of_key.map(|start| start.ctx.started_at.since_ms(self.start)).collect()
    }

    /// The same in whole seconds, without the spread of symbols.
    pub fn seconds(&self, task: TaskName, symbol: Symbol) -> Vec<i64> {
        self.of(task, symbol).into_iter().map(|ms| ms / 1_000).collect()
    }
}

/// What a trading agent is to ask for, once.
#[derive(Clone, Debug)]
pub struct Wish {
    pub action: Action,
    pub confidence: f64,
    pub stop_pct: f64,
    pub target_pct: f64,
    pub size_pct: f64,
    /// Entry against the price, percent.
    pub entry_pct: f64,
}

impl Wish {
    pub fn new(action: Action) -> Wish {
        Wish { action, confidence: 0.90, stop_pct: 2.0, target_pct: 4.0, size_pct: 10.0, entry_pct: 0.0 }
    }

    pub fn buy() -> Wish {
        Wish::new(Action::Buy)
    }
}

#[derive(Clone, Default)]
pub struct Wishes(Rc<RefCell<BTreeMap<Symbol, Wish>>>);

impl Wishes {
    pub fn set(&self, symbol: Symbol, wish: Wish) {
        self.0.borrow_mut().insert(symbol, wish);
    }

    fn take(&self, symbol: Symbol) -> Option<Wish> {
        self.0.borrow_mut().remove(&symbol)
    }
}

/// Who answers instead of the real ones.
pub struct Doubles {
    pub technical: Play<RunTechnical>,
    pub regime: Play<RunRegime>,
    pub trading: Option<Play<RunTrading>>,
    pub market: Option<Play<ReadSnapshot>>,
    pub reserve: Option<Play<Reserve>>,
    pub resolver: Option<Play<Resolve>>,
    /// Who answers questions to models; the router when absent.
    pub models: Option<Play<AskModel>>,
    pub wishes: Wishes,
}

impl Default for Doubles {
    fn default() -> Doubles {
        Doubles {
            technical: Rc::new(|run| Reply::Now(ta(&run.ctx, Bias::Long))),
            regime: Rc::new(|run| Reply::Now(regime(&run.ctx, Regime::TrendingBull))),
            trading: None,
            market: None,
            reserve: None,
            resolver: None,
            models: None,
            wishes: Wishes::default(),
        }
    }
}

impl Doubles {
    /// The shipped agents.
    pub fn none() -> Doubles {
        Doubles {
            technical: Rc::new(|_| Reply::Pass(0)),
            regime: Rc::new(|_| Reply::Pass(0)),
            trading: Some(Rc::new(|_| Reply::Pass(0))),
            ..Doubles::default()
        }
    }

    pub fn install(self, mut links: Links, log: &Log) -> Links {
        let (seen, play) = (log.clone(), self.technical);
        let technical: Play<RunTechnical> = Rc::new(move |run| {
            seen.push(TaskName::TechnicalAnalysis, &run.ctx, Vec::new());
            play(run)
        });
        let (seen, play) = (log.clone(), self.regime);
        let regime: Play<RunRegime> = Rc::new(move |run| {
            seen.push(TaskName::RegimeDetection, &run.ctx, Vec::new());
            play(run)
        });
        let wishes = self.wishes;
        let play = self.trading.unwrap_or_else(|| {
            Rc::new(move |run: &RunTrading| {
                let wish = wishes.take(run.ctx.symbol).unwrap_or_else(|| Wish::new(Action::Hold));
                Reply::Now(signal(run, &wish))
            })
        });
        let seen = log.clone();
        let trading: Play<RunTrading> = Rc::new(move |run| {
            let (ta, regime) = (run.ta.as_ref().map(|ta| ta.head.run_id), run.regime.as_ref().map(|r| r.head.run_id));
            seen.push(TaskName::TradingDecision, &run.ctx, ta.into_iter().chain(regime).collect());
            play(run)
        });
        let seen = log.clone();
        let portfolio: Play<RunPortfolio> = Rc::new(move |run| {
            seen.push(TaskName::PortfolioRebalance, &run.ctx, Vec::new());
            Reply::Pass(0)
        });
        links.technical = double("technical_double", &technical, links.technical);
        links.regime = double("regime_double", &regime, links.regime);
        links.trading = double("trading_double", &trading, links.trading);
        links.portfolio = double("portfolio_double", &portfolio, links.portfolio);
        if let Some(market) = &self.market {
            links.snapshots = double("market_double", market, links.snapshots);
        }
        if let Some(reserve) = &self.reserve {
            links.reserve = double("risk_double", reserve, links.reserve);
        }
        if let Some(resolver) = &self.resolver {
            links.resolver = double("resolver_double", resolver, links.resolver);
        }
        links
    }
}

fn head(agent: TaskName, ctx: &RunContext, confidence: f64) -> OutputHead {
    OutputHead {
        agent,
        symbol: ctx.symbol,
        run_id: ctx.run_id,
        slot: ctx.slot.clone(),
        as_of: ctx.as_of,
        produced_at: ctx.now,
        confidence: Score::from_f64(confidence),
        reasoning: String::new(),
        latency_ms: 0,
        path: "rules".into(),
        degraded: false,
        warnings: Vec::new(),
        models: Vec::new(),
    }
}

pub fn ta(ctx: &RunContext, bias: Bias) -> Answer<TaOutput> {
    Answer::Output(Box::new(TaOutput {
        head: head(TaskName::TechnicalAnalysis, ctx, 0.70),
        bias,
        trend_strength: Score::ZERO,
        momentum_score: Score::ZERO,
        rsi_signal: RsiSignal::Neutral,
        macd_signal: MacdSignal::Neutral,
        support_levels: Vec::new(),
        resistance_levels: Vec::new(),
        current_position: LevelPosition::MidRange,
        timeframe_alignment: Vec::new(),
        primary_signal: "none".into(),
    }))
}

pub fn regime(ctx: &RunContext, regime: Regime) -> Answer<RegimeOutput> {
    Answer::Output(Box::new(RegimeOutput {
        head: head(TaskName::RegimeDetection, ctx, 0.80),
        regime,
        detected_regime: regime,
        volatility: Volatility::Normal,
        trend_strength: Score::ZERO,
        volume_profile: VolumeProfile::Stable,
        choppiness: None,
        adx: 20.0,
        regime_started: ctx.as_of,
        periods_in_regime: 1,
        pending_regime: None,
        pending_count: 0,
        stored_confidence: Score::from_f64(0.80),
    }))
}

pub fn failed<T>() -> Answer<T> {
    Answer::Failed(FailCause { class: FailClass::Validation, message: "the scenario wants a failure".into() })
}

pub fn signal(run: &RunTrading, wish: &Wish) -> Answer<Signal> {
    let price = run.snapshot.price.expect("the scenario has a price");
    let decimals = price.scale().clamp(2, 8);
    let part = |pct: f64| (price * (Decimal::ONE + Decimal::try_from(pct / 100.0).unwrap())).round_dp(decimals);
    let levels = Levels {
        entry: part(wish.entry_pct),
        stop: part(wish.entry_pct - wish.stop_pct),
        target: part(wish.entry_pct + wish.target_pct),
    };
    Answer::Output(Box::new(Signal {
        head: head(TaskName::TradingDecision, &run.ctx, wish.confidence),
        action: wish.action,
        levels: matches!(wish.action, Action::Buy | Action::Sell).then_some(levels),
        position_size_pct: Score::from_f64(wish.size_pct),
        leverage: 1,
        voters_asked: 6,
        voters_valid: 6,
        vote_class: VoteClass::Majority,
        ballots: Vec::new(),
        price,
        ta_run: run.ta.as_ref().map(|ta: &Arc<TaOutput>| ta.head.run_id),
        regime_run: run.regime.as_ref().map(|regime| regime.head.run_id),
        sentiment_run: None,
    }))
}
