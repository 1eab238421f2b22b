//! When each rules strategy buys or sells, and how strongly it means it (the table of domain §6.1).

use rust_decimal::prelude::ToPrimitive;

use super::VoterInputs;
use crate::{
    agents::contract::{INSUFFICIENT_DATA, Refusal, known},
    model::Action,
    settings::Strategy,
};

/// Supertrend needs at least this ADX14, Bollinger reversion less.
const ADX_SPLIT: f64 = 20.0;
/// Bonus of a trend strategy in a trend, and of the reversion in a calm market.
const BONUS: f64 = 0.10;
/// Bonus of the RSI strategy when the MACD histogram points the same way.
const BONUS_RSI: f64 = 0.05;

/// A wish to enter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Opinion {
    /// BUY or SELL.
    pub action: Action,
    /// 0..1
    pub strength: f64,
    /// Stop distance before the regime's factor, quote units.
    pub width: f64,
    /// Added to the confidence.
    pub bonus: f64,
    /// Which rule fired, for people.
    pub why: &'static str,
}

/// What `strategy` thinks; none is HOLD.
///
/// # Errors
/// Abstains `insufficient_data` when an indicator of the strategy's row, or ATR14 for the stop, is absent.
pub(crate) fn opinion(strategy: Strategy, inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    match strategy {
        Strategy::EmaCross => ema_cross(inputs),
        Strategy::MacdMomentum => macd_momentum(inputs),
        Strategy::Supertrend => supertrend(inputs),
        Strategy::DonchianBreakout => donchian_breakout(inputs),
        Strategy::BollingerReversion => bollinger_reversion(inputs),
        Strategy::RsiTrend => rsi_trend(inputs),
    }
}

/// Share of `part` in `whole`, 0..1; a whole of nothing (no range at all) makes any part the whole.
fn strength(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part.abs() / whole).min(1.0)
    } else if part == 0.0 {
        0.0
    } else {
        1.0
    }
}

fn side(buy: bool, sell: bool) -> Option<Action> {
    if buy {
        Some(Action::Buy)
    } else if sell {
        Some(Action::Sell)
    } else {
        None
    }
}

fn trend_bonus(inputs: &VoterInputs, adx: f64) -> f64 {
    if adx >= inputs.settings.adx_trend { BONUS } else { 0.0 }
}

fn ema_cross(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (fast, slow, slowest) = (known(i.ema9)?, known(i.ema21)?, known(i.ema50)?);
    let (atr, adx) = (known(i.atr14)?, known(i.adx14)?);
    let action = side(fast > slow && inputs.close > slowest, fast < slow && inputs.close < slowest);
    Ok(action.map(|action| Opinion {
        action,
        strength: strength(fast - slow, atr),
        width: 2.0 * atr,
        bonus: trend_bonus(inputs, adx),
        why: "ema9 and ema21 apart, close on the same side of ema50",
    }))
}

fn macd_momentum(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (line, now, before) = (known(i.macd_line)?, known(i.macd_histogram)?, known(i.macd_histogram_previous)?);
    let (atr, adx) = (known(i.atr14)?, known(i.adx14)?);
    let action = side(line > 0.0 && now > 0.0 && now > before, line < 0.0 && now < 0.0 && now < before);
    Ok(action.map(|action| Opinion {
        action,
        strength: strength(now, 0.25 * atr),
        width: 2.0 * atr,
        bonus: trend_bonus(inputs, adx),
        why: "macd line and histogram on one side, histogram growing",
    }))
}

fn supertrend(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (line, atr, adx) = (known(i.supertrend_line)?, known(i.atr14)?, known(i.adx14)?);
    let up = i.supertrend_up.ok_or(Refusal::abstain(INSUFFICIENT_DATA))?;
    let trending = adx >= ADX_SPLIT;
    let price = known(inputs.price.to_f64())?;
    Ok(side(trending && up, trending && !up).map(|action| Opinion {
        action,
        strength: strength(inputs.close - line, 3.0 * atr),
        width: (price - line).abs(),
        bonus: trend_bonus(inputs, adx),
        why: "supertrend side in a market that trends",
    }))
}

fn donchian_breakout(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (atr, adx) = (known(i.atr14)?, known(i.adx14)?);
    // The breakout levels are absent both before warm-up and without a breakout; the channel tells which.
    known(i.donchian_high)?;
    known(i.donchian_low)?;
    let broken = i.breakout_up_level.map(|l| (Action::Buy, l)).or(i.breakout_down_level.map(|l| (Action::Sell, l)));
    Ok(broken.map(|(action, level)| Opinion {
        action,
        strength: strength(inputs.close - level, atr),
        width: 1.5 * atr,
        bonus: trend_bonus(inputs, adx),
        why: "close beyond the 20-candle channel within the last 3 candles and still there",
    }))
}

fn bollinger_reversion(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (position, rsi) = (known(i.bollinger_position)?, known(i.rsi14)?);
    let (atr, adx) = (known(i.atr14)?, known(i.adx14)?);
    let calm = adx < ADX_SPLIT;
    let action = side(calm && position <= 0.05 && rsi < 35.0, calm && position >= 0.95 && rsi > 65.0);
    Ok(action.map(|action| Opinion {
        action,
        strength: strength(rsi - 50.0, 30.0),
        width: 1.5 * atr,
        bonus: if adx < inputs.settings.adx_range { BONUS } else { 0.0 },
        why: "close at the edge of the bollinger band with an rsi extreme in a calm market",
    }))
}

fn rsi_trend(inputs: &VoterInputs) -> Result<Option<Opinion>, Refusal> {
    let i = inputs.indicators;
    let (rsi, slowest, histogram, atr) = (known(i.rsi14)?, known(i.ema50)?, known(i.macd_histogram)?, known(i.atr14)?);
    let buy = rsi > 50.0 && rsi < 70.0 && inputs.close > slowest;
    let sell = rsi > 30.0 && rsi < 50.0 && inputs.close < slowest;
    Ok(side(buy, sell).map(|action| {
        let agrees = if action == Action::Buy { histogram > 0.0 } else { histogram < 0.0 };
        Opinion {
            action,
            strength: strength(rsi - 50.0, 20.0),
            width: 2.0 * atr,
            bonus: if agrees { BONUS_RSI } else { 0.0 },
            why: "rsi14 and close on one side of their middle, not yet extreme",
        }
    }))
}
