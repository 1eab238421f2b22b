//! Recordings of calls: which request is the same as another, and what is kept of its reply. Pure; the files are the
//! actor's business.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::question::{AnswerFormat, FailureKind, Prompt};
use crate::settings::{AnswerForm, ModelSettings, ProviderKind};

/// Version of the recording's form: 1 kept one successful reply per request; 2 keeps every attempt with its outcome and latency.
pub const VERSION: u32 = 2;

/// Name of a request: SHA-256 over what decides the answer, hex. The key, the host and the name given to the provider
/// are no part of it, so a recording made through one endpoint is played for another of the same dialect.
pub fn request_sha256(
    kind: ProviderKind,
    model: &str,
    settings: &ModelSettings,
    prompt: &Prompt,
    format: &AnswerFormat,
) -> String {
    let mut canonical = json!([
        VERSION,
        kind.name(),
        model,
        prompt.template,
        prompt.system,
        prompt.user,
        format.name,
        sorted(&format.schema),
        super::wire::token_limit(settings),
        settings.temperature,
    ]);
    let form = super::wire::form_of(kind, settings);
    if let Some(parts) = canonical.as_array_mut().filter(|_| form != first_form(kind)) {
        parts.push(json!(form.name()));
    }
    hex::encode(Sha256::digest(canonical.to_string().as_bytes()))
}

/// The only form there was when this version of recordings began: a request of that form keeps its name.
const fn first_form(kind: ProviderKind) -> AnswerForm {
    match kind {
        ProviderKind::DeepSeek => AnswerForm::Json,
        ProviderKind::Anthropic => AnswerForm::Prompt,
        ProviderKind::OpenAi | ProviderKind::XAi | ProviderKind::Ollama => AnswerForm::Schema,
    }
}

/// The same value with the names of every object in order: a schema is the same however it was put together.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<(&String, &Value)> = fields.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            Value::Object(names.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// Everything that was recorded of one request, in the order in which it was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the request, as in the file's name.
    pub request_sha256: String,
    /// Dialect, for people.
    pub kind: String,
    /// Model, for people.
    pub model: String,
    /// Template, for people.
    pub template: String,
    /// In order; a replay takes them one after another.
    pub attempts: Vec<Attempt>,
}

/// One time a request was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// From the request to its end, milliseconds; a replay waits as long.
    pub took_ms: i64,
    /// What came.
    pub outcome: Outcome,
}

/// What came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// A complete reply, whatever its status.
    Reply {
        /// HTTP status.
        status: u16,
        /// What the endpoint asked to wait, milliseconds; resolved when it came, because a date means nothing later.
        retry_after_ms: Option<i64>,
        /// The body as text, without the key; bytes that are no UTF-8 are replaced.
        body: String,
    },
    /// No complete reply: a time-out, no connection, one that broke, too much.
    Failed {
        /// What happened.
        kind: FailureKind,
        /// For people, without the key.
        detail: String,
        /// The request never arrived, so nothing can be charged for it.
        unsent: bool,
    },
}

impl Attempt {
    /// What it is within `left_ms`: a reply that was not complete before the end of its part is a time-out there.
    pub fn within(self, left_ms: i64) -> Attempt {
        let left_ms = left_ms.max(0);
        if self.took_ms < left_ms {
            return Attempt { took_ms: self.took_ms.max(0), outcome: self.outcome };
        }
        Attempt { took_ms: left_ms, outcome: Outcome::timeout() }
    }
}

impl Outcome {
    /// Nothing whole came in time.
    pub fn timeout() -> Outcome {
        let detail = "no complete reply within its part of the deadline".to_owned();
        Outcome::Failed { kind: FailureKind::Timeout, detail, unsent: false }
    }
}

/// Reads the content of a recording's file.
///
/// # Errors
/// It is no recording, or one of another version, and what to do.
pub fn read(bytes: &[u8]) -> Result<Recorded, String> {
    let damaged = |error: serde_json::Error| {
        format!("is no recording or was damaged ({error}): delete it and record that request anew")
    };
    let value: Value = serde_json::from_slice(bytes).map_err(damaged)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version != u64::from(VERSION) => Err(format!(
            "is of version {version}, this program reads version {VERSION}: set cassette.dir to an empty folder and \
             record anew"
        )),
        _ => serde_json::from_value(value).map_err(damaged),
    }
}

/// Name of the file of a request.
pub fn file_name(request_sha256: &str) -> String {
    format!("{request_sha256}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Decimal;

    #[test]
    fn the_name_of_a_request_depends_on_what_decides_the_answer_and_on_nothing_else() {
        let prompt = |user: &str| Prompt { template: "t@1".into(), system: "s".into(), user: user.into() };
        let format = |schema: &str| AnswerFormat { name: "vote".into(), schema: serde_json::from_str(schema).unwrap() };
        let model = |price: i64, temperature| ModelSettings {
            input_usd_per_1k: price.into(),
            output_usd_per_1k: Decimal::ONE,
            max_output_tokens: 100,
            temperature,
            answer_form: None,
        };
        let of = |kind, name: &str, settings: &ModelSettings, user: &str, format: &AnswerFormat| {
            request_sha256(kind, name, settings, &prompt(user), format)
        };
        let schema = format(r#"{"a":1,"b":{"c":2,"d":3}}"#);
        let plain = of(ProviderKind::OpenAi, "m", &model(1, None), "u", &schema);
        assert_eq!(plain.len(), 64);
        let turned = format(r#"{"b":{"d":3,"c":2},"a":1}"#);
        assert_eq!(of(ProviderKind::OpenAi, "m", &model(7, None), "u", &turned), plain, "order and price");
        for other in [
            of(ProviderKind::XAi, "m", &model(1, None), "u", &schema),
            of(ProviderKind::OpenAi, "n", &model(1, None), "u", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, Some(0.5)), "u", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, None), "v", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, None), "u", &format(r#"{"a":2}"#)),
            of(ProviderKind::OpenAi, "m", &ModelSettings { max_output_tokens: 99, ..model(1, None) }, "u", &schema),
        ] {
            assert_ne!(other, plain);
        }
        // Of the form a dialect always had: the names of recordings made before the form could be chosen.
        let formed = |kind, form| {
            let settings = ModelSettings { answer_form: form, ..model(1, None) };
            of(kind, "m", &settings, "u", &schema)
        };
        assert_eq!(formed(ProviderKind::OpenAi, Some(AnswerForm::Schema)), plain);
        assert_ne!(formed(ProviderKind::OpenAi, Some(AnswerForm::Json)), plain);
        let told = "b3df1b0d";
        assert_eq!(&plain[..8], told, "a recording made by an earlier program is found");
        let (of_anthropic, prompt) = (ProviderKind::Anthropic, Some(AnswerForm::Prompt));
        assert_ne!(formed(of_anthropic, None), formed(of_anthropic, prompt), "what is sent differs");
        let of_deepseek = ProviderKind::DeepSeek;
        assert_eq!(formed(of_deepseek, None), formed(of_deepseek, Some(AnswerForm::Json)));
    }
    fn reply(took_ms: i64) -> Attempt {
        Attempt { took_ms, outcome: Outcome::Reply { status: 200, retry_after_ms: None, body: "{}".into() } }
    }

    #[test]
    fn a_reply_that_is_not_complete_before_the_end_of_its_part_is_a_time_out() {
        assert_eq!(reply(999).within(1000), reply(999));
        assert_eq!(reply(1000).within(1000), Attempt { took_ms: 1000, outcome: Outcome::timeout() });
        assert_eq!(reply(5).within(-3), Attempt { took_ms: 0, outcome: Outcome::timeout() });
        assert_eq!(reply(-5).within(3), reply(0), "an edited file turns no time back");
        let cut = Attempt { took_ms: 700, outcome: Outcome::timeout() };
        assert_eq!(cut.clone().within(9000), cut, "what was cut then is cut, however long one could wait now");
    }

    #[test]
    fn a_file_of_another_version_or_a_damaged_one_is_refused_in_words() {
        let failed = Outcome::Failed { kind: FailureKind::Connection, detail: "reset".into(), unsent: true };
        let recorded = Recorded {
            version: VERSION,
            request_sha256: "ab".into(),
            kind: "xai".into(),
            model: "m".into(),
            template: "t@1".into(),
            attempts: vec![Attempt { took_ms: 3, outcome: failed }, reply(7)],
        };
        let bytes = serde_json::to_vec(&recorded).unwrap();
        assert_eq!(read(&bytes).unwrap(), recorded);
        let torn = read(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(torn.contains("record that request anew"), "{torn}");
        let old =
            br#"{"version":1,"request_sha256":"ab","kind":"x","model":"m","template":"t","status":200,"body":""}"#;
        let words = read(old).unwrap_err();
        assert!(words.contains("version 1, this program reads version 2") && words.contains("record anew"), "{words}");
        assert!(read(b"{}").is_err());
    }
}
