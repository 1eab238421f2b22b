//! Holds the numbers and names of an answer against the snapshot it was asked about.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, prelude::FromPrimitive};

use super::rejected;
use crate::{
    llm::question::{FailureKind, Rejected},
    model::{Indicators, Price, Snapshot, Symbol},
    settings::GroundingSettings,
};

/// How far a stated number may be off.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Of prices, percent of the snapshot price.
    pub price_pct: Decimal,
    /// Of indicators, percent of the snapshot's value.
    pub indicator_pct: f64,
}

impl From<&GroundingSettings> for Tolerance {
    fn from(settings: &GroundingSettings) -> Tolerance {
        Tolerance { price_pct: settings.price_pct, indicator_pct: settings.indicator_pct }
    }
}

/// What an answer is held against.
#[derive(Clone, PartialEq, Debug)]
pub struct Ground {
    symbol: Symbol,
    others: Vec<Symbol>,
    price: Price,
    indicators: BTreeMap<String, f64>,
    tolerance: Tolerance,
}

impl Ground {
    /// The ground of a usable snapshot; `None` without a price. `traded` are the symbols an answer could mix up.
    pub fn of(snapshot: &Snapshot, traded: &[Symbol], tolerance: Tolerance) -> Option<Ground> {
        Some(Ground {
            symbol: snapshot.symbol,
            others: traded.iter().copied().filter(|other| *other != snapshot.symbol).collect(),
            price: snapshot.price.filter(|price| *price > Price::ZERO)?,
            indicators: snapshot.primary_view().map(|view| numbers(&view.indicators)).unwrap_or_default(),
            tolerance,
        })
    }

    /// The ground of a question about an entry rather than a market: a symbol and its price, no indicators.
    pub fn about(symbol: Symbol, price: Price, traded: &[Symbol], tolerance: Tolerance) -> Ground {
        let others = traded.iter().copied().filter(|other| *other != symbol).collect();
        Ground { symbol, others, price, indicators: BTreeMap::new(), tolerance }
    }

    /// A stated price as a decimal.
    ///
    /// # Errors
    /// Ungrounded when it is further from the snapshot price than allowed.
    pub fn price(&self, field: &str, stated: f64) -> Result<Price, Rejected> {
        let off =
            || rejected(FailureKind::Ungrounded, format!("{field} {stated} is not near the price {}", self.price));
        let price = Decimal::from_f64(stated).filter(|price| *price > Price::ZERO).ok_or_else(off)?;
        let limit = self.price.checked_mul(self.tolerance.price_pct / Decimal::ONE_HUNDRED).ok_or_else(off)?;
        if (price - self.price).abs() <= limit { Ok(price) } else { Err(off()) }
    }

    /// Compares quoted indicators with the snapshot's.
    ///
    /// # Errors
    /// Ungrounded for a name the snapshot does not have and for a value too far off.
    pub fn indicators(&self, quoted: &BTreeMap<String, f64>) -> Result<(), Rejected> {
        for (name, stated) in quoted {
            let Some(known) = self.indicators.get(name) else {
                let name: String = name.chars().take(40).collect();
                return Err(rejected(FailureKind::Ungrounded, format!("the snapshot has no indicator `{name}`")));
            };
            if (stated - known).abs() > known.abs() * self.tolerance.indicator_pct / 100.0 + 1e-9 {
                let detail = format!("{name} is quoted as {stated}, the snapshot says {known}");
                return Err(rejected(FailureKind::Ungrounded, detail));
            }
        }
        Ok(())
    }

    /// Refuses an answer about another symbol: in its field, or named in its text.
    ///
    /// # Errors
    /// Ungrounded, with the symbol named.
    pub fn symbol(&self, field: Option<&str>, texts: &[&str]) -> Result<(), Rejected> {
        if let Some(named) = field.filter(|named| *named != self.symbol.to_string()) {
            let named: String = named.chars().take(40).collect();
            return Err(rejected(
                FailureKind::Ungrounded,
                format!("asked about {}, answered on `{named}`", self.symbol),
            ));
        }
        for other in &self.others {
            let name = other.to_string();
            if texts.iter().any(|text| text.to_ascii_uppercase().contains(&name)) {
                return Err(rejected(FailureKind::Ungrounded, format!("asked about {}, names {name}", self.symbol)));
            }
        }
        Ok(())
    }
}

/// The numeric indicators by name; absent ones are left out.
pub fn numbers(indicators: &Indicators) -> BTreeMap<String, f64> {
    let value = serde_json::to_value(indicators).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}
