//! The market as an actor: drives the feed by the clock, hands prices on and answers with snapshots.
//!
//! Whatever it is asked, it first takes in everything that is available by now, so the order in which timers fire never
//! decides what a snapshot sees.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, MessageResult, Recipient, Response};
use tokio::sync::oneshot;

use super::{
    core::{FeedStatus, Market},
    feed::{Feed, FeedIssues, FeedItem},
    jump::Withheld,
};
use crate::{
    model::{Clock, PriceTick, Snapshot, Symbol, Ts},
    runtime::{
        alarm::{self, Alarm, Alarmed},
        clock::LogicalClock,
        post::post,
    },
};

/// Asks for the market state of a symbol; absent for a symbol without data. At the end of a candle that a live venue has
/// not sent yet the answer waits for it, for six seconds at most.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Option<Arc<Snapshot>>")]
pub struct ReadSnapshot {
    /// Which symbol.
    pub symbol: Symbol,
    /// After this an answer is of no use: only half the time until then is spent on waiting.
    pub by: Option<Ts>,
}

/// A live candle has arrived so long after its end, or is not waited for any more, milliseconds: the venue's link closes it
/// 5 s after its end if nothing follows it.
const SETTLE_MS: i64 = 6_000;

/// Somebody who waits for the candle that ended last.
struct Waiting {
    symbol: Symbol,
    end: Ts,
    until: Ts,
    answer: oneshot::Sender<Option<Arc<Snapshot>>>,
}

/// Asks for the health of every symbol's feed.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Vec<FeedStatus>")]
pub struct ReadFeeds;

/// Asks whether the data advance; answered by a message of its own, so that nothing waits for it.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct SampleFeeds {
    /// Who is told.
    pub answer: Recipient<FeedsSampled>,
}

/// Market data were looked at.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct FeedsSampled {
    /// There are symbols, every symbol's data advance (of a live feed: any symbol's), and they count as healthy until then,
    /// whatever arrives.
    pub healthy_until: Option<Ts>,
    /// Candles and prices withheld since the last answer because they are too far from the last accepted price.
    pub withheld: u64,
    /// The newest of them; of an earlier answer when there are none since.
    pub newest: Option<Withheld>,
}

/// Asks what the feed skipped and how many candles and prices were taken since the start.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "(FeedIssues, u64)")]
pub struct ReadIssues;

/// Logical time jumped ahead of timers that were set before.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct ClockMoved;

/// The feed has ended; sent once.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct FeedEnded {
    /// Why, when it broke.
    pub error: Option<String>,
}

/// What is done with every accepted price: the board, execution, the bus.
pub type PriceHook = Box<dyn FnMut(PriceTick)>;

/// Withheld values are told at most this often, milliseconds: a feed that lies for hours fills no journal.
const TELL_WITHHELD_MS: i64 = 10 * 60_000;

/// The market actor.
pub struct MarketActor {
    market: Market,
    feed: Box<dyn Feed>,
    clock: LogicalClock,
    on_price: PriceHook,
    on_end: Option<Recipient<FeedEnded>>,
    taken: u64,
    /// Withheld values that were told, or lie in the history, and when.
    told: (u64, Option<Ts>),
    waiting: Vec<Waiting>,
    alarm: Alarm,
}

impl MarketActor {
    /// A market that has taken its history already; `feed` goes on after it.
    pub fn new(
        market: Market,
        feed: Box<dyn Feed>,
        clock: LogicalClock,
        on_price: PriceHook,
        on_end: Recipient<FeedEnded>,
    ) -> MarketActor {
        // What the history of a start withholds was told when it happened.
        let told = (market.withheld().0, None);
        let (on_end, alarm) = (Some(on_end), Alarm::default());
        MarketActor { market, feed, clock, on_price, on_end, taken: 0, told, waiting: Vec::new(), alarm }
    }

    /// Takes in everything available by now.
    fn pump(&mut self, now: Ts) {
        while self.feed.peek_at().is_some_and(|at| at <= now) {
            match self.feed.next() {
                Some(Ok(item)) => self.take(item),
                Some(Err(error)) => return self.end(Some(error.to_string())),
                None => return self.end(None),
            }
        }
    }

    fn take(&mut self, item: FeedItem) {
        if let Some(tick) = self.market.take(item) {
            self.taken += 1;
            (self.on_price)(tick);
        }
    }

    fn end(&mut self, error: Option<String>) {
        if let Some(owner) = self.on_end.take() {
            post("owner", &owner, FeedEnded { error });
        }
    }

    fn wake(&mut self) {
        let now = self.clock.now();
        self.pump(now);
        self.answer_waiting(now);
        let patience = self.waiting.iter().map(|waiting| waiting.until).min();
        match self.feed.peek_at().into_iter().chain(patience).min() {
            Some(at) => self.alarm.set(Some(at), &self.clock),
            None if self.feed.is_live() => {}
            None => match self.feed.next() {
                Some(Err(error)) => self.end(Some(error.to_string())),
                _ => self.end(None),
            },
        }
    }
}

impl MarketActor {
    /// How long a question for a snapshot waits: for the end of which candle, and until when at most.
    fn patience(&self, read: ReadSnapshot, now: Ts) -> Option<(Ts, Ts)> {
        let end = self.feed.is_live().then(|| self.market.unsettled(read.symbol, now)).flatten()?;
        let half = read.by.map(|by| now.plus_ms(by.since_ms(now) / 2));
        let until = half.map_or(end.plus_ms(SETTLE_MS), |half| half.min(end.plus_ms(SETTLE_MS)));
        (now < until).then_some((end, until))
    }

    fn answer_waiting(&mut self, now: Ts) {
        let market = &self.market;
        let over =
            |waiting: &mut Waiting| now >= waiting.until || market.unsettled(waiting.symbol, waiting.end).is_none();
        for waiting in self.waiting.extract_if(.., over).collect::<Vec<_>>() {
            // Who has gone in the meantime needs no answer.
            let _ = waiting.answer.send(self.market.snapshot(waiting.symbol, now));
        }
    }
}

impl Actor for MarketActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        alarm::install(ctx);
        self.wake();
    }
}

impl Alarmed for MarketActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn rung(&mut self, _: &mut Context<Self>) {
        self.wake();
    }
}

impl Handler<ClockMoved> for MarketActor {
    type Result = ();
    fn handle(&mut self, _: ClockMoved, _: &mut Context<Self>) {
        // The same instant is another moment of the monotonic clock now.
        self.alarm.set(None, &self.clock);
        if self.on_end.is_some() {
            self.wake();
        }
    }
}

/// What a live venue has sent.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Delivered(pub Vec<FeedItem>);

impl Handler<Delivered> for MarketActor {
    type Result = ();
    fn handle(&mut self, delivered: Delivered, _: &mut Context<Self>) {
        delivered.0.into_iter().for_each(|item| self.feed.bring(item));
        self.wake();
    }
}

/// History of a symbol came late and lies where the feed keeps it: its frames are built anew with it.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Rewarm(pub Symbol);

impl Handler<Rewarm> for MarketActor {
    type Result = ();
    fn handle(&mut self, Rewarm(symbol): Rewarm, _: &mut Context<Self>) {
        let now = self.clock.now();
        self.pump(now);
        match self.feed.again(symbol, now) {
            Ok(items) if !items.is_empty() => self.market.rebuild(symbol, &items),
            Ok(_) => {}
            Err(error) => tracing::warn!("{symbol}: the history that came late cannot be read: {error}"),
        }
        self.wake();
    }
}

impl Handler<ReadSnapshot> for MarketActor {
    type Result = Response<Option<Arc<Snapshot>>>;
    fn handle(&mut self, read: ReadSnapshot, _: &mut Context<Self>) -> Self::Result {
        let now = self.clock.now();
        self.pump(now);
        if let Some((end, until)) = self.patience(read, now) {
            let (answer, answered) = oneshot::channel();
            self.waiting.push(Waiting { symbol: read.symbol, end, until, answer });
            self.wake();
            // It is dropped with this actor only.
            return Response::fut(async { answered.await.unwrap_or_default() });
        }
        // A live candle arrives after its end: closing the frames around it by time would refuse it as late. The next
        // candle closes them.
        if !self.feed.is_live() {
            self.market.advance(now);
        }
        Response::reply(self.market.snapshot(read.symbol, now))
    }
}

impl Handler<ReadFeeds> for MarketActor {
    type Result = MessageResult<ReadFeeds>;
    fn handle(&mut self, _: ReadFeeds, _: &mut Context<Self>) -> Self::Result {
        let now = self.clock.now();
        self.pump(now);
        MessageResult(self.market.feed_status(now))
    }
}

impl Handler<SampleFeeds> for MarketActor {
    type Result = ();
    fn handle(&mut self, sample: SampleFeeds, _: &mut Context<Self>) {
        let now = self.clock.now();
        self.pump(now);
        let (count, newest) = self.market.withheld();
        let (told, at) = self.told;
        let due = at.is_none_or(|at| now.since_ms(at) >= TELL_WITHHELD_MS);
        let withheld = if due { count - told } else { 0 };
        if withheld > 0 {
            self.told = (count, Some(now));
        }
        // A live feed's prices follow its candles and shorten what a candle alone promises: only now is certain. One of its
        // symbols that is silent or refused takes no entries by itself; it must not take the others down.
        let healthy_until = match self.feed.is_live() {
            true => self.market.any_healthy(now).then_some(now),
            false => self.market.healthy_until(now),
        };
        post("sampler", &sample.answer, FeedsSampled { healthy_until, withheld, newest });
    }
}

impl Handler<ReadIssues> for MarketActor {
    type Result = MessageResult<ReadIssues>;
    fn handle(&mut self, _: ReadIssues, _: &mut Context<Self>) -> Self::Result {
        MessageResult((self.feed.issues(), self.taken))
    }
}
