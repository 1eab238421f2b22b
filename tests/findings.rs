//! Holds docs/findings.md and docs/acceptance.md to the sources: every id has its row, every test a row names exists,
//! and every test whose name carries an id stands in the row of that id. `FINDINGS_WRITE=1` adds what is missing and follows
//! tests that moved; what is gone stays an error.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Test names by file, as `src/risk/view_tests.rs` or `tests/bus.rs`.
type Tests = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn function_name(line: &str) -> Option<&str> {
    let rest = line.split_once("fn ")?.1;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    rest.get(..end).filter(|name| !name.is_empty())
}

/// Functions under a test attribute, and the names a `scenarios!` list makes tests of.
fn tests_of(text: &str) -> BTreeSet<String> {
    let (mut found, mut attributed, mut listing) = (BTreeSet::new(), false, false);
    for line in text.lines().map(str::trim) {
        if listing {
            listing = line != "}";
            if listing {
                found.extend(line.split_whitespace().map(str::to_owned));
            }
        } else if line.starts_with("#[") || line.starts_with("//") {
            attributed |=
                ["#[test]", "::test", "#[rstest"].iter().any(|form| line.starts_with("#[") && line.contains(form));
        } else if let Some(name) = function_name(line) {
            if attributed {
                found.insert(name.to_owned());
            }
            attributed = false;
        } else if line == "scenarios! {" {
            listing = true;
        }
    }
    found
}

fn all_tests() -> Tests {
    let (root, mut paths) = (root(), Vec::new());
    for top in ["src", "tests"] {
        files(&root.join(top), &mut paths);
    }
    let named = |path: &PathBuf| {
        let short = path.strip_prefix(&root).unwrap().components().map(|part| part.as_os_str().to_str().unwrap());
        (short.collect::<Vec<_>>().join("/"), tests_of(&fs::read_to_string(path).unwrap()))
    };
    paths.iter().map(named).filter(|(_, tests)| !tests.is_empty()).collect()
}

/// `F04` of `f04`, when the word has the form of an id: F, D, A, R or E with two digits, A with three.
fn id_of(word: &str) -> Option<String> {
    let (kind, digits) = word.split_at_checked(1)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let known = match digits.len() {
        2 => "fdare".contains(kind),
        3 => kind == "a",
        _ => false,
    };
    (known && number).then(|| word.to_uppercase())
}

/// First cell of each row to the whole row.
fn rows(text: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let cell = line.strip_prefix("| ")?.split(" |").next()?;
        Some((cell.to_owned(), line.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

fn numbered(kind: char, last: u32, width: usize) -> impl Iterator<Item = String> {
    (1..=last).map(move |number| format!("{kind}{number:0width$}"))
}

/// What the document must have a row for.
fn ids(document: &str) -> Vec<String> {
    if document == "acceptance" {
        return numbered('A', 200, 3).collect();
    }
    let seen = "nautilus_trader 5023;nautilus_trader 4736, 3878;freqtrade 8328;freqtrade 4837;freqtrade 9675;freqtrade \
                4074;TradingAgents 1204;TradingAgents 515;TradingAgents 814;ai-hedge-fund 178;nofx 714;nofx \
                550;hummingbot 2534;Oban, apalis;APScheduler 351;tokio-cron-scheduler 113";
    [('F', 16), ('D', 55), ('A', 10), ('R', 18), ('E', 15)]
        .into_iter()
        .flat_map(|(kind, last)| numbered(kind, last, 2))
        .chain(seen.split(';').map(str::to_owned))
        .collect()
}

/// Everything wrong with a document.
fn problems(document: &str, text: &str, tests: &Tests) -> Vec<String> {
    let rows = rows(text);
    let mut found = Vec::new();
    for id in ids(document) {
        match rows.get(&id) {
            None => found.push(format!("{id} has no row")),
            Some(row) if !row.contains('`') && !row.contains("Not in this release") => {
                found.push(format!("{id} names neither a test nor `Not in this release`"));
            }
            Some(_) => {}
        }
    }
    for (line, text) in text.lines().enumerate() {
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some((file, name)) = quoted.split_once("::") else { continue };
            if file.ends_with(".rs") && !tests.get(file).is_some_and(|tests| tests.contains(name)) {
                found.push(format!("line {}: there is no test `{quoted}`", line + 1));
            }
        }
    }
    for (id, test) in missing(document, &rows, tests) {
        found.push(format!(
            "the row of {id} does not name `{test}`; FINDINGS_WRITE=1 cargo test --test findings adds it"
        ));
    }
    found
}

/// Tests that carry an id of the document without standing in its row.
fn missing(document: &str, rows: &BTreeMap<String, String>, tests: &Tests) -> Vec<(String, String)> {
    let known: BTreeSet<String> = ids(document).into_iter().collect();
    let mut found = Vec::new();
    for (file, names) in tests {
        for name in names {
            let carried: BTreeSet<String> = name.split('_').filter_map(id_of).filter(|id| known.contains(id)).collect();
            for id in carried {
                let test = format!("{file}::{name}");
                if !rows.get(&id).is_some_and(|row| row.contains(&format!("`{test}`"))) {
                    found.push((id, test));
                }
            }
        }
    }
    found
}

/// The text with the new place of tests that moved to another file under their name.
fn with_moved(text: &str, tests: &Tests) -> String {
    let parts = text.split('`').enumerate().map(|(place, part)| match part.split_once("::") {
        Some((file, name)) if place % 2 == 1 && !tests.get(file).is_some_and(|names| names.contains(name)) => {
            let mut homes = tests.iter().filter(|(_, names)| names.contains(name));
            match (homes.next(), homes.next()) {
                (Some((home, _)), None) => format!("{home}::{name}"),
                _ => part.to_owned(),
            }
        }
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

fn with_missing(document: &str, text: &str, tests: &Tests) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (id, test) in missing(document, &rows(text), tests) {
        let Some(row) = lines.iter_mut().find(|line| line.starts_with(&format!("| {id} |"))) else { continue };
        let body = row.trim_end_matches('|').trim_end();
        // A reason for having no test ends with the first test.
        let reason = if body.contains('`') { None } else { body.find("Not in this release") };
        let body = reason.map_or(body, |at| body[..at].trim_end());
        let gap = if body.ends_with('|') { " " } else { ", " };
        *row = format!("{body}{gap}`{test}` |");
    }
    lines.join("\n") + "\n"
}

fn check(document: &str) {
    let path = root().join(format!("docs/{document}.md"));
    let (text, tests) = (fs::read_to_string(&path).unwrap(), all_tests());
    if std::env::var_os("FINDINGS_WRITE").is_some() {
        fs::write(&path, with_missing(document, &with_moved(&text, &tests), &tests)).unwrap();
        return;
    }
    let problems = problems(document, &text, &tests);
    assert!(problems.is_empty(), "docs/{document}.md:\n{}", problems.join("\n"));
}

#[test]
fn every_known_failure_has_its_test() {
    check("findings");
}

#[test]
fn every_acceptance_scenario_has_its_test_or_its_reason() {
    check("acceptance");
}

#[test]
fn what_is_wrong_with_a_map_is_found() {
    let code = "#[test]\nfn a001_f01_start() {}\nfn a002_helper() {}\nscenarios! {\n    a003_list\n}\n";
    let tests = Tests::from([("tests/x.rs".to_owned(), tests_of(code))]);
    assert_eq!(tests["tests/x.rs"], BTreeSet::from(["a001_f01_start".to_owned(), "a003_list".to_owned()]));
    let text = "| A001 | `tests/x.rs::gone` |\n| A002 | later |\n| A003 | `tests/x.rs::a003_list` |\n";
    let found = problems("acceptance", text, &tests).join("\n");
    for expected in ["line 1: there is no test `tests/x.rs::gone`", "A002 names neither", "A004 has no row"] {
        assert!(found.contains(expected), "{expected} in {found}");
    }
    assert!(found.contains("the row of A001 does not name `tests/x.rs::a001_f01_start`"), "{found}");
    assert!(
        with_missing("acceptance", text, &tests)
            .contains("| A001 | `tests/x.rs::gone`, `tests/x.rs::a001_f01_start` |")
    );
    assert_eq!(with_moved("`src/old.rs::a003_list` `gone.rs::x`", &tests), "`tests/x.rs::a003_list` `gone.rs::x`");
    let reasoned = with_missing("acceptance", "| A001 | Not in this release: later. |\n", &tests);
    assert_eq!(reasoned, "| A001 | `tests/x.rs::a001_f01_start` |\n");
    let words = ["f04", "a05", "a118", "b5", "f004", "x01", "d1"].map(id_of);
    assert_eq!(words, [Some("F04".into()), Some("A05".into()), Some("A118".into()), None, None, None, None]);
}
