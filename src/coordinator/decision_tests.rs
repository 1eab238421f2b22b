//! Tests of the decision rules of `coordinator`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    coordinator::{
        consensus::Opinion,
        disputed::{after_resolution, spike_cooldown},
        fixtures::{NOW, regime, sentiment, signal, ta},
        resolution,
    },
    model::{
        Bias, CooldownCause, Modifications, RegimeOutput, Resolution, ResolutionAction, SentimentBias, SentimentOutput,
        TaOutput,
    },
    risk::fixtures::{self, dec, key, position, score},
};

/// Owns what [`DecisionInputs`] borrows.
struct Desk {
    signal: Signal,
    ta: TaOutput,
    regime: RegimeOutput,
    sentiment: Option<SentimentOutput>,
    positions: Vec<Position>,
    resting: Vec<TradeKey>,
    gate: Gate,
    view: RiskView,
    risk: RiskRules,
    conflicts: ConflictSettings,
    sell_closes: SellCloses,
    price_age_s: i64,
}

fn desk(action: Action, confidence: &str, market: Regime) -> Desk {
    Desk {
        signal: signal(action, confidence),
        ta: ta("BTC/USDT", Bias::Long, "0.70", 10),
        regime: regime("BTC/USDT", market, 10),
        sentiment: None,
        positions: vec![],
        resting: vec![],
        gate: Gate { state: CoordinatorState::Running, level: DegradationLevel::Normal, now: NOW },
        view: fixtures::view(NOW),
        risk: fixtures::rules(),
        conflicts: fixtures::conflicts(),
        sell_closes: SellCloses::Full,
        price_age_s: 1,
    }
}

impl Desk {
    /// With every conflict settled by the configured fallback.
    fn run(&self) -> Progress {
        let begun = self.begin();
        let Next::Resolve(disputed) = begun.next else { return begun };
        assert!(begun.cancel_first.is_empty() && begun.defer_legs.is_empty(), "nothing moves before it is settled");
        let settled = resolution::fallback(&disputed.conflicts, &self.conflicts, Vec::new());
        let mut progress = after_resolution(DecisionId::default(), *disputed, settled, &self.risk);
        progress.events = [begun.events, progress.events].concat();
        progress
    }

    fn disputed(&self) -> Disputed {
        match self.begin().next {
            Next::Resolve(disputed) => *disputed,
            next => panic!("{next:?}"),
        }
    }

    fn begin(&self) -> Progress {
        let positions: Vec<&Position> = self.positions.iter().collect();
        begin(
            &DecisionInputs {
                decision: DecisionId::default(),
                key: key(1),
                signal: &self.signal,
                gate: self.gate,
                positions: &positions,
                resting: &self.resting,
                opinions: Opinions {
                    ta: Opinion::Given(&self.ta),
                    regime: Opinion::Given(&self.regime),
                    sentiment: self.sentiment.as_ref().map_or(Opinion::Missing, Opinion::Given),
                },
                enabled: Eligible { ta: true, regime: true, sentiment: self.sentiment.is_some() },
                plan: None,
                price: Some(PriceAt { price: dec("100"), at: NOW.plus_ms(-self.price_age_s * 1000) }),
                quote_usd: Some(Money::ONE),
                volatility_spike: false,
                view: &self.view,
                rules: DecisionRules {
                    consensus: &fixtures::consensus(),
                    conflicts: &self.conflicts,
                    decision: &DecisionSettings { max_age_seconds: 120 },
                    degradation: &fixtures::degradation(),
                    regimes: &fixtures::regimes(),
                    sell_closes: self.sell_closes,
                    risk: &self.risk,
                },
            },
            BTreeMap::new(),
        )
    }

    fn end(&self) -> String {
        match self.run().next {
            Next::Ended(DecisionEnd::Suppressed(why)) => format!("suppressed({why})"),
            Next::Ended(DecisionEnd::NothingToDo(why)) => format!("nothing_to_do({why})"),
            Next::Ended(end) => end.name().to_owned(),
            next => format!("{next:?}"),
        }
    }

    fn request(&self) -> RiskRequest {
        match self.run().next {
            Next::NeedRisk(request) => *request,
            next => panic!("{next:?}"),
        }
    }

    fn verdict(&self, gate: Gate) -> Progress {
        let request = self.request();
        let verdict = risk::check(&self.view, &self.risk, &request, NOW);
        let settings = DecisionSettings { max_age_seconds: 120 };
        after_risk(DecisionId::default(), &request, verdict, self.signal.head.produced_at, gate, &settings)
    }
}

fn kinds(progress: &Progress) -> Vec<&'static str> {
    progress.events.iter().map(Event::kind).collect()
}

#[test]
fn a040_an_agreed_buy_asks_risk_for_its_size() {
    let desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    let steps = ["SignalReceived", "DecisionClassified", "ConsensusComputed", "Sized"];
    assert_eq!(kinds(&desk.run()), steps);
    let request = desk.request();
    assert_eq!((request.notional_usd, request.confidence), (dec("1000"), score("0.91")));
    let progress = desk.verdict(desk.gate);
    assert_eq!(kinds(&progress), ["RiskApproved"]);
    assert!(matches!(progress.next, Next::Intent(order) if order.quantity == dec("10") && order.leverage == 1));
}

#[test]
fn a_silent_feed_stops_entries_of_its_symbol_and_no_exit() {
    let mut desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    desk.view.silent.insert(fixtures::sym("XRP/USDT"));
    assert!(matches!(desk.run().next, Next::NeedRisk(_)), "another symbol's");
    desk.view.silent.insert(fixtures::sym("BTC/USDT"));
    assert_eq!(desk.end(), "suppressed(feed_silent)");
    desk.signal = signal(Action::Sell, "0.70");
    desk.positions = vec![position(3, "BTC/USDT", "2", "90")];
    assert!(matches!(desk.run().next, Next::Exit(_)), "an exit goes on");
}

#[test]
fn a041_dissent_lowers_confidence_and_risk_refuses() {
    let mut desk = desk(Action::Buy, "0.70", Regime::Ranging);
    desk.ta = ta("BTC/USDT", Bias::Short, "0.90", 10);
    desk.sentiment = Some(sentiment("BTC/USDT", SentimentBias::Bearish, "0.60", 10));
    assert_eq!(desk.request().confidence, score("0.595"));
    let progress = desk.verdict(desk.gate);
    assert_eq!(kinds(&progress), ["RiskRefused", "DecisionEnded"]);
    let Next::Ended(DecisionEnd::Refused(refusal)) = progress.next else { panic!() };
    assert_eq!((refusal.code, refusal.limit.as_str()), (RiskCode::ConfidenceTooLow, "at least 0.6500"));
}

#[test]
fn a051_d33_exits_and_holds_take_no_multiplier() {
    for action in [Action::Sell, Action::CloseLong] {
        let mut desk = desk(action, "0.10", Regime::Choppy);
        desk.positions = vec![position(1, "BTC/USDT", "0.5", "50")];
        desk.gate.level = DegradationLevel::Emergency;
        desk.view.cooldown_until = NOW.plus_ms(1_000);
        let progress = desk.run();
        assert_eq!(kinds(&progress), ["SignalReceived", "DecisionClassified"]);
        let Next::Exit(order) = progress.next else { panic!("{progress:?}") };
        assert_eq!((order.side, order.quantity), (Side::Sell, dec("0.5")));
    }
    assert_eq!(desk(Action::Hold, "0.5", Regime::Ranging).end(), "hold");
}

#[test]
fn a053_d31_the_recorded_signal_keeps_its_confidence() {
    let desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    let progress = desk.run();
    let Event::SignalReceived { signal, .. } = &progress.events[0] else { panic!() };
    assert_eq!(**signal, desk.signal);
}

#[test]
fn a056_choppy_without_a_resolver_aborts() {
    let progress = desk(Action::Buy, "0.70", Regime::Choppy).run();
    assert!(matches!(&progress.next, Next::Ended(DecisionEnd::Aborted(why)) if why == "regime_conflict"));
    assert_eq!(
        kinds(&progress),
        [
            "SignalReceived",
            "DecisionClassified",
            "ConsensusComputed",
            "ConflictsFound",
            "ResolutionDone",
            "DecisionEnded"
        ]
    );
}

#[test]
fn a058_both_conflicts_take_the_most_cautious_action() {
    let mut desk = desk(Action::Buy, "0.70", Regime::Choppy);
    desk.sentiment = Some(sentiment("BTC/USDT", SentimentBias::Bearish, "0.60", 10));
    assert_eq!(desk.end(), "aborted");
    desk.regime = regime("BTC/USDT", Regime::Ranging, 10);
    assert_eq!(desk.end(), "waited");
}

#[test]
fn a065_a125_f04_degraded_levels_halve_and_then_suppress_entries() {
    let mut desk = desk(Action::Buy, "0.70", Regime::Ranging);
    assert_eq!(desk.request().notional_usd, dec("600"));
    desk.gate.level = DegradationLevel::Reduced;
    assert_eq!(desk.request().notional_usd, dec("300"));
    for level in [DegradationLevel::Limited, DegradationLevel::Emergency] {
        desk.gate.level = level;
        assert_eq!(desk.end(), "suppressed(degraded)");
    }
}

#[test]
fn a046_reduced_leaves_sentiment_out_of_the_eligible() {
    let mut desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    desk.sentiment = Some(sentiment("BTC/USDT", SentimentBias::Bearish, "0.10", 10));
    desk.gate.level = DegradationLevel::Reduced;
    assert_eq!(desk.request().confidence, score("0.91"));
}

#[test]
fn d54_a_closed_gate_is_never_silent() {
    let mut desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    desk.gate.state = CoordinatorState::Paused;
    assert_eq!(desk.end(), "suppressed(paused)");
    desk.gate.state = CoordinatorState::Halted;
    assert_eq!(desk.end(), "suppressed(halted)");
    assert_eq!(kinds(&desk.run()), ["SignalReceived", "DecisionEnded"]);
}

#[test]
fn a113_d16_a_pause_between_signal_and_order_suppresses() {
    let desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    let paused = Gate { state: CoordinatorState::Paused, ..desk.gate };
    let progress = desk.verdict(paused);
    assert_eq!(progress.next, Next::Ended(DecisionEnd::Suppressed("paused".into())));
    assert_eq!(kinds(&progress), ["DecisionEnded"], "nothing is reserved for it");
    let degraded = Gate { level: DegradationLevel::Limited, ..desk.gate };
    assert_eq!(desk.verdict(degraded).next, Next::Ended(DecisionEnd::Suppressed("degraded".into())));
}

#[test]
fn a_signal_older_than_its_limit_expires_at_the_intent() {
    let mut desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    desk.signal.head.produced_at = NOW.plus_ms(-120_000);
    assert!(matches!(desk.verdict(desk.gate).next, Next::Intent(_)));
    desk.signal.head.produced_at = NOW.plus_ms(-120_001);
    assert_eq!(desk.verdict(desk.gate).next, Next::Ended(DecisionEnd::Expired));
}

#[test]
fn an_entry_whose_price_moved_further_than_its_limit_ends_with_the_numbers() {
    let judged = |newest: Option<&str>| moved(DecisionId::default(), dec("100"), newest.map(dec), dec("0.5"));
    for still in [None, Some("100"), Some("100.5"), Some("99.5")] {
        assert_eq!(judged(still), None, "{still:?}");
    }
    for (newest, part) in [("100.51", "0.51 %"), ("99.49", "-0.51 %")] {
        let Some(Event::DecisionEnded { end: DecisionEnd::Expired, reason: Some(reason), .. }) = judged(Some(newest))
        else {
            panic!("{newest} is too far")
        };
        assert!(reason.starts_with("price_moved: 100 -> ") && reason.contains(part), "{reason}");
    }
}

#[test]
fn a102_nothing_moves_without_a_fresh_price() {
    let mut desk = desk(Action::CloseLong, "0.70", Regime::TrendingBull);
    desk.positions = vec![position(1, "BTC/USDT", "0.5", "50")];
    desk.price_age_s = 60;
    assert!(matches!(desk.run().next, Next::Exit(_)));
    desk.price_age_s = 61;
    assert_eq!(desk.end(), "suppressed(price_stale)");
}

#[test]
fn d32_e02_routing_in_spot_and_margin() {
    let long = position(1, "BTC/USDT", "1", "100");
    let short = Position { side: PositionSide::Short, ..position(2, "BTC/USDT", "1", "100") };
    let spot = |action, held: &[&Position]| format!("{:?}", short_form(route(action, AccountMode::Spot, held)));
    let margin = |action, held: &[&Position]| format!("{:?}", short_form(route(action, AccountMode::Margin, held)));
    assert_eq!(spot(Action::Sell, &[]), "\"nothing: no position to sell\"");
    assert_eq!(spot(Action::Sell, &[&long]), "\"exit P1\"");
    assert_eq!(spot(Action::Buy, &[&long]), "\"entry buy\"");
    assert_eq!(spot(Action::CloseShort, &[&long]), "\"nothing: no short position\"");
    assert_eq!(margin(Action::Sell, &[]), "\"entry sell\"");
    assert_eq!(margin(Action::Sell, &[&long]), "\"exit P1\"");
    assert_eq!(margin(Action::Buy, &[&short]), "\"exit P2\"");
    let leaving = Position { exiting: Some(key(9)), ..long };
    assert_eq!(spot(Action::Sell, &[&leaving]), "\"nothing: an exit is under way\"");
}

fn short_form(routed: Routed<'_>) -> String {
    match routed {
        Routed::Entry(side) => format!("entry {}", side.name()),
        Routed::Exit(position) => format!("exit {}", position.id),
        Routed::Nothing(why) => format!("nothing: {why}"),
    }
}

#[test]
fn resting_entries_are_replaced_and_small_sizes_end_early() {
    let mut desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    desk.resting = vec![key(5)];
    assert_eq!(desk.run().cancel_first, [key(5)]);
    desk.signal.action = Action::Sell;
    assert_eq!(desk.end(), "nothing_to_do(no position to sell)");
    assert_eq!(desk.run().cancel_first, [key(5)], "the market turned against the resting buy");
    desk.signal.action = Action::Buy;
    desk.signal.position_size_pct = Score(1);
    desk.view.equity = dec("1");
    assert_eq!(desk.end(), "below_minimum");
}

#[test]
fn a_sized_sell_closes_its_share_only() {
    let mut desk = desk(Action::Sell, "0.70", Regime::TrendingBull);
    desk.positions = vec![position(1, "BTC/USDT", "50", "5000")];
    desk.sell_closes = SellCloses::Sized;
    assert!(matches!(desk.run().next, Next::Exit(order) if order.quantity == dec("10")));
}

#[test]
fn risk_override_is_judged_on_a_dry_run() {
    let mut desk = desk(Action::Buy, "0.70", Regime::VolatileBull);
    desk.signal.head.confidence = score("0.95");
    assert!(matches!(desk.run().next, Next::NeedRisk(_)));
    desk.conflicts.detect.insert(crate::model::ConflictKind::RiskOverride, true);
    assert_eq!(desk.end(), "aborted", "0.4 of the size is less than half");
}

fn resolved(action: ResolutionAction, modifications: Option<Modifications>) -> Resolution {
    Resolution {
        action,
        by: "double".into(),
        errors: vec![],
        confidence: Some(score("0.9")),
        modifications,
        model: None,
    }
}

#[test]
fn a057_a_resolver_that_waits_ends_the_decision() {
    let mut desk = desk(Action::Buy, "0.95", Regime::Choppy);
    desk.resting = vec![key(5)];
    let settle = |settled| after_resolution(DecisionId::default(), desk.disputed(), settled, &desk.risk);
    let waited = settle(resolved(ResolutionAction::Wait, None));
    assert!(matches!(&waited.next, Next::Ended(DecisionEnd::Waited(why)) if why == "regime_conflict"));
    assert_eq!((kinds(&waited), waited.cancel_first), (vec!["ResolutionDone", "DecisionEnded"], vec![]));
    let on = settle(resolved(ResolutionAction::Proceed, None));
    assert_eq!((kinds(&on), on.cancel_first), (vec!["ResolutionDone", "Sized"], vec![key(5)]));
}

#[test]
fn a063_a_modified_entry_keeps_stop_and_target_and_is_checked_again() {
    let desk = desk(Action::Buy, "0.95", Regime::Choppy);
    let disputed = desk.disputed();
    let original = disputed.request.clone();
    let settle = |cut: Option<&str>, shift: Option<&str>| {
        let changes = Modifications {
            leverage: None,
            size_reduction_pct: cut.map(score),
            entry_adjustment_pct: shift.map(score),
        };
        let settled = resolved(ResolutionAction::Modify, Some(changes));
        after_resolution(DecisionId::default(), disputed.clone(), settled, &desk.risk).next
    };
    let Next::NeedRisk(request) = settle(Some("40"), Some("-0.5")) else { panic!() };
    assert_eq!((request.stop, request.target), (original.stop, original.target));
    assert_eq!(request.entry, original.entry * dec("0.995"));
    assert_eq!(request.notional_usd, original.notional_usd * dec("0.6"));
    let Next::Ended(DecisionEnd::Refused(refusal)) = settle(None, Some("2")) else { panic!() };
    assert_eq!(refusal.code, RiskCode::InvalidProposal);
}

#[test]
fn a_volatility_spike_makes_the_next_decisions_wait_and_never_shortens_a_cooldown() {
    let desk = desk(Action::Buy, "0.70", Regime::TrendingBull);
    let calm = desk.request();
    let spike = RiskRequest { volatility_spike: true, ..calm.clone() };
    let mut state = crate::model::state::RiskState::default();
    assert_eq!(spike_cooldown(&calm, &state, &desk.risk, NOW), None);
    let until = NOW.plus_ms(15 * 60_000);
    let expected = Event::CooldownSet { until, cause: CooldownCause::VolatilitySpike };
    assert_eq!(spike_cooldown(&spike, &state, &desk.risk, NOW), Some(expected));
    state.cooldown_until = until;
    assert_eq!(spike_cooldown(&spike, &state, &desk.risk, NOW), None);
}
