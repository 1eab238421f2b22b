//! What the tests of the store share: settings, starts, and a generator of event sequences that fit the state.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)] // not every test file uses everything

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triplegain::{
    model::*,
    settings::sections::{CheckpointSettings, FreeSpaceSettings, GroupSettings, StoreSettings},
    store::{Batch, OpenInfo, Opened, Report, Store, StoreError, oracle::Check},
};
use uuid::Uuid;

pub fn settings() -> StoreSettings {
    StoreSettings {
        segment_mib: 64,
        group: GroupSettings { max_events: 100 },
        aux_flush_ms: 1_000,
        cache_mib: 16,
        checkpoint: CheckpointSettings { events: 10_000, hours: 24, keep: 3 },
        free_space: FreeSpaceSettings { alert_mib: 1_024, pause_mib: 200 },
    }
}

pub fn info() -> OpenInfo {
    OpenInfo {
        seed: 7,
        data_kind: "simulated".into(),
        config_hash: "c".repeat(64),
        version: "test".into(),
        now: Ts::from_secs(1_700_000_000),
        deposits: BTreeMap::from([(asset("USDT"), "10000".parse().unwrap())]),
        stands_still: false,
        store_id: None,
    }
}

pub fn open(path: &Path) -> Result<(Store, Opened), StoreError> {
    Store::open(path, &settings(), &info())
}

pub fn asset(text: &str) -> Asset {
    text.parse().unwrap()
}

pub fn symbol() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

/// What a store owes whatever is committed to it: a whole journal, and an embedded store that equals its fold. The events
/// of the generator fit the state, but no venue would make them, so the rules of trading are not asked.
pub fn is_durable(report: &Report) -> bool {
    report.holds(Check::Chain) && report.holds(Check::Embedded)
}

pub fn note(what: &str) -> Event {
    Event::Noted { what: what.into(), facts: BTreeMap::from([("k".into(), "v".into())]) }
}

pub fn batch(events: Vec<Event>) -> Batch {
    Batch::new("test", "root", "cause", info().now, events)
}

fn dec(value: i64) -> Decimal {
    Decimal::new(value, 2)
}

/// Makes events at random; those that do not fit are sorted out by the caller against a copy of the state.
pub struct Generator {
    pub rng: ChaCha8Rng,
    pub now: Ts,
    next: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        println!("generator seed {seed}");
        Generator { rng: ChaCha8Rng::seed_from_u64(seed), now: info().now, next: 0 }
    }

    /// A batch of 1 to 3 events that fits `state`.
    pub fn batch(&mut self, state: &State) -> Batch {
        self.now = self.now.plus_ms(self.rng.random_range(0..600_000));
        let mut copy = state.clone();
        let mut events = Vec::new();
        let wanted = self.rng.random_range(1..=3);
        while events.len() < wanted {
            let event = self.event(&copy);
            let mut probe = copy.clone();
            let record = Record {
                v: 1,
                seq: probe.meta.seq + 1,
                epoch: probe.meta.epoch,
                ts: self.now.max(probe.meta.logical_time),
                n: None,
                actor: "t".into(),
                corr: String::new(),
                cause: String::new(),
                event: event.clone(),
            };
            if probe.apply(&record).is_ok() {
                copy = probe;
                events.push(event);
            }
        }
        Batch::new("test", "root", "cause", self.now, events)
    }

    fn pick<T: Clone>(&mut self, from: impl Iterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.collect();
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())].clone()) }
    }

    fn key(&mut self) -> TradeKey {
        self.next += 1;
        let next = self.next.to_string();
        TradeKey::derive(Uuid::from_u128(1), TradeKind::Decision, &next, "0", symbol(), Side::Buy)
    }

    fn event(&mut self, state: &State) -> Event {
        let at = self.now;
        let trade_key = self.pick(state.trades.keys().copied()).unwrap_or(TradeKey([0; 32]));
        let position = self.pick(state.positions.keys().copied()).unwrap_or_default();
        let plan = self.pick(state.plans.keys().copied()).unwrap_or_default();
        let decision = self.pick(state.decisions.keys().copied()).unwrap_or_default();
        let reason = String::from("why");
        match self.rng.random_range(0..53) {
            0..6 => self.intent(state),
            6..9 => Event::TradeSubmitting {
                trade_key,
                attempt: 1,
                deadline: at.plus_ms(10_000),
                reference: Some(Price::ONE),
            },
            9..12 => Event::TradeAcked { trade_key, expires_at: Some(at) },
            12..16 => self.fill(state, trade_key),
            16..18 => Event::TradeSettled { trade_key },
            18 => Event::TradeRejected { trade_key, reason },
            19 => Event::TradeRefused { trade_key, reason },
            20 => Event::TradeExpired { trade_key, reason },
            21 => Event::TradeNotExecuted { trade_key, reason, retry_at: Some(at) },
            22 => Event::TradeUnknown { trade_key, reason },
            23 => Event::TradeCancelled { trade_key, reason },
            48 => Event::TradeCancelRequested { trade_key, reason },
            49 => Event::TradeManual { trade_key, reason },
            51 => {
                let resolution = ManualResolution { fill: None, evidence: reason, source: "test".into() };
                Event::TradeResolved { trade_key, resolution }
            }
            50 => Event::NoncesReserved { until: state.meta.nonces + 10 },
            52 => Event::GapReplayed {
                symbol: symbol(),
                at,
                done: PriceDone { filled: vec![position], moved: Vec::new() },
            },
            24 | 25 => self.plan(),
            26 => {
                let legs = state.plans.get(&plan).map(|plan| plan.legs.iter().map(|leg| (leg.key, at)).collect());
                Event::LegsRespread { plan, due: legs.unwrap_or_default() }
            }
            27 => Event::PlanCompleted { plan },
            28 => Event::PlanSuperseded { plan, reason },
            29 => Event::PlanExpired { plan },
            30 => {
                let legs = state.plans.get(&plan).map(|plan| plan.legs.iter().map(|leg| leg.key).take(1).collect());
                Event::LegsCancelled { plan, legs: legs.unwrap_or_default(), reason }
            }
            31 | 32 => Event::PositionOpened { position: Box::new(self.position(None)) },
            33 => Event::PositionChanged { position: Box::new(self.position(Some(position))) },
            34 => Event::PositionClosed { closed: Box::new(self.closed(position)) },
            35 => Event::StopMoved { position, stop: Some(dec(5)), trailing: Trailing::default() },
            36 | 37 => self.signal(),
            38 => Event::RiskApproved {
                decision,
                reservation: Reservation {
                    key: trade_key,
                    symbol: symbol(),
                    notional_usd: dec(500),
                    funds: dec(501),
                    leverage: 1,
                },
                notional_usd: dec(500),
                notes: Vec::new(),
            },
            39 => Event::DecisionEnded { decision, end: DecisionEnd::Hold, reason: None },
            40 => {
                let pending = self.pick(state.leaderboard.pending.keys().copied()).unwrap_or_default();
                let confidence = Score(5_000);
                let (action, signed_return_bp, correct) = (Action::Buy, Some(dec(12)), Some(true));
                let marks = vec![VoteMark { voter: "v1".into(), action, confidence, signed_return_bp, correct }];
                Event::VotesMarked { decision: pending, marks }
            }
            41 | 42 => self.command(state),
            43 => self.emergency(state),
            44 | 45 => self.run(state),
            46 => self.coordinator(),
            _ => self.risk(),
        }
    }

    fn intent(&mut self, state: &State) -> Event {
        let leg = state.plans.values().flat_map(|plan| &plan.legs).find(|leg| leg.state == TradeState::Planned);
        let key = leg.filter(|_| self.rng.random_bool(0.5)).map(|leg| leg.key).unwrap_or_else(|| self.key());
        let position = self.pick(state.positions.keys().copied()).filter(|_| self.rng.random_bool(0.4));
        let body = OrderBody {
            symbol: symbol(),
            side: Side::Buy,
            quantity: dec(100),
            order_type: OrderType::Limit { limit: dec(1_000) },
            time_in_force: TimeInForce::Gtc,
            stop: None,
            target: None,
            leverage: 1,
            position,
            exit_cause: None,
        };
        let lock = self.rng.random_bool(0.7).then(|| Lock { asset: asset("USDT"), amount: dec(1_000) });
        Event::TradeIntent {
            trade: Box::new(Trade {
                key,
                kind: TradeKind::Decision,
                plan: "p".into(),
                leg: "0".into(),
                decision: None,
                body,
                state: TradeState::Intent,
                lock,
                attempt: 0,
                created_at: self.now,
                acked_at: None,
                expires_at: None,
                retry_at: None,
                filled: Decimal::ZERO,
                filled_value: Decimal::ZERO,
                fees: Decimal::ZERO,
                fills: 0,
                remote: None,
                resolution: None,
            }),
        }
    }

    fn fill(&mut self, state: &State, trade_key: TradeKey) -> Event {
        let fills = state.trades.get(&trade_key).map_or(0, |trade| trade.fills);
        let quantity = if self.rng.random_bool(0.5) { dec(50) } else { dec(100) };
        let (usdt, btc) = (asset("USDT"), asset("BTC"));
        let value = quantity * dec(10);
        let postings = vec![
            Posting { asset: usdt, account: LedgerAccount::Locked, amount: -value },
            Posting { asset: btc, account: LedgerAccount::Free, amount: quantity },
            Posting { asset: btc, account: LedgerAccount::Bought, amount: quantity },
        ];
        Event::TradeFill {
            trade_key,
            fill_id: format!("{trade_key}:{fills}"),
            symbol: symbol(),
            side: Side::Buy,
            quantity,
            price: dec(10),
            value,
            fee: dec(1),
            liquidity: Liquidity::Taker,
            price_id: "sim:1".into(),
            evidence: None,
            venue_fill: None,
            postings,
        }
    }

    fn plan(&mut self) -> Event {
        let legs = (0..3).map(|batch| Leg {
            key: self.key(),
            batch,
            asset: asset("BTC"),
            symbol: symbol(),
            side: Side::Buy,
            amount: dec(5_555),
            due_at: self.now.plus_ms(i64::from(batch) * 1_000),
            state: TradeState::Planned,
        });
        let legs = legs.collect();
        self.next += 1;
        let plan = Plan {
            id: Uuid::from_u128(u128::from(self.next)),
            created_at: self.now,
            spacing_ms: 1_000,
            legs,
            deviation_pct: dec(700),
            state: PlanState::Active,
            ended_at: None,
            last_executed_at: None,
        };
        Event::PlanCreated { plan: Box::new(plan) }
    }

    fn position(&mut self, id: Option<PositionId>) -> Position {
        self.next += 1;
        Position {
            id: id.unwrap_or(PositionId(self.next)),
            symbol: symbol(),
            side: PositionSide::Long,
            quantity: dec(self.rng.random_range(1..1_000)),
            cost: dec(1_000),
            leverage: 1,
            stop: None,
            target: Some(dec(9)),
            trailing: Trailing::default(),
            opened_at: self.now,
            fees: dec(1),
            realised: dec(0),
            trades: vec![TradeKey([1; 32])],
            exit_seq: 0,
            exiting: None,
            past: Default::default(),
        }
    }

    fn closed(&mut self, id: PositionId) -> ClosedPosition {
        ClosedPosition {
            id,
            symbol: symbol(),
            side: PositionSide::Long,
            quantity: dec(1),
            entry: dec(1),
            exit: dec(2),
            gross: dec(1),
            fees: dec(0),
            net: dec(1),
            net_usd: dec(1),
            opened_at: self.now,
            closed_at: self.now,
            cause: ExitCause::Stop,
        }
    }

    fn signal(&mut self) -> Event {
        self.next += 1;
        let run_id = RunId { epoch: 1, seq: self.next };
        let head = OutputHead {
            agent: TaskName::TradingDecision,
            symbol: symbol(),
            run_id,
            slot: SlotId::Grid(1),
            as_of: self.now,
            produced_at: self.now,
            confidence: Score(7_000),
            reasoning: "because".into(),
            latency_ms: 1,
            path: "rules".into(),
            degraded: false,
            warnings: Vec::new(),
            models: Vec::new(),
        };
        let vote = Vote {
            action: Action::Buy,
            confidence: Score(6_000),
            levels: Some(Levels { entry: dec(10), stop: dec(9), target: dec(12) }),
            position_size_pct: Score(1_000),
            reasoning: String::new(),
        };
        let voter = Arc::from(format!("v{}", self.rng.random_range(1..4)));
        let ballots = vec![
            NamedBallot { voter, ballot: Ballot::Vote(vote), model: None },
            NamedBallot { voter: Arc::from("v9"), ballot: Ballot::Abstain("no data".into()), model: None },
        ];
        let signal = Signal {
            head,
            action: Action::Buy,
            levels: None,
            position_size_pct: Score(1_000),
            leverage: 1,
            voters_asked: 2,
            voters_valid: 1,
            vote_class: VoteClass::Majority,
            ballots,
            price: dec(10),
            ta_run: None,
            regime_run: None,
            sentiment_run: None,
        };
        Event::SignalReceived { decision: DecisionId(run_id), signal: Box::new(signal), inputs: BTreeMap::new() }
    }

    fn command(&mut self, state: &State) -> Event {
        let key = self.pick(state.commands.keys().cloned()).unwrap_or_default();
        match self.rng.random_range(0..3) {
            0 => Event::CommandDone { key, result: serde_json::json!({"done": 0.1}) },
            1 => Event::CommandRefused { key, code: "busy".into(), reason: "no".into() },
            _ => {
                self.next += 1;
                let command = Command::Pause { reason: "r".into() };
                Event::CommandReceived { key: format!("k{}", self.next), command, body_hash: "h".into() }
            }
        }
    }

    fn emergency(&mut self, state: &State) -> Event {
        let known = self.pick(state.emergencies.values().map(|held| held.key.clone()));
        let started_at = self.now;
        match (self.rng.random_range(0..3), known) {
            (0, Some(key)) => Event::EmergencyDone { key, results: BTreeMap::new() },
            (1, Some(key)) => {
                Event::EmergencyStep { key, position: PositionId(3), result: "r".into(), retry_at: Some(started_at) }
            }
            _ => {
                self.next += 1;
                let key = EmergencyKey {
                    breach: "daily_loss".into(),
                    period: self.next.to_string(),
                    action: EmergencyAction::HaltAll,
                };
                let targets = BTreeMap::from([(PositionId(3), dec(1))]);
                let attempts = BTreeMap::new();
                Event::EmergencyStarted {
                    emergency: Emergency { key, started_at, targets, attempts, retry_at: None, done: false },
                }
            }
        }
    }

    fn run(&mut self, state: &State) -> Event {
        let markers: Vec<InFlightMarker> = state.coordinator.in_flight.values().cloned().collect();
        let key = RunKey { task: TaskName::TradingDecision, symbol: symbol() };
        self.next += 1;
        let run_id = RunId { epoch: 1, seq: self.next };
        match self.rng.random_range(0..3) {
            0 => {
                let consumed = BTreeMap::from([(TaskName::TechnicalAnalysis, self.now)]);
                let ballot = Ballot::Abstain("nothing to say".into());
                let ballots = vec![NamedBallot { voter: "silent".into(), ballot, model: None }];
                Event::RunFinished { key, run_id, outcome: RunOutcome::Succeeded, consumed, ballots }
            }
            1 => {
                let recovered = |marker| RecoveredRun { marker, policy: "rerun".into() };
                Event::InFlightRecovered { runs: markers.into_iter().map(recovered).collect() }
            }
            _ => {
                let slot = SlotId::Grid(self.next as i64);
                let marker = InFlightMarker { key, slot, run_id, started_at: self.now, interruptions: 0 };
                Event::RunClaimed { marker }
            }
        }
    }

    fn coordinator(&mut self) -> Event {
        let key = RunKey { task: TaskName::TechnicalAnalysis, symbol: symbol() };
        match self.rng.random_range(0..6) {
            0 => Event::PauseReasonAdded { reason: "operator".into() },
            1 => Event::PauseReasonRemoved { reason: "operator".into() },
            2 => Event::Quarantined { key, until: None, reason: "poison".into(), count: 3 },
            3 => Event::QuarantineEnded { key },
            4 => Event::TaskSwitched { task: TaskName::SentimentAnalysis, enabled: false },
            _ => Event::DegradationChanged {
                capability: Capability::Llm,
                from: DegradationLevel::Normal,
                to: DegradationLevel::Reduced,
            },
        }
    }

    fn risk(&mut self) -> Event {
        let breaker = BreakerKind::DailyLoss;
        match self.rng.random_range(0..9) {
            0 => Event::PeriodRolled { day: 1, week: 202_401, equity: dec(1_000) },
            1 => Event::PeakChanged { peak: dec(2_000) },
            2 => Event::BreakerTripped {
                latch: Latch { breaker, period: "1".into(), measured: dec(6), limit: dec(5), at: self.now },
                action: EmergencyAction::PauseTrading,
            },
            3 => Event::BreakerRearmed { breaker, reason: "new day".into() },
            4 => Event::CooldownSet { until: self.now.plus_ms(5), cause: CooldownCause::AfterLoss },
            5 => Event::BudgetReserved {
                call: self.rng.random_range(1..50),
                day: self.now.day(),
                provider: "p".into(),
                model: "m".into(),
                decision: None,
                amount: dec(3),
                warned: false,
            },
            6 => Event::BudgetSettled {
                call: self.rng.random_range(1..50),
                cost: dec(1),
                input_tokens: Some(7),
                output_tokens: None,
                failure: None,
                over: dec(self.rng.random_range(0..2)),
            },
            7 => Event::BudgetExhausted { day: self.now.day(), limit: "day".into(), spent: dec(3), of: dec(3) },
            _ => Event::StreakChanged { losses: 1, wins: 0 },
        }
    }
}
