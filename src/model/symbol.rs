//! Assets and traded pairs as small copyable values with a total order, so that every map of them iterates the same way.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use super::{Price, Qty};

/// Longest asset name, in ASCII bytes.
pub const ASSET_LEN_MAX: usize = 12;

/// An asset name such as `BTC`: 1..=12 upper-case ASCII letters, digits or dots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset([u8; ASSET_LEN_MAX]);

/// A name that is no asset or pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// The asset part is empty, too long or holds other characters than `A-Z 0-9 .`.
    #[error("asset `{0}` must be 1 to 12 upper-case letters, digits or dots")]
    Asset(String),
    /// There is no single `/` between base and quote.
    #[error("symbol `{0}` must look like BASE/QUOTE, for example BTC/USDT")]
    Pair(String),
}

impl Asset {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(ASSET_LEN_MAX);
        std::str::from_utf8(&self.0[..len]).unwrap_or("")
    }
}

impl FromStr for Asset {
    type Err = SymbolError;
    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let valid = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.';
        if text.is_empty() || text.len() > ASSET_LEN_MAX || !text.bytes().all(valid) {
            return Err(SymbolError::Asset(text.to_owned()));
        }
        let mut bytes = [0; ASSET_LEN_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Asset(bytes))
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A traded pair BASE/QUOTE, or the pseudo-symbol `PORTFOLIO` of the portfolio task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    /// What is bought or sold.
    pub base: Asset,
    /// What it is paid in.
    pub quote: Asset,
}

impl Symbol {
    /// The pseudo-symbol under which the portfolio task runs.
    pub const PORTFOLIO: Symbol = Symbol { base: Asset(*b"PORTFOLIO\0\0\0"), quote: Asset([0; ASSET_LEN_MAX]) };

    /// True for [`Symbol::PORTFOLIO`], which has no price and no order.
    pub fn is_portfolio(&self) -> bool {
        *self == Symbol::PORTFOLIO
    }
}

impl FromStr for Symbol {
    type Err = SymbolError;
    fn from_str(text: &str) -> Result<Self, SymbolError> {
        if text == "PORTFOLIO" {
            return Ok(Symbol::PORTFOLIO);
        }
        let (base, quote) = text.split_once('/').ok_or_else(|| SymbolError::Pair(text.to_owned()))?;
        if quote.contains('/') || base == quote {
            return Err(SymbolError::Pair(text.to_owned()));
        }
        Ok(Symbol { base: base.parse()?, quote: quote.parse()? })
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_portfolio() {
            return f.pad("PORTFOLIO");
        }
        if f.width().is_some() {
            return f.pad(&format!("{}/{}", self.base.as_str(), self.quote.as_str()));
        }
        write!(f, "{}/{}", self.base.as_str(), self.quote.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string"})
            }
        }
    };
}
pub(crate) use serde_as_text;
serde_as_text!(Asset);
serde_as_text!(Symbol);

/// Rounding and minimum of one symbol at the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolRules {
    /// Smallest order quantity, base units.
    pub min_quantity: Qty,
    /// Decimals of a price.
    pub price_decimals: u32,
    /// Decimals of a quantity.
    pub quantity_decimals: u32,
}

impl SymbolRules {
    /// One price step, quote units.
    pub fn tick(&self) -> Price {
        Decimal::new(1, self.price_decimals)
    }

    /// The price rounded down to a step.
    pub fn price_down(&self, price: Price) -> Price {
        price.round_dp_with_strategy(self.price_decimals, RoundingStrategy::ToNegativeInfinity)
    }

    /// The price rounded up to a step.
    pub fn price_up(&self, price: Price) -> Price {
        price.round_dp_with_strategy(self.price_decimals, RoundingStrategy::ToPositiveInfinity)
    }

    /// The nearest price step to a market-data value; absent for values that are not finite, not > 0 or too large.
    pub fn price_from_f64(&self, value: f64) -> Option<Price> {
        let scaled = (value * 10f64.powi(self.price_decimals as i32)).round();
        // 9e18 is below i64::MAX, so the cast is exact.
        (scaled.is_finite() && (1.0..9e18).contains(&scaled)).then(|| Decimal::new(scaled as i64, self.price_decimals))
    }

    /// The quantity floored to a step.
    pub fn floor_quantity(&self, quantity: Qty) -> Qty {
        quantity.round_dp_with_strategy(self.quantity_decimals, RoundingStrategy::ToZero)
    }
}
