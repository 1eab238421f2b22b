//! Rules of the schedule: deadlines inside intervals, dependencies that exist, are acyclic and can be fresh.

use std::collections::BTreeSet;

use super::Judge;
use crate::model::{Symbol, TaskName};

pub(super) fn judge(judge: &mut Judge<'_>) {
    let s = judge.settings;
    for (name, task) in &s.tasks {
        let key = |last: &str| format!("tasks.{name}.{last}");
        let interval = (key("interval_seconds"), task.interval_seconds);
        let within = |judge: &mut Judge<'_>, strict: bool, last: &str, value: u32| {
            judge.ordered(strict, (&key(last), value), (&interval.0, interval.1));
        };
        within(judge, true, "timeout_seconds", task.timeout_seconds);
        within(judge, false, "catch_up_seconds", task.catch_up_seconds);
        within(judge, false, "start_deadline_seconds", task.start_deadline_seconds);
        within(judge, false, "phase_seconds", task.phase_seconds);
        let (snapshot, timeout) = (key("snapshot_timeout_seconds"), key("timeout_seconds"));
        if task.snapshot_timeout_seconds > task.timeout_seconds / 2 {
            let message = format!("must be ≤ half of `{timeout}` = {}", task.timeout_seconds);
            judge.fail(&[&snapshot, &timeout], message);
        }
        if task.snapshot_timeout_seconds == 0 && *name != TaskName::SentimentAnalysis {
            judge.fail(&[&snapshot], "must be ≥ 1: the task reads a snapshot");
        }
        symbols(judge, *name);
        dependencies(judge, *name);
    }
    cycles(judge);
    let enabled = s.tasks.get(&TaskName::SentimentAnalysis).is_some_and(|task| task.enabled);
    if enabled && !s.agents.sentiment_analysis.has_provider() {
        let message = "sentiment_analysis needs somebody to ask: set agents.sentiment_analysis.social or .news";
        judge.fail(&["tasks.sentiment_analysis.enabled"], message);
    }
    if let Some(decision) = s.tasks.get(&TaskName::TradingDecision) {
        judge.ordered(
            true,
            ("agents.trading_decision.poll_timeout_seconds", s.agents.trading_decision.poll_timeout_seconds),
            ("tasks.trading_decision.timeout_seconds", decision.timeout_seconds),
        );
    }
}

/// Symbols of a task are traded; the portfolio task has its own.
fn symbols(judge: &mut Judge<'_>, name: TaskName) {
    let s = judge.settings;
    let (key, portfolio) = (format!("tasks.{name}.symbols"), name == TaskName::PortfolioRebalance);
    for symbol in s.tasks.get(&name).iter().flat_map(|task| &task.symbols) {
        if portfolio && !symbol.is_portfolio() {
            judge.fail(&[&key], format!("`{symbol}` is refused: the task runs over PORTFOLIO only"));
        } else if !portfolio && !s.symbols.contains(symbol) {
            judge.fail(&[&key, "symbols"], format!("`{symbol}` is not among the traded symbols"));
        }
    }
}

fn dependencies(judge: &mut Judge<'_>, name: TaskName) {
    let s = judge.settings;
    let Some(task) = s.tasks.get(&name) else {
        return;
    };
    let list = format!("tasks.{name}.depends_on");
    let mut seen = BTreeSet::new();
    for (i, dependency) in task.depends_on.iter().enumerate() {
        let entry = format!("{list}[{i}]");
        let (source, age) = (dependency.task, dependency.max_age_seconds);
        if !seen.insert(source) {
            judge.fail(&[&format!("{entry}.task")], format!("`{source}` is named twice"));
        }
        let Some(on) = s.tasks.get(&source).filter(|_| source != name) else {
            continue;
        };
        let interval_key = format!("tasks.{source}.interval_seconds");
        if age < on.interval_seconds {
            let message = format!("{age} must be ≥ `{interval_key}` = {}, or 0 to compute it", on.interval_seconds);
            judge.fail(&[&format!("{entry}.max_age_seconds"), &interval_key], message);
        }
        let own_key = format!("tasks.{name}.interval_seconds");
        if dependency.require_new && on.interval_seconds > task.interval_seconds {
            let message = format!(
                "{name} asks for a new {source} every time, but `{interval_key}` = {} is longer than `{own_key}` = {}",
                on.interval_seconds, task.interval_seconds
            );
            judge.fail(&[&format!("{entry}.require_new"), &interval_key, &own_key], message);
        }
        if dependency.required && task.enabled {
            required(judge, name, source, &entry);
        }
        if name == TaskName::TradingDecision {
            let voting = s.consensus.max_age_seconds.get(&source).copied();
            if let Some(voting) = voting.filter(|voting| *voting < age) {
                let key = format!("consensus.max_age_seconds.{source}");
                let message = format!("{voting} must be ≥ {age}, the age at which {name} still accepts {source}");
                let timeout_key = format!("tasks.{source}.timeout_seconds");
                judge.fail(&[&key, &format!("{entry}.max_age_seconds"), &interval_key, &timeout_key], message);
            }
        }
    }
}

/// A required dependency is enabled and runs for every symbol of the task.
fn required(judge: &mut Judge<'_>, name: TaskName, source: TaskName, entry: &str) {
    let s = judge.settings;
    let (Some(task), Some(on)) = (s.tasks.get(&name), s.tasks.get(&source)) else {
        return;
    };
    if !on.enabled {
        let enabled = format!("tasks.{source}.enabled");
        let message = format!("{name} requires {source}, which is disabled: enable it, or set required = false");
        judge.fail(&[&enabled, &format!("{entry}.required")], message);
    }
    let lacking: Vec<String> =
        task.symbols.iter().filter(|symbol| !on.symbols.contains(symbol)).map(Symbol::to_string).collect();
    if !lacking.is_empty() {
        let message = format!("{name} requires {source}, which does not run for {}", lacking.join(", "));
        judge.fail(&[&format!("tasks.{source}.symbols"), &format!("tasks.{name}.symbols")], message);
    }
}

/// Prints every cycle once, from its first task in the order of the documents.
fn cycles(judge: &mut Judge<'_>) {
    let s = judge.settings;
    for start in TaskName::ALL {
        let mut path = vec![start];
        if let Some(cycle) = back_to(judge, start, &mut path) {
            let names: Vec<&str> = cycle.iter().map(|task| task.name()).collect();
            let keys: Vec<String> = cycle
                .windows(2)
                .filter_map(|pair| {
                    let [from, to] = pair else {
                        return None;
                    };
                    let i = s.tasks.get(from)?.depends_on.iter().position(|d| d.task == *to)?;
                    Some(format!("tasks.{from}.depends_on[{i}].task"))
                })
                .collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            judge.fail(&keys, format!("the dependencies form a cycle: {}", names.join(" -> ")));
        }
    }
}

/// A way from the last task of `path` back to `start` over tasks not before `start`, so that a cycle is found once.
fn back_to(judge: &Judge<'_>, start: TaskName, path: &mut Vec<TaskName>) -> Option<Vec<TaskName>> {
    let last = *path.last()?;
    for dependency in judge.settings.tasks.get(&last).iter().flat_map(|task| &task.depends_on) {
        if dependency.task == start {
            path.push(start);
            return Some(path.clone());
        }
        if dependency.task > start && !path.contains(&dependency.task) {
            path.push(dependency.task);
            if let Some(cycle) = back_to(judge, start, path) {
                return Some(cycle);
            }
            path.pop();
        }
    }
    None
}
