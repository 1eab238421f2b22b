//! The router: asks the models of a chain one after another, each within its part of the deadline.
//!
//! One attempt goes through permit, breaker, rate and budget before its first byte; its reservation is durable by then,
//! so a crash leaves it spent. What counts as an answer is the question's own check.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, Supervised, WrapFuture};

use super::{
    AskModel, MISSES_KEPT, Miss, ReadMisses, ReadModels, ReadRecording,
    call::{Turn, call},
    http::{Broken, Http, Raw},
    probe,
    recorder::Recorder,
    shared::{Admission, Shared},
};
use crate::{
    llm::{
        budget::{self, Verdict},
        cassette, classify,
        plan::{self, Doubt},
        question::{Answered, AttemptFailure, FailureKind, Payer, Question, Rejected, Unanswered},
        wire::{self, Reply, Usage},
    },
    model::{Clock, DegradationLevel, Event, Money, Ts},
    runtime::supervisor::Worker,
};

/// More tokens than any model reads or writes in one call.
const TOKENS_POSSIBLE: u32 = 10_000_000;

/// The actor. All that lasts is in [`Shared`].
pub struct Router {
    shared: Rc<Shared>,
    probing: Rc<Cell<bool>>,
}

impl Router {
    /// A life of the router.
    pub fn new(shared: Rc<Shared>) -> Router {
        Router { shared, probing: Rc::default() }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}
impl Supervised for Router {}
impl Worker for Router {
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if self.shared.settings.chains.is_empty() {
            return;
        }
        let logical = Duration::from_secs(u64::from(self.shared.settings.degradation.probe_seconds.max(1)));
        ctx.run_interval(logical / self.shared.clock.speed().max(1), |router, ctx| {
            let shared = Rc::clone(&router.shared);
            if shared.levels().1 > DegradationLevel::Normal && !router.probing.replace(true) {
                let probing = Rc::clone(&router.probing);
                let done = async move {
                    probe::all(&shared).await;
                    probing.set(false);
                };
                ctx.spawn(done.into_actor(router));
            }
        });
    }
}

impl Handler<AskModel> for Router {
    type Result = ResponseActFuture<Self, Result<Answered, Unanswered>>;
    fn handle(&mut self, ask: AskModel, _: &mut Context<Self>) -> Self::Result {
        let shared = Rc::clone(&self.shared);
        Box::pin(async move { answer(&shared, &ask.0).await }.into_actor(self))
    }
}

impl Handler<ReadModels> for Router {
    type Result = MessageResult<ReadModels>;
    fn handle(&mut self, _: ReadModels, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.shared.status())
    }
}

impl Handler<ReadMisses> for Router {
    type Result = MessageResult<ReadMisses>;
    fn handle(&mut self, _: ReadMisses, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.shared.misses.borrow().clone())
    }
}

impl Handler<ReadRecording> for Router {
    type Result = MessageResult<ReadRecording>;
    fn handle(&mut self, _: ReadRecording, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.shared.http.as_ref().and_then(Http::recorder).map(Recorder::done))
    }
}

/// What an attempt left behind.
pub(super) struct Tried {
    pub result: Result<(Reply, Usage), Failed>,
    cost: Money,
}

pub(super) struct Failed {
    pub why: Rejected,
    retry_after_ms: Option<i64>,
}

impl Tried {
    fn refused(kind: FailureKind, detail: String) -> Tried {
        Tried { result: Err(Failed { why: Rejected { kind, detail }, retry_after_ms: None }), cost: Money::ZERO }
    }
}

/// One logical call.
async fn answer(shared: &Rc<Shared>, question: &Question) -> Result<Answered, Unanswered> {
    let started = shared.clock.now();
    let nobody = |kind| Unanswered { attempts: Vec::new(), cost_usd: Money::ZERO, kind };
    let Some(chain) = shared.settings.chains.get(&question.chain) else {
        return Err(nobody(FailureKind::Unavailable));
    };
    let (global, own) = shared.levels();
    if global >= DegradationLevel::Emergency {
        return Err(nobody(FailureKind::Degraded));
    }
    let mut failed = nobody(FailureKind::Timeout);
    let order = plan::order(chain.len(), own >= DegradationLevel::Reduced);
    for (asked, index) in (1..).zip(order) {
        let Some(entry) = chain.get(index) else { continue };
        let Some((endpoint, model, settings)) = shared.target(entry) else {
            fail(&mut failed, entry, "", FailureKind::NoPrice, "the model has no price".to_owned());
            continue;
        };
        let timeout_ms = i64::from(endpoint.settings.timeout_seconds) * 1000;
        let Some(until) = plan::part(shared.clock.now(), question.deadline, asked < chain.len(), timeout_ms) else {
            fail(&mut failed, &endpoint.name, model, FailureKind::Timeout, "no time was left to ask it".to_owned());
            break;
        };
        let turn = Turn { endpoint, model, settings, until };
        if let Some((reply, usage)) = ask_one(shared, question, &turn, &mut failed).await {
            shared.tell(Ok(()));
            return Ok(Answered {
                text: reply.text,
                reasoning: reply.reasoning,
                provider: turn.endpoint.name.clone(),
                model: model.to_owned(),
                input_tokens: usage.input,
                output_tokens: usage.output,
                cost_usd: failed.cost_usd,
                took_ms: shared.clock.now().since_ms(started),
                before: failed.attempts,
                prompt_sha256: question.prompt.sha256(),
            });
        }
    }
    miss(shared, question, chain, &failed);
    // Calls that were never made say nothing about the models: an open breaker is no new failure.
    let real = failed.attempts.iter().rev().find(|one| classify::outcome(one.kind, None, 0, 1).is_some());
    if let Some(last) = real {
        shared.tell(Err(format!("{}:{}", last.provider, last.kind.name())));
    }
    Err(failed)
}

/// Notes a question of which the recording knows nothing at all.
fn miss(shared: &Shared, question: &Question, chain: &[String], failed: &Unanswered) {
    let unknown = failed.attempts.iter().all(|one| one.kind == FailureKind::NotRecorded);
    let entry = chain.first().filter(|_| unknown && !failed.attempts.is_empty());
    let Some((entry, (endpoint, model, settings))) = entry.and_then(|entry| Some((entry, shared.target(entry)?)))
    else {
        return;
    };
    let kind = endpoint.settings.kind;
    let sha = cassette::request_sha256(kind, model, &settings, &question.prompt, &question.format);
    let mut misses = shared.misses.borrow_mut();
    misses.count += 1;
    if misses.first.len() < MISSES_KEPT {
        misses.first.push(Miss {
            key: question.key.to_string(),
            template: question.prompt.template.clone(),
            model: entry.clone(),
            file: std::path::Path::new(&shared.settings.cassette.dir)
                .join(cassette::file_name(&sha))
                .display()
                .to_string(),
        });
    }
}

fn fail(failed: &mut Unanswered, provider: &str, model: &str, kind: FailureKind, message: String) {
    failed.kind = kind;
    let (provider, model) = (provider.to_owned(), model.to_owned());
    failed.attempts.push(AttemptFailure { provider, model, kind, message });
}

/// Asks one model, more than once where that may help. Costs and failures go to `failed`.
async fn ask_one(
    shared: &Rc<Shared>,
    question: &Question,
    turn: &Turn<'_>,
    failed: &mut Unanswered,
) -> Option<(Reply, Usage)> {
    for attempt in 1.. {
        let tried = attempt_once(shared, question, turn, attempt > 1).await;
        failed.cost_usd += tried.cost;
        let why = match tried.result {
            Ok(answer) => return Some(answer),
            Err(why) => why,
        };
        let kind = why.why.kind;
        let words = match &turn.endpoint.key {
            Ok(Some(key)) => key.redact(&why.why.detail),
            _ => why.why.detail,
        };
        fail(failed, &turn.endpoint.name, turn.model, kind, classify::shortened(&words));
        let now = shared.clock.now();
        let at = plan::again(kind, attempt, why.retry_after_ms, shared.draw(), now, turn.until)?;
        if !turn.endpoint.retries.borrow_mut().claim(now) {
            if let Some(failure) = failed.attempts.last_mut() {
                failure.message.push_str("; not asked again: a fifth of its calls were repetitions already");
            }
            return None;
        }
        shared.clock.sleep_until(at).await;
    }
    None
}

/// Permit, breaker, rate, budget, call, settlement. `again`: it repeats a call that failed.
pub(super) async fn attempt_once(shared: &Rc<Shared>, question: &Question, turn: &Turn<'_>, again: bool) -> Tried {
    let endpoint = &turn.endpoint;
    if !shared.tape.replays() {
        if let Err(problem) = &endpoint.key {
            return Tried::refused(FailureKind::Unavailable, problem.clone());
        }
        if shared.http.is_none() {
            let why = "in virtual time models are asked for a recording or from one; set cassette.mode";
            return Tried::refused(FailureKind::Unavailable, why.to_owned());
        }
    }
    let came_at = shared.clock.now();
    let waited = tokio::select! {
        biased;
        permit = endpoint.permits.acquire() => permit.ok(),
        () = shared.clock.sleep_until(turn.until) => None,
    };
    let Some(_permit) = waited else {
        return Tried::refused(FailureKind::Throttled, "too many calls of this provider are under way".to_owned());
    };
    // What is left after waiting for others must be most of its part, or the wait would look like a slow provider.
    if shared.clock.now().since_ms(came_at) * 2 > turn.until.since_ms(came_at) {
        return Tried::refused(FailureKind::Throttled, "waited too long for other calls of this provider".to_owned());
    }
    let admission = match shared.admit(endpoint) {
        Ok(admission) => admission,
        Err(why) => return Tried::refused(FailureKind::BreakerOpen, why),
    };
    while let Err(at) = endpoint.take(shared.clock.now()) {
        if at >= turn.until {
            let why =
                format!("the rate of {} calls a minute is used up until {at}", endpoint.settings.calls_per_minute);
            return Tried::refused(FailureKind::Throttled, why);
        }
        shared.clock.sleep_until(at).await;
    }
    // Durable before the call: a crash loop must not call faster than a program that lives.
    shared.keep(endpoint);
    let held = match reserve(shared, question, turn).await {
        Ok(held) => held,
        Err(why) => return Tried::refused(why.kind, why.detail),
    };
    let called_at = shared.clock.now();
    if !again {
        endpoint.retries.borrow_mut().count(called_at);
    }
    let worst = held.as_ref().map_or(Money::ZERO, |held| held.amount);
    let made = call(shared, question, turn, worst).await;
    let tried = judge(question, turn, worst, made.reply);
    if let Some(recorder) = shared.http.as_ref().and_then(Http::recorder).filter(|_| made.recorded) {
        recorder.paid(tried.cost);
    }
    conclude(shared, turn, admission, called_at, &tried);
    if let Some(held) = held {
        settle(shared, question, &held, &tried).await;
    }
    tried
}

/// A durable reservation.
struct Held {
    call: u64,
    amount: Money,
}

/// Holds the worst cost of an attempt; none for one that costs nothing.
async fn reserve(shared: &Rc<Shared>, question: &Question, turn: &Turn<'_>) -> Result<Option<Held>, Rejected> {
    let worst = budget::worst_usage(&turn.settings, &question.prompt, &question.format);
    let worst = budget::price(&turn.settings, worst);
    let (provider, limit) = (&turn.endpoint.name, turn.endpoint.settings.daily_usd);
    let _alone = shared.ledger.lock().await;
    let day = shared.clock.now().day();
    let ledger = shared.spending(day);
    let price = budget::held(&ledger, provider, worst);
    let money = &shared.settings.budget;
    let share = shared.worst_cases.share(question.key.task, money.per_decision_usd);
    let (amount, warned) = match budget::judge(&ledger, money, (provider, limit), &question.payer, &share, price) {
        Verdict::Free => return Ok(None),
        Verdict::Reserve { amount, warned } => (amount, warned),
        Verdict::Refuse(exhausted) => {
            let (spent, of) = (exhausted.spent, exhausted.of);
            let detail =
                format!("the budget `{}` has {spent} of {of} USD spent, the call may cost {price}", exhausted.limit);
            if exhausted.tell {
                let event = Event::BudgetExhausted { day, limit: exhausted.limit, spent, of };
                shared.commit(question.purpose(), vec![event]).await;
            }
            return Err(Rejected { kind: FailureKind::Budget, detail });
        }
    };
    let decision = match &question.payer {
        Payer::Decision(id) => Some(*id),
        Payer::Opinion => None,
    };
    let (call, provider, model) = (ledger.calls + 1, provider.clone(), turn.model.to_owned());
    let event = Event::BudgetReserved { call, day, provider, model, decision, amount, warned };
    if shared.commit(question.purpose(), vec![event]).await {
        return Ok(Some(Held { call, amount }));
    }
    let detail = "the reservation could not be made durable".to_owned();
    Err(Rejected { kind: FailureKind::Unavailable, detail })
}

/// What a reply is worth and what it costs. Without the provider's count the reservation is taken for the cost, except
/// where nothing can be charged: a request that never arrived, or one that was refused by its status.
fn judge(question: &Question, turn: &Turn<'_>, held: Money, reply: Result<Raw, Broken>) -> Tried {
    let none = |why, retry_after_ms, cost| Tried { result: Err(Failed { why, retry_after_ms }), cost };
    let raw = match reply {
        Ok(raw) => raw,
        Err(broken) => return none(broken.why, None, if broken.unsent { Money::ZERO } else { held }),
    };
    if !(200..300).contains(&raw.status) {
        let refusal = classify::refusal(raw.status, &raw.body);
        let why = Rejected { kind: refusal.kind, detail: refusal.message };
        // A gateway that gave up waiting does not say whether the model behind it went on.
        let cost = if matches!(raw.status, 408 | 504 | 524) { held } else { Money::ZERO };
        return none(why, raw.retry_after_ms, cost);
    }
    // A count no model can have is no count.
    let possible = |usage: &Usage| usage.input.max(usage.output) <= TOKENS_POSSIBLE;
    let cost = |usage: Option<Usage>| usage.filter(possible).map_or(held, |usage| budget::price(&turn.settings, usage));
    // An answer was made of tokens: neither is a count of none.
    let counted = |usage: Option<Usage>| usage.filter(|usage| usage.input.min(usage.output) > 0);
    match wire::read(turn.endpoint.settings.kind, &raw.body) {
        Err(failed) => none(failed.why, None, cost(failed.usage)),
        Ok(reply) => match (question.check)(&reply.text) {
            Err(why) => none(why, None, cost(counted(reply.usage))),
            Ok(()) => {
                let (usage, cost) = (reply.usage.unwrap_or_default(), cost(counted(reply.usage)));
                Tried { result: Ok((reply, usage)), cost }
            }
        },
    }
}

/// Breaker, rate and counters of a call that was made.
fn conclude(shared: &Rc<Shared>, turn: &Turn<'_>, admission: Admission, called_at: Ts, tried: &Tried) {
    let took_ms = shared.clock.now().since_ms(called_at);
    let timeout_ms = i64::from(turn.endpoint.settings.timeout_seconds) * 1000;
    let (failure, outcome) = match &tried.result {
        Ok(_) => (None, classify::answered(took_ms, timeout_ms)),
        Err(failed) => {
            let kind = failed.why.kind;
            (Some(kind), classify::outcome(kind, failed.retry_after_ms, took_ms, timeout_ms))
        }
    };
    shared.record(admission, outcome);
    shared.count(&turn.endpoint, failure);
    if failure.is_none_or(FailureKind::is_call) {
        turn.endpoint.doubt.set((Doubt::after(failure), shared.clock.now()));
    }
}

async fn settle(shared: &Rc<Shared>, question: &Question, held: &Held, tried: &Tried) {
    let usage = tried.result.as_ref().ok().map(|(_, usage)| *usage).filter(|usage| *usage != Usage::default());
    let event = Event::BudgetSettled {
        call: held.call,
        cost: tried.cost,
        input_tokens: usage.map(|usage| usage.input),
        output_tokens: usage.map(|usage| usage.output),
        failure: tried.result.as_ref().err().map(|failed| failed.why.kind.name().to_owned()),
        over: (tried.cost - held.amount).max(Money::ZERO),
    };
    // Not settled is spent: the limit is reached sooner, never later.
    if !shared.commit(question.purpose(), vec![event]).await {
        tracing::warn!(call = held.call, "the cost of a model call could not be settled");
    }
}
