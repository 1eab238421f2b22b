//! Prices that cannot be believed: a price far from the last accepted one is withheld until others agree with it.
//!
//! A single wrong value of a feed would otherwise fire stops, fill orders and move every indicator. A market that has
//! really moved says the same again: [`AGREEING`] values in a row over at least [`AGREED_MS`] near each other are
//! the new level. What was withheld until then is missing, never replaced.

use crate::model::{Price, Symbol, Ts};

/// Values in a row that have to agree before a far price is believed.
pub const AGREEING: u32 = 3;
/// How long they have to agree at least, milliseconds.
pub const AGREED_MS: i64 = 120_000;

/// A level the feed claims and nobody believes yet.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Claim {
    price: f64,
    since: Ts,
    at: Ts,
    seen: u32,
}

/// What is known of one series of prices.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct JumpGuard {
    last: Option<f64>,
    claim: Option<Claim>,
}

/// A price that was withheld, for the operator.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Withheld {
    /// Which symbol.
    pub symbol: Symbol,
    /// When it was said to be true.
    pub at: Ts,
    /// The price that was not believed.
    pub price: f64,
    /// The last accepted price; absent before the first.
    pub accepted: Option<Price>,
}

impl JumpGuard {
    /// Whether the value is believed. `extremes` are all prices it brings (of a candle all four), each above zero; `close`
    /// the newest of them; `factor` how many times higher or lower than the last accepted price they may be, above 1.
    pub fn believes(&mut self, extremes: &[f64], close: f64, at: Ts, factor: f64) -> bool {
        let near = |from: f64| extremes.iter().all(|price| *price <= from * factor && from <= *price * factor);
        // The first value has only itself to be measured by: a candle of one impossible price is seen even then.
        if near(self.last.unwrap_or(close)) {
            *self = JumpGuard { last: Some(close), claim: None };
            return true;
        }
        match &mut self.claim {
            // The same instant again is no second opinion.
            Some(claim) if near(claim.price) && at == claim.at => {}
            Some(claim) if near(claim.price) => {
                *claim = Claim { price: close, at, seen: claim.seen + 1, ..*claim };
                if claim.seen >= AGREEING && at.since_ms(claim.since) >= AGREED_MS {
                    *self = JumpGuard { last: Some(close), claim: None };
                    return true;
                }
            }
            // A value that does not even agree with itself claims nothing, but ends what was claimed before.
            claim => *claim = Some(Claim { price: close, since: at, at, seen: 1 }),
        }
        false
    }

    /// The newest value was withheld.
    pub fn in_doubt(&self) -> bool {
        self.claim.is_some()
    }
}

#[cfg(test)]
#[path = "jump_tests.rs"]
mod tests;
