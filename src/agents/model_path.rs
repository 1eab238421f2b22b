//! Opinions by models: the question an agent asks and what a reply comes to. A failure is the rules' opinion marked
//! degraded, or none; never an invented one (domain §3.3).

use std::{cmp::Reverse, sync::Arc};

use serde_json::{Value, json};

use super::{
    answers::{self, ground::Ground, portfolio::Pace, sentiment::Mood},
    contract::{Answer, NO_PROVIDER, RunContext},
    portfolio_rebalance::{self, PortfolioInputs, PortfolioOutput},
    prompts::{self, Room, Template, data},
    regime_detection,
};
use crate::{
    llm::{
        actor::PATIENCE_MS,
        question::{AnswerFormat, Answered, Check, FailureKind, Payer, Question, Unanswered},
    },
    model::{
        Asset, OutputHead, RegimeOutput, RunKey, Score, SentimentBias, SentimentOutput, Snapshot, TaOutput, TaskName,
    },
    settings::{PortfolioSettings, RegimeDetectionSettings, SentimentSettings, Settings},
};

/// A reply, or why there is none.
pub type Reply = Result<Answered, Unanswered>;

/// The reply of nobody, because the degradation level forbids to ask.
pub fn forbidden() -> Reply {
    let cost_usd = crate::model::Money::ZERO;
    Err(Unanswered { attempts: Vec::new(), cost_usd, kind: FailureKind::Degraded })
}

/// `provider/model` of an answer.
fn named(answered: &Answered) -> String {
    format!("{}/{}", answered.provider, answered.model)
}

/// One question of an opinion agent; it ends early enough within its run that a failure comes with its reason.
fn question(
    (chain, task): (&str, TaskName),
    ctx: &RunContext,
    settings: &Settings,
    (template, format): (Template, AnswerFormat),
    shown: impl Fn(Room) -> Value,
    check: Check,
) -> Question {
    let timeout_s = settings.tasks.get(&task).map_or(30, |task| task.timeout_seconds);
    let timeout_ms = i64::from(timeout_s) * 1_000;
    Question {
        chain: chain.to_owned(),
        key: RunKey { task, symbol: ctx.symbol },
        payer: Payer::Opinion,
        prompt: prompts::render_within(template, &format, shown),
        format,
        deadline: ctx.started_at.plus_ms(timeout_ms - (4 * PATIENCE_MS).min(timeout_ms / 4)),
        check,
    }
}

/// The question for a technical opinion.
pub fn technical(ctx: &RunContext, snapshot: &Snapshot, settings: &Settings, ground: &Ground) -> Question {
    let (held, candles) = (ground.clone(), data::history(snapshot));
    let check: Check = Arc::new(move |text| answers::technical::parse(text, &held).map(drop));
    let shown = |room: Room| json!({ "market": data::market(snapshot, &candles, room.candles) });
    let parts = (prompts::TECHNICAL_ANALYSIS, answers::technical::format());
    let chain = &settings.agents.technical_analysis.chain;
    question((chain, TaskName::TechnicalAnalysis), ctx, settings, parts, shown, check)
}

/// The question for a regime.
pub fn regime(
    ctx: &RunContext,
    snapshot: &Snapshot,
    ta: Option<&TaOutput>,
    settings: &Settings,
    ground: &Ground,
) -> Question {
    let (held, candles) = (ground.clone(), data::history(snapshot));
    let check: Check = Arc::new(move |text| answers::regime::parse(text, &held).map(drop));
    let shown = |room: Room| {
        json!({
            "market": data::market(snapshot, &candles, room.candles),
            "technical_analysis": ta.map(|output| data::technical(output, room)),
        })
    };
    let parts = (prompts::REGIME_DETECTION, answers::regime::format());
    let chain = &settings.agents.regime_detection.chain;
    question((chain, TaskName::RegimeDetection), ctx, settings, parts, shown, check)
}

/// The regime a reply comes to; it goes through the same memory as the rules' one, and a failure leaves the memory.
pub fn detected(
    ctx: &RunContext,
    snapshot: &Snapshot,
    previous: Option<&RegimeOutput>,
    settings: &RegimeDetectionSettings,
    ground: &Ground,
    reply: &Reply,
) -> Answer<RegimeOutput> {
    let said = match reply {
        Ok(answered) => answers::regime::parse(&answered.text, ground)
            .map(|said| (said, named(answered)))
            .map_err(|rejected| rejected.kind),
        Err(unanswered) => Err(unanswered.kind),
    };
    match said {
        Ok((said, by)) => regime_detection::detect_as(ctx, snapshot, previous, settings, said, by),
        Err(kind) => {
            let ctx = RunContext { degraded: true, ..ctx.clone() };
            match regime_detection::detect(&ctx, snapshot, previous, settings) {
                Answer::Output(mut output) => {
                    failed(&mut output.head, kind);
                    Answer::Output(output)
                }
                none => none,
            }
        }
    }
}

fn failed(head: &mut OutputHead, kind: FailureKind) {
    head.warnings.push(format!("model: {}", kind.name()));
}

/// Who is asked about a mood, in the order of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Talk.
    Social,
    /// Reports.
    News,
}

/// The question for the mood around an asset: its name is all the model is told.
pub fn mood(ctx: &RunContext, role: Role, settings: &Settings) -> Question {
    let asset = ctx.symbol.base;
    let sentiment = &settings.agents.sentiment_analysis;
    let (chain, source) = match role {
        Role::Social => (&sentiment.social, "social media"),
        Role::News => (&sentiment.news, "news"),
    };
    let check: Check = Arc::new(move |text| answers::sentiment::parse(text, &asset).map(drop));
    let parts = (prompts::SENTIMENT_ANALYSIS, answers::sentiment::format());
    let shown = |_: Room| json!({ "asset": asset.to_string(), "source": source });
    question((chain, TaskName::SentimentAnalysis), ctx, settings, parts, shown, check)
}

/// What a reply says about the mood.
fn heard(asset: &Asset, reply: &Reply) -> Result<Mood, FailureKind> {
    match reply {
        Ok(answered) => answers::sentiment::parse(&answered.text, asset).map_err(|rejected| rejected.kind),
        Err(unanswered) => Err(unanswered.kind),
    }
}

/// The weighted mood of those who answered (domain §4.3). Abstains `no_provider` when nobody did: a mood nobody
/// measured is not "neutral".
pub fn sentiment(ctx: &RunContext, settings: &SentimentSettings, replies: &[(Role, Reply)]) -> Answer<SentimentOutput> {
    let mut moods = Vec::new();
    let mut warnings = Vec::new();
    for (role, reply) in replies {
        let name = if *role == Role::Social { "social" } else { "news" };
        match heard(&ctx.symbol.base, reply) {
            Ok(mood) => moods.push((*role, mood)),
            Err(kind) => warnings.push(format!("{name}: {}", kind.name())),
        }
    }
    if moods.is_empty() {
        let why = if warnings.is_empty() { String::new() } else { format!(": {}", warnings.join(", ")) };
        return Answer::Abstain(format!("{NO_PROVIDER}{why}").into());
    }
    let weight = |role| if role == Role::Social { settings.weight_social } else { settings.weight_news };
    let weights: f64 = moods.iter().map(|(role, _)| weight(*role)).sum();
    let count = moods.len() as f64;
    let score = if weights > 0.0 {
        moods.iter().map(|(role, mood)| weight(*role) * mood.score.as_f64()).sum::<f64>() / weights
    } else {
        moods.iter().map(|(_, mood)| mood.score.as_f64()).sum::<f64>() / count
    };
    let sure = moods.iter().map(|(_, mood)| mood.confidence.as_f64()).sum::<f64>() / count;
    let overall_score = Score::from_f64(score);
    let of = |wanted| moods.iter().find(|(role, _)| *role == wanted).map(|(_, mood)| mood.score);
    let reasoning = format!("mood {overall_score} of {} source(s)", moods.len());
    let confidence = Score::from_f64(sure).max(settings.min_confidence);
    let mut head = ctx.head(TaskName::SentimentAnalysis, confidence, reasoning);
    let answered = replies.iter().filter_map(|(_, reply)| reply.as_ref().ok()).map(named);
    head.path = answered.collect::<Vec<_>>().join("+").into();
    head.warnings = warnings;
    Answer::Output(Box::new(SentimentOutput {
        head,
        bias: band(overall_score),
        social_score: of(Role::Social),
        news_score: of(Role::News),
        overall_score,
        news: news(moods.iter().map(|(_, mood)| mood)),
    }))
}

/// What voters are told of it (domain §6.1): at most 3 events, the weightiest first, and 2 narratives.
fn news<'a>(moods: impl Iterator<Item = &'a Mood> + Clone) -> Vec<String> {
    let mut events: Vec<_> = moods.clone().flat_map(|mood| &mood.events).collect();
    events.sort_by_key(|event| Reverse(event.significance));
    let told = events.into_iter().take(3).map(|event| format!("{} ({})", event.event, event.source));
    told.chain(moods.flat_map(|mood| mood.narratives.iter().cloned()).take(2)).collect()
}

/// The bands of domain §4.3.
fn band(score: Score) -> SentimentBias {
    match score.0 {
        6_000.. => SentimentBias::VeryBullish,
        2_000.. => SentimentBias::Bullish,
        -2_000.. => SentimentBias::Neutral,
        -6_000.. => SentimentBias::Bearish,
        _ => SentimentBias::VeryBearish,
    }
}

/// The question for the pace of a plan the rules have made.
pub fn pace(ctx: &RunContext, planned: &PortfolioOutput, settings: &Settings) -> Question {
    let check: Check = Arc::new(|text| answers::portfolio::parse(text).map(drop));
    let parts = (prompts::PORTFOLIO_REBALANCE, answers::portfolio::format());
    let legs = planned.plan.as_ref().map_or(&[][..], |plan| &plan.legs);
    let shown = |room: Room| {
        let shares = planned.shares.iter().take(room.entries).map(|(asset, share)| (asset.to_string(), share));
        let told = legs.iter().take(room.entries).map(|leg| {
            json!({ "symbol": leg.symbol.to_string(), "side": leg.side, "amount": leg.amount, "batch": leg.batch })
        });
        let mut data = json!({
            "deviation_points": planned.deviation_pct,
            "shares_pct": shares.collect::<Vec<_>>(),
            "legs": told.collect::<Vec<_>>(),
        });
        if room.entries < legs.len() {
            data["legs_in_all"] = json!(legs.len());
        }
        data
    };
    let chain = &settings.agents.portfolio_rebalance.chain;
    question((chain, TaskName::PortfolioRebalance), ctx, settings, parts, shown, check)
}

/// The plan at the pace a reply says; what is traded stays the rules'. A failure leaves the configured pace.
pub fn paced(
    ctx: &RunContext,
    inputs: &PortfolioInputs,
    planned: PortfolioOutput,
    reply: &Reply,
) -> Answer<PortfolioOutput> {
    let said = match reply {
        Ok(answered) => answers::portfolio::parse(&answered.text)
            .map(|said| (said, named(answered)))
            .map_err(|rejected| rejected.kind),
        Err(unanswered) => Err(unanswered.kind),
    };
    let mut output = planned;
    match said {
        Err(kind) => {
            output.head.degraded = true;
            failed(&mut output.head, kind);
        }
        Ok((said, by)) => {
            match said.execution {
                Pace::Dca => {}
                Pace::Immediate => {
                    let mut at_once: PortfolioSettings = inputs.settings.clone();
                    at_once.dca.enabled = false;
                    let again = PortfolioInputs { settings: &at_once, ..*inputs };
                    match portfolio_rebalance::plan(ctx, &again) {
                        Answer::Output(whole) => output = *whole,
                        none => return none,
                    }
                }
                Pace::Defer => {
                    output.plan = None;
                    output.reason = portfolio_rebalance::DEFERRED.into();
                }
            }
            output.head.path = by.into();
            output.head.confidence = said.confidence;
            output.head.reasoning = said.reasoning;
        }
    }
    Answer::Output(Box::new(output))
}

#[cfg(test)]
#[path = "model_path_tests.rs"]
mod tests;
