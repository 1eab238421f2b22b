//! Figures of the risk engine: one check and one check with its view of the account, with the shipped rules.
//! Run with `cargo bench --bench risk`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, time::Instant};

use triplegain::{
    model::*,
    risk::{PriceBook, RiskRequest, RiskRules, RiskView, check, view::Held},
    settings::Settings,
};

const SAMPLES: usize = 100_000;
/// Checks per sample: reading the clock costs about as much as a tenth of a check.
const EACH: u32 = 10;

fn rules(settings: &Settings) -> RiskRules {
    RiskRules::of(settings).unwrap()
}

fn request(symbol: Symbol, now: Ts) -> RiskRequest {
    RiskRequest {
        key: TradeKey([9; 32]),
        symbol,
        side: Side::Buy,
        notional_usd: Decimal::from(1_500),
        entry: Decimal::from(50_000),
        stop: Some(Decimal::from(49_000)),
        target: Some(Decimal::from(52_000)),
        leverage: 1,
        confidence: Score::from_f64(0.8),
        regime: Regime::TrendingBull,
        price_at: Some(now),
        quote_usd: Decimal::ONE,
        volatility_spike: false,
        ta_confidence: Some(Score::from_f64(0.75)),
        sentiment_confidence: None,
    }
}

/// An account with three positions, two of them correlated with what is asked for.
fn account(now: Ts) -> RiskView {
    let usdt: Asset = "USDT".parse().unwrap();
    let held = |symbol: &str, notional: i64| Held {
        symbol: symbol.parse().unwrap(),
        notional_usd: Decimal::from(notional),
        margin_usd: Decimal::from(notional),
        slot: true,
        key: None,
        funds: Money::ZERO,
    };
    RiskView {
        equity: Decimal::from(10_000),
        equity_at: Some(now),
        peak: Decimal::from(10_100),
        held: vec![held("BTC/USDT", 600), held("XRP/USDT", 500), held("XRP/BTC", 400)],
        free: vec![(usdt, Decimal::from(8_000))],
        ..RiskView::default()
    }
}

fn measure(what: &str, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..EACH {
                work();
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(EACH)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<44} p50 {:>7.0} ns  p99 {:>7.0} ns", at(0.5), at(0.99));
    at(0.5)
}

fn main() {
    let settings = Settings::defaults();
    let rules = rules(&settings);
    let now = Ts::from_secs(1_700_000_000);
    let symbol = "BTC/USDT".parse().unwrap();
    let (view, wanted) = (account(now), request(symbol, now));
    let approved = check(&view, &rules, &wanted, now).unwrap();
    println!("approved {} of {}", approved.notional_usd, wanted.notional_usd);
    let p50 = measure("check that approves, every rule passed", || {
        black_box(check(black_box(&view), &rules, black_box(&wanted), now)).unwrap();
    });
    let unsure = RiskRequest { confidence: Score::from_f64(0.3), ..wanted.clone() };
    measure("check that refuses (confidence)", || {
        black_box(check(black_box(&view), &rules, black_box(&unsure), now)).unwrap_err();
    });
    let mut state = State::default();
    let usdt = "USDT".parse().unwrap();
    let ledger = state.account.ledger.entry(usdt).or_default();
    ledger.insert(LedgerAccount::Free, Decimal::from(10_000));
    ledger.insert(LedgerAccount::Deposits, Decimal::from(10_000));
    let mut prices = PriceBook::new(usdt);
    prices.set(symbol, Decimal::from(50_000), now);
    measure("view of the account and check, as the actor", || {
        let view = RiskView::from_state(black_box(&state), &prices, &rules, Decimal::from(10_000), now);
        black_box(check(&view, &rules, black_box(&wanted), now)).unwrap();
    });
    println!("check p50 {p50:.0} ns, target 1000 ns: {}", if p50 < 1_000.0 { "reached" } else { "NOT reached" });
}
