//! Values the agents' tests start from; the numbers are the shipped defaults of the specification.

use std::{collections::BTreeMap, sync::Arc};

use rust_decimal_macros::dec;

use super::RunContext;
use crate::{model::*, settings::*};

pub(crate) fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

pub(crate) fn xrp() -> Symbol {
    "XRP/USDT".parse().unwrap()
}

pub(crate) fn asset(name: &str) -> Asset {
    name.parse().unwrap()
}

pub(crate) const NOW: Ts = Ts::from_secs(1_700_000_000);

pub(crate) fn context(symbol: Symbol) -> RunContext {
    RunContext {
        run_id: RunId { epoch: 1, seq: 7 },
        slot: SlotId::Grid(42),
        symbol,
        as_of: NOW,
        started_at: NOW,
        now: NOW,
        degraded: false,
    }
}

pub(crate) fn cents() -> SymbolRules {
    SymbolRules { min_quantity: dec!(0.0001), price_decimals: 2, quantity_decimals: 8 }
}

/// A flat, warm market at 100 with ATR 1: no rule of any voter fires.
pub(crate) fn quiet() -> Indicators {
    Indicators {
        ema9: Some(100.0),
        ema21: Some(100.0),
        ema50: Some(100.0),
        rsi14: Some(50.0),
        macd_line: Some(0.0),
        macd_histogram: Some(0.0),
        macd_histogram_previous: Some(0.0),
        atr14: Some(1.0),
        atr14_mean50_before: Some(1.0),
        adx14: Some(22.0),
        bollinger_position: Some(0.5),
        squeeze: Some(false),
        choppiness14: Some(50.0),
        supertrend_line: Some(97.0),
        supertrend_up: None,
        volume_ratio: Some(1.0),
        donchian_high: Some(103.0),
        donchian_low: Some(97.0),
        high20: Some(103.0),
        low20: Some(97.0),
        high50: Some(105.0),
        low50: Some(95.0),
        ..Indicators::default()
    }
}

pub(crate) fn view(frame: Timeframe, close: f64, indicators: Indicators) -> Arc<FrameView> {
    let open_time = NOW.floor_to(frame.ms()).plus_ms(-frame.ms());
    let last = Candle { open_time, open: close, high: close, low: close, close, volume: 1.0 };
    Arc::new(FrameView { frame, last, closed_candles: 300, indicators, tail: Vec::new() })
}

pub(crate) fn parts(symbol: Symbol, price: Price, close: f64, indicators: Indicators) -> SnapshotParts {
    let mut frames: [Option<Arc<FrameView>>; 6] = Default::default();
    frames[Timeframe::H1.index()] = Some(view(Timeframe::H1, close, indicators));
    SnapshotParts {
        symbol,
        as_of: NOW,
        price: Some(price),
        price_at: NOW,
        price_id: 1,
        primary: Timeframe::H1,
        frames,
        change_24h_pct: None,
        volume_24h: None,
        alignment: None,
        book: None,
        quality: Quality::Good,
        flagged_frames: Vec::new(),
    }
}

/// A usable snapshot with only the primary frame, price = close = 100.
pub(crate) fn snapshot(symbol: Symbol, indicators: Indicators) -> Snapshot {
    Snapshot::new(parts(symbol, dec!(100), 100.0, indicators)).unwrap()
}

pub(crate) fn ta_settings() -> TaSettings {
    TaSettings { chain: String::new(), fallback_confidence: Score(2500), rsi_long: 60.0, rsi_short: 40.0 }
}

pub(crate) fn regime_detection_settings() -> RegimeDetectionSettings {
    RegimeDetectionSettings {
        chain: String::new(),
        fallback_confidence: Score(4000),
        change_confidence: Score(7000),
        change_count: 2,
        adx_trend: 25.0,
        choppiness_choppy: 60.0,
        squeeze_candles: 6,
        atr_extreme_pct: 5.0,
        atr_ratio: 2.0,
    }
}

pub(crate) fn regimes() -> BTreeMap<Regime, RegimeSettings> {
    let row = |size, stop, target, strictness, max_leverage, min| RegimeSettings {
        size,
        stop,
        target,
        strictness,
        max_leverage,
        min_confidence: Score(min),
    };
    use Strictness::{Normal, Strict, VeryStrict};
    BTreeMap::from([
        (Regime::TrendingBull, row(dec!(1.00), dec!(1.2), dec!(2.0), Normal, 5, 5500)),
        (Regime::TrendingBear, row(dec!(0.80), dec!(1.2), dec!(2.0), Normal, 3, 5500)),
        (Regime::Ranging, row(dec!(0.60), dec!(0.8), dec!(1.5), Strict, 2, 6000)),
        (Regime::VolatileBull, row(dec!(0.40), dec!(1.5), dec!(2.5), Strict, 2, 6500)),
        (Regime::VolatileBear, row(dec!(0.40), dec!(1.5), dec!(2.5), Strict, 2, 6500)),
        (Regime::Choppy, row(dec!(0.25), dec!(1.0), dec!(1.0), VeryStrict, 1, 7500)),
        (Regime::BreakoutPotential, row(dec!(0.75), dec!(1.0), dec!(3.0), Strict, 3, 6000)),
        (Regime::Unknown, row(dec!(0.50), dec!(1.0), dec!(1.5), Strict, 1, 7000)),
    ])
}

pub(crate) fn boost() -> BoostSettings {
    BoostSettings { unanimous: Score(1500), strong_majority: Score(1000), majority: Score(500), split: Score(0) }
}

pub(crate) fn decision_settings() -> TradingDecisionSettings {
    use Strategy::*;
    let voter = |name: &str, strategy| VoterSettings {
        name: name.to_owned(),
        kind: VoterKind::Rules,
        strategy: Some(strategy),
        chain: None,
        enabled: true,
    };
    TradingDecisionSettings {
        poll_timeout_seconds: 30,
        quorum: 0,
        boost: boost(),
        voters: vec![
            voter("ema_cross", EmaCross),
            voter("macd_momentum", MacdMomentum),
            voter("supertrend", Supertrend),
            voter("donchian_breakout", DonchianBreakout),
            voter("bollinger_reversion", BollingerReversion),
            voter("rsi_trend", RsiTrend),
        ],
        rules: RulesSettings { size_pct: 10.0, adx_trend: 25.0, adx_range: 15.0 },
        leaderboard: leaderboard_settings(),
    }
}

pub(crate) fn leaderboard_settings() -> LeaderboardSettings {
    LeaderboardSettings { mark_after_hours: 4, hold_band_pct: dec!(2.0) }
}

pub(crate) fn stop_settings() -> StopSettings {
    StopSettings {
        min_distance_pct: dec!(0.5),
        max_distance_pct: dec!(5.0),
        symbol_max_pct: BTreeMap::from([(btc(), dec!(3.0)), (xrp(), dec!(5.0))]),
        min_reward_risk: dec!(1.5),
    }
}

pub(crate) fn portfolio_settings() -> PortfolioSettings {
    PortfolioSettings {
        targets: BTreeMap::from([(asset("BTC"), dec!(1)), (asset("XRP"), dec!(1)), (asset("USDT"), dec!(1))]),
        threshold_pct: dec!(5),
        warn_pct: dec!(8),
        alert_pct: dec!(15),
        min_trade_usd: dec!(10),
        min_interval_hours: 24,
        dca: DcaSettings { enabled: true, threshold_usd: dec!(500), batches: 6, interval_hours: 4 },
    }
}
