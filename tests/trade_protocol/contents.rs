//! What is durable in the model: the program's own state, every content once, and the commits between them.

use std::collections::BTreeMap;

use triplegain::{
    execution::{
        intent::{self, EntryOrder},
        ledger,
        paper::VenueFill,
        settle,
        venue::{PaperVenue, Venue, VenueAnswer},
    },
    model::*,
    risk::RiskRules,
    settings::Settings,
};

pub const NOW: Ts = Ts(1_700_000_000_000);
/// Attempts of one trade.
pub const ATTEMPTS: u32 = 2;

/// What is committed for one trade, or for all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    Submit,
    Unknown,
    NotExecuted,
    Acked,
    Fill,
    Expire,
    Manual,
    Booted,
    /// Everything that follows from the paper venue's answer; all but SETTLED; SETTLED alone.
    Paper,
    PaperFirst,
    PaperRest,
}

/// What the model reads of a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    pub state: TradeState,
    pub attempt: u32,
    /// Halves booked.
    pub fills: u8,
}

/// Every durable content met so far. The number of a content is its place.
pub struct Contents {
    pub settings: Settings,
    pub rules: RiskRules,
    pub keys: Vec<TradeKey>,
    pub states: Vec<State>,
    pub stored: Vec<Vec<Stored>>,
    numbers: BTreeMap<String, u16>,
    known: BTreeMap<(u16, u8, Step, bool), Result<u16, String>>,
}

impl Contents {
    pub fn new(trades: usize) -> Contents {
        let mut settings = Settings::defaults();
        settings.execution.max_attempts_definite = ATTEMPTS;
        let rules = RiskRules::of(&settings).unwrap();
        let mut contents = Contents {
            settings,
            rules,
            keys: Vec::new(),
            states: Vec::new(),
            stored: Vec::new(),
            numbers: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        let mut state = State::default();
        let store = uuid::Uuid::from_u128(1);
        let mut events = vec![
            Event::StoreCreated { store, seed: 1, data_kind: "simulated".into() },
            Event::Deposit { asset: "USDT".parse().unwrap(), amount: Decimal::from(100_000) },
        ];
        for (n, symbol) in ["BTC/USDT", "XRP/USDT"].into_iter().take(trades).enumerate() {
            let symbol: Symbol = symbol.parse().unwrap();
            let order = EntryOrder {
                decision: DecisionId(RunId { epoch: 1, seq: n as u64 }),
                slot: format!("model:{n}"),
                replacement: 0,
                symbol,
                side: Side::Buy,
                quantity: Decimal::from(100),
                entry: Decimal::from(10),
                market: Decimal::from(10),
                stop: None,
                target: None,
                leverage: 1,
            };
            let rules = contents.settings.market.symbol[&symbol];
            let trade = intent::entry(store, &order, &rules, &contents.settings.execution, NOW).unwrap();
            contents.keys.push(trade.key);
            events.push(Event::TradeIntent { trade: Box::new(trade) });
        }
        for event in events {
            apply(&mut state, 0, event).unwrap();
        }
        contents.number(state);
        contents
    }

    pub fn number(&mut self, mut state: State) -> u16 {
        // Numbers of records and order errors tell nothing about a trade; without them contents meet again.
        state.meta.seq = 0;
        let trades: Vec<_> =
            state.trades.values().map(|t| (t.key, t.state, t.attempt, t.filled, t.fills, t.lock)).collect();
        let index: Vec<_> = state.trade_index.iter().map(|(key, stub)| (key, stub.state)).collect();
        let text = format!("{} {trades:?} {index:?} {:?}", state.meta.epoch, state.account.ledger);
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        let half = Decimal::from(50);
        let stored = |key: &TradeKey| match state.trades.get(key) {
            Some(trade) => {
                Stored { state: trade.state, attempt: trade.attempt, fills: (trade.filled / half).try_into().unwrap() }
            }
            None => {
                let state = state.trade_index[key].state;
                Stored { state, attempt: ATTEMPTS, fills: if state == TradeState::Settled { 2 } else { 0 } }
            }
        };
        self.stored.push(self.keys.iter().map(stored).collect());
        let number = u16::try_from(self.states.len()).unwrap();
        self.states.push(state);
        self.numbers.insert(text, number);
        number
    }

    /// The content after a commit, or why the fold refuses it. `stale`: by a process of the epoch before.
    pub fn commit(&mut self, from: u16, trade: u8, step: Step, stale: bool) -> Result<u16, String> {
        if let Some(known) = self.known.get(&(from, trade, step, stale)) {
            return known.clone();
        }
        let done = self.fold(from, trade, step, stale).map(|state| self.number(state));
        self.known.insert((from, trade, step, stale), done.clone());
        done
    }

    pub fn fold(&self, from: u16, trade: u8, step: Step, stale: bool) -> Result<State, String> {
        let mut state = self.states[from as usize].clone();
        let key = self.keys[trade as usize];
        let epoch = state.meta.epoch - u32::from(stale);
        let desk = settle::Desk {
            execution: &self.settings.execution,
            rules: &self.rules,
            quote_rate: Decimal::ONE,
            now: NOW,
        };
        let held = state.trades.get(&key).cloned();
        let open = || held.clone().ok_or_else(|| format!("trade {} has ended", key.short()));
        let why = || "model".to_owned();
        let answer = |given| settle::answer(&state, &open()?, given, &desk).map_err(|violation| violation.0);
        let events = match step {
            Step::Submit => vec![settle::submitting(&open()?, NOW)],
            Step::Unknown => answer(VenueAnswer::Unknown { reason: why() })?,
            Step::NotExecuted => answer(VenueAnswer::NotExecuted { reason: why() })?,
            Step::Acked => answer(VenueAnswer::Resting { expires_at: None })?,
            Step::Fill => answer(VenueAnswer::Filled(VenueFill {
                quantity: Decimal::from(50),
                price: Decimal::from(10),
                value: Decimal::from(500),
                fee: Decimal::ZERO,
                liquidity: Liquidity::Maker,
                price_id: "model:1".into(),
                evidence: None,
                venue_fill: None,
            }))?,
            Step::Expire => vec![Event::TradeExpired { trade_key: key, reason: why() }],
            Step::Booted => vec![Event::Booted { epoch: epoch + 1, version: why(), config_hash: why() }],
            Step::Paper => self.paper(&state, &open()?, &desk)?,
            Step::PaperFirst => {
                let events = self.paper(&state, &open()?, &desk)?;
                events.into_iter().filter(|event| !matches!(event, Event::TradeSettled { .. })).collect()
            }
            Step::PaperRest => vec![Event::TradeSettled { trade_key: key }],
            Step::Manual => vec![Event::TradeManual { trade_key: key, reason: why() }],
        };
        for event in events {
            let before: Vec<TradeState> = self.keys.iter().map(|key| state.trade_index[key].state).collect();
            let epoch = if matches!(event, Event::Booted { .. }) { epoch + 1 } else { epoch };
            apply(&mut state, epoch, event)?;
            for (key, before) in self.keys.iter().zip(before) {
                let after = state.trade_index[key].state;
                let again = before == TradeState::NotExecuted && after == TradeState::Submitting;
                if after.rank() < before.rank() && !again {
                    return Err(format!("RANK {before:?} -> {after:?}"));
                }
            }
        }
        ledger::check_conservation(&state).map_err(|violation| violation.0)?;
        Ok(state)
    }
}

impl Contents {
    /// What the paper venue makes of the trade at the one price there is.
    fn paper(&self, state: &State, trade: &Trade, desk: &settle::Desk<'_>) -> Result<Vec<Event>, String> {
        let (symbol, now) = (trade.body.symbol, NOW.plus_ms(1_000));
        let tick = PriceTick { symbol, price: Decimal::from(10), at: now, price_id: 1, range: None };
        let given = PaperVenue::new(&self.settings, "model".into()).execute(trade, Some(&tick), now);
        settle::answer(state, trade, given, desk).map_err(|violation| violation.0)
    }
}

pub fn apply(state: &mut State, epoch: u32, event: Event) -> Result<(), String> {
    let record = Record {
        v: 1,
        seq: state.meta.seq + 1,
        epoch,
        ts: NOW,
        n: None,
        actor: "model".into(),
        corr: String::new(),
        cause: String::new(),
        event,
    };
    state.apply(&record).map_err(|misfit| misfit.to_string())
}
