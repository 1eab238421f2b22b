//! The oracle: what must hold in every journal, judged from its records alone and from the first one on.
//!
//! It shares no rule with `State::apply` on purpose: it keeps trades, money and promises in books of its own, so that an
//! error in the fold does not hide itself. It is pure and incremental: a simulation may ask it after every record, and
//! `journal verify` runs it over a whole store. It never changes anything.

pub mod acks;
mod books;
mod cost;
mod order;
mod promises;
mod running;
mod trades;

use crate::model::{Record, State, Ts};

pub use acks::Ack;
pub use trades::Waiting;

/// What is checked; the numbers are those of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// 1: at most one execution per trade key.
    Executions,
    /// 2: every acknowledged plan, command and trade is present.
    Promises,
    /// 3: fills = ledger = positions = balances, to the last unit.
    Money,
    /// 4: no trade goes back in rank.
    Ranks,
    /// 5: every trade is terminal or explained.
    Waiting,
    /// 6: chain, checksums, sequence, batches, epochs.
    Chain,
    /// 7: the embedded store equals the fold of the journal.
    Embedded,
}

impl Check {
    /// All of them in the order of the report.
    pub const ALL: [Check; 7] =
        [Check::Executions, Check::Promises, Check::Money, Check::Ranks, Check::Waiting, Check::Chain, Check::Embedded];

    /// 1 to 7.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// What holds when nothing is wrong.
    pub const fn name(self) -> &'static str {
        match self {
            Check::Executions => "one execution per trade key",
            Check::Promises => "everything acknowledged is present",
            Check::Money => "fills = ledger = positions = balances",
            Check::Ranks => "no trade goes back in rank",
            Check::Waiting => "every trade is terminal or explained",
            Check::Chain => "chain, checksums, sequence and epochs are whole",
            Check::Embedded => "embedded store = fold of the journal",
        }
    }

    /// What a person does about a violation.
    pub const fn advice(self) -> &'static str {
        match self {
            Check::Promises => {
                "keep a copy of the directory; something that was answered is gone: was the store restored from a backup?"
            }
            Check::Chain => {
                "keep a copy of the directory, then restore the journal from a backup; the next start is HALTED and \
                 repairs nothing"
            }
            Check::Embedded => {
                "start the program: it moves the embedded store aside and rebuilds it from the journal; where the embedded \
                 store is ahead, answered records are gone from the journal and that start is HALTED: restore the newer one"
            }
            Check::Executions | Check::Money | Check::Ranks | Check::Waiting => {
                "keep a copy of the directory and do not trade on with this store: the program wrote what it must not"
            }
        }
    }
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub check: Check,
    /// At which record; 0 = of the store as a whole.
    pub seq: u64,
    /// What is wrong, with both sides of it.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { check, seq, what } = self;
        if *seq > 0 {
            write!(f, "check {} ({}), record {seq}: {what}", check.number(), check.name())
        } else {
            write!(f, "check {} ({}): {what}", check.number(), check.name())
        }
    }
}

/// Collects what one record is guilty of.
pub(crate) struct Found<'a> {
    seq: u64,
    list: &'a mut Vec<Violation>,
}

impl Found<'_> {
    fn add(&mut self, check: Check, what: impl Into<String>) {
        self.list.push(Violation { check, seq: self.seq, what: what.into() });
    }
}

/// What was counted, for the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Records observed.
    pub records: u64,
    /// Boots observed.
    pub boots: u64,
    /// Trade keys: intents and planned legs.
    pub trades: u64,
    /// Intents.
    pub intents: u64,
    /// Fills.
    pub fills: u64,
    /// Trades that reached SETTLED.
    pub settled: u64,
    /// Changes of a trade's state.
    pub steps: u64,
    /// Assets with a balance.
    pub assets: u64,
    /// Open positions.
    pub positions: u64,
    /// Positions closed.
    pub closed: u64,
    /// Commands with an answer.
    pub commands: u64,
    /// Plans.
    pub plans: u64,
    /// Acknowledgements compared.
    pub acks: u64,
}

/// The judge of a journal. Feed it every record in order with [`Oracle::observe`].
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    order: order::Order,
    trades: trades::Trades,
    books: books::Books,
    promises: promises::Promises,
    running: running::Running,
    /// Records of the open batch still to come.
    open: u32,
    violations: Vec<Violation>,
    acks: u64,
}

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new() -> Oracle {
        Oracle::default()
    }

    /// Judges the next record. Rules that hold between batches only are judged at the last record of a batch.
    ///
    /// # Errors
    /// The first thing that is wrong with it; all of it is kept in [`Oracle::violations`].
    pub fn observe(&mut self, record: &Record) -> Result<(), Violation> {
        let before = self.violations.len();
        let mut found = Found { seq: record.seq, list: &mut self.violations };
        self.open = if self.open == 0 { record.n.unwrap_or(1).max(1) } else { self.open } - 1;
        self.order.observe(record, &mut found);
        self.trades.observe(record, &mut found);
        self.books.observe(record, &mut found);
        self.promises.observe(record, &mut found);
        self.running.observe(record);
        if self.open == 0 {
            self.trades.end_of_batch(&mut found);
            self.books.end_of_batch(&mut found);
            self.promises.end_of_batch(&mut found);
        }
        self.violations.get(before).cloned().map_or(Ok(()), Err)
    }

    /// True between batches: only then may the state be compared.
    pub fn is_between_batches(&self) -> bool {
        self.open == 0
    }

    /// True when money moved since the last [`Oracle::compare`].
    pub fn money_moved(&self) -> bool {
        self.books.moved()
    }

    /// Compares the fold of the same records with the oracle's own books: balances, positions, inventory, and the
    /// trades that are not terminal.
    ///
    /// # Errors
    /// The first difference; all of them are kept in [`Oracle::violations`].
    pub fn compare(&mut self, state: &State) -> Result<(), Violation> {
        let before = self.violations.len();
        let mut found = Found { seq: state.meta.seq, list: &mut self.violations };
        self.books.compare(state, &mut found);
        self.trades.compare(state, &mut found);
        self.violations.get(before).cloned().map_or(Ok(()), Err)
    }

    /// Looks for something that was acknowledged to a client.
    ///
    /// # Errors
    /// When it is not there, or not as it was shown.
    pub fn expect(&mut self, ack: &Ack) -> Result<(), Violation> {
        self.acks += 1;
        let wrong = match ack {
            Ack::Command { key, answer } => self.promises.command(key, answer),
            Ack::Plan { id } => self.trades.plan(id),
            Ack::Trade { key, state, filled } => self.trades.shown(key, state.as_deref(), *filled),
            Ack::Record { seq, .. } => {
                let last = self.order.last();
                (*seq > last)
                    .then(|| format!("record {seq} was shown as durable, but the journal ends at {last}"))
                    .map_or(Ok(()), Err)
            }
        };
        wrong.map_err(|what| {
            let violation = Violation { check: Check::Promises, seq: 0, what };
            self.violations.push(violation.clone());
            violation
        })
    }

    /// The trades that are not terminal, each with what it waits for; a trade that nothing explains becomes a violation.
    pub fn waiting(&mut self) -> Vec<Waiting> {
        let mut found = Found { seq: self.order.last(), list: &mut self.violations };
        self.trades.waiting(&self.running, self.order.now(), &mut found)
    }

    /// Everything that was wrong so far, in order.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Number of the newest record.
    pub fn last(&self) -> u64 {
        self.order.last()
    }

    /// Logical time of the newest record.
    pub fn now(&self) -> Ts {
        self.order.now()
    }

    /// What was counted.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures { acks: self.acks, ..Figures::default() };
        self.order.count(&mut figures);
        self.trades.count(&mut figures);
        self.books.count(&mut figures);
        self.promises.count(&mut figures);
        figures
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
