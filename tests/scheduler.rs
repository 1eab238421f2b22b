//! Acceptance §1 as readable timelines: `tests/scenarios/*.txt`, one test per id, plus properties over random plans.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "support/random_plans.rs"]
mod random_plans;
#[path = "support/timeline.rs"]
mod timeline;

use triplegain::{coordinator::schedule::SetupError, model::TaskName, settings::sections::DependencySettings};

/// Plays a scenario and compares; with `TIMELINE_WRITE=1` the file is rewritten instead, to be read before committing.
fn play(name: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (scenario, expected) = timeline::read(&text);
    let title = scenario.title.clone();
    let actual = scenario.play();
    if std::env::var_os("TIMELINE_WRITE").is_some() {
        let head = text.split_once("\n---\n").unwrap().0;
        std::fs::write(&path, format!("{head}\n---\n{actual}")).unwrap();
        return;
    }
    for (number, (a, e)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(a, e, "{title}: line {} of the timeline", number + 1);
    }
    assert_eq!(actual.lines().count(), expected.lines().count(), "{title}: number of lines");
}

macro_rules! scenarios {
    ($($name:ident)*) => { $( #[test] fn $name() { play(stringify!($name)); } )* };
}

scenarios! {
    a001_cold_start
    a002_slow_task_delays_nobody
    a003_one_run_per_key
    a004_hanging_key_stays_alone
    a005_parallel_3
    a005_parallel_2
    a005_parallel_1
    a006_global_limit_and_reserve
    a007_run_deadline_and_late_result
    a008_snapshot_deadline
    a009_failed_input_blocks_only_its_symbol
    a010_one_instant_in_order
    a011_old_input_one_alert
    a012_a013_freshness_limits
    a012_a013_beyond_the_limits
    a014_require_new_pulls
    a015_pull_then_run
    a016_pull_hangs
    a017_late_result_is_not_fresh
    a018_sentiment_disabled
    a022_down_three_hours
    a023_catch_up_after_short_downtime
    a024_claimed_slot_not_run_again
    a025_a026_forced_runs
    a027_panic
    a028_retries
    a029_authentication_is_not_retried
    a030_quarantine
    a033_starved_once
    b2_interval_too_short
    b3_interrupted_runs_by_policy
    b5_max_skew
    b5_run_stale
    b5_on_stale_fail
    b5_quarantined_dependency
    b6_start_deadline
    b6_max_per_provider
    b6_provider_at_emergency
    s6_budget
    b5_order_given_up_after_the_wait
    b11_states_and_levels
    b12_drain
}

#[test]
fn a020_a_circle_of_dependencies_is_refused_and_printed() {
    let mut plan = timeline::Plan::default();
    let needs = |task| DependencySettings { task, max_age_seconds: 0, require_new: false, required: true };
    plan.task(TaskName::TechnicalAnalysis).depends_on = vec![needs(TaskName::RegimeDetection)];
    let error = plan.build(timeline::DAY).err();
    let cycle = "technical_analysis → regime_detection → technical_analysis";
    assert_eq!(error, Some(SetupError::Cycle(cycle.into())));
}

#[test]
fn d13_a_required_dependency_that_is_disabled_is_refused() {
    let mut plan = timeline::Plan::default();
    plan.task(TaskName::RegimeDetection).enabled = false;
    assert!(matches!(plan.build(timeline::DAY), Err(SetupError::Dependency { .. })));
}

#[test]
fn a024_what_the_journal_knows_of_a_key_comes_back() {
    use triplegain::{
        coordinator::schedule::{Effect, Gates, Input, Restored},
        model::{RunKey, RunOutcome, SlotId, Ts, state::CoordinatorView},
    };
    let key = RunKey { task: TaskName::TradingDecision, symbol: timeline::symbol("BTC/USDT") };
    let consumed = [(TaskName::TechnicalAnalysis, Ts(5)), (TaskName::RegimeDetection, Ts(7))];
    let view = CoordinatorView {
        last_slot: [(key, 24)].into(),
        consumed: [(key, consumed.into())].into(),
        last_success: [(key, Ts(9))].into(),
        task_switches: [(TaskName::PortfolioRebalance, false)].into(),
        ..CoordinatorView::default()
    };
    let mut scheduler = timeline::Plan::default().build(timeline::DAY).unwrap();
    let mut effects = vec![];
    let recovered = scheduler.restore(timeline::DAY, Restored::from_view(&view, Gates::default()), &mut effects);
    assert!(recovered.is_empty() && effects.is_empty());
    let row = scheduler.row(key).unwrap();
    assert_eq!((row.last_slot, row.last_success, row.consumed), (Some(24), Some(Ts(9)), consumed.to_vec()));
    scheduler.step(timeline::DAY, Input::Tick, &mut effects);
    scheduler.check().unwrap();
    let touched = |effect: &Effect| match effect {
        Effect::Start(request) => (request.key == key).then_some(request.slot.clone()),
        Effect::Skip { key: skipped, slot, .. } => (*skipped == key).then_some(slot.clone()),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(touched).collect::<Vec<SlotId>>(), [], "slot 24 is claimed already");
    assert!(effects.iter().all(|e| !matches!(e, Effect::Ended { outcome: RunOutcome::Interrupted, .. })));
    assert!(!scheduler.is_eligible(TaskName::PortfolioRebalance));
}
