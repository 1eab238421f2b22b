//! Cooldowns, streaks, order errors, unusual moves and restricted hours (domain §11.5). Returns the events to record.
//!
//! A cooldown is an end time and nothing else: it needs no flag that somebody must clear (R17), and a shorter one
//! never replaces a longer one (R08): an event is made only for a later end.

use std::collections::{BTreeMap, VecDeque};

use super::RiskRules;
use crate::model::{
    BreakerKind, CooldownCause, Decimal, Event, Latch, Money, Price, Symbol, Ts,
    state::RiskState,
    time::{DAY_MS, MINUTE_MS},
};

/// The event that starts a cooldown at `now`, when it ends later than the one in force.
///
/// For `VolatilitySpike` it is recorded after the verdict on the decision that saw the spike: that one trades at half
/// size (check 4), the next ones wait.
pub fn cooldown(state: &RiskState, rules: &RiskRules, cause: CooldownCause, now: Ts) -> Option<Event> {
    let until = now.plus_ms(rules.cooldown_ms(cause));
    (until > now && until > state.cooldown_until).then_some(Event::CooldownSet { until, cause })
}

/// What follows from the close of a position: streaks, the breaker of losing streaks, a cooldown. A close at exactly
/// 0 after fees changes nothing.
pub fn on_close(state: &RiskState, rules: &RiskRules, net_usd: Money, now: Ts) -> Vec<Event> {
    let mut events = Vec::new();
    if net_usd.is_zero() {
        return events;
    }
    if net_usd > Money::ZERO {
        events.push(Event::StreakChanged { losses: 0, wins: state.wins.saturating_add(1) });
        if state.latched.contains_key(&BreakerKind::ConsecutiveLosses) {
            let reason = "a winning close".to_owned();
            events.push(Event::BreakerRearmed { breaker: BreakerKind::ConsecutiveLosses, reason });
        }
        events.extend(cooldown(state, rules, CooldownCause::AfterWin, now));
        return events;
    }
    let losses = state.losses.saturating_add(1);
    events.push(Event::StreakChanged { losses, wins: 0 });
    let kind = BreakerKind::ConsecutiveLosses;
    let rule = rules.breaker(kind);
    if Decimal::from(losses) >= rule.limit && !state.latched.contains_key(&kind) {
        let period = super::breakers::period_of(state, kind);
        let latch = Latch { breaker: kind, period, measured: Decimal::from(losses), limit: rule.limit, at: now };
        events.push(Event::BreakerTripped { latch, action: rule.action });
    }
    let cause = match losses {
        0..=2 => CooldownCause::AfterLoss,
        3..=4 => CooldownCause::AfterThreeLosses,
        _ => CooldownCause::AfterFiveLosses,
    };
    events.extend(cooldown(state, rules, cause, now));
    events
}

/// A technical order error: one `order_error` each, and at the configured count a cooldown and one alert (D55).
pub fn on_order_error(state: &RiskState, rules: &RiskRules, what: &str, now: Ts) -> Vec<Event> {
    let consecutive = state.order_errors.saturating_add(1);
    let facts =
        BTreeMap::from([("consecutive".to_owned(), consecutive.to_string()), ("error".to_owned(), what.to_owned())]);
    let mut events = vec![
        Event::OrderErrorsChanged { consecutive },
        Event::Noted { what: "order_error".to_owned(), facts: facts.clone() },
    ];
    if consecutive >= rules.order_errors_max {
        events.extend(cooldown(state, rules, CooldownCause::OrderErrors, now));
    }
    if consecutive == rules.order_errors_max {
        events.push(Event::Noted { what: "order_errors_alert".to_owned(), facts });
    }
    events
}

/// An order that worked ends the count of errors.
pub fn on_order_success(state: &RiskState) -> Option<Event> {
    (state.order_errors > 0).then_some(Event::OrderErrorsChanged { consecutive: 0 })
}

/// End of the restricted window `now` lies in (start inclusive, end exclusive, UTC).
pub fn restricted_until(rules: &RiskRules, now: Ts) -> Option<Ts> {
    if rules.restricted.is_empty() {
        return None;
    }
    let day = now.floor_to(DAY_MS);
    let minute = now.since_ms(day) / MINUTE_MS;
    rules.restricted.iter().find_map(|&(from, to)| {
        let (inside, end) = if from < to {
            ((from..to).contains(&minute), day.plus_ms(to * MINUTE_MS))
        } else {
            let tomorrow = if minute >= from { DAY_MS } else { 0 };
            (minute >= from || minute < to, day.plus_ms(tomorrow + to * MINUTE_MS))
        };
        inside.then_some(end)
    })
}

/// Watches every symbol for moves of more than `risk.unusual_move.pct` within its window. In memory only: after a
/// restart a move counts from the first price seen. Constant work per price.
#[derive(Clone, Debug, Default)]
pub struct MoveWatch {
    symbols: BTreeMap<Symbol, Window>,
}

/// Prices that may still be the lowest or highest of the window, oldest first.
#[derive(Clone, Debug, Default)]
struct Window {
    lows: VecDeque<(Ts, Price)>,
    highs: VecDeque<(Ts, Price)>,
    fired: Option<Ts>,
}

impl MoveWatch {
    /// Takes a price; answers the cooldown event of an unusual move. One move fires once per window length.
    pub fn observe(
        &mut self,
        state: &RiskState,
        rules: &RiskRules,
        symbol: Symbol,
        price: Price,
        now: Ts,
    ) -> Option<Event> {
        let settings = &rules.settings.unusual_move;
        let length = i64::from(settings.window_minutes) * MINUTE_MS;
        let window = self.symbols.entry(symbol).or_default();
        if !window.moved(price, now, length, settings.pct) {
            return None;
        }
        window.fired = Some(now);
        cooldown(state, rules, CooldownCause::UnusualMove, now)
    }
}

impl Window {
    fn moved(&mut self, price: Price, now: Ts, length: i64, limit_pct: Decimal) -> bool {
        for side in [&mut self.lows, &mut self.highs] {
            while side.front().is_some_and(|(at, _)| now.since_ms(*at) > length) {
                side.pop_front();
            }
        }
        while self.lows.back().is_some_and(|(_, low)| *low >= price) {
            self.lows.pop_back();
        }
        while self.highs.back().is_some_and(|(_, high)| *high <= price) {
            self.highs.pop_back();
        }
        self.lows.push_back((now, price));
        self.highs.push_back((now, price));
        if self.fired.is_some_and(|at| now.since_ms(at) <= length) {
            return false;
        }
        let beyond = |from: Option<&(Ts, Price)>| {
            from.is_some_and(|(_, from)| (price - *from).abs() * Decimal::ONE_HUNDRED > limit_pct * *from)
        };
        beyond(self.lows.front()) || beyond(self.highs.front())
    }
}

#[cfg(test)]
#[path = "cooldown_tests.rs"]
mod tests;
