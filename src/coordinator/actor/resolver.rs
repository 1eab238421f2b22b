//! The conflict resolver as an actor, and how the pipeline asks it: within its time, and within its bounds.
//!
//! This release has no resolver model, so the actor answers with the configured fallback. What it answers is never
//! taken as it is: a model's answer is bounded here, and whoever does not answer in time, breaks or answers against
//! the schema leaves the fallback action of the conflict, with the error kept (domain §10). It decides nothing else.
// tidy: allow(pure) an actor file; what it decides is in pure files beside it

use std::rc::Rc;

use actix::{Actor, Context, Handler, Message, MessageResult, Recipient, Supervised};

use super::{
    disputed::Disputed,
    resolution::{self, ResolverAnswer},
};
use crate::{
    llm::actor::Models,
    model::{Clock, Conflict, DecisionId, Price, Resolution, Score, Side, Symbol},
    runtime::{clock::LogicalClock, supervisor::Worker},
    settings::{ConflictSettings, Settings},
};

/// Asks what to do about the conflicts of one entry. Everything by value.
#[derive(Message, Clone, Debug)]
#[rtype(result = "ResolverReply")]
pub struct Resolve {
    /// Which decision.
    pub decision: DecisionId,
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: Side,
    /// After the consensus.
    pub confidence: Score,
    /// Entry wanted, quote units.
    pub entry: Price,
    /// Protective stop.
    pub stop: Option<Price>,
    /// Target.
    pub target: Option<Price>,
    /// In the order of the specification's table.
    pub conflicts: Vec<Conflict>,
}

impl Resolve {
    /// The question about a disputed entry.
    pub fn new(decision: DecisionId, disputed: &Disputed) -> Resolve {
        let request = &disputed.request;
        Resolve {
            decision,
            symbol: request.symbol,
            side: request.side,
            confidence: request.confidence,
            entry: request.entry,
            stop: request.stop,
            target: request.target,
            conflicts: disputed.conflicts.clone(),
        }
    }
}

/// What a resolver says.
#[derive(Clone, PartialEq, Debug)]
pub enum ResolverReply {
    /// Nobody was asked: the configured fallback.
    Fallback(Resolution),
    /// A model's parsed answer, not bounded yet.
    Answer(ResolverAnswer),
    /// Everyone asked failed: the errors, in order (F14).
    Failed(Vec<String>),
}

/// The resolver of this release: no model, the configured fallback.
pub struct ConflictResolver {
    settings: Rc<Settings>,
    models: Models,
}

impl ConflictResolver {
    /// It has no state but its settings and the models it may ask.
    pub fn new(settings: Rc<Settings>, models: Models) -> ConflictResolver {
        ConflictResolver { settings, models }
    }
}

impl Actor for ConflictResolver {
    type Context = Context<Self>;
}
impl Supervised for ConflictResolver {}
impl Worker for ConflictResolver {}

impl Handler<Resolve> for ConflictResolver {
    type Result = MessageResult<Resolve>;
    fn handle(&mut self, question: Resolve, _: &mut Context<Self>) -> Self::Result {
        let settled = resolution::fallback(&question.conflicts, &self.settings.conflicts, Vec::new());
        MessageResult(ResolverReply::Fallback(settled))
    }
}

/// Asks the resolver and settles the conflicts, at the latest `conflicts.max_resolution_ms` of logical time from now.
pub async fn settle(
    resolver: &Recipient<Resolve>,
    question: Resolve,
    leverage: u32,
    clock: &LogicalClock,
    settings: &ConflictSettings,
) -> Resolution {
    let conflicts = question.conflicts.clone();
    let until = clock.now().plus_ms(i64::from(settings.max_resolution_ms));
    let errors = match tokio::time::timeout(clock.until(until), resolver.send(question)).await {
        Ok(Ok(ResolverReply::Fallback(settled))) => return settled,
        Ok(Ok(ResolverReply::Answer(answer))) => match resolution::bounded(answer, leverage, settings) {
            Ok(settled) => return settled,
            Err(error) => vec![error],
        },
        Ok(Ok(ResolverReply::Failed(errors))) => errors,
        Ok(Err(_)) => vec!["resolver: stopped before it answered".to_owned()],
        Err(_) => vec![format!("resolver: no answer within {} ms", settings.max_resolution_ms)],
    };
    resolution::fallback(&conflicts, settings, errors)
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
