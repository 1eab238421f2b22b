//! Tables of replies: what is an answer, and by which name everything else fails.

use proptest::prelude::*;
use rstest::rstest;
use rust_decimal_macros::dec;

use super::{ground::*, regime, *};
use crate::{agents::fixtures::*, llm::question::FailureKind::*, model::*};

const BUY: &str =
    r#"{"action":"BUY","confidence":0.7,"entry":100,"stop":98,"target":104,"position_size_pct":8,"reasoning":"up"}"#;

fn ground() -> Ground {
    let tolerance = Tolerance { price_pct: dec!(10), indicator_pct: 2.0 };
    Ground::of(&snapshot(btc(), quiet()), &[btc(), xrp()], tolerance).unwrap()
}

fn with(change: &str, to: &str) -> String {
    assert!(BUY.contains(change), "{change}");
    BUY.replace(change, to)
}

#[rstest]
#[case(BUY.to_owned())]
#[case(format!("  ```json\n{BUY}\n```\n"))]
#[case(format!("```\n{BUY}\n```"))]
#[case(format!("<think>I would not. {{\"action\": \"HOLD\"}} Hm. ```no```</think>\n\n{BUY}"))]
#[case(format!("\n<think></think>```json\n{BUY}\n```"))]
#[case(with("\"action\"", "\"extra\":{\"tool_calls\":[]},\"action\""))]
#[case(with("\"reasoning\":\"up\"", "\"reasoning\":\"up ``` } {\""))]
#[case(with("}", ",\"symbol\":\"BTC/USDT\",\"indicators\":{\"rsi14\":50.9,\"atr14\":1}}"))]
#[case(format!("```json\n{BUY}"))]
#[case(format!("{BUY}\n\n"))]
fn one_object_of_the_schema_is_a_vote(#[case] text: String) {
    let vote = vote::parse(&text, &ground()).unwrap();
    assert_eq!((vote.action, vote.confidence), (Action::Buy, Score(7_000)));
    assert_eq!(vote.levels, Some(Levels { entry: dec!(100), stop: dec!(98), target: dec!(104) }));
    assert_eq!(vote.position_size_pct, Score::from_f64(8.0));
}

/// What a model says beside an object may quote it, or take it back.
#[rstest]
#[case(format!("I would not buy here. A text among the news asked for ```json\n{BUY}\n``` I do not follow it: HOLD."))]
#[case(format!("Do not buy here. The wrong answer would be: {BUY}"))]
#[case(format!("Here it is:\n```json\n{BUY}\n```"))]
#[case(format!("I think so. {BUY}"))]
#[case(format!("```json\n{BUY}\n```\nDone."))]
#[case(format!("``` no``` {BUY}"))]
#[case(format!("not </think> {BUY}"))]
#[case(format!("ready {BUY} Actually HOLD"))]
#[case(format!("{BUY}\nOn second thought, do not buy."))]
#[case(format!("{BUY}."))]
#[case(format!("```json\n{BUY}\nActually HOLD\n```"))]
#[case(format!("```json\nfirst\n``` then {BUY} ```"))]
fn prose_beside_an_object_leaves_no_vote(#[case] text: String) {
    let rejected = vote::parse(&text, &ground()).unwrap_err();
    assert_eq!(rejected.kind, Unparsable);
    let detail = rejected.detail;
    assert!(detail.contains("text stands before the object") || detail.contains("text follows the object"), "{detail}");
}

/// Asked about BTC/USDT while BTC/USD, XRP/USDT and XRP/BTC are traded as well.
#[rstest]
#[case(Some("BTC/USDT"), "", true)]
#[case(Some(" btc-usdt "), "", true)]
#[case(Some("BTCUSDT"), "", true)]
#[case(Some("BTC/USD"), "", false)]
#[case(Some("BTCUSD"), "", false)]
#[case(Some("BTC"), "", false)]
#[case(Some("XRP/USDT"), "", false)]
#[case(Some("USDT/BTC"), "", false)]
#[case(Some("BTC/USDT/X"), "", false)]
#[case(Some(""), "", false)]
#[case(None, "BTC/USDT is strong; BTCUSDT, btc_usdt.", true)]
#[case(None, "the USDT pair of BTC", true)]
#[case(None, "see BTC/USD", false)]
#[case(None, "see (btcusd)!", false)]
#[case(None, "XRPUSDT leads", false)]
#[case(None, "xrp-usdt leads", false)]
#[case(None, "XRP leads", false)]
#[case(None, "XRP-led move", false)]
#[case(None, "an xrp of a word, EXRPLICIT", true)]
fn symbols_are_compared_whole(#[case] field: Option<&str>, #[case] text: &str, #[case] fits: bool) {
    let sym = |text: &str| text.parse::<Symbol>().unwrap();
    let traded = ["BTC/USDT", "BTC/USD", "XRP/USDT", "XRP/BTC"].map(sym);
    let tolerance = Tolerance { price_pct: dec!(10), indicator_pct: 2.0 };
    let ground = Ground::about(sym("BTC/USDT"), dec!(100), &traded, tolerance);
    assert_eq!(ground.symbol(field, &[text]).is_ok(), fits);
    // Of two symbols that are spelled alike without a separator neither is meant.
    let alike = Ground::about(sym("AB/C"), dec!(100), &[sym("A/BC")], tolerance);
    assert_eq!(["AB/C", "ABC", "A/BC"].map(|named| alike.symbol(Some(named), &[]).is_ok()), [true, false, false]);
}

#[rstest]
#[case("", Empty)]
#[case("  \n", Empty)]
#[case("I would not buy here", Unparsable)] // A073
#[case("BUY", Unparsable)]
#[case("\"BUY\"", Unparsable)]
#[case("{BUY}", Unparsable)]
#[case("{}", Unparsable)]
#[case("[]", Unparsable)]
#[case("{\"action\":\"BUY\"", Truncated)]
#[case("<think>on and on {\"action\":\"BUY\"}", Truncated)]
#[case("```json\n{\"action\":\"BUY\",\"confidence\":0.", Truncated)]
#[case("{\"action\":\"BUY\",\"confidence\":0.9}", Unparsable)]
fn a073_what_is_no_answer_is_no_vote(#[case] text: &str, #[case] kind: FailureKind) {
    assert_eq!(vote::parse(text, &ground()).unwrap_err().kind, kind);
}

#[rstest]
#[case("\"BUY\"", "\"buy\"", OutOfRange)]
#[case("\"BUY\"", "\"STRONG_BUY\"", OutOfRange)]
#[case("\"BUY\"", "1", Unparsable)]
#[case("\"action\":\"BUY\"", "\"action\":\"HOLD\",\"action\":\"BUY\"", Unparsable)]
#[case("0.7", "1.01", OutOfRange)]
#[case("0.7", "-0.1", OutOfRange)]
#[case("0.7", "\"0.7\"", Unparsable)]
#[case("0.7", "1e999", Unparsable)]
#[case("0.7", "null", Unparsable)]
#[case("0.7", "NaN", Unparsable)]
#[case("\"position_size_pct\":8", "\"position_size_pct\":101", OutOfRange)]
#[case("\"position_size_pct\":8", "\"position_size_pct\":0", OutOfRange)]
#[case("\"position_size_pct\":8,", "", Unparsable)]
#[case("\"stop\":98,", "", Incoherent)]
#[case("\"stop\":98", "\"stop\":101", Incoherent)] // A074
#[case("\"target\":104", "\"target\":101", Incoherent)]
#[case("\"entry\":100", "\"entry\":115", Ungrounded)] // A075
#[case("\"entry\":100", "\"entry\":-100", Ungrounded)]
#[case("\"target\":104", "\"target\":110.01", Ungrounded)]
#[case("\"up\"", "\"up like XRP/USDT\"", Ungrounded)]
#[case("\"up\"", "\"up\",\"symbol\":\"XRP/USDT\"", Ungrounded)]
#[case("\"up\"", "\"up\",\"indicators\":{\"rsi14\":51.1}", Ungrounded)]
#[case("\"up\"", "\"up\",\"indicators\":{\"moon\":1}", Ungrounded)]
fn a074_a075_a_wrong_field_is_a_failure_with_its_kind(
    #[case] change: &str,
    #[case] to: &str,
    #[case] kind: FailureKind,
) {
    let rejected = vote::parse(&with(change, to), &ground()).unwrap_err();
    assert_eq!(rejected.kind, kind, "{}", rejected.detail);
    assert!(!rejected.detail.is_empty());
}

#[test]
fn several_objects_lists_depth_and_size_are_failures() {
    let kind = |text: String| vote::parse(&text, &ground()).unwrap_err().kind;
    assert_eq!(kind(format!("{BUY}\n{BUY}")), Unparsable);
    assert_eq!(kind(format!("```json\n{BUY}\n```\n```json\n{BUY}\n```")), Unparsable);
    assert_eq!(kind(format!("[{BUY}]")), Unparsable);
    assert_eq!(kind(format!("[{BUY},{BUY}]")), Unparsable);
    let nested = |levels: usize| with("}", &format!(",\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels)));
    assert!(vote::parse(&nested(15), &ground()).is_ok());
    assert_eq!(kind(nested(16)), Unparsable);
    assert_eq!(kind(nested(5_000)), Unparsable);
    assert_eq!(kind(format!("{BUY}{}", " ".repeat(extract::SIZE_MAX))), TooLarge);
}

#[test]
fn hold_and_close_need_no_levels() {
    let hold = vote::parse(r#"{"action":"HOLD","confidence":0.5,"reasoning":"mixed"}"#, &ground()).unwrap();
    assert_eq!((hold.action, hold.levels, hold.position_size_pct), (Action::Hold, None, Score::ZERO));
}

const TA: &str = r#"{"bias":"long","trend_strength":0.5,"momentum_score":-0.2,"rsi_signal":"neutral","macd_signal":"bullish",
"support_levels":[98],"resistance_levels":[],"current_position":"mid_range","primary_signal":"trend","confidence":0.6,"reasoning":""}"#;

#[rstest]
#[case("\"long\"", "\"up\"", OutOfRange)]
#[case("-0.2", "-1.2", OutOfRange)]
#[case("[98]", "[98,98,98,98,98,98]", OutOfRange)]
#[case("[98]", "[80]", Ungrounded)]
#[case("\"confidence\":0.6,", "", Unparsable)]
fn technical_answers(#[case] change: &str, #[case] to: &str, #[case] kind: FailureKind) {
    assert_eq!(technical::parse(TA, &ground()).unwrap().bias, Bias::Long);
    assert_eq!(technical::parse(&TA.replace(change, to), &ground()).unwrap_err().kind, kind);
}

#[rstest]
#[case(r#"{"regime":"choppy","confidence":0.6,"reasoning":"x"}"#, None)]
#[case(r#"{"regime":"unknown","confidence":0.6,"reasoning":"x"}"#, Some(OutOfRange))]
#[case(r#"{"regime":"sideways","confidence":0.6,"reasoning":"x"}"#, Some(OutOfRange))]
#[case(r#"{"regime":"choppy","confidence":2,"reasoning":"x"}"#, Some(OutOfRange))]
#[case(
    r#"{"regime":"choppy","confidence":0.6,"reasoning":"x","transitions":[{"regime":"ranging","chance":1.5}]}"#,
    Some(OutOfRange)
)]
fn regime_answers(#[case] text: &str, #[case] kind: Option<FailureKind>) {
    assert_eq!(regime::parse(text, &ground()).err().map(|rejected| rejected.kind), kind);
}

#[rstest]
#[case(r#"{"execution":"defer","confidence":0.6,"reasoning":"x"}"#, None)]
#[case(r#"{"execution":"sell_all","confidence":0.6,"reasoning":"x"}"#, Some(OutOfRange))]
#[case(
    r#"{"execution":"dca","confidence":0.6,"reasoning":"x","legs":[{"symbol":"DOGE/USDT","amount":100}]}"#,
    Some(Unparsable)
)]
#[case(r#"{"execution":"dca","confidence":0.6,"reasoning":"x","amount":-500}"#, Some(Unparsable))]
fn a163_portfolio_answers(#[case] text: &str, #[case] kind: Option<FailureKind>) {
    assert_eq!(portfolio::parse(text).err().map(|rejected| rejected.kind), kind);
}

#[rstest]
#[case(r#"{"action":"wait","confidence":0.6,"reasoning":"x"}"#, None)]
#[case(r#"{"action":"modify","confidence":0.6,"reasoning":"x","modifications":{"leverage":1}}"#, None)]
#[case(r#"{"action":"modify","confidence":0.6,"reasoning":"x"}"#, Some(Incoherent))]
#[case(r#"{"action":"wait","confidence":0.6,"reasoning":"x","modifications":{}}"#, Some(Incoherent))]
#[case(r#"{"action":"modify","confidence":0.6,"reasoning":"x","modifications":{"leverage":0}}"#, Some(OutOfRange))]
#[case(r#"{"action":"modify","confidence":0.6,"reasoning":"x","modifications":{"leverage":1.5}}"#, Some(Unparsable))]
#[case(
    r#"{"action":"modify","confidence":0.6,"reasoning":"x","modifications":{"size_reduction_pct":-5}}"#,
    Some(OutOfRange)
)]
#[case(r#"{"action":"buy","confidence":0.6,"reasoning":"x"}"#, Some(OutOfRange))]
fn resolution_answers(#[case] text: &str, #[case] kind: Option<FailureKind>) {
    assert_eq!(resolution::parse(text, &ground()).err().map(|rejected| rejected.kind), kind);
}

#[test]
fn a_mood_is_bounded_in_every_list_and_text() {
    let asset = asset("BTC");
    let mood = |event: &str, more: &str| {
        let text = format!(
            r#"{{"bias":"bullish","score":0.4,"confidence":0.6,"narratives":[],{more}
            "events":[{{"event":"{event}","impact":"positive","significance":"high","source":"wire"}}]}}"#
        );
        sentiment::parse(&text, &asset).map_err(|rejected| rejected.kind)
    };
    assert_eq!(mood("up", "").unwrap().score, Score(4_000));
    assert_eq!(mood(&"x".repeat(201), ""), Err(OutOfRange));
    for other in ["XRP", "BTCUSDT", "BTC/USDT", "BT", ""] {
        assert_eq!(mood("up", &format!(r#""asset":"{other}","#)), Err(Ungrounded), "{other}");
    }
    assert!(mood("up", r#""asset":" btc","#).is_ok());
}

#[test]
fn the_schemas_state_their_bounds_and_words() {
    let text = vote::format().schema.to_string();
    for part in ["\"CLOSE_SHORT\"", "\"maximum\":1", "\"minimum\":0", "\"required\""] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_never_a_vote(text in "\\PC*") {
        prop_assert!(vote::parse(&text, &ground()).is_err());
    }

    /// A valid reply with a part replaced by anything: a vote only when it is the schema's JSON.
    #[test]
    fn a_vote_is_always_json_of_the_schema(at in 0..BUY.len(), cut in 0usize..12, with in "[\\PC\"{}\\[\\]:,]{0,12}") {
        let end = (at + cut).min(BUY.len());
        let text = format!("{}{with}{}", &BUY[..at], &BUY[end..]);
        if let Ok(vote) = vote::parse(&text, &ground()) {
            let start = text.find('{').unwrap();
            let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<serde_json::Value>();
            let value = values.next().unwrap().unwrap();
            prop_assert_eq!(value["action"].as_str(), Some(vote.action.name()));
            prop_assert!(value["confidence"].is_number() && value["reasoning"].is_string());
        }
    }
}

/// Every text of `value`, one after another, replaced by an object of that name.
fn with_an_object_for_a_text(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::{Value, json};
    match value {
        Value::String(word) => vec![json!({ word.clone(): null })],
        Value::Object(fields) => {
            let each = |(name, inner): (&String, &Value)| {
                let name = name.clone();
                with_an_object_for_a_text(inner).into_iter().map(move |changed| (name.clone(), changed))
            };
            let placed = |(name, changed)| Value::Object(fields.clone().into_iter().chain([(name, changed)]).collect());
            fields.iter().flat_map(each).map(placed).collect()
        }
        Value::Array(items) => {
            let each = |(at, inner): (usize, &Value)| {
                with_an_object_for_a_text(inner).into_iter().map(move |changed| (at, changed))
            };
            let placed = |(at, changed)| {
                let mut items = items.clone();
                items[at] = changed;
                Value::Array(items)
            };
            items.iter().enumerate().flat_map(each).map(placed).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_word_is_a_text_and_never_an_object_of_its_name() {
    let ground = ground();
    let mood = r#"{"bias":"bullish","score":0.1,"confidence":0.5,"narratives":["n"],"events":[{"event":"e",
        "impact":"positive","significance":"high","source":"s"}]}"#;
    let regime_text =
        r#"{"regime":"choppy","confidence":0.6,"reasoning":"x","transitions":[{"regime":"ranging","chance":0.5}]}"#;
    let resolution_text = r#"{"action":"proceed","confidence":0.6,"reasoning":"x"}"#;
    let pace = r#"{"execution":"dca","confidence":0.6,"reasoning":"x"}"#;
    let base = btc().base;
    type Parse<'a> = Box<dyn Fn(&str) -> Result<(), Rejected> + 'a>;
    let contracts: [(&str, usize, Parse<'_>); 6] = [
        (BUY, 2, Box::new(|text| vote::parse(text, &ground).map(drop))),
        (TA, 6, Box::new(|text| technical::parse(text, &ground).map(drop))),
        (regime_text, 3, Box::new(|text| regime::parse(text, &ground).map(drop))),
        (mood, 6, Box::new(|text| sentiment::parse(text, &base).map(drop))),
        (pace, 2, Box::new(|text| portfolio::parse(text).map(drop))),
        (resolution_text, 2, Box::new(|text| resolution::parse(text, &ground).map(drop))),
    ];
    for (text, texts, parse) in contracts {
        assert_eq!(parse(text), Ok(()), "{text}");
        let changed = with_an_object_for_a_text(&serde_json::from_str(text).unwrap());
        assert_eq!(changed.len(), texts, "{text}");
        for wrong in changed {
            let kind = parse(&wrong.to_string()).map_err(|rejected| rejected.kind);
            assert_eq!(kind, Err(Unparsable), "{wrong}");
        }
    }
}
