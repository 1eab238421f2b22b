//! Tests of the rebalancer.

use proptest::prelude::*;
use rstest::rstest;
use rust_decimal_macros::dec;

use super::*;
use crate::{
    agents::{contract::PRICE_MISSING, fixtures::*},
    model::*,
};

const STORE: Uuid = Uuid::from_u128(7);
const HOUR: i64 = time::HOUR_MS;

fn xrp_btc() -> Symbol {
    "XRP/BTC".parse().unwrap()
}

/// Prices of the worked examples: BTC 45 000, XRP 0.60.
fn view(balances: &[(&str, Decimal)]) -> PortfolioView {
    PortfolioView {
        currency: asset("USDT"),
        balances: balances.iter().map(|(name, quantity)| (asset(name), *quantity)).collect(),
        hodl: BTreeMap::new(),
        trading: BTreeMap::new(),
        prices: BTreeMap::from([
            (btc(), (dec!(45_000), NOW)),
            (xrp(), (dec!(0.60), NOW)),
            (xrp_btc(), (dec!(0.00001333), NOW)),
        ]),
    }
}

struct Case {
    view: PortfolioView,
    plans: BTreeMap<Uuid, Plan>,
    settings: PortfolioSettings,
    ctx: RunContext,
}

impl Case {
    fn of(balances: &[(&str, Decimal)]) -> Case {
        let view = view(balances);
        Case { view, plans: BTreeMap::new(), settings: portfolio_settings(), ctx: context(Symbol::PORTFOLIO) }
    }

    fn answer(&self) -> Answer<PortfolioOutput> {
        let symbols = [btc(), xrp(), xrp_btc()];
        let inputs = PortfolioInputs {
            store: STORE,
            view: &self.view,
            plans: &self.plans,
            symbols: &symbols,
            settings: &self.settings,
            price_max_age_ms: 60_000,
        };
        plan(&self.ctx, &inputs)
    }

    fn output(&self) -> PortfolioOutput {
        match self.answer() {
            Answer::Output(output) => *output,
            other => panic!("{other:?}"),
        }
    }

    fn planned(&self) -> Plan {
        self.output().plan.expect("a plan")
    }
}

fn amounts_of(plan: &Plan, name: &str) -> Vec<Decimal> {
    plan.legs.iter().filter(|leg| leg.asset == asset(name)).map(|leg| leg.amount).collect()
}

fn slices(first: Decimal, other: Decimal, batches: usize) -> Vec<Decimal> {
    let mut all = vec![other; batches];
    all[0] = first;
    all
}

#[test]
fn a153_ten_thousand_usdt() {
    let case = Case::of(&[("USDT", dec!(10_000))]);
    let output = case.output();
    assert_eq!((output.reason.as_ref(), output.head.confidence), (DEVIATION, Score(8_000)));
    assert_eq!(output.deviation_pct, dec!(66.67));
    assert_eq!(output.shares[&asset("USDT")], dec!(100));
    let plan = output.plan.expect("a plan");
    for name in ["BTC", "XRP"] {
        assert_eq!(amounts_of(&plan, name), slices(dec!(555.58), dec!(555.55), 6));
    }
    let mut due: Vec<i64> = plan.legs.iter().map(|leg| leg.due_at.since_ms(NOW) / HOUR).collect();
    due.dedup();
    assert_eq!(due, [0, 4, 8, 12, 16, 20]);
    assert!(plan.legs.iter().all(|leg| leg.side == Side::Buy && leg.state == TradeState::Planned));
    assert_eq!((plan.state, plan.created_at, plan.spacing_ms), (PlanState::Active, NOW, 4 * HOUR));
}

#[test]
fn a154_sell_bitcoin_buy_ripple() {
    let case = Case::of(&[("BTC", dec!(0.5)), ("XRP", dec!(10_000)), ("USDT", dec!(5_000))]);
    let output = case.output();
    assert_eq!(output.deviation_pct, dec!(33.83));
    assert_eq!(output.head.warnings, ["alert: deviation of 33.83 points, limit 15"]);
    let plan = output.plan.expect("a plan");
    assert_eq!(amounts_of(&plan, "BTC"), slices(dec!(1888.93), dec!(1888.88), 6));
    assert_eq!(amounts_of(&plan, "XRP"), vec![dec!(861.11); 6]);
    let order: Vec<(u32, Side)> = plan.legs.iter().map(|leg| (leg.batch, leg.side)).collect();
    let expected: Vec<(u32, Side)> = (0..6).flat_map(|batch| [(batch, Side::Sell), (batch, Side::Buy)]).collect();
    assert_eq!(order, expected, "the sells of a batch precede its buys");
}

#[test]
fn a155_configured_weights() {
    let mut case = Case::of(&[("USDT", dec!(10_000))]);
    case.settings.targets =
        BTreeMap::from([(asset("BTC"), dec!(50)), (asset("XRP"), dec!(30)), (asset("USDT"), dec!(20))]);
    let plan = case.planned();
    assert_eq!(amounts_of(&plan, "BTC"), slices(dec!(833.35), dec!(833.33), 6));
    assert_eq!(amounts_of(&plan, "XRP"), vec![dec!(500.00); 6]);
}

/// Weights 2 BTC, 1 XRP, 1 USDT over `total`, with `off` moved from USDT to XRP.
fn off_by(total: Decimal, off: Decimal) -> Case {
    let quarter = total / dec!(4);
    let mut case = Case::of(&[("BTC", quarter * dec!(2)), ("XRP", quarter + off), ("USDT", quarter - off)]);
    case.settings.targets =
        BTreeMap::from([(asset("BTC"), dec!(2)), (asset("XRP"), dec!(1)), (asset("USDT"), dec!(1))]);
    for symbol in [btc(), xrp()] {
        case.view.prices.insert(symbol, (dec!(1), NOW));
    }
    case
}

#[test]
fn a156_the_threshold_is_inclusive() {
    let below = off_by(dec!(10_000), dec!(499)).output();
    assert_eq!((below.plan.is_none(), below.reason.as_ref()), (true, WITHIN_THRESHOLD));
    assert_eq!((below.deviation_pct, below.head.confidence), (dec!(4.99), Score::ONE));
    assert!(off_by(dec!(10_000), dec!(500)).output().plan.is_some());
    // thirds: a share that is no finite decimal must still reach the threshold exactly
    let mut thirds = Case::of(&[("BTC", dec!(115)), ("XRP", dec!(100)), ("USDT", dec!(85))]);
    for symbol in [btc(), xrp()] {
        thirds.view.prices.insert(symbol, (dec!(1), NOW));
    }
    let output = thirds.output();
    assert_eq!((output.deviation_pct, output.reason.as_ref()), (dec!(5.00), DEVIATION));
}

#[rstest]
#[case(dec!(499.99), 1)]
#[case(dec!(500.00), 6)]
fn a156_dca_from_its_threshold_on(#[case] sum: Decimal, #[case] batches: usize) {
    let case = off_by(dec!(8_000), sum);
    let plan = case.planned();
    assert_eq!(plan.legs.len(), batches);
    assert_eq!(plan.legs.iter().map(|leg| leg.amount).sum::<Decimal>(), sum);
}

#[test]
fn a156_a_small_leg_lowers_the_number_of_batches_for_all() {
    let amount = |name: &str, amount| Amount { asset: asset(name), symbol: btc(), side: Side::Buy, amount };
    let legs = [amount("BTC", dec!(470)), amount("XRP", dec!(45))];
    assert_eq!(batches(&legs, &portfolio_settings()), 4);
    assert_eq!(slice(dec!(45), 4), dec!(11.25));
    let mut off = portfolio_settings();
    off.dca.enabled = false;
    assert_eq!(batches(&legs, &off), 1);
}

#[test]
fn small_amounts_are_left_alone() {
    // BTC 9.99 over, USDT far over, XRP short: only XRP trades
    let mut case = Case::of(&[("BTC", dec!(109.99)), ("XRP", dec!(80.01)), ("USDT", dec!(110))]);
    for symbol in [btc(), xrp()] {
        case.view.prices.insert(symbol, (dec!(1), NOW));
    }
    let plan = case.planned();
    assert_eq!(plan.legs.len(), 1);
    assert_eq!((plan.legs[0].side, plan.legs[0].amount), (Side::Buy, dec!(19.99)));
    case.settings.min_trade_usd = dec!(50);
    assert_eq!(case.output().reason, BELOW_MINIMUM);
}

#[test]
fn a157_d19_one_plan_at_a_time_and_a_day_after_completion() {
    let mut case = Case::of(&[("USDT", dec!(10_000))]);
    let first = case.planned();
    case.plans.insert(first.id, first.clone());
    for hour in 1..20 {
        case.ctx.slot = SlotId::Grid(42 + hour);
        assert_eq!(case.output().reason, PLAN_ACTIVE);
    }
    let end = |case: &mut Case, state| {
        let plan = case.plans.get_mut(&first.id).unwrap();
        plan.state = state;
        plan.ended_at = Some(NOW);
    };
    let at = |case: &mut Case, ms| {
        case.ctx.now = NOW.plus_ms(ms);
        for price in case.view.prices.values_mut() {
            price.1 = case.ctx.now;
        }
        case.output()
    };
    end(&mut case, PlanState::Completed);
    assert_eq!(at(&mut case, 24 * HOUR - 1).reason, MIN_INTERVAL);
    assert_eq!(at(&mut case, 24 * HOUR).reason, DEVIATION);
    for state in [PlanState::Superseded, PlanState::Expired] {
        end(&mut case, state);
        assert_eq!(at(&mut case, HOUR).reason, DEVIATION, "{state:?} does not start the wait");
    }
}

#[test]
fn the_same_slot_makes_the_same_plan_and_never_a_second_one() {
    let mut case = Case::of(&[("USDT", dec!(10_000))]);
    let plan = case.planned();
    assert_eq!(plan, case.planned());
    assert_eq!(plan.id, plan_id(STORE, "42"));
    assert_eq!(plan.id.get_version_num(), 8);
    let mut keys: Vec<TradeKey> = plan.legs.iter().map(|leg| leg.key).collect();
    let expected = TradeKey::derive(STORE, TradeKind::Rebalance, &plan.id.to_string(), "0:BTC", btc(), Side::Buy);
    assert_eq!(keys[0], expected);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), plan.legs.len(), "every leg has its own key");

    case.plans.insert(plan.id, Plan { state: PlanState::Superseded, ended_at: Some(NOW), ..plan.clone() });
    assert_eq!(case.output().reason, SLOT_PLANNED);
    case.ctx.slot = SlotId::Grid(43);
    assert_ne!(case.planned().id, plan.id);
}

#[test]
fn a161_hodl_is_excluded_and_a_position_alone_causes_no_plan() {
    // balanced by thirds of 10 000, then 2000 USDT of BTC bought by a signal
    let third = dec!(3333.33);
    let mut case = Case::of(&[("BTC", third + dec!(2_000)), ("XRP", third), ("USDT", third - dec!(2_000))]);
    for symbol in [btc(), xrp()] {
        case.view.prices.insert(symbol, (dec!(1), NOW));
    }
    assert_eq!(case.output().reason, DEVIATION, "as inventory the same balances are off");
    case.view.trading.insert(btc(), dec!(2_000));
    let output = case.output();
    assert_eq!((output.reason.as_ref(), output.deviation_pct), (WITHIN_THRESHOLD, dec!(0)));

    case.view.trading.clear();
    case.view.balances.insert(asset("USDT"), third);
    case.view.hodl.insert(asset("BTC"), dec!(2_000));
    assert_eq!(case.output().reason, WITHIN_THRESHOLD, "the hodl bag does not count");
}

#[test]
fn a161_a_position_paid_with_bitcoin_counts_as_bitcoin() {
    let mut case = Case::of(&[("BTC", dec!(50)), ("XRP", dec!(200)), ("USDT", dec!(100))]);
    case.view.prices = [btc(), xrp(), xrp_btc()].map(|symbol| (symbol, (dec!(1), NOW))).into();
    case.view.prices.insert(xrp_btc(), (dec!(0.5), NOW));
    case.view.trading.insert(xrp_btc(), dec!(100));
    let output = case.output();
    assert_eq!(output.reason, WITHIN_THRESHOLD);
    assert_eq!(output.shares[&asset("BTC")], dec!(33.33));
}

#[test]
fn a_position_paid_with_an_untargeted_asset_needs_no_symbol_of_it() {
    let mut case = Case::of(&[("USDT", dec!(10_000)), ("XRP", dec!(10))]);
    case.view.trading.insert("XRP/ETH".parse().unwrap(), dec!(10));
    assert_eq!(case.output().reason, DEVIATION);
}

#[test]
fn a161_the_view_is_the_programs_own_account() {
    let mut account = state::Account::default();
    let usdt = BTreeMap::from([
        (LedgerAccount::Free, dec!(900)),
        (LedgerAccount::Locked, dec!(100)),
        (LedgerAccount::Deposits, dec!(10_000)),
    ]);
    account.ledger.insert(asset("USDT"), usdt);
    let position = Position {
        id: PositionId(1),
        symbol: btc(),
        side: PositionSide::Long,
        quantity: dec!(0.02),
        cost: dec!(900),
        leverage: 1,
        stop: None,
        target: None,
        trailing: Trailing::default(),
        opened_at: NOW,
        fees: dec!(0),
        realised: dec!(0),
        trades: Vec::new(),
        exit_seq: 0,
        exiting: None,
        past: Default::default(),
    };
    let positions = BTreeMap::from([(position.id, position)]);
    let tick = PriceTick { symbol: btc(), price: dec!(45_000), at: NOW, price_id: 1, range: None };
    let view = PortfolioView::of(&account, &positions, [tick], asset("USDT"));
    assert_eq!(view.balances, BTreeMap::from([(asset("USDT"), dec!(1_000))]));
    assert_eq!(view.trading, BTreeMap::from([(btc(), dec!(0.02))]));
    assert_eq!(view.prices, BTreeMap::from([(btc(), (dec!(45_000), NOW))]));
    assert!(view.hodl.is_empty());
}

#[test]
fn a164_a_stale_or_missing_price_abstains() {
    let mut case = Case::of(&[("USDT", dec!(10_000))]);
    case.view.prices.insert(xrp(), (dec!(0.60), NOW.plus_ms(-60_000)));
    assert!(matches!(case.answer(), Answer::Output(_)), "60 s old is fresh");
    case.view.prices.insert(xrp(), (dec!(0.60), NOW.plus_ms(-60_001)));
    assert_eq!(case.answer(), Answer::Abstain(PRICE_MISSING.into()));
    case.view.prices.remove(&xrp());
    assert_eq!(case.answer(), Answer::Abstain(PRICE_MISSING.into()));

    let mut position = Case::of(&[("USDT", dec!(10_000)), ("XRP", dec!(100))]);
    position.view.trading.insert(xrp_btc(), dec!(100));
    position.view.prices.remove(&xrp_btc());
    assert_eq!(position.answer(), Answer::Abstain(PRICE_MISSING.into()));
}

#[test]
fn an_empty_account_and_an_untargeted_asset_are_said() {
    let empty = Case::of(&[]).output();
    assert_eq!((empty.reason.as_ref(), empty.head.confidence), (EMPTY_ACCOUNT, Score::ONE));
    let other = Case::of(&[("USDT", dec!(10_000)), ("ETH", dec!(3))]).output();
    assert!(other.head.warnings.iter().any(|warning| warning.starts_with("ETH is held without a target")));
    assert!(!other.shares.contains_key(&asset("ETH")));
}

#[test]
fn a07_a_target_that_cannot_be_traded_is_a_configuration_error() {
    let mut case = Case::of(&[("USDT", dec!(10_000))]);
    case.settings.targets.insert(asset("ETH"), dec!(1));
    let Answer::Failed(cause) = case.answer() else { panic!("planned with an unknown symbol") };
    assert_eq!(cause.class, FailClass::Configuration);
    assert!(cause.message.contains("ETH/USDT"), "{}", cause.message);

    let mut huge = Case::of(&[("BTC", Decimal::MAX)]);
    assert!(matches!(huge.answer(), Answer::Failed(FailCause { class: FailClass::Validation, .. })));
    huge.view = view(&[("USDT", dec!(10_000))]);
    huge.settings.targets.insert(asset("BTC"), Decimal::MAX);
    assert!(matches!(huge.answer(), Answer::Failed(FailCause { class: FailClass::Configuration, .. })));
}

proptest! {
    #[test]
    fn legs_sum_to_their_amount_and_each_is_worth_a_trade(
        usdt in 0_i64..100_000_000,
        bitcoin in 0_i64..1_000_000,
        ripple in 0_i64..100_000_000,
        weights in [1_i64..100, 1..100, 1..100],
        most in 1_u32..48,
    ) {
        let mut case = Case::of(&[
            ("USDT", Decimal::new(usdt, 2)),
            ("BTC", Decimal::new(bitcoin, 5)),
            ("XRP", Decimal::new(ripple, 2)),
        ]);
        case.settings.dca.batches = most;
        case.settings.targets =
            ["BTC", "XRP", "USDT"].into_iter().zip(weights).map(|(name, w)| (asset(name), Decimal::from(w))).collect();
        let output = case.output();
        let Some(plan) = output.plan else { return Ok(()) };
        let total = Decimal::new(usdt, 2) + Decimal::new(bitcoin, 5) * dec!(45_000) + Decimal::new(ripple, 2) * dec!(0.60);
        let weights_sum: Decimal = weights.iter().map(|w| Decimal::from(*w)).sum();
        let batches = plan.legs.iter().map(|leg| leg.batch).max().map_or(0, |last| last as usize + 1);
        for (name, weight, value) in [
            ("BTC", weights[0], Decimal::new(bitcoin, 5) * dec!(45_000)),
            ("XRP", weights[1], Decimal::new(ripple, 2) * dec!(0.60)),
        ] {
            let amounts = amounts_of(&plan, name);
            let gap = (total * Decimal::from(weight) / weights_sum - value).abs();
            if amounts.is_empty() {
                prop_assert!(gap < dec!(10.01));
                continue;
            }
            prop_assert_eq!(amounts.len(), batches, "one number of batches for the plan");
            prop_assert_eq!(amounts.iter().sum::<Decimal>(), floor_cents(gap));
            prop_assert!(amounts.iter().all(|amount| *amount >= dec!(10) && amount.scale() <= 2));
            prop_assert!(amounts[0] >= amounts[amounts.len() - 1]);
            prop_assert!(amounts[0] - amounts[amounts.len() - 1] < Decimal::new(batches as i64, 2));
        }
        for pair in plan.legs.windows(2) {
            let rank = |leg: &Leg| (leg.due_at, leg.batch, leg.side == Side::Buy, leg.asset);
            prop_assert!(rank(&pair[0]) < rank(&pair[1]), "in execution order");
        }
    }
}
