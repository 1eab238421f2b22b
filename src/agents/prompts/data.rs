//! What a prompt tells, as JSON values: snapshot, accepted opinions, the own position, text from outside.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Room;
use crate::{
    agents::answers::{ground::numbers, plain},
    model::{
        Candle, Conflict, Position, Price, RegimeOutput, Score, SentimentOutput, Side, Snapshot, Symbol, TaOutput,
        Timeframe, Ts,
    },
};

/// Longest text from outside, characters.
pub const UNTRUSTED_MAX: usize = 500;
/// Most warnings of an opinion that are told.
pub const WARNINGS_MAX: usize = 5;
/// Most pieces of news that are told: 3 events and 2 narratives.
const NEWS_MAX: usize = 5;

/// Last closed candles of frames, oldest first.
pub type Candles = BTreeMap<Timeframe, Vec<Candle>>;

/// What a snapshot carries of every frame's history.
pub fn history(snapshot: &Snapshot) -> Candles {
    let told = snapshot.frames.iter().flatten().filter(|view| !view.tail.is_empty());
    told.map(|view| (view.frame, view.tail.clone())).collect()
}

/// The market: price, indicators by name of the primary frame, and at most `most` candles a frame. A frame without a
/// history shows its last closed candle.
pub fn market(snapshot: &Snapshot, candles: &Candles, most: usize) -> Value {
    let mut frames = Map::new();
    for view in snapshot.frames.iter().flatten() {
        let history = candles.get(&view.frame).map_or(std::slice::from_ref(&view.last), Vec::as_slice);
        let shown = history.iter().skip(history.len().saturating_sub(most));
        let rows: Vec<Value> = shown.map(|c| json!([c.open, c.high, c.low, c.close, c.volume])).collect();
        frames.insert(view.frame.to_string(), Value::Array(rows));
    }
    let rounded = |value: f64| format!("{value:.6e}").parse::<f64>().unwrap_or(value);
    let indicators = snapshot.primary_view().map(|view| numbers(&view.indicators)).unwrap_or_default();
    let indicators: BTreeMap<String, f64> = indicators.into_iter().map(|(name, v)| (name, rounded(v))).collect();
    json!({
        "symbol": snapshot.symbol.to_string(),
        "as_of": snapshot.as_of.to_string(),
        "price": snapshot.price.map(|price| price.to_string()),
        "primary_timeframe": snapshot.primary.to_string(),
        "change_24h_pct": snapshot.change_24h_pct,
        "alignment": snapshot.alignment,
        "indicators": indicators,
        "candles_open_high_low_close_volume": frames,
    })
}

/// Text from outside: one line, cut, under a name that says what it is.
pub fn untrusted(text: &str, room: Room) -> Value {
    json!({ "untrusted": plain(text, room.text.min(UNTRUSTED_MAX)) })
}

/// The first of several texts from outside.
fn some<'a>(texts: impl IntoIterator<Item = &'a String>, most: usize, room: Room) -> Vec<Value> {
    texts.into_iter().take(most.min(room.entries)).map(|text| untrusted(text, room)).collect()
}

/// The accepted technical opinion; its own words came from a model perhaps and stay quoted.
pub fn technical(output: &TaOutput, room: Room) -> Value {
    json!({
        "bias": output.bias,
        "trend_strength": output.trend_strength,
        "momentum_score": output.momentum_score,
        "confidence": output.head.confidence,
        "primary_signal": untrusted(&output.primary_signal, room),
        "warnings": some(&output.head.warnings, WARNINGS_MAX, room),
    })
}

/// The accepted regime.
pub fn regime(output: &RegimeOutput) -> Value {
    json!({
        "regime": output.regime,
        "volatility": output.volatility,
        "confidence": output.head.confidence,
        "periods_in_regime": output.periods_in_regime,
    })
}

/// The accepted mood; `news` is at most 3 events and 2 narratives, all of it untrusted.
pub fn sentiment(output: &SentimentOutput, news: &[String], room: Room) -> Value {
    json!({
        "bias": output.bias,
        "overall_score": output.overall_score,
        "social_score": output.social_score,
        "news_score": output.news_score,
        "news": some(news, NEWS_MAX, room),
    })
}

/// An entry that conflicts stopped. The facts of a conflict may hold words of a model and stay quoted.
pub fn dispute(
    symbol: Symbol,
    side: Side,
    confidence: Score,
    levels: (Price, Option<Price>, Option<Price>),
    leverage: u32,
    conflicts: &[Conflict],
    room: Room,
) -> Value {
    let (entry, stop, target) = levels;
    let told = |conflict: &Conflict| json!({ "kind": conflict.kind, "facts": untrusted(&conflict.facts, room) });
    json!({
        "symbol": symbol.to_string(),
        "action": side,
        "confidence": confidence,
        "entry": entry.to_string(),
        "stop": stop.map(|price| price.to_string()),
        "target": target.map(|price| price.to_string()),
        "leverage": leverage,
        "conflicts": conflicts.iter().map(told).collect::<Vec<_>>(),
    })
}

/// What a voter is shown.
pub fn voter(
    market: Value,
    ta: Option<&TaOutput>,
    regime_output: Option<&RegimeOutput>,
    mood: Option<(&SentimentOutput, &[String])>,
    position: Option<&Position>,
    now: Ts,
    room: Room,
) -> Value {
    json!({
        "market": market,
        "technical_analysis": ta.map(|output| technical(output, room)),
        "regime": regime_output.map(regime),
        "sentiment": mood.map(|(output, news)| sentiment(output, news, room)),
        "position": position.map(|held| json!({
            "side": held.side,
            "quantity": held.quantity.to_string(),
            "age_minutes": now.since_ms(held.opened_at) / 60_000,
        })),
    })
}
