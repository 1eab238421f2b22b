//! The order in which work stops when the money of a day runs short, and that free work never does.

use super::*;
use crate::model::Event;

fn usd(cents: i64) -> Money {
    Money::new(cents, 2)
}

/// Every opinion and the decision ask one chain; a call costs `cents`, at `spare` also `spare_cents` with another model.
pub(in crate::llm) fn world(cents: i64, spare: Option<i64>) -> (Settings, WorstCases) {
    let mut settings = Settings::defaults();
    let text = r#"{"kind": "ollama", "models": {"m": {
        "input_usd_per_1k": "1", "output_usd_per_1k": "0", "max_output_tokens": 100}}}"#;
    settings.providers.insert("p".into(), serde_json::from_str(text).expect("a provider"));
    settings.providers.insert("q".into(), serde_json::from_str(text).expect("a provider"));
    let mut chain = vec!["p/m".to_owned()];
    chain.extend(spare.map(|_| "q/m".to_owned()));
    if let (Some(cents), Some(model)) = (spare, settings.providers.get_mut("q").and_then(|q| q.models.get_mut("m"))) {
        model.input_usd_per_1k = usd(cents);
    }
    if let Some(model) = settings.providers.get_mut("p").and_then(|p| p.models.get_mut("m")) {
        model.input_usd_per_1k = usd(cents);
    }
    settings.chains.insert("main".into(), chain);
    let main = || "main".to_owned();
    settings.agents.technical_analysis.chain = main();
    settings.agents.regime_detection.chain = main();
    settings.agents.sentiment_analysis.news = main();
    settings.agents.portfolio_rebalance.chain = main();
    let voter = settings.agents.trading_decision.voters.first_mut().expect("a voter");
    (voter.kind, voter.chain) = (crate::settings::VoterKind::Model, Some(main()));
    settings.tasks.values_mut().for_each(|task| task.enabled = true);
    let cases = WorstCases::new(&settings, |_, _| Usage { input: 1_000, output: 0 });
    (settings, cases)
}

fn spent(decision: Option<DecisionId>, cents: i64) -> ModelSpending {
    let mut state = crate::model::State::default();
    let (provider, model) = ("p".to_owned(), "m".to_owned());
    state.spend(&Event::BudgetReserved {
        call: 1,
        day: 3,
        provider,
        model,
        decision,
        amount: usd(cents),
        warned: false,
    });
    state.models
}

fn unpaid(cases: &WorstCases, settings: &Settings, ledger: &ModelSpending) -> Vec<TaskName> {
    let unpaid = cases.unpaid(ledger, 3, settings);
    BY_WORTH.into_iter().filter(|task| unpaid.contains(*task)).collect()
}

#[test]
fn the_least_valuable_work_stops_first_and_decisions_last() {
    let (settings, cases) = world(10, None);
    // 3.00 of 5.00 are for opinions; a call costs 0.10 at worst.
    let stops = |cents| unpaid(&cases, &settings, &spent(None, cents)).len();
    let order = [(0, 0), (260, 0), (261, 1), (271, 2), (281, 3), (291, 4), (300, 4)];
    for (cents, expected) in order {
        assert_eq!(stops(cents), expected, "after {cents} cents of opinions");
    }
    assert_eq!(unpaid(&cases, &settings, &spent(None, 281)), BY_WORTH[..3]);
    // Decisions have spent most of the day: opinions leave them one more.
    let other = Some(DecisionId(crate::model::RunId { epoch: 1, seq: 1 }));
    assert_eq!(unpaid(&cases, &settings, &spent(other, 450)), []);
    assert_eq!(unpaid(&cases, &settings, &spent(other, 451)), BY_WORTH[..1]);
    assert_eq!(unpaid(&cases, &settings, &spent(other, 485)), BY_WORTH[..4]);
    assert_eq!(unpaid(&cases, &settings, &spent(other, 491)), BY_WORTH);
}

#[test]
fn a_day_begins_anew_and_a_free_model_is_always_paid() {
    let (settings, cases) = world(10, None);
    let ledger = spent(None, 300);
    assert_eq!(unpaid(&cases, &settings, &ledger).len(), 4);
    assert!(cases.unpaid(&ledger, 4, &settings).is_empty());
    let (settings, cases) = world(10, Some(0));
    assert_eq!(unpaid(&cases, &settings, &ledger), [], "the other model of each chain costs nothing");
}

#[test]
fn a_provider_at_its_own_limit_leaves_the_others_of_the_chain() {
    let (mut settings, cases) = world(10, Some(10));
    settings.providers.get_mut("p").expect("p").daily_usd = Some(usd(50));
    assert_eq!(unpaid(&cases, &settings, &spent(None, 50)), []);
    settings.providers.get_mut("q").expect("q").daily_usd = Some(usd(5));
    assert_eq!(unpaid(&cases, &settings, &spent(None, 50)), BY_WORTH);
    let refusal = cases.refusal(TaskName::RegimeDetection, &spent(None, 50), &settings).expect("refused");
    assert_eq!((refusal.limit.as_str(), refusal.spent, refusal.of), ("provider:p", usd(50), usd(50)));
}

#[test]
fn a_decision_counts_no_more_than_it_may_cost_and_disabled_work_nothing() {
    let (mut settings, cases) = world(90, None);
    let share = cases.share(TaskName::RegimeDetection, settings.budget.per_decision_usd);
    assert_eq!((share.decisions, share.opinions), (usd(50), usd(90)));
    settings.tasks.values_mut().for_each(|task| task.enabled = false);
    assert!(WorstCases::new(&settings, |_, _| Usage { input: 1_000, output: 0 }).is_empty());
    assert!(WorstCases::new(&Settings::defaults(), |_, _| Usage::default()).is_empty());
}
