//! What keeps a position from being closed at the market now, in words for the operator who asked for it. Pure.
//!
//! Closing is owed and tried without end, so the command is not refused; but who reads "done" must learn which positions
//! stay open, and what would change that.

use std::collections::BTreeMap;

use crate::{
    execution::paper,
    model::{Position, State, Ts},
    risk::board::Board,
    settings::Settings,
};

/// The positions that cannot be closed now, each with the reason and what to do; by id.
pub fn to_closing(state: &State, settings: &Settings, board: &Board, now: Ts) -> BTreeMap<String, String> {
    let held = state.positions.values();
    held.filter_map(|position| Some((position.id.to_string(), obstacle(position, settings, board, now)?))).collect()
}

fn obstacle(position: &Position, settings: &Settings, board: &Board, now: Ts) -> Option<String> {
    let symbol = position.symbol;
    let Some(rules) = settings.market.symbol.get(&symbol) else {
        return Some(format!(
            "{symbol} has no rounding rules: put [market.symbol.\"{symbol}\"] back into the settings and start again; \
             until then no order can be made of it, and its stop is not executed either"
        ));
    };
    if rules.floor_quantity(position.quantity) < rules.min_quantity {
        let (quantity, least) = (position.quantity.normalize(), rules.min_quantity.normalize());
        return Some(format!(
            "{quantity} of {symbol} is less than the smallest order, {least}: nothing is made of it, it stays"
        ));
    }
    let max_age_ms = i64::from(settings.market.price_max_age_seconds) * 1_000;
    let tick = board.ticks.get(&symbol);
    let unpriced = match tick {
        Some(tick) if !paper::is_fresh(tick, now, max_age_ms) => {
            format!("the newest price of {symbol} is {} s old", now.since_ms(tick.at) / 1_000)
        }
        None => format!("{symbol} has no price"),
        Some(_) if board.book.usd(symbol.quote).is_none() => {
            format!("{} has no price in {}", symbol.quote, settings.account_currency)
        }
        Some(_) => return None,
    };
    // A symbol that had a price is watched, also when it is not among the settings' own.
    Some(match tick.is_some() || settings.symbols.contains(&symbol) {
        true => format!("{unpriced}: it is closed at the next one"),
        false => format!(
            "{unpriced} and {symbol} is not among the `symbols`: put it back, or give the feed its prices, and start again"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Decimal, PriceTick},
        risk::{
            board::PriceBoard,
            fixtures::{dec, position, sym, usdt},
        },
    };

    const NOW: Ts = Ts(1_000_000_000);

    fn priced(prices: &[(&str, &str, i64)]) -> PriceBoard {
        let board = PriceBoard::new(usdt());
        for (symbol, price, age_s) in prices {
            let at = NOW.plus_ms(-age_s * 1_000);
            board.set(PriceTick { symbol: sym(symbol), price: dec(price), at, price_id: 1, range: None });
        }
        board
    }

    fn of(symbol: &str, quantity: &str, settings: &Settings, prices: &[(&str, &str, i64)]) -> Option<String> {
        let mut state = State::default();
        let held = position(3, symbol, quantity, "100");
        state.positions.insert(held.id, held);
        let board = priced(prices);
        let found = to_closing(&state, settings, &board.reader().read(), NOW);
        assert!(found.keys().all(|id| id == "P3"), "{found:?}");
        found.into_values().next()
    }

    #[test]
    fn what_can_be_sold_at_a_fresh_price_has_no_obstacle() {
        let settings = Settings::defaults();
        let age = i64::from(settings.market.price_max_age_seconds);
        assert_eq!(of("XRP/USDT", "100", &settings, &[("XRP/USDT", "0.6", age)]), None);
        let both = [("XRP/BTC", "0.00001", 1), ("BTC/USDT", "45000", 1)];
        assert_eq!(of("XRP/BTC", "100", &settings, &both), None);
    }

    #[test]
    fn every_obstacle_is_named_with_what_to_do() {
        let mut settings = Settings::defaults();
        let age = i64::from(settings.market.price_max_age_seconds);
        let old = [("XRP/USDT", "0.6", age + 1)];
        let says = |found: Option<String>, words: &[&str]| {
            let text = found.expect("an obstacle");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        says(of("XRP/USDT", "100", &settings, &old), &["XRP/USDT is", "s old", "closed at the next one"]);
        says(of("XRP/USDT", "100", &settings, &[]), &["XRP/USDT has no price", "closed at the next one"]);
        let alone = [("XRP/BTC", "0.00001", 1)];
        says(of("XRP/BTC", "100", &settings, &alone), &["BTC has no price in USDT"]);
        let dust = (settings.market.symbol[&sym("XRP/USDT")].min_quantity - Decimal::new(1, 2)).to_string();
        says(of("XRP/USDT", &dust, &settings, &[("XRP/USDT", "0.6", 1)]), &["less than the smallest order"]);
        settings.symbols.retain(|symbol| *symbol != sym("XRP/USDT"));
        says(of("XRP/USDT", "100", &settings, &old), &["s old", "closed at the next one"]);
        says(of("XRP/USDT", "100", &settings, &[]), &["not among the `symbols`", "put it back"]);
        settings.market.symbol.remove(&sym("XRP/USDT"));
        let fresh = [("XRP/USDT", "0.6", 1)];
        says(of("XRP/USDT", "100", &settings, &fresh), &["[market.symbol.\"XRP/USDT\"]", "start again"]);
    }
}
