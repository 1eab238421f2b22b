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

    /// Refuses an answer about another symbol: in its field, or named in its text. Names are compared whole, after
    /// the comparison has put their spellings together; the asset of another symbol alone, in capitals, names it as well.
    ///
    /// # Errors
    /// Ungrounded, with the symbol named.
    pub fn symbol(&self, field: Option<&str>, texts: &[&str]) -> Result<(), Rejected> {
        let other = |named: &str| self.others.iter().find(|other| names(named, other));
        if let Some(named) = field.filter(|named| !names(named, &self.symbol) || other(named).is_some()) {
            let named: String = named.chars().take(40).collect();
            return Err(rejected(
                FailureKind::Ungrounded,
                format!("asked about {}, answered on `{named}`", self.symbol),
            ));
        }
        for text in texts {
            let pairs = text.split(|c: char| !c.is_ascii_alphanumeric() && !SEPARATORS.contains(&c) && c != '.');
            let pair = pairs.map(trimmed).find(|pair| !names(pair, &self.symbol) && other(pair).is_some());
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
            if let Some(found) = pair.or_else(|| words.find(|word| self.is_foreign_asset(word))) {
                return Err(rejected(FailureKind::Ungrounded, format!("asked about {}, names {found}", self.symbol)));
            }
        }
        Ok(())
    }

    fn is_foreign_asset(&self, word: &str) -> bool {
        let own = [self.symbol.base.as_str(), self.symbol.quote.as_str()];
        !own.contains(&word) && self.others.iter().any(|other| other.base.as_str() == word)
    }
}

/// What stands between the two assets of a pair, in the spellings of exchanges.
const SEPARATORS: [char; 4] = ['/', '-', '_', ':'];

fn trimmed(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// Whether a text is the name of a symbol: both assets, whole, in this order, in small or capital letters, with one of
/// `/ - _ :` between them or nothing. `BTC/USD` is not `BTC/USDT`, and neither is one asset alone.
fn names(text: &str, symbol: &Symbol) -> bool {
    let (base, quote) = (symbol.base.as_str(), symbol.quote.as_str());
    let text = text.trim();
    match text.split_once(SEPARATORS) {
        Some((first, second)) => first.eq_ignore_ascii_case(base) && second.eq_ignore_ascii_case(quote),
        None => {
            let parts = text.split_at_checked(base.len());
            parts.is_some_and(|(first, second)| first.eq_ignore_ascii_case(base) && second.eq_ignore_ascii_case(quote))
        }
    }
}

/// The numeric indicators by name; absent ones are left out.
pub fn numbers(indicators: &Indicators) -> BTreeMap<String, f64> {
    let value = serde_json::to_value(indicators).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}
