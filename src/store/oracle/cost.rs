//! What a part of a holding had cost: the average, in exact sums. How the last unit of a share is rounded is the
//! program's business; that nothing appears or vanishes by it is checked to the last unit.

use rust_decimal::Decimal;

use crate::model::{Money, Qty};

/// Two units of the smallest amount of money (14 decimals): the room for rounding one share of a cost or one value.
pub(super) fn rounding() -> Money {
    Decimal::new(2, 14)
}

/// Units with what was paid for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lot {
    pub(super) quantity: Qty,
    pub(super) cost: Money,
}

impl Lot {
    pub(super) fn add(&mut self, quantity: Qty, cost: Money) {
        self.quantity = self.quantity.saturating_add(quantity);
        self.cost = self.cost.saturating_add(cost);
    }

    /// Takes `quantity` out at the cost the program says; tells when that is not the average. Units beyond the lot were
    /// paid in and cost nothing.
    pub(super) fn take(&mut self, quantity: Qty, said: Money) -> Result<(), String> {
        let whole = quantity >= self.quantity;
        let share = if whole { Some(self.cost) } else { self.share(quantity) };
        let Some(share) = share else { return Err("its cost is too large to compute".to_owned()) };
        let off = share.saturating_sub(said).abs();
        let right = if whole { off.is_zero() } else { off <= rounding() };
        let held = *self;
        self.quantity = self.quantity.saturating_sub(quantity).max(Qty::ZERO);
        self.cost = self.cost.saturating_sub(said);
        if right {
            return Ok(());
        }
        Err(format!("{quantity} of {} that cost {} leave at a cost of {said}, not {share}", held.quantity, held.cost))
    }

    fn share(&self, quantity: Qty) -> Option<Money> {
        self.cost.checked_mul(quantity.checked_div(self.quantity)?)
    }
}
