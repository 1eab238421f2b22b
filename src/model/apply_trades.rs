//! `apply` for trades, fills, balances and positions: the part of the fold where money moves.
//!
//! Every rule here is a check on what the execution core produced: ranks (C2), one fill per fill id, locks that are
//! neither exceeded nor kept, postings that balance, no balance below zero.

use std::collections::BTreeSet;

use super::state::*;
use super::*;

impl State {
    fn post(&mut self, asset: Asset, account: LedgerAccount, amount: Money) {
        *self.account.ledger.entry(asset).or_default().entry(account).or_default() += amount;
    }

    /// Beyond [`AMOUNT_MAX`] sums would be rounded: such a posting is refused instead.
    fn exact(&self, postings: &[Posting]) -> Result<(), String> {
        self.account.overflow(postings).map_or(Ok(()), |(asset, account, sum)| {
            Err(format!("{account:?} of {asset} would be {sum}; the books are exact up to {AMOUNT_MAX} only"))
        })
    }

    fn move_lock(&mut self, lock: Lock, sign: Money) {
        self.post(lock.asset, LedgerAccount::Free, -lock.amount * sign);
        self.post(lock.asset, LedgerAccount::Locked, lock.amount * sign);
    }

    pub(super) fn fold_intent(&mut self, trade: &Trade) -> Result<(), String> {
        let key = trade.key;
        if trade.state != TradeState::Intent {
            return Err(format!("trade {} begins as {:?}, not as INTENT", key.short(), trade.state));
        }
        if self.trade_index.get(&key).is_some_and(|stub| stub.state != TradeState::Planned) {
            return Err(format!("trade {} exists already", key.short()));
        }
        if let Some(lock) = trade.lock {
            if lock.amount < Money::ZERO || lock.amount > self.account.free(lock.asset) {
                let free = self.account.free(lock.asset);
                return Err(format!("trade {} locks {} {} of {free} free", key.short(), lock.amount, lock.asset));
            }
            self.move_lock(lock, Money::ONE);
        }
        if let Some(position) = trade.body.position {
            let held = self.positions.get_mut(&position).ok_or_else(|| format!("position {position} is not open"))?;
            held.exiting = Some(key);
            held.exit_seq += 1;
        }
        self.totals.orders += 1;
        self.trade_index.insert(key, TradeStub { body_hash: trade.body.hash(), state: trade.state });
        self.trades.insert(key, trade.clone());
        self.mirror_state(trade.kind, key, trade.state, None);
        Ok(())
    }

    pub(super) fn fold_trade(&mut self, event: &Event, at: Ts) -> Result<(), String> {
        let (key, to) = match event {
            Event::TradeSubmitting { trade_key, .. } => (trade_key, TradeState::Submitting),
            Event::TradeAcked { trade_key, .. } => (trade_key, TradeState::Acked),
            Event::TradeSettled { trade_key } => (trade_key, TradeState::Settled),
            Event::TradeRejected { trade_key, .. } => (trade_key, TradeState::Rejected),
            Event::TradeRefused { trade_key, .. } => (trade_key, TradeState::Refused),
            Event::TradeExpired { trade_key, .. } => (trade_key, TradeState::Expired),
            Event::TradeNotExecuted { trade_key, .. } => (trade_key, TradeState::NotExecuted),
            Event::TradeUnknown { trade_key, .. } => (trade_key, TradeState::Unknown),
            Event::TradeCancelled { trade_key, .. } => (trade_key, TradeState::Cancelled),
            Event::TradeManual { trade_key, .. } => (trade_key, TradeState::Manual),
            _ => return Ok(()),
        };
        let key = *key;
        let trade = self.trades.get_mut(&key).ok_or_else(|| format!("trade {} is not open", key.short()))?;
        if !trade.state.may_become(to) {
            return Err(format!("trade {} cannot go from {:?} to {to:?}", key.short(), trade.state));
        }
        if to == TradeState::Settled && trade.state != TradeState::Manual && !trade.remaining().is_zero() {
            return Err(format!("trade {} is settled with {} unfilled", key.short(), trade.remaining()));
        }
        match event {
            Event::TradeSubmitting { attempt, deadline, reference, .. } => {
                if *attempt <= trade.attempt {
                    return Err(format!("attempt {attempt} of trade {} was made already", key.short()));
                }
                trade.attempt = *attempt;
                trade.retry_at = None;
                if let Some(reference) = *reference {
                    trade.remote = Some(left(trade.remote.take(), at, *deadline, reference));
                }
            }
            Event::TradeAcked { expires_at, .. } => {
                trade.acked_at = Some(at);
                trade.expires_at = *expires_at;
            }
            Event::TradeNotExecuted { retry_at, .. } => trade.retry_at = *retry_at,
            Event::TradeManual { .. } => trade.resolution = None,
            _ => {}
        }
        if let Some(remote) = &mut trade.remote {
            let unknown = to == TradeState::Unknown;
            remote.ambiguous += u32::from(unknown);
            remote.unknown_since = unknown.then_some(at);
        }
        trade.state = to;
        let kind = trade.kind;
        let executed = to.is_terminal() && !trade.filled.is_zero();
        self.mirror_state(kind, key, to, executed.then_some(at));
        if to.is_terminal() {
            self.end_trade(key);
        }
        Ok(())
    }

    /// The wish is remembered with the order; what becomes of it is for the venue to say.
    pub(super) fn fold_cancel_request(&mut self, key: TradeKey, reason: &str) -> Result<(), String> {
        let trade = self.trades.get_mut(&key).ok_or_else(|| format!("trade {} is not open", key.short()))?;
        let remote = trade.remote.as_mut().ok_or_else(|| format!("trade {} is at no venue", key.short()))?;
        remote.cancel.get_or_insert_with(|| reason.to_owned());
        Ok(())
    }

    /// The operator's word is remembered with the trade; execution books it.
    pub(super) fn fold_resolution(&mut self, key: TradeKey, resolution: &ManualResolution) -> Result<(), String> {
        let trade = self.trades.get_mut(&key).ok_or_else(|| format!("trade {} is not open", key.short()))?;
        if trade.state != TradeState::Manual {
            return Err(format!("trade {} is {:?}, not left to the operator", key.short(), trade.state));
        }
        trade.resolution = Some(resolution.clone());
        Ok(())
    }

    fn mirror_state(&mut self, kind: TradeKind, key: TradeKey, state: TradeState, executed_at: Option<Ts>) {
        if let Some(stub) = self.trade_index.get_mut(&key) {
            stub.state = state;
        }
        if kind == TradeKind::Rebalance {
            self.mirror_leg(key, state, executed_at);
        }
    }

    /// A terminal trade returns the rest of its lock, its reservation and its hold on the position.
    fn end_trade(&mut self, key: TradeKey) {
        self.risk.reservations.remove(&key);
        let Some(trade) = self.trades.remove(&key) else { return };
        if let Some(lock) = trade.lock.filter(|lock| !lock.amount.is_zero()) {
            self.move_lock(lock, Money::NEGATIVE_ONE);
        }
        if let Some(held) = trade.body.position.and_then(|id| self.positions.get_mut(&id))
            && held.exiting == Some(key)
        {
            held.exiting = None;
        }
    }

    /// Postings to `Locked` of a fill consume the trade's lock; postings to `AtCost` of a trade without a position
    /// move the inventory lot.
    pub(super) fn fold_fill(&mut self, event: &Event) -> Result<(), String> {
        let Event::TradeFill { trade_key, fill_id, symbol, side, quantity, value, fee, postings, venue_fill, .. } =
            event
        else {
            return Ok(());
        };
        let trade = self.trades.get_mut(trade_key).ok_or_else(|| format!("trade {} is not open", trade_key.short()))?;
        let expected = format!("{}:{}", trade.key, trade.fills);
        if *fill_id != expected {
            return Err(format!("fill {fill_id} is not the next one ({expected})"));
        }
        if *quantity <= Qty::ZERO || *quantity > trade.remaining() {
            return Err(format!("fill of {quantity} does not fit the remaining {}", trade.remaining()));
        }
        if (*symbol, *side) != (trade.body.symbol, trade.body.side) {
            return Err(format!("fill {fill_id} has another symbol or side than its trade"));
        }
        if let Some(id) = venue_fill {
            let remote =
                trade.remote.as_mut().ok_or_else(|| format!("fill {fill_id} is of an order that never left"))?;
            if !remote.fills.insert(id.to_string()) {
                return Err(format!("the venue's fill {id} of trade {} is booked already", trade_key.short()));
            }
            remote.unknown_since = None;
        }
        trade.fills += 1;
        trade.filled += *quantity;
        trade.filled_value += *value;
        trade.fees += *fee;
        // In MANUAL a fill is what the operator stated; the end of the trade is said beside it.
        let to = match trade.state {
            TradeState::Manual => TradeState::Manual,
            _ if trade.remaining().is_zero() => TradeState::Filled,
            _ => TradeState::Partial,
        };
        if !trade.state.may_become(to) {
            return Err(format!("trade {} cannot go from {:?} to {to:?}", trade_key.short(), trade.state));
        }
        trade.state = to;
        let kind = trade.kind;
        let inventory = !trade.is_entry() && trade.body.position.is_none();
        take_lock(trade, postings)?;
        balanced(*symbol, postings)?;
        self.exact(postings)?;
        for posting in postings {
            self.post(posting.asset, posting.account, posting.amount);
        }
        for asset in [symbol.base, symbol.quote] {
            if self.account.free(asset) < Money::ZERO || self.account.locked(asset) < Money::ZERO {
                return Err(format!("fill {fill_id} would leave less than zero {asset}"));
            }
        }
        if inventory {
            self.move_lot(*symbol, *side, *quantity, postings)?;
        }
        self.totals.fills += 1;
        *self.totals.fees.entry(symbol.quote).or_default() += *fee;
        self.mirror_state(kind, *trade_key, to, None);
        Ok(())
    }

    fn move_lot(&mut self, symbol: Symbol, side: Side, quantity: Qty, postings: &[Posting]) -> Result<(), String> {
        let lot = self.account.inventory_cost.entry(symbol).or_default();
        lot.cost += sum_of(postings, symbol.quote, LedgerAccount::AtCost);
        lot.quantity = match side {
            Side::Buy => lot.quantity + quantity,
            // Units that were paid in were never bought through this symbol and leave the lot untouched.
            Side::Sell => (lot.quantity - quantity).max(Qty::ZERO),
        };
        if lot.cost < Money::ZERO || (lot.quantity.is_zero() && !lot.cost.is_zero()) {
            return Err(format!("the inventory of {symbol} would cost {} for {}", lot.cost, lot.quantity));
        }
        if lot.quantity.is_zero() {
            self.account.inventory_cost.remove(&symbol);
        }
        Ok(())
    }

    pub(super) fn fold_account(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Deposit { asset, amount } => {
                self.exact(&[Posting { asset: *asset, account: LedgerAccount::Deposits, amount: *amount }])?;
                *self.account.baseline.entry(*asset).or_default() += *amount;
                self.post(*asset, LedgerAccount::Deposits, *amount);
                self.post(*asset, LedgerAccount::Free, *amount);
            }
            Event::PositionOpened { position } => {
                if position.id <= self.account.last_position {
                    return Err(format!("position {} was used already", position.id));
                }
                self.account.last_position = position.id;
                self.positions.insert(position.id, (**position).clone());
            }
            Event::PositionChanged { position } => {
                let held = self
                    .positions
                    .get_mut(&position.id)
                    .ok_or_else(|| format!("position {} is not open", position.id))?;
                // Exits are counted by their intents alone: the event may have been built before the intent of its batch.
                let (exiting, exit_seq) = (held.exiting, held.exit_seq);
                *held = Position { exiting, exit_seq, ..(**position).clone() };
            }
            Event::PositionClosed { closed } => {
                self.positions.remove(&closed.id).ok_or_else(|| format!("position {} is not open", closed.id))?;
                self.totals.closed_trades += 1;
                self.totals.winning_trades += u64::from(closed.net > Money::ZERO);
            }
            Event::StopMoved { position, stop, trailing } => {
                let held =
                    self.positions.get_mut(position).ok_or_else(|| format!("position {position} is not open"))?;
                held.stop = *stop;
                held.trailing = *trailing;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The first attempt's price stays: it is what a later attempt is measured by.
fn left(before: Option<Remote>, sent_at: Ts, deadline: Ts, reference: Price) -> Remote {
    match before {
        Some(before) => Remote { sent_at, deadline, ..before },
        None => Remote {
            sent_at,
            deadline,
            reference,
            unknown_since: None,
            ambiguous: 0,
            cancel: None,
            fills: BTreeSet::new(),
        },
    }
}

fn sum_of(postings: &[Posting], asset: Asset, account: LedgerAccount) -> Money {
    postings.iter().filter(|p| p.asset == asset && p.account == account).map(|p| p.amount).sum()
}

fn take_lock(trade: &mut Trade, postings: &[Posting]) -> Result<(), String> {
    if let Some(lock) = trade.lock.as_mut() {
        lock.amount += sum_of(postings, lock.asset, LedgerAccount::Locked);
        if lock.amount < Money::ZERO {
            return Err(format!("trade {} took more than its lock", trade.key.short()));
        }
    }
    Ok(())
}

/// free + locked = deposits + bought − sold + realised − fees − at_cost must hold for the change as for the whole.
fn balanced(symbol: Symbol, postings: &[Posting]) -> Result<(), String> {
    let (mut base, mut quote) = (Money::ZERO, Money::ZERO);
    for posting in postings {
        let signed = match posting.account {
            LedgerAccount::Free
            | LedgerAccount::Locked
            | LedgerAccount::Sold
            | LedgerAccount::Fees
            | LedgerAccount::AtCost => posting.amount,
            LedgerAccount::Deposits | LedgerAccount::Bought | LedgerAccount::Realised => -posting.amount,
        };
        match posting.asset {
            asset if asset == symbol.base => base += signed,
            asset if asset == symbol.quote => quote += signed,
            asset => return Err(format!("a fill of {symbol} posts to {asset}")),
        }
    }
    if base.is_zero() && quote.is_zero() {
        return Ok(());
    }
    Err(format!("the postings do not balance: {base} {} and {quote} {} are unexplained", symbol.base, symbol.quote))
}
