//! Risk as an actor: marks the account, records what the rules say, and checks and reserves entries in one step.
//!
//! It holds what is not durable by nature: the running peak, reservations between approval and intent, and what was
//! alerted today. A restarted risk actor rebuilds all of it from the state.

use std::{collections::BTreeMap, rc::Rc};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, Supervised, WrapFuture,
};

use tokio::sync::watch;

use super::{
    Approved, MoveWatch, PeakKeeper, RiskRequest, RiskRules, RiskView, SoftAlerts, board::Prices, breakers,
    check_and_reserve, view,
};
use crate::{
    model::{BreakerKind, Clock, Event, Money, PriceTick, Reservation, RiskRefusal, TradeKey, Ts, time::HOUR_MS},
    runtime::{clock::LogicalClock, failpoint, supervisor::Worker},
    store::{
        actor::{Commit, StoreActor},
        batch::Batch,
        view::StateView,
    },
};

/// Soft alerts are looked at this often, milliseconds; breakers on every mark.
const ALERTS_EVERY_MS: i64 = 300_000;

/// The account changed, or was looked at with a new price.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Mark {
    /// The new price; absent when money moved.
    pub tick: Option<PriceTick>,
}

/// Checks an entry and holds what it needs, in one step (D47).
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Approved, RiskRefusal>")]
pub struct Reserve(pub RiskRequest);

/// A decision ended without a trade: what was held for it is free again.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Release(pub TradeKey);

/// The equity marks of every hour, oldest first, and the newest one.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Vec<(Ts, Money)>")]
pub struct EquityCurve;

/// Everything risk is made of.
#[derive(Clone)]
pub struct Parts {
    /// Parsed rules.
    pub rules: Rc<RiskRules>,
    /// Logical time.
    pub clock: LogicalClock,
    /// Newest durable state.
    pub view: StateView,
    /// Newest prices.
    pub prices: Prices,
    /// The only writer.
    pub store: Addr<StoreActor>,
    /// Told that the view and the reservations of this life are rebuilt.
    pub ready: Rc<watch::Sender<bool>>,
    /// Keep the hourly equity curve (reports); a long-running process does not need it.
    pub keep_curve: bool,
}

/// The risk actor.
pub struct RiskActor {
    parts: Parts,
    keeper: PeakKeeper,
    moves: MoveWatch,
    alerts: SoftAlerts,
    alerts_at: Ts,
    drawdown_latched: bool,
    /// Approved, but not part of the durable state yet.
    pending: BTreeMap<TradeKey, Reservation>,
    busy: bool,
    curve: Vec<(Ts, Money)>,
    newest: Option<(Ts, Money)>,
}

impl RiskActor {
    /// Rebuilt from the state.
    pub fn new(parts: Parts) -> RiskActor {
        let now = parts.clock.now();
        let (keeper, drawdown_latched) = {
            let state = parts.view.read();
            (PeakKeeper::new(&state.risk, now), state.risk.latched.contains_key(&BreakerKind::MaxDrawdown))
        };
        RiskActor {
            parts,
            keeper,
            moves: MoveWatch::default(),
            alerts: SoftAlerts::default(),
            alerts_at: Ts(i64::MIN),
            drawdown_latched,
            pending: BTreeMap::new(),
            busy: false,
            curve: Vec::new(),
            newest: None,
        }
    }

    fn view(&mut self, now: Ts) -> RiskView {
        let state = self.parts.view.read();
        self.pending.retain(|key, _| !state.trade_index.contains_key(key));
        let board = self.parts.prices.read();
        let mut view = RiskView::from_state(&state, &board.book, &self.parts.rules, self.keeper.peak(), now);
        view.silent.clone_from(&board.silent);
        for reservation in self.pending.values() {
            view.reserve(reservation);
        }
        view
    }

    fn mark(&mut self, mark: Mark, ctx: &mut Context<Self>) {
        let now = self.parts.clock.now();
        let mut events = Vec::new();
        {
            let shared = self.parts.view.clone();
            let state = shared.read();
            let latched = state.risk.latched.contains_key(&BreakerKind::MaxDrawdown);
            if self.drawdown_latched && !latched {
                // The operator's reset re-based the peak.
                self.keeper = PeakKeeper::new(&state.risk, now);
            }
            self.drawdown_latched = latched;
            let valued = view::equity(&state, &self.parts.prices.read().book, self.parts.rules.mode);
            let Some((equity, at)) = valued else { return };
            if now.since_ms(at) > self.parts.rules.price_max_age_ms {
                return;
            }
            self.keep(now, equity);
            if self.busy {
                return;
            }
            breakers::on_mark(&state.risk, &mut self.keeper, &self.parts.rules, equity, now, &mut events);
            if let Some(tick) = mark.tick {
                let moved = self.moves.observe(&state.risk, &self.parts.rules, tick.symbol, tick.price, now);
                events.extend(moved);
            }
        }
        if now.since_ms(self.alerts_at) >= ALERTS_EVERY_MS {
            self.alerts_at = now;
            let view = self.view(now);
            let state = self.parts.view.read();
            let board = self.parts.prices.read();
            events.extend(self.alerts.on_mark(&state, &view, &board.book, &self.parts.rules, now));
        }
        if !events.is_empty() {
            self.commit(events, now, ctx);
        }
    }

    fn keep(&mut self, now: Ts, equity: Money) {
        if !self.parts.keep_curve {
            return;
        }
        let hour = now.floor_to(HOUR_MS);
        if self.newest.is_none_or(|(at, _)| at.floor_to(HOUR_MS) != hour) {
            self.curve.push((now, equity));
        }
        self.newest = Some((now, equity));
    }

    fn commit(&mut self, events: Vec<Event>, now: Ts, ctx: &mut Context<Self>) {
        self.busy = true;
        failpoint::effect("commit.risk", "");
        let request = self.parts.store.send(Commit(Batch::new("risk", "account", "mark", now, events)));
        // A store that does not answer has ended the process already.
        ctx.spawn(request.into_actor(self).map(|_, actor, _| actor.busy = false));
    }
}

impl Actor for RiskActor {
    type Context = Context<Self>;
}

impl Supervised for RiskActor {}
impl Worker for RiskActor {
    fn begin(&mut self, _: &mut Context<Self>) {
        self.parts.ready.send_replace(true);
    }
}

impl Handler<Mark> for RiskActor {
    type Result = ();
    fn handle(&mut self, mark: Mark, ctx: &mut Context<Self>) {
        self.mark(mark, ctx);
    }
}

impl Handler<Reserve> for RiskActor {
    type Result = MessageResult<Reserve>;
    fn handle(&mut self, Reserve(request): Reserve, _: &mut Context<Self>) -> Self::Result {
        let now = self.parts.clock.now();
        let mut view = self.view(now);
        let checked = check_and_reserve(&mut view, &self.parts.rules, &request, now);
        if let Ok(approved) = &checked {
            self.pending.insert(approved.reservation.key, approved.reservation.clone());
        }
        MessageResult(checked)
    }
}

impl Handler<Release> for RiskActor {
    type Result = ();
    fn handle(&mut self, Release(key): Release, _: &mut Context<Self>) {
        self.pending.remove(&key);
    }
}

impl Handler<EquityCurve> for RiskActor {
    type Result = MessageResult<EquityCurve>;
    fn handle(&mut self, _: EquityCurve, _: &mut Context<Self>) -> Self::Result {
        MessageResult(up_to_now(self.curve.clone(), self.newest))
    }
}

/// The hourly points and the newest one behind them, once.
fn up_to_now(mut curve: Vec<(Ts, Money)>, newest: Option<(Ts, Money)>) -> Vec<(Ts, Money)> {
    curve.extend(newest.filter(|newest| curve.last() != Some(newest)));
    curve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_with_the_newest_point_once() {
        let (first, second) = ((Ts(0), Money::ONE), (Ts(1_000), Money::TWO));
        assert_eq!(up_to_now(vec![first], Some(first)), [first]);
        assert_eq!(up_to_now(vec![first], Some(second)), [first, second]);
        assert_eq!(up_to_now(vec![], None), []);
    }
}
