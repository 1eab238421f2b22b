//! Entry, stop and target of a rules vote (domain §6.1). Never decides whether to enter.

use rust_decimal::{Decimal, prelude::FromPrimitive};

use super::VoterInputs;
use crate::{
    agents::vote::MIN_REWARD_RISK,
    model::{Action, Levels, Symbol},
    settings::StopSettings,
};

/// How near and how far from the entry a stop may be, percent of the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopLimits {
    /// Nearer is too tight.
    pub min_pct: Decimal,
    /// Farther is too wide: the general limit or the symbol's own, whichever is smaller.
    pub max_pct: Decimal,
}

impl StopLimits {
    /// The limits risk will judge a stop of `symbol` by (domain §11.3, checks 1b and 1c).
    pub fn of(settings: &StopSettings, symbol: Symbol) -> StopLimits {
        let own = settings.symbol_max_pct.get(&symbol).copied().unwrap_or(settings.max_distance_pct);
        StopLimits { min_pct: settings.min_distance_pct, max_pct: own.min(settings.max_distance_pct) }
    }
}

/// Levels for a BUY or SELL whose stop is `width` quote units wide before the regime's stop factor.
///
/// The distance is kept one step inside the limits, because the stop is then rounded away from the entry. The target
/// gets one step more, so that rounding the stop cannot push reward:risk below its minimum.
/// None when no distance satisfies the limits (a price of a few steps only), or a number leaves the decimal range.
pub fn levels(action: Action, width: f64, inputs: &VoterInputs) -> Option<Levels> {
    let (entry, tick) = (inputs.price, inputs.rules.tick());
    let share = |pct: Decimal| entry.checked_mul(pct).map(|value| value / Decimal::ONE_HUNDRED);
    let nearest = share(inputs.limits.min_pct)?.checked_add(tick)?;
    let farthest = share(inputs.limits.max_pct)?.checked_sub(tick)?;
    if nearest > farthest {
        return None;
    }
    let wanted = Decimal::from_f64(width)?.checked_mul(inputs.regime.stop)?;
    let distance = wanted.clamp(nearest, farthest);
    let reach = distance.checked_mul(inputs.regime.target.max(MIN_REWARD_RISK))?;
    let (stop, target) = if action == Action::Buy {
        let target = inputs.rules.price_up(entry.checked_add(reach)?);
        (inputs.rules.price_down(entry - distance), target.checked_add(tick)?)
    } else {
        let target = inputs.rules.price_down(entry.checked_sub(reach)?);
        (inputs.rules.price_up(entry.checked_add(distance)?), target - tick)
    };
    Some(Levels { entry, stop, target })
}
