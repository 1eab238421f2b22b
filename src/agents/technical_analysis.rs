//! The technical analyst: indicators to a bias (domain §4.1). Never proposes an entry, a stop or a target.

use std::borrow::Cow;

use rust_decimal::prelude::ToPrimitive;

use super::contract::{Answer, Refusal, RunContext, known, usable};
use crate::{
    model::{
        Bias, Indicators, LevelPosition, MacdSignal, Price, RsiSignal, Score, Snapshot, SymbolRules, TaOutput,
        TaskName, Timeframe,
    },
    settings::TaSettings,
};

/// RSI14 below this is oversold.
const RSI_OVERSOLD: f64 = 30.0;
/// RSI14 above this is overbought.
const RSI_OVERBOUGHT: f64 = 70.0;
/// A price within this many ATR14 of a level is near it.
const NEAR_ATR: f64 = 0.5;

/// Forms the opinion on one snapshot.
///
/// Abstains `data_stale` on an unusable snapshot and `insufficient_data` while RSI14, the MACD histogram, ADX14 or
/// ATR14 of the primary frame is absent. Levels that have not warmed up are simply not listed.
pub fn analyse(ctx: &RunContext, snapshot: &Snapshot, rules: &SymbolRules, settings: &TaSettings) -> Answer<TaOutput> {
    opinion(ctx, snapshot, rules, settings).into()
}

fn opinion(
    ctx: &RunContext,
    snapshot: &Snapshot,
    rules: &SymbolRules,
    settings: &TaSettings,
) -> Result<TaOutput, Refusal> {
    let (view, price) = usable(ctx, snapshot)?;
    let indicators = &view.indicators;
    let rsi = known(indicators.rsi14)?;
    let histogram = known(indicators.macd_histogram)?;
    let adx = known(indicators.adx14)?;
    let atr = known(indicators.atr14)?;

    let bias = if rsi > settings.rsi_long && histogram > 0.0 {
        Bias::Long
    } else if rsi < settings.rsi_short && histogram < 0.0 {
        Bias::Short
    } else {
        Bias::Neutral
    };
    let trend_strength = (adx / 50.0).min(1.0);
    let (timeframe_alignment, frames) = alignment(snapshot, bias);
    let confidence = match bias {
        _ if ctx.degraded => settings.fallback_confidence,
        Bias::Neutral => Score(5_000),
        Bias::Long | Bias::Short => {
            let aligned = timeframe_alignment.len() as f64 / f64::from(frames.max(1));
            let momentum = ((rsi - 50.0).abs() / 30.0).min(1.0);
            Score::from_f64((0.45 + 0.25 * momentum + 0.20 * trend_strength + 0.10 * aligned).clamp(0.0, 0.95))
        }
    };
    let rsi_signal = if rsi < RSI_OVERSOLD {
        RsiSignal::Oversold
    } else if rsi > RSI_OVERBOUGHT {
        RsiSignal::Overbought
    } else {
        RsiSignal::Neutral
    };
    let macd_signal = macd(histogram, indicators.macd_histogram_previous);
    let current_position = position(price.to_f64().unwrap_or(view.last.close), atr, indicators);
    Ok(TaOutput {
        head: ctx.head(TaskName::TechnicalAnalysis, confidence, reasoning(bias)),
        bias,
        trend_strength: Score::from_f64(trend_strength),
        momentum_score: Score::from_f64(((rsi - 50.0) / 50.0).clamp(-1.0, 1.0)),
        rsi_signal,
        macd_signal,
        support_levels: levels(rules, indicators.low20, indicators.low50),
        resistance_levels: levels(rules, indicators.high20, indicators.high50),
        current_position,
        timeframe_alignment,
        primary_signal: Cow::Borrowed(primary_signal(bias, macd_signal, rsi_signal, current_position)),
    })
}

/// Frames whose EMA9 is on the bias side of EMA21, and how many frames could be asked. Flagged frames (stale, or with
/// a gap inside the look-back) are left out of both.
pub(super) fn alignment(snapshot: &Snapshot, bias: Bias) -> (Vec<Timeframe>, u32) {
    let mut aligned = Vec::new();
    let mut frames = 0;
    for view in snapshot.frames.iter().flatten() {
        let (Some(fast), Some(slow)) = (view.indicators.ema9, view.indicators.ema21) else { continue };
        if snapshot.flagged_frames.contains(&view.frame) {
            continue;
        }
        frames += 1;
        let on_side = match bias {
            Bias::Long => fast > slow,
            Bias::Short => fast < slow,
            Bias::Neutral => false,
        };
        if on_side {
            if aligned.is_empty() {
                aligned.reserve_exact(Timeframe::ALL.len());
            }
            aligned.push(view.frame);
        }
    }
    (aligned, frames)
}

/// A sign change on the last closed candle is a cross; one candle after warm-up there is no earlier sign to compare.
fn macd(histogram: f64, previous: Option<f64>) -> MacdSignal {
    match previous {
        Some(before) if histogram > 0.0 && before <= 0.0 => MacdSignal::BullishCross,
        Some(before) if histogram < 0.0 && before >= 0.0 => MacdSignal::BearishCross,
        _ if histogram > 0.0 => MacdSignal::Bullish,
        _ if histogram < 0.0 => MacdSignal::Bearish,
        _ => MacdSignal::Neutral,
    }
}

/// The extremes of 20 and 50 candles as prices, nearest first, without repetition.
fn levels(rules: &SymbolRules, of20: Option<f64>, of50: Option<f64>) -> Vec<Price> {
    let near = of20.and_then(|level| rules.price_from_f64(level));
    let far = of50.filter(|_| of50 != of20).and_then(|level| rules.price_from_f64(level));
    match (near, far) {
        (Some(near), Some(far)) if near != far => vec![near, far],
        (Some(level), _) | (None, Some(level)) => vec![level],
        (None, None) => Vec::new(),
    }
}

/// Near a level when within half an ATR of it; near both sides, the closer one counts, on a tie the support.
fn position(price: f64, atr: f64, indicators: &Indicators) -> LevelPosition {
    let distance = |of20: Option<f64>, of50: Option<f64>| {
        let to = |level: Option<f64>| level.map_or(f64::INFINITY, |level| (price - level).abs());
        to(of20).min(to(of50))
    };
    let support = distance(indicators.low20, indicators.low50);
    let resistance = distance(indicators.high20, indicators.high50);
    if support.min(resistance) > NEAR_ATR * atr {
        LevelPosition::MidRange
    } else if support <= resistance {
        LevelPosition::NearSupport
    } else {
        LevelPosition::NearResistance
    }
}

const fn reasoning(bias: Bias) -> &'static str {
    match bias {
        Bias::Long => "rsi14 above the long limit and macd histogram above zero",
        Bias::Short => "rsi14 below the short limit and macd histogram below zero",
        Bias::Neutral => "rsi14 and macd histogram do not point the same way strongly enough",
    }
}

/// The rarest event speaks loudest: a cross, then an RSI extreme, then the bias, then a level.
const fn primary_signal(bias: Bias, macd: MacdSignal, rsi: RsiSignal, at: LevelPosition) -> &'static str {
    match (macd, rsi, bias, at) {
        (MacdSignal::BullishCross, ..) => "macd histogram crossed above zero",
        (MacdSignal::BearishCross, ..) => "macd histogram crossed below zero",
        (_, RsiSignal::Oversold, ..) => "rsi14 oversold",
        (_, RsiSignal::Overbought, ..) => "rsi14 overbought",
        (_, _, Bias::Long, _) => "upward momentum",
        (_, _, Bias::Short, _) => "downward momentum",
        (.., LevelPosition::NearSupport) => "price near support",
        (.., LevelPosition::NearResistance) => "price near resistance",
        _ => "no clear signal",
    }
}

#[cfg(test)]
#[path = "technical_analysis_tests.rs"]
mod tests;
