//! A venue outside of the process: what it is asked, what it says, and what is remembered between question and answer.
//!
//! An answer can be lost, late, or about something else. So nothing a caller remembers is trusted after a restart: an
//! order found on its way without this memory is of unknown fate, and only queries settle it. The rules are in
//! [`protocol`]; here are the values they work on. No order of this kind is made by any setting of this release.

pub mod protocol;

use std::{collections::BTreeMap, rc::Rc};

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::venue::{Venue, VenueAnswer};
use crate::model::{
    Liquidity, Money, OrderType, Price, PriceTick, Qty, Side, Symbol, TimeInForce, Trade, TradeKey, Ts,
};
// tidy: allow(order) a release build has nothing of it
use crate::runtime::failpoint;

/// How long a caller waits for one call before the answer counts as lost, milliseconds. Longer than the deadline the
/// venue is given, so that what is refused for being late is still heard.
pub const CALL_TIMEOUT_MS: i64 = 12_000;
/// How many request numbers are reserved by one commit.
pub const NUMBERS_RESERVED: u64 = 1_000;
/// Numbers one look needs: one for each private question.
const NUMBERS_OF_A_LOOK: u64 = 3;

/// An order as the venue is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// UUIDv8 of the trade key: the same for every attempt.
    pub client_id: Uuid,
    /// What is traded.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: Side,
    /// Base units.
    pub quantity: Qty,
    /// Market or limit.
    pub order_type: OrderType,
    /// How long it may rest.
    pub time_in_force: TimeInForce,
    /// The venue must refuse it after this instant of its own clock.
    pub deadline: Ts,
}

/// Where an order stands at the venue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Rests.
    Open,
    /// All of it is filled.
    Filled,
    /// It ended before all of it was filled: by a cancel, its time, or because nothing was there to fill it.
    Ended,
}

/// An order as the venue knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OrderReport {
    /// Which.
    pub client_id: Uuid,
    /// Where it stands.
    pub status: OrderStatus,
    /// Filled so far, base units.
    pub filled: Qty,
}

/// A fill as the venue reports it, in a list or in its stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FillReport {
    /// The venue's own id; the same wherever the fill is reported.
    pub id: String,
    /// Which order.
    pub client_id: Uuid,
    /// Base units.
    pub quantity: Qty,
    /// Quote units per base unit.
    pub price: Price,
    /// Quote units.
    pub fee: Money,
    /// Maker or taker.
    pub liquidity: Liquidity,
}

/// The venue's clock, and whether it takes orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VenueTime {
    /// Its clock.
    pub now: Ts,
    /// False during maintenance: lists may be incomplete then.
    pub online: bool,
}

/// What came of a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Submitted {
    /// The venue has it.
    Accepted,
    /// A business refusal: the venue has looked at it and does not want it.
    Refused(String),
    /// No byte left this process.
    NotSent(String),
    /// Anything else: the venue may have it.
    Ambiguous(String),
}

/// One round of queries about one order. Only a round in which every question was answered exists.
#[derive(Clone, PartialEq, Debug)]
pub struct Round {
    /// Asked before the lists, so that what they lack was lacking after this instant.
    pub time: VenueTime,
    /// Open orders of this client id.
    pub open: Vec<OrderReport>,
    /// Closed orders of this client id.
    pub closed: Vec<OrderReport>,
    /// Fills of this client id.
    pub trades: Vec<FillReport>,
}

/// What the venue is asked about one order.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    /// Take this order.
    Submit(Box<Order>),
    /// Which time is it, and what is known of this order?
    Look {
        /// Fills are wanted from this instant on.
        since: Ts,
    },
    /// Cancel what is left.
    Cancel,
}

/// One call to make.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// About which trade.
    pub key: TradeKey,
    /// During which attempt.
    pub attempt: u32,
    /// First request number; a look uses three in a row.
    pub number: u64,
    /// What.
    pub call: Call,
}

/// What came back.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    /// Of a submission.
    Submitted(Submitted),
    /// Of a round of queries; an error when any of them was not answered.
    Looked(Result<Round, String>),
    /// Of a cancel. Not believed: the next look says how the order ended.
    CancelAnswered,
}

impl Heard {
    /// What a call comes to that got no answer in time.
    pub fn nothing(call: &Call) -> Heard {
        let why = format!("no answer within {} s", CALL_TIMEOUT_MS / 1_000);
        match call {
            Call::Submit(_) => Heard::Submitted(Submitted::Ambiguous(why)),
            Call::Look { .. } => Heard::Looked(Err(why)),
            Call::Cancel => Heard::CancelAnswered,
        }
    }
}

/// An answer on its way; the error says what is not known.
pub type Answer<T> = LocalBoxFuture<'static, Result<T, String>>;

/// A venue that is asked over a wire. Each private request carries a number that is never used twice, which is what
/// keeps a repeated packet from being a second order.
pub trait RemoteVenue {
    /// Hands in an order.
    fn submit(&self, number: u64, order: Order) -> LocalBoxFuture<'static, Submitted>;
    /// Open orders with this client id.
    fn open_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>>;
    /// Closed orders with this client id.
    fn closed_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>>;
    /// Fills of this client id since an instant of the venue's clock.
    fn trades(&self, number: u64, client_id: Uuid, since: Ts) -> Answer<Vec<FillReport>>;
    /// Cancels the open order with this client id.
    fn cancel(&self, number: u64, client_id: Uuid) -> Answer<()>;
    /// The venue's clock and state; a public question without a number.
    fn time(&self) -> Answer<VenueTime>;
}

/// Makes one call.
pub async fn call(venue: Rc<dyn RemoteVenue>, ask: Ask) -> Heard {
    let client_id = ask.key.client_order_id();
    match ask.call {
        Call::Submit(order) => {
            failpoint::effect("wire.submit", "");
            Heard::Submitted(venue.submit(ask.number, *order).await)
        }
        Call::Look { since } => Heard::Looked(look(venue.as_ref(), ask.number, client_id, since).await),
        Call::Cancel => {
            failpoint::effect("wire.cancel", "");
            // Whatever it says: only a query tells a cancelled order from one that filled meanwhile.
            drop(venue.cancel(ask.number, client_id).await);
            Heard::CancelAnswered
        }
    }
}

/// Open before closed before fills: an order that moves on meanwhile is seen in the later list.
async fn look(venue: &dyn RemoteVenue, number: u64, client_id: Uuid, since: Ts) -> Result<Round, String> {
    let time = venue.time().await?;
    let open = venue.open_orders(number, client_id).await?;
    let closed = venue.closed_orders(number + 1, client_id).await?;
    let trades = venue.trades(number + 2, client_id, since).await?;
    Ok(Round { time, open, closed, trades })
}

/// What is remembered of one order between question and answer. Lost with the process, on purpose.
#[derive(Clone, Debug, Default)]
struct Talk {
    /// The attempt this process has announced in the journal, and may therefore send once.
    cleared: Option<u32>,
    sent: bool,
    /// A call of this attempt is under way.
    busy: Option<u32>,
    submitted: Option<Submitted>,
    round: Option<Result<Round, String>>,
    /// Rounds in a row that prove its absence.
    absent: u32,
    /// Since when what the venue answers about it contradicts what it said before.
    lost: Option<Ts>,
    next_look: Option<Ts>,
    alerted: bool,
    cancel_seen: bool,
}

/// Reserved request numbers that are not used yet.
#[derive(Clone, Debug, Default)]
struct Numbers {
    next: u64,
    end: u64,
    asked: Option<(u64, u64)>,
    /// A call waits for numbers.
    short: bool,
}

/// The conversation with a remote venue: calls to make, answers not worked on yet.
#[derive(Clone, Debug, Default)]
pub struct Talks {
    talks: BTreeMap<TradeKey, Talk>,
    calls: Vec<Ask>,
    /// Fills the venue's stream told, by client id.
    streamed: BTreeMap<Uuid, Vec<FillReport>>,
    numbers: Numbers,
}

impl Talks {
    /// Calls to make now; each is given once.
    pub fn take_calls(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.calls)
    }

    /// Takes what came back of a call. What belongs to an earlier attempt is ignored.
    pub fn heard(&mut self, key: TradeKey, attempt: u32, heard: Heard) {
        let Some(talk) = self.talks.get_mut(&key) else { return };
        if talk.busy != Some(attempt) {
            return;
        }
        talk.busy = None;
        match heard {
            Heard::Submitted(submitted) => talk.submitted = Some(submitted),
            Heard::Looked(round) => talk.round = Some(round),
            Heard::CancelAnswered => {}
        }
    }

    /// Takes a fill of the venue's stream. It may have been told before, here or in a list.
    pub fn streamed(&mut self, fill: FillReport) {
        let known = self.streamed.entry(fill.client_id).or_default();
        if !known.contains(&fill) {
            known.push(fill);
        }
    }
}

impl Venue for Talks {
    /// Nothing is executed here: [`protocol`] asks the venue, and its answer comes later.
    fn execute(&mut self, _: &Trade, _: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        VenueAnswer::TooEarly { until: now }
    }

    fn remote(&mut self) -> Option<&mut Talks> {
        Some(self)
    }
}
