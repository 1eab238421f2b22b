//! Rules that look at more than one key (configuration §1.4, scheduling §8), and warnings (§1.5).

mod models;
mod tasks;
mod trading;

use std::{collections::BTreeSet, fmt::Display};

use super::{
    Settings,
    problem::Problem,
    tree::{Node, Origin, Raw, steps},
};
use crate::model::{Score, TaskName};

/// What the rules found.
#[derive(Default)]
pub(super) struct Judged {
    /// Violations.
    pub problems: Vec<Problem>,
    /// Things worth knowing.
    pub warnings: Vec<String>,
}

/// The settings under judgement.
struct Judge<'a> {
    settings: &'a Settings,
    tree: &'a Node,
    dropped: &'a BTreeSet<String>,
    found: Judged,
}

/// Judges settings whose single values are in order.
pub(super) fn judge(settings: &Settings, tree: &Node, dropped: &BTreeSet<String>) -> Judged {
    let mut judge = Judge { settings, tree, dropped, found: Judged::default() };
    tasks::judge(&mut judge);
    trading::judge(&mut judge);
    judge.system();
    models::judge(&mut judge);
    judge.found
}

impl Judge<'_> {
    /// Reports a violation. The first of the keys somebody wrote is named as the culprit; when the value of one of
    /// them was refused already, the rule is not judged.
    fn fail(&mut self, keys: &[&str], message: impl Display) {
        let refused = |key: &&str| {
            self.dropped.iter().any(|gone| {
                let below = |long: &str, short: &str| {
                    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                below(gone, key) || below(key, gone)
            })
        };
        if keys.iter().any(refused) {
            return;
        }
        let Some(key) = self.culprit(keys) else {
            return;
        };
        let node = self.tree.get(&steps(key));
        let given = node.filter(|node| !matches!(node.raw, Raw::Table(_))).map(ToString::to_string);
        self.found.problems.push(Problem {
            key: key.to_owned(),
            given: given.unwrap_or_default(),
            origin: self.origin(key).unwrap_or(Origin::Default),
            message: message.to_string(),
        });
    }

    /// The first of the keys somebody wrote, else the first.
    fn culprit<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        let written = |key: &&&str| self.origin(key).is_some_and(|o| !matches!(o, Origin::Default | Origin::Computed));
        keys.iter().find(written).or_else(|| keys.first()).copied()
    }

    /// Where a key was written.
    fn origin(&self, key: &str) -> Option<Origin> {
        let node = self.tree.get(&steps(key))?;
        // The merge gives tables no origin: a table was written where its first written value was.
        let values = node.leaves();
        let written = values.iter().map(|(_, node)| &node.origin).find(|origin| **origin != Origin::Default);
        Some(written.unwrap_or(&node.origin).clone())
    }

    /// A warning about keys of which somebody wrote at least one: the defaults are as they are on purpose.
    fn warn_about(&mut self, keys: &[&str], message: impl Display) {
        if keys.iter().any(|key| self.origin(key).is_some_and(|o| !matches!(o, Origin::Default | Origin::Computed))) {
            self.warn(message);
        }
    }

    fn warn(&mut self, message: impl Display) {
        self.found.warnings.push(message.to_string());
    }

    /// `low ≤ high`, or `low < high` when strict.
    fn ordered<T: PartialOrd + Display>(&mut self, strict: bool, low: (&str, T), high: (&str, T)) {
        let holds = if strict { low.1 < high.1 } else { low.1 <= high.1 };
        if !holds {
            let (smaller, larger) = if strict { ("<", ">") } else { ("≤", "≥") };
            let keys = [low.0, high.0];
            let message = if self.culprit(&keys) == Some(high.0) {
                format!("must be {larger} `{}` = {}", low.0, low.1)
            } else {
                format!("must be {smaller} `{}` = {}", high.0, high.1)
            };
            self.fail(&keys, message);
        }
    }

    /// The scheduler, degradation, quarantine, clock, bus, store and supervisor sections.
    fn system(&mut self) {
        let s = self.settings;
        self.ordered(
            false,
            ("scheduler.retry.base_ms", u64::from(s.scheduler.retry.base_ms)),
            ("scheduler.retry.cap_seconds", u64::from(s.scheduler.retry.cap_seconds) * 1000),
        );
        let d = &s.degradation;
        self.ascending("degradation.escalate_rates", &d.escalate_rates);
        self.ascending("degradation.recover_rates", &d.recover_rates);
        self.ascending("degradation.escalate_consecutive", &d.escalate_consecutive);
        for (level, (recover, escalate)) in d.recover_rates.iter().zip(d.escalate_rates).enumerate() {
            if *recover >= escalate {
                let message = format!("rate {recover} of level {} must be < its escalate rate {escalate}", level + 1);
                self.fail(&["degradation.recover_rates", "degradation.escalate_rates"], message);
            }
        }
        self.ordered(
            false,
            ("degradation.min_samples", d.min_samples),
            ("degradation.escalate_window", d.escalate_window),
        );
        self.ordered(
            false,
            ("degradation.recover_recent", d.recover_recent),
            ("degradation.recover_window", d.recover_window),
        );
        self.ordered(
            false,
            ("degradation.dwell_seconds", d.dwell_seconds),
            ("degradation.dwell_max_seconds", d.dwell_max_seconds),
        );
        let (q, c) = (&s.quarantine, &s.clock);
        self.ordered(false, ("quarantine.base_minutes", q.base_minutes), ("quarantine.max_minutes", q.max_minutes));
        self.ordered(
            false,
            ("clock.jump_seconds", c.jump_seconds),
            ("clock.large_jump_minutes", c.large_jump_minutes.saturating_mul(60)),
        );
        let free = &s.store.free_space;
        self.ordered(
            false,
            ("store.free_space.pause_mib", free.pause_mib),
            ("store.free_space.alert_mib", free.alert_mib),
        );
        self.ordered(
            false,
            ("supervisor.backoff_ms", s.supervisor.backoff_ms),
            ("supervisor.backoff_max_ms", s.supervisor.backoff_max_ms),
        );
        self.lifetimes();
    }

    /// A message must live as long as the oldest age at which somebody still reads it.
    fn lifetimes(&mut self) {
        let topics = [
            ("ta_signals", TaskName::TechnicalAnalysis),
            ("regime_updates", TaskName::RegimeDetection),
            ("sentiment_updates", TaskName::SentimentAnalysis),
        ];
        for (topic, source) in topics {
            let ttl_key = format!("bus.ttl_seconds.{topic}");
            let ttl = self.settings.bus.ttl_seconds.get(topic).copied().unwrap_or_default();
            let voting = self.settings.consensus.max_age_seconds.get(&source).copied().unwrap_or_default();
            let age_key = format!("consensus.max_age_seconds.{source}");
            self.ordered(false, (&age_key, voting), (&ttl_key, ttl));
            for (name, task) in &self.settings.tasks {
                for (i, dependency) in task.depends_on.iter().enumerate().filter(|(_, d)| d.task == source) {
                    let key = format!("tasks.{name}.depends_on[{i}].max_age_seconds");
                    self.ordered(false, (&key, dependency.max_age_seconds), (&ttl_key, ttl));
                }
            }
        }
        let ttl = self.settings.bus.ttl_seconds.get("trading_signals").copied().unwrap_or_default();
        let decision = self.settings.decision.max_age_seconds;
        self.ordered(false, ("decision.max_age_seconds", decision), ("bus.ttl_seconds.trading_signals", ttl));
    }

    fn ascending<T: PartialOrd + Display>(&mut self, key: &str, values: &[T]) {
        if !values.is_sorted_by(|a, b| a < b) {
            self.fail(&[key], "must be strictly ascending");
        }
    }

    /// Each score at most the next.
    fn rising(&mut self, section: &str, values: &[(&str, Score)]) {
        for pair in values.windows(2) {
            if let [(low, below), (high, above)] = pair {
                let (low, high) = (format!("{section}.{low}"), format!("{section}.{high}"));
                self.ordered(false, (&low, *below), (&high, *above));
            }
        }
    }
}
