//! Effects as the words of a timeline: the kind and the rest of the line.

use triplegain::{coordinator::schedule::*, model::*};

use super::clock;

fn outcome_words(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Succeeded => "succeeded".into(),
        RunOutcome::Abstained(_) => "abstained".into(),
        RunOutcome::Failed(cause) => {
            format!("failed({})", serde_json::to_value(cause.class).unwrap().as_str().unwrap())
        }
        RunOutcome::TimedOut(which) => format!("timed_out({which})"),
        RunOutcome::Interrupted => "interrupted".into(),
    }
}

pub fn words(effect: &Effect) -> (&'static str, String) {
    match effect {
        Effect::Start(r) => {
            let mut text = format!("{} slot {} run {}", r.key, r.slot, r.run_id);
            if r.attempt > 1 {
                text += &format!(" attempt {}", r.attempt);
            }
            for input in r.inputs.iter() {
                text += &format!(" {}={}", input.task, input.run_id);
            }
            for (on, tag) in
                [(r.tags.superseded_input, " superseded_input"), (r.tags.stale, " stale"), (r.tags.probe, " probe")]
            {
                text += if on { tag } else { "" };
            }
            ("start", text)
        }
        Effect::Cancel { key, run_id } => ("cancel", format!("{key} run {run_id}")),
        Effect::Ended { key, run_id, outcome, .. } => {
            ("ended", format!("{key} run {run_id} {}", outcome_words(outcome)))
        }
        Effect::Retry { key, slot, attempt, at } => {
            ("retry", format!("{key} slot {slot} attempt {attempt} at {}", clock(*at)))
        }
        Effect::Skip { key, slot, reason } => ("skip", format!("{key} slot {slot} {}", reason.name())),
        Effect::Missed { key, count } => ("missed", format!("{key} count {count}")),
        Effect::LateResult { run_id } => ("late", format!("run {run_id}")),
        Effect::IntervalTooShort { key, overlaps } => ("interval_too_short", format!("{key} overlaps {overlaps}")),
        Effect::Starved { key, recovered } => {
            ("starved", format!("{key}{}", if *recovered { " recovered" } else { "" }))
        }
        Effect::Blocked { key, dependency, reason } => ("blocked", format!("{key} by {dependency} {}", reason.name())),
        Effect::Unblocked { key } => ("unblocked", key.to_string()),
        Effect::Pulled { key, by, slot } => ("pull", format!("{key} for {by} slot {slot}")),
        Effect::Quarantined { key, until, reason, count } => {
            let until = until.map_or("released".into(), clock);
            ("quarantined", format!("{key} until {until} count {count}: {reason}"))
        }
        Effect::QuarantineEnded { key } => ("quarantine_ended", key.to_string()),
        Effect::ForcedAccepted { command_id } => ("forced", format!("{command_id} accepted")),
        Effect::ForcedRefused { command_id, code, reason } => {
            ("forced", format!("{command_id} refused {code}: {reason}"))
        }
        Effect::ForcedEnded { command_id, end } => {
            let end = match end {
                ForcedEnd::Ran(outcome) => outcome_words(outcome),
                ForcedEnd::Skipped(reason) => format!("skipped({})", reason.name()),
            };
            ("forced", format!("{command_id} ended {end}"))
        }
    }
}
