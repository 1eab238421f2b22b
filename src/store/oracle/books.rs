//! Check 3: a ledger of its own, kept from deposits, locks, fills and fees, against which postings, positions, inventory
//! and balances of the program are held.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Check, Figures, Found,
    cost::{Lot, rounding},
};
use crate::model::{
    Asset, ClosedPosition, Event, LedgerAccount, Money, Position, PositionId, PositionSide, Posting, Price, Qty,
    Record, Side, State, Symbol, Trade, TradeKey, TradeKind,
};

/// What a living order may move.
#[derive(Clone, Debug)]
struct Order {
    symbol: Symbol,
    side: Side,
    /// Opens or grows a trading position.
    entry: bool,
    position: Option<PositionId>,
    lock: Option<(Asset, Money)>,
}

/// One open position by its fills.
#[derive(Clone, Debug)]
struct Held {
    symbol: Symbol,
    now: Lot,
    /// What was sold of it, with its cost.
    past: Lot,
    fees: Money,
    realised: Money,
}

/// The figures of a position as the program announced them.
#[derive(Clone, PartialEq, Debug)]
struct Shape {
    symbol: Symbol,
    quantity: Qty,
    cost: Money,
    fees: Money,
    realised: Money,
}

/// Sums per asset.
type Sums = BTreeMap<Asset, Money>;

/// The double entry, kept independently.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// All units of an asset, free and locked.
    total: Sums,
    locked: Sums,
    deposits: Sums,
    bought: Sums,
    sold: Sums,
    realised: Sums,
    fees: Sums,
    orders: BTreeMap<TradeKey, Order>,
    positions: BTreeMap<PositionId, Held>,
    inventory: BTreeMap<Symbol, Lot>,
    last_position: PositionId,
    first_epoch: Option<u32>,
    /// Entry fills whose position is not announced yet.
    unplaced: Vec<Held>,
    /// Positions that fills changed in this batch.
    changed: BTreeSet<PositionId>,
    /// Positions the program announced in this batch.
    announced: BTreeMap<PositionId, Shape>,
    closed: u64,
    moved: bool,
}

fn add(sums: &mut Sums, asset: Asset, amount: Money) {
    let sum = sums.entry(asset).or_default();
    *sum = sum.saturating_add(amount);
}

fn of(sums: &Sums, asset: Asset) -> Money {
    sums.get(&asset).copied().unwrap_or_default()
}

impl Books {
    pub(super) fn observe(&mut self, record: &Record, found: &mut Found<'_>) {
        use Event as E;
        match &record.event {
            E::StoreCreated { .. } => self.first_epoch = Some(record.epoch),
            E::Deposit { asset, amount } => {
                self.moved = true;
                if self.first_epoch.is_some_and(|first| record.epoch != first) || *amount < Money::ZERO {
                    found.add(
                        Check::Money,
                        format!("{amount} {asset} are paid in after the first boot, or are negative"),
                    );
                }
                add(&mut self.total, *asset, *amount);
                add(&mut self.deposits, *asset, *amount);
            }
            E::TradeIntent { trade } => self.intent(trade, found),
            E::TradeFill { .. } => self.fill(&record.event, found),
            E::TradeSettled { trade_key }
            | E::TradeRejected { trade_key, .. }
            | E::TradeRefused { trade_key, .. }
            | E::TradeExpired { trade_key, .. }
            | E::TradeCancelled { trade_key, .. } => self.release(trade_key),
            E::PositionOpened { position } => self.opened(position, found),
            E::PositionChanged { position } => {
                self.announced.insert(position.id, shape_of(position));
            }
            E::PositionClosed { closed } => self.close(closed, found),
            _ => {}
        }
    }

    fn intent(&mut self, trade: &Trade, found: &mut Found<'_>) {
        let body = &trade.body;
        let lock = trade.lock.map(|lock| (lock.asset, lock.amount));
        if let Some((asset, amount)) = lock {
            self.moved = true;
            let spends = if body.side == Side::Buy { body.symbol.quote } else { body.symbol.base };
            let free = of(&self.total, asset).saturating_sub(of(&self.locked, asset));
            if asset != spends || amount < Money::ZERO || amount > free {
                let what = format!("trade {} locks {amount} {asset} of {free} free", trade.key.short());
                found.add(Check::Money, what);
            }
            add(&mut self.locked, asset, amount);
        }
        let entry = trade.kind == TradeKind::Decision && body.position.is_none();
        let order = Order { symbol: body.symbol, side: body.side, entry, position: body.position, lock };
        self.orders.entry(trade.key).or_insert(order);
    }

    fn release(&mut self, key: &TradeKey) {
        if let Some((asset, rest)) = self.orders.remove(key).and_then(|order| order.lock) {
            self.moved = true;
            add(&mut self.locked, asset, -rest);
        }
    }

    fn fill(&mut self, event: &Event, found: &mut Found<'_>) {
        let Event::TradeFill { trade_key, fill_id, quantity, price, value, fee, postings, .. } = event else { return };
        let (quantity, value, fee) = (*quantity, *value, *fee);
        // A fill of no living order is told by the check of executions.
        let Some(mut order) = self.orders.get(trade_key).cloned() else { return };
        self.moved = true;
        let (base, quote) = (order.symbol.base, order.symbol.quote);
        let mut wrong = |what: String| found.add(Check::Money, format!("fill {fill_id}: {what}"));
        worth(quantity, *price, value).into_iter().for_each(&mut wrong);
        if fee < Money::ZERO {
            wrong(format!("its fee {fee} is negative"));
        }
        let spent = if order.side == Side::Buy { value.saturating_add(fee) } else { quantity };
        let from_lock = order.lock.map_or(Money::ZERO, |(_, rest)| rest.min(spent));
        if let Some((asset, rest)) = order.lock.as_mut() {
            *rest = rest.saturating_sub(from_lock);
            add(&mut self.locked, *asset, -from_lock);
        }
        self.orders.insert(*trade_key, order.clone());
        add(&mut self.fees, quote, fee);
        let posted = |asset, account| sum(postings, asset, account);
        let mut expected = vec![(quote, LedgerAccount::Fees, fee)];
        match order.side {
            Side::Buy => {
                add(&mut self.total, quote, -spent);
                add(&mut self.total, base, quantity);
                add(&mut self.bought, base, quantity);
                expected.extend([
                    (quote, LedgerAccount::Locked, -from_lock),
                    (quote, LedgerAccount::Free, from_lock.saturating_sub(spent)),
                    (quote, LedgerAccount::AtCost, value),
                    (base, LedgerAccount::Free, quantity),
                    (base, LedgerAccount::Bought, quantity),
                ]);
            }
            Side::Sell => {
                // The cost is taken as posted; `Lot::take` says whether it is the average.
                let cost = -posted(quote, LedgerAccount::AtCost);
                let proceeds = value.saturating_sub(fee);
                add(&mut self.total, base, -quantity);
                add(&mut self.total, quote, proceeds);
                add(&mut self.sold, base, quantity);
                add(&mut self.realised, quote, value.saturating_sub(cost));
                expected.extend([
                    (base, LedgerAccount::Locked, -from_lock),
                    (base, LedgerAccount::Free, from_lock.saturating_sub(spent)),
                    (base, LedgerAccount::Sold, quantity),
                    (quote, LedgerAccount::AtCost, -cost),
                    (quote, LedgerAccount::Free, proceeds),
                    (quote, LedgerAccount::Realised, value.saturating_sub(cost)),
                ]);
            }
        }
        for (asset, account, amount) in &expected {
            let has = posted(*asset, *account);
            if has != *amount {
                wrong(format!("{has} {asset} are posted to {account:?}, {amount} belong there"));
            }
        }
        let told = |posting: &Posting| {
            expected.iter().any(|(asset, account, _)| (*asset, *account) == (posting.asset, posting.account))
        };
        for posting in postings.iter().filter(|posting| !told(posting)) {
            wrong(format!("{} {} are posted to {:?} for no reason", posting.amount, posting.asset, posting.account));
        }
        let cost = -posted(quote, LedgerAccount::AtCost);
        if let Err(what) = self.place(&order, quantity, value, fee, cost) {
            wrong(what);
        }
    }

    /// Which holding a fill grows or shrinks.
    fn place(&mut self, order: &Order, quantity: Qty, value: Money, fee: Money, cost: Money) -> Result<(), String> {
        let long = self.positions.iter().find(|(_, held)| held.symbol == order.symbol).map(|(id, _)| *id);
        let target = if order.entry { long } else { order.position };
        match (order.side, target) {
            (_, None) if order.position.is_none() && !order.entry => {
                let lot = self.inventory.entry(order.symbol).or_default();
                match order.side {
                    Side::Buy => lot.add(quantity, value),
                    Side::Sell => lot.take(quantity, cost)?,
                }
                Ok(())
            }
            (Side::Buy, None) => {
                let now = Lot { quantity, cost: value };
                let (past, realised) = (Lot::default(), Money::ZERO);
                self.unplaced.push(Held { symbol: order.symbol, now, past, fees: fee, realised });
                Ok(())
            }
            (Side::Sell, None) => Err("it sells what no position holds".to_owned()),
            (side, Some(id)) => {
                let Some(held) = self.positions.get_mut(&id) else { return Err(format!("position {id} is not open")) };
                self.changed.insert(id);
                held.fees = held.fees.saturating_add(fee);
                if side == Side::Buy {
                    held.now.add(quantity, value);
                    return Ok(());
                }
                if quantity > held.now.quantity {
                    return Err(format!("position {id} holds {} only", held.now.quantity));
                }
                held.past.add(quantity, cost);
                held.realised = held.realised.saturating_add(value.saturating_sub(cost));
                held.now.take(quantity, cost).map_err(|what| format!("position {id}: {what}"))
            }
        }
    }

    fn opened(&mut self, position: &Position, found: &mut Found<'_>) {
        let id = position.id;
        if id <= self.last_position || position.side != PositionSide::Long {
            found.add(Check::Money, format!("position {id} has a number that was used, or is not long"));
        }
        self.last_position = self.last_position.max(id);
        match self.unplaced.iter().position(|held| held.symbol == position.symbol) {
            None => found.add(Check::Money, format!("position {id} is opened without a fill")),
            Some(at) => {
                let held = self.unplaced.swap_remove(at);
                self.changed.insert(id);
                self.positions.insert(id, held);
            }
        }
        self.announced.insert(id, shape_of(position));
    }

    fn close(&mut self, closed: &ClosedPosition, found: &mut Found<'_>) {
        let id = closed.id;
        self.closed += 1;
        self.announced.remove(&id);
        self.changed.remove(&id);
        let Some(held) = self.positions.remove(&id) else {
            found.add(Check::Money, format!("position {id} is closed, but was not open"));
            return;
        };
        let ours = (held.now.quantity, held.past.quantity, held.realised, held.fees);
        let said = (Qty::ZERO, closed.quantity, closed.gross, closed.fees);
        if ours != said || closed.net != closed.gross.saturating_sub(closed.fees) {
            let what = format!(
                "position {id} is closed as (left, sold, gross, fees) {said:?} with net {}, its fills say {ours:?}",
                closed.net
            );
            found.add(Check::Money, what);
        }
    }

    pub(super) fn end_of_batch(&mut self, found: &mut Found<'_>) {
        for held in self.unplaced.drain(..) {
            found.add(Check::Money, format!("an entry of {} {} made no position", held.now.quantity, held.symbol));
        }
        let announced = std::mem::take(&mut self.announced);
        for id in std::mem::take(&mut self.changed).iter().chain(announced.keys()).collect::<BTreeSet<_>>() {
            let ours = self.positions.get(id).map(Held::shape);
            let said = announced.get(id);
            if ours.as_ref() != said {
                found.add(Check::Money, format!("position {id} is announced as {said:?}, its fills say {ours:?}"));
            }
        }
        if !self.moved {
            return;
        }
        for (asset, total) in &self.total {
            let locked = of(&self.locked, *asset);
            let owned = self.positions.values().filter(|held| held.symbol.base == *asset);
            let owned = owned.fold(Qty::ZERO, |sum, held| sum.saturating_add(held.now.quantity));
            if locked < Money::ZERO || locked > *total || owned > *total {
                let what = format!("of {total} {asset}, {locked} are locked and positions own {owned}");
                found.add(Check::Money, what);
            }
        }
    }

    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// What each account of the program's ledger must hold.
    fn account(&self, asset: Asset, account: LedgerAccount) -> Money {
        match account {
            LedgerAccount::Free => of(&self.total, asset).saturating_sub(of(&self.locked, asset)),
            LedgerAccount::Locked => of(&self.locked, asset),
            LedgerAccount::Deposits => of(&self.deposits, asset),
            LedgerAccount::Bought => of(&self.bought, asset),
            LedgerAccount::Sold => of(&self.sold, asset),
            LedgerAccount::Realised => of(&self.realised, asset),
            LedgerAccount::Fees => of(&self.fees, asset),
            LedgerAccount::AtCost => {
                let positions = self.positions.values().map(|held| (held.symbol, held.now.cost));
                let inventory = self.inventory.iter().map(|(symbol, lot)| (*symbol, lot.cost));
                let priced_in = positions.chain(inventory).filter(|(symbol, _)| symbol.quote == asset);
                priced_in.fold(Money::ZERO, |sum, (_, cost)| sum.saturating_add(cost))
            }
        }
    }

    pub(super) fn compare(&mut self, state: &State, found: &mut Found<'_>) {
        use LedgerAccount::{AtCost, Bought, Deposits, Fees, Free, Locked, Realised, Sold};
        self.moved = false;
        let mut differ = |what: String| found.add(Check::Money, what);
        for asset in self.total.keys().chain(state.account.ledger.keys()).collect::<BTreeSet<_>>() {
            for account in [Free, Locked, Deposits, Bought, Sold, Realised, Fees, AtCost] {
                let (ours, theirs) = (self.account(*asset, account), state.account.get(*asset, account));
                if ours != theirs {
                    differ(format!("{asset} {account:?}: the balance is {theirs}, the fills say {ours}"));
                }
            }
        }
        for id in self.positions.keys().chain(state.positions.keys()).collect::<BTreeSet<_>>() {
            let (ours, theirs) = (self.positions.get(id).map(Held::shape), state.positions.get(id).map(shape_of));
            if ours != theirs {
                differ(format!("position {id}: the state holds {theirs:?}, the fills say {ours:?}"));
            }
        }
        let held = |lot: &Lot| !lot.quantity.is_zero();
        let ours: BTreeMap<Symbol, (Qty, Money)> = self
            .inventory
            .iter()
            .filter(|(_, lot)| held(lot))
            .map(|(symbol, lot)| (*symbol, (lot.quantity, lot.cost)))
            .collect();
        let theirs = state.account.inventory_cost.iter().map(|(symbol, lot)| (*symbol, (lot.quantity, lot.cost)));
        let theirs: BTreeMap<Symbol, (Qty, Money)> = theirs.collect();
        if ours != theirs {
            differ(format!("inventory: the state holds {theirs:?}, the fills say {ours:?}"));
        }
    }

    pub(super) fn count(&self, figures: &mut Figures) {
        figures.assets = self.total.len() as u64;
        figures.positions = self.positions.len() as u64;
        figures.closed = self.closed;
    }
}

impl Held {
    fn shape(&self) -> Shape {
        let Held { symbol, now, fees, realised, .. } = self;
        Shape { symbol: *symbol, quantity: now.quantity, cost: now.cost, fees: *fees, realised: *realised }
    }
}

fn shape_of(position: &Position) -> Shape {
    let Position { symbol, quantity, cost, fees, realised, .. } = position;
    Shape { symbol: *symbol, quantity: *quantity, cost: *cost, fees: *fees, realised: *realised }
}

fn sum(postings: &[Posting], asset: Asset, account: LedgerAccount) -> Money {
    let of = postings.iter().filter(|posting| posting.asset == asset && posting.account == account);
    of.fold(Money::ZERO, |sum, posting| sum.saturating_add(posting.amount))
}

/// A value is quantity × price, rounded at most at its last unit.
fn worth(quantity: Qty, price: Price, value: Money) -> Option<String> {
    let exact = quantity.checked_mul(price);
    let right = exact.is_some_and(|exact| exact.saturating_sub(value).abs() <= rounding());
    (!right).then(|| format!("{quantity} at {price} is not worth {value}"))
}
