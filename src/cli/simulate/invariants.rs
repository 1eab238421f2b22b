//! What must hold after every record, computed from the events alone and never through `apply`: an own ledger from
//! deposits, locks and fills, own trade states, plans, runs, epochs and the coordinator's state.
//!
//! Pure: the same records give the same verdict. A violation names the first record that shows it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::{
    Asset, CoordinatorState, Decimal, Event, LedgerAccount, Lock, Money, Plan, PlanState, PositionId, Posting, Qty,
    Record, RunId, RunKey, Side, State, Symbol, Trade, TradeKey, TradeKind, TradeState, Ts,
};

/// Command keys are remembered this long, milliseconds.
const COMMAND_MEMORY_MS: i64 = 24 * 3_600_000;
/// What rounding of a value or a fee may cost at most, in units of the quote asset.
const ROUNDING: Decimal = Decimal::from_parts(1, 0, 0, false, 12);

/// A trade as the events tell it.
#[derive(Clone, Debug)]
struct Known {
    state: TradeState,
    kind: TradeKind,
    symbol: Symbol,
    side: Side,
    quantity: Qty,
    filled: Qty,
    fills: u32,
    lock: Option<Lock>,
    /// Reduces a position: allowed in every state of the coordinator.
    reduces: bool,
}

/// A plan as the events tell it.
#[derive(Clone, Debug)]
struct KnownPlan {
    legs: BTreeMap<TradeKey, (Money, TradeState)>,
    sum: Money,
    active: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Balance {
    free: Money,
    locked: Money,
}

/// The running check.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    seq: u64,
    epoch: u32,
    ts: Ts,
    balances: BTreeMap<Asset, Balance>,
    trades: BTreeMap<TradeKey, Known>,
    plans: BTreeMap<Uuid, KnownPlan>,
    positions: BTreeMap<PositionId, (Symbol, Qty)>,
    last_position: PositionId,
    runs: BTreeMap<RunKey, RunId>,
    used_runs: BTreeSet<RunId>,
    commands: BTreeMap<String, (Ts, bool)>,
    state: CoordinatorState,
    reasons: BTreeSet<String>,
    /// Records of the batch that are still to come.
    open: u32,
}

impl Invariants {
    /// Number of the newest record that was checked.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes the next record in.
    ///
    /// # Errors
    /// What does not hold after it.
    pub fn observe(&mut self, record: &Record) -> Result<(), String> {
        self.place(record)?;
        self.event(record)?;
        for (asset, balance) in &self.balances {
            if balance.free < Money::ZERO || balance.locked < Money::ZERO {
                return Err(format!("{asset} is below zero: free {}, locked {}", balance.free, balance.locked));
            }
        }
        self.open = match record.n {
            Some(n) if self.open == 0 => n.saturating_sub(1),
            Some(_) => return Err("a batch begins inside another".to_owned()),
            None => self.open.saturating_sub(1),
        };
        if self.open == 0 { self.after_batch() } else { Ok(()) }
    }

    fn place(&mut self, record: &Record) -> Result<(), String> {
        if record.seq != self.seq + 1 {
            return Err(format!("record {} follows record {}", record.seq, self.seq));
        }
        if record.ts < self.ts {
            return Err(format!("time goes back from {} to {}", self.ts, record.ts));
        }
        match &record.event {
            Event::Booted { epoch, .. } if *epoch <= self.epoch => {
                return Err(format!("epoch {epoch} follows epoch {}", self.epoch));
            }
            Event::Booted { epoch, .. } => self.epoch = *epoch,
            _ if record.seq > 1 && record.epoch != self.epoch => {
                return Err(format!("a record of epoch {} within epoch {}", record.epoch, self.epoch));
            }
            _ => {}
        }
        (self.seq, self.ts) = (record.seq, record.ts);
        Ok(())
    }

    fn event(&mut self, record: &Record) -> Result<(), String> {
        match &record.event {
            Event::Deposit { asset, amount } => self.balance(*asset).free += *amount,
            Event::TradeIntent { trade } => self.intent(trade)?,
            Event::TradeFill { trade_key, .. } => self.fill(*trade_key, &record.event)?,
            Event::TradeSubmitting { trade_key, .. } => {
                let (state, trade) = (self.state, self.trade(*trade_key)?);
                if state != CoordinatorState::Running && !trade.reduces {
                    return Err(format!("order {} leaves while {}", trade_key.short(), state.name()));
                }
                self.turn(*trade_key, TradeState::Submitting)?;
            }
            Event::TradeAcked { trade_key, .. } => self.turn(*trade_key, TradeState::Acked)?,
            Event::TradeSettled { trade_key } => self.turn(*trade_key, TradeState::Settled)?,
            Event::TradeRejected { trade_key, .. } => self.turn(*trade_key, TradeState::Rejected)?,
            Event::TradeRefused { trade_key, .. } => self.turn(*trade_key, TradeState::Refused)?,
            Event::TradeExpired { trade_key, .. } => self.turn(*trade_key, TradeState::Expired)?,
            Event::TradeNotExecuted { trade_key, .. } => self.turn(*trade_key, TradeState::NotExecuted)?,
            Event::TradeUnknown { trade_key, .. } => self.turn(*trade_key, TradeState::Unknown)?,
            Event::TradeCancelled { trade_key, .. } => self.turn(*trade_key, TradeState::Cancelled)?,
            Event::TradeManual { trade_key, .. } => self.turn(*trade_key, TradeState::Manual)?,
            Event::PlanCreated { plan } => self.plan(plan)?,
            Event::LegsRespread { plan, due } => self.legs(plan, due.keys(), TradeState::Planned)?,
            Event::LegsCancelled { plan, legs, .. } => self.legs(plan, legs.iter(), TradeState::Cancelled)?,
            Event::PlanCompleted { plan } => self.end_plan(plan, None)?,
            Event::PlanSuperseded { plan, .. } => self.end_plan(plan, Some(TradeState::Superseded))?,
            Event::PlanExpired { plan } => self.end_plan(plan, Some(TradeState::Expired))?,
            Event::PositionOpened { position } => {
                if position.id <= self.last_position {
                    return Err(format!("position {} was used already", position.id));
                }
                self.last_position = position.id;
                self.positions.insert(position.id, (position.symbol, position.quantity));
            }
            Event::PositionChanged { position } => {
                let held = self.positions.get_mut(&position.id);
                held.ok_or_else(|| format!("position {} changes and is not open", position.id))?.1 = position.quantity;
            }
            Event::PositionClosed { closed } => {
                let held = self.positions.remove(&closed.id);
                held.ok_or_else(|| format!("position {} closes and is not open", closed.id))?;
            }
            Event::RunClaimed { marker } => {
                if let Some(other) = self.runs.insert(marker.key, marker.run_id) {
                    return Err(format!("run {} of {} begins while {other} runs", marker.run_id, marker.key));
                }
                if !self.used_runs.insert(marker.run_id) {
                    return Err(format!("run id {} was used already", marker.run_id));
                }
            }
            Event::RunFinished { key, run_id, .. } => {
                let held = self.runs.remove(key);
                if held != Some(*run_id) {
                    return Err(format!("run {run_id} of {key} ends, but {held:?} was running"));
                }
            }
            Event::InFlightRecovered { runs } => {
                for run in runs {
                    self.runs.remove(&run.marker.key);
                }
            }
            Event::CommandReceived { key, .. } => self.command(key, record.ts)?,
            Event::CommandDone { key, .. } | Event::CommandRefused { key, .. } => {
                if let Some((_, answered)) = self.commands.get_mut(key)
                    && std::mem::replace(answered, true)
                {
                    return Err(format!("command {key} is answered twice"));
                }
            }
            Event::StateChanged { from, to, .. } => {
                if *from != self.state {
                    return Err(format!("the state changes from {} while {}", from.name(), self.state.name()));
                }
                self.state = *to;
            }
            Event::PauseReasonAdded { reason } => drop(self.reasons.insert(reason.clone())),
            Event::PauseReasonRemoved { reason } => drop(self.reasons.remove(reason)),
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, key: &str, at: Ts) -> Result<(), String> {
        match self.commands.insert(key.to_owned(), (at, false)) {
            Some((before, _)) if at.since_ms(before) < COMMAND_MEMORY_MS => {
                Err(format!("command {key} is taken twice within a day"))
            }
            _ => Ok(()),
        }
    }

    fn balance(&mut self, asset: Asset) -> &mut Balance {
        self.balances.entry(asset).or_default()
    }

    fn trade(&mut self, key: TradeKey) -> Result<&mut Known, String> {
        self.trades.get_mut(&key).ok_or_else(|| format!("trade {} was never made", key.short()))
    }

    fn intent(&mut self, trade: &Trade) -> Result<(), String> {
        let key = trade.key;
        if let Some(lock) = trade.lock {
            let balance = self.balance(lock.asset);
            balance.free -= lock.amount;
            balance.locked += lock.amount;
        }
        if trade.kind == TradeKind::Rebalance {
            let leg = self.plans.values_mut().filter(|plan| plan.active).find_map(|plan| plan.legs.get_mut(&key));
            match leg {
                Some((_, state)) if *state == TradeState::Planned => *state = TradeState::Intent,
                Some((_, state)) => return Err(format!("leg {} is executed while {state:?}", key.short())),
                None => return Err(format!("leg {} belongs to no active plan", key.short())),
            }
        }
        let known = Known {
            state: TradeState::Intent,
            kind: trade.kind,
            symbol: trade.body.symbol,
            side: trade.body.side,
            quantity: trade.body.quantity,
            filled: Qty::ZERO,
            fills: 0,
            lock: trade.lock,
            reduces: trade.body.position.is_some(),
        };
        match self.trades.insert(key, known) {
            Some(_) => Err(format!("trade key {} is used twice", key.short())),
            None => Ok(()),
        }
    }

    /// Moves a trade on; a terminal one returns the rest of its lock.
    fn turn(&mut self, key: TradeKey, to: TradeState) -> Result<(), String> {
        let trade = self.trade(key)?;
        let from = trade.state;
        let again = from == TradeState::NotExecuted && to == TradeState::Submitting;
        if from.is_terminal() || to.rank() < from.rank() && !again {
            return Err(format!("trade {} goes back from {from:?} to {to:?}", key.short()));
        }
        trade.state = to;
        let kind = trade.kind;
        if to.is_terminal()
            && let Some(lock) = trade.lock.take()
        {
            let balance = self.balance(lock.asset);
            balance.locked -= lock.amount;
            balance.free += lock.amount;
        }
        if kind == TradeKind::Rebalance {
            self.plans.values_mut().filter_map(|plan| plan.legs.get_mut(&key)).for_each(|leg| leg.1 = to);
        }
        Ok(())
    }

    fn fill(&mut self, key: TradeKey, event: &Event) -> Result<(), String> {
        let Event::TradeFill { fill_id, symbol, side, quantity, price, value, fee, postings, .. } = event else {
            return Ok(());
        };
        let trade = self.trade(key)?;
        if *fill_id != format!("{key}:{}", trade.fills) {
            return Err(format!("fill {fill_id} is not number {} of its trade", trade.fills));
        }
        if (trade.symbol, trade.side) != (*symbol, *side) {
            return Err(format!("fill {fill_id} is of another symbol or side than its order"));
        }
        trade.fills += 1;
        trade.filled += *quantity;
        if *quantity <= Qty::ZERO || trade.filled > trade.quantity {
            return Err(format!("trade {} filled {} of {}", key.short(), trade.filled, trade.quantity));
        }
        let exact = quantity.checked_mul(*price).unwrap_or(*value);
        if (exact - *value).abs() > ROUNDING || *fee < Money::ZERO {
            return Err(format!("fill {fill_id}: {quantity} at {price} is not worth {value} with a fee of {fee}"));
        }
        let to = match trade.state {
            TradeState::Manual => TradeState::Manual,
            _ if trade.filled == trade.quantity => TradeState::Filled,
            _ => TradeState::Partial,
        };
        let spends = if *side == Side::Buy { symbol.quote } else { symbol.base };
        let spent = if *side == Side::Buy { *value + *fee } else { *quantity };
        let mut from_lock = Money::ZERO;
        if let Some(lock) = trade.lock.as_mut().filter(|lock| lock.asset == spends) {
            from_lock = spent.min(lock.amount);
            lock.amount -= from_lock;
        }
        let (gets, got) = match side {
            Side::Buy => (symbol.base, *quantity),
            Side::Sell => (symbol.quote, *value - *fee),
        };
        for (asset, free, locked) in [(spends, from_lock - spent, -from_lock), (gets, got, Money::ZERO)] {
            let posted = |account| sum_of(postings, asset, account);
            if (posted(LedgerAccount::Free), posted(LedgerAccount::Locked)) != (free, locked) {
                return Err(format!(
                    "fill {fill_id} posts {postings:?}; {asset} moves by {free} free, {locked} locked"
                ));
            }
            let balance = self.balance(asset);
            balance.free += free;
            balance.locked += locked;
        }
        self.turn(key, to)
    }

    fn plan(&mut self, plan: &Plan) -> Result<(), String> {
        if let Some((other, _)) = self.plans.iter().find(|(_, plan)| plan.active) {
            return Err(format!("plan {} begins while plan {other} is active", plan.id));
        }
        let legs: BTreeMap<_, _> = plan.legs.iter().map(|leg| (leg.key, (leg.amount, leg.state))).collect();
        if legs.len() != plan.legs.len() {
            return Err(format!("plan {} has a leg twice", plan.id));
        }
        if let Some(used) = legs.keys().find(|key| self.plans.values().any(|plan| plan.legs.contains_key(key))) {
            return Err(format!("leg {} of plan {} belongs to an earlier plan", used.short(), plan.id));
        }
        let sum = plan.legs.iter().map(|leg| leg.amount).sum();
        self.plans.insert(plan.id, KnownPlan { legs, sum, active: true });
        Ok(())
    }

    fn active(&mut self, id: &Uuid) -> Result<&mut KnownPlan, String> {
        self.plans.get_mut(id).filter(|plan| plan.active).ok_or_else(|| format!("plan {id} is not active"))
    }

    fn legs<'a>(&mut self, id: &Uuid, keys: impl Iterator<Item = &'a TradeKey>, to: TradeState) -> Result<(), String> {
        let plan = self.active(id)?;
        for key in keys {
            match plan.legs.get_mut(key) {
                Some((_, state)) if *state == TradeState::Planned => *state = to,
                _ => return Err(format!("leg {} of plan {id} is not planned any more", key.short())),
            }
        }
        plan.active = plan.legs.values().any(|leg| leg.1 != TradeState::Cancelled);
        Ok(())
    }

    /// Pending legs get `rest`; absent when none may pend.
    fn end_plan(&mut self, id: &Uuid, rest: Option<TradeState>) -> Result<(), String> {
        let plan = self.active(id)?;
        plan.active = false;
        for (key, (_, state)) in &mut plan.legs {
            match rest {
                Some(rest) if *state == TradeState::Planned => *state = rest,
                None if !state.is_terminal() => {
                    return Err(format!("plan {id} is complete and its leg {} is {state:?}", key.short()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn after_batch(&self) -> Result<(), String> {
        let running = self.state == CoordinatorState::Running;
        if self.state != CoordinatorState::Halted && running != self.reasons.is_empty() {
            return Err(format!("{} with the pause reasons {:?}", self.state.name(), self.reasons));
        }
        for (asset, balance) in &self.balances {
            let owned: Qty = self.positions.values().filter(|p| p.0.base == *asset).map(|p| p.1).sum();
            if owned > balance.free + balance.locked {
                return Err(format!("positions own {owned} {asset} of {}", balance.free + balance.locked));
            }
        }
        Ok(())
    }

    /// Compares what the events told with the state the program made of them.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, state: &State) -> Result<(), String> {
        if state.meta.seq != self.seq {
            return Err(format!("the state is at record {}, {} were seen", state.meta.seq, self.seq));
        }
        for (asset, own) in &self.balances {
            let theirs = Balance { free: state.account.free(*asset), locked: state.account.locked(*asset) };
            if *own != theirs {
                return Err(format!("{asset}: the fills give {own:?}, the account says {theirs:?}"));
            }
        }
        let living = self.trades.iter().filter(|(_, trade)| !trade.state.is_terminal());
        let own: Vec<_> = living.map(|(key, trade)| (*key, trade.state, trade.filled)).collect();
        let theirs: Vec<_> = state.trades.values().map(|trade| (trade.key, trade.state, trade.filled)).collect();
        if own != theirs {
            return Err(format!("living trades differ: {own:?}, the state says {theirs:?}"));
        }
        let positions: Vec<_> = state.positions.values().map(|p| (p.id, (p.symbol, p.quantity))).collect();
        if !positions.iter().copied().eq(self.positions.iter().map(|(id, held)| (*id, *held))) {
            return Err(format!("positions differ: {:?}, the state says {positions:?}", self.positions));
        }
        for plan in state.plans.values() {
            let own = self.plans.get(&plan.id).ok_or_else(|| format!("plan {} was never made", plan.id))?;
            let sum: Money = plan.legs.iter().map(|leg| leg.amount).sum();
            let legs = plan.legs.iter().all(|leg| own.legs.get(&leg.key) == Some(&(leg.amount, leg.state)));
            if sum != own.sum || plan.legs.len() != own.legs.len() || !legs {
                return Err(format!("plan {}: its legs differ from what was planned and done: {own:?}", plan.id));
            }
            if own.active != (plan.state == PlanState::Active) {
                return Err(format!("plan {} is {:?}", plan.id, plan.state));
            }
        }
        if !state.coordinator.in_flight.iter().map(|(key, marker)| (*key, marker.run_id)).eq(self.runs.clone()) {
            return Err(format!("runs differ: {:?}, the state says {:?}", self.runs, state.coordinator.in_flight));
        }
        if (state.coordinator.state, &state.coordinator.pause_reasons) != (self.state, &self.reasons) {
            return Err(format!("the state says {}, the events {}", state.coordinator.state.name(), self.state.name()));
        }
        crate::execution::ledger::check_conservation(state).map_err(|violation| violation.to_string())
    }
}

fn sum_of(postings: &[Posting], asset: Asset, account: LedgerAccount) -> Money {
    postings.iter().filter(|p| p.asset == asset && p.account == account).map(|p| p.amount).sum()
}
