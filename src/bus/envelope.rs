//! The envelope around a payload: identity, time, cause, life. Built by one checked constructor, immutable ever after.
//!
//! F12: a bad message is refused when it is built, so it can reach neither history nor counters.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{
    payload::Payload,
    topic::{BusLimits, Priority, Topic},
};
use crate::model::{Symbol, Ts};

/// Names a link of a chain of causes: another message, or a decision, plan, command or run by its text id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChainId {
    /// A message of the bus.
    Message(Uuid),
    /// The text id the journal uses (`D1-42`, a command's key, …).
    Named(Arc<str>),
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainId::Message(id) => fmt::Display::fmt(id, f),
            ChainId::Named(id) => f.write_str(id),
        }
    }
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The source is empty or blank.
    #[error("message for `{topic}` has an empty source; name the component that publishes it")]
    EmptySource {
        /// Where it was going.
        topic: Topic,
    },
    /// The life is zero, negative or beyond 32 bits.
    #[error("message for `{topic}` has ttl_seconds {ttl}; it must lie in 1..=4294967295")]
    Ttl {
        /// Where it was going.
        topic: Topic,
        /// What was asked for.
        ttl: i64,
    },
    /// The payload is per symbol and the message has none.
    #[error("message for `{topic}` has no symbol, but its payload is about one")]
    SymbolMissing {
        /// Where it was going.
        topic: Topic,
    },
    /// The message and its payload name different symbols.
    #[error("message for `{topic}` says symbol {envelope}, its payload says {payload}")]
    SymbolMismatch {
        /// Where it was going.
        topic: Topic,
        /// What the message says.
        envelope: Symbol,
        /// What the payload says.
        payload: Symbol,
    },
}

/// A message being written. What is not set takes the default of payload and topic.
#[derive(Clone, Debug)]
pub struct Draft {
    source: Cow<'static, str>,
    payload: Payload,
    symbol: Option<Symbol>,
    priority: Option<Priority>,
    ttl_seconds: Option<i64>,
    correlation: Option<ChainId>,
    causation: Option<ChainId>,
}

impl Draft {
    /// A message of `source` about what `payload` says; its symbol is the payload's.
    pub fn new(source: impl Into<Cow<'static, str>>, payload: Payload) -> Draft {
        let symbol = payload.symbol();
        let source = source.into();
        Draft { source, payload, symbol, priority: None, ttl_seconds: None, correlation: None, causation: None }
    }

    /// Replaces the symbol; needed only where the payload names none.
    #[must_use]
    pub fn symbol(mut self, symbol: Option<Symbol>) -> Draft {
        self.symbol = symbol;
        self
    }

    /// Replaces the default priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Draft {
        self.priority = Some(priority);
        self
    }

    /// Replaces the topic's life, seconds; checked when the message is built.
    #[must_use]
    pub fn ttl_seconds(mut self, seconds: i64) -> Draft {
        self.ttl_seconds = Some(seconds);
        self
    }

    /// Sets the root of the chain and the direct cause; without it the message is its own root and cause.
    #[must_use]
    pub fn caused_by(mut self, root: ChainId, cause: ChainId) -> Draft {
        self.correlation = Some(root);
        self.causation = Some(cause);
        self
    }

    /// Makes the message an effect of `cause`: same root, caused by it.
    #[must_use]
    pub fn in_reply_to(self, cause: &Envelope) -> Draft {
        self.caused_by(cause.correlation.clone(), ChainId::Message(cause.id))
    }
}

/// A message. Nothing of it can be changed (D31); it travels as `Arc<Envelope>`.
#[derive(Clone, Debug)]
pub struct Envelope {
    id: Uuid,
    at: Ts,
    expires_after: Ts,
    topic: Topic,
    priority: Priority,
    symbol: Option<Symbol>,
    source: Cow<'static, str>,
    payload: Payload,
    ttl_seconds: u32,
    correlation: ChainId,
    causation: ChainId,
}

impl Envelope {
    /// UUID version 7 of the logical instant.
    pub const fn id(&self) -> Uuid {
        self.id
    }
    /// Logical time of the message.
    pub const fn timestamp(&self) -> Ts {
        self.at
    }
    /// What it is about.
    pub const fn topic(&self) -> Topic {
        self.topic
    }
    /// How urgent it is.
    pub const fn priority(&self) -> Priority {
        self.priority
    }
    /// Which symbol, when it is about one.
    pub const fn symbol(&self) -> Option<Symbol> {
        self.symbol
    }
    /// Who published it; never empty.
    pub fn source(&self) -> &str {
        &self.source
    }
    /// The source as it is kept, for indexes that must not copy a static name.
    pub(super) fn source_key(&self) -> &Cow<'static, str> {
        &self.source
    }
    /// What it says.
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }
    /// How long it lives, seconds; at least 1.
    pub const fn ttl_seconds(&self) -> u32 {
        self.ttl_seconds
    }
    /// Root of the chain.
    pub const fn correlation(&self) -> &ChainId {
        &self.correlation
    }
    /// Direct cause.
    pub const fn causation(&self) -> &ChainId {
        &self.causation
    }
    /// True while `now − timestamp ≤ ttl`: at exactly the ttl it is still visible.
    pub const fn is_visible(&self, now: Ts) -> bool {
        now.0 <= self.expires_after.0
    }
}

/// Builds envelopes: checks them, numbers them, knows the default lives. Shared by all publishers of one process.
///
/// Ids come from the logical instant, a counter and the seed, so equal runs give equal ids and no system randomness is
/// read. Within one factory they are unique and increase with the instant and the order of building.
#[derive(Debug)]
pub struct EnvelopeFactory {
    seed: u64,
    counter: AtomicU64,
    ttl_seconds: [u32; Topic::COUNT],
}

impl EnvelopeFactory {
    /// A factory for one boot: `seed` should mix the configured seed and the boot epoch, so that two boots differ.
    pub fn new(seed: u64, limits: &BusLimits) -> EnvelopeFactory {
        EnvelopeFactory { seed, counter: AtomicU64::new(0), ttl_seconds: limits.ttl_seconds }
    }

    /// Checks and builds the message of the logical instant `now`.
    ///
    /// # Errors
    /// [`EnvelopeError`]: empty source, life below one second, missing or contradicting symbol.
    pub fn build(&self, draft: Draft, now: Ts) -> Result<Arc<Envelope>, EnvelopeError> {
        let topic = draft.payload.topic();
        if draft.source.trim().is_empty() {
            return Err(EnvelopeError::EmptySource { topic });
        }
        let ttl_seconds = match draft.ttl_seconds {
            None => self.ttl_seconds[topic.index()],
            Some(ttl) => match u32::try_from(ttl) {
                Ok(seconds) if seconds > 0 => seconds,
                _ => return Err(EnvelopeError::Ttl { topic, ttl }),
            },
        };
        match (draft.symbol, draft.payload.symbol()) {
            (None, _) if draft.payload.is_per_symbol() => return Err(EnvelopeError::SymbolMissing { topic }),
            (Some(envelope), Some(payload)) if envelope != payload => {
                return Err(EnvelopeError::SymbolMismatch { topic, envelope, payload });
            }
            _ => {}
        }
        let id = self.next_id(now);
        Ok(Arc::new(Envelope {
            id,
            at: now,
            expires_after: now.plus_ms(i64::from(ttl_seconds) * 1_000),
            topic,
            priority: draft.priority.unwrap_or_else(|| draft.payload.default_priority()),
            symbol: draft.symbol,
            source: draft.source,
            payload: draft.payload,
            ttl_seconds,
            correlation: draft.correlation.unwrap_or(ChainId::Message(id)),
            causation: draft.causation.unwrap_or(ChainId::Message(id)),
        }))
    }

    /// RFC 9562 layout: 48 bits of milliseconds, version 7, then 42 bits of counter and 32 bits mixed from the seed.
    fn next_id(&self, now: Ts) -> Uuid {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let millis = u128::from(now.0.max(0).unsigned_abs() & 0xFFFF_FFFF_FFFF);
        let tail = u128::from(mix(self.seed ^ count) >> 32);
        let high = u128::from((count >> 30) & 0xFFF);
        let low = u128::from(count & 0x3FFF_FFFF);
        Uuid::from_u128((millis << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | (low << 32) | tail)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads every bit of the input over the output.
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::payload::{AlertKind, MarketData, RiskAlert, Severity};
    use crate::model::{Candle, Timeframe};

    fn symbol() -> Symbol {
        "BTC/USDT".parse().unwrap()
    }

    fn candle() -> Payload {
        let candle = Candle { open_time: Ts(0), open: 1.0, high: 1.0, low: 1.0, close: 1.0, volume: 0.0 };
        Payload::Market(MarketData::CandleClosed { symbol: symbol(), frame: Timeframe::M1, candle })
    }

    fn factory(seed: u64) -> EnvelopeFactory {
        EnvelopeFactory::new(seed, &BusLimits::default())
    }

    #[test]
    fn a165_bad_messages_cannot_be_built() {
        let factory = factory(1);
        let build = |draft: Draft| factory.build(draft, Ts(0)).unwrap_err();
        let topic = Topic::MarketData;
        assert_eq!(build(Draft::new("", candle())), EnvelopeError::EmptySource { topic });
        assert_eq!(build(Draft::new(" ", candle())), EnvelopeError::EmptySource { topic });
        assert_eq!(build(Draft::new("market", candle()).ttl_seconds(0)), EnvelopeError::Ttl { topic, ttl: 0 });
        assert_eq!(build(Draft::new("market", candle()).ttl_seconds(-5)), EnvelopeError::Ttl { topic, ttl: -5 });
        assert_eq!(build(Draft::new("market", candle()).symbol(None)), EnvelopeError::SymbolMissing { topic });
        let other = "XRP/USDT".parse().unwrap();
        let error = build(Draft::new("market", candle()).symbol(Some(other)));
        assert_eq!(error.to_string(), "message for `market_data` says symbol XRP/USDT, its payload says BTC/USDT");
    }

    #[test]
    fn ids_are_version_seven_increase_and_repeat_with_the_seed() {
        let run = |seed| {
            let factory = factory(seed);
            let id = |ms| factory.build(Draft::new("market", candle()), Ts(ms)).unwrap().id();
            [id(1_700_000_000_000), id(1_700_000_000_000), id(1_700_000_000_001)]
        };
        let ids = run(42);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        assert!(ids[0] < ids[1] && ids[1] < ids[2]);
        assert_eq!(ids, run(42));
        assert_ne!(ids, run(43));
        let (seconds, nanos) = ids[2].get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_700_000_000, 1_000_000));
    }

    #[test]
    fn at_exactly_the_ttl_a_message_is_visible_and_a_millisecond_later_it_is_not() {
        let message = factory(1).build(Draft::new("market", candle()).ttl_seconds(60), Ts(500)).unwrap();
        assert!(message.is_visible(Ts(60_500)));
        assert!(!message.is_visible(Ts(60_501)));
    }

    #[test]
    fn breakers_are_urgent_other_alerts_high_and_a_reply_keeps_the_root() {
        let alert = |kind| {
            Payload::RiskAlert(Arc::new(RiskAlert {
                kind,
                breach: "daily_loss".into(),
                severity: Severity::High,
                measured: "5.2 %".to_owned(),
                limit: "5.0 %".to_owned(),
                period: None,
                symbol: None,
                message: String::new(),
            }))
        };
        let factory = factory(1);
        let root = factory.build(Draft::new("risk", alert(AlertKind::CircuitBreaker)), Ts(1)).unwrap();
        let reply = factory.build(Draft::new("risk", alert(AlertKind::OrderError)).in_reply_to(&root), Ts(2)).unwrap();
        assert_eq!((root.priority(), reply.priority()), (Priority::Urgent, Priority::High));
        assert_eq!(root.correlation(), &ChainId::Message(root.id()));
        assert_eq!(reply.correlation(), root.correlation());
        assert_eq!(reply.causation(), &ChainId::Message(root.id()));
    }
}
