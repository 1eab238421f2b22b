//! Loss limits that latch, period roll-over by the clock, and the running peak (domain §11.4). Returns the events to
//! record; the state changes only by applying them.
//!
//! Each breaker latches separately under its period id and trips once (R06, R12). Limits are compared by
//! multiplication: a loss of exactly the limit trips, and no division runs on a mark.
//!
//! **The peak.** Every mark may set a new peak, and an event per mark would be a flood, so the running peak lives in
//! [`PeakKeeper`] and `PeakChanged` is written lazily: when it rose by [`RISE_PCT`] above the stored one, when the
//! equity has fallen from it by the same share, with every other event of this module, and an hour after the last
//! write. Every decision that reads a drawdown (a leverage step, the breaker) needs a far larger fall than that, so
//! the exact peak is durable before the first such decision. A crash can only lose a peak from which the equity had
//! not fallen yet by the bound; the drawdown measured afterwards is at most that bound too small.

use super::RiskRules;
use crate::model::{BreakerKind, Decimal, Event, Latch, Money, Ts, state::RiskState, time::HOUR_MS};

/// Bound of the unwritten part of the peak, percent; a tenth of the drawdown limit when that is smaller.
pub const RISE_PCT: Decimal = Decimal::from_parts(5, 0, 0, false, 1);

/// The running peak of the account.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeakKeeper {
    peak: Money,
    written_at: Ts,
}

impl PeakKeeper {
    /// Starts from the stored peak.
    pub fn new(state: &RiskState, now: Ts) -> PeakKeeper {
        PeakKeeper { peak: state.peak, written_at: now }
    }

    /// Highest equity since the last re-basing, account currency.
    pub const fn peak(&self) -> Money {
        self.peak
    }

    fn write(&mut self, now: Ts, out: &mut Vec<Event>) {
        self.written_at = now;
        out.push(Event::PeakChanged { peak: self.peak });
    }
}

/// Period id of the next trip of a breaker: day number, ISO week, or the number of the trip.
pub fn period_of(state: &RiskState, kind: BreakerKind) -> String {
    match kind {
        BreakerKind::DailyLoss => state.day.to_string(),
        BreakerKind::WeeklyLoss => state.week.to_string(),
        BreakerKind::MaxDrawdown | BreakerKind::ConsecutiveLosses => {
            (state.trips.get(&kind).copied().unwrap_or_default() + 1).to_string()
        }
    }
}

/// A mark of the account: rolls periods, keeps the peak, trips breakers. Nothing is pushed on an ordinary mark.
///
/// Driven by the clock and by prices, never by somebody asking to trade (R16). At boot it runs once before trading.
pub fn on_mark(
    state: &RiskState,
    keeper: &mut PeakKeeper,
    rules: &RiskRules,
    equity: Money,
    now: Ts,
    out: &mut Vec<Event>,
) {
    let before = out.len();
    let period = roll(state, equity, now, out);
    keeper.peak = keeper.peak.max(equity);
    for kind in [BreakerKind::DailyLoss, BreakerKind::WeeklyLoss, BreakerKind::MaxDrawdown] {
        trip(state, keeper.peak, &period, rules, kind, equity, now, out);
    }
    // A roll-over stores max(peak, equity) by itself.
    let stored = if period.day_rolled { state.peak.max(equity) } else { state.peak };
    if period.day_rolled {
        keeper.written_at = now;
    }
    if keeper.peak <= stored {
        return;
    }
    let bound = RISE_PCT.min(rules.breaker(BreakerKind::MaxDrawdown).limit / Decimal::TEN);
    let hundred = Decimal::ONE_HUNDRED;
    let rose = keeper.peak * hundred >= stored * (hundred + bound);
    let fell = equity * hundred <= keeper.peak * (hundred - bound);
    if rose || fell || out.len() > before || now.since_ms(keeper.written_at) >= HOUR_MS {
        keeper.write(now, out);
    }
}

/// The periods in force after a roll-over.
struct Period {
    day: i64,
    day_start: Money,
    day_rolled: bool,
    week: i64,
    week_start: Money,
    week_rolled: bool,
}

/// A later UTC day or ISO week starts a period at the current equity and re-arms its breaker. The pause it caused is
/// left to the operator (R18). Time that seems to go back rolls nothing.
fn roll(state: &RiskState, equity: Money, now: Ts, out: &mut Vec<Event>) -> Period {
    let mut period = Period {
        day: state.day,
        day_start: state.day_start_equity,
        day_rolled: false,
        week: state.week,
        week_start: state.week_start_equity,
        week_rolled: false,
    };
    let day = now.day();
    if day <= state.day && state.day != 0 {
        return period;
    }
    let week = now.iso_week();
    period.day = day;
    period.day_start = equity;
    period.day_rolled = true;
    if week > state.week {
        period.week = week;
        period.week_start = equity;
        period.week_rolled = true;
    }
    out.push(Event::PeriodRolled { day, week: period.week, equity });
    let rearmed = [
        (BreakerKind::DailyLoss, true, "a new UTC day"),
        (BreakerKind::WeeklyLoss, period.week_rolled, "a new ISO week"),
    ];
    for (breaker, due, reason) in rearmed {
        if due && state.latched.contains_key(&breaker) {
            out.push(Event::BreakerRearmed { breaker, reason: reason.to_owned() });
        }
    }
    period
}

#[expect(clippy::too_many_arguments, reason = "one mark's numbers; a struct for one private call would hide them")]
fn trip(
    state: &RiskState,
    peak: Money,
    period: &Period,
    rules: &RiskRules,
    kind: BreakerKind,
    equity: Money,
    now: Ts,
    out: &mut Vec<Event>,
) {
    let (from, rolled) = match kind {
        BreakerKind::DailyLoss => (period.day_start, period.day_rolled),
        BreakerKind::WeeklyLoss => (period.week_start, period.week_rolled),
        _ => (peak, false),
    };
    let rule = rules.breaker(kind);
    let hundred = Decimal::ONE_HUNDRED;
    let reached = from > Money::ZERO && (equity <= Money::ZERO || (from - equity) * hundred >= rule.limit * from);
    if !reached || (state.latched.contains_key(&kind) && !rolled) {
        return;
    }
    let measured = if equity <= Money::ZERO { hundred } else { ((from - equity) * hundred / from).round_dp(4) };
    let id = match kind {
        BreakerKind::DailyLoss => period.day.to_string(),
        BreakerKind::WeeklyLoss => period.week.to_string(),
        _ => period_of(state, kind),
    };
    let latch = Latch { breaker: kind, period: id, measured, limit: rule.limit, at: now };
    out.push(Event::BreakerTripped { latch, action: rule.action });
}

/// The operator's `reset`: re-arms max_drawdown and re-bases the peak to the current equity, so that the next mark
/// does not trip again (R07). The other breakers keep their own periods.
pub fn reset_drawdown(state: &RiskState, keeper: &mut PeakKeeper, equity: Money, now: Ts) -> Vec<Event> {
    let mut events = Vec::new();
    if state.latched.contains_key(&BreakerKind::MaxDrawdown) {
        let reason = "reset by the operator".to_owned();
        events.push(Event::BreakerRearmed { breaker: BreakerKind::MaxDrawdown, reason });
    }
    keeper.peak = equity;
    keeper.write(now, &mut events);
    events
}

#[cfg(test)]
#[path = "breakers_tests.rs"]
mod tests;
