//! The static part: tasks and keys as built once from validated settings. Holds limits in milliseconds, no progress.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    grid::Grid,
    types::{DEPENDENCIES_MAX, Generation},
};
use crate::{
    coordinator::quarantine::QuarantineRules,
    model::{Symbol, TaskName, time::SECOND_MS},
    settings::sections::{OnCrash, OnStale, QuarantineSettings, SchedulerSettings, TaskSettings},
};

/// What a scheduler is built from.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// `[scheduler]`
    pub scheduler: &'a SchedulerSettings,
    /// `[tasks]`
    pub tasks: &'a BTreeMap<TaskName, TaskSettings>,
    /// Providers of models that a run of a task would ask first; tasks by rules have none.
    pub providers: &'a BTreeMap<TaskName, BTreeSet<String>>,
    /// `[quarantine]`
    pub quarantine: &'a QuarantineSettings,
    /// `coordinator.analysis_while_halted`
    pub analysis_while_halted: bool,
    /// All traded symbols; the position decides about the spread.
    pub symbols: &'a [Symbol],
    /// Of the store; drives the retry delays.
    pub seed: u64,
    /// Boot epoch; part of every run id.
    pub epoch: u32,
    /// Of outputs made by this process.
    pub generation: Generation,
}

/// Tasks that cannot be scheduled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A task waits for itself.
    #[error("tasks depend on each other in a circle: {0}; remove one of these depends_on entries")]
    Cycle(String),
    /// A required dependency can never run.
    #[error("task {task} requires {dependency}, which {why}; set tasks.{dependency} accordingly or required = false")]
    Dependency {
        /// Who.
        task: TaskName,
        /// Whom.
        dependency: TaskName,
        /// Why.
        why: &'static str,
    },
}

/// Limits of the whole scheduler.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub general: u32,
    pub reserved: u32,
    pub per_provider: u32,
    pub tick_ms: i64,
    pub ageing_ms: i64,
    pub grace_ms: i64,
    pub max_attempts: u32,
    pub retry_base_ms: i64,
    pub retry_cap_ms: i64,
    pub starvation_factor: i64,
    pub overlap_alert_after: u32,
    pub analysis_while_halted: bool,
    pub quarantine: QuarantineRules,
}

impl Limits {
    pub fn new(setup: &Setup) -> Limits {
        let s = setup.scheduler;
        Limits {
            general: s.max_concurrent_runs,
            reserved: s.reserved_safety_slots,
            per_provider: s.max_per_provider,
            tick_ms: i64::from(s.tick_ms),
            ageing_ms: (i64::from(s.ageing_seconds) * SECOND_MS).max(1),
            grace_ms: i64::from(s.cancel_grace_seconds) * SECOND_MS,
            max_attempts: s.retry.max_attempts,
            retry_base_ms: i64::from(s.retry.base_ms),
            retry_cap_ms: i64::from(s.retry.cap_seconds) * SECOND_MS,
            starvation_factor: i64::from(s.starvation_factor),
            overlap_alert_after: s.overlap_alert_after,
            analysis_while_halted: setup.analysis_while_halted,
            quarantine: QuarantineRules::new(setup.quarantine),
        }
    }
}

/// One dependency of a task.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    pub task: usize,
    pub name: TaskName,
    pub max_age_ms: i64,
    pub wait_ms: i64,
    pub require_new: bool,
    pub required: bool,
}

/// One task with its permanent counters of permits.
#[derive(Clone, Debug)]
pub(super) struct TaskRules {
    pub name: TaskName,
    pub class: u8,
    pub enabled: bool,
    pub switch: Option<bool>,
    pub interval_ms: i64,
    pub timeout_ms: i64,
    pub snapshot_ms: Option<i64>,
    pub max_parallel: u32,
    pub running: u32,
    /// Places in the scheduler's table of providers.
    pub providers: Vec<usize>,
    pub catch_up_ms: i64,
    pub start_deadline_ms: i64,
    pub dependencies: Vec<Dependency>,
    pub max_skew_ms: i64,
    pub on_stale: OnStale,
    pub on_crash: OnCrash,
    /// Start counter at its newest start; 0 = never.
    pub last_started: u64,
}

impl TaskRules {
    pub fn is_on(&self) -> bool {
        self.switch.unwrap_or(self.enabled)
    }

    /// Off by configuration: no slots at all. Off by the operator: its slots are skipped.
    pub fn is_dormant(&self) -> bool {
        self.switch.is_none() && !self.enabled
    }

    /// Runs by which money moves.
    pub fn trades(&self) -> bool {
        self.name.is_money_relevant()
    }
}

/// The static part of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyPlace {
    pub task: usize,
    pub symbol: Symbol,
    pub symbol_index: usize,
    pub grid: Grid,
    /// Key of each dependency, in the order of `depends_on`; absent = not configured for this symbol.
    pub needs: Vec<Option<u32>>,
    pub needed_by: Vec<u32>,
}

/// Everything static.
pub(super) struct Layout {
    pub tasks: Vec<TaskRules>,
    pub keys: Vec<KeyPlace>,
    pub symbols: usize,
    pub providers: usize,
}

/// Class of a task's runs (B6).
const fn class_of(task: TaskName) -> u8 {
    match task {
        TaskName::TradingDecision => 2,
        _ => 3,
    }
}

/// Builds tasks in dependency order and keys ordered by (task, symbol), so that of one instant a dependency is always
/// considered before its dependents.
pub(super) fn layout(setup: &Setup) -> Result<Layout, SetupError> {
    let order = dependency_order(setup.tasks)?;
    let mut tasks = Vec::with_capacity(order.len());
    for name in &order {
        let Some(settings) = setup.tasks.get(name) else { continue };
        tasks.push(task_rules(setup, &order, *name, settings)?);
    }
    let providers: BTreeSet<&String> = setup.providers.values().flatten().collect();
    for task in &mut tasks {
        let asked = setup.providers.get(&task.name).into_iter().flatten();
        task.providers = asked.filter_map(|name| providers.iter().position(|known| *known == name)).collect();
    }
    let mut symbols: Vec<Symbol> = setup.symbols.to_vec();
    let mut keys: Vec<KeyPlace> = Vec::new();
    let mut index: BTreeMap<(usize, Symbol), u32> = BTreeMap::new();
    for (task, name) in order.iter().enumerate() {
        let Some(settings) = setup.tasks.get(name) else { continue };
        for symbol in symbols_of(*name, settings, setup.symbols) {
            let symbol_index = symbols.iter().position(|s| *s == symbol).unwrap_or_else(|| {
                symbols.push(symbol);
                symbols.len() - 1
            });
            let position = if symbol.is_portfolio() { 0 } else { symbol_index };
            let grid =
                Grid::new(settings.interval_seconds, settings.phase_seconds, setup.scheduler.spread_ms, position);
            let id = keys.len() as u32;
            if index.insert((task, symbol), id).is_some() {
                index.insert((task, symbol), id - 1);
                continue;
            }
            let needs: Vec<Option<u32>> =
                tasks[task].dependencies.iter().map(|d| index.get(&(d.task, symbol)).copied()).collect();
            for (place, need) in needs.iter().enumerate() {
                match need {
                    Some(need) => keys[*need as usize].needed_by.push(id),
                    None if tasks[task].enabled && tasks[task].dependencies[place].required => {
                        let dependency = tasks[task].dependencies[place].name;
                        return Err(SetupError::Dependency {
                            task: *name,
                            dependency,
                            why: "does not run for its symbols",
                        });
                    }
                    None => {}
                }
            }
            keys.push(KeyPlace { task, symbol, symbol_index, grid, needs, needed_by: Vec::new() });
        }
    }
    Ok(Layout { tasks, keys, symbols: symbols.len(), providers: providers.len() })
}

fn symbols_of(task: TaskName, settings: &TaskSettings, all: &[Symbol]) -> Vec<Symbol> {
    if !settings.symbols.is_empty() {
        return settings.symbols.clone();
    }
    if task == TaskName::PortfolioRebalance { vec![Symbol::PORTFOLIO] } else { all.to_vec() }
}

fn task_rules(
    setup: &Setup,
    order: &[TaskName],
    name: TaskName,
    settings: &TaskSettings,
) -> Result<TaskRules, SetupError> {
    let interval_ms = i64::from(settings.interval_seconds) * SECOND_MS;
    let mut dependencies = Vec::with_capacity(settings.depends_on.len().min(DEPENDENCIES_MAX));
    for wanted in settings.depends_on.iter().take(DEPENDENCIES_MAX) {
        let found = order.iter().position(|n| *n == wanted.task).zip(setup.tasks.get(&wanted.task));
        let usable = found.filter(|(_, s)| s.enabled);
        if settings.enabled && wanted.required && usable.is_none() {
            let why = if found.is_some() { "is disabled" } else { "is not configured" };
            return Err(SetupError::Dependency { task: name, dependency: wanted.task, why });
        }
        let Some((task, on)) = found else { continue };
        let on_interval = f64::from(on.interval_seconds);
        let default_age = setup.scheduler.freshness_interval_factor * on_interval + f64::from(on.timeout_seconds);
        let max_age_ms = match wanted.max_age_seconds {
            // Float to integer casts saturate.
            0 => (default_age * SECOND_MS as f64) as i64,
            seconds => i64::from(seconds) * SECOND_MS,
        };
        let share = (setup.scheduler.wait.interval_ratio * interval_ms as f64) as i64;
        let wait_ms = share
            .min(2 * i64::from(on.timeout_seconds) * SECOND_MS)
            .min(i64::from(setup.scheduler.wait.max_seconds) * SECOND_MS);
        let (require_new, required) = (wanted.require_new, wanted.required);
        dependencies.push(Dependency { task, name: wanted.task, max_age_ms, wait_ms, require_new, required });
    }
    let snapshot = settings.snapshot_timeout_seconds;
    Ok(TaskRules {
        name,
        class: class_of(name),
        enabled: settings.enabled,
        switch: None,
        interval_ms,
        timeout_ms: i64::from(settings.timeout_seconds) * SECOND_MS,
        snapshot_ms: (snapshot > 0).then(|| i64::from(snapshot) * SECOND_MS),
        max_parallel: settings.max_parallel,
        running: 0,
        providers: Vec::new(),
        catch_up_ms: i64::from(settings.catch_up_seconds) * SECOND_MS,
        start_deadline_ms: i64::from(settings.start_deadline_seconds) * SECOND_MS,
        dependencies,
        max_skew_ms: i64::from(settings.max_skew_seconds) * SECOND_MS,
        on_stale: settings.on_stale,
        on_crash: settings.on_crash,
        last_started: 0,
    })
}

/// Dependencies before dependents, otherwise the order of the names.
fn dependency_order(tasks: &BTreeMap<TaskName, TaskSettings>) -> Result<Vec<TaskName>, SetupError> {
    fn visit(
        name: TaskName,
        tasks: &BTreeMap<TaskName, TaskSettings>,
        path: &mut Vec<TaskName>,
        done: &mut Vec<TaskName>,
    ) -> Result<(), SetupError> {
        if done.contains(&name) {
            return Ok(());
        }
        if let Some(first) = path.iter().position(|on_path| *on_path == name) {
            let names: Vec<&str> = path[first..].iter().chain([&name]).map(|n| n.name()).collect();
            return Err(SetupError::Cycle(names.join(" → ")));
        }
        let Some(settings) = tasks.get(&name) else { return Ok(()) };
        path.push(name);
        for dependency in &settings.depends_on {
            visit(dependency.task, tasks, path, done)?;
        }
        path.pop();
        done.push(name);
        Ok(())
    }
    let mut done = Vec::new();
    for name in tasks.keys() {
        visit(*name, tasks, &mut Vec::new(), &mut done)?;
    }
    Ok(done)
}
