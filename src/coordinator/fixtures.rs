//! Opinions and signals for the tests of the coordinator.

use crate::{
    model::*,
    risk::fixtures::{dec, score, sym},
};

/// The instant the tests run at.
pub const NOW: Ts = Ts(1_767_787_200_000);

pub fn head(agent: TaskName, symbol: &str, confidence: &str, age_s: i64) -> OutputHead {
    OutputHead {
        agent,
        symbol: sym(symbol),
        run_id: RunId { epoch: 1, seq: 1 },
        slot: SlotId::Grid(1),
        as_of: NOW.plus_ms(-age_s * 1000),
        produced_at: NOW.plus_ms(-age_s * 1000),
        confidence: score(confidence),
        reasoning: String::new(),
        latency_ms: 1,
        path: "rules".into(),
        degraded: false,
        warnings: vec![],
        models: Vec::new(),
    }
}

pub fn ta(symbol: &str, bias: Bias, confidence: &str, age_s: i64) -> TaOutput {
    TaOutput {
        head: head(TaskName::TechnicalAnalysis, symbol, confidence, age_s),
        bias,
        trend_strength: Score::ZERO,
        momentum_score: Score::ZERO,
        rsi_signal: RsiSignal::Neutral,
        macd_signal: MacdSignal::Neutral,
        support_levels: vec![],
        resistance_levels: vec![],
        current_position: LevelPosition::MidRange,
        timeframe_alignment: vec![],
        primary_signal: "none".into(),
    }
}

pub fn regime(symbol: &str, regime: Regime, age_s: i64) -> RegimeOutput {
    RegimeOutput {
        head: head(TaskName::RegimeDetection, symbol, "0.70", age_s),
        regime,
        detected_regime: regime,
        volatility: Volatility::Normal,
        trend_strength: Score::ZERO,
        volume_profile: VolumeProfile::Stable,
        choppiness: None,
        adx: 20.0,
        regime_started: NOW,
        periods_in_regime: 1,
        pending_regime: None,
        pending_count: 0,
        stored_confidence: score("0.70"),
    }
}

pub fn sentiment(symbol: &str, bias: SentimentBias, confidence: &str, age_s: i64) -> SentimentOutput {
    SentimentOutput {
        head: head(TaskName::SentimentAnalysis, symbol, confidence, age_s),
        bias,
        social_score: None,
        news_score: None,
        overall_score: Score::ZERO,
        news: Vec::new(),
    }
}

/// BTC/USDT at 100, stop 98, target 106, 10 % of equity.
pub fn signal(action: Action, confidence: &str) -> Signal {
    let levels = Levels { entry: dec("100"), stop: dec("98"), target: dec("106") };
    Signal {
        head: head(TaskName::TradingDecision, "BTC/USDT", confidence, 1),
        action,
        levels: matches!(action, Action::Buy | Action::Sell).then_some(levels),
        position_size_pct: Score::from_f64(10.0),
        leverage: 1,
        voters_asked: 6,
        voters_valid: 6,
        vote_class: VoteClass::Majority,
        ballots: vec![],
        price: dec("100"),
        ta_run: None,
        regime_run: None,
        sentiment_run: None,
    }
}
