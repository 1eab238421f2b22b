//! The technical opinion by a model: a valid answer, or the rules' one marked degraded with the fallback confidence.

use std::borrow::Cow;

use super::{
    answers::{self, ground::Ground},
    contract::{Answer, RunContext},
    technical_analysis,
};
use crate::{
    llm::question::{Answered, Unanswered},
    model::{Snapshot, SymbolRules, TaOutput},
    settings::TaSettings,
};

/// The opinion a reply comes to. Without the indicators the rules need there is none either way; which frames agree
/// with the bias is counted from the snapshot. A failure stands among the warnings under the name of its kind.
pub fn opinion(
    ctx: &RunContext,
    snapshot: &Snapshot,
    rules: &SymbolRules,
    settings: &TaSettings,
    ground: &Ground,
    reply: &Result<Answered, Unanswered>,
) -> Answer<TaOutput> {
    let read = match reply {
        Ok(answered) => answers::technical::parse(&answered.text, ground)
            .map(|said| (said, answered))
            .map_err(|rejected| rejected.kind),
        Err(unanswered) => Err(unanswered.kind),
    };
    let ctx = RunContext { degraded: read.is_err(), ..ctx.clone() };
    let mut output = match technical_analysis::analyse(&ctx, snapshot, rules, settings) {
        Answer::Output(output) => output,
        none => return none,
    };
    match read {
        Ok((said, answered)) => {
            output.timeframe_alignment = technical_analysis::alignment(snapshot, said.bias).0;
            output.head.confidence = said.confidence;
            output.head.reasoning = said.reasoning;
            output.head.path = Cow::Owned(format!("{}/{}", answered.provider, answered.model));
            output.bias = said.bias;
            output.trend_strength = said.trend_strength;
            output.momentum_score = said.momentum_score;
            output.rsi_signal = said.rsi_signal;
            output.macd_signal = said.macd_signal;
            output.support_levels = said.support_levels;
            output.resistance_levels = said.resistance_levels;
            output.current_position = said.current_position;
            output.primary_signal = Cow::Owned(said.primary_signal);
        }
        Err(kind) => output.head.warnings.push(format!("model: {}", kind.name())),
    }
    Answer::Output(output)
}

#[cfg(test)]
mod tests {
    use rust_decimal_macros::dec;

    use super::*;
    use crate::{
        agents::{answers::ground::Tolerance, fixtures::*},
        llm::question::FailureKind,
        model::*,
    };

    const SHORT: &str = r#"{"bias":"short","trend_strength":0.9,"momentum_score":-0.5,"rsi_signal":"neutral",
        "macd_signal":"bearish","support_levels":[95],"resistance_levels":[],"current_position":"mid_range",
        "primary_signal":"down","confidence":0.8,"reasoning":"weak"}"#;

    fn formed(indicators: Indicators, reply: &Result<Answered, Unanswered>) -> Answer<TaOutput> {
        let snapshot = snapshot(btc(), indicators);
        let ground = Ground::of(&snapshot, &[btc()], Tolerance { price_pct: dec!(10), indicator_pct: 2.0 }).unwrap();
        opinion(&context(btc()), &snapshot, &cents(), &ta_settings(), &ground, reply)
    }

    fn said(text: &str) -> Result<Answered, Unanswered> {
        Ok(Answered {
            text: text.to_owned(),
            reasoning: None,
            provider: "p".to_owned(),
            model: "m".to_owned(),
            input_tokens: 1,
            output_tokens: 1,
            cost_usd: Money::ZERO,
            took_ms: 1,
            before: Vec::new(),
            prompt_sha256: String::new(),
        })
    }

    #[test]
    fn a_valid_answer_is_the_models_opinion_under_its_name() {
        let output = formed(quiet(), &said(SHORT)).output().unwrap();
        assert_eq!((output.bias, output.head.confidence), (Bias::Short, Score(8_000)));
        assert_eq!((output.head.path.as_ref(), output.head.degraded), ("p/m", false));
        assert_eq!(output.support_levels, [dec!(95)]);
    }

    #[test]
    fn a_failure_is_the_rules_opinion_degraded_with_the_fallback_confidence() {
        let unanswered = Err(Unanswered { attempts: Vec::new(), cost_usd: Money::ZERO, kind: FailureKind::Timeout });
        for (reply, warning) in [(said("short, surely"), "model: unparsable"), (unanswered, "model: timeout")] {
            let output = formed(quiet(), &reply).output().unwrap();
            assert_eq!((output.bias, output.head.degraded), (Bias::Neutral, true));
            assert_eq!((output.head.confidence, output.head.path.as_ref()), (Score(2_500), "rules"));
            assert_eq!(output.head.warnings, [warning]);
        }
    }

    #[test]
    fn missing_indicators_are_no_opinion_whatever_the_model_says() {
        assert!(matches!(formed(Indicators::default(), &said(SHORT)), Answer::Abstain(_)));
    }
}
