//! Tests of the engine rules of `risk`, by the ids of the acceptance scenarios they hold.

use proptest::prelude::*;

use super::*;
use crate::{
    model::{BreakerKind, CooldownCause, Regime, Side},
    risk::{
        fixtures::{self, dec, key, margin_rules, rules, score, sym},
        view::Held,
    },
};

const NOW: Ts = Ts(1_000_000_000);

/// A long with a stop at 2 % and a target at 3 R.
fn request(symbol: &str, usd: &str) -> RiskRequest {
    RiskRequest {
        key: key(1),
        symbol: sym(symbol),
        side: Side::Buy,
        notional_usd: dec(usd),
        entry: dec("100"),
        stop: Some(dec("98")),
        target: Some(dec("106")),
        leverage: 1,
        confidence: score("0.90"),
        regime: Regime::TrendingBull,
        price_at: Some(NOW),
        quote_usd: dec("1"),
        volatility_spike: false,
        ta_confidence: None,
        sentiment_confidence: None,
    }
}

fn held(symbol: &str, usd: &str) -> Held {
    Held {
        symbol: sym(symbol),
        notional_usd: dec(usd),
        margin_usd: dec(usd),
        slot: true,
        key: None,
        funds: Money::ZERO,
    }
}

fn judge(view: &RiskView, rules: &RiskRules, request: &RiskRequest) -> Result<Approved, RiskCode> {
    check(view, rules, request, NOW).map_err(|refusal| refusal.code)
}

fn codes(approved: &Approved) -> Vec<RiskCode> {
    approved.notes.iter().map(|note| note.code).collect()
}

fn with_stop(symbol: &str, entry: &str, stop: &str) -> RiskRequest {
    RiskRequest { entry: dec(entry), stop: Some(dec(stop)), target: None, ..request(symbol, "1000") }
}

#[test]
fn a085_a086_stop_distances_are_inclusive() {
    let view = fixtures::view(NOW);
    for (symbol, stop, expected) in [
        ("XRP/USDT", "99.50", None),
        ("XRP/USDT", "99.51", Some(RiskCode::StopTooTight)),
        ("XRP/USDT", "95.00", None),
        ("XRP/USDT", "94.99", Some(RiskCode::StopTooWide)),
        ("BTC/USDT", "97.00", None),
        ("BTC/USDT", "96.99", Some(RiskCode::StopTooWide)),
    ] {
        let answer = judge(&view, &rules(), &with_stop(symbol, "100", stop));
        assert_eq!(answer.err(), expected, "{symbol} stop {stop}");
    }
}

#[test]
fn a087_reward_to_risk_is_inclusive_and_needs_a_target() {
    let view = fixtures::view(NOW);
    for (target, expected) in [(Some("103"), None), (Some("102.99"), Some(RiskCode::LowRr)), (None, None)] {
        let asked = RiskRequest { target: target.map(dec), ..request("BTC/USDT", "1000") };
        assert_eq!(judge(&view, &rules(), &asked).err(), expected, "target {target:?}");
    }
}

#[test]
fn a088_a089_margin_is_judged_on_the_shrunk_size() {
    let view = fixtures::view(NOW);
    for (usd, leverage, margin) in [("3000", 2, "1000"), ("9000", 5, "400")] {
        let asked = RiskRequest { leverage, ..request("BTC/USDT", usd) };
        let approved = judge(&view, &margin_rules(), &asked).unwrap();
        assert_eq!((approved.notional_usd, approved.leverage), (dec("2000"), leverage));
        assert_eq!(approved.reservation.funds - dec("5.2"), dec(margin));
        assert_eq!(codes(&approved), [RiskCode::SizeReduced]);
    }
}

#[test]
fn a090_spot_always_trades_at_leverage_one() {
    let asked = RiskRequest { leverage: 3, ..request("BTC/USDT", "1000") };
    let approved = judge(&fixtures::view(NOW), &rules(), &asked).unwrap();
    assert_eq!((approved.leverage, codes(&approved)), (1, vec![RiskCode::LeverageReduced]));
}

#[test]
fn a092_a093_leverage_falls_with_drawdown_and_losses() {
    let asked = RiskRequest { leverage: 5, ..request("BTC/USDT", "1000") };
    let cap = |view: &RiskView| leverage_cap(view, &margin_rules(), &asked);
    for (equity, expected) in [("9501", 5), ("9500", 3), ("9000", 2), ("8500", 1)] {
        let view = RiskView { equity: dec(equity), ..fixtures::view(NOW) };
        assert_eq!(cap(&view), expected, "equity {equity}");
    }
    for (losses, expected) in [(2, 5), (3, 2), (5, 1)] {
        assert_eq!(cap(&RiskView { losses, ..fixtures::view(NOW) }), expected, "{losses} losses");
    }
}

#[test]
fn a093_five_losses_halve_the_size_and_raise_the_floor() {
    let view = RiskView { losses: 5, ..fixtures::view(NOW) };
    let approved = judge(&view, &margin_rules(), &RiskRequest { leverage: 2, ..request("BTC/USDT", "3000") }).unwrap();
    assert_eq!((approved.notional_usd, approved.leverage), (dec("1000"), 1));
    let doubtful = RiskRequest { confidence: score("0.7999"), ..request("BTC/USDT", "3000") };
    assert_eq!(judge(&view, &rules(), &doubtful).err(), Some(RiskCode::ConfidenceTooLow));
}

#[test]
fn risk_per_trade_shrinks_to_the_allowed_loss() {
    let mut settings = fixtures::risk();
    settings.max_risk_per_trade_pct = dec("0.5");
    let rules = fixtures::rules_for(&settings, AccountMode::Spot);
    let asked = RiskRequest { notional_usd: dec("2000"), ..with_stop("XRP/USDT", "100", "96") };
    assert_eq!(judge(&fixtures::view(NOW), &rules, &asked).unwrap().notional_usd, dec("1250"));
}

/// Symbol asked for, symbols and USD held, refusal, warned.
type Correlated = (&'static str, &'static [(&'static str, &'static str)], Option<RiskCode>, bool);

#[test]
fn a094_correlation_examples() {
    let cases: [Correlated; 5] = [
        ("XRP/USDT", &[("BTC/USDT", "2000")], None, true),
        ("BTC/USDT", &[("XRP/BTC", "2000")], None, false),
        ("BTC/USDT", &[("BTC/USDT", "2000")], None, true),
        ("XRP/USDT", &[("BTC/USDT", "2000"), ("XRP/BTC", "1000")], Some(RiskCode::CorrelatedExposure), false),
        ("XRP/BTC", &[], None, false),
    ];
    for (symbol, others, refused, warned) in cases {
        let mut view = fixtures::view(NOW);
        view.held = others.iter().map(|(symbol, usd)| held(symbol, usd)).collect();
        view.free.push((sym("XRP/BTC").quote, dec("100000")));
        match judge(&view, &rules(), &request(symbol, "2000")) {
            Ok(approved) => {
                assert_eq!(None, refused, "{symbol}");
                assert_eq!(codes(&approved).contains(&RiskCode::CorrelatedExposure), warned, "{symbol}");
            }
            Err(code) => assert_eq!(Some(code), refused, "{symbol}"),
        }
    }
}

fn crowded() -> (RiskView, RiskRules) {
    let mut settings = fixtures::risk();
    settings.correlations.clear();
    settings.max_correlated_exposure_pct = dec("500");
    let mut view = fixtures::view(NOW);
    view.held.push(held("ETH/USDT", "6000"));
    (view, fixtures::rules_for(&settings, AccountMode::Spot))
}

proptest! {
    #[test]
    fn a095_d47_of_four_concurrent_entries_exactly_one_fits_in_any_order(order in Just([1u8, 2, 3, 4]).prop_shuffle()) {
        let (mut view, rules) = crowded();
        let mut answers = Vec::new();
        for n in order {
            let symbol = ["BTC/USDT", "XRP/USDT", "BTC/USDT", "XRP/USDT"][usize::from(n) - 1];
            let asked = RiskRequest { key: key(n), ..request(symbol, "2000") };
            answers.push(check_and_reserve(&mut view, &rules, &asked, NOW).map_err(|refusal| refusal.code));
        }
        prop_assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        prop_assert!(answers.iter().filter_map(|a| a.as_ref().err()).all(|code| *code == RiskCode::ExposureLimit));
    }

    #[test]
    fn modifications_only_ever_reduce(
        usd in 1i64..40_000,
        stop_bp in 50i64..500,
        leverage in 1u32..9,
        losses in 0u32..8,
        spike: bool,
        regime in 0usize..8,
        equity in 5_000i64..10_000,
    ) {
        let view = RiskView { losses, equity: Decimal::from(equity), ..fixtures::view(NOW) };
        let asked = RiskRequest {
            notional_usd: Decimal::from(usd),
            stop: Some(dec("100") - Decimal::new(stop_bp, 2)),
            target: None,
            leverage,
            confidence: Score::ONE,
            regime: Regime::ALL[regime],
            volatility_spike: spike,
            ..request("XRP/USDT", "1")
        };
        for rules in [rules(), margin_rules()] {
            if let Ok(approved) = check(&view, &rules, &asked, NOW) {
                prop_assert!(approved.notional_usd <= asked.notional_usd);
                prop_assert!(approved.leverage <= leverage && approved.leverage >= 1);
                prop_assert!(approved.quantity * asked.entry * asked.quote_usd <= approved.notional_usd);
                prop_assert!(approved.notional_usd * dec("100") <= view.equity * dec("20"));
                prop_assert_eq!(approved.reservation.notional_usd, approved.notional_usd);
            }
        }
    }
}

#[test]
fn a101_d02_an_unknown_or_old_account_refuses() {
    let unknown = RiskView { equity_at: None, ..fixtures::view(NOW) };
    assert_eq!(judge(&unknown, &rules(), &request("BTC/USDT", "1000")).err(), Some(RiskCode::NoAccountState));
    for (age, expected) in [(60_000, None), (61_000, Some(RiskCode::NoAccountState))] {
        let view = fixtures::view(NOW.plus_ms(-age));
        assert_eq!(judge(&view, &rules(), &request("BTC/USDT", "1000")).err(), expected, "{age} ms");
    }
}

#[test]
fn a102_an_old_or_missing_price_refuses() {
    let view = fixtures::view(NOW);
    for (at, expected) in [
        (Some(NOW.plus_ms(-60_000)), None),
        (Some(NOW.plus_ms(-61_000)), Some(RiskCode::PriceStale)),
        (None, Some(RiskCode::PriceStale)),
    ] {
        let asked = RiskRequest { price_at: at, ..request("BTC/USDT", "1000") };
        assert_eq!(judge(&view, &rules(), &asked).err(), expected, "{at:?}");
    }
}

#[test]
fn a115_a_latched_breaker_refuses_whatever_the_state() {
    let view = RiskView { halting: Some(BreakerKind::DailyLoss), ..fixtures::view(NOW) };
    let refusal = check(&view, &rules(), &request("BTC/USDT", "1000"), NOW).unwrap_err();
    assert_eq!(refusal.code, RiskCode::TradingHalted);
    assert_eq!(refusal.measured, "breaker daily_loss latched");
}

#[test]
fn r17_a_cooldown_ends_by_its_end_time_alone() {
    let mut view = fixtures::view(NOW);
    view.cooldown_until = NOW.plus_ms(1);
    view.cooldown_cause = Some(CooldownCause::AfterLoss);
    let asked = request("BTC/USDT", "1000");
    assert_eq!(judge(&view, &rules(), &asked).err(), Some(RiskCode::InCooldown));
    view.cooldown_until = NOW;
    assert_eq!(judge(&view, &rules(), &asked).err(), None);
}

#[test]
fn the_cooldown_of_a_rebalance_holds_only_its_assets() {
    let mut view = fixtures::view(NOW);
    view.asset_cooldowns.push((sym("BTC/USDT").base, NOW.plus_ms(1)));
    assert_eq!(judge(&view, &rules(), &request("BTC/USDT", "1000")).err(), Some(RiskCode::InCooldown));
    assert_eq!(judge(&view, &rules(), &request("XRP/USDT", "1500")).err(), None);
}

#[test]
fn r15_a_spike_halves_and_disagreement_is_remarked() {
    let asked = RiskRequest {
        volatility_spike: true,
        ta_confidence: Some(score("0.90")),
        sentiment_confidence: Some(score("0.69")),
        ..request("BTC/USDT", "1000")
    };
    let approved = judge(&fixtures::view(NOW), &rules(), &asked).unwrap();
    assert_eq!(approved.notional_usd, dec("500"));
    assert_eq!(codes(&approved), [RiskCode::AgentDisagreement, RiskCode::VolatilitySpike]);
    let equal = RiskRequest { sentiment_confidence: Some(score("0.70")), volatility_spike: false, ..asked };
    assert!(judge(&fixtures::view(NOW), &rules(), &equal).unwrap().notes.is_empty());
}

#[test]
fn limits_of_size_slots_and_funds_have_their_codes() {
    let view = fixtures::view(NOW);
    assert_eq!(judge(&view, &rules(), &request("XRP/USDT", "999")).err(), Some(RiskCode::BelowMinimum));
    let mut two = fixtures::view(NOW);
    two.held = vec![held("BTC/USDT", "10"), held("BTC/USDT", "10")];
    assert_eq!(judge(&two, &rules(), &request("BTC/USDT", "100")).err(), Some(RiskCode::PositionLimit));
    let mut five = fixtures::view(NOW);
    five.held = (0..5).map(|_| held("ETH/USDT", "10")).collect();
    assert_eq!(judge(&five, &rules(), &request("BTC/USDT", "100")).err(), Some(RiskCode::PositionLimit));
    let poor = RiskView { free: vec![(fixtures::usdt(), dec("1002.59"))], ..fixtures::view(NOW) };
    assert_eq!(judge(&poor, &rules(), &request("BTC/USDT", "1000")).err(), Some(RiskCode::InsufficientFunds));
    let enough = RiskView { free: vec![(fixtures::usdt(), dec("1002.60"))], ..fixtures::view(NOW) };
    assert_eq!(judge(&enough, &rules(), &request("BTC/USDT", "1000")).unwrap().reservation.funds, dec("1002.6"));
    let mut used = fixtures::view(NOW);
    used.held.push(Held { margin_usd: dec("4500"), ..held("ETH/USDT", "4500") });
    assert_eq!(judge(&used, &margin_rules(), &request("BTC/USDT", "1000")).err(), Some(RiskCode::InsufficientMargin));
}

#[test]
fn a_proposal_that_is_none_names_its_field() {
    let good = request("BTC/USDT", "1000");
    let cases = [
        (RiskRequest { stop: Some(dec("100")), ..good.clone() }, "stop"),
        (RiskRequest { target: Some(dec("99")), ..good.clone() }, "target"),
        (RiskRequest { leverage: 0, ..good.clone() }, "leverage"),
        (RiskRequest { entry: dec("0"), ..good.clone() }, "entry"),
        (RiskRequest { notional_usd: dec("0"), ..good.clone() }, "notional"),
        (RiskRequest { symbol: sym("ETH/USDT"), ..good.clone() }, "symbol"),
        (RiskRequest { entry: Decimal::MAX, ..good.clone() }, "entry"),
        (RiskRequest { quote_usd: Decimal::MAX, ..good.clone() }, "quote price"),
        (RiskRequest { target: Some(Decimal::MAX), ..good.clone() }, "level"),
    ];
    for (asked, field) in cases {
        let refusal = check(&fixtures::view(NOW), &rules(), &asked, NOW).unwrap_err();
        assert_eq!(refusal.code, RiskCode::InvalidProposal);
        assert!(refusal.measured.starts_with(field), "{refusal:?}");
    }
    let bare = RiskRequest { stop: None, ..good };
    assert_eq!(judge(&fixtures::view(NOW), &rules(), &bare).err(), Some(RiskCode::StopLossRequired));
}

#[test]
fn e05_a_symbol_with_a_trade_of_unknown_outcome_takes_no_entry_and_others_do() {
    let mut view = fixtures::view(NOW);
    view.blocked.push(sym("BTC/USDT"));
    assert_eq!(judge(&view, &rules(), &request("BTC/USDT", "1000")), Err(RiskCode::SymbolBlocked));
    assert!(judge(&view, &rules(), &request("XRP/USDT", "1000")).is_ok());
}

#[test]
fn a_symbol_whose_prices_have_stopped_takes_no_entry_and_others_do() {
    let mut view = fixtures::view(NOW);
    view.silent.insert(sym("BTC/USDT"));
    assert_eq!(judge(&view, &rules(), &request("BTC/USDT", "1000")), Err(RiskCode::FeedSilent));
    assert!(judge(&view, &rules(), &request("XRP/USDT", "1000")).is_ok());
}

#[test]
fn what_lies_exactly_at_a_limit_is_neither_shrunk_nor_noted() {
    let view = fixtures::view(NOW);
    let mut settings = fixtures::risk();
    settings.max_risk_per_trade_pct = dec("0.5");
    let asked = RiskRequest { notional_usd: dec("1250"), ..with_stop("XRP/USDT", "100", "96") };
    let approved = judge(&view, &fixtures::rules_for(&settings, AccountMode::Margin), &asked).unwrap();
    assert_eq!((approved.notional_usd, codes(&approved)), (dec("1250"), vec![]), "the allowed loss");

    let mut settings = fixtures::risk();
    settings.loss_size_factor = dec("1");
    let losing = RiskView { losses: LOSSES_HALVING, ..fixtures::view(NOW) };
    let approved =
        judge(&losing, &fixtures::rules_for(&settings, AccountMode::Margin), &request("BTC/USDT", "1000")).unwrap();
    assert!(!codes(&approved).contains(&RiskCode::SizeReducedLosses), "a factor of 1 reduces nothing");

    let mut settings = fixtures::risk();
    settings.correlation_min = dec("0.75");
    let unfunded = Held { margin_usd: Money::ZERO, ..held("XRP/USDT", "5000") };
    let full = RiskView { held: vec![unfunded], ..fixtures::view(NOW) };
    let rules = fixtures::rules_for(&settings, AccountMode::Margin);
    assert!(judge(&full, &rules, &request("BTC/USDT", "1000")).is_ok(), "rho counts above the smallest");

    let doubtful = RiskRequest { confidence: score("0"), ..request("BTC/USDT", "1000") };
    assert_eq!(judge(&view, &rules, &doubtful).err(), Some(RiskCode::ConfidenceTooLow), "0 is a confidence");
}

#[test]
fn a_quantity_is_worth_its_notional_in_the_quote_of_the_symbol() {
    let asked = RiskRequest {
        entry: dec("0.00002"),
        stop: Some(dec("0.0000196")),
        target: Some(dec("0.0000212")),
        quote_usd: dec("50000"),
        ..request("XRP/BTC", "1000")
    };
    assert_eq!(judge(&fixtures::view(NOW), &margin_rules(), &asked).unwrap().quantity, dec("1000"));
}

#[test]
fn margin_is_free_for_itself_and_the_fee() {
    let mut settings = fixtures::risk();
    settings.max_margin_utilisation_pct = dec("100");
    let rules = fixtures::rules_for(&settings, AccountMode::Margin);
    for (used, expected) in [("8997.4", None), ("8997.5", Some(RiskCode::InsufficientMargin))] {
        let taken = Held { margin_usd: dec(used), ..held("XRP/USDT", "100") };
        let view = RiskView { held: vec![taken], ..fixtures::view(NOW) };
        assert_eq!(judge(&view, &rules, &request("BTC/USDT", "1000")).err(), expected, "{used} used");
    }
}

#[test]
fn limits_hold_exactly_at_their_value() {
    let view = fixtures::view(NOW);
    let whole = judge(&view, &rules(), &request("BTC/USDT", "2000")).unwrap();
    assert_eq!((whole.notional_usd, codes(&whole)), (dec("2000"), vec![]), "20 % of the equity is not reduced");
    let floor = rules().confidence_floor(Regime::TrendingBull, 0);
    let asked = |confidence| RiskRequest { confidence, ..request("BTC/USDT", "1000") };
    assert_eq!(judge(&view, &rules(), &asked(floor)).err(), None);
    assert_eq!(judge(&view, &rules(), &asked(Score(floor.0 - 1))).err(), Some(RiskCode::ConfidenceTooLow));

    let one = RiskView { held: vec![held("BTC/USDT", "10")], ..fixtures::view(NOW) };
    assert_eq!(judge(&one, &rules(), &request("BTC/USDT", "100")).err(), None, "the second of two in a symbol");
    let four = RiskView { held: (0..4).map(|_| held("ETH/USDT", "10")).collect(), ..fixtures::view(NOW) };
    assert_eq!(judge(&four, &rules(), &request("BTC/USDT", "100")).err(), None, "the fifth of five in all");

    let mut settings = fixtures::risk();
    settings.volatility.size_factor = dec("1");
    let spike = RiskRequest { volatility_spike: true, ..request("BTC/USDT", "1000") };
    let approved = judge(&view, &fixtures::rules_for(&settings, AccountMode::Spot), &spike).unwrap();
    assert_eq!(codes(&approved), vec![], "a factor of 1 reduces nothing");
}

#[test]
fn an_account_worth_nothing_is_refused_as_such_and_an_old_one_as_old() {
    for equity in ["0", "-5"] {
        let view = RiskView { equity: dec(equity), ..fixtures::view(NOW) };
        let refusal = check(&view, &rules(), &request("BTC/USDT", "1000"), NOW).unwrap_err();
        assert_eq!((refusal.code, refusal.measured), (RiskCode::NoAccountState, format!("equity {equity}")));
    }
    let refusal =
        check(&fixtures::view(NOW.plus_ms(-61_000)), &rules(), &request("BTC/USDT", "1000"), NOW).unwrap_err();
    assert_eq!((&*refusal.measured, &*refusal.limit), ("account view 61 s old", "at most 60 s old"));
}

#[test]
fn a_refusal_names_what_was_measured_and_its_limit() {
    let said = |symbol, stop| {
        let refusal = check(&fixtures::view(NOW), &rules(), &with_stop(symbol, "100", stop), NOW).unwrap_err();
        (refusal.measured, refusal.limit)
    };
    assert_eq!(said("XRP/USDT", "99.51"), ("0.49 %".to_owned(), "at least 0.5 %".to_owned()));
    assert_eq!(said("BTC/USDT", "96.99"), ("3.01 %".to_owned(), "at most 3 %".to_owned()));
    let waits = |view: &RiskView| check(view, &rules(), &request("BTC/USDT", "1000"), NOW).unwrap_err().measured;
    let own = RiskView {
        cooldown_until: NOW.plus_ms(1),
        cooldown_cause: Some(CooldownCause::AfterLoss),
        ..fixtures::view(NOW)
    };
    assert_eq!(waits(&own), "cooldown AfterLoss");
    let of_a_plan = RiskView { asset_cooldowns: vec![(sym("BTC/USDT").base, NOW.plus_ms(2))], ..own };
    assert_eq!(waits(&of_a_plan), "cooldown rebalance", "the longer one is named");
}

#[test]
fn a_quantity_of_nothing_is_none_even_where_no_smallest_is_set() {
    let mut symbols = fixtures::symbols();
    symbols.get_mut(&sym("XRP/USDT")).unwrap().min_quantity = Decimal::ZERO;
    let rules = RiskRules::new(crate::risk::RulesInput {
        risk: &fixtures::risk(),
        regimes: &fixtures::regimes(),
        strictness: &fixtures::strictness(),
        emergency: &fixtures::emergency(),
        symbols: &symbols,
        taker_fee_pct: dec("0.26"),
        price_max_age_seconds: 60,
        mode: AccountMode::Spot,
    })
    .unwrap();
    let asked = request("XRP/USDT", "99");
    assert_eq!(judge(&fixtures::view(NOW), &rules, &asked).err(), Some(RiskCode::BelowMinimum), "0.99 of a whole lot");
    assert!(judge(&fixtures::view(NOW), &rules, &request("XRP/USDT", "100")).is_ok());
}
