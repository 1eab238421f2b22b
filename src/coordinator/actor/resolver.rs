//! The conflict resolver as an actor, and how the pipeline asks it: within its time, and within its bounds.
//!
//! With a chain of models configured the actor asks it; without one, or at a level that forbids it, the configured
//! fallback settles the conflict. What a model answers is never
//! taken as it is: a model's answer is bounded here, and whoever does not answer in time, breaks or answers against
//! the schema leaves the fallback action of the conflict, with the error kept (domain §10). It decides nothing else.
// tidy: allow(pure) an actor file; what it decides is in pure files beside it

use std::{rc::Rc, sync::Arc};

use actix::{Actor, ActorResponse, Context, Handler, Message, Recipient, Supervised, WrapFuture};

use super::{
    disputed::Disputed,
    resolution::{self, ResolverAnswer},
};
use crate::{
    agents::{
        answers::{self, ground::Ground},
        prompts::{self, data},
    },
    llm::{
        actor::{Models, PATIENCE_MS},
        question::{Answered, AttemptFailure, Payer, Question, Unanswered, attempts},
    },
    model::{
        Conflict, DecisionId, ModelCall, Price, Resolution, ResolutionAction, RunKey, Score, Side, Symbol, TaskName, Ts,
    },
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
    /// Leverage wanted.
    pub leverage: u32,
    /// In the order of the specification's table.
    pub conflicts: Vec<Conflict>,
    /// Logical instant after which an answer is not waited for any more.
    pub until: Ts,
    /// Whether the degradation level lets a model be asked.
    pub ask_models: bool,
}

impl Resolve {
    /// The question about a disputed entry, to be answered before `until`.
    pub fn new(decision: DecisionId, disputed: &Disputed, until: Ts, ask_models: bool) -> Resolve {
        let request = &disputed.request;
        Resolve {
            decision,
            symbol: request.symbol,
            side: request.side,
            confidence: request.confidence,
            entry: request.entry,
            stop: request.stop,
            target: request.target,
            leverage: request.leverage,
            conflicts: disputed.conflicts.clone(),
            until,
            ask_models,
        }
    }

    /// The question to the chain of models.
    fn question(&self, settings: &Settings) -> Question {
        let format = answers::resolution::format();
        let levels = (self.entry, self.stop, self.target);
        let shown =
            |room| data::dispute(self.symbol, self.side, self.confidence, levels, self.leverage, &self.conflicts, room);
        let ground = self.ground(settings);
        Question {
            chain: settings.conflicts.chain.clone(),
            key: RunKey { task: TaskName::TradingDecision, symbol: self.symbol },
            payer: Payer::Decision(self.decision),
            prompt: prompts::render_within(prompts::CONFLICT_RESOLUTION, &format, shown),
            format,
            // Early enough that a failure comes with the errors of everyone asked.
            deadline: self.until.plus_ms(-2 * PATIENCE_MS.min(i64::from(settings.conflicts.max_resolution_ms) / 8)),
            check: Arc::new(move |text| answers::resolution::parse(text, &ground).map(drop)),
        }
    }

    fn ground(&self, settings: &Settings) -> Ground {
        Ground::about(self.symbol, self.entry, &settings.symbols, (&settings.agents.grounding).into())
    }
}

/// What a resolver says.
#[derive(Clone, PartialEq, Debug)]
pub enum ResolverReply {
    /// Nobody was asked: the configured fallback.
    Fallback(Resolution),
    /// A model's parsed answer, not bounded yet.
    Answer(ResolverAnswer),
    /// Everyone asked failed: the errors, in order (F14), and how they were asked.
    Failed(Vec<String>, Option<Box<ModelCall>>),
}

/// The resolver: a chain of models where one is configured, else the fallback.
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
    type Result = ActorResponse<Self, ResolverReply>;
    fn handle(&mut self, asked: Resolve, _: &mut Context<Self>) -> Self::Result {
        let settings = &self.settings;
        if settings.conflicts.chain.is_empty() || !asked.ask_models {
            let mut settled = resolution::fallback(&asked.conflicts, &settings.conflicts, Vec::new());
            if !asked.ask_models {
                settled.action = settled.action.max(ResolutionAction::Wait);
            }
            return ActorResponse::reply(ResolverReply::Fallback(settled));
        }
        let (question, ground, models) = (asked.question(settings), asked.ground(settings), self.models.clone());
        let thinking = async move {
            // Without a clock nobody could be asked, and no time passed.
            let began = models.now_or(Ts::default());
            let answer = models.ask(question.clone()).await;
            read(&question, &answer, &ground, models.now_or(Ts::default()).since_ms(began))
        };
        ActorResponse::r#async(thinking.into_actor(self))
    }
}

/// What a chain's answer says; the errors of everyone asked in vain are kept in order.
fn read(question: &Question, answer: &Result<Answered, Unanswered>, ground: &Ground, took_ms: i64) -> ResolverReply {
    let call = Some(Box::new(question.call(answer, took_ms)));
    let told = |one: &AttemptFailure| {
        let AttemptFailure { provider, model, kind, message } = one;
        format!("{provider}/{model}: {}{}{message}", kind.name(), if message.is_empty() { "" } else { ": " })
    };
    let mut errors: Vec<String> = attempts(answer).iter().map(told).collect();
    match answer {
        Ok(answered) => {
            let by = format!("{}/{}", answered.provider, answered.model);
            match answers::resolution::parse(&answered.text, ground) {
                Ok(said) => ResolverReply::Answer(ResolverAnswer {
                    by,
                    action: said.action,
                    confidence: said.confidence,
                    modifications: said.modifications,
                    errors,
                    call,
                }),
                Err(rejected) => {
                    errors.push(format!("{by}: {}: {}", rejected.kind.name(), rejected.detail));
                    ResolverReply::Failed(errors, call)
                }
            }
        }
        Err(unanswered) => {
            if errors.is_empty() {
                errors.push(format!("nobody was asked: {}", unanswered.kind.name()));
            }
            ResolverReply::Failed(errors, call)
        }
    }
}

/// Asks the resolver and settles the conflicts, at the latest at `question.until`.
pub async fn settle(
    resolver: &Recipient<Resolve>,
    question: Resolve,
    clock: &LogicalClock,
    settings: &ConflictSettings,
) -> Resolution {
    let (conflicts, leverage, until) = (question.conflicts.clone(), question.leverage, question.until);
    let (errors, call) = match tokio::time::timeout(clock.until(until), resolver.send(question)).await {
        Ok(Ok(ResolverReply::Fallback(settled))) => return settled,
        Ok(Ok(ResolverReply::Answer(answer))) => {
            let (mut errors, call) = (answer.errors.clone(), answer.call.clone());
            match resolution::bounded(answer, leverage, settings) {
                Ok(settled) => return settled,
                Err(error) => errors.push(error),
            }
            (errors, call)
        }
        Ok(Ok(ResolverReply::Failed(errors, call))) => (errors, call),
        Ok(Err(_)) => (vec!["resolver: stopped before it answered".to_owned()], None),
        Err(_) => (vec![format!("resolver: no answer within {} ms", settings.max_resolution_ms)], None),
    };
    Resolution { model: call, ..resolution::fallback(&conflicts, settings, errors) }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
