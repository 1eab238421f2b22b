//! What size a signal asks for (domain §11.1). It asks; the engine decides.

use crate::model::{Decimal, Money, Score, Sizing};

/// Factors of a size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SizeInputs {
    /// Percent of equity the signal asks for, 0..100.
    pub position_size_pct: Score,
    /// Equity of the account view.
    pub equity: Money,
    /// `regimes.NAME.size` of the regime in force.
    pub regime_factor: Decimal,
    /// 1 at NORMAL, `degradation.reduced_size_factor` at REDUCED.
    pub degradation_factor: Decimal,
}

/// requested notional = position_size_pct/100 × equity × regime factor × degradation factor.
///
/// Percentages outside 0..100 are clamped, a negative equity asks for nothing.
pub fn size(inputs: SizeInputs) -> Sizing {
    let pct = inputs.position_size_pct.clamp_to(Score::ZERO, Score(1_000_000));
    let share = inputs.equity.max(Money::ZERO) * pct.as_decimal() / Decimal::ONE_HUNDRED;
    Sizing {
        position_size_pct: pct,
        equity: inputs.equity,
        regime_factor: inputs.regime_factor,
        degradation_factor: inputs.degradation_factor,
        notional: (share * inputs.regime_factor * inputs.degradation_factor).normalize(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::fixtures::dec;

    #[test]
    fn a103_ten_percent_in_a_ranging_market_is_600_and_300_when_reduced() {
        let mut inputs = SizeInputs {
            position_size_pct: Score::from_f64(10.0),
            equity: dec("10000"),
            regime_factor: dec("0.60"),
            degradation_factor: dec("1"),
        };
        assert_eq!(size(inputs).notional, dec("600"));
        inputs.degradation_factor = dec("0.5");
        assert_eq!(size(inputs).notional, dec("300"));
    }

    #[test]
    fn nothing_is_asked_for_without_equity() {
        let inputs = SizeInputs {
            position_size_pct: Score::from_f64(10.0),
            equity: dec("-1"),
            regime_factor: dec("1"),
            degradation_factor: dec("1"),
        };
        assert_eq!(size(inputs).notional, dec("0"));
    }
}
