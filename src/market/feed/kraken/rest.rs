//! Answers of Kraken's public REST interface, read strictly: candles, the venue's time, errors. Pure; who asks stands
//! elsewhere.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Candle, Symbol, Timeframe, Ts};

/// The interface never gives more rows than this, however early the asked time is.
pub const ROWS_MAX: usize = 720;

/// What the venue said instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// Asked too often; wait before asking again.
    #[error("the venue refuses for now: too many requests")]
    TooMany,
    /// The venue is there but not in service; asking again later helps.
    #[error("the venue is not in service: {0}")]
    Busy(String),
    /// The question is wrong; asking again does not help.
    #[error("the venue refuses: {0}")]
    Refused(String),
    /// No answer of this interface.
    #[error("the answer could not be understood: {0}")]
    Odd(String),
}

impl RestError {
    /// Whether the same question may be answered later.
    pub const fn may_pass(&self) -> bool {
        !matches!(self, RestError::Refused(_))
    }
}

#[derive(Deserialize)]
struct Outer {
    error: Vec<String>,
    #[serde(default)]
    result: Value,
}

/// The result of an answer, or what stands in its place.
fn result(body: &[u8]) -> Result<Value, RestError> {
    let outer: Outer = serde_json::from_slice(body).map_err(|error| RestError::Odd(error.to_string()))?;
    let Some(first) = outer.error.first() else { return Ok(outer.result) };
    let all = outer.error.join(", ");
    Err(match first.as_str() {
        text if text.contains("Too many requests") || text.contains("Rate limit") => RestError::TooMany,
        text if text.starts_with("EService") || text.contains("Internal error") => RestError::Busy(all),
        _ => RestError::Refused(all),
    })
}

/// The closed candles of an OHLC answer, oldest first. The last row is still forming and is dropped; the name the result
/// goes by is not looked at, because the venue has several for a pair.
///
/// # Errors
/// [`RestError`]; also for a row that is no candle, because a hole nobody knows of is worse than no answer.
pub fn candles(body: &[u8], frame: Timeframe) -> Result<Vec<Candle>, RestError> {
    let result = result(body)?;
    let fields = result.as_object().ok_or_else(|| RestError::Odd("`result` is no object".to_owned()))?;
    let mut lists = fields.iter().filter(|(name, _)| *name != "last").map(|(_, rows)| rows);
    let (Some(rows), None) = (lists.next().and_then(Value::as_array), lists.next()) else {
        return Err(RestError::Odd("`result` does not hold one list of candles".to_owned()));
    };
    let mut candles: Vec<Candle> = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let odd = |why: &str| RestError::Odd(format!("candle {}: {why}", number + 1));
        let candle = candle(row).ok_or_else(|| odd("not seven values and a count"))?;
        if let Some(defect) = candle.defect() {
            return Err(odd(defect));
        }
        if candle.open_time != candle.open_time.floor_to(frame.ms()) {
            return Err(odd("its time is not on a boundary"));
        }
        if candles.last().is_some_and(|before| before.open_time >= candle.open_time) {
            return Err(odd("its time is not after that of the one before"));
        }
        candles.push(candle);
    }
    candles.pop();
    Ok(candles)
}

/// `[time, open, high, low, close, vwap, volume, count]`, prices as text.
fn candle(row: &Value) -> Option<Candle> {
    let row = row.as_array().filter(|row| row.len() == 8)?;
    let number = |i: usize| row.get(i)?.as_str()?.parse::<f64>().ok();
    Some(Candle {
        open_time: row.first()?.as_i64().filter(|seconds| (0..=9_999_999_999).contains(seconds)).map(Ts::from_secs)?,
        open: number(1)?,
        high: number(2)?,
        low: number(3)?,
        close: number(4)?,
        volume: number(6)?,
    })
}

/// The venue's time of a Time answer. It comes in whole seconds; the middle of that second is taken.
///
/// # Errors
/// [`RestError`].
pub fn time(body: &[u8]) -> Result<Ts, RestError> {
    let result = result(body)?;
    let seconds = result.get("unixtime").and_then(Value::as_i64).filter(|s| (0..=9_999_999_999).contains(s));
    let seconds = seconds.ok_or_else(|| RestError::Odd("no `unixtime`".to_owned()))?;
    Ok(Ts::from_secs(seconds).plus_ms(500))
}

/// Venue minus wall: half the round trip has passed since the venue looked at its clock. `wall` is read with the answer.
pub fn offset_ms(venue: Ts, wall: Ts, round_trip_ms: i64) -> i64 {
    venue.plus_ms(round_trip_ms / 2).since_ms(wall)
}

/// The pair as the REST interface names it: the old asset codes, no slash.
pub fn pair(symbol: Symbol) -> String {
    let code = |asset: &str| match asset {
        "BTC" => "XBT".to_owned(),
        "DOGE" => "XDG".to_owned(),
        other => other.to_owned(),
    };
    code(symbol.base.as_str()) + &code(symbol.quote.as_str())
}

/// Path and query of an OHLC question; rows after `since` are wanted.
pub fn ohlc_path(symbol: Symbol, frame: Timeframe, since: Option<Ts>) -> String {
    let since = since.map_or(String::new(), |since| format!("&since={}", since.0 / 1_000));
    format!("/0/public/OHLC?pair={}&interval={}{since}", pair(symbol), frame.minutes())
}

/// Path of the venue's time.
pub const TIME_PATH: &str = "/0/public/Time";

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"error":[],"result":{"ANY":[[60,"1","3","0.5","2","1.5","10",4],
        [120,"2","2","2","2","2","0",0],[180,"2","9","2","2","2","7",1]],"last":120}}"#;

    #[test]
    fn the_forming_row_is_dropped_and_the_name_of_the_pair_does_not_matter() {
        let candles = candles(TWO.as_bytes(), Timeframe::M1).unwrap();
        assert_eq!(candles.iter().map(|c| c.open_time.0).collect::<Vec<_>>(), [60_000, 120_000]);
        assert_eq!((candles[0].high, candles[0].low, candles[0].close, candles[0].volume), (3.0, 0.5, 2.0, 10.0));
    }

    #[test]
    fn errors_are_told_apart() {
        let of = |text: &str| candles(text.as_bytes(), Timeframe::M1).unwrap_err();
        assert_eq!(of(r#"{"error":["EGeneral:Too many requests"]}"#), RestError::TooMany);
        let unknown = of(r#"{"error":["EQuery:Unknown asset pair"],"result":null}"#);
        assert_eq!(unknown, RestError::Refused("EQuery:Unknown asset pair".to_owned()));
        assert!(!unknown.may_pass());
        assert!(matches!(of(r#"{"error":["EService:Unavailable"]}"#), RestError::Busy(_)));
    }

    #[test]
    fn a_wrong_row_spoils_the_answer() {
        for (from, to) in [
            (r#""0.5""#, r#""5""#),
            ("[60,", "[61,"),
            ("[120,", "[60,"),
            (r#""1","3""#, r#"1,"3""#),
            (r#","10",4]"#, r#","10"]"#),
            (r#""last""#, r#""more":[],"last""#),
            (r#""error":[],"#, ""),
            ("[60,", "[-60,"),
        ] {
            let text = TWO.replace(from, to);
            assert_ne!(text, TWO, "{from}");
            assert!(matches!(candles(text.as_bytes(), Timeframe::M1), Err(RestError::Odd(_))), "{text}");
        }
    }

    #[test]
    fn the_offset_is_venue_minus_wall_with_half_the_round_trip() {
        let body = br#"{"error":[],"result":{"unixtime":1000,"rfc1123":"x"}}"#;
        let venue = time(body).unwrap();
        assert_eq!(venue, Ts(1_000_500));
        assert_eq!(offset_ms(venue, Ts(990_600), 200), 10_000);
    }

    #[test]
    fn a_pair_goes_by_its_old_codes() {
        let path = ohlc_path("BTC/USDT".parse().unwrap(), Timeframe::M1, Some(Ts(60_999)));
        assert_eq!(path, "/0/public/OHLC?pair=XBTUSDT&interval=1&since=60");
        assert_eq!(pair("XRP/BTC".parse().unwrap()), "XRPXBT");
    }
}
