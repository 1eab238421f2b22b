//! The regime detector: what kind of market it is, with a per-symbol memory against flapping (domain §4.2).
//!
//! The memory is the previous accepted output, which carries it whole; a fresh agent therefore loses nothing (A084).
//! Never sets sizes, stops or leverage: those follow from the regime through the settings.

use std::borrow::Cow;

use rust_decimal::prelude::ToPrimitive;

use super::answers::regime::Detected;
use super::contract::{Answer, Refusal, RunContext, known, usable};
use crate::{
    model::{FailClass, Indicators, Regime, RegimeOutput, Score, Snapshot, TaskName, Ts, Volatility, VolumeProfile},
    settings::RegimeDetectionSettings,
};

/// Detects the regime of one snapshot and folds it into the memory of `previous`.
///
/// `previous` is the last accepted output of the same symbol, none before the first. Abstains `data_stale` on an
/// unusable snapshot and `insufficient_data` while ADX14, ATR14 or RSI14 is absent; fails when `previous` is of
/// another symbol (A01).
pub fn detect(
    ctx: &RunContext,
    snapshot: &Snapshot,
    previous: Option<&RegimeOutput>,
    settings: &RegimeDetectionSettings,
) -> Answer<RegimeOutput> {
    output(ctx, snapshot, previous, settings, None).into()
}

/// As [`detect`], with what a model said in place of the rules' detection; `by` is its name. It goes through the same
/// memory, and needs the same indicators.
pub fn detect_as(
    ctx: &RunContext,
    snapshot: &Snapshot,
    previous: Option<&RegimeOutput>,
    settings: &RegimeDetectionSettings,
    said: Detected,
    by: String,
) -> Answer<RegimeOutput> {
    let Detected { regime, confidence, reasoning } = said;
    let said = Detection { regime, confidence, why: reasoning.into() };
    let found = output(ctx, snapshot, previous, settings, Some(said));
    found
        .map(|mut output| {
            output.head.path = by.into();
            output
        })
        .into()
}

fn output(
    ctx: &RunContext,
    snapshot: &Snapshot,
    previous: Option<&RegimeOutput>,
    settings: &RegimeDetectionSettings,
    said: Option<Detection>,
) -> Result<RegimeOutput, Refusal> {
    if let Some(other) = previous.map(|p| p.head.symbol).filter(|symbol| *symbol != ctx.symbol) {
        let message = format!("the regime memory of {other} was handed to {}", ctx.symbol);
        return Err(Refusal::failed(FailClass::Validation, message));
    }
    let (view, price) = usable(ctx, snapshot)?;
    let indicators = &view.indicators;
    let atr_pct = known(indicators.atr14)? / price.to_f64().unwrap_or(view.last.close) * 100.0;
    let adx = known(indicators.adx14)?;
    let rules = classify(indicators, atr_pct, settings)?;
    let detection = said.unwrap_or(rules);

    let memory = Memory::of(previous);
    let (memory, confidence) = if ctx.degraded {
        (memory, settings.fallback_confidence)
    } else {
        let memory = Memory::fold(memory, &detection, ctx.as_of, settings);
        let supports = detection.regime == memory.regime;
        let confidence = if supports { detection.confidence } else { memory.stored_confidence };
        (Some(memory), confidence)
    };
    let memory = memory.unwrap_or(Memory::none(ctx.as_of));

    let volume = indicators.volume_ratio.filter(|ratio| ratio.is_finite());
    let mut head = ctx.head(TaskName::RegimeDetection, confidence, detection.why);
    if volume.is_none() {
        head.warnings.push("the volume ratio is unknown, so the volume profile is given as stable".to_owned());
    }
    Ok(RegimeOutput {
        head,
        regime: memory.regime,
        detected_regime: detection.regime,
        volatility: volatility(atr_pct),
        trend_strength: Score::from_f64((adx / 50.0).min(1.0)),
        volume_profile: volume.map_or(VolumeProfile::Stable, volume_profile),
        choppiness: indicators.choppiness14,
        adx,
        regime_started: memory.started,
        periods_in_regime: memory.periods,
        pending_regime: memory.pending.map(|(regime, _)| regime),
        pending_count: memory.pending.map_or(0, |(_, count)| count),
        stored_confidence: memory.stored_confidence,
    })
}

/// What one run sees, before any memory.
struct Detection {
    regime: Regime,
    confidence: Score,
    why: Cow<'static, str>,
}

/// The table of domain §4.2; the first rule that matches wins.
fn classify(indicators: &Indicators, atr_pct: f64, settings: &RegimeDetectionSettings) -> Result<Detection, Refusal> {
    let (atr, adx, rsi) = (known(indicators.atr14)?, known(indicators.adx14)?, known(indicators.rsi14)?);
    let bullish = rsi > 50.0;
    let atr_ratio =
        indicators.atr14_mean50_before.filter(|mean| *mean > 0.0).map(|mean| atr / mean).filter(|r| r.is_finite());
    let ratio_fired = atr_ratio.filter(|ratio| *ratio > settings.atr_ratio);
    let detection = |regime, confidence, why: &'static str| {
        Ok(Detection { regime, confidence: Score::from_f64(confidence), why: why.into() })
    };

    if ratio_fired.is_some() || atr_pct >= settings.atr_extreme_pct {
        let confidence = ratio_fired.map_or(0.75, |ratio| 0.70 + 0.25 * (ratio - settings.atr_ratio).min(1.0));
        let regime = if bullish { Regime::VolatileBull } else { Regime::VolatileBear };
        return detection(regime, confidence, "average true range far above its usual size or its share of the price");
    }
    if adx > settings.adx_trend {
        let confidence = 0.60 + 0.35 * ((adx - settings.adx_trend) / 15.0).min(1.0);
        let regime = if bullish { Regime::TrendingBull } else { Regime::TrendingBear };
        return detection(regime, confidence, "adx14 above the trend limit");
    }
    if indicators.squeeze_candles >= settings.squeeze_candles && indicators.squeeze == Some(true) {
        return detection(Regime::BreakoutPotential, 0.70, "bollinger bands inside the channel for long enough");
    }
    if let Some(choppiness) = indicators.choppiness14.filter(|c| *c > settings.choppiness_choppy) {
        let confidence = 0.60 + 0.35 * ((choppiness - settings.choppiness_choppy) / 15.0).min(1.0);
        return detection(Regime::Choppy, confidence, "choppiness14 above its limit");
    }
    detection(Regime::Ranging, 0.70, "no trend, no squeeze, no chop")
}

/// The hysteresis of one symbol.
#[derive(Clone, Copy)]
struct Memory {
    regime: Regime,
    started: Ts,
    periods: u32,
    pending: Option<(Regime, u32)>,
    stored_confidence: Score,
}

impl Memory {
    /// What stands in while nothing was ever detected: `unknown`, which never votes.
    const fn none(at: Ts) -> Memory {
        Memory { regime: Regime::Unknown, started: at, periods: 0, pending: None, stored_confidence: Score::ZERO }
    }

    const fn first(detection: &Detection, at: Ts) -> Memory {
        Memory {
            regime: detection.regime,
            started: at,
            periods: 1,
            pending: None,
            stored_confidence: detection.confidence,
        }
    }

    /// The memory inside the last accepted output; `unknown` there means that nothing was remembered yet.
    fn of(previous: Option<&RegimeOutput>) -> Option<Memory> {
        let previous = previous.filter(|p| p.regime != Regime::Unknown)?;
        Some(Memory {
            regime: previous.regime,
            started: previous.regime_started,
            periods: previous.periods_in_regime,
            pending: previous.pending_regime.map(|regime| (regime, previous.pending_count)),
            stored_confidence: previous.stored_confidence,
        })
    }

    /// Strict count (A03): anything but the pending regime at sufficient confidence starts over.
    fn fold(memory: Option<Memory>, detection: &Detection, at: Ts, settings: &RegimeDetectionSettings) -> Memory {
        let Some(mut memory) = memory else { return Memory::first(detection, at) };
        if detection.regime == memory.regime {
            memory.periods = memory.periods.saturating_add(1);
            memory.pending = None;
            memory.stored_confidence = detection.confidence;
            return memory;
        }
        if detection.confidence < settings.change_confidence {
            memory.pending = None;
            return memory;
        }
        let count = match memory.pending {
            Some((regime, count)) if regime == detection.regime => count.saturating_add(1),
            _ => 1,
        };
        if count >= settings.change_count {
            return Memory::first(detection, at);
        }
        memory.pending = Some((detection.regime, count));
        memory
    }
}

fn volatility(atr_pct: f64) -> Volatility {
    match atr_pct {
        pct if pct < 1.0 => Volatility::Low,
        pct if pct < 3.0 => Volatility::Normal,
        pct if pct < 5.0 => Volatility::High,
        _ => Volatility::Extreme,
    }
}

fn volume_profile(ratio: f64) -> VolumeProfile {
    match ratio {
        ratio if ratio > 3.0 => VolumeProfile::Spike,
        ratio if ratio > 1.2 => VolumeProfile::Increasing,
        ratio if ratio < 0.8 => VolumeProfile::Decreasing,
        _ => VolumeProfile::Stable,
    }
}

#[cfg(test)]
#[path = "regime_detection_tests.rs"]
mod tests;
