//! What a message can say. The variant fixes the topic, so a payload under a wrong topic cannot exist.
//!
//! Committed records are told apart by their event; the wrappers around them are built by [`Payload::of_record`] only.

use std::{borrow::Cow, sync::Arc};

use super::topic::{Priority, Topic};
use crate::model::{
    Candle, Command, Event, PriceTick, Record, RegimeOutput, SentimentOutput, Signal, Symbol, TaOutput, Timeframe,
};

/// The typed value of a topic. Immutable and shared: what is large sits behind an [`Arc`].
#[derive(Clone, Debug)]
pub enum Payload {
    /// `market_data`
    Market(MarketData),
    /// `ta_signals`
    Ta(Arc<TaOutput>),
    /// `regime_updates`
    Regime(Arc<RegimeOutput>),
    /// `sentiment_updates`
    Sentiment(Arc<SentimentOutput>),
    /// `trading_signals`
    Signal(Arc<Signal>),
    /// `risk_alerts`
    RiskAlert(Arc<RiskAlert>),
    /// `execution_events`
    Execution(ExecutionEvent),
    /// `portfolio_updates`
    Portfolio(PortfolioEvent),
    /// `system_events`
    System(SystemEvent),
    /// `coordinator_commands`
    Command(Arc<CommandRequest>),
}

/// What the market tells.
#[derive(Clone, Debug, PartialEq)]
pub enum MarketData {
    /// A candle of `frame` closed.
    CandleClosed {
        /// Which symbol.
        symbol: Symbol,
        /// Which frame.
        frame: Timeframe,
        /// Its values.
        candle: Candle,
    },
    /// A price was accepted.
    Price(PriceTick),
    /// A feed changed its health.
    FeedHealth {
        /// Which symbol, or all of the feed.
        symbol: Option<Symbol>,
        /// Name of the feed.
        feed: Cow<'static, str>,
        /// Delivering as it should.
        healthy: bool,
        /// Why, for people.
        detail: Cow<'static, str>,
    },
}

/// What kind of alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlertKind {
    /// A loss limit latched: URGENT.
    CircuitBreaker,
    /// Risk refused a trade.
    TradeRejected,
    /// The venue failed.
    OrderError,
    /// The venue and the store disagree.
    ReconcileMismatch,
    /// A margin position is close to its end.
    LiquidationNear,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // the names are the scale
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

/// An alert of risk or execution.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskAlert {
    /// Which alert.
    pub kind: AlertKind,
    /// Which limit or check was touched (`daily_loss`, a risk code, …).
    pub breach: Cow<'static, str>,
    /// How bad.
    pub severity: Severity,
    /// What was measured, with its unit.
    pub measured: String,
    /// What is allowed, with its unit.
    pub limit: String,
    /// Day, week or trip number, when the limit has one.
    pub period: Option<String>,
    /// Which symbol, when it is about one.
    pub symbol: Option<Symbol>,
    /// For people.
    pub message: String,
}

/// A command on its way to the coordinator; answered on `key` (F13).
#[derive(Clone, Debug, PartialEq)]
pub struct CommandRequest {
    /// Idempotency key, also the correlation id.
    pub key: Arc<str>,
    /// Operator identity.
    pub operator: Arc<str>,
    /// What is asked for.
    pub command: Command,
}

macro_rules! committed {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name(Arc<Record>);
        impl $name {
            /// The committed record.
            pub fn record(&self) -> &Arc<Record> {
                &self.0
            }
        }
    };
}
committed!(
    /// A committed order or fill event.
    ExecutionEvent
);
committed!(
    /// A committed change of balances, positions, plans or legs.
    PortfolioEvent
);
committed!(
    /// A committed event of state, degradation, task, risk bookkeeping, recovery or operator.
    SystemEvent
);

impl Payload {
    /// The payload of a committed record, by the kind of its event.
    pub fn of_record(record: Arc<Record>) -> Payload {
        match &record.event {
            Event::TradeIntent { .. }
            | Event::TradeSubmitting { .. }
            | Event::TradeAcked { .. }
            | Event::TradeFill { .. }
            | Event::TradeSettled { .. }
            | Event::TradeRejected { .. }
            | Event::TradeRefused { .. }
            | Event::TradeExpired { .. }
            | Event::TradeNotExecuted { .. }
            | Event::TradeUnknown { .. }
            | Event::TradeCancelRequested { .. }
            | Event::TradeManual { .. }
            | Event::TradeResolved { .. }
            | Event::TradeCancelled { .. } => Payload::Execution(ExecutionEvent(record)),
            Event::PlanCreated { .. }
            | Event::LegsRespread { .. }
            | Event::PlanCompleted { .. }
            | Event::PlanSuperseded { .. }
            | Event::PlanExpired { .. }
            | Event::LegsCancelled { .. }
            | Event::Deposit { .. }
            | Event::PositionOpened { .. }
            | Event::PositionChanged { .. }
            | Event::PositionClosed { .. }
            | Event::StopMoved { .. } => Payload::Portfolio(PortfolioEvent(record)),
            _ => Payload::System(SystemEvent(record)),
        }
    }

    /// The topic this payload belongs to.
    pub const fn topic(&self) -> Topic {
        match self {
            Payload::Market(_) => Topic::MarketData,
            Payload::Ta(_) => Topic::TaSignals,
            Payload::Regime(_) => Topic::RegimeUpdates,
            Payload::Sentiment(_) => Topic::SentimentUpdates,
            Payload::Signal(_) => Topic::TradingSignals,
            Payload::RiskAlert(_) => Topic::RiskAlerts,
            Payload::Execution(_) => Topic::ExecutionEvents,
            Payload::Portfolio(_) => Topic::PortfolioUpdates,
            Payload::System(_) => Topic::SystemEvents,
            Payload::Command(_) => Topic::CoordinatorCommands,
        }
    }

    /// The symbol the payload itself names.
    pub fn symbol(&self) -> Option<Symbol> {
        match self {
            Payload::Market(MarketData::CandleClosed { symbol, .. }) => Some(*symbol),
            Payload::Market(MarketData::Price(tick)) => Some(tick.symbol),
            Payload::Market(MarketData::FeedHealth { symbol, .. }) => *symbol,
            Payload::Ta(output) => Some(output.head.symbol),
            Payload::Regime(output) => Some(output.head.symbol),
            Payload::Sentiment(output) => Some(output.head.symbol),
            Payload::Signal(signal) => Some(signal.head.symbol),
            Payload::RiskAlert(alert) => alert.symbol,
            Payload::Execution(event) => symbol_of(&event.0.event),
            Payload::Portfolio(event) => symbol_of(&event.0.event),
            Payload::System(event) => symbol_of(&event.0.event),
            Payload::Command(_) => None,
        }
    }

    /// True where a message without a symbol makes no sense.
    pub const fn is_per_symbol(&self) -> bool {
        matches!(
            self,
            Payload::Market(MarketData::CandleClosed { .. } | MarketData::Price(_))
                | Payload::Ta(_)
                | Payload::Regime(_)
                | Payload::Sentiment(_)
                | Payload::Signal(_)
        )
    }

    /// The priority of a message that asks for none: the topic's, URGENT for breakers and emergencies.
    pub fn default_priority(&self) -> Priority {
        match self {
            Payload::RiskAlert(alert) if alert.kind == AlertKind::CircuitBreaker => Priority::Urgent,
            Payload::System(event) if is_urgent(&event.0.event) => Priority::Urgent,
            _ => self.topic().default_priority(),
        }
    }
}

/// Events after which trading may be different from one moment to the next.
const fn is_urgent(event: &Event) -> bool {
    matches!(
        event,
        Event::StateChanged { .. }
            | Event::DegradationChanged { .. }
            | Event::BreakerTripped { .. }
            | Event::EmergencyStarted { .. }
            | Event::EmergencyStep { .. }
            | Event::EmergencyDone { .. }
    )
}

/// The symbol an event names directly.
fn symbol_of(event: &Event) -> Option<Symbol> {
    match event {
        Event::TradeIntent { trade } => Some(trade.body.symbol),
        Event::TradeFill { symbol, .. } => Some(*symbol),
        Event::PositionOpened { position } | Event::PositionChanged { position } => Some(position.symbol),
        Event::PositionClosed { closed } => Some(closed.symbol),
        Event::RunFinished { key, .. } | Event::Quarantined { key, .. } | Event::QuarantineEnded { key } => {
            Some(key.symbol)
        }
        Event::RunClaimed { marker } => Some(marker.key.symbol),
        Event::SignalReceived { signal, .. } => Some(signal.head.symbol),
        Event::RiskApproved { reservation, .. } => Some(reservation.symbol),
        _ => None,
    }
}
