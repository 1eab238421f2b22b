//! The streaming indicator engine of one (symbol, frame): one candle in, all values of domain.md §14.2 out. It allocates
//! nothing, keeps fixed memory, and never shows a value before its first valid index.
//!
//! The seeds are those of the specification's table (simple means), which differ from `yata`'s (first value), so the
//! recurrences are written out here; `parts` holds them.

mod parts;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use self::parts::{Ema, Highest, Wilder, WilderSum, Window};
use crate::model::{Candle, Indicators};

/// 1 / log10(14)
const INVERSE_LOG10_14: f64 = 0.872_502_869_549_155_9;
/// Closes that may have broken a Donchian level.
const BREAKOUT_CANDLES: usize = 3;

/// Indicator state of one frame; feed it closed candles in time order.
#[derive(Clone, Debug)]
pub struct IndicatorEngine {
    seen: u64,
    values: Indicators,
    previous: Option<Candle>,
    emas: Emas,
    close20: Window<20>,
    close50: Window<50>,
    close200: Window<200>,
    close10: Window<10>,
    momentum: Momentum,
    range: Ranges,
    volume20: Window<20>,
    obv: f64,
    day: i64,
    day_value: f64,
    day_volume: f64,
    high20: Highest<20, 32>,
    low20: Highest<20, 32>,
    high50: Highest<50, 64>,
    low50: Highest<50, 64>,
    breakouts: [(Option<f64>, Option<f64>); BREAKOUT_CANDLES],
}

#[derive(Clone, Debug)]
struct Emas {
    ema9: Ema,
    ema12: Ema,
    ema20: Ema,
    ema21: Ema,
    ema26: Ema,
    ema50: Ema,
    ema200: Ema,
    signal: Ema,
}

/// RSI and what is built on it.
#[derive(Clone, Debug)]
struct Momentum {
    gain: Wilder,
    loss: Wilder,
    rsi_high: Highest<14, 16>,
    rsi_low: Highest<14, 16>,
    raw: Window<3>,
    k: Window<3>,
}

/// True range and what is built on it.
#[derive(Clone, Debug)]
struct Ranges {
    atr10: Wilder,
    atr14: Wilder,
    atr20: Wilder,
    atr14_last20: Window<20>,
    atr14_last50: Window<50>,
    tr14: Window<14>,
    high14: Highest<14, 16>,
    low14: Highest<14, 16>,
    plus: WilderSum,
    minus: WilderSum,
    tr_sum: WilderSum,
    adx: Wilder,
    supertrend: Option<Supertrend>,
}

#[derive(Clone, Copy, Debug)]
struct Supertrend {
    upper: f64,
    lower: f64,
    up: bool,
}

impl Default for IndicatorEngine {
    fn default() -> Self {
        IndicatorEngine::new()
    }
}

impl IndicatorEngine {
    /// An engine that has seen nothing.
    pub fn new() -> IndicatorEngine {
        IndicatorEngine {
            seen: 0,
            values: Indicators::default(),
            previous: None,
            emas: Emas {
                ema9: Ema::new(9),
                ema12: Ema::new(12),
                ema20: Ema::new(20),
                ema21: Ema::new(21),
                ema26: Ema::new(26),
                ema50: Ema::new(50),
                ema200: Ema::new(200),
                signal: Ema::new(9),
            },
            close20: Window::new(),
            close50: Window::new(),
            close200: Window::new(),
            close10: Window::new(),
            momentum: Momentum {
                gain: Wilder::new(14),
                loss: Wilder::new(14),
                rsi_high: Highest::new(),
                rsi_low: Highest::new(),
                raw: Window::new(),
                k: Window::new(),
            },
            range: Ranges {
                atr10: Wilder::new(10),
                atr14: Wilder::new(14),
                atr20: Wilder::new(20),
                atr14_last20: Window::new(),
                atr14_last50: Window::new(),
                tr14: Window::new(),
                high14: Highest::new(),
                low14: Highest::new(),
                plus: WilderSum::new(14),
                minus: WilderSum::new(14),
                tr_sum: WilderSum::new(14),
                adx: Wilder::new(14),
                supertrend: None,
            },
            volume20: Window::new(),
            obv: 0.0,
            day: i64::MIN,
            day_value: 0.0,
            day_volume: 0.0,
            high20: Highest::new(),
            low20: Highest::new(),
            high50: Highest::new(),
            low50: Highest::new(),
            breakouts: [(None, None); BREAKOUT_CANDLES],
        }
    }

    /// Takes the next closed candle. Candles must be free of defects ([`Candle::defect`]) and in time order.
    pub fn update(&mut self, candle: &Candle) {
        self.means(candle);
        self.bands();
        self.extremes(candle);
        self.volumes(candle);
        if let Some(previous) = self.previous {
            self.values_of_change(candle, &previous);
        }
        self.channels(candle);
        self.previous = Some(*candle);
        self.seen += 1;
    }

    /// The values at the last candle taken.
    pub fn values(&self) -> &Indicators {
        &self.values
    }

    /// Candles taken so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    fn means(&mut self, candle: &Candle) {
        let (close, out, emas) = (candle.close, &mut self.values, &mut self.emas);
        out.ema9 = emas.ema9.push(close);
        out.ema21 = emas.ema21.push(close);
        out.ema50 = emas.ema50.push(close);
        out.ema200 = emas.ema200.push(close);
        let fast = emas.ema12.push(close);
        let slow = emas.ema26.push(close);
        out.macd_line = fast.zip(slow).map(|(fast, slow)| fast - slow);
        out.macd_signal = out.macd_line.and_then(|line| emas.signal.push(line));
        out.macd_histogram_previous = out.macd_histogram;
        out.macd_histogram = out.macd_line.zip(out.macd_signal).map(|(line, signal)| line - signal);
        self.close20.push(close);
        self.close50.push(close);
        self.close200.push(close);
        out.sma20 = self.close20.mean();
        out.sma50 = self.close50.mean();
        out.sma200 = self.close200.mean();
        out.roc10 = self.close10.push(close).map(|before| (close / before - 1.0) * 100.0);
    }

    fn bands(&mut self) {
        let out = &mut self.values;
        let Some(middle) = out.sma20 else { return };
        let spread = 2.0 * self.close20.deviation(middle);
        out.bollinger_middle = Some(middle);
        out.bollinger_upper = Some(middle + spread);
        out.bollinger_lower = Some(middle - spread);
        out.bollinger_width = Some(2.0 * spread / middle);
    }

    fn extremes(&mut self, candle: &Candle) {
        let out = &mut self.values;
        // The 20 candles before this one are the 20 candles up to the previous one.
        out.donchian_high = out.high20;
        out.donchian_low = out.low20;
        out.high20 = self.high20.push(candle.high);
        out.low20 = self.low20.push(-candle.low).map(|low| -low);
        out.high50 = self.high50.push(candle.high);
        out.low50 = self.low50.push(-candle.low).map(|low| -low);
        self.breakouts.rotate_left(1);
        self.breakouts[BREAKOUT_CANDLES - 1] = (
            out.donchian_high.filter(|level| candle.close > *level),
            out.donchian_low.filter(|level| candle.close < *level),
        );
        let up = self.breakouts.iter().filter_map(|(up, _)| *up).filter(|level| candle.close > *level);
        out.breakout_up_level = up.reduce(f64::max);
        let down = self.breakouts.iter().filter_map(|(_, down)| *down).filter(|level| candle.close < *level);
        out.breakout_down_level = down.reduce(f64::min);
    }

    fn volumes(&mut self, candle: &Candle) {
        let out = &mut self.values;
        self.volume20.push(candle.volume);
        out.volume_sma20 = self.volume20.mean();
        out.volume_ratio = out.volume_sma20.filter(|mean| *mean > 0.0).map(|mean| candle.volume / mean);
        let direction = self.previous.map_or(1.0, |previous| match candle.close.total_cmp(&previous.close) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Less => -1.0,
        });
        self.obv += direction * candle.volume;
        out.obv = Some(self.obv);
        let day = candle.open_time.day();
        if day != self.day {
            (self.day, self.day_value, self.day_volume) = (day, 0.0, 0.0);
        }
        self.day_value += (candle.high + candle.low + candle.close) / 3.0 * candle.volume;
        self.day_volume += candle.volume;
        out.vwap = (self.day_volume > 0.0).then(|| self.day_value / self.day_volume);
    }

    /// Everything that needs the previous candle: RSI, true range, directional movement.
    fn values_of_change(&mut self, candle: &Candle, previous: &Candle) {
        let out = &mut self.values;
        let change = candle.close - previous.close;
        self.momentum.push(change, out);
        let range = &mut self.range;
        let tr = (candle.high - candle.low)
            .max((candle.high - previous.close).abs())
            .max((candle.low - previous.close).abs());
        out.atr10 = range.atr10.push(tr);
        out.atr20 = range.atr20.push(tr);
        out.atr14_mean50_before = range.atr14_last50.mean();
        out.atr14 = range.atr14.push(tr);
        if let Some(atr) = out.atr14 {
            range.atr14_last20.push(atr);
            range.atr14_last50.push(atr);
        }
        out.atr14_mean20 = range.atr14_last20.mean();
        range.tr14.push(tr);
        let high = range.high14.push(candle.high);
        let low = range.low14.push(-candle.low).map(|low| -low);
        out.choppiness14 = range.tr14.sum().zip(high.zip(low)).map(|(sum, (high, low))| {
            if high > low { 100.0 * (sum / (high - low)).log10() * INVERSE_LOG10_14 } else { 100.0 }
        });
        out.adx14 = range.directional(candle, previous, tr);
        range.supertrend(candle, previous, out);
    }

    /// What combines bands, means and ranges.
    fn channels(&mut self, candle: &Candle) {
        let out = &mut self.values;
        let ema20 = self.emas.ema20.push(candle.close);
        if let (Some(upper), Some(lower)) = (out.bollinger_upper, out.bollinger_lower) {
            out.bollinger_position = Some(if upper > lower { (candle.close - lower) / (upper - lower) } else { 0.5 });
            if let (Some(ema20), Some(atr10), Some(atr20)) = (ema20, out.atr10, out.atr20) {
                out.keltner_upper = Some(ema20 + 2.0 * atr10);
                out.keltner_lower = Some(ema20 - 2.0 * atr10);
                let squeeze = upper < ema20 + 1.5 * atr20 && lower > ema20 - 1.5 * atr20;
                out.squeeze = Some(squeeze);
                out.squeeze_candles = if squeeze { out.squeeze_candles.saturating_add(1) } else { 0 };
            }
        }
    }
}

impl Momentum {
    fn push(&mut self, change: f64, out: &mut Indicators) {
        let gain = self.gain.push(change.max(0.0));
        let loss = self.loss.push((-change).max(0.0));
        out.rsi14 = gain.zip(loss).map(|(gain, loss)| if loss > 0.0 { 100.0 * gain / (gain + loss) } else { 100.0 });
        let Some(rsi) = out.rsi14 else { return };
        let (Some(high), Some(low)) = (self.rsi_high.push(rsi), self.rsi_low.push(-rsi)) else { return };
        let low = -low;
        self.raw.push(if high > low { 100.0 * (rsi - low) / (high - low) } else { 50.0 });
        out.stoch_rsi_k = self.raw.mean();
        if let Some(k) = out.stoch_rsi_k {
            self.k.push(k);
            out.stoch_rsi_d = self.k.mean();
        }
    }
}

impl Ranges {
    fn directional(&mut self, candle: &Candle, previous: &Candle, tr: f64) -> Option<f64> {
        let (up, down) = (candle.high - previous.high, previous.low - candle.low);
        let plus = self.plus.push(if up > down && up > 0.0 { up } else { 0.0 });
        let minus = self.minus.push(if down > up && down > 0.0 { down } else { 0.0 });
        let tr = self.tr_sum.push(tr);
        let (Some(plus), Some(minus), Some(tr)) = (plus, minus, tr) else { return None };
        // The common factor 100/TR of both directional indices cancels in DX; without range or movement DX is 0.
        let dx = if tr > 0.0 && plus + minus > 0.0 { 100.0 * (plus - minus).abs() / (plus + minus) } else { 0.0 };
        self.adx.push(dx)
    }

    fn supertrend(&mut self, candle: &Candle, previous: &Candle, out: &mut Indicators) {
        let Some(atr) = out.atr10 else { return };
        let middle = (candle.high + candle.low) / 2.0;
        let (upper, lower) = (middle + 3.0 * atr, middle - 3.0 * atr);
        let next = match self.supertrend {
            None => Supertrend { upper, lower, up: candle.close >= middle },
            Some(last) => {
                let upper = if upper < last.upper || previous.close > last.upper { upper } else { last.upper };
                let lower = if lower > last.lower || previous.close < last.lower { lower } else { last.lower };
                let up = if last.up { candle.close >= lower } else { candle.close > upper };
                Supertrend { upper, lower, up }
            }
        };
        self.supertrend = Some(next);
        out.supertrend_line = Some(if next.up { next.lower } else { next.upper });
        out.supertrend_up = Some(next.up);
    }
}
