//! The configuration as a person meets it: layers, reports, defaults, documents.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use triplegain::{
    cli::config as cli,
    model::{Symbol, TaskName},
    settings::{
        DEFAULT_TOML, Loaded, Problems, Sources, docs, keys, layers, load,
        tree::{Node, Raw, dotted},
    },
};

/// Sources with a file `my.toml` of this text, in a folder of its own.
fn file(text: &str) -> Sources {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("settings-{number}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("my.toml");
    std::fs::write(&path, text).unwrap();
    Sources { file: Some(path), ..Sources::default() }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn good(text: &str) -> Loaded {
    load(&file(text)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn bad(text: &str) -> Problems {
    load(&file(text)).expect_err("the configuration must be refused")
}

/// The report has exactly these lines in this order, each containing all its words.
#[track_caller]
fn report(problems: &Problems, wanted: &[&[&str]]) {
    let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), wanted.len(), "{problems}");
    for (line, words) in lines.iter().zip(wanted) {
        for word in *words {
            assert!(line.contains(word), "`{word}` is missing in: {line}\n{problems}");
        }
    }
}

const TASK_HEAD: &str = "[tasks.trading_decision]\n";

#[test]
fn a019_a_misspelt_dependency_is_named_with_the_nearest_task() {
    let text =
        format!("{TASK_HEAD}depends_on = [\n  {{ task = \"sentimnt\", require_new = false, required = false }},\n]\n");
    let key = "tasks.trading_decision.depends_on[0].task";
    report(&bad(&text), &[&["my.toml:3", key, "sentimnt", "did you mean `sentiment_analysis`?"]]);
}

#[test]
fn a020_a_cycle_is_printed() {
    let text = "[tasks.technical_analysis]\n\
                depends_on = [{ task = \"regime_detection\", require_new = false, required = true, max_age_seconds = 510 }]\n";
    let problems = bad(text);
    report(&problems, &[&["my.toml:2", "cycle", "technical_analysis -> regime_detection -> technical_analysis"]]);
    let itself = "[tasks.technical_analysis]\n\
                  depends_on = [{ task = \"technical_analysis\", require_new = false, required = true }]\n";
    report(&bad(itself), &[&["cycle", "technical_analysis -> technical_analysis"]]);
}

#[test]
fn a021_a_new_output_of_a_slower_dependency_is_refused() {
    let text = "[tasks.regime_detection]\ninterval_seconds = 7200\n\
                [consensus.max_age_seconds]\nregime_detection = 20000\n[bus.ttl_seconds]\nregime_updates = 20000\n";
    report(
        &bad(text),
        &[&["my.toml:2", "tasks.regime_detection.interval_seconds", "trading_decision", "7200", "3600"]],
    );
}

#[test]
fn a052_consensus_thresholds_are_refused_in_one_report() {
    let low = "consensus.low_agreement_threshold";
    let high = "consensus.high_agreement_threshold";
    let problems = bad("[consensus]\nhigh_agreement_threshold = 0.3\nlow_agreement_threshold = 0.4\n");
    report(&problems, &[&["my.toml:2", high, "≥ 0.5"], &["my.toml:3", low, "<"]]);
    report(&bad("[consensus]\nlow_agreement_threshold = 0\n"), &[&[low, "> 0..< 1"]]);
    report(&bad("[consensus]\nhigh_agreement_threshold = 1\n"), &[&[high, "> 0..< 1"]]);
    report(&bad("[consensus]\nhigh_agreement_threshold = 0.45\n"), &[&[high, "stepped"]]);
    good("[consensus]\nhigh_agreement_threshold = 0.45\ncurve = \"continuous\"\n");
    good("[consensus]\nhigh_agreement_threshold = 0.5\n");
    let both = bad("[consensus]\nlow_agreement_threshold = 0\nhigh_agreement_threshold = 1\n");
    report(&both, &[&[low], &[high]]);
}

#[test]
fn a176_unknown_key_bad_bound_and_cycle_are_one_report_with_exit_2() {
    let text = "[risk]\nmax_levrage = 3\nmax_position_pct = 120\n\n[tasks.technical_analysis]\n\
                depends_on = [{ task = \"regime_detection\", require_new = false, required = true }]\n";
    let answer = cli::check(&file(text));
    assert_eq!(answer.code, 2);
    for words in [
        "the configuration has 3 problems",
        "my.toml:2: `risk.max_levrage` = 3: unknown key `risk.max_levrage`, did you mean `max_leverage`?",
        "my.toml:3: `risk.max_position_pct` = 120: out of bounds, allowed: > 0..100 % of E",
        "technical_analysis -> regime_detection -> technical_analysis",
    ] {
        assert!(answer.text.contains(words), "`{words}` is missing in:\n{}", answer.text);
    }
}

#[test]
fn a193_live_mode_is_refused() {
    report(&bad("mode = \"live\"\n"), &[&["my.toml:1", "`mode`", "\"live\"", "refused"]]);
    let by_variable = Sources { env: pairs(&[("TRIPLEGAIN__MODE", "live")]), ..Sources::default() };
    report(&load(&by_variable).unwrap_err(), &[&["variable TRIPLEGAIN__MODE", "refused"]]);
}

#[test]
fn the_command_line_beats_variables_beat_the_file_beats_the_default() {
    let mut sources = file("seed = 1\ndata_dir = \"a\"\n[runtime]\nspeed = 10\n");
    sources.env = pairs(&[("TRIPLEGAIN__DATA_DIR", "b"), ("TRIPLEGAIN__RUNTIME__SPEED", "20"), ("HOME", "x")]);
    sources.overrides = pairs(&[("runtime.speed", "30")]);
    let loaded = load(&sources).unwrap();
    let s = &loaded.settings;
    assert_eq!((s.mode.as_str(), s.seed, s.data_dir.as_str(), s.runtime.speed), ("paper", 1, "b", 30));
    let origin = |key: &str| loaded.origins[key].as_str();
    assert_eq!(origin("mode"), "default");
    assert!(origin("seed").ends_with("my.toml:1"));
    assert_eq!(origin("data_dir"), "variable TRIPLEGAIN__DATA_DIR");
    assert_eq!(origin("runtime.speed"), "option --speed");
    assert_eq!(origin("api.token_file"), "computed");
    assert_eq!(s.api.token_file, "b/token");
}

#[test]
fn variables_carry_numbers_lists_tables_and_pairs() {
    let env = pairs(&[
        ("TRIPLEGAIN__RISK__MAX_POSITION_PCT", "12.5"),
        ("TRIPLEGAIN__SYMBOLS", "BTC/USDT, XRP/USDT"),
        ("TRIPLEGAIN__EXECUTION__RETRY_WAITS_SECONDS", "[1, 2, 3]"),
        ("TRIPLEGAIN__MARKET__SYMBOL__BTC_USDT__PRICE_DECIMALS", "1"),
        ("TRIPLEGAIN__EXECUTION__TRAILING__ENABLED", "True"),
        ("TRIPLEGAIN__RISK__LEVERAGE_BY_LOSSES", "{ 4 = 1 }"),
        ("TRIPLEGAIN__PORTFOLIO__TARGETS__BTC", "3"),
        ("TRIPLEGAIN__TASKS__TECHNICAL_ANALYSIS__MAX_PARALLEL", "2"),
        ("TRIPLEGAIN__LOG__DIR", "007"),
    ]);
    let s = load(&Sources { env, ..Sources::default() }).unwrap_or_else(|p| panic!("{p}")).settings;
    let btc: Symbol = "BTC/USDT".parse().unwrap();
    assert_eq!(s.risk.max_position_pct.to_string(), "12.5");
    assert_eq!(s.symbols, [btc, "XRP/USDT".parse().unwrap()]);
    assert_eq!(s.execution.retry_waits_seconds, [1, 2, 3]);
    assert_eq!(s.market.symbol[&btc].price_decimals, 1);
    assert!(s.execution.trailing.enabled);
    assert_eq!(s.risk.leverage_by_losses.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>(), [("4", 1)]);
    assert_eq!(s.portfolio.targets.len(), 3);
    assert_eq!(s.tasks[&TaskName::TechnicalAnalysis].max_parallel, 2);
    assert_eq!(s.log.dir, "007");
    let wrong = pairs(&[("TRIPLEGAIN__RISK__MAX_LEVERAGE", "two"), ("TRIPLEGAIN__RISK__MAX_LEVRAGE", "2")]);
    let problems = load(&Sources { env: wrong, ..Sources::default() }).unwrap_err();
    report(
        &problems,
        &[
            &["variable TRIPLEGAIN__RISK__MAX_LEVERAGE:", "\"two\"", "whole number 1..5"],
            &["variable TRIPLEGAIN__RISK__MAX_LEVRAGE:", "did you mean `max_leverage`?"],
        ],
    );
}

#[test]
fn a_map_of_weights_is_replaced_as_a_whole_and_other_tables_are_merged() {
    let s = good("[portfolio.targets]\nBTC = 60\nUSDT = 40\n[risk.breakers]\ndaily_loss_pct = 4\n").settings;
    assert_eq!(s.portfolio.targets.len(), 2);
    assert_eq!(s.risk.breakers.weekly_loss_pct.to_string(), "10");
}

#[test]
fn every_kind_of_mistake_is_reported_with_its_line() {
    let text = r#"seed = -1
symbols = ["BTC/USDT", "BTC/USDT"]
account_currency = "usd"
timezone = "CET"
surprise = 1
[market]
source = "binance"
[market.lookback]
2h = 60
1h = 100
[market.symbol."ETH/USDT"]
min_quantity = 1
[tasks.ta_analysis]
enabled = true
[tasks.technical_analysis]
run_on_start = true
timeout_seconds = "30"
[risk]
max_leverage = 2.5
restricted_hours = ["25:00-26:00"]
[risk.breakers]
daily_loss_pct = 11
[degradation]
recovery_threshold = 3
escalate_rates = [0.3, 0.5]
[api]
bind = "0.0.0.0:8710"
[store]
group = 5
"#;
    report(
        &bad(text),
        &[
            &["my.toml:1:", "`seed` = -1", "0.."],
            &["my.toml:2:", "symbols[1]", "twice"],
            &["my.toml:3:", "account_currency", "upper-case"],
            &["my.toml:4:", "timezone", "allowed: UTC"],
            &["my.toml:5:", "unknown key `surprise`"],
            &["my.toml:7:", "market.source", "allowed: simulated, csv, kraken"],
            &["my.toml:9:", "market.lookback.2h", "timeframe"],
            &["my.toml:10:", "market.lookback.1h", "250"],
            &["my.toml:12:", "ETH/USDT", "price_decimals", "missing"],
            &["my.toml:12:", "ETH/USDT", "quantity_decimals", "missing"],
            &["my.toml:13:", "ta_analysis", "it is now `tasks.technical_analysis`"],
            &["my.toml:16:", "run_on_start", "it is now `tasks.technical_analysis.catch_up_seconds`"],
            &["my.toml:17:", "timeout_seconds", "wrong type", "whole number"],
            &["my.toml:19:", "max_leverage", "wrong type"],
            &["my.toml:20:", "restricted_hours[0]", "HH:MM-HH:MM"],
            &["my.toml:22:", "daily_loss_pct", "≤", "weekly_loss_pct"],
            &["my.toml:24:", "it is now `degradation.recover_in_a_row`"],
            &["my.toml:25:", "escalate_rates", "exactly 3"],
            &["my.toml:27:", "api.bind", "not loopback", "TLS"],
            &["my.toml:29:", "store.group", "table"],
        ],
    );
}

#[test]
fn torn_text_names_file_and_line() {
    report(&bad("seed = 1\n[risk\nmax_leverage = 3\n"), &[&["my.toml:2", "not valid TOML"]]);
    report(&bad("seed = 1\nseed = 2\n"), &[&["my.toml:2", "not valid TOML"]]);
}

#[test]
fn rules_over_several_keys_are_refused() {
    for (text, words) in [
        ("[tasks.technical_analysis]\ntimeout_seconds = 60\n", vec!["timeout_seconds", "<", "interval_seconds"]),
        ("[tasks.technical_analysis]\nsnapshot_timeout_seconds = 16\n", vec!["snapshot_timeout_seconds", "half"]),
        ("[tasks.technical_analysis]\ncatch_up_seconds = 61\n", vec!["catch_up_seconds", "≤"]),
        (
            "[tasks.technical_analysis]\nenabled = false\n[tasks.regime_detection]\nenabled = false\n",
            vec!["trading_decision requires technical_analysis"],
        ),
        ("[tasks.sentiment_analysis]\nenabled = true\n", vec!["needs somebody to ask"]),
        ("[tasks.trading_decision]\nsymbols = [\"ETH/USDT\"]\n", vec!["ETH/USDT", "not among the traded symbols"]),
        ("symbols = [\"BTC/USDT\", \"ETH/USDT\"]\n", vec!["ETH/USDT", "has no rules"]),
        ("symbols = [\"XRP/USDT\", \"XRP/BTC\"]\n", vec!["XRP/BTC", "BTC/USDT"]),
        ("[risk.stop]\nmin_distance_pct = 5\n", vec!["min_distance_pct", "max_distance_pct"]),
        ("[risk.stop.symbol_max_pct]\n\"BTC/USDT\" = 6\n", vec!["BTC/USDT", "≤"]),
        ("[risk.leverage_by_drawdown]\n5 = 2\n10 = 2\n", vec!["cap 2 at 10"]),
        ("[risk.breakers]\nmax_drawdown_pct = 9\n", vec!["max_drawdown_pct", "weekly_loss_pct"]),
        ("[[risk.correlations]]\na = \"BTC/USDT\"\nb = \"BTC/USDT\"\nrho = 1\n", vec!["correlation 1 with itself"]),
        ("[agents.trading_decision]\nquorum = 7\n", vec!["quorum", "6 enabled voters"]),
        ("[portfolio.targets]\nBTC = 50\nUSDT = 49\n", vec!["add up to 99"]),
        ("[portfolio.targets]\nDOGE = 1\n", vec!["DOGE", "cannot be bought"]),
        ("[consensus.max_age_seconds]\ntechnical_analysis = 119\n", vec!["119", "≥ 120"]),
        ("[bus.ttl_seconds]\nta_signals = 100\n", vec!["ta_signals", "100"]),
        ("[emergency.breach.daily_loss]\naction = \"cooldown\"\n", vec!["consecutive_losses only"]),
        ("[market]\nsource = \"csv\"\n", vec!["market.csv.dir"]),
        ("[execution]\nmax_attempts_definite = 5\n", vec!["at least 4 waits"]),
        ("[degradation]\nrecover_rates = [0.05, 0.15, 0.8]\n", vec!["0.8", "level 3"]),
        ("[runtime]\nspeed = 3601\n", vec!["runtime.speed", "0..3600"]),
    ] {
        let problems = bad(text);
        let shown = problems.to_string();
        assert!(words.iter().all(|word| shown.contains(word)), "{words:?} are not all in:\n{shown}");
        assert!(problems.0.iter().all(|p| p.origin.to_string().contains("my.toml:")), "{shown}");
    }
    let short = "[tasks.trading_decision]\ndepends_on = [{ task = \"technical_analysis\", max_age_seconds = 59, \
                 require_new = true, required = true }]\n";
    report(&bad(short), &[&["59 must be ≥ `tasks.technical_analysis.interval_seconds` = 60"]]);
}

#[test]
fn renamed_names_inside_values_tell_the_new_name() {
    let text = format!("{TASK_HEAD}depends_on = [{{ task = \"ta_analysis\", require_new = true, required = true }}]\n");
    report(&bad(&text), &[&["ta_analysis", "it is now `technical_analysis`"]]);
    let breach = "[emergency.daily_loss]\naction = \"halt_all\"\n";
    report(&bad(breach), &[&["emergency.daily_loss", "it is now `emergency.breach.daily_loss`"]]);
}

/// Walks every numeric key: its bounds pass (unless a rule over several keys speaks), one step beyond is refused.
#[test]
fn bounds_are_inclusive_unless_open() {
    let names = [("<task>", "technical_analysis"), ("<symbol>", "\"BTC/USDT\""), ("<timeframe>", "5m")];
    let more =
        [("<regime>", "choppy"), ("<breaker>", "daily_loss"), ("<percent>", "7"), ("<count>", "7"), ("<asset>", "BTC")];
    let mut checked = 0;
    // Providers have no default that one bad key could stand beside; their bounds are tested with them.
    for row in keys::all().filter(|row| !row.path.contains("[]") && !row.path.starts_with("providers.")) {
        let (range, whole) = match row.kind {
            keys::Kind::Int(range) => (range, true),
            keys::Kind::Num(range) => (range, false),
            _ => continue,
        };
        let key = names.iter().chain(&more).fold(row.path.to_owned(), |path, (from, to)| path.replace(from, to));
        let out_of_bounds = |value: f64| {
            let problems = load(&Sources { overrides: pairs(&[(&key, &value.to_string())]), ..Sources::default() })
                .err()
                .unwrap_or_default();
            problems.0.iter().any(|p| p.message.starts_with("out of bounds"))
        };
        let step = if whole { 1.0 } else { 0.0001 };
        assert_eq!(out_of_bounds(range.min), range.min_open, "{key} = {}", range.min);
        assert!(out_of_bounds(range.min - step), "{key} below {}", range.min);
        if range.max < 4e9 {
            assert_eq!(out_of_bounds(range.max), range.max_open, "{key} = {}", range.max);
            assert!(out_of_bounds(range.max + step), "{key} above {}", range.max);
        }
        checked += 1;
    }
    assert!(checked > 150, "{checked}");
}

#[test]
fn speed_of_the_csv_feed_is_one_and_the_hosts_follow_the_address() {
    let loaded = load(&Sources {
        overrides: pairs(&[("api.bind", "127.0.0.1:9000")]),
        ..file("[market]\nsource = \"csv\"\n[market.csv]\ndir = \"x\"\n")
    });
    let s = loaded.unwrap().settings;
    assert_eq!(s.runtime.speed, 1);
    assert_eq!(s.api.allowed_hosts, ["127.0.0.1:9000", "localhost:9000"]);
}

#[test]
fn fewer_symbols_need_no_other_change() {
    let loaded = good("symbols = [\"BTC/USDT\"]\n");
    assert_eq!(loaded.settings.portfolio.targets.len(), 2);
    assert!(loaded.warnings.iter().any(|w| w.contains("portfolio.targets.XRP is left out")), "{:?}", loaded.warnings);
}

#[test]
fn warnings_tell_of_the_feed_of_missing_correlations_and_of_limits_that_never_bind() {
    let text = "[risk]\ncorrelations = []\nmax_open_positions = 4\nmax_risk_per_trade_pct = 1.5\n";
    let warnings = good(text).warnings.join("\n");
    for words in [
        "simulated",
        "no correlation is set for BTC/USDT and XRP/BTC and 2 more pairs",
        "max_total_exposure_pct = 80 can never bind",
        "max_risk_per_trade_pct",
    ] {
        assert!(warnings.contains(words), "`{words}` is missing in:\n{warnings}");
    }
}

#[test]
fn the_defaults_say_that_prices_are_invented_and_warn_of_nothing_else() {
    let warnings = load(&Sources::default()).unwrap().warnings;
    assert_eq!(warnings, ["market.source is simulated: prices are invented, no market is watched"]);
    // Whoever touches one of the limits hears how they hide each other.
    for text in ["max_position_pct = 19", "max_risk_per_trade_pct = 3", "stop.max_distance_pct = 6"] {
        let warnings = good(&format!("[risk]\n{text}\n")).warnings;
        let told = warnings.iter().filter(|words| words.contains("max_risk_per_trade_pct")).count();
        assert_eq!(told, 1, "{text}: {warnings:?}");
    }
}

#[test]
fn the_epoch_changes_with_values_and_not_with_spelling_or_place() {
    let epoch = |text: &str| good(text).hash;
    let default = load(&Sources::default()).unwrap().hash;
    assert_eq!(default.len(), 64);
    assert_eq!(epoch("[risk]\nmax_position_pct = 20.0\n"), default);
    assert_eq!(epoch("data_dir = \"elsewhere\"\n[log]\nlevel = \"debug\"\n"), default);
    assert_ne!(epoch("[risk]\nmax_position_pct = 20.5\n"), default);
    let cassette = |text: &str| epoch(&format!("[cassette]\ndir = \"tape\"\n{text}\n"));
    assert_eq!(cassette("mode = \"record\"\nmax_usd = 9"), cassette("mode = \"replay\""), "a recording and its replay");
    assert_eq!(cassette(""), default);
    assert_ne!(cassette("mode = \"replay\""), default);
}

#[test]
fn every_default_has_a_row_and_every_row_a_default() {
    let mut patterns = BTreeSet::new();
    fn collect(node: &Node, path: &mut Vec<String>, patterns: &mut BTreeSet<String>) {
        match &node.raw {
            Raw::Table(names) => names.iter().for_each(|(name, node)| step(name, node, path, patterns)),
            Raw::List(elements) if elements.iter().any(|e| matches!(e.raw, Raw::Table(_))) => {
                elements.iter().enumerate().for_each(|(i, node)| step(&format!("[{i}]"), node, path, patterns));
            }
            _ => {
                let found = keys::find(path);
                let is_row = matches!(found, Some((keys::Shape::Leaf(_), _)));
                let empty_list = matches!(found, Some((keys::Shape::List(_), _)));
                assert!(is_row || empty_list, "{} has no row", dotted(path));
                patterns.extend(found.filter(|_| is_row).map(|(_, pattern)| pattern));
            }
        }
    }
    fn step(name: &str, node: &Node, path: &mut Vec<String>, patterns: &mut BTreeSet<String>) {
        path.push(name.to_owned());
        collect(node, path, patterns);
        path.pop();
    }
    collect(&layers::default_tree(), &mut Vec::new(), &mut patterns);
    // Providers and chains have no default: nobody is asked unless somebody wrote whom.
    // What an entry may leave out need not stand in the entries of the default.
    let absent = |path: &str| keys::OPTIONAL.contains(&path) && !patterns.contains(path);
    let open =
        |row: &&keys::Key| row.path.starts_with("providers.") || row.path.starts_with("chains.") || absent(row.path);
    let rows: BTreeSet<String> = keys::all().filter(|row| !open(row)).map(|row| row.path.to_owned()).collect();
    assert_eq!(rows.len(), keys::all().filter(|row| !open(row)).count(), "a row stands twice");
    assert_eq!(rows, patterns);
}

#[test]
fn a_new_symbol_needs_all_its_rules_and_then_works() {
    let text = "symbols = [\"BTC/USDT\", \"ETH/USDT\"]\n[market.symbol.\"ETH/USDT\"]\nmin_quantity = 0.001\n\
                price_decimals = 2\nquantity_decimals = 8\n[market.simulated.start_prices]\n\"ETH/USDT\" = 3000\n";
    let s = good(text).settings;
    assert_eq!(s.symbols.len(), 2);
    assert_eq!(s.market.symbol.len(), 4);
}

#[test]
fn the_document_is_the_generated_text() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == docs::render_docs(), "regenerate: `triplegain config docs > docs/configuration.md`");
}

#[test]
fn the_examples_load() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let answer = cli::check(&Sources { file: Some(path.clone()), ..Sources::default() });
        assert_eq!(answer.code, 0, "{}: {}", path.display(), answer.text);
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn what_show_prints_can_be_read_back() {
    let sources = file("seed = 7\n[portfolio.targets]\nBTC = 60\nUSDT = 40\n");
    let shown = cli::show(&sources, false);
    assert_eq!(shown.code, 0);
    assert!(shown.text.contains("\nseed = 7  # ") && shown.text.contains("my.toml:1\n"), "{}", shown.text);
    let (first, second) = (load(&sources).unwrap(), good(&shown.text));
    assert_eq!(second.settings, first.settings);
    assert_eq!(second.hash, first.hash);
    let as_json: serde_json::Value = serde_json::from_str(&cli::show(&sources, true).text).unwrap();
    assert_eq!(as_json["settings"]["seed"], 7);
    assert_eq!(as_json["origins"]["risk.max_leverage"], "default");
}

#[test]
fn explain_tells_one_key_a_section_or_the_nearest_key() {
    let one = cli::explain("tasks.technical_analysis.interval_seconds");
    assert_eq!(one.code, 0);
    assert!(one.text.contains("5..604800") && one.text.contains("technical_analysis 60"), "{}", one.text);
    assert!(cli::explain("market.symbol.\"BTC/USDT\".min_quantity").text.contains("0.0001"));
    assert!(cli::explain("risk.stop").text.matches("allowed:").count() >= 4);
    let deep = cli::explain("tasks.trading_decision.timout_seconds");
    assert!(deep.text.contains("did you mean `tasks.trading_decision.timeout_seconds`?"), "{}", deep.text);
    // A far key of another section is no help.
    let strange = cli::explain("risk.nope").text;
    assert!(strange.contains("`config explain risk` lists the keys") && !strange.contains("did you mean"), "{strange}");
    assert!(cli::explain("nope").text.contains("`config docs` lists all keys"));
    let unknown = cli::explain("risk.max_levrage");
    assert_eq!(unknown.code, 2);
    assert!(unknown.text.contains("did you mean `risk.max_leverage`?"), "{}", unknown.text);
}

#[test]
fn the_schema_knows_every_section_of_the_defaults() {
    let schema: serde_json::Value = serde_json::from_str(&cli::schema().text).unwrap();
    let table: toml::Table = DEFAULT_TOML.parse().unwrap();
    for section in table.keys() {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
    assert_eq!(schema["properties"]["risk"]["properties"]["max_leverage"]["maximum"], 5.0);
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let problems = load(&Sources { file: Some("no/such/file.toml".into()), ..Sources::default() }).unwrap_err();
    report(&problems, &[&["--config", "cannot read no/such/file.toml"]]);
}
