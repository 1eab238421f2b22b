//! The venue seam: what execution asks of a venue, the paper venue, and a double that fails on demand.
//!
//! A definite failure means that the order cannot exist at the venue; an ambiguous one means that it may.

use std::collections::BTreeMap;

use super::{
    paper::{self, PaperContext, VenueFill},
    remote::Talks,
};
use crate::{
    model::{PriceTick, Symbol, SymbolRules, Trade, Ts},
    settings::{ExecutionSettings, Settings},
};

/// What a venue says about an order.
#[derive(Clone, PartialEq, Debug)]
pub enum VenueAnswer {
    /// A fill; of a part when its quantity is below what remained.
    Filled(VenueFill),
    /// The order rests, or keeps resting.
    Resting {
        /// When it ends by itself.
        expires_at: Option<Ts>,
    },
    /// The order ended without filling what remained (IOC).
    Cancelled {
        /// Why.
        reason: String,
    },
    /// A business refusal; counted once, never retried.
    Rejected {
        /// Code and facts.
        reason: String,
    },
    /// A definite technical failure; another attempt may follow.
    NotExecuted {
        /// Why.
        reason: String,
    },
    /// No answer or an ambiguous one.
    Unknown {
        /// Why.
        reason: String,
    },
    /// Accepted, not matched yet: ask again at that instant.
    TooEarly {
        /// When latency has passed.
        until: Ts,
    },
}

/// A place orders are executed at.
pub trait Venue {
    /// Executes or matches one order at the newest price.
    fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer;

    /// The conversation with a venue outside of the process, which is told and asked instead of [`Venue::execute`];
    /// nothing for a venue that executes at once.
    fn remote(&mut self) -> Option<&mut Talks> {
        None
    }
}

/// The paper venue: matching against the program's own prices, nothing leaves the process.
#[derive(Clone, Debug)]
pub struct PaperVenue {
    /// Latency, slippage, fees, expiry.
    pub execution: ExecutionSettings,
    /// Rounding and minimum by symbol.
    pub rules: BTreeMap<Symbol, SymbolRules>,
    /// Feed name, the first part of price ids.
    pub feed: String,
    /// Oldest usable price, milliseconds.
    pub price_max_age_ms: i64,
}

impl PaperVenue {
    /// The venue of these settings, matching against the prices of `feed`.
    pub fn new(settings: &Settings, feed: String) -> PaperVenue {
        PaperVenue {
            execution: settings.execution.clone(),
            rules: settings.market.symbol.clone(),
            feed,
            price_max_age_ms: i64::from(settings.market.price_max_age_seconds) * 1_000,
        }
    }
}

impl Venue for PaperVenue {
    fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        let Some(rules) = self.rules.get(&trade.body.symbol) else {
            return VenueAnswer::Rejected { reason: format!("{} is not traded here", trade.body.symbol) };
        };
        let context = PaperContext {
            execution: &self.execution,
            rules,
            feed: &self.feed,
            price_max_age_ms: self.price_max_age_ms,
        };
        let own_price = price.filter(|tick| tick.symbol == trade.body.symbol);
        paper::execute(trade, own_price, now, &context)
    }
}

/// How [`FaultyVenue`] fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The order cannot exist.
    Definite,
    /// The order may exist.
    Ambiguous,
    /// It executes twice what was ordered.
    TooMuch,
}

/// A test double that fails the next `failures` executions and then passes them on.
#[derive(Clone, Debug)]
pub struct FaultyVenue<V> {
    /// Executes what is not failed.
    pub inner: V,
    /// How many executions still fail.
    pub failures: u32,
    /// How they fail.
    pub fault: Fault,
    /// Executions asked for so far.
    pub calls: u32,
}

impl<V: Venue> Venue for FaultyVenue<V> {
    fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        self.calls += 1;
        let Some(left) = self.failures.checked_sub(1) else { return self.inner.execute(trade, price, now) };
        self.failures = left;
        match self.fault {
            Fault::TooMuch => match self.inner.execute(trade, price, now) {
                VenueAnswer::Filled(fill) => {
                    let (quantity, value) = (fill.quantity + fill.quantity, fill.value + fill.value);
                    VenueAnswer::Filled(VenueFill { quantity, value, ..fill })
                }
                // Not this time.
                other => {
                    self.failures += 1;
                    other
                }
            },
            Fault::Definite => VenueAnswer::NotExecuted { reason: "venue error: order not accepted".into() },
            Fault::Ambiguous => VenueAnswer::Unknown { reason: "venue error: no answer".into() },
        }
    }
}
