//! Settings of models: what a provider needs, and what is refused with what to do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use triplegain::{
    cli::config as cli,
    settings::{Loaded, Problems, Sources, load},
};

/// Sources with a file `my.toml` of this text, in a folder of its own.
fn file(text: &str) -> Sources {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("settings-models-{number}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("my.toml");
    std::fs::write(&path, text).unwrap();
    Sources { file: Some(path), ..Sources::default() }
}

fn good(text: &str) -> Loaded {
    load(&file(text)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn bad(text: &str) -> Problems {
    load(&file(text)).unwrap_err()
}

/// A provider that is whole, with `more` lines of its own and a chain.
fn with_provider(more: &str) -> String {
    format!(
        "runtime.speed = 1\n[chains]\nmain = [\"p/m.1:x\"]\n[providers.p]\nkind = \"openai\"\n{more}\n\
         [providers.p.models.\"m.1:x\"]\ninput_usd_per_1k = 0.00015\noutput_usd_per_1k = 0.0006\nmax_output_tokens = 900\n"
    )
}

#[test]
fn a_provider_is_whole_with_kind_key_and_price_and_has_its_defaults() {
    let s = good(&with_provider("key_env = \"K\"")).settings;
    let p = &s.providers["p"];
    assert_eq!((p.calls_per_minute, p.burst, p.timeout_seconds, p.max_parallel), (60, 10, 30, 16));
    assert_eq!(p.models["m.1:x"].input_usd_per_1k.to_string(), "0.00015");
    assert_eq!(p.endpoint(), "https://api.openai.com/v1");
    let shown = cli::show(&file(&with_provider("key_env = \"K\"")), false);
    assert_eq!(good(&shown.text).settings, s);
}

#[test]
fn providers_chains_and_budget_that_cannot_work_are_refused_with_what_to_do() {
    let key = "key_env = \"K\"";
    let rows: [(&str, &[&str]); 17] = [
        (&with_provider(""), &["providers.p", "needs a key"]),
        (&with_provider("key_env = \"K\"\nkey_file = \"f\""), &["providers.p.key_env", "not both"]),
        (
            &with_provider("key_env = \"K\"\nbase_url = \"http://example.com\""),
            &["providers.p.base_url", "must be https"],
        ),
        (
            &with_provider("key_env = \"K\"\nbase_url = \"https://u:p@example.com\""),
            &["base_url", "no user or password"],
        ),
        (
            &with_provider("key_env = \"K\"\nbase_url = \"ftp://example.com\""),
            &["base_url", "must begin with https://"],
        ),
        (&with_provider("key_env = \"K\"\nburst = 0"), &["providers.p.burst", "out of bounds"]),
        (&with_provider("key_env = \"K\"\ntimeout_seconds = 601"), &["timeout_seconds", "1..600"]),
        (
            &with_provider("key_env = \"K\"\nkeyenv = \"K\""),
            &["unknown key `providers.p.keyenv`", "did you mean `key_env`?"],
        ),
        (&with_provider(key).replace("openai", "opnai"), &["providers.p.kind", "did you mean `openai`?"]),
        (&with_provider(key).replace("output_usd_per_1k = 0.0006\n", ""), &["output_usd_per_1k", "is missing"]),
        (&with_provider(key).replace("kind = \"openai\"\n", ""), &["providers.p.kind", "is missing"]),
        (&with_provider(key).replace("[\"p/m.1:x\"]", "[\"p/m.2:x\"]"), &["chains.main", "did you mean `p/m.1:x`?"]),
        (&with_provider(key).replace("[\"p/m.1:x\"]", "[]"), &["chains.main", "1..5"]),
        (&with_provider(key).replace("runtime.speed = 1", "runtime.speed = 60"), &["runtime.speed", "real time"]),
        ("[budget]\nwarn_usd = 6", &["budget.warn_usd", "must be ≤ `budget.daily_usd`"]),
        ("[breaker]\nprobes_needed = 6", &["breaker.probes_needed", "must be ≤ `breaker.probes`"]),
        ("[cassette]\nmode = \"replay\"", &["cassette", "set cassette.dir"]),
    ];
    for (text, wanted) in rows {
        let problems = bad(text).to_string();
        assert!(wanted.iter().all(|part| problems.contains(part)), "{wanted:?} in\n{problems}\nfor\n{text}");
    }
}

/// One voter beside the six by rules.
fn with_voter(voter: &str) -> String {
    let voters = format!("[[agents.trading_decision.voters]]\nname = \"v\"\n{voter}\nenabled = true\n");
    format!("{}{voters}", with_provider("key_env = \"K\""))
}

#[test]
fn a_voter_is_a_strategy_or_a_chain_that_exists() {
    let voters = |voter: &str| good(&with_voter(voter)).settings.agents.trading_decision.voters;
    let model = &voters("kind = \"model\"\nchain = \"main\"")[0];
    assert_eq!((model.chain.as_deref(), model.strategy), (Some("main"), None));
    assert!(voters("strategy = \"supertrend\"")[0].strategy.is_some(), "rules without a word");
    let rows: [(&str, &[&str]); 6] = [
        ("kind = \"model\"\nchain = \"mian\"", &["voters[0].chain", "unknown chain `mian`", "did you mean `main`?"]),
        ("kind = \"model\"", &["needs `agents.trading_decision.voters[0].chain`"]),
        ("kind = \"model\"\nchain = \"main\"\nstrategy = \"supertrend\"", &["voters[0].strategy", "has no strategy"]),
        ("chain = \"main\"\nstrategy = \"supertrend\"", &["voters[0].chain", "kind = \"model\""]),
        ("kind = \"rules\"", &["needs `agents.trading_decision.voters[0].strategy`"]),
        ("kind = \"modle\"\nchain = \"main\"", &["voters[0].kind", "did you mean `model`?"]),
    ];
    for (voter, wanted) in rows {
        let problems = bad(&with_voter(voter)).to_string();
        assert!(wanted.iter().all(|part| problems.contains(part)), "{wanted:?} in\n{problems}\nfor\n{voter}");
    }
    let none =
        bad("[[agents.trading_decision.voters]]\nname = \"v\"\nkind = \"model\"\nchain = \"x\"\nenabled = true\n");
    assert!(none.to_string().contains("no chain is configured"), "{none}");
}

/// Limits below what may think at once are told, each with the number that would do; the shipped ones are enough.
#[test]
fn too_few_places_for_those_who_wait_for_models_are_warned_of() {
    let of_places = |loaded: Loaded| -> Vec<String> {
        loaded.warnings.into_iter().filter(|warning| warning.contains("set it to")).collect()
    };
    let asking = "[agents.regime_detection]\nchain = \"main\"\n[conflicts]\nchain = \"main\"\n\
                  [tasks.regime_detection]\ninterval_seconds = 3600\n[consensus.max_age_seconds]\nregime_detection = 5460\n\
                  [bus.ttl_seconds]\nregime_updates = 5460\n[agents.trading_decision]\n\
                  voters = [{ name = \"a\", kind = \"model\", chain = \"main\", enabled = true },\
                  { name = \"b\", kind = \"model\", chain = \"main\", enabled = true }]\n";
    let warnings = |provider: &str, more: &str| {
        let text = format!("{}{asking}{more}", with_provider(&format!("key_env = \"K\"\n{provider}")));
        of_places(good(&text))
    };
    assert_eq!(warnings("", ""), Vec::<String>::new());
    // Three symbols: three regimes and three decisions, of which each asks twice.
    assert_eq!(
        warnings("max_parallel = 9", "[scheduler]\nmax_per_provider = 6\nmax_concurrent_runs = 7"),
        Vec::<String>::new()
    );
    let rows: [(&str, &str, &[&str]); 4] = [
        (
            "max_parallel = 8",
            "",
            &["providers.p.max_parallel = 8 ", "9 calls", "(p: regime_detection, trading_decision)", "at least 9"],
        ),
        ("", "[scheduler]\nmax_per_provider = 5", &["scheduler.max_per_provider = 5 ", "6 runs", "at least 6"]),
        ("", "[scheduler]\nmax_concurrent_runs = 6", &["scheduler.max_concurrent_runs = 6 ", "6 runs", "at least 7"]),
        ("", "[tasks.trading_decision]\nmax_parallel = 2", &["tasks.trading_decision.max_parallel = 2 ", "at least 3"]),
    ];
    for (provider, more, parts) in rows {
        let [text] = &warnings(provider, more)[..] else { panic!("one warning of {provider} {more}") };
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert_eq!(
        of_places(good("[scheduler]\nmax_per_provider = 1\nmax_concurrent_runs = 1")),
        Vec::<String>::new(),
        "rules wait for nobody"
    );
}

#[test]
fn the_form_of_an_answer_can_be_chosen_where_the_dialect_has_it() {
    let formed = |form: &str| {
        with_provider("key_env = \"K\"")
            .replace("max_output_tokens = 900", &format!("max_output_tokens = 900\nanswer_form = \"{form}\""))
    };
    for form in ["schema", "json", "prompt"] {
        let settings = good(&formed(form)).settings;
        assert_eq!(settings.providers["p"].models["m.1:x"].answer_form.map(|form| form.name()), Some(form));
    }
    let anthropic = formed("json").replace("\"openai\"", "\"anthropic\"");
    let problems = bad(&anthropic).to_string();
    assert!(problems.contains("answer_form") && problems.contains("`schema` or `prompt`"), "{problems}");
    good(&anthropic.replace("\"json\"", "\"schema\""));
}

/// A budget that holds no single call of a paid model is no error, but nobody would hear of it before the first slot.
#[test]
fn a_budget_below_one_call_is_warned_of_and_the_examples_hold_theirs() {
    let with = |budget: &str| {
        let model = with_provider("key_env = \"K\"\ndaily_usd = 0.0001");
        let asked = "[conflicts]\nchain = \"main\"\n[agents.trading_decision]\n\
                     voters = [{ name = \"thinker\", kind = \"model\", chain = \"main\", enabled = true }]\n";
        file(&format!("{model}{asked}[budget]\n{budget}"))
    };
    let check = cli::check(&with("daily_usd = 0.0005\nwarn_usd = 0.0004\nper_decision_usd = 0.0002\n"));
    assert_eq!(check.code, 0, "{}", check.text);
    for key in ["budget.daily_usd = 0.0005", "budget.per_decision_usd = 0.0002", "providers.p.daily_usd = 0.0001"] {
        assert!(check.text.contains(&format!("warning: {key} is too little for one call: p/m.1:x")), "{}", check.text);
    }
    assert!(check.text.contains("asked by trading_decision, conflicts,"), "{}", check.text);
    for example in std::fs::read_dir("config/examples").unwrap() {
        let path = example.unwrap().path();
        let check = cli::check(&Sources { file: Some(path.clone()), ..Sources::default() });
        assert!(
            check.code == 0 && !check.text.contains("too little") && !check.text.contains("set it to"),
            "{path:?}: {}",
            check.text
        );
    }
}
