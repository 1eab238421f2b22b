//! Limits below one call are told with key, value, worst case and what to do; a limit that is just enough is not.

use super::*;
use crate::llm::wire::Usage;

fn usd(cents: i64) -> Money {
    Money::new(cents, 2)
}

fn settings(daily: i64, decision: i64, provider: Option<i64>) -> Settings {
    let mut settings = Settings::defaults();
    let text = r#"{"kind": "ollama", "models": {"m": {
        "input_usd_per_1k": "1", "output_usd_per_1k": "0", "max_output_tokens": 100}}}"#;
    let mut known: crate::settings::ProviderSettings = serde_json::from_str(text).expect("a provider");
    known.daily_usd = provider.map(usd);
    settings.providers.insert("p".into(), known);
    (settings.budget.daily_usd, settings.budget.per_decision_usd) = (usd(daily), usd(decision));
    settings
}

fn told(settings: &Settings, cases: &WorstCases, task: TaskName, cents: i64) -> Vec<String> {
    let usage = Usage { input: 10 * u32::try_from(cents).expect("cents"), output: 0 };
    let call = Call { provider: "p".into(), model: "m".into(), usage, cost: usd(cents) };
    warnings(settings, cases, &[Asked { who: task.name(), task, call: &call }])
}

fn alone(settings: &Settings, task: TaskName, cents: i64) -> Vec<String> {
    told(settings, &WorstCases::default(), task, cents)
}

#[test]
fn each_limit_below_one_call_is_named_and_one_that_just_holds_it_is_not() {
    let decision = TaskName::TradingDecision;
    assert_eq!(alone(&settings(50, 20, Some(20)), decision, 20), Vec::<String>::new());
    let rows = [
        (settings(50, 19, Some(20)), "budget.per_decision_usd = 0.19 "),
        (settings(19, 20, Some(20)), "budget.daily_usd = 0.19 "),
        (settings(50, 20, Some(19)), "providers.p.daily_usd = 0.19 "),
    ];
    for (settings, key) in rows {
        let [text] = &alone(&settings, decision, 20)[..] else { panic!("one warning of {key}") };
        assert!(text.starts_with(key), "{text}");
        let parts = [
            "p/m, asked by trading_decision,",
            "0.20 USD at worst (200 tokens in, 0 out)",
            "at least 0.20,",
            "providers.p.models.\"m\".max_output_tokens",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert_eq!(alone(&settings(1, 1, Some(1)), decision, 20).len(), 3, "every limit that is too small");
}

#[test]
fn a_call_that_costs_nothing_needs_no_budget() {
    assert_eq!(alone(&settings(0, 0, Some(0)), TaskName::TradingDecision, 0), Vec::<String>::new());
}

#[test]
fn an_opinion_needs_its_part_of_the_day() {
    // 0.40 of the day is for decisions: 0.12 needs 0.20.
    let opinion = TaskName::SentimentAnalysis;
    assert_eq!(alone(&settings(20, 1, None), opinion, 12), Vec::<String>::new());
    let [text] = &alone(&settings(19, 1, None), opinion, 12)[..] else { panic!("one warning") };
    assert!(text.starts_with("budget.daily_usd = 0.19 ") && text.contains("at least 0.2,"), "{text}");
    let mut all_for_decisions = settings(500, 50, None);
    all_for_decisions.budget.decision_reserve_ratio = Decimal::ONE;
    let [text] = &alone(&all_for_decisions, opinion, 12)[..] else { panic!("one warning") };
    assert!(text.starts_with("budget.decision_reserve_ratio = 1 "), "it names the key to change: {text}");
}

#[test]
fn what_is_needed_is_what_the_judge_of_calls_asks_for() {
    use crate::{
        llm::{budget, question::Payer},
        model::{DecisionId, spending::ModelSpending},
    };
    let (mut settings, cases) = crate::llm::rations::tests::world(10, None);
    for cents in 1..=120 {
        settings.budget.daily_usd = usd(cents);
        for task in TaskName::ALL {
            let payer = match task {
                TaskName::TradingDecision => Payer::Decision(DecisionId::default()),
                _ => Payer::Opinion,
            };
            let share = cases.share(task, settings.budget.per_decision_usd);
            let ledger = ModelSpending::default();
            let verdict = budget::judge(&ledger, &settings.budget, ("p", None), &payer, &share, usd(10));
            let refused = matches!(verdict, budget::Verdict::Refuse(_));
            let warned = !told(&settings, &cases, task, 10).is_empty();
            assert_eq!(warned, refused, "{task} with {cents} cents a day");
        }
    }
}

#[test]
fn whoever_follows_every_advice_at_once_is_told_nothing_more() {
    let (mut settings, cases) = crate::llm::rations::tests::world(10, None);
    let usage = Usage { input: 100, output: 0 };
    let call = Call { provider: "p".into(), model: "m".into(), usage, cost: usd(10) };
    let asked = TaskName::ALL.map(|task| Asked { who: task.name(), task, call: &call });
    for (daily, decision) in [(1, 1), (1, 9), (9, 1), (15, 5), (29, 9), (500, 9), (1, 500)] {
        (settings.budget.daily_usd, settings.budget.per_decision_usd) = (usd(daily), usd(decision));
        let first = warnings(&settings, &cases, &asked);
        assert!(!first.is_empty(), "{daily} and {decision} cents are too little");
        for text in first {
            let advised = text.split("at least ").nth(1).unwrap().split([',', ' ']).next().unwrap();
            let value: Money = advised.parse().unwrap();
            let key = if text.starts_with("budget.per_decision_usd ") {
                &mut settings.budget.per_decision_usd
            } else {
                &mut settings.budget.daily_usd
            };
            *key = value.max(*key);
        }
        assert_eq!(warnings(&settings, &cases, &asked), Vec::<String>::new(), "from {daily} and {decision} cents");
    }
}
