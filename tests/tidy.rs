//! Reads the sources and holds them to the invariants of architecture.md that a compiler does not check.
//!
//! An exception is a comment `tidy: allow(RULE) reason`: in the head of a file (before its first code) it covers the
//! file, elsewhere its own line and the next one. Without a reason it is itself a finding.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const RULES: [&str; 9] = ["pure", "order", "do_send", "spawn", "hash", "length", "header", "ignore", "marker"];
const LENGTH_MAX: usize = 500;

/// A source file with its comments, strings and tests told apart.
struct Source {
    path: String,
    raw: Vec<String>,
    /// Per line: code without comments and string contents; empty inside tests.
    code: Vec<String>,
    /// The whole file is a test.
    is_test: bool,
}

/// Code of one line: comments cut off, contents of strings blanked. Enough for names; not a parser.
fn code_of(line: &str) -> String {
    let (mut out, mut chars, mut quoted) = (String::new(), line.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => drop(chars.next()),
            '\'' if !quoted && chars.peek() == Some(&'"') => drop((chars.next(), chars.next())),
            '"' => {
                quoted = !quoted;
                out.push('"');
            }
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => out.push(c),
        }
    }
    out
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Blanks every item under `#[cfg(test)]`: up to its `;`, or to the closing brace at the same indentation.
fn without_tests(mut code: Vec<String>) -> Vec<String> {
    let mut at = 0;
    while at < code.len() {
        if !code[at].trim_start().starts_with("#[cfg(test)]") {
            at += 1;
            continue;
        }
        let depth = indent(&code[at]);
        let mut opened = false;
        while at < code.len() {
            let line = std::mem::take(&mut code[at]);
            let text = line.trim();
            at += 1;
            opened |= text.ends_with('{');
            let closes = opened && indent(&line) == depth && text.starts_with('}');
            if closes || (!opened && text.ends_with(';')) {
                break;
            }
        }
    }
    code
}

impl Source {
    fn new(path: &str, text: &str, is_test: bool) -> Source {
        let raw: Vec<String> = text.lines().map(str::to_owned).collect();
        let code: Vec<String> = raw.iter().map(|line| code_of(line)).collect();
        let code = if is_test { vec![String::new(); raw.len()] } else { without_tests(code) };
        Source { path: path.to_owned(), raw, code, is_test }
    }

    /// Top-level module: `risk` of `src/risk/rules.rs` and of `src/risk.rs`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    fn is_actor(&self) -> bool {
        self.path.ends_with("/actor.rs") || self.path.contains("/actor/")
    }

    /// Whether a marker with a reason excuses `rule` at `line` (from 0).
    fn allows(&self, rule: &str, line: usize) -> bool {
        let head = self.raw.iter().take_while(|line| line.trim().is_empty() || line.starts_with("//")).count();
        let excuses = |text: &String| matches!(marker(text), Some((of, reason)) if of == rule && !reason.is_empty());
        self.raw[..head].iter().any(excuses)
            || self.raw.get(line).is_some_and(excuses)
            || line.checked_sub(1).and_then(|above| self.raw.get(above)).is_some_and(excuses)
    }

    fn finding(&self, rule: &str, line: usize, what: &str) -> Option<String> {
        let (path, number) = (&self.path, line + 1);
        (!self.allows(rule, line)).then(|| format!("{path}:{number}: [{rule}] {what}"))
    }

    /// `use` statements joined to one line each, with the line they begin at.
    fn imports(&self) -> Vec<(usize, String)> {
        let (mut found, mut open) = (Vec::new(), None::<(usize, String)>);
        for (number, line) in self.code.iter().enumerate() {
            let text = line.trim();
            if open.is_none() && (text.starts_with("use ") || text.starts_with("pub use ")) {
                open = Some((number, String::new()));
            }
            if let Some((_, joined)) = &mut open {
                joined.push_str(text);
                joined.push(' ');
                if text.contains(';') {
                    found.extend(open.take());
                }
            }
        }
        found
    }
}

/// The rule and the reason of a marker comment.
fn marker(line: &str) -> Option<(&str, &str)> {
    let text = line.split_once("// tidy: allow(")?.1;
    let (rule, reason) = text.split_once(')')?;
    Some((rule, reason.trim()))
}

/// Identifiers of a piece of code.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What follows each `prefix` that is not the tail of a longer name.
fn after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        (!before.is_some_and(|c| c.is_alphanumeric() || c == '_')).then(|| &code[at + prefix.len()..])
    })
}

// ---- invariant 1

fn is_shell(source: &Source) -> bool {
    source.is_actor()
        || matches!(source.module(), "runtime" | "store" | "api" | "cli" | "main")
        || source.path.starts_with("src/bin/")
}

fn forbidden_name(source: &Source, code: &str) -> Option<&'static str> {
    let named = |name: &str| words(code).any(|word| word == name);
    if named("actix") || named("actix_rt") || named("actix_web") {
        return Some("names actix");
    }
    if named("tokio") {
        return Some("names tokio");
    }
    if named("Instant") || named("SystemTime") {
        return Some("reads a clock (Instant or SystemTime)");
    }
    if code.contains("Utc::now") || code.contains("Local::now") {
        return Some("reads the wall clock");
    }
    let traits = ["Rng", "RngCore", "SeedableRng"];
    let unseeded = |rest: &str| {
        let end = rest.find([';', '(', '>']).unwrap_or(rest.len());
        words(&rest[..end]).next().is_some_and(|first| !traits.contains(&first)) || {
            rest.starts_with('{') && words(&rest[..end]).any(|word| !traits.contains(&word))
        }
    };
    if after(code, "rand::").any(unseeded) || named("thread_rng") || named("OsRng") || named("from_os_rng") {
        return Some("draws random numbers that are not seeded");
    }
    let files = code.contains("std::fs") || (code.contains("use std::{") && named("fs"));
    if files && !source.path.starts_with("src/market/feed/") {
        return Some("touches files");
    }
    let net = code.contains("std::net") || (code.contains("use std::{") && named("net"));
    net.then_some("touches the network")
}

fn check_pure(source: &Source, findings: &mut Vec<String>) {
    if is_shell(source) {
        return;
    }
    let imports = source.imports().into_iter();
    let lines = source.code.iter().cloned().enumerate();
    let mut seen = BTreeSet::new();
    for (line, code) in imports.chain(lines) {
        let Some(what) = forbidden_name(source, &code) else { continue };
        if seen.insert(line) {
            let advice =
                "pure modules take `now` and values as arguments; move the effect into an actor or the runtime";
            findings.extend(source.finding("pure", line, &format!("{what}; {advice}")));
        }
    }
}

// ---- invariant 2

/// Which top-level modules each module may name, besides itself.
fn allowed(source: &Source) -> Option<BTreeSet<&'static str>> {
    let base = ["model", "settings"];
    let leaves = ["market", "risk", "execution", "providers", "llm", "bus", "store"];
    let mut may: BTreeSet<&str> = BTreeSet::new();
    match source.module() {
        "model" => {}
        "settings" => may.extend(["model"]),
        "market" | "risk" | "providers" | "bus" | "store" | "runtime" => may.extend(base),
        "llm" => may.extend(["model", "settings", "providers"]),
        "execution" => may.extend(["model", "settings", "risk"]),
        "agents" => may.extend(base.iter().chain(&leaves)),
        "coordinator" => may.extend(base.iter().chain(&leaves).chain(&["agents"])),
        "api" | "cli" | "main" | "lib" => {
            may.extend(base.iter().chain(&leaves).chain(&["agents", "coordinator", "api", "cli", "runtime"]));
        }
        _ => return None,
    }
    if is_shell(source) {
        may.insert("runtime");
    }
    // An actor publishes and commits; the rules beside it do not.
    if source.is_actor() && matches!(source.module(), "market" | "risk" | "execution" | "llm") {
        may.extend(["bus", "store"]);
    }
    Some(may)
}

/// First path segments of `crate::a::…` and of `crate::{a::…, b}`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in after(code, "crate::") {
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        let (mut depth, mut first) = (0, true);
        let mut name = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                c if depth == 0 && first && (c.is_alphanumeric() || c == '_') => name.push(c),
                _ if !name.is_empty() => {
                    found.push(std::mem::take(&mut name));
                    first = false;
                }
                _ => {}
            }
        }
        found.extend((!name.is_empty()).then_some(name));
    }
    found
}

fn check_order(source: &Source, modules: &BTreeSet<String>, findings: &mut Vec<String>) {
    let Some(may) = allowed(source) else {
        let what =
            format!("module `{}` has no place in the order; add it to architecture.md and here", source.module());
        findings.extend(source.finding("order", 0, &what));
        return;
    };
    let mut seen = BTreeSet::new();
    let in_use: Vec<(usize, String)> = source.imports();
    for (line, code) in in_use.into_iter().chain(source.code.iter().cloned().enumerate()) {
        for name in crate_paths(&code) {
            let foreign = modules.contains(&name) && name != source.module() && !may.contains(name.as_str());
            if foreign && seen.insert((line, name.clone())) {
                let what = format!(
                    "`{}` may not use `{name}`: the order is model, settings, (market, risk, execution, llm, bus, store), \
                     agents, coordinator, (api, cli); move the shared value down or pass it as an argument",
                    source.module()
                );
                findings.extend(source.finding("order", line, &what));
            }
        }
    }
}

// ---- invariants 3 and 10, and the form of files

fn check_lines(source: &Source, findings: &mut Vec<String>) {
    let may_send = matches!(source.module(), "bus" | "runtime") || source.path == "src/store/actor.rs";
    for (line, code) in source.code.iter().enumerate() {
        if !may_send && words(code).any(|word| word == "do_send") {
            let what = "do_send ignores the mailbox and drops in silence; use runtime::post, where drops are counted";
            findings.extend(source.finding("do_send", line, what));
        }
        let spawns = ["actix_rt::spawn(", "actix::spawn(", "tokio::spawn(", "task::spawn(", "spawn_local("];
        if source.module() != "runtime" && spawns.iter().any(|name| code.contains(name)) {
            let what =
                "a panic in there is noticed by nobody; use runtime::task::guarded, or owned and keep the handle";
            findings.extend(source.finding("spawn", line, what));
        }
        if let Some(word) = words(code).find(|word| matches!(*word, "HashMap" | "HashSet")) {
            let what =
                format!("{word} has no order; use BTreeMap, BTreeSet or Vec, or say why nobody can see its order");
            findings.extend(source.finding("hash", line, &what));
        }
    }
}

fn check_form(source: &Source, findings: &mut Vec<String>) {
    if !source.raw.first().is_some_and(|line| line.starts_with("//!")) {
        let what = "a file opens with `//!` saying what it is and what it never does";
        findings.extend(source.finding("header", 0, what));
    }
    let lines = source.raw.len();
    if lines > LENGTH_MAX {
        let what = format!("{lines} lines; the limit is {LENGTH_MAX}: look for the seam and split");
        findings.extend(source.finding("length", LENGTH_MAX, &what));
    }
    // Spelled in pieces, so that this file does not find itself.
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("unimpl", "emented!")];
    for (line, text) in source.raw.iter().enumerate() {
        if text.contains(concat!("#[ig", "nore")) {
            findings.extend(source.finding(
                "ignore",
                line,
                "a test that is not run proves nothing; repair or remove it",
            ));
        }
        if let Some(mark) = unfinished.iter().find(|mark| text.contains(**mark)) {
            findings.extend(source.finding("marker", line, &format!("`{mark}`: finish it or say so in the docs")));
        }
        if let Some((rule, reason)) = marker(text).filter(|_| source.path != "tests/tidy.rs") {
            let known = RULES.contains(&rule);
            if !known || reason.is_empty() {
                let number = line + 1;
                let need = if known { "give the reason after the parenthesis" } else { "there is no such rule" };
                findings.push(format!("{}:{number}: [marker] tidy: allow({rule}): {need}", source.path));
            }
        }
    }
}

// ---- the files

fn collect(folder: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let inside = format!("{prefix}/{name}");
        if path.is_dir() {
            collect(&path, &inside, into);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{inside}: {error}"));
            into.insert(inside, text);
        }
    }
}

/// Files of `src` that are test modules: declared under `#[cfg(test)]` with a path, or by their name.
fn test_files(files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in files {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("#[cfg(test)]"));
        for line in lines {
            if line.starts_with("#[cfg(test)]") {
                continue;
            }
            if let Some(name) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                found.insert(format!("{folder}/{name}"));
            }
        }
        if path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/") {
            found.insert(path.clone());
        }
    }
    found
}

fn check_all(files: &BTreeMap<String, String>) -> Vec<String> {
    let tests = test_files(files);
    let is_test = |path: &str| !path.starts_with("src/") || tests.contains(path);
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text, is_test(path))).collect();
    let modules: BTreeSet<String> = sources
        .iter()
        .filter(|source| source.path.starts_with("src/"))
        .map(|source| source.module().to_owned())
        .filter(|module| module != "lib" && module != "main")
        .collect();
    let mut findings = Vec::new();
    for source in &sources {
        check_form(source, &mut findings);
        if !source.is_test {
            check_pure(source, &mut findings);
            check_order(source, &modules, &mut findings);
            check_lines(source, &mut findings);
        }
    }
    findings
}

#[test]
fn the_sources_keep_the_invariants_of_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    for folder in ["src", "tests", "benches"] {
        collect(&root.join(folder), folder, &mut files);
    }
    assert!(files.contains_key("src/lib.rs"), "the sources were not found under {}", root.display());
    let findings = check_all(&files);
    assert!(findings.is_empty(), "{} findings\n{}\n", findings.len(), findings.join("\n"));
}

/// Findings of one file beside one file of every module.
fn findings_of(path: &str, text: &str) -> Vec<String> {
    let mut files = BTreeMap::new();
    for module in
        ["model", "settings", "risk", "market", "execution", "bus", "store", "agents", "coordinator", "runtime"]
    {
        files.insert(format!("src/{module}/mod.rs"), "//! x".to_owned());
    }
    files.insert(path.to_owned(), format!("//! x\n{text}"));
    check_all(&files)
}

#[track_caller]
fn finds(path: &str, text: &str, rule: &str) {
    let findings = findings_of(path, text);
    assert!(findings.len() == 1 && findings[0].contains(&format!("[{rule}]")), "{path}: {text}\n{findings:?}");
}

#[track_caller]
fn accepts(path: &str, text: &str) {
    let findings = findings_of(path, text);
    assert!(findings.is_empty(), "{path}: {text}\n{findings:?}");
}

#[test]
fn invariant_1_names_are_found_in_pure_modules_only() {
    for bad in [
        "use actix::prelude::*;",
        "use std::{\n    fs,\n    sync::Arc,\n};",
        "fn f() { std::fs::read(p); }",
        "use std::time::{Duration, Instant};",
        "let now = chrono::Utc::now();",
        "use rand::random;",
        "let x: u8 = rand::rng().random();",
        "tokio::select! {}",
        "use std::net::TcpStream;",
    ] {
        finds("src/risk/rules.rs", bad, "pure");
        accepts("src/runtime/x.rs", bad);
        accepts("src/risk/actor.rs", bad);
        accepts("src/risk/rules.rs", &format!("#[cfg(test)]\nmod tests {{\n    {bad}\n}}"));
    }
    accepts("src/risk/rules.rs", "use rand::{Rng, SeedableRng};\nuse rand_chacha::ChaCha8Rng;");
    accepts("src/risk/rules.rs", "// actix and tokio in a comment\nlet s = \"tokio\";");
    accepts("src/market/feed/csv.rs", "use std::fs;");
    finds("src/market/feed/csv.rs", "use tokio::time;", "pure");
    finds("src/risk/rules.rs", "#[cfg(test)]\nuse tokio::time;\nuse actix::Addr;", "pure");
}

#[test]
fn invariant_2_order_is_read_from_single_and_grouped_paths() {
    finds("src/model/x.rs", "use crate::settings::Settings;", "order");
    finds("src/risk/rules.rs", "use crate::{\n    model::{Ts, Symbol},\n    coordinator::Slot,\n};", "order");
    finds("src/risk/rules.rs", "fn f() -> crate::execution::Fill {}", "order");
    finds("src/risk/rules.rs", "use crate::runtime::clock::LogicalClock;", "order");
    finds("src/bus/actor.rs", "use crate::store::actor::Store;", "order");
    finds("src/sundry/x.rs", "", "order");
    accepts("src/execution/book.rs", "use crate::{model::Ts, risk::rules, settings::sections};");
    accepts("src/risk/actor.rs", "use crate::{bus::actor::Publish, runtime::post::post, store::actor::Commit};");
    accepts("src/coordinator/x.rs", "use crate::agents::Agent;");
}

#[test]
fn invariants_3_and_10_and_the_form_are_found_and_excused_with_a_reason_only() {
    finds("src/coordinator/actor.rs", "addr.do_send(Tick);", "do_send");
    finds("src/cli/system.rs", "actix_rt::spawn(async {});", "spawn");
    accepts("src/runtime/task.rs", "actix_rt::spawn(async {});");
    accepts("src/store/actor.rs", "addr.do_send(Tick);");
    finds("src/risk/rules.rs", "use std::collections::HashMap;", "hash");
    accepts("src/risk/rules.rs", "// tidy: allow(hash) only looked up by key\nlet m: HashMap<u8, u8>;");
    let without_reason = findings_of("src/risk/rules.rs", "fn f() {}\nlet m: HashMap<u8, u8>; // tidy: allow(hash)");
    assert_eq!(without_reason.len(), 2, "{without_reason:?}");
    finds("src/risk/rules.rs", "// tidy: allow(everything) because", "marker");
    finds("src/risk/rules.rs", &"\n".repeat(LENGTH_MAX), "length");
    accepts("src/risk/rules.rs", &format!("// tidy: allow(length) one list{}", "\n".repeat(LENGTH_MAX)));
    finds("src/risk/rules.rs", concat!("// TO", "DO later"), "marker");
    finds("tests/x.rs", concat!("#[ig", "nore]"), "ignore");
    let mut files = BTreeMap::new();
    files.insert("src/lib.rs".to_owned(), "fn f() {}".to_owned());
    assert!(check_all(&files)[0].starts_with("src/lib.rs:1: [header]"));
}
