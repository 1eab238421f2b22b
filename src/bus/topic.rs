//! The ten topics, the four priorities and the limits of the bus. Pure values; nothing here holds a message.

use std::fmt;

use crate::settings::sections::BusSettings;

/// How urgent a message is. The order is the order of delivery: a larger one overtakes a smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Priority {
    /// 1: market data.
    Low = 1,
    /// 2: the default.
    Normal = 2,
    /// 3: signals, orders, commands.
    High = 3,
    /// 4: breakers and what must not wait.
    Urgent = 4,
}

impl Priority {
    /// Lowest first.
    pub const ALL: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

    /// Position in [`Priority::ALL`].
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

/// What a message is about. The variant of a [`super::Payload`] fixes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Topic {
    /// Candles, prices, feed health; by the market.
    MarketData,
    /// Accepted outputs of `technical_analysis`; by the coordinator.
    TaSignals,
    /// Accepted outputs of `regime_detection`; by the coordinator.
    RegimeUpdates,
    /// Accepted outputs of `sentiment_analysis`; by the coordinator.
    SentimentUpdates,
    /// Accepted signals; by the coordinator.
    TradingSignals,
    /// Breakers, refusals, order errors; by risk and execution.
    RiskAlerts,
    /// Orders and fills; by execution.
    ExecutionEvents,
    /// Balances, positions, plans, legs; by execution and the portfolio run.
    PortfolioUpdates,
    /// State, degradation, tasks, recovery, security; by any actor.
    SystemEvents,
    /// Operator commands; by the operator interface only.
    CoordinatorCommands,
}

impl Topic {
    /// Number of topics.
    pub const COUNT: usize = 10;

    /// All topics, in the order of the specification's table.
    pub const ALL: [Topic; Topic::COUNT] = [
        Topic::MarketData,
        Topic::TaSignals,
        Topic::RegimeUpdates,
        Topic::SentimentUpdates,
        Topic::TradingSignals,
        Topic::RiskAlerts,
        Topic::ExecutionEvents,
        Topic::PortfolioUpdates,
        Topic::SystemEvents,
        Topic::CoordinatorCommands,
    ];

    /// Position in [`Topic::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name as written in settings and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::MarketData => "market_data",
            Topic::TaSignals => "ta_signals",
            Topic::RegimeUpdates => "regime_updates",
            Topic::SentimentUpdates => "sentiment_updates",
            Topic::TradingSignals => "trading_signals",
            Topic::RiskAlerts => "risk_alerts",
            Topic::ExecutionEvents => "execution_events",
            Topic::PortfolioUpdates => "portfolio_updates",
            Topic::SystemEvents => "system_events",
            Topic::CoordinatorCommands => "coordinator_commands",
        }
    }

    /// The topic of that exact name.
    pub fn parse(name: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// Priority of a message that asks for none (domain §2.2).
    pub const fn default_priority(self) -> Priority {
        match self {
            Topic::MarketData => Priority::Low,
            Topic::TaSignals | Topic::RegimeUpdates | Topic::SentimentUpdates | Topic::PortfolioUpdates => {
                Priority::Normal
            }
            Topic::TradingSignals
            | Topic::RiskAlerts
            | Topic::ExecutionEvents
            | Topic::SystemEvents
            | Topic::CoordinatorCommands => Priority::High,
        }
    }

    /// Seconds a message lives when settings say nothing else (domain §2.2).
    pub const fn default_ttl_seconds(self) -> u32 {
        match self {
            Topic::MarketData | Topic::CoordinatorCommands => 60,
            Topic::TaSignals | Topic::TradingSignals => 300,
            Topic::RegimeUpdates => 1_200,
            Topic::SentimentUpdates => 7_200,
            Topic::RiskAlerts | Topic::ExecutionEvents | Topic::PortfolioUpdates | Topic::SystemEvents => 3_600,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Bounds of the bus, resolved from `[bus]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusLimits {
    /// Messages kept per topic; at least 1.
    pub history_per_topic: usize,
    /// Messages one subscription may have waiting; at least 1.
    pub subscriber_queue: usize,
    /// Milliseconds between two purges; at least 1000.
    pub cleanup_ms: i64,
    /// Default life per topic, seconds, by [`Topic::index`]; at least 1.
    pub ttl_seconds: [u32; Topic::COUNT],
}

/// A `[bus]` section that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusLimitsError {
    /// A key of `bus.ttl_seconds` names no topic.
    #[error("bus.ttl_seconds.{0}: there is no such topic; use one of the ten names of domain.md §2.2")]
    UnknownTopic(String),
    /// A value is zero where at least one is needed.
    #[error("bus.{0} is 0; the least is 1")]
    Zero(String),
}

impl Default for BusLimits {
    fn default() -> BusLimits {
        BusLimits {
            history_per_topic: 1_000,
            subscriber_queue: 256,
            cleanup_ms: 60_000,
            ttl_seconds: Topic::ALL.map(Topic::default_ttl_seconds),
        }
    }
}

impl BusLimits {
    /// The limits the settings ask for; topics they do not name keep their default life.
    ///
    /// # Errors
    /// [`BusLimitsError`] names the key: an unknown topic, or a zero.
    pub fn from_settings(settings: &BusSettings) -> Result<BusLimits, BusLimitsError> {
        let positive =
            |key: &str, value: u32| if value == 0 { Err(BusLimitsError::Zero(key.to_owned())) } else { Ok(value) };
        let mut limits = BusLimits {
            history_per_topic: positive("history_per_topic", settings.history_per_topic)? as usize,
            subscriber_queue: positive("subscriber_queue", settings.subscriber_queue)? as usize,
            cleanup_ms: i64::from(positive("cleanup_seconds", settings.cleanup_seconds)?) * 1_000,
            ..BusLimits::default()
        };
        for (name, seconds) in &settings.ttl_seconds {
            let topic = Topic::parse(name).ok_or_else(|| BusLimitsError::UnknownTopic(name.clone()))?;
            limits.ttl_seconds[topic.index()] = positive(&format!("ttl_seconds.{name}"), *seconds)?;
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(ttl: &[(&str, u32)]) -> BusSettings {
        BusSettings {
            history_per_topic: 10,
            subscriber_queue: 4,
            cleanup_seconds: 60,
            ttl_seconds: ttl.iter().map(|(name, s)| ((*name).to_owned(), *s)).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn every_topic_is_found_at_its_index_and_by_its_name() {
        for (index, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(topic.index(), index);
            assert_eq!(Topic::parse(topic.name()), Some(topic));
        }
        assert_eq!(Topic::parse("commands"), None);
    }

    #[test]
    fn settings_override_single_lives_and_name_the_key_they_got_wrong() {
        let limits = BusLimits::from_settings(&settings(&[("ta_signals", 7)])).unwrap();
        assert_eq!(limits.ttl_seconds[Topic::TaSignals.index()], 7);
        assert_eq!(limits.ttl_seconds[Topic::SentimentUpdates.index()], 7_200);
        assert_eq!((limits.history_per_topic, limits.subscriber_queue, limits.cleanup_ms), (10, 4, 60_000));
        assert_eq!(
            BusLimits::from_settings(&settings(&[("ta", 7)])),
            Err(BusLimitsError::UnknownTopic("ta".to_owned()))
        );
        let zero = BusLimits::from_settings(&settings(&[("ta_signals", 0)])).unwrap_err();
        assert_eq!(zero.to_string(), "bus.ttl_seconds.ta_signals is 0; the least is 1");
    }
}
