//! Tests of the dialects on short bodies; `tests/model_router.rs` reads recorded ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::{agents::answers, llm::budget};

fn prompt() -> Prompt {
    Prompt { template: "t@1".into(), system: "rules".into(), user: "data".into() }
}

fn format() -> AnswerFormat {
    AnswerFormat { name: "vote".into(), schema: json!({"type": "object"}) }
}

fn model(temperature: Option<f64>) -> ModelSettings {
    let price = crate::model::Decimal::ONE;
    ModelSettings {
        input_usd_per_1k: price,
        output_usd_per_1k: price,
        max_output_tokens: 500,
        temperature,
        answer_form: None,
    }
}

fn formed(form: AnswerForm) -> ModelSettings {
    ModelSettings { answer_form: Some(form), ..model(None) }
}

/// Every form an agent asks for.
fn formats() -> [AnswerFormat; 6] {
    use answers::{portfolio, regime, resolution, sentiment, technical, vote};
    [
        vote::format(),
        technical::format(),
        regime::format(),
        sentiment::format(),
        portfolio::format(),
        resolution::format(),
    ]
}

#[test]
fn every_kind_is_sent_the_whole_schema_it_takes_and_every_form_can_be_chosen() {
    use AnswerForm::{Json, Prompt, Schema};
    use ProviderKind::{Anthropic, DeepSeek, Ollama, OpenAi, XAi};
    for format in formats() {
        let sent = |kind, settings: &ModelSettings| {
            let body = body(kind, "m", settings, &prompt(), &format);
            (body.get("response_format").cloned(), body.get("output_config").cloned())
        };
        let whole = json!({"type": "json_schema", "json_schema": {"name": format.name, "schema": format.schema}});
        let narrow = json!({"format": {"type": "json_schema", "schema": narrowed(&format.schema)}});
        let object = json!({"type": "json_object"});
        for kind in [OpenAi, XAi, Ollama] {
            assert_eq!(sent(kind, &model(None)), (Some(whole.clone()), None), "{kind:?}");
        }
        assert_eq!(sent(DeepSeek, &model(None)), (Some(object.clone()), None));
        assert_eq!(sent(Anthropic, &model(None)), (None, Some(narrow)));
        for kind in [OpenAi, XAi, Ollama, DeepSeek] {
            assert_eq!(sent(kind, &formed(Schema)), (Some(whole.clone()), None), "{kind:?}");
            assert_eq!(sent(kind, &formed(Json)), (Some(object.clone()), None), "{kind:?}");
        }
        for kind in [OpenAi, XAi, Ollama, DeepSeek, Anthropic] {
            assert_eq!(sent(kind, &formed(Prompt)), (None, None), "{kind:?}");
        }
    }
}

/// What Anthropic refuses: bounds, open objects, maps. The names, words and required fields stay.
#[test]
fn a_narrowed_schema_holds_only_what_anthropic_takes() {
    fn walk(schema: &Value, root: &Value, at: &str) {
        let Value::Object(fields) = schema else { return };
        for (word, value) in fields {
            match word.as_str() {
                "$ref" => {
                    let target = value.as_str().unwrap().strip_prefix('#').unwrap();
                    assert!(root.pointer(target).is_some() && fields.len() == 1, "{at}: {value}");
                }
                "additionalProperties" => assert_eq!(value, &json!(false), "{at}"),
                other => assert!(TAKEN.contains(&other), "{at}: {other}"),
            }
            let inner = format!("{at}/{word}");
            match (word.as_str(), value) {
                ("properties" | "$defs", Value::Object(named)) => {
                    named.values().for_each(|one| walk(one, root, &inner))
                }
                ("anyOf" | "allOf", Value::Array(all)) => all.iter().for_each(|one| walk(one, root, &inner)),
                ("items", one) => walk(one, root, &inner),
                _ => {}
            }
        }
        if fields.get("type").is_some_and(|of| of == "object") {
            assert_eq!(fields.get("additionalProperties"), Some(&json!(false)), "{at} is open");
        }
    }
    for format in formats() {
        let narrow = narrowed(&format.schema);
        walk(&narrow, &narrow, &format.name);
        assert_eq!(narrow["required"], format.schema["required"], "{}", format.name);
        let names = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut all = names(&format.schema);
        all.retain(|name| name != "indicators");
        assert_eq!(names(&narrow), all, "{}", format.name);
        // The money held counts the whole schema and a frame; what is sent is no longer than both.
        let held = budget::usage_of(&model(None), 0, &format).input as usize;
        assert!(narrow.to_string().len() <= held, "{}", format.name);
    }
    let text = narrowed(&answers::vote::format().schema).to_string();
    assert!(text.contains("\"CLOSE_SHORT\"") && !text.contains("maximum"), "{text}");
}

fn failure(kind: ProviderKind, body: &str) -> FailureKind {
    read(kind, body.as_bytes()).unwrap_err().why.kind
}

#[test]
fn a_call_names_the_model_its_limit_and_the_form_of_the_answer() {
    let openai = body(ProviderKind::OpenAi, "m", &model(None), &prompt(), &format());
    assert_eq!(openai["max_completion_tokens"], 500, "the configured limit is the smaller one");
    assert_eq!(openai["messages"][0]["content"], "rules");
    assert!(openai.get("temperature").is_none());
    let ollama = body(ProviderKind::Ollama, "m", &model(Some(0.0)), &prompt(), &format());
    assert_eq!((&ollama["max_tokens"], &ollama["temperature"]), (&json!(500), &json!(0.0)));
    let anthropic = body(ProviderKind::Anthropic, "m", &model(None), &prompt(), &format());
    assert_eq!((&anthropic["system"], &anthropic["max_tokens"]), (&json!("rules"), &json!(500)));
}

#[test]
fn reasoning_stays_apart_and_tokens_are_counted() {
    let chat = r#"{"choices":[{"finish_reason":"stop","message":{"content":"{}","reasoning_content":"hm"}}],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":22}}"#;
    let reply = read(ProviderKind::XAi, chat.as_bytes()).unwrap();
    assert_eq!((reply.text.as_str(), reply.reasoning.as_deref()), ("{}", Some("hm")));
    assert_eq!(reply.usage, Some(Usage { input: 10, output: 12 }));
    let messages = r#"{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"{}"}],
        "stop_reason":"end_turn","usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":5}}"#;
    let reply = read(ProviderKind::Anthropic, messages.as_bytes()).unwrap();
    assert_eq!((reply.text.as_str(), reply.reasoning.as_deref()), ("{}", Some("hm")));
    assert_eq!(reply.usage, Some(Usage { input: 7, output: 5 }));
}

#[test]
fn replies_that_are_no_answer_are_failures() {
    use FailureKind::{Empty, ServerError, Truncated, Unparsable};
    use ProviderKind::{Anthropic, DeepSeek, OpenAi};
    let rows = [
        (DeepSeek, "\n\n \n", Empty),
        (OpenAi, "<html>", Unparsable),
        (OpenAi, "{}", Empty),
        (OpenAi, "[]", Empty),
        (OpenAi, r#"{"error":{"message":"x"}}"#, ServerError),
        (OpenAi, r#"{"choices":[]}"#, Empty),
        (OpenAi, r#"{"choices":[{"finish_reason":"length","message":{"content":"{\"a\":"}}]}"#, Truncated),
        (
            DeepSeek,
            r#"{"choices":[{"finish_reason":"insufficient_system_resource","message":{"content":"{}"}}]}"#,
            Truncated,
        ),
        (OpenAi, r#"{"choices":[{"finish_reason":"abort","message":{"content":"{}"}}]}"#, Truncated),
        (OpenAi, r#"{"choices":[{"finish_reason":"stop","message":{"content":" "}}]}"#, Empty),
        (OpenAi, r#"{"choices":[{"finish_reason":"stop","message":{"content":null,"refusal":"no"}}]}"#, Empty),
        (OpenAi, r#"{"choices":[{"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[{}]}}]}"#, Empty),
        (OpenAi, r#"{"choices":[{"finish_reason":"content_filter","message":{"content":"{}"}}]}"#, Empty),
        (Anthropic, r#"{"content":[{"type":"text","text":"{"}],"stop_reason":"max_tokens"}"#, Truncated),
        (Anthropic, r#"{"content":[{"type":"tool_use"}],"stop_reason":"tool_use"}"#, Empty),
        (Anthropic, r#"{"content":[{"type":"text","text":"x"},{"type":"tool_use"}],"stop_reason":"tool_use"}"#, Empty),
        (Anthropic, r#"{"content":[],"stop_reason":"end_turn"}"#, Empty),
        (Anthropic, r#"{"content":[{"type":"text","text":"{}"}],"stop_reason":"refusal"}"#, Empty),
    ];
    for (kind, body, wanted) in rows {
        assert_eq!(failure(kind, body), wanted, "{kind:?} {body}");
    }
}

#[test]
fn a_cut_answer_is_charged() {
    let body = r#"{"choices":[{"finish_reason":"length","message":{"content":""}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let failed = read(ProviderKind::OpenAi, body.as_bytes()).unwrap_err();
    assert_eq!((failed.why.kind, failed.usage), (FailureKind::Truncated, Some(Usage { input: 1, output: 2 })));
}
