//! The paper venue of a simulation: sometimes it refuses technically, sometimes nobody knows what became of an order.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::plan::{Fault, Plan};
use crate::{
    execution::venue::{PaperVenue, Venue, VenueAnswer},
    model::{PriceTick, Trade, TradeState, Ts},
    settings::Settings,
};

/// The venue behind the faults. It never fails after it has filled: the paper venue forgets what it did not say.
pub struct FaultyPaper {
    inner: PaperVenue,
    rng: ChaCha8Rng,
    faulty: bool,
}

impl FaultyPaper {
    /// The venue of one life of `plan`.
    pub fn new(settings: &Settings, feed: &str, plan: &Plan, life: u32) -> FaultyPaper {
        FaultyPaper {
            inner: PaperVenue::new(settings, feed.to_owned()),
            rng: plan.stream("venue", life),
            faulty: plan.faults.has(Fault::Venue),
        }
    }
}

impl Venue for FaultyPaper {
    fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        let first = matches!(trade.state, TradeState::Submitting | TradeState::Unknown);
        if self.faulty && first {
            match self.rng.random_range(0..20) {
                0 => return VenueAnswer::NotExecuted { reason: "simulated: not accepted".to_owned() },
                1 => return VenueAnswer::Unknown { reason: "simulated: no answer".to_owned() },
                _ => {}
            }
        }
        self.inner.execute(trade, price, now)
    }
}
