//! A venue with its own ledger that fails on purpose: requests and answers get lost, come twice, late or out of order,
//! lists lag behind, orders fill in parts. What it accepted is the truth a test compares the program with.
//!
//! Like the exchanges it stands for, it refuses a client id only while an order of that id is open, refuses orders
//! after their deadline, and refuses request numbers it has seen. Time is a value, so nothing here waits.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use futures_util::future::LocalBoxFuture;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use triplegain::{
    execution::remote::{Answer, FillReport, Order, OrderReport, OrderStatus, RemoteVenue, Submitted, VenueTime},
    model::{Liquidity, OrderType, Price, Qty, Side, TimeInForce, Ts},
};
use uuid::Uuid;

/// How often and how far it fails. Chances of 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Faults {
    pub lose_request: f64,
    pub lose_answer: f64,
    pub duplicate: f64,
    /// A request is held back for up to `late_ms`; the caller hears nothing.
    pub late: f64,
    pub late_ms: i64,
    /// Lists of orders show what was so long ago at most.
    pub order_lag_ms: i64,
    /// The same of fills; may be much longer.
    pub trades_lag_ms: i64,
    pub partial: f64,
    /// Business refusals.
    pub refuse: f64,
    pub offline: bool,
    /// Every answer comes after up to so long, where a venue takes time at all: one in a process of its own.
    pub latency_ms: i64,
}

impl Faults {
    pub fn none() -> Faults {
        Faults {
            lose_request: 0.0,
            lose_answer: 0.0,
            duplicate: 0.0,
            late: 0.0,
            late_ms: 0,
            order_lag_ms: 0,
            trades_lag_ms: 0,
            partial: 0.0,
            refuse: 0.0,
            offline: false,
            latency_ms: 0,
        }
    }

    pub fn all() -> Faults {
        Faults {
            lose_request: 0.12,
            lose_answer: 0.15,
            duplicate: 0.1,
            late: 0.12,
            // Past the deadline of 10 s as well.
            late_ms: 14_000,
            // Less than from the end of the deadline to the last round of the proof.
            order_lag_ms: 8_000,
            trades_lag_ms: 40_000,
            partial: 0.4,
            refuse: 0.03,
            offline: false,
            // A look is four questions, and its caller waits 12 s for all of them.
            latency_ms: 2_000,
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Submit { number: u64, order: Order },
    Open { number: u64, client_id: Uuid },
    Closed { number: u64, client_id: Uuid },
    Trades { number: u64, client_id: Uuid, since: Ts },
    Cancel { number: u64, client_id: Uuid },
    Time,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Accepted,
    /// Refused for business reasons.
    Refused(String),
    /// Refused without a look at the order: number, deadline, open duplicate.
    Turned(String),
    Orders(Vec<OrderReport>),
    Fills(Vec<FillReport>),
    Cancelled,
    Time(VenueTime),
}

/// An order the venue took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    pub order: Order,
    pub accepted_at: Ts,
    /// What happens to it, fixed when it was taken: instants in the future may be cut off by a cancel.
    pub fills: Vec<(Ts, FillReport)>,
    /// Ended unfilled in part.
    pub ended_at: Option<Ts>,
    order_lag_ms: i64,
    trades_lag_ms: i64,
}

impl Taken {
    fn filled(&self, at: Ts) -> Qty {
        self.fills.iter().filter(|(when, _)| *when <= at).map(|(_, fill)| fill.quantity).sum()
    }

    fn status(&self, at: Ts) -> OrderStatus {
        if self.filled(at) == self.order.quantity {
            OrderStatus::Filled
        } else if self.ended_at.is_some_and(|end| end <= at) {
            OrderStatus::Ended
        } else {
            OrderStatus::Open
        }
    }
}

pub struct Venue {
    pub faults: Faults,
    pub taken: Vec<Taken>,
    /// Calls of each kind that reached it.
    pub seen: u64,
    price: Price,
    random: ChaCha8Rng,
    numbers: BTreeSet<u64>,
    repeated_numbers: u64,
    /// Held back: delivered when their time has come, whatever came in between.
    held: Vec<(Ts, Request)>,
    fill_ids: u64,
}

impl Venue {
    pub fn new(seed: u64, price: Price, faults: Faults) -> Venue {
        Venue {
            faults,
            taken: Vec::new(),
            seen: 0,
            price,
            random: ChaCha8Rng::seed_from_u64(seed),
            numbers: BTreeSet::new(),
            repeated_numbers: 0,
            held: Vec::new(),
            fill_ids: 0,
        }
    }

    pub fn chance(&mut self, of_one: f64) -> bool {
        ((self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < of_one
    }

    fn upto(&mut self, ms: i64) -> i64 {
        (self.random.next_u64() % (ms.unsigned_abs() + 1)).cast_signed()
    }

    /// One request on the wire; nothing when the caller hears nothing.
    pub fn request(&mut self, request: Request, now: Ts) -> Option<Reply> {
        self.deliver_held(now);
        let faults = self.faults.clone();
        if self.chance(faults.lose_request) {
            return None;
        }
        if self.chance(faults.late) {
            let at = now.plus_ms(1 + self.upto(faults.late_ms));
            self.held.push((at, request));
            return None;
        }
        if self.chance(faults.duplicate) {
            let at = now.plus_ms(1 + self.upto(faults.late_ms.max(1)));
            self.held.push((at, request.clone()));
        }
        let reply = self.handle(request, now);
        (!self.chance(faults.lose_answer)).then_some(reply)
    }

    /// Holds a request back until an instant.
    pub fn hold(&mut self, at: Ts, request: Request) {
        self.held.push((at, request));
    }

    pub fn deliver_held(&mut self, now: Ts) {
        self.held.sort_by_key(|(at, _)| *at);
        while self.held.first().is_some_and(|(at, _)| *at <= now) {
            let (at, request) = self.held.remove(0);
            self.handle(request, at);
        }
    }

    /// What the venue does with a request that reached it.
    pub fn handle(&mut self, request: Request, now: Ts) -> Reply {
        self.seen += 1;
        let number = match &request {
            Request::Submit { number, .. }
            | Request::Open { number, .. }
            | Request::Closed { number, .. }
            | Request::Trades { number, .. }
            | Request::Cancel { number, .. } => Some(*number),
            Request::Time => None,
        };
        if let Some(number) = number
            && !self.numbers.insert(number)
        {
            self.repeated_numbers += 1;
            return Reply::Turned(format!("number {number} was used"));
        }
        match request {
            Request::Time => Reply::Time(VenueTime { now, online: !self.faults.offline }),
            Request::Submit { order, .. } => self.submit(order, now),
            Request::Open { client_id, .. } => Reply::Orders(self.orders(client_id, now, true)),
            Request::Closed { client_id, .. } => Reply::Orders(self.orders(client_id, now, false)),
            Request::Trades { client_id, since, .. } => {
                let own = self.taken.iter().filter(|taken| taken.order.client_id == client_id);
                let shown = own.flat_map(|taken| {
                    let until = now.plus_ms(-taken.trades_lag_ms);
                    taken.fills.iter().filter(move |(at, _)| *at >= since && *at <= until)
                });
                Reply::Fills(shown.map(|(_, fill)| fill.clone()).collect())
            }
            Request::Cancel { client_id, .. } => {
                let open =
                    |taken: &&mut Taken| taken.order.client_id == client_id && taken.status(now) == OrderStatus::Open;
                match self.taken.iter_mut().find(open) {
                    None => Reply::Turned("no such open order".into()),
                    Some(taken) => {
                        taken.fills.retain(|(at, _)| *at <= now);
                        taken.ended_at = Some(now);
                        Reply::Cancelled
                    }
                }
            }
        }
    }

    fn orders(&self, client_id: Uuid, now: Ts, open: bool) -> Vec<OrderReport> {
        let own = self.taken.iter().filter(|taken| taken.order.client_id == client_id);
        let shown = own.filter_map(|taken| {
            let then = now.plus_ms(-taken.order_lag_ms);
            let status = taken.status(then);
            let in_list = taken.accepted_at <= then && (status == OrderStatus::Open) == open;
            in_list.then(|| OrderReport { client_id, status, filled: taken.filled(then) })
        });
        shown.collect()
    }

    fn submit(&mut self, order: Order, now: Ts) -> Reply {
        if now > order.deadline {
            return Reply::Turned("after its deadline".into());
        }
        let same = |taken: &Taken| taken.order.client_id == order.client_id;
        if self.taken.iter().any(|taken| same(taken) && taken.status(now) == OrderStatus::Open) {
            return Reply::Turned("this client id has an open order".into());
        }
        let faults = self.faults.clone();
        if self.chance(faults.refuse) {
            return Reply::Refused("insufficient funds".into());
        }
        let (price, rests) = match order.order_type {
            OrderType::Market => (self.price, false),
            OrderType::Limit { limit } => {
                let marketable = match order.side {
                    Side::Buy => self.price <= limit,
                    Side::Sell => self.price >= limit,
                };
                (if marketable { self.price } else { limit }, !marketable)
            }
        };
        let immediate = rests && order.time_in_force == TimeInForce::Ioc;
        let parts = if self.chance(faults.partial) { 2 + self.upto(1) } else { 1 };
        let ends_short = parts > 1 && self.chance(0.3);
        // A resting order fills within two minutes, or never.
        let never = immediate || (rests && self.chance(0.4));
        let mut at = if rests { now.plus_ms(self.upto(120_000)) } else { now };
        let (mut left, mut fills) = (order.quantity, Vec::new());
        for part in 1..=parts {
            let quantity = if part == parts { left } else { (left / Decimal::TWO).round_dp(6) };
            left -= quantity;
            self.fill_ids += 1;
            let fill = FillReport {
                id: format!("F{}", self.fill_ids),
                client_id: order.client_id,
                quantity,
                price,
                fee: (quantity * price * Decimal::new(26, 4)).round_dp(8),
                liquidity: if rests { Liquidity::Maker } else { Liquidity::Taker },
            };
            if quantity > Qty::ZERO && !never && !(ends_short && part == parts) {
                fills.push((at, fill));
            }
            at = at.plus_ms(self.upto(3_000));
        }
        let ended_at = if immediate { Some(now) } else { (ends_short && !never).then_some(at) };
        let (order_lag_ms, trades_lag_ms) = (self.upto(faults.order_lag_ms), self.upto(faults.trades_lag_ms));
        self.taken.push(Taken { order, accepted_at: now, fills, ended_at, order_lag_ms, trades_lag_ms });
        Reply::Accepted
    }

    /// Fills since `from`, as its stream tells them; the program may hear them again in lists.
    pub fn stream(&self, from: Ts, until: Ts) -> Vec<FillReport> {
        let all = self.taken.iter().flat_map(|taken| &taken.fills);
        all.filter(|(at, _)| *at > from && *at <= until).map(|(_, fill)| fill.clone()).collect()
    }

    /// Requests of one caller never repeat a number; copies made on the wire do.
    pub fn repeated_numbers(&self) -> u64 {
        self.repeated_numbers
    }

    /// The numbers of all requests it ever had.
    pub fn numbers(&self) -> &BTreeSet<u64> {
        &self.numbers
    }

    /// How long the next answer takes, milliseconds of its clock.
    pub fn latency_ms(&mut self) -> i64 {
        self.upto(self.faults.latency_ms)
    }
}

/// What a caller makes of the reply to a submission.
pub fn submitted(reply: Option<Reply>) -> Submitted {
    match reply {
        Some(Reply::Accepted) => Submitted::Accepted,
        Some(Reply::Refused(why)) => Submitted::Refused(why),
        // The refused one may be a copy of one that was taken.
        Some(other) => Submitted::Ambiguous(format!("{other:?}")),
        None => Submitted::Ambiguous("no answer".into()),
    }
}

pub fn orders(reply: Option<Reply>) -> Result<Vec<OrderReport>, String> {
    match reply {
        Some(Reply::Orders(orders)) => Ok(orders),
        other => Err(format!("{other:?}")),
    }
}

pub fn fills(reply: Option<Reply>) -> Result<Vec<FillReport>, String> {
    match reply {
        Some(Reply::Fills(fills)) => Ok(fills),
        other => Err(format!("{other:?}")),
    }
}

pub fn time(reply: Option<Reply>) -> Result<VenueTime, String> {
    match reply {
        Some(Reply::Time(time)) => Ok(time),
        other => Err(format!("{other:?}")),
    }
}

/// What a test arranges about an order that was taken.
impl Venue {
    /// Lists show fills only so long after they happened.
    pub fn lag_fills(&mut self, ms: i64) {
        self.taken.iter_mut().for_each(|taken| taken.trades_lag_ms = ms);
    }

    /// Keeps an order open.
    pub fn never_fills(&mut self, client_id: Uuid) {
        self.taken.iter_mut().filter(|taken| taken.order.client_id == client_id).for_each(|taken| taken.fills.clear());
    }

    /// Fills an open order whole.
    pub fn fill_now(&mut self, client_id: Uuid, now: Ts) {
        self.fill_ids += 1;
        let id = format!("F{}", self.fill_ids);
        for taken in self.taken.iter_mut().filter(|taken| taken.order.client_id == client_id) {
            let OrderType::Limit { limit: price } = taken.order.order_type else { continue };
            let (quantity, fee) = (taken.order.quantity, Decimal::ZERO);
            let fill = FillReport { id: id.clone(), client_id, quantity, price, fee, liquidity: Liquidity::Maker };
            taken.fills = vec![(now, fill)];
        }
    }
}

/// The venue in this process at one instant: asked through the same seam as one behind a wire.
pub struct Here {
    pub venue: std::rc::Rc<std::cell::RefCell<Venue>>,
    pub now: Ts,
}

impl Here {
    fn ask<T: 'static>(&self, request: Request, read: fn(Option<Reply>) -> T) -> LocalBoxFuture<'static, T> {
        let reply = self.venue.borrow_mut().request(request, self.now);
        Box::pin(std::future::ready(read(reply)))
    }
}

impl RemoteVenue for Here {
    fn submit(&self, number: u64, order: Order) -> LocalBoxFuture<'static, Submitted> {
        self.ask(Request::Submit { number, order }, submitted)
    }
    fn open_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>> {
        self.ask(Request::Open { number, client_id }, orders)
    }
    fn closed_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>> {
        self.ask(Request::Closed { number, client_id }, orders)
    }
    fn trades(&self, number: u64, client_id: Uuid, since: Ts) -> Answer<Vec<FillReport>> {
        self.ask(Request::Trades { number, client_id, since }, fills)
    }
    fn cancel(&self, number: u64, client_id: Uuid) -> Answer<()> {
        self.ask(Request::Cancel { number, client_id }, |reply| reply.map(drop).ok_or_else(|| "no answer".to_owned()))
    }
    fn time(&self) -> Answer<VenueTime> {
        self.ask(Request::Time, time)
    }
}
