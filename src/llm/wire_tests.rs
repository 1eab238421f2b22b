//! Tests of the dialects on short bodies; `tests/model_router.rs` reads recorded ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn prompt() -> Prompt {
    Prompt { template: "t@1".into(), system: "rules".into(), user: "data".into() }
}

fn format() -> AnswerFormat {
    AnswerFormat { name: "vote".into(), schema: json!({"type": "object"}), max_output_tokens: 900 }
}

fn model(temperature: Option<f64>) -> ModelSettings {
    let price = crate::model::Decimal::ONE;
    ModelSettings { input_usd_per_1k: price, output_usd_per_1k: price, max_output_tokens: 500, temperature }
}

fn failure(kind: ProviderKind, body: &str) -> FailureKind {
    read(kind, body.as_bytes()).unwrap_err().why.kind
}

#[test]
fn a_call_names_the_model_its_limit_and_the_form_of_the_answer() {
    let openai = body(ProviderKind::OpenAi, "m", &model(None), &prompt(), &format());
    assert_eq!(openai["max_completion_tokens"], 500, "the configured limit is the smaller one");
    assert_eq!(openai["response_format"]["json_schema"]["name"], "vote");
    assert_eq!(openai["messages"][0]["content"], "rules");
    assert!(openai.get("temperature").is_none());
    let ollama = body(ProviderKind::Ollama, "m", &model(Some(0.0)), &prompt(), &format());
    assert_eq!((&ollama["max_tokens"], &ollama["temperature"]), (&json!(500), &json!(0.0)));
    let deepseek = body(ProviderKind::DeepSeek, "m", &model(None), &prompt(), &format());
    assert_eq!(deepseek["response_format"], json!({"type": "json_object"}));
    let anthropic = body(ProviderKind::Anthropic, "m", &model(None), &prompt(), &format());
    assert_eq!((&anthropic["system"], &anthropic["max_tokens"]), (&json!("rules"), &json!(500)));
    assert!(anthropic.get("response_format").is_none());
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
