//! The dialects of the five kinds of provider, as values: what a call looks like and what a complete reply says.
//!
//! Ollama is spoken to through its OpenAI-compatible path. Nothing here opens a connection or sees a key.

use serde_json::{Map, Value, json};

use super::question::{AnswerFormat, FailureKind, Prompt, Rejected};
use crate::settings::{AnswerForm, ModelSettings, ProviderKind};

/// Largest reply that is read, bytes.
pub const REPLY_MAX: usize = 256 * 1024;
/// Version of the messages format, sent to Anthropic.
pub const ANTHROPIC_VERSION: &str = "2023-06-01";

/// A complete reply that has content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The model's text.
    pub text: String,
    /// What it thought apart from its answer.
    pub reasoning: Option<String>,
    /// As the provider counts them; absent when it does not say.
    pub usage: Option<Usage>,
}

/// Tokens of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Of the prompt, those from a cache included.
    pub input: u32,
    /// Of the answer, thinking included.
    pub output: u32,
}

/// A reply that arrived and is no answer, with what it used nevertheless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoAnswer {
    /// Why.
    pub why: Rejected,
    /// What is charged for it.
    pub usage: Option<Usage>,
}

/// The path below the base address.
pub const fn path(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Anthropic => "/messages",
        _ => "/chat/completions",
    }
}

/// How many tokens an answer may have, what the model thinks before it included.
pub fn token_limit(model: &ModelSettings) -> u32 {
    model.max_output_tokens.max(1)
}

/// How an answer's form is asked for.
pub fn form_of(kind: ProviderKind, model: &ModelSettings) -> AnswerForm {
    model.answer_form.unwrap_or(kind.answer_form())
}

/// The body of a call.
pub fn body(
    kind: ProviderKind,
    model: &str,
    settings: &ModelSettings,
    prompt: &Prompt,
    format: &AnswerFormat,
) -> Value {
    let (limit, form) = (token_limit(settings), form_of(kind, settings));
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    match kind {
        ProviderKind::Anthropic => {
            body.insert("max_tokens".to_owned(), json!(limit));
            body.insert("system".to_owned(), json!(prompt.system));
            body.insert("messages".to_owned(), json!([{"role": "user", "content": prompt.user}]));
            if form == AnswerForm::Schema {
                let wanted = json!({"type": "json_schema", "schema": narrowed(&format.schema)});
                body.insert("output_config".to_owned(), json!({ "format": wanted }));
            }
        }
        _ => {
            let messages = json!([
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ]);
            body.insert("messages".to_owned(), messages);
            // OpenAI's newer models refuse the older name, the others do not know the newer one.
            let name = if kind == ProviderKind::OpenAi { "max_completion_tokens" } else { "max_tokens" };
            body.insert(name.to_owned(), json!(limit));
            if let Some(wanted) = response_format(form, format) {
                body.insert("response_format".to_owned(), wanted);
            }
        }
    }
    if let Some(temperature) = settings.temperature {
        body.insert("temperature".to_owned(), json!(temperature));
    }
    body.insert("stream".to_owned(), json!(false));
    Value::Object(body)
}

fn response_format(form: AnswerForm, format: &AnswerFormat) -> Option<Value> {
    match form {
        AnswerForm::Schema => {
            Some(json!({"type": "json_schema", "json_schema": {"name": format.name, "schema": format.schema}}))
        }
        AnswerForm::Json => Some(json!({"type": "json_object"})),
        AnswerForm::Prompt => None,
    }
}

/// Words of a schema that Anthropic takes; any other is refused with 400. The whole schema stands in the prompt, and the
/// strict reader holds an answer to all of it.
const TAKEN: [&str; 10] =
    ["type", "enum", "const", "anyOf", "allOf", "items", "properties", "required", "description", "$defs"];

/// The part of a schema that Anthropic takes: without bounds of numbers, texts and lists, every object closed. A map with
/// names of its own cannot be written that way: such a field is left out.
fn narrowed(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    if let Some(target) = fields.get("$ref") {
        return json!({ "$ref": target });
    }
    let is_map =
        |schema: &Value| schema.get("type").is_some_and(|of| of == "object") && schema.get("properties").is_none();
    let left_out = |name: &str| fields.get("properties").and_then(|all| all.get(name)).is_some_and(is_map);
    let each = |named: &Map<String, Value>| -> Map<String, Value> {
        let kept = named.iter().filter(|(_, inner)| !is_map(inner));
        kept.map(|(name, inner)| (name.clone(), narrowed(inner))).collect()
    };
    let mut narrow = Map::new();
    for (word, value) in fields {
        // Of its kinds of choice it knows this one; where exactly one fits, any does.
        let word = if word == "oneOf" { "anyOf" } else { word.as_str() };
        let value = match (word, value) {
            ("properties" | "$defs", Value::Object(named)) => Value::Object(each(named)),
            ("required", Value::Array(names)) => {
                names.iter().filter(|name| !name.as_str().is_some_and(left_out)).cloned().collect()
            }
            ("anyOf" | "allOf", Value::Array(choices)) => choices.iter().map(narrowed).collect(),
            ("items", inner) => narrowed(inner),
            (_, other) => other.clone(),
        };
        if TAKEN.contains(&word) {
            narrow.insert(word.to_owned(), value);
        }
    }
    if fields.contains_key("properties") {
        narrow.insert("additionalProperties".to_owned(), json!(false));
    }
    Value::Object(narrow)
}

/// Reads the body of a 2xx reply.
///
/// # Errors
/// [`NoAnswer`]: blank, no JSON, cut at the token limit, refused, or without a text of its own.
pub fn read(kind: ProviderKind, body: &[u8]) -> Result<Reply, NoAnswer> {
    let fail = |kind, detail: &str, usage| Err(NoAnswer { why: Rejected { kind, detail: detail.to_owned() }, usage });
    if body.iter().all(u8::is_ascii_whitespace) {
        return fail(FailureKind::Empty, "the reply is blank", None);
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return fail(FailureKind::Unparsable, "the reply is no JSON", None);
    };
    // Some endpoints in between report an error with status 200.
    if value.get("error").is_some_and(|error| !error.is_null()) {
        return fail(FailureKind::ServerError, "the reply is an error with status 200", None);
    }
    let said = if kind == ProviderKind::Anthropic { read_messages(&value) } else { read_chat(&value) };
    let usage = usage(&value);
    if said.cut {
        return fail(
            FailureKind::Truncated,
            "the answer was cut before its end, most often at max_output_tokens",
            usage,
        );
    }
    if said.refused {
        return fail(FailureKind::Empty, "the model or its filter refused to answer", usage);
    }
    if said.text.trim().is_empty() {
        let detail = if said.tool_call { "a tool call instead of an answer" } else { "the answer has no content" };
        return fail(FailureKind::Empty, detail, usage);
    }
    // An answer that waits for a tool is not finished, whatever it says in between.
    if said.tool_call {
        return fail(FailureKind::Empty, "the answer waits for a tool that was never offered", usage);
    }
    let reasoning = (!said.reasoning.trim().is_empty()).then_some(said.reasoning);
    Ok(Reply { text: said.text, reasoning, usage })
}

#[derive(Default)]
struct Said {
    text: String,
    reasoning: String,
    cut: bool,
    refused: bool,
    tool_call: bool,
}

fn read_chat(value: &Value) -> Said {
    let choice = value.get("choices").and_then(|choices| choices.get(0));
    let message = choice.and_then(|choice| choice.get("message"));
    let text = |name: &str| message.and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned();
    let finish = choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str).unwrap_or_default();
    let calls = message.and_then(|m| m.get("tool_calls")).and_then(Value::as_array).is_some_and(|c| !c.is_empty());
    // DeepSeek and xAI name it `reasoning_content`, Ollama `reasoning`.
    let reasoning = text("reasoning_content");
    Said {
        text: text("content"),
        reasoning: if reasoning.is_empty() { text("reasoning") } else { reasoning },
        // What a provider calls otherwise is an end nobody asked for: DeepSeek stops at `insufficient_system_resource`.
        cut: !matches!(finish, "" | "stop" | "end_turn" | "tool_calls" | "function_call" | "content_filter"),
        refused: finish == "content_filter" || !text("refusal").is_empty(),
        tool_call: calls || matches!(finish, "tool_calls" | "function_call"),
    }
}

fn read_messages(value: &Value) -> Said {
    let mut said = Said::default();
    for block in value.get("content").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => said.text.push_str(text("text")),
            "thinking" => said.reasoning.push_str(text("thinking")),
            "tool_use" => said.tool_call = true,
            _ => {}
        }
    }
    let stop = value.get("stop_reason").and_then(Value::as_str).unwrap_or_default();
    said.cut = !matches!(stop, "" | "end_turn" | "stop_sequence" | "tool_use" | "refusal");
    said.refused = stop == "refusal";
    said.tool_call |= stop == "tool_use";
    said
}

fn usage(value: &Value) -> Option<Usage> {
    let usage = value.get("usage").filter(|usage| usage.is_object())?;
    let count =
        |name: &str| usage.get(name).and_then(Value::as_u64).map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    if let Some(prompt) = count("prompt_tokens") {
        return Some(Usage { input: prompt, output: chat_output(usage, prompt, count("completion_tokens")) });
    }
    // Anthropic counts what came from or went to its cache apart.
    let parts = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let input = parts.iter().filter_map(|name| count(name)).fold(0, u32::saturating_add);
    let said = count("input_tokens").is_some() || count("output_tokens").is_some();
    said.then(|| Usage { input, output: count("output_tokens").unwrap_or_default() })
}

/// xAI leaves thinking out of `completion_tokens` and charges for it: the total decides when it is larger.
fn chat_output(usage: &Value, prompt: u32, completion: Option<u32>) -> u32 {
    let total = usage.get("total_tokens").and_then(Value::as_u64).map(|t| u32::try_from(t).unwrap_or(u32::MAX));
    completion.unwrap_or_default().max(total.unwrap_or_default().saturating_sub(prompt))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
