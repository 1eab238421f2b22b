//! A voter that is a model: its question, and what its reply counts for. A failure is a failed ballot with its kind,
//! never a HOLD; a reply is read here again, whatever the router has checked.

use std::sync::Arc;

use super::{
    answers::{self, ground::Ground},
    contract::RunContext,
    prompts::{self, data},
    trading_decision::DecisionInputs,
    vote,
};
use crate::{
    llm::{
        actor::PATIENCE_MS,
        question::{Answered, FailureKind, Payer, Question, Unanswered},
    },
    model::{Ballot, DecisionId, ModelCall, RunKey, TaskName, Ts},
    settings::{AgentsSettings, TradingDecisionSettings, VoterKind},
};

/// The ballot of one model voter and when it came.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// The voter's configured name.
    pub voter: Arc<str>,
    /// The ballot with its time; `None` while the model is silent.
    pub ballot: Option<(Ballot, Ts)>,
    /// How it was asked; absent when it was not.
    pub call: Option<Box<ModelCall>>,
}

/// A question under way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The voter's configured name.
    pub voter: Arc<str>,
    /// What it is asked.
    pub question: Question,
    asked_at: Ts,
}

/// Ballot of a model that is not asked because the degradation level forbids it: nothing becomes looser, so it still
/// counts among those asked.
pub fn forbidden(voter: &str, at: Ts) -> Reply {
    let why = FailureKind::Degraded.name().to_owned();
    Reply { voter: voter.into(), ballot: Some((Ballot::Failed(why), at)), call: None }
}

/// Enabled voters that are models, in configured order: name and chain.
pub fn voters(settings: &TradingDecisionSettings) -> impl Iterator<Item = (&str, &str)> {
    let models = settings.voters.iter().filter(|voter| voter.enabled && voter.kind == VoterKind::Model);
    models.filter_map(|voter| Some((voter.name.as_str(), voter.chain.as_deref()?)))
}

/// One question per model voter, all about the same inputs. They end before the poll does, so that a failure comes with
/// its reason and its cost instead of being absent.
pub fn questions(ctx: &RunContext, inputs: &DecisionInputs, settings: &AgentsSettings, ground: &Ground) -> Vec<Asked> {
    let poll_ms = i64::from(settings.trading_decision.poll_timeout_seconds) * 1_000;
    let deadline = ctx.started_at.plus_ms(poll_ms - (2 * PATIENCE_MS).min(poll_ms / 4));
    let candles = data::history(inputs.snapshot);
    let news = inputs.sentiment.map_or(&[][..], |mood| &mood.news);
    let asked = voters(&settings.trading_decision).map(|(name, chain)| Asked {
        voter: name.into(),
        question: question(chain, ctx, inputs, news, &candles, ground, deadline),
        asked_at: ctx.now,
    });
    asked.collect()
}

/// What became of a question at `at`.
pub fn reply(asked: &Asked, answer: &Result<Answered, Unanswered>, ground: &Ground, at: Ts) -> Reply {
    let call = asked.question.call(answer, at.since_ms(asked.asked_at));
    Reply { voter: Arc::clone(&asked.voter), ballot: Some((ballot(answer, ground), at)), call: Some(Box::new(call)) }
}

/// The question to `chain` for one vote. `news` is text from outside and is quoted; nobody waits after `deadline`.
pub fn question(
    chain: &str,
    ctx: &RunContext,
    inputs: &DecisionInputs,
    news: &[String],
    candles: &data::Candles,
    ground: &Ground,
    deadline: Ts,
) -> Question {
    let format = answers::vote::format();
    let shown = |room: prompts::Room| {
        let market = data::market(inputs.snapshot, candles, room.candles);
        let mood = inputs.sentiment.map(|output| (output, news));
        // The age of the position at the data's time, so that the same inputs give the same bytes.
        data::voter(market, inputs.ta, inputs.regime, mood, inputs.position, ctx.as_of, room)
    };
    let prompt = prompts::render_within(prompts::TRADING_DECISION, &format, shown);
    let held = ground.clone();
    Question {
        chain: chain.to_owned(),
        key: RunKey { task: TaskName::TradingDecision, symbol: ctx.symbol },
        payer: Payer::Decision(DecisionId(ctx.run_id)),
        prompt,
        format,
        deadline,
        check: Arc::new(move |text| answers::vote::parse(text, &held).map(drop)),
    }
}

/// What a reply counts for: a vote, or a failure under the name of its kind.
pub fn ballot(reply: &Result<Answered, Unanswered>, ground: &Ground) -> Ballot {
    match reply {
        Ok(answered) => match answers::vote::parse(&answered.text, ground) {
            Ok(vote) => vote::checked(Ballot::Vote(vote)),
            Err(rejected) => Ballot::Failed(rejected.kind.name().to_owned()),
        },
        Err(unanswered) => Ballot::Failed(unanswered.kind.name().to_owned()),
    }
}

#[cfg(test)]
#[path = "model_voter_tests.rs"]
mod tests;
