//! The newest accepted output of every opinion agent, by symbol. What consensus and dependents read (D29).

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::model::{OutputHead, RegimeOutput, SentimentOutput, Symbol, TaOutput};

/// Accepted outputs. Shared values, replaced whole, never changed.
#[derive(Clone, Debug, Default)]
pub struct Opinions {
    /// From `technical_analysis`.
    pub ta: BTreeMap<Symbol, Arc<TaOutput>>,
    /// From `regime_detection`; also the memory of its hysteresis.
    pub regime: BTreeMap<Symbol, Arc<RegimeOutput>>,
    /// From `sentiment_analysis`.
    pub sentiment: BTreeMap<Symbol, Arc<SentimentOutput>>,
}

/// One accepted output as the store keeps it beside the truth (losing a second of them is harmless).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredOpinion {
    /// From `technical_analysis`.
    Ta(Arc<TaOutput>),
    /// From `regime_detection`.
    Regime(Arc<RegimeOutput>),
    /// From `sentiment_analysis`.
    Sentiment(Arc<SentimentOutput>),
}

impl StoredOpinion {
    /// The common part of the output.
    pub fn head(&self) -> &OutputHead {
        match self {
            StoredOpinion::Ta(output) => &output.head,
            StoredOpinion::Regime(output) => &output.head,
            StoredOpinion::Sentiment(output) => &output.head,
        }
    }
}

impl Opinions {
    /// Takes an output in.
    pub fn accept(&mut self, opinion: StoredOpinion) {
        match opinion {
            StoredOpinion::Ta(output) => drop(self.ta.insert(output.head.symbol, output)),
            StoredOpinion::Regime(output) => drop(self.regime.insert(output.head.symbol, output)),
            StoredOpinion::Sentiment(output) => drop(self.sentiment.insert(output.head.symbol, output)),
        }
    }
}
