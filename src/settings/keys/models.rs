//! Rows of the keys about language models: endpoints, chains, breaker, budget, recordings.

use super::{Form, Key, Kind, int, key, num, one_of, text, to};

/// Rows in the order of the document.
pub(super) const KEYS: &[Key] = &[
    one_of(
        "providers.<provider>.kind",
        &["openai", "anthropic", "deepseek", "xai", "ollama"],
        "dialect of the endpoint; must be given",
    ),
    text("providers.<provider>.base_url", "URL", Form::Filled, "any endpoint of that dialect; absent = the provider's")
        .note("https, or http on loopback or without a key"),
    text("providers.<provider>.key_env", "variable", Form::Filled, "environment variable that holds the key")
        .note("this or key_file; ollama needs none"),
    text("providers.<provider>.key_file", "path", Form::Filled, "file that holds the key").note("mode 0600"),
    int("providers.<provider>.calls_per_minute", "calls", to(1.0, 100_000.0), "rate; absent = 60"),
    int("providers.<provider>.burst", "calls", to(1.0, 10_000.0), "calls at once after a calm; absent = 10"),
    int("providers.<provider>.timeout_seconds", "s", to(1.0, 600.0), "total time of one call; absent = 30"),
    int("providers.<provider>.max_parallel", "calls", to(1.0, 1000.0), "calls under way at once; absent = 16"),
    num("providers.<provider>.daily_usd", "USD", to(0.0, 1e6), "limit of this provider per UTC day; absent = none"),
    num("providers.<provider>.models.<model>.input_usd_per_1k", "USD", to(0.0, 1000.0), "price of 1000 prompt tokens"),
    num("providers.<provider>.models.<model>.output_usd_per_1k", "USD", to(0.0, 1000.0), "price of 1000 answer tokens"),
    int("providers.<provider>.models.<model>.max_output_tokens", "tokens", to(1.0, 32000.0), "longest answer"),
    num("providers.<provider>.models.<model>.temperature", "–", to(0.0, 2.0), "sent when given"),
    one_of(
        "providers.<provider>.models.<model>.answer_form",
        &["schema", "json", "prompt"],
        "how a call asks for the answer's form; absent = json for deepseek, else schema",
    )
    .note("anthropic: not json"),
    key(
        "chains.<chain>",
        "–",
        Kind::List(&Kind::Text(Form::Filled), 1, 5),
        "models asked one after another, each as provider/model",
    )
    .note("models with a price"),
    int("breaker.window", "calls", to(1.0, 1000.0), "newest outcomes of a provider that are looked at"),
    int("breaker.min_calls", "calls", to(1.0, 1000.0), "fewer outcomes have no ratio").note("≤ window"),
    num("breaker.failure_ratio", "ratio", to(0.01, 1.0), "share of failures that opens the breaker"),
    int("breaker.consecutive", "failures", to(1.0, 1000.0), "failures in a row that open it"),
    int("breaker.open_seconds", "s", to(1.0, 86400.0), "first time open").note("≤ open_max_seconds"),
    int("breaker.open_max_seconds", "s", to(1.0, 86400.0), "longest time open"),
    int("breaker.reopen_window_seconds", "s", to(0.0, 86400.0), "opening again within it doubles the time"),
    num("breaker.jitter", "ratio", to(0.0, 1.0), "spread of the time open"),
    int("breaker.probes", "calls", to(1.0, 100.0), "calls let through while half-open"),
    int("breaker.probes_needed", "calls", to(1.0, 100.0), "of them that must succeed").note("≤ probes"),
    num("breaker.slow_ratio", "ratio", to(0.01, 1.0), "a success slower than this part of the time-out is a failure"),
    int("breaker.retry_after_max_seconds", "s", to(0.0, 3600.0), "longest Retry-After that is honoured"),
    num("budget.daily_usd", "USD", to(0.0, 1e6), "limit per UTC day; 0 = no call that costs"),
    num("budget.warn_usd", "USD", to(0.0, 1e6), "spending that is noted once a day").note("≤ daily_usd"),
    num("budget.per_decision_usd", "USD", to(0.0, 1e6), "limit of one trading decision").note("≤ daily_usd"),
    num("budget.decision_reserve_ratio", "ratio", to(0.0, 1.0), "part of the day kept for trading decisions"),
    one_of("cassette.mode", &["off", "record", "replay"], "whether replies are recorded, or played without network"),
    text("cassette.dir", "path", Form::Any, "folder of the recording").note("needed by record and replay"),
    num("cassette.max_usd", "USD", to(0.0, 1e6), "most that one run of a recording backtest pays for calls"),
];
