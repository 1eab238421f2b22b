//! An entry as the engine is asked about it, and the checks that make it a proposal at all (domain §11.2).
//! Rebalance orders are another type and never come here (D03).

use crate::model::{Money, Price, Regime, RiskCode, RiskRefusal, Score, Side, Symbol, TradeKey, Ts};

use super::RiskRules;

/// One entry the engine is asked about.
#[derive(Clone, PartialEq, Debug)]
pub struct RiskRequest {
    /// Under which trade key a reservation is made.
    pub key: TradeKey,
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy = long, sell = short.
    pub side: Side,
    /// Asked for, account currency.
    pub notional_usd: Money,
    /// Wanted entry, quote units.
    pub entry: Price,
    /// Protective stop.
    pub stop: Option<Price>,
    /// Target.
    pub target: Option<Price>,
    /// Asked for; the engine lowers it.
    pub leverage: u32,
    /// After the consensus.
    pub confidence: Score,
    /// Regime in force; `unknown` without a fresh one.
    pub regime: Regime,
    /// When the symbol's newest price was true; absent = there is none.
    pub price_at: Option<Ts>,
    /// Account currency per quote unit.
    pub quote_usd: Money,
    /// ATR14 > 3 × its mean of 20, from the snapshot of this decision (R15).
    pub volatility_spike: bool,
    /// Confidence of the TA opinion, when it counts.
    pub ta_confidence: Option<Score>,
    /// Confidence of the sentiment opinion, when it counts.
    pub sentiment_confidence: Option<Score>,
}

/// Largest amount or price of a proposal. Anything above is a mistake, and products of two such numbers still fit.
const LARGEST: Price = Price::from_parts(0xD4A5_1000, 0xE8, 0, false, 0);

impl RiskRequest {
    /// Distance from entry to stop, quote units; negative when the stop is on the winning side.
    pub fn stop_distance(&self) -> Option<Price> {
        self.stop.map(|stop| self.losing(stop))
    }

    fn losing(&self, price: Price) -> Price {
        match self.side {
            Side::Buy => self.entry - price,
            Side::Sell => price - self.entry,
        }
    }

    /// Distance from entry to target, quote units.
    pub fn target_distance(&self) -> Option<Price> {
        self.target.map(|target| -self.losing(target))
    }

    /// Checks of domain §11.2.
    ///
    /// # Errors
    /// INVALID_PROPOSAL with the field in `measured` and what it must be in `limit`. A missing stop is not judged
    /// here: it has a code of its own.
    pub fn validate(&self, rules: &RiskRules) -> Result<(), RiskRefusal> {
        let zero = Price::ZERO;
        let bad = |field: String, limit: &str| Err(invalid(field, limit));
        if rules.symbol(self.symbol).is_none() {
            return bad(format!("symbol {}", self.symbol), "a traded symbol");
        }
        for (field, value) in [("notional", self.notional_usd), ("entry", self.entry), ("quote price", self.quote_usd)]
        {
            if value <= zero || value > LARGEST {
                return bad(format!("{field} {value}"), "> 0 and at most 10^12");
            }
        }
        if let Some(level) = [self.stop, self.target].into_iter().flatten().find(|level| *level > LARGEST) {
            return bad(format!("level {level}"), "at most 10^12");
        }
        if let Some(stop) = self.stop
            && (stop <= zero || self.losing(stop) <= zero)
        {
            return bad(format!("stop {stop} at entry {}", self.entry), "> 0 and on the losing side");
        }
        if let Some(target) = self.target
            && (target <= zero || self.losing(target) >= zero)
        {
            return bad(format!("target {target} at entry {}", self.entry), "on the winning side");
        }
        if self.leverage < 1 {
            return bad(format!("leverage {}", self.leverage), "a whole number of at least 1");
        }
        if self.confidence < Score::ZERO || self.confidence > Score::ONE {
            return bad(format!("confidence {}", self.confidence), "0..1");
        }
        Ok(())
    }
}

/// A refusal with the field that is wrong.
pub(super) fn invalid(field: String, limit: &str) -> RiskRefusal {
    RiskRefusal { code: RiskCode::InvalidProposal, measured: field, limit: limit.to_owned() }
}
