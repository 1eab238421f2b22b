//! Calls that no day could pay: a limit of the budget below the worst case of one single call. Pure.
//!
//! A limit fails closed, so such a call is never made, and nobody hears of it before the first question. It is told
//! with the settings instead.

use std::collections::BTreeMap;

use rust_decimal::RoundingStrategy;

use super::rations::{Call, WorstCases};
use crate::{
    model::{Decimal, Money, TaskName},
    settings::Settings,
};

/// Who asks, for whose work, and what one call may cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked<'a> {
    /// As a reader knows it: the name of a task, or `conflicts`.
    pub who: &'a str,
    /// Whose share of the day pays.
    pub task: TaskName,
    /// The call.
    pub call: &'a Call,
}

/// What is too small for one call of a model.
#[derive(Default)]
struct Short<'a> {
    given: Money,
    needed: Money,
    /// Who asks in vain.
    who: Vec<&'a str>,
    /// The dearest of their calls.
    worst: Option<&'a Call>,
    /// No limit would do: nothing of the day is for this work.
    reserved: bool,
}

/// One warning for each limit and model of which no call can be paid, even on a day on which nothing is spent.
pub fn warnings(settings: &Settings, cases: &WorstCases, asked: &[Asked<'_>]) -> Vec<String> {
    let mut found: BTreeMap<(String, &str, &str), Short<'_>> = BTreeMap::new();
    let of_decisions = asked.iter().filter(|asked| asked.task == TaskName::TradingDecision);
    // Who follows the advice has room for the dearest decision, and opinions leave it that.
    let per_decision = of_decisions.map(|asked| asked.call.cost).fold(settings.budget.per_decision_usd, Money::max);
    for Asked { who, task, call } in asked.iter().filter(|asked| asked.call.cost > Money::ZERO) {
        let today = limits(settings, cases, settings.budget.per_decision_usd, *task, call);
        let advised = limits(settings, cases, per_decision, *task, call);
        for ((key, given, enough), (.., needed)) in today.into_iter().zip(advised) {
            if enough.is_some_and(|enough| enough <= given) {
                continue;
            }
            let short = found.entry((key, &call.provider, &call.model)).or_default();
            short.given = given;
            short.reserved |= needed.is_none();
            short.needed = short.needed.max(needed.unwrap_or_default());
            if !short.who.contains(who) {
                short.who.push(who);
            }
            if short.worst.is_none_or(|worst| worst.cost < call.cost) {
                short.worst = Some(call);
            }
        }
    }
    found.into_iter().filter_map(|((key, ..), short)| told(&key, &short)).collect()
}

/// Key, value and what the value must be for one call; none when no value would do.
fn limits(
    settings: &Settings,
    cases: &WorstCases,
    per_decision: Money,
    task: TaskName,
    call: &Call,
) -> Vec<(String, Money, Option<Money>)> {
    let (money, cost) = (&settings.budget, call.cost);
    let day = "budget.daily_usd".to_owned();
    let mut limits = match task {
        TaskName::TradingDecision => {
            let decision = "budget.per_decision_usd".to_owned();
            vec![(day, money.daily_usd, Some(cost)), (decision, money.per_decision_usd, Some(cost))]
        }
        // An opinion leaves one run to all that is worth more, and a part of the day to decisions.
        opinion => {
            let share = cases.share(opinion, per_decision);
            let for_opinions = Decimal::ONE - money.decision_reserve_ratio;
            let of_part = (cost + share.opinions).checked_div(for_opinions);
            let needed = of_part.map(|part| part.max(cost + share.opinions + share.decisions));
            vec![(day, money.daily_usd, needed.map(up))]
        }
    };
    let of_provider = settings.providers.get(&call.provider).and_then(|provider| provider.daily_usd);
    limits.extend(of_provider.map(|limit| (format!("providers.{}.daily_usd", call.provider), limit, Some(cost))));
    limits
}

/// Never less than it was.
fn up(amount: Money) -> Money {
    amount.round_dp_with_strategy(6, RoundingStrategy::AwayFromZero).normalize()
}

fn told(key: &str, short: &Short<'_>) -> Option<String> {
    let Call { provider, model, usage, cost } = short.worst?;
    let (given, needed, who) = (short.given, short.needed, short.who.join(", "));
    if short.reserved {
        return Some(format!(
            "budget.decision_reserve_ratio = 1 keeps the whole day for decisions: {provider}/{model}, asked by {who}, is then \
             never asked; lower it, or leave the chain out"
        ));
    }
    let most = format!("providers.{provider}.models.\"{model}\".max_output_tokens");
    let mut text = format!(
        "{key} = {given} is too little for one call: {provider}/{model}, asked by {who}, may cost {cost} USD at worst \
         ({} tokens in, {} out) and is then never asked; ",
        usage.input, usage.output
    );
    text.push_str(&match needed > *cost {
        true => format!(
            "set it to at least {needed}, of which the larger part is kept for decisions and for work that is worth more \
             (budget.decision_reserve_ratio), or choose a cheaper model, or lower {most} if its answer is what costs, or leave \
             the chain out"
        ),
        false => format!(
            "set it to at least {needed}, or choose a cheaper model, or lower {most} if its answer is what costs"
        ),
    });
    Some(text)
}

#[cfg(test)]
#[path = "payable_tests.rs"]
mod tests;
