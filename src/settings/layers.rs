//! The four layers — embedded default, file, variables, options — as checked trees, and their merge.
//! Nothing here reads a file or the process environment.

use std::path::PathBuf;

use config::{Config, ConfigError, Map, Source, Value, ValueKind};

use super::{
    DEFAULT_TOML,
    check::{Checker, torn},
    keys::{self, Kind, Shape},
    problem::Problem,
    tree::{Node, Origin, Raw, dotted, steps},
};

/// Variables with this prefix are settings.
pub const ENV_PREFIX: &str = "TRIPLEGAIN__";

/// Everything that can say something about the configuration, weakest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// `--config FILE`
    pub file: Option<PathBuf>,
    /// Variables by name; those without [`ENV_PREFIX`] are ignored.
    pub env: Vec<(String, String)>,
    /// Options of the command line: key path and value.
    pub overrides: Vec<(String, String)>,
}

/// The embedded defaults as a tree.
pub fn default_tree() -> Node {
    Node::parse(DEFAULT_TOML, &|_| Origin::Default).unwrap_or_else(|_| Node::table(Origin::Default))
}

/// Checks every layer and merges what can be used. `text` is the configuration file, or why it cannot be read.
pub(super) fn merge(sources: &Sources, text: Option<Result<String, String>>, checker: &mut Checker) -> Node {
    let mut layers = vec![checker.layer(&default_tree())];
    let path = sources.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    match text {
        None => {}
        Some(Err(error)) => {
            let message = format!("cannot read {path}: {error}");
            checker.problems.push(torn(Origin::Flag("--config".to_owned()), message));
        }
        Some(Ok(text)) => match Node::parse(&text, &|line| Origin::File(line, path.clone())) {
            Ok(tree) => layers.push(checker.layer(&tree)),
            Err(errors) => checker.problems.extend(errors.into_iter().map(|error| {
                torn(Origin::File(error.line, path.clone()), format!("this is not valid TOML: {}", error.message))
            })),
        },
    }
    let env = environment(&sources.env, &mut checker.problems);
    layers.push(checker.layer(&env));
    let options = options(&sources.overrides, &mut checker.problems);
    layers.push(checker.layer(&options));
    for whole in keys::REPLACED_AS_A_WHOLE {
        forget_below(&mut layers, whole);
    }
    combine(layers)
}

/// Empties a map in all layers below the strongest one that writes it as a table.
fn forget_below(layers: &mut [Node], path: &str) {
    let names: Vec<String> = steps(path);
    // A single entry given by a variable or an option changes that entry only; its table carries the entry's origin,
    // so it is told apart by having been made on the way (see `insert`).
    let writes = |layer: &Node| {
        layer.get(&names).is_some_and(|node| match &node.raw {
            Raw::Table(entries) => match node.origin {
                Origin::Env(_) | Origin::Flag(_) => !entries.values().all(|e| is_single(&e.origin, path)),
                _ => true,
            },
            _ => false,
        })
    };
    if let Some(strongest) = layers.iter().rposition(writes) {
        let steps: Vec<&str> = path.split('.').collect();
        layers.iter_mut().take(strongest).for_each(|layer| layer.remove(&steps));
    }
}

/// Whether the origin names one entry below `path` rather than the map itself.
fn is_single(origin: &Origin, path: &str) -> bool {
    match origin {
        Origin::Env(name) => name.len() > ENV_PREFIX.len() + path.replace('.', "__").len(),
        Origin::Flag(name) => name.len() > path.len(),
        _ => false,
    }
}

/// A layer in the form the library takes.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Later layers win, value by value; lists are replaced.
fn combine(layers: Vec<Node>) -> Node {
    let mut builder = Config::builder();
    for layer in layers {
        if let ValueKind::Table(names) = layer.to_layer().kind {
            builder = builder.add_source(Layer(names));
        }
    }
    match builder.build() {
        Ok(merged) => Node::from_layer(merged.cache),
        // The layers are tables already, so nothing is left that can fail; the typed reading would report the loss.
        Err(_) => Node::table(Origin::Default),
    }
}

/// Variables as a tree.
fn environment(variables: &[(String, String)], problems: &mut Vec<Problem>) -> Node {
    let mut root = Node::table(Origin::Env(ENV_PREFIX.to_owned()));
    let ours = |(name, value): &'_ (String, String)| {
        Some((name.strip_prefix(ENV_PREFIX)?.to_owned(), name.clone(), value.clone()))
    };
    let mut named: Vec<_> = variables.iter().filter_map(ours).collect();
    named.sort();
    for (rest, name, value) in named {
        let written: Vec<&str> = rest.split("__").collect();
        insert(&mut root, &canonical(&written), &value, &Origin::Env(name), problems);
    }
    root
}

/// Options as a tree.
fn options(overrides: &[(String, String)], problems: &mut Vec<Problem>) -> Node {
    let mut root = Node::table(Origin::Flag(String::new()));
    for (path, value) in overrides {
        let name = match path.as_str() {
            "data_dir" => "--store",
            "api.bind" => "--listen",
            "runtime.speed" => "--speed",
            "seed" => "--seed",
            "symbols" => "--symbols",
            "market.csv.dir" => "--data",
            other => other,
        };
        insert(&mut root, &steps(path), value, &Origin::Flag(name.to_owned()), problems);
    }
    root
}

/// Adds one text value at a path, read by the type the key has.
fn insert(root: &mut Node, path: &[String], value: &str, origin: &Origin, problems: &mut Vec<Problem>) {
    let kind = match keys::find(path) {
        Some((Shape::Leaf(key), _)) => Some(&key.kind),
        _ => None,
    };
    let read = match kind {
        Some(kind) => typed(value, kind, origin),
        None => Node::parse_value(value, origin)
            .or_else(|error| if keys::find(path).is_some() { Err(error) } else { Ok(plain(value, origin)) }),
    };
    let placed =
        read.map_err(|error| format!("`{value}` is no TOML value: {error}")).and_then(|node| root.put(path, node));
    if let Err(message) = placed {
        let (key, given) = (dotted(path), String::new());
        problems.push(Problem { key, given, origin: origin.clone(), message });
    }
}

/// A text.
fn plain(value: &str, origin: &Origin) -> Node {
    Node { raw: Raw::Text(value.to_owned()), origin: origin.clone() }
}

/// The text read as the kind; when that fails it stays a text and the check reports the type.
fn typed(value: &str, kind: &Kind, origin: &Origin) -> Result<Node, String> {
    let trimmed = value.trim();
    let raw = match kind {
        Kind::Text(_) => None,
        Kind::Bool => trimmed.to_lowercase().parse().ok().map(Raw::Bool),
        Kind::Int(_) => trimmed.replace('_', "").parse().ok().map(Raw::Int),
        Kind::Num(_) => {
            let whole = trimmed.parse().ok().map(Raw::Int);
            whole.or_else(|| trimmed.parse().ok().map(Raw::Float))
        }
        Kind::List(..) if trimmed.starts_with('[') => return Node::parse_value(trimmed, origin),
        Kind::List(of, ..) => {
            let parts = trimmed.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(Raw::List(parts.map(|part| typed(part, of, origin)).collect::<Result<_, _>>()?))
        }
    };
    Ok(raw.map_or_else(|| plain(value, origin), |raw| Node { raw, origin: origin.clone() }))
}

/// The path a variable means: names in their own case; `BTC_USDT` stands for `BTC/USDT`.
fn canonical(written: &[&str]) -> Vec<String> {
    let mut at = Some(keys::shape());
    let mut path = Vec::new();
    for step in written {
        let lower = step.to_lowercase();
        let (name, below) = match at {
            Some(Shape::Table(names, wildcard)) => match (names.get(lower.as_str()), wildcard) {
                (Some(below), _) => (lower, Some(below)),
                (None, Some((kind, below))) => {
                    let name = match *kind {
                        "symbol" if !step.contains('/') => step.to_uppercase().replacen('_', "/", 1),
                        "symbol" | "asset" => step.to_uppercase(),
                        _ => lower,
                    };
                    (name, Some(below.as_ref()))
                }
                _ => (lower, None),
            },
            _ => (lower, None),
        };
        path.push(name);
        at = below;
    }
    path
}
