//! The sections about language models: endpoints, chains, breaker, budget, recordings. Field names are the keys.
//!
//! No key of a provider is ever in the settings, only where it is read from; so nothing here needs to be redacted.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // every field is a key; `keys.rs` holds the text shown by `config explain`
        pub struct $name { $($body)* }
    };
}

/// Which dialect an endpoint speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ProviderKind {
    OpenAi,
    Anthropic,
    DeepSeek,
    XAi,
    Ollama,
}

impl ProviderKind {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            ProviderKind::OpenAi => "openai",
            ProviderKind::Anthropic => "anthropic",
            ProviderKind::DeepSeek => "deepseek",
            ProviderKind::XAi => "xai",
            ProviderKind::Ollama => "ollama",
        }
    }

    /// Where the provider itself listens; Ollama on this machine, through its OpenAI-compatible path.
    pub const fn base_url(self) -> &'static str {
        match self {
            ProviderKind::OpenAi => "https://api.openai.com/v1",
            ProviderKind::Anthropic => "https://api.anthropic.com/v1",
            ProviderKind::DeepSeek => "https://api.deepseek.com",
            ProviderKind::XAi => "https://api.x.ai/v1",
            ProviderKind::Ollama => "http://127.0.0.1:11434/v1",
        }
    }

    /// How an answer's form is asked for where the model does not say: what the provider's own models of today take.
    pub const fn answer_form(self) -> AnswerForm {
        match self {
            ProviderKind::DeepSeek => AnswerForm::Json,
            _ => AnswerForm::Schema,
        }
    }

    /// Whether calls need a key.
    pub const fn needs_key(self) -> bool {
        !matches!(self, ProviderKind::Ollama)
    }
}

/// What a call says of the form of its answer, besides the schema that stands in every prompt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerForm {
    /// The JSON schema as a field of its own.
    Schema,
    /// The wish for a JSON object.
    Json,
    /// Nothing.
    Prompt,
}

impl AnswerForm {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            AnswerForm::Schema => "schema",
            AnswerForm::Json => "json",
            AnswerForm::Prompt => "prompt",
        }
    }
}

section!(
    /// `[providers.NAME]`
    ProviderSettings {
        pub kind: ProviderKind,
        /// Empty = the provider's own.
        #[serde(default)]
        pub base_url: String,
        /// Variable that holds the key; empty = none.
        #[serde(default)]
        pub key_env: String,
        /// File that holds the key, mode 0600; empty = none.
        #[serde(default)]
        pub key_file: String,
        #[serde(default = "calls_per_minute")]
        pub calls_per_minute: u32,
        #[serde(default = "burst")]
        pub burst: u32,
        #[serde(default = "timeout_seconds")]
        pub timeout_seconds: u32,
        #[serde(default = "max_parallel")]
        pub max_parallel: u32,
        /// Absent = only the budget of the day.
        #[serde(default)]
        pub daily_usd: Option<Decimal>,
        #[serde(default)]
        pub models: BTreeMap<String, ModelSettings>,
    }
);

impl ProviderSettings {
    /// Where calls go, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        let own = self.base_url.trim_end_matches('/');
        if own.is_empty() { self.kind.base_url() } else { own }
    }
}

const fn calls_per_minute() -> u32 {
    60
}
const fn burst() -> u32 {
    10
}
const fn timeout_seconds() -> u32 {
    30
}
const fn max_parallel() -> u32 {
    16
}

section!(
    /// `[providers.NAME.models.M]`
    ModelSettings {
        pub input_usd_per_1k: Decimal,
        pub output_usd_per_1k: Decimal,
        pub max_output_tokens: u32,
        /// Absent = not sent: some models take none.
        #[serde(default)]
        pub temperature: Option<f64>,
        /// Absent = what the kind of provider takes.
        #[serde(default)]
        pub answer_form: Option<AnswerForm>,
    }
);
section!(
    /// `[breaker]`
    ProviderBreakerSettings {
        pub window: u32,
        pub min_calls: u32,
        pub failure_ratio: f64,
        pub consecutive: u32,
        pub open_seconds: u32,
        pub open_max_seconds: u32,
        pub reopen_window_seconds: u32,
        pub jitter: f64,
        pub probes: u32,
        pub probes_needed: u32,
        pub slow_ratio: f64,
        pub retry_after_max_seconds: u32,
    }
);
section!(
    /// `[budget]`
    BudgetSettings {
        pub daily_usd: Decimal,
        pub warn_usd: Decimal,
        pub per_decision_usd: Decimal,
        pub decision_reserve_ratio: Decimal,
    }
);
section!(
    /// `[cassette]`
    CassetteSettings { pub mode: CassetteMode, pub dir: String, pub max_usd: Decimal }
);
/// What happens to calls besides being made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CassetteMode {
    /// Nothing.
    #[default]
    Off,
    /// Every attempt is kept.
    Record,
    /// Replies come from the recording; the network is never used.
    Replay,
}
