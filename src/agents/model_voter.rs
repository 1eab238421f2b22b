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
    llm::question::{Answered, Payer, Question, Unanswered},
    model::{Ballot, DecisionId, RunKey, TaskName, Ts},
};

/// The ballot of one model voter and when it came.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// The voter's configured name.
    pub voter: Arc<str>,
    /// The ballot with its time; `None` while the model is silent.
    pub ballot: Option<(Ballot, Ts)>,
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
    let shown = |most| {
        let market = data::market(inputs.snapshot, candles, most);
        let mood = inputs.sentiment.map(|output| (output, news));
        // The age of the position at the data's time, so that the same inputs give the same bytes.
        data::voter(market, inputs.ta, inputs.regime, mood, inputs.position, ctx.as_of)
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
