//! Values that follow from other values: "0 or empty means computed" gets its number here, in the typed settings and
//! in the tree that `config show` prints.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    MarketSource, Settings,
    tree::{Node, Origin, Raw, steps},
};
use crate::model::{Asset, Symbol, TaskName};

/// Fills in what is computed; returns warnings about defaults that do not fit the chosen symbols.
pub(super) fn resolve(settings: &mut Settings, tree: &mut Node) -> Vec<String> {
    speed(settings, tree);
    tasks(settings, tree);
    api(settings, tree);
    unused_targets(settings, tree)
}

fn set(tree: &mut Node, path: &str, raw: Raw) {
    // The path exists: it was checked and merged before.
    drop(tree.put(&steps(path), Node { raw, origin: Origin::Computed }));
}

fn texts(values: impl IntoIterator<Item = String>) -> Raw {
    Raw::List(values.into_iter().map(|text| Node { raw: Raw::Text(text), origin: Origin::Computed }).collect())
}

fn speed(settings: &mut Settings, tree: &mut Node) {
    if settings.runtime.speed == 0 {
        settings.runtime.speed = if settings.market.source == MarketSource::Simulated { 60 } else { 1 };
        set(tree, "runtime.speed", Raw::Int(settings.runtime.speed.into()));
    }
}

fn tasks(settings: &mut Settings, tree: &mut Node) {
    let factor = settings.scheduler.freshness_interval_factor;
    let timing: BTreeMap<TaskName, (u32, u32)> =
        settings.tasks.iter().map(|(name, task)| (*name, (task.interval_seconds, task.timeout_seconds))).collect();
    for (name, task) in &mut settings.tasks {
        if task.symbols.is_empty() {
            task.symbols = match name {
                TaskName::PortfolioRebalance => vec![Symbol::PORTFOLIO],
                _ => settings.symbols.clone(),
            };
            set(tree, &format!("tasks.{name}.symbols"), texts(task.symbols.iter().map(ToString::to_string)));
        }
        let mut changed = false;
        for dependency in task.depends_on.iter_mut().filter(|d| d.max_age_seconds == 0) {
            if let Some((interval, timeout)) = timing.get(&dependency.task) {
                dependency.max_age_seconds = ((factor * f64::from(*interval)) as u32).saturating_add(*timeout);
                changed = true;
            }
        }
        if changed {
            write_ages(tree, *name, &task.depends_on.iter().map(|d| d.max_age_seconds).collect::<Vec<_>>());
        }
    }
}

/// Puts computed ages into the list of dependencies, which keeps its own origin.
fn write_ages(tree: &mut Node, task: TaskName, ages: &[u32]) {
    let path = steps(&format!("tasks.{task}.depends_on"));
    let Some(mut list) = tree.get(&path).cloned() else {
        return;
    };
    if let Raw::List(elements) = &mut list.raw {
        for (element, age) in elements.iter_mut().zip(ages) {
            if let Raw::Table(names) = &mut element.raw {
                let given = names.get("max_age_seconds").is_some_and(|node| node.raw == Raw::Int((*age).into()));
                if !given {
                    let node = Node { raw: Raw::Int((*age).into()), origin: Origin::Computed };
                    names.insert("max_age_seconds".to_owned(), node);
                }
            }
        }
    }
    drop(tree.put(&path, list));
}

fn api(settings: &mut Settings, tree: &mut Node) {
    if settings.api.token_file.is_empty() {
        settings.api.token_file = format!("{}/token", settings.data_dir.trim_end_matches('/'));
        set(tree, "api.token_file", Raw::Text(settings.api.token_file.clone()));
    }
    let is_default = |path: &str| tree.get(&steps(path)).is_some_and(|node| node.origin == Origin::Default);
    if is_default("api.allowed_hosts") && !is_default("api.bind") {
        let port = settings.api.bind.rsplit(':').next().unwrap_or_default();
        settings.api.allowed_hosts = vec![settings.api.bind.clone(), format!("localhost:{port}")];
        settings.api.allowed_hosts.dedup();
        set(tree, "api.allowed_hosts", texts(settings.api.allowed_hosts.clone()));
    }
}

/// Assets that can be held: the account currency and what is traded against it.
pub(super) fn allocatable(settings: &Settings) -> BTreeSet<Asset> {
    let traded = settings.symbols.iter().filter(|symbol| symbol.quote == settings.account_currency);
    traded.map(|symbol| symbol.base).chain([settings.account_currency]).collect()
}

/// Takes default targets out whose asset the chosen symbols cannot buy; targets somebody wrote are left to the rules.
fn unused_targets(settings: &mut Settings, tree: &mut Node) -> Vec<String> {
    let known = allocatable(settings);
    let mut warnings = Vec::new();
    let unknown: Vec<Asset> =
        settings.portfolio.targets.keys().filter(|asset| !known.contains(asset)).copied().collect();
    for asset in unknown {
        let path = ["portfolio", "targets", asset.as_str()];
        let is_default = tree.get(&path.map(str::to_owned)).is_some_and(|node| node.origin == Origin::Default);
        if is_default {
            settings.portfolio.targets.remove(&asset);
            tree.remove(&path);
            let quote = settings.account_currency;
            warnings.push(format!("portfolio.targets.{asset} is left out: {asset}/{quote} is not among the symbols"));
        }
    }
    warnings
}
