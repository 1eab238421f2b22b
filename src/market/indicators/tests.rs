//! Indicators against reference values and at the edges of their definitions.

use super::*;
use crate::model::Ts;

const REFERENCE: &str = include_str!("../../../tests/fixtures/indicators/reference.csv");

fn value(v: &Indicators, name: &str) -> Option<f64> {
    let flag = |b: Option<bool>| b.map(|b| f64::from(u8::from(b)));
    match name {
        "ema9" => v.ema9,
        "ema21" => v.ema21,
        "ema50" => v.ema50,
        "ema200" => v.ema200,
        "sma20" => v.sma20,
        "sma50" => v.sma50,
        "sma200" => v.sma200,
        "rsi14" => v.rsi14,
        "macd_line" => v.macd_line,
        "macd_signal" => v.macd_signal,
        "macd_histogram" => v.macd_histogram,
        "macd_histogram_previous" => v.macd_histogram_previous,
        "atr10" => v.atr10,
        "atr14" => v.atr14,
        "atr20" => v.atr20,
        "atr14_mean50_before" => v.atr14_mean50_before,
        "atr14_mean20" => v.atr14_mean20,
        "adx14" => v.adx14,
        "bollinger_upper" => v.bollinger_upper,
        "bollinger_middle" => v.bollinger_middle,
        "bollinger_lower" => v.bollinger_lower,
        "bollinger_width" => v.bollinger_width,
        "bollinger_position" => v.bollinger_position,
        "keltner_upper" => v.keltner_upper,
        "keltner_lower" => v.keltner_lower,
        "squeeze" => flag(v.squeeze),
        "squeeze_candles" => Some(f64::from(v.squeeze_candles)),
        "choppiness14" => v.choppiness14,
        "supertrend_line" => v.supertrend_line,
        "supertrend_up" => flag(v.supertrend_up),
        "stoch_rsi_k" => v.stoch_rsi_k,
        "stoch_rsi_d" => v.stoch_rsi_d,
        "roc10" => v.roc10,
        "obv" => v.obv,
        "vwap" => v.vwap,
        "volume_sma20" => v.volume_sma20,
        "volume_ratio" => v.volume_ratio,
        "donchian_high" => v.donchian_high,
        "donchian_low" => v.donchian_low,
        "breakout_up_level" => v.breakout_up_level,
        "breakout_down_level" => v.breakout_down_level,
        "high20" => v.high20,
        "low20" => v.low20,
        "high50" => v.high50,
        "low50" => v.low50,
        other => panic!("the reference names `{other}`, which the engine does not have"),
    }
}

/// A candle and the reference value of every named indicator at it.
type Row = (Candle, Vec<Option<f64>>);

fn reference() -> (Vec<&'static str>, Vec<Row>) {
    let mut lines = REFERENCE.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').skip(6).collect();
    let rows = lines.map(|line| {
        let cells: Vec<Option<f64>> = line.split(',').map(|cell| cell.parse().ok()).collect();
        let at = |i: usize| cells[i].unwrap();
        let candle =
            Candle { open_time: Ts(at(0) as i64), open: at(1), high: at(2), low: at(3), close: at(4), volume: at(5) };
        (candle, cells[6..].to_vec())
    });
    (names, rows.collect())
}

fn candle(i: i64, high: f64, low: f64, close: f64) -> Candle {
    Candle { open_time: Ts(i * 3_600_000), open: close, high, low, close, volume: 1.0 }
}

#[test]
fn every_value_equals_the_reference_within_1e_9() {
    let (names, rows) = reference();
    assert_eq!(names.len(), 45);
    let mut engine = IndicatorEngine::new();
    for (i, (candle, expected)) in rows.iter().enumerate() {
        engine.update(candle);
        for (name, expected) in names.iter().zip(expected) {
            let actual = value(engine.values(), name);
            match (actual, expected) {
                (None, None) => {}
                (Some(a), Some(e)) => {
                    // Values that are differences of prices are compared relative to the price they were taken from.
                    let scale = if name.starts_with("macd") { candle.close } else { e.abs().max(1e-3) };
                    assert!((a - e).abs() <= 1e-9 * scale, "{name} at {i}: {a} instead of {e}");
                }
                _ => panic!("{name} at {i}: {actual:?} instead of {expected:?}"),
            }
        }
    }
}

#[test]
fn first_valid_indices_are_those_of_the_table() {
    let (_, rows) = reference();
    let table = [
        ("ema9", 8),
        ("ema21", 20),
        ("ema50", 49),
        ("ema200", 199),
        ("sma20", 19),
        ("sma200", 199),
        ("rsi14", 14),
        ("macd_line", 25),
        ("macd_signal", 33),
        ("atr14", 14),
        ("adx14", 27),
        ("bollinger_position", 19),
        ("keltner_upper", 20),
        ("squeeze", 20),
        ("choppiness14", 14),
        ("supertrend_line", 10),
        ("stoch_rsi_k", 29),
        ("stoch_rsi_d", 31),
        ("roc10", 10),
        ("obv", 0),
        ("vwap", 0),
        ("volume_sma20", 19),
        ("donchian_high", 20),
        ("atr14_mean50_before", 64),
        ("atr14_mean20", 33),
        ("macd_histogram_previous", 34),
    ];
    for (name, first) in table {
        let mut engine = IndicatorEngine::new();
        let found = rows.iter().position(|(candle, _)| {
            engine.update(candle);
            value(engine.values(), name).is_some()
        });
        assert_eq!(found, Some(first), "{name}");
    }
}

#[test]
fn a_flat_market_gives_the_values_the_table_names_and_no_nan() {
    let mut engine = IndicatorEngine::new();
    for i in 0..260 {
        engine.update(&Candle { volume: 0.0, ..candle(i, 10.0, 10.0, 10.0) });
    }
    let v = engine.values();
    assert_eq!(v.rsi14, Some(100.0), "no loss is 100");
    assert_eq!(v.stoch_rsi_k, Some(50.0), "no range is 50");
    assert_eq!(v.choppiness14, Some(100.0), "no range is 100");
    assert_eq!(v.bollinger_position, Some(0.5));
    assert_eq!(v.adx14, Some(0.0));
    assert_eq!((v.volume_ratio, v.vwap), (None, None), "a ratio to nothing does not exist");
    let json = serde_json::to_value(v).unwrap();
    let numbers: Vec<f64> = json.as_object().unwrap().values().filter_map(serde_json::Value::as_f64).collect();
    assert!(numbers.len() > 35 && numbers.iter().all(|x| x.is_finite()));
}

#[test]
fn vwap_starts_over_at_midnight_utc() {
    let mut engine = IndicatorEngine::new();
    engine.update(&candle(23, 12.0, 9.0, 9.0));
    engine.update(&candle(24, 33.0, 27.0, 30.0));
    assert_eq!(engine.values().vwap, Some(30.0));
}

#[test]
fn a_breakout_counts_for_three_closes_and_only_while_the_close_stays_beyond_it() {
    let mut engine = IndicatorEngine::new();
    for i in 0..20 {
        engine.update(&candle(i, 10.0, 9.0, 9.5));
    }
    engine.update(&candle(20, 11.0, 9.5, 10.8));
    assert_eq!(engine.values().breakout_up_level, Some(10.0));
    engine.update(&candle(21, 10.9, 9.9, 10.5));
    assert_eq!(engine.values().breakout_up_level, Some(10.0));
    let mut fallen = engine.clone();
    fallen.update(&candle(22, 10.6, 9.6, 9.9));
    assert_eq!(fallen.values().breakout_up_level, None, "the close is back below the level");
    engine.update(&candle(22, 10.9, 10.0, 10.4));
    assert_eq!(engine.values().breakout_up_level, Some(10.0));
    engine.update(&candle(23, 10.9, 10.0, 10.4));
    assert_eq!(engine.values().breakout_up_level, None, "four closes ago is too long");
}

#[test]
fn running_sums_do_not_drift_over_many_candles() {
    let mut engine = IndicatorEngine::new();
    let mut closes = Vec::new();
    for i in 0..200_000_i64 {
        let close = 40_000.0 + ((i * 7919) % 10_007) as f64 * 0.37;
        closes.push(close);
        engine.update(&candle(i, close * 1.01, close * 0.99, close));
    }
    let exact: f64 = closes[closes.len() - 200..].iter().sum::<f64>() / 200.0;
    assert!((engine.values().sma200.unwrap() - exact).abs() < 1e-9 * exact);
}
