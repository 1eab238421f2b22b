//! Agents of a simulation: the real ones behind a door that is slow, never opens, or panics, and a trader that often
//! wants something of its own, because the real one is too calm to reach every corner.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture, Supervised};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::plan::{Fault, Plan};
use crate::{
    agents::{actor::RunTrading, contract::Answer},
    coordinator::actor::Links,
    model::{Action, Decimal, Levels, Score, Signal, TaskName, VoteClass},
    runtime::supervisor::{Policy, Worker, supervise},
};

/// What an agent says when it panics because it is told to.
pub const PANIC: &str = "a simulated panic";

type Draws = Rc<RefCell<ChaCha8Rng>>;
/// What stands in for an answer; absent = the real agent answers.
type Instead<M> = Rc<dyn Fn(&M, &mut ChaCha8Rng) -> Option<<M as Message>::Result>>;

#[derive(Clone, Copy)]
enum Mood {
    Fine,
    Slow(u64),
    Hangs,
    Panics,
}

struct Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    real: Recipient<M>,
    draws: Draws,
    faulty: bool,
    instead: Option<Instead<M>>,
}

impl<M> Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn mood(&self) -> Mood {
        if !self.faulty {
            return Mood::Fine;
        }
        let mut draws = self.draws.borrow_mut();
        match draws.random_range(0..1_000) {
            0..3 => Mood::Hangs,
            3..6 => Mood::Panics,
            6..30 => Mood::Slow(draws.random_range(1..90_000)),
            _ => Mood::Fine,
        }
    }
}

impl<M> Actor for Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Context = Context<Self>;
}
impl<M> Supervised for Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
}
impl<M> Worker for Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
}

impl<M> Handler<M> for Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, question: M, _: &mut Context<Self>) -> Self::Result {
        let mood = self.mood();
        if matches!(mood, Mood::Panics) {
            // Outside of tests a panic needs no other reason: this is the fault that is asked for.
            std::panic::panic_any(PANIC);
        }
        let instead = self.instead.as_ref().and_then(|instead| instead(&question, &mut self.draws.borrow_mut()));
        let real = self.real.clone();
        Box::pin(async move {
            match mood {
                Mood::Hangs => std::future::pending::<()>().await,
                Mood::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Mood::Fine | Mood::Panics => {}
            }
            match instead {
                Some(answer) => answer,
                None => match real.send(question).await {
                    Ok(answer) => answer,
                    // The real agent is gone for good: nobody answers any more.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }
}

fn door<M>(name: &'static str, real: Recipient<M>, plan: &Plan, life: u32, instead: Option<Instead<M>>) -> Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let draws: Draws = Rc::new(RefCell::new(plan.stream(name, life)));
    let faulty = plan.faults.has(Fault::Agents);
    let make =
        move || Door { real: real.clone(), draws: Rc::clone(&draws), faulty, instead: instead.as_ref().map(Rc::clone) };
    supervise(name, Policy::default(), make, |_| ()).recipient()
}

/// Puts the doors in.
pub fn install(mut links: Links, plan: &Plan, life: u32) -> Links {
    if plan.faults.has(Fault::Agents) {
        links.technical = door("simulated_technical", links.technical, plan, life, None);
        links.regime = door("simulated_regime", links.regime, plan, life, None);
        links.portfolio = door("simulated_portfolio", links.portfolio, plan, life, None);
    }
    links.trading = door("simulated_trading", links.trading, plan, life, Some(Rc::new(own_wish)));
    links
}

/// Every other time something else than what the rules say: any action at any level.
fn own_wish(run: &RunTrading, rng: &mut ChaCha8Rng) -> Option<Answer<Signal>> {
    let price = run.snapshot.price?;
    if rng.random_bool(0.5) {
        return None;
    }
    let action = match rng.random_range(0..10) {
        0..5 => Action::Buy,
        5..8 => Action::Sell,
        _ => Action::Hold,
    };
    let decimals = price.scale().clamp(2, 8);
    let mut at = |low: f64, high: f64| {
        let part = Decimal::try_from(rng.random_range(low..high)).unwrap_or_default();
        (price * (Decimal::ONE + part)).round_dp(decimals)
    };
    let levels = Levels { entry: at(-0.01, 0.002), stop: at(-0.04, -0.012), target: at(0.02, 0.08) };
    Some(Answer::Output(Box::new(Signal {
        head: run.ctx.head(TaskName::TradingDecision, Score::from_f64(rng.random_range(0.6..1.0)), "a wish"),
        action,
        levels: (action != Action::Hold).then_some(levels),
        position_size_pct: Score::from_f64(rng.random_range(1.0..25.0)),
        leverage: 1,
        voters_asked: 6,
        voters_valid: 6,
        vote_class: VoteClass::Majority,
        ballots: Vec::new(),
        price,
        ta_run: run.ta.as_ref().map(|ta| ta.head.run_id),
        regime_run: run.regime.as_ref().map(|regime| regime.head.run_id),
        sentiment_run: None,
    })))
}
