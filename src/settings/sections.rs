//! The validated settings, one struct per section of `config/default.toml`. Field names are the keys.
//!
//! Defaults live in `config/default.toml` alone; ranges, units and effects of every key live in `keys.rs`.
// tidy: allow(length) one struct per section of the file, in the order of the file

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::models::{BudgetSettings, CassetteSettings, ProviderBreakerSettings, ProviderSettings};
use crate::model::{
    Asset, BreakerKind, ConflictKind, CooldownCause, DegradationLevel, EmergencyAction, Regime, ResolutionAction,
    Score, Symbol, SymbolRules, TaskName, TimeInForce, Timeframe,
};

/// Everything the program is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // every field is a key; `keys.rs` holds the text shown by `config explain`
pub struct Settings {
    pub mode: String,
    pub seed: u64,
    pub symbols: Vec<Symbol>,
    pub account_currency: Asset,
    pub data_dir: String,
    pub timezone: String,
    pub runtime: RuntimeSettings,
    pub market: MarketSettings,
    pub scheduler: SchedulerSettings,
    pub tasks: BTreeMap<TaskName, TaskSettings>,
    pub legs: LegSettings,
    pub agents: AgentsSettings,
    pub regimes: BTreeMap<Regime, RegimeSettings>,
    pub strictness: StrictnessSettings,
    pub consensus: ConsensusSettings,
    pub conflicts: ConflictSettings,
    pub decision: DecisionSettings,
    pub risk: RiskSettings,
    pub emergency: EmergencySettings,
    pub execution: ExecutionSettings,
    pub account: AccountSettings,
    pub portfolio: PortfolioSettings,
    pub degradation: DegradationSettings,
    #[serde(default)]
    pub providers: BTreeMap<String, ProviderSettings>,
    #[serde(default)]
    pub chains: BTreeMap<String, Vec<String>>,
    pub breaker: ProviderBreakerSettings,
    pub budget: BudgetSettings,
    pub cassette: CassetteSettings,
    pub coordinator: CoordinatorSettings,
    pub quarantine: QuarantineSettings,
    pub clock: ClockSettings,
    pub bus: BusSettings,
    pub store: StoreSettings,
    pub supervisor: SupervisorSettings,
    pub api: ApiSettings,
    pub notify: NotifySettings,
    pub log: LogSettings,
}

macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // every field is a key; `keys.rs` holds the text shown by `config explain`
        pub struct $name { $($body)* }
    };
}

section!(
    /// `[runtime]`; speed 0 in the file means "60 with the simulated source, else 1" and is resolved by validation.
    RuntimeSettings { pub speed: u32 }
);
section!(
    /// `[market]`
    MarketSettings {
        pub source: MarketSource,
        pub csv: CsvSettings,
        pub simulated: SimulatedSettings,
        pub kraken: KrakenSettings,
        pub gap_fill: bool,
        pub price_max_age_seconds: u32,
        pub primary_timeframe: Timeframe,
        pub lookback: BTreeMap<Timeframe, u32>,
        pub frame_max_age_factor: f64,
        pub silence_seconds: u32,
        pub max_jump_pct: f64,
        pub symbol: BTreeMap<Symbol, SymbolRules>,
    }
);
/// Which feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarketSource {
    /// Seeded market, no network.
    Simulated,
    /// Historic candles.
    Csv,
    /// Kraken's public live feed.
    Kraken,
}
section!(
    /// `[market.kraken]`
    KrakenSettings { pub ws_url: String, pub rest_url: String, pub candle_minutes: u32 }
);
section!(
    /// `[market.csv]`
    CsvSettings { pub dir: String }
);
section!(
    /// `[market.simulated]`
    SimulatedSettings { pub start_prices: BTreeMap<Symbol, f64>, pub step_seconds: u32 }
);
section!(
    /// `[scheduler]`
    SchedulerSettings {
        pub tick_ms: u32,
        pub max_concurrent_runs: u32,
        pub reserved_safety_slots: u32,
        pub max_per_provider: u32,
        pub ageing_seconds: u32,
        pub cancel_grace_seconds: u32,
        pub retry: RetrySettings,
        pub starvation_factor: u32,
        pub overlap_alert_after: u32,
        pub spread_ms: u32,
        pub wait: WaitSettings,
        pub freshness_interval_factor: f64,
    }
);
section!(
    /// `[scheduler.retry]`
    RetrySettings { pub max_attempts: u32, pub base_ms: u32, pub cap_seconds: u32 }
);
section!(
    /// `[scheduler.wait]`
    WaitSettings { pub max_seconds: u32, pub interval_ratio: f64 }
);
section!(
    /// `[tasks.NAME]`
    TaskSettings {
        pub enabled: bool,
        /// Empty = all traded symbols (the portfolio task: `PORTFOLIO`); resolved by validation.
        pub symbols: Vec<Symbol>,
        pub interval_seconds: u32,
        pub phase_seconds: u32,
        pub timeout_seconds: u32,
        pub snapshot_timeout_seconds: u32,
        pub max_parallel: u32,
        pub catch_up_seconds: u32,
        pub start_deadline_seconds: u32,
        #[serde(default)]
        pub depends_on: Vec<DependencySettings>,
        /// 0 = 2 × the larger interval of the two inputs.
        #[serde(default)]
        pub max_skew_seconds: u32,
        pub on_stale: OnStale,
        pub on_crash: OnCrash,
    }
);
section!(
    /// One entry of `depends_on`; `max_age_seconds` 0 = factor × the dependency's interval + its timeout.
    DependencySettings { pub task: TaskName, #[serde(default)] pub max_age_seconds: u32, pub require_new: bool, pub required: bool }
);
/// What to do when a dependency stays stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// Skip the slot.
    Skip,
    /// Run; the result may only reduce risk.
    RunStale,
    /// Count a failure.
    Fail,
}
/// What to do with a run a crash interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// Run the same slot again at once.
    Rerun,
    /// Leave it.
    Skip,
    /// Leave it and tell the operator.
    Alert,
}
section!(
    /// `[legs]`; `max_lateness_seconds` is raised to 10 % of the spacing when that is larger.
    LegSettings { pub max_lateness_seconds: u32, pub min_spacing_ratio: Decimal, pub late_policy: LatePolicy }
);
/// What to do with a late leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// Move it and its followers.
    Respread,
    /// Drop it.
    Skip,
    /// Freeze the plan.
    AskOperator,
}
section!(
    /// `[agents]`
    AgentsSettings {
        pub technical_analysis: TaSettings,
        pub regime_detection: RegimeDetectionSettings,
        pub sentiment_analysis: SentimentSettings,
        pub portfolio_rebalance: AllocatorSettings,
        pub trading_decision: TradingDecisionSettings,
        pub grounding: GroundingSettings,
    }
);
impl AgentsSettings {
    /// Whether somebody asks a model.
    pub fn ask_models(&self) -> bool {
        self.chains().any(|(_, chain)| !chain.is_empty())
            || self.trading_decision.voters.iter().any(|voter| voter.enabled && voter.kind == VoterKind::Model)
    }
}

impl AgentsSettings {
    /// Chains of the agents with one voice, by key; empty = nobody is asked.
    pub fn chains(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let chains = [
            ("agents.technical_analysis.chain", &self.technical_analysis.chain),
            ("agents.regime_detection.chain", &self.regime_detection.chain),
            ("agents.sentiment_analysis.social", &self.sentiment_analysis.social),
            ("agents.sentiment_analysis.news", &self.sentiment_analysis.news),
            ("agents.portfolio_rebalance.chain", &self.portfolio_rebalance.chain),
        ];
        chains.into_iter().map(|(key, chain)| (key, chain.as_str()))
    }
}
section!(
    /// `[agents.sentiment_analysis]`
    SentimentSettings {
        pub social: String,
        pub news: String,
        pub weight_social: f64,
        pub weight_news: f64,
        pub min_confidence: Score,
    }
);
impl SentimentSettings {
    /// Whether there is somebody to ask.
    pub fn has_provider(&self) -> bool {
        !self.social.is_empty() || !self.news.is_empty()
    }
}
section!(
    /// `[agents.portfolio_rebalance]`
    AllocatorSettings { pub chain: String }
);
section!(
    /// `[agents.grounding]`
    GroundingSettings { pub price_pct: Decimal, pub indicator_pct: f64 }
);
section!(
    /// `[agents.technical_analysis]`
    TaSettings { pub chain: String, pub fallback_confidence: Score, pub rsi_long: f64, pub rsi_short: f64 }
);
section!(
    /// `[agents.regime_detection]`
    RegimeDetectionSettings {
        pub chain: String,
        pub fallback_confidence: Score,
        pub change_confidence: Score,
        pub change_count: u32,
        pub adx_trend: f64,
        pub choppiness_choppy: f64,
        pub squeeze_candles: u32,
        pub atr_extreme_pct: f64,
        pub atr_ratio: f64,
    }
);
section!(
    /// `[agents.trading_decision]`
    TradingDecisionSettings {
        pub poll_timeout_seconds: u32,
        /// 0 = ⌈2n/3⌉
        pub quorum: u32,
        pub boost: BoostSettings,
        pub voters: Vec<VoterSettings>,
        pub rules: RulesSettings,
        pub leaderboard: LeaderboardSettings,
    }
);
section!(
    /// `[agents.trading_decision.boost]`
    BoostSettings { pub unanimous: Score, pub strong_majority: Score, pub majority: Score, pub split: Score }
);
section!(
    /// One entry of `agents.trading_decision.voters`.
    VoterSettings {
        pub name: String,
        #[serde(default, skip_serializing_if = "VoterKind::is_rules")]
        pub kind: VoterKind,
        /// Of a voter by rules.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub strategy: Option<Strategy>,
        /// Of a voter that is a model: its name in `[chains]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub chain: Option<String>,
        pub enabled: bool,
    }
);
/// Who gives a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoterKind {
    /// A fixed strategy.
    #[default]
    Rules,
    /// A chain of models.
    Model,
}

impl VoterKind {
    fn is_rules(&self) -> bool {
        *self == VoterKind::Rules
    }
}
/// Strategies of rules voters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // domain §6.1 defines them by these names
pub enum Strategy {
    EmaCross,
    MacdMomentum,
    Supertrend,
    DonchianBreakout,
    BollingerReversion,
    RsiTrend,
}
section!(
    /// `[agents.trading_decision.rules]`
    RulesSettings { pub size_pct: f64, pub adx_trend: f64, pub adx_range: f64 }
);
section!(
    /// `[agents.trading_decision.leaderboard]`
    LeaderboardSettings { pub mark_after_hours: u32, pub hold_band_pct: Decimal }
);
section!(
    /// `[regimes.NAME]`
    RegimeSettings {
        pub size: Decimal,
        pub stop: Decimal,
        pub target: Decimal,
        pub strictness: Strictness,
        pub max_leverage: u32,
        pub min_confidence: Score,
    }
);
/// How hard entries are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Strictness {
    Relaxed,
    Normal,
    Strict,
    VeryStrict,
}
section!(
    /// `[strictness]`: added to the minimum confidence.
    StrictnessSettings { pub relaxed: Score, pub normal: Score, pub strict: Score, pub very_strict: Score }
);
section!(
    /// `[consensus]`
    ConsensusSettings {
        pub curve: Curve,
        pub high_agreement_threshold: f64,
        pub low_agreement_threshold: f64,
        pub max_confidence_boost: f64,
        pub max_confidence_penalty: f64,
        pub turnout_scaling: bool,
        pub neutral: NeutralVote,
        pub max_age_seconds: BTreeMap<TaskName, u32>,
    }
);
/// Shape of the multiplier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Curve {
    Stepped,
    Continuous,
}
/// How a neutral opinion counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeutralVote {
    /// A voter that does not agree.
    Dissent,
    /// Absent.
    Abstain,
}
section!(
    /// `[conflicts]`
    ConflictSettings {
        /// Who is asked, a name in `[chains]`; empty = nobody, the fallback actions settle conflicts.
        pub chain: String,
        pub max_confidence_gap: Score,
        pub detect: BTreeMap<ConflictKind, bool>,
        pub risk_override_reduction_pct: Decimal,
        pub rebalance_window_seconds: u32,
        pub fallback: BTreeMap<ConflictKind, ResolutionAction>,
        pub max_resolution_ms: u32,
        pub min_resolution_confidence: Score,
        pub max_entry_adjustment_pct: Decimal,
    }
);
section!(
    /// `[decision]`
    DecisionSettings { pub max_age_seconds: u32 }
);
section!(
    /// `[risk]`
    RiskSettings {
        pub max_leverage: u32,
        pub max_position_pct: Decimal,
        pub max_risk_per_trade_pct: Decimal,
        pub max_total_exposure_pct: Decimal,
        pub max_correlated_exposure_pct: Decimal,
        pub correlated_warn_ratio: Decimal,
        pub correlation_min: Decimal,
        pub correlations: Vec<CorrelationSettings>,
        pub max_open_positions: u32,
        pub max_per_symbol: u32,
        pub max_margin_utilisation_pct: Decimal,
        pub account_max_age_seconds: u32,
        pub stop: StopSettings,
        pub confidence_floor: ConfidenceFloorSettings,
        pub loss_size_factor: Decimal,
        pub volatility: VolatilitySettings,
        /// Drawdown percent → leverage cap.
        pub leverage_by_drawdown: BTreeMap<String, u32>,
        /// Losses in a row → leverage cap.
        pub leverage_by_losses: BTreeMap<String, u32>,
        pub breakers: BreakerSettings,
        pub cooldown_minutes: BTreeMap<CooldownCause, u32>,
        pub unusual_move: UnusualMoveSettings,
        /// `HH:MM-HH:MM` UTC.
        pub restricted_hours: Vec<String>,
        pub soft_alerts: SoftAlertSettings,
    }
);
section!(
    /// One entry of `risk.correlations`.
    CorrelationSettings { pub a: Symbol, pub b: Symbol, pub rho: Decimal }
);
section!(
    /// `[risk.stop]`
    StopSettings {
        pub min_distance_pct: Decimal,
        pub max_distance_pct: Decimal,
        pub symbol_max_pct: BTreeMap<Symbol, Decimal>,
        pub min_reward_risk: Decimal,
    }
);
section!(
    /// `[risk.confidence_floor]`
    ConfidenceFloorSettings { pub base: Score, pub after_3_losses: Score, pub after_5_losses: Score }
);
section!(
    /// `[risk.volatility]`; the mean is taken over 20 candles.
    VolatilitySettings { pub spike_multiple: f64, pub size_factor: Decimal }
);
section!(
    /// `[risk.breakers]`
    BreakerSettings {
        pub daily_loss_pct: Decimal,
        pub weekly_loss_pct: Decimal,
        pub max_drawdown_pct: Decimal,
        pub consecutive_losses: u32,
    }
);
section!(
    /// `[risk.unusual_move]`
    UnusualMoveSettings { pub pct: Decimal, pub window_minutes: u32 }
);
section!(
    /// `[risk.soft_alerts]`
    SoftAlertSettings {
        pub daily_loss_pct: Decimal,
        pub daily_profit_pct: Decimal,
        pub position_loss_pct: Decimal,
        pub stop_proximity_pct: Decimal,
        pub exposure_pct: Decimal,
    }
);
section!(
    /// `[emergency]`
    EmergencySettings {
        /// Action per breach.
        pub breach: BTreeMap<BreakerKind, BreachSettings>,
        pub order_errors_max_consecutive: u32,
        pub close_retry_seconds: CloseRetrySettings,
    }
);
section!(
    /// `[emergency.breach.NAME]`
    BreachSettings {
        pub action: EmergencyAction,
        /// `reduce_positions` only: how much of each position goes.
        pub reduction_pct: Decimal,
        /// `reduce_positions` only: pause afterwards.
        pub then_pause: bool,
        /// `halt_all` only.
        pub close_positions: bool,
    }
);
section!(
    /// `[emergency.close_retry_seconds]`
    CloseRetrySettings { pub base: u32, pub cap: u32 }
);
section!(
    /// `[execution]`
    ExecutionSettings {
        pub entry_order_type: EntryOrderType,
        pub time_in_force: TimeInForce,
        pub limit_order_expiry_hours: u32,
        pub spot: SpotSettings,
        pub max_attempts_definite: u32,
        pub max_price_drift_pct: Decimal,
        pub retry_waits_seconds: Vec<u32>,
        pub max_holding_hours: u32,
        pub trailing: TrailingSettings,
        pub break_even: BreakEvenSettings,
        pub paper: PaperSettings,
    }
);
/// How entries are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum EntryOrderType {
    Limit,
    Market,
}
section!(
    /// `[execution.spot]`
    SpotSettings { pub sell_closes: SellCloses }
);
/// How much a SELL closes in spot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SellCloses {
    /// The whole position.
    Full,
    /// As sized by the signal.
    Sized,
}
section!(
    /// `[execution.trailing]`
    TrailingSettings { pub enabled: bool, pub activation_pct: Decimal, pub distance_pct: Decimal }
);
section!(
    /// `[execution.break_even]`
    BreakEvenSettings { pub enabled: bool, pub activation_pct: Decimal, pub buffer_pct: Decimal }
);
section!(
    /// `[execution.paper]`
    PaperSettings {
        pub latency_ms: u32,
        pub slippage_pct: Decimal,
        pub maker_fee_pct: Decimal,
        pub taker_fee_pct: Decimal,
        pub partial_fills: PartialFillSettings,
        pub restart_fill_policy: RestartFillPolicy,
    }
);
section!(
    /// `[execution.paper.partial_fills]`
    PartialFillSettings { pub enabled: bool, pub chance: f64, pub min_fraction: f64, pub max_fraction: f64 }
);
/// What happened to orders and stops while the program was down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum RestartFillPolicy {
    Pessimistic,
    Replay,
    Cancel,
}
section!(
    /// `[account]`
    AccountSettings { pub initial_balances: BTreeMap<Asset, Decimal> }
);
section!(
    /// `[portfolio]`
    PortfolioSettings {
        pub targets: BTreeMap<Asset, Decimal>,
        pub threshold_pct: Decimal,
        pub warn_pct: Decimal,
        pub alert_pct: Decimal,
        pub min_trade_usd: Decimal,
        pub min_interval_hours: u32,
        pub dca: DcaSettings,
    }
);
section!(
    /// `[portfolio.dca]`
    DcaSettings { pub enabled: bool, pub threshold_usd: Decimal, pub batches: u32, pub interval_hours: u32 }
);
section!(
    /// `[degradation]`
    DegradationSettings {
        pub escalate_rates: [f64; 3],
        pub escalate_consecutive: [u32; 3],
        pub recover_rates: [f64; 3],
        pub escalate_window: u32,
        pub recover_window: u32,
        pub min_samples: u32,
        pub sample_max_age_minutes: u32,
        pub recover_recent: u32,
        pub recover_in_a_row: u32,
        pub dwell_seconds: u32,
        pub dwell_max_seconds: u32,
        pub relapse_seconds: u32,
        pub calm_seconds: u32,
        pub probe_seconds: u32,
        pub incident_merge_ms: u32,
        pub reduced_size_factor: Decimal,
        pub auto_clear_pause: bool,
        pub max_level: BTreeMap<crate::model::Capability, DegradationLevel>,
    }
);
section!(
    /// `[coordinator]`
    CoordinatorSettings { pub analysis_while_halted: bool, pub shutdown_seconds: u32 }
);
section!(
    /// `[quarantine]`
    QuarantineSettings {
        pub consecutive: u32,
        pub failures_of_20: u32,
        pub base_minutes: u32,
        pub max_minutes: u32,
        pub sticky_after: u32,
        pub poison_crashes: u32,
    }
);
section!(
    /// `[clock]`
    ClockSettings { pub jump_seconds: u32, pub large_jump_minutes: u32, pub backward_rate: f64 }
);
section!(
    /// `[bus]`
    BusSettings {
        pub history_per_topic: u32,
        pub subscriber_queue: u32,
        pub cleanup_seconds: u32,
        /// By topic name.
        pub ttl_seconds: BTreeMap<String, u32>,
    }
);
section!(
    /// `[store]`
    StoreSettings {
        pub segment_mib: u32,
        pub group: GroupSettings,
        pub aux_flush_ms: u32,
        pub cache_mib: u32,
        pub checkpoint: CheckpointSettings,
        pub free_space: FreeSpaceSettings,
    }
);
section!(
    /// `[store.group]`
    GroupSettings { pub max_events: u32 }
);
section!(
    /// `[store.checkpoint]`
    CheckpointSettings { pub events: u32, pub hours: u32, pub keep: u32 }
);
section!(
    /// `[store.free_space]`
    FreeSpaceSettings { pub alert_mib: u32, pub pause_mib: u32 }
);
section!(
    /// `[supervisor]`
    SupervisorSettings {
        pub max_restarts: u32,
        pub window_seconds: u32,
        pub backoff_ms: u32,
        pub backoff_max_ms: u32,
        pub crash_loop: CrashLoopSettings,
    }
);
section!(
    /// `[supervisor.crash_loop]`
    CrashLoopSettings { pub starts: u32, pub minutes: u32 }
);
section!(
    /// `[api]`
    ApiSettings { pub enabled: bool, pub bind: String, pub token_file: String, pub allowed_hosts: Vec<String> }
);
section!(
    /// `[notify]`; an empty file name calls nobody.
    NotifySettings {
        pub dead_man_url_file: String,
        pub dead_man_seconds: u32,
        pub webhook_url_file: String,
        pub min_level: String,
    }
);
section!(
    /// `[log]`; an empty `dir` logs to standard error only.
    LogSettings { pub level: String, pub format: LogFormat, pub dir: String, pub keep_days: u32 }
);
/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}
