//! Sources in, validated settings out; or every problem at once.

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest, Sha256};

use super::{
    Settings,
    check::Checker,
    keys::{self, Shape},
    layers::{Sources, merge},
    problem::{Problem, Problems},
    resolve, rules,
    tree::{Node, Origin, Raw, dotted, steps},
};

/// A configuration the program may start with.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// Validated and complete: no "0 = computed" is left but those documented in `sections.rs`.
    pub settings: Settings,
    /// For people; nothing stops because of them.
    pub warnings: Vec<String>,
    /// SHA-256 of the effective settings in hex: the config epoch. Keys that say only where things live
    /// (`data_dir`, `market.csv.dir`, `cassette.dir`, `api.*`, `notify.*`, `log.*`) are left out, so that moving a store changes nothing;
    /// so is what a recording may cost, and a recording counts as its replay.
    pub hash: String,
    /// Source of every value by dotted key.
    pub origins: BTreeMap<String, String>,
    /// The effective values as a tree.
    pub tree: Node,
}

/// Keys that are no part of the config epoch.
const NOT_HASHED: [&str; 7] =
    ["data_dir", "api", "notify", "log", "market.csv.dir", "cassette.dir", "cassette.max_usd"];

/// Reads the file, if there is one, and checks, merges, resolves and judges the sources.
///
/// # Errors
/// All problems of all layers and all cross rules.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    // tidy: allow(pure) the one place where a settings file is read; `load_with` is the rule without it
    load_with(sources, &|path| std::fs::read_to_string(path).map_err(|error| error.to_string()))
}

/// [`load`] with a reader of its own; nothing else is touched.
///
/// # Errors
/// See [`load`].
pub fn load_with(sources: &Sources, read: &dyn Fn(&Path) -> Result<String, String>) -> Result<Loaded, Problems> {
    let mut checker = Checker::default();
    let mut tree = merge(sources, sources.file.as_deref().map(read), &mut checker);
    complete(&mut tree, &mut checker);
    let warnings = match typed(&tree) {
        Ok(mut settings) => {
            let notes = resolve::resolve(&mut settings, &mut tree);
            let mut judged = rules::judge(&settings, &tree, &checker.dropped);
            checker.problems.append(&mut judged.problems);
            judged.warnings.extend(notes);
            Some((settings, judged.warnings))
        }
        Err(problem) => {
            // With problems already found this one is only their echo.
            if checker.problems.is_empty() {
                checker.problems.push(problem);
            }
            None
        }
    };
    match warnings {
        Some((settings, warnings)) if checker.problems.is_empty() => {
            let leaves = tree.leaves();
            let origins = leaves.iter().map(|(path, node)| (dotted(path), node.origin.to_string())).collect();
            Ok(Loaded { settings, warnings, hash: hash(&tree), origins, tree })
        }
        _ => {
            checker.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
            checker.problems.dedup();
            Err(Problems(checker.problems))
        }
    }
}

/// Reports entries of open maps (a new symbol, a provider, a model) that lack keys, and takes them out.
fn complete(tree: &mut Node, checker: &mut Checker) {
    complete_entries(tree, &steps("market.symbol"), "symbol", checker);
    let providers = steps("providers");
    let names = match tree.get(&providers).map(|node| &node.raw) {
        Some(Raw::Table(entries)) => entries.keys().cloned().collect(),
        _ => Vec::new(),
    };
    for name in names {
        let models = [providers.clone(), vec![name, "models".to_owned()]].concat();
        complete_entries(tree, &models, "model", checker);
    }
    complete_entries(tree, &providers, "provider", checker);
}

/// The same for one map, whose names are of `kind`.
fn complete_entries(tree: &mut Node, path: &[String], kind: &str, checker: &mut Checker) {
    let Some((Shape::Table(_, Some((_, element))), pattern)) = keys::find(path) else {
        return;
    };
    let Some(Node { raw: Raw::Table(entries), .. }) = tree.get(path).cloned() else {
        return;
    };
    for (name, mut entry) in entries {
        // The merge gives tables no origin; the entry was written where its first written value was.
        let written =
            entry.leaves().into_iter().map(|(_, node)| node.origin.clone()).max_by_key(|o| *o != Origin::Default);
        entry.origin = written.unwrap_or(Origin::Default);
        let mut at = path.to_vec();
        at.push(name.clone());
        let before = checker.dropped.len();
        let entries_pattern = format!("{pattern}.<{kind}>");
        checker.missing(&entry, element, &entries_pattern, &mut at);
        let optional = |key: &str| keys::OPTIONAL.contains(&format!("{entries_pattern}.{key}").as_str());
        let whole = matches!((&entry.raw, element.as_ref()), (Raw::Table(given), Shape::Table(names, _))
            if names.keys().all(|key| given.contains_key(*key) || optional(key)));
        if checker.dropped.len() > before || !whole {
            checker.dropped.insert(dotted(&at));
            tree.remove(&at.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// The typed form of a checked tree.
fn typed(tree: &Node) -> Result<Settings, Problem> {
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let path = error.path().to_string();
        let node = tree.get(&steps(&path));
        Problem {
            given: node.map(ToString::to_string).unwrap_or_default(),
            origin: node.map_or(Origin::Default, |node| node.origin.clone()),
            key: path,
            message: error.into_inner().to_string(),
        }
    })
}

/// SHA-256 over one line per value, sorted by key; `5` and `5.0` are the same number.
fn hash(tree: &Node) -> String {
    let mut digest = Sha256::new();
    for (path, node) in tree.leaves() {
        let key = dotted(&path);
        let is_place =
            |place: &&str| key.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if NOT_HASHED.iter().any(is_place) {
            continue;
        }
        let mut value = canonical(node);
        // A recording and its replay decide the same: both are one configuration.
        if key == "cassette.mode" && value == "\"record\"" {
            value = "\"replay\"".to_owned();
        }
        digest.update(format!("{key}={value}\n"));
    }
    hex::encode(digest.finalize())
}

/// A text in which equal values look equal.
fn canonical(node: &Node) -> String {
    match &node.raw {
        Raw::Int(value) => value.to_string(),
        Raw::Float(value) => value.to_string(),
        Raw::List(elements) => format!("[{}]", elements.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Raw::Table(names) => {
            let parts: Vec<String> = names.iter().map(|(name, node)| format!("{name}={}", canonical(node))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Raw::Bool(_) | Raw::Text(_) => node.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::settings::DEFAULT_TOML;

    #[test]
    fn damaged_files_are_refused_or_loaded_but_never_a_panic() {
        let seed = 20_240_501;
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let sources = Sources { file: Some("x.toml".into()), ..Sources::default() };
        let tokens = ["-1", "[", "\"", "=", "\n", "true", "1e99", "{}", "nan", "99999999999999999999", "a.b", "[[x]]"];
        for round in 0..400 {
            let mut text: Vec<char> = DEFAULT_TOML.chars().collect();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..text.len());
                let length = random.random_range(0..6).min(text.len() - at);
                let token = tokens[random.random_range(0..tokens.len())];
                text.splice(at..at + length, token.chars());
            }
            let text: String = text.into_iter().collect();
            if let Err(problems) = load_with(&sources, &|_| Ok(text.clone())) {
                assert!(!problems.0.is_empty(), "round {round}");
                assert!(problems.to_string().contains("problem"));
            }
        }
    }

    #[test]
    fn two_loads_of_the_same_sources_are_equal() {
        assert_eq!(load(&Sources::default()), load(&Sources::default()));
    }
}
