//! One line for people per event worth a line: what a log shows and a notification would say.

use std::fmt::Debug;

use crate::model::{CoordinatorState, DecisionEnd, Event, OrderType, Price, Record, Route};

/// Note of an actor that panicked too often and is not restarted any more.
pub const GIVEN_UP: &str = "actor_given_up";

/// How loud a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Loudness {
    /// Everyday facts.
    Info,
    /// Something is limited.
    Warning,
    /// A person should look.
    Error,
}

impl Loudness {
    /// As settings and notifications write it.
    pub const fn name(self) -> &'static str {
        match self {
            Loudness::Info => "info",
            Loudness::Warning => "warning",
            Loudness::Error => "error",
        }
    }

    /// Reads [`Loudness::name`].
    pub fn parse(name: &str) -> Option<Loudness> {
        [Loudness::Info, Loudness::Warning, Loudness::Error].into_iter().find(|loudness| loudness.name() == name)
    }
}

/// What a record is about, in one word: the name of a note, the kind of anything else.
pub fn topic(record: &Record) -> &str {
    match &record.event {
        Event::Noted { what, .. } => what,
        event => event.kind(),
    }
}

/// The line for a record, when it is worth one.
pub fn describe(record: &Record) -> Option<(Loudness, String)> {
    use Loudness::{Error, Info, Warning};
    let line = match &record.event {
        Event::StoreCreated { store, data_kind, .. } => (Info, format!("new store {store} for {data_kind} data")),
        Event::StoreAdopted { store } => (Warning, format!("store {store} adopted: it is the original from now on")),
        Event::Booted { epoch, version, .. } => (Info, format!("boot {epoch}, version {version}")),
        Event::RecoveryDone { recovered } if !recovered.orphans.is_empty() => {
            (Warning, format!("open without a symbol or task in the settings: {}", recovered.orphans.join("; ")))
        }
        Event::CleanStop {} => (Info, "stopped cleanly".to_owned()),
        Event::ClockJump { jump_ms } => (Warning, format!("the clock jumped by {jump_ms} ms")),
        Event::Noted { what, facts } => {
            let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let loudness = if matches!(
                what.as_str(),
                "circuit_breaker"
                    | "order_error"
                    | "order_unknown"
                    | "order_lost"
                    | GIVEN_UP
                    | crate::execution::legs::ASKS_OPERATOR
            ) {
                Error
            } else {
                Warning
            };
            (loudness, format!("{what}: {}", facts.join(", ")))
        }
        Event::StateChanged { from, to, reason, halt } => {
            let loudness = if *to == CoordinatorState::Halted { Error } else { Warning };
            let id = halt.as_ref().map(|halt| format!(" as {}", halt.id)).unwrap_or_default();
            let effect = match to {
                CoordinatorState::Running => "entries, decisions and rebalancing go on",
                CoordinatorState::Paused => {
                    "stopped: decisions, entries, rebalance legs; going on: data, analysis, stops, targets, exits"
                }
                CoordinatorState::Halted => {
                    "stopped: analysis, decisions, entries, rebalance legs; going on: data, stops, targets, exits"
                }
            };
            (loudness, format!("{} -> {}{id}: {reason} ({effect})", from.name(), to.name()))
        }
        Event::PauseReasonAdded { reason } => (Warning, format!("pause reason added: {reason}")),
        Event::PauseReasonRemoved { reason } => (Info, format!("pause reason gone: {reason}")),
        Event::DegradationChanged { capability, from, to } => {
            let direction = if to > from { "up" } else { "down" };
            (Warning, format!("degradation of {} {direction}: {} -> {}", words(capability), from.name(), to.name()))
        }
        Event::Quarantined { key, reason, until, .. } => {
            let until = until.map_or("until released".to_owned(), |until| format!("until {until}"));
            (Warning, format!("{key} is quarantined {until}: {reason}"))
        }
        Event::QuarantineEnded { key } => (Info, format!("{key} is back from quarantine")),
        Event::TaskSwitched { task, enabled } => {
            (Warning, format!("{task} switched {}", if *enabled { "on" } else { "off" }))
        }
        Event::BudgetReserved { warned: true, .. } => {
            (Warning, "model calls: today's spending passed budget.warn_usd".to_owned())
        }
        Event::BudgetSettled { call, cost, over, .. } if !over.is_zero() => {
            let words = format!(
                "model calls: call {call} was billed {cost} USD, {over} more than was held for it; as much more is held for \
                 every call of this provider until midnight UTC: look at its price and at what it adds to a prompt"
            );
            (Warning, words)
        }
        Event::BudgetExhausted { limit, spent, of, .. } => {
            (Warning, format!("model calls: the limit `{limit}` is used up until midnight UTC: {spent} of {of} USD"))
        }
        Event::CommandReceived { command, .. } => (Info, format!("command {} from {}", command.name(), record.actor)),
        Event::CommandRefused { code, reason, .. } => (Warning, format!("command refused ({code}): {reason}")),
        Event::InFlightRecovered { runs } => {
            let runs: Vec<String> = runs
                .iter()
                .map(|run| format!("{} slot {} ({})", run.marker.key, run.marker.slot, run.policy))
                .collect();
            (Warning, format!("interrupted runs: {}", runs.join("; ")))
        }
        Event::SignalReceived { decision, signal, .. } => {
            let votes = format!(
                "{} of {} voters valid, {}",
                signal.voters_valid,
                signal.voters_asked,
                words(&signal.vote_class)
            );
            let head = &signal.head;
            (Info, format!("{decision} {}: {} at confidence {} ({votes})", head.symbol, signal.action, head.confidence))
        }
        Event::DecisionClassified { decision, route } if *route != Route::Nothing => {
            (Info, format!("{decision}: {}", if *route == Route::Entry { "entry" } else { "exit" }))
        }
        Event::ConsensusComputed { decision, consensus } => {
            let c = consensus;
            let agree = format!("{} of {} agree, {} eligible", c.agree, c.voters, c.eligible);
            (
                Info,
                format!(
                    "{decision}: consensus x{:.3} ({agree}), {} -> {}",
                    c.multiplier, c.confidence_before, c.confidence_after
                ),
            )
        }
        Event::ConflictsFound { decision, conflicts } => {
            let kinds: Vec<&str> = conflicts.iter().map(|conflict| conflict.kind.name()).collect();
            (Info, format!("{decision}: conflict {}", kinds.join(", ")))
        }
        Event::ResolutionDone { decision, resolution } => {
            (Info, format!("{decision}: resolved as {} by {}", words(&resolution.action), resolution.by))
        }
        Event::RiskApproved { decision, notional_usd, notes, .. } => {
            let notes: Vec<String> = notes.iter().map(|note| format!(", {} {}", note.code, note.detail)).collect();
            (Info, format!("{decision}: risk approves {:.2} USD{}", notional_usd, notes.concat()))
        }
        Event::DecisionEnded { decision, end, reason } => match end {
            DecisionEnd::Hold => return None,
            DecisionEnd::Traded(key) => (Info, format!("{decision}: trade {}", key.short())),
            DecisionEnd::Refused(refusal) => {
                let measured = format!("{} against {}", refusal.measured, refusal.limit);
                (Info, format!("{decision}: risk refuses, {} ({measured})", refusal.code))
            }
            DecisionEnd::Suppressed(why)
            | DecisionEnd::NothingToDo(why)
            | DecisionEnd::Waited(why)
            | DecisionEnd::Aborted(why) => (Info, format!("{decision}: {} ({why})", end.name())),
            DecisionEnd::BelowMinimum | DecisionEnd::Expired | DecisionEnd::Interrupted => {
                let why = reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                (Info, format!("{decision}: {}{why}", end.name()))
            }
        },
        Event::TradeIntent { trade } => {
            let body = &trade.body;
            let how = match body.order_type {
                OrderType::Market => "at market".to_owned(),
                OrderType::Limit { limit } => format!("limit {limit}"),
            };
            let order = format!("{} {} {} {how}", words(&body.side), body.quantity, body.symbol);
            (Info, format!("order {} ({}): {order}", trade.key.short(), trade.kind.name()))
        }
        Event::TradeAcked { trade_key, expires_at } => {
            let until = expires_at.map(|at| format!(" until {at}")).unwrap_or_default();
            (Info, format!("order {} rests{until}", trade_key.short()))
        }
        Event::TradeFill { trade_key, symbol, side, quantity, price, fee, evidence, .. } => {
            let evidence = evidence.as_ref().map(|text| format!(", {text}")).unwrap_or_default();
            let fill = format!("{} {quantity} {symbol} at {price}, fee {fee:.6} {}", words(side), symbol.quote);
            (Info, format!("fill of {}: {fill}{evidence}", trade_key.short()))
        }
        Event::TradeRejected { trade_key, reason } => {
            (Error, format!("order {} rejected: {reason}", trade_key.short()))
        }
        Event::TradeRefused { trade_key, reason } => (Info, format!("order {} refused: {reason}", trade_key.short())),
        Event::TradeExpired { trade_key, reason } => (Info, format!("order {} expired: {reason}", trade_key.short())),
        Event::TradeCancelled { trade_key, reason } => {
            (Info, format!("order {} cancelled: {reason}", trade_key.short()))
        }
        Event::TradeNotExecuted { trade_key, reason, .. } => {
            (Error, format!("order {} failed: {reason}", trade_key.short()))
        }
        Event::TradeUnknown { trade_key, reason } => {
            (Error, format!("order {} unanswered: {reason}", trade_key.short()))
        }
        Event::TradeCancelRequested { trade_key, reason } => {
            (Info, format!("order {} is to be cancelled: {reason}", trade_key.short()))
        }
        Event::TradeManual { trade_key, reason } => {
            (Error, format!("order {} is left to the operator: {reason}", trade_key.short()))
        }
        Event::TradeResolved { trade_key, resolution } => {
            (Warning, format!("order {} resolved by the operator: {resolution}", trade_key.short()))
        }
        Event::PlanCreated { plan } => {
            let batches = plan.legs.iter().map(|leg| leg.batch).max().map_or(0, |last| last + 1);
            let shape = format!("{} legs in {batches} batches", plan.legs.len());
            (Info, format!("rebalance plan {}: {shape}, deviation {:.2} points", plan.id, plan.deviation_pct))
        }
        Event::LegsRespread { plan, due } => (Warning, format!("plan {plan}: {} legs moved", due.len())),
        Event::PlanCompleted { plan } => (Info, format!("plan {plan} completed")),
        Event::PlanSuperseded { plan, reason } => (Warning, format!("plan {plan} superseded: {reason}")),
        Event::PlanExpired { plan } => (Warning, format!("plan {plan} expired with legs pending")),
        Event::LegsCancelled { plan, legs, reason } => {
            (Warning, format!("plan {plan}: {} legs cancelled: {reason}", legs.len()))
        }
        Event::Deposit { asset, amount } => (Info, format!("deposit {amount} {asset}")),
        Event::PositionOpened { position } => {
            let p = position;
            let levels = format!("stop {}, target {}", level(p.stop), level(p.target));
            (
                Info,
                format!("position {} opened: {} {} at {:.6}, {levels}", p.id, p.quantity, p.symbol, p.average_entry()),
            )
        }
        Event::PositionClosed { closed } => {
            let c = closed;
            (
                Info,
                format!(
                    "position {} closed by {}: {} net {:.4} {}",
                    c.id,
                    words(&c.cause),
                    c.symbol,
                    c.net,
                    c.symbol.quote
                ),
            )
        }
        Event::StopMoved { position, stop, .. } => (Info, format!("position {position}: stop now {}", level(*stop))),
        Event::BreakerTripped { latch, action } => {
            let how_far = format!("{} against {}", latch.measured.round_dp(2), latch.limit);
            (Error, format!("breaker {} tripped ({how_far}): {}", latch.breaker, action.name()))
        }
        Event::BreakerRearmed { breaker, reason } => (Info, format!("breaker {breaker} armed again: {reason}")),
        Event::EmergencyStarted { emergency } => (Error, format!("emergency {} started", emergency.key)),
        Event::EmergencyStep { key, position, result, .. } => (Error, format!("emergency {key}: {position} {result}")),
        Event::EmergencyDone { key, .. } => (Error, format!("emergency {key} done")),
        _ => return None,
    };
    Some(line)
}

/// The name of a variant as words: `NoMajority` is "no majority".
fn words(name: &impl Debug) -> String {
    let mut text = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn level(price: Option<Price>) -> String {
    price.map_or_else(|| "none".to_owned(), |price| price.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VoteClass;

    #[test]
    fn a_bill_above_what_was_held_is_a_warning_and_every_other_is_silent() {
        let settled = |over: i64| {
            let (cost, over) = (crate::model::Money::new(900, 5), crate::model::Money::new(over, 5));
            let event =
                Event::BudgetSettled { call: 7, cost, input_tokens: None, output_tokens: None, failure: None, over };
            let ts = crate::model::Ts(0);
            let (actor, corr, cause) = ("router".into(), String::new(), String::new());
            describe(&Record { v: 1, seq: 1, epoch: 1, ts, n: Some(1), actor, corr, cause, event })
        };
        assert!(settled(0).is_none());
        let (loudness, text) = settled(850).unwrap();
        assert_eq!(loudness, Loudness::Warning);
        assert!(text.contains("call 7 was billed 0.00900 USD, 0.00850 more"), "{text}");
    }

    #[test]
    fn only_halted_is_an_error_among_the_states() {
        use crate::model::Ts;
        let line = |to| {
            let event =
                Event::StateChanged { from: CoordinatorState::Running, to, reason: "operator".into(), halt: None };
            let record = Record {
                v: 1,
                seq: 1,
                epoch: 1,
                ts: Ts(0),
                n: Some(1),
                actor: "coordinator".into(),
                corr: String::new(),
                cause: String::new(),
                event,
            };
            describe(&record).unwrap()
        };
        assert_eq!(line(CoordinatorState::Halted).0, Loudness::Error);
        let (loudness, text) = line(CoordinatorState::Paused);
        assert_eq!(loudness, Loudness::Warning);
        assert!(text.starts_with("RUNNING -> PAUSED: operator (stopped: decisions, entries"), "{text}");
    }

    #[test]
    fn loudness_is_read_as_it_is_written() {
        for loudness in [Loudness::Info, Loudness::Warning, Loudness::Error] {
            assert_eq!(Loudness::parse(loudness.name()), Some(loudness));
        }
        assert_eq!(Loudness::parse("loud"), None);
    }

    /// Records in the ways they can be told, each with its line, `-` where none is worth one.
    /// `DESCRIBED_WRITE=1 cargo test --lib told_in` writes the lines anew, to be read before they are committed.
    #[test]
    fn records_are_told_in_these_lines() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/described.txt");
        let known = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = known.lines().collect();
        let mut told = String::new();
        for pair in lines.chunks(2) {
            let record: Record = serde_json::from_str(pair[0]).unwrap_or_else(|why| panic!("{why}: {}", pair[0]));
            let line = describe(&record).map(|(loudness, text)| format!("{}: {text}", loudness.name()));
            told += &format!("{}\n{}\n", pair[0], line.unwrap_or_else(|| "-".to_owned()));
        }
        if std::env::var_os("DESCRIBED_WRITE").is_some() {
            return std::fs::write(file, told).unwrap();
        }
        for (is, was) in told.lines().zip(known.lines()) {
            assert_eq!(is, was);
        }
        assert_eq!(told.lines().count(), lines.len(), "a record without its line");
    }

    #[test]
    fn names_of_variants_are_words() {
        assert_eq!(words(&VoteClass::NoMajority), "no majority");
        assert_eq!(level(None), "none");
    }
}
