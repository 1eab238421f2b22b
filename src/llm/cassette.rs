//! Recordings of calls: which request is the same as another, and what is kept of its reply. Pure; the files are the
//! actor's business.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::question::{AnswerFormat, Prompt};
use crate::settings::{ModelSettings, ProviderKind};

/// Version of the recording's form.
pub const VERSION: u32 = 1;

/// Name of a request: SHA-256 over what decides the answer, hex. The key, the host and the name given to the provider
/// are no part of it, so a recording made through one endpoint is played for another of the same dialect.
pub fn request_sha256(
    kind: ProviderKind,
    model: &str,
    settings: &ModelSettings,
    prompt: &Prompt,
    format: &AnswerFormat,
) -> String {
    let canonical = json!([
        VERSION,
        kind.name(),
        model,
        prompt.template,
        prompt.system,
        prompt.user,
        format.name,
        sorted(&format.schema),
        super::wire::token_limit(format, settings),
        settings.temperature,
    ]);
    hex::encode(Sha256::digest(canonical.to_string().as_bytes()))
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

/// One recorded call. Only replies that arrived whole are kept; what the network did is not.
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
    /// Status of the reply.
    pub status: u16,
    /// Its body as text; bytes that are no UTF-8 are replaced.
    pub body: String,
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
        let format = |schema: &str, limit| AnswerFormat {
            name: "vote".into(),
            schema: serde_json::from_str(schema).unwrap(),
            max_output_tokens: limit,
        };
        let model = |price: i64, temperature| ModelSettings {
            input_usd_per_1k: price.into(),
            output_usd_per_1k: Decimal::ONE,
            max_output_tokens: 500,
            temperature,
        };
        let of = |kind, name: &str, settings: &ModelSettings, user: &str, format: &AnswerFormat| {
            request_sha256(kind, name, settings, &prompt(user), format)
        };
        let schema = format(r#"{"a":1,"b":{"c":2,"d":3}}"#, 100);
        let plain = of(ProviderKind::OpenAi, "m", &model(1, None), "u", &schema);
        assert_eq!(plain.len(), 64);
        let turned = format(r#"{"b":{"d":3,"c":2},"a":1}"#, 100);
        assert_eq!(of(ProviderKind::OpenAi, "m", &model(7, None), "u", &turned), plain, "order and price");
        for other in [
            of(ProviderKind::XAi, "m", &model(1, None), "u", &schema),
            of(ProviderKind::OpenAi, "n", &model(1, None), "u", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, Some(0.5)), "u", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, None), "v", &schema),
            of(ProviderKind::OpenAi, "m", &model(1, None), "u", &format(r#"{"a":2}"#, 100)),
            of(ProviderKind::OpenAi, "m", &model(1, None), "u", &format(r#"{"a":1,"b":{"c":2,"d":3}}"#, 99)),
        ] {
            assert_ne!(other, plain);
        }
    }
}
