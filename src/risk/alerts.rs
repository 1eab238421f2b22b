//! Soft alerts (domain §11.6): notifications once per UTC day, without any effect on what is allowed.
//!
//! What was said today is kept in memory only; after a restart an alert that still holds is said once more.

use std::collections::{BTreeMap, BTreeSet};

use super::{PriceBook, RiskRules, RiskView};
use crate::model::{Decimal, Event, PositionId, State, Ts};

/// Remembers which alerts of the current day were given.
#[derive(Clone, Debug, Default)]
pub struct SoftAlerts {
    day: i64,
    given: BTreeSet<(&'static str, PositionId)>,
}

impl SoftAlerts {
    /// Alerts that begin to hold at this mark, as `Noted` events.
    pub fn on_mark(
        &mut self,
        state: &State,
        view: &RiskView,
        prices: &PriceBook,
        rules: &RiskRules,
        now: Ts,
    ) -> Vec<Event> {
        if now.day() != self.day {
            self.day = now.day();
            self.given.clear();
        }
        let mut events = Vec::new();
        if view.equity_at.is_none() {
            return events;
        }
        let limits = rules.soft_alerts();
        let (start, equity) = (state.risk.day_start_equity, view.equity);
        let whole = PositionId(0);
        self.give(&mut events, "daily_loss_near", whole, start - equity, start, limits.daily_loss_pct);
        self.give(&mut events, "daily_profit", whole, equity - start, start, limits.daily_profit_pct);
        if state.positions.is_empty() && view.held.is_empty() {
            return events;
        }
        let exposure: Decimal = view.held.iter().map(|held| held.notional_usd).sum();
        if exposure * Decimal::ONE_HUNDRED > limits.exposure_pct * equity {
            self.give(&mut events, "exposure_high", whole, exposure, equity, limits.exposure_pct);
        }
        for position in state.positions.values() {
            let (Some(price), Some(quote)) = (prices.get(position.symbol), prices.usd(position.symbol.quote)) else {
                continue;
            };
            let loss = -position.unrealised(price.price) * quote.price;
            self.give(&mut events, "position_loss", position.id, loss, equity, limits.position_loss_pct);
            if let Some(stop) = position.stop {
                let near = (price.price - stop).abs();
                if near * Decimal::ONE_HUNDRED <= limits.stop_proximity_pct * price.price {
                    self.give(&mut events, "stop_near", position.id, near, price.price, Decimal::ZERO);
                }
            }
        }
        events
    }

    /// Gives an alert when `part` is at least `limit` percent of `whole` and it was not given today.
    fn give(
        &mut self,
        events: &mut Vec<Event>,
        what: &'static str,
        position: PositionId,
        part: Decimal,
        whole: Decimal,
        limit: Decimal,
    ) {
        if whole <= Decimal::ZERO || part * Decimal::ONE_HUNDRED < limit * whole || !self.given.insert((what, position))
        {
            return;
        }
        let measured = (part * Decimal::ONE_HUNDRED / whole).round_dp(2).normalize();
        let mut facts = BTreeMap::from([("measured_pct".to_owned(), measured.to_string())]);
        if position != PositionId(0) {
            facts.insert("position".to_owned(), position.to_string());
        }
        events.push(Event::Noted { what: what.to_owned(), facts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::fixtures::{self, dec, position, sym, usdt};

    fn said(events: &[Event]) -> Vec<&str> {
        events
            .iter()
            .filter_map(|event| if let Event::Noted { what, .. } = event { Some(&**what) } else { None })
            .collect()
    }

    #[test]
    fn soft_alerts_are_given_once_per_day() {
        let mut alerts = SoftAlerts::default();
        let mut state = State::default();
        state.risk.day_start_equity = dec("10000");
        let mut held = position(1, "BTC/USDT", "0.1", "5000");
        held.stop = Some(dec("47000"));
        state.positions.insert(held.id, held);
        let mut prices = PriceBook::new(usdt());
        let now = Ts(86_400_000 * 20_000);
        prices.set(sym("BTC/USDT"), dec("47200"), now);
        let mut view = fixtures::view(now);
        view.equity = dec("9700");
        let rules = fixtures::rules();
        let first = alerts.on_mark(&state, &view, &prices, &rules, now);
        assert_eq!(said(&first), ["daily_loss_near", "position_loss", "stop_near"]);
        assert!(alerts.on_mark(&state, &view, &prices, &rules, now.plus_ms(5_000)).is_empty());
        assert_eq!(alerts.on_mark(&state, &view, &prices, &rules, now.plus_ms(86_400_000)).len(), 3);
    }

    #[test]
    fn a_loss_in_another_quote_is_measured_in_the_account_currency() {
        let now = Ts(86_400_000 * 20_000);
        let mut prices = PriceBook::new(usdt());
        prices.set(sym("BTC/USDT"), dec("50000"), now);
        let mut view = fixtures::view(now);
        view.equity = dec("10000");
        // 0.001 BTC are 50 USDT and 0.5 %, 0.004 BTC are 200 USDT and 2 %.
        for (price, told) in [("0.00019", false), ("0.00016", true)] {
            prices.set(sym("XRP/BTC"), dec(price), now);
            let mut state = State::default();
            let held = position(1, "XRP/BTC", "100", "0.02");
            state.positions.insert(held.id, held);
            let events = SoftAlerts::default().on_mark(&state, &view, &prices, &fixtures::rules(), now);
            assert_eq!(said(&events).contains(&"position_loss"), told, "{price}: {events:?}");
        }
    }

    #[test]
    fn an_alert_says_how_much_and_of_which_position() {
        let now = Ts(86_400_000 * 20_000);
        let mut state = State::default();
        state.risk.day_start_equity = dec("10000");
        let mut held = position(7, "BTC/USDT", "0.1", "5000");
        held.stop = Some(dec("47000"));
        state.positions.insert(held.id, held);
        let mut prices = PriceBook::new(usdt());
        prices.set(sym("BTC/USDT"), dec("47200"), now);
        let mut view = fixtures::view(now);
        view.equity = dec("9700");
        let look = |state: &State, view: &RiskView| {
            let events = SoftAlerts::default().on_mark(state, view, &prices, &fixtures::rules(), now);
            let facts = |event| match event {
                Event::Noted { what, facts } => {
                    (what, facts.get("measured_pct").cloned().unwrap_or_default(), facts.get("position").cloned())
                }
                other => panic!("{other:?}"),
            };
            events.into_iter().map(facts).collect::<Vec<_>>()
        };
        let told = |what: &str, measured: &str, position: Option<&str>| {
            (what.to_owned(), measured.to_owned(), position.map(str::to_owned))
        };
        let seven = PositionId(7).to_string();
        let expected = [
            told("daily_loss_near", "3", None),
            told("position_loss", "2.89", Some(&seven)),
            told("stop_near", "0.42", Some(&seven)),
        ];
        assert_eq!(look(&state, &view), expected);
        // 0.64 % away: not near.
        state.positions.get_mut(&PositionId(7)).unwrap().stop = Some(dec("46900"));
        assert_eq!(look(&state, &view), expected[..2]);
        view.equity = dec("10500");
        assert_eq!(look(&state, &view)[0], told("daily_profit", "5", None));
    }

    #[test]
    fn exposure_is_told_beyond_its_share_of_the_equity_and_not_at_it() {
        let now = Ts(86_400_000 * 20_000);
        let mut view = fixtures::view(now);
        view.equity = dec("10000");
        let held = |notional| crate::risk::view::Held {
            symbol: sym("BTC/USDT"),
            notional_usd: dec(notional),
            margin_usd: dec(notional),
            slot: true,
            key: None,
            funds: Decimal::ZERO,
        };
        for (notional, told) in [("10", false), ("7000", false), ("7000.01", true)] {
            view.held = vec![held(notional)];
            let (state, prices) = (State::default(), PriceBook::new(usdt()));
            let events = SoftAlerts::default().on_mark(&state, &view, &prices, &fixtures::rules(), now);
            assert_eq!(said(&events).contains(&"exposure_high"), told, "{notional}: {events:?}");
        }
    }
}
