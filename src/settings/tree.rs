//! The raw configuration as a tree that remembers where every value came from. It knows TOML, but no key.

use std::{collections::BTreeMap, fmt};

use config::{Map, Value, ValueKind};
use toml::de::{DeTable, DeValue};

/// Where a value came from; ordered by precedence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The embedded `config/default.toml`.
    Default,
    /// Line of a file, from 1.
    File(u32, String),
    /// An environment variable.
    Env(String),
    /// An option of the command line.
    Flag(String),
    /// Derived from other values by validation.
    Computed,
}

impl Origin {
    /// A text that [`Origin::decode`] turns back: the layering library carries origins as text.
    fn encode(&self) -> String {
        match self {
            Origin::Default => "d".to_owned(),
            Origin::File(line, path) => format!("f{line}:{path}"),
            Origin::Env(name) => format!("e{name}"),
            Origin::Flag(name) => format!("c{name}"),
            Origin::Computed => "x".to_owned(),
        }
    }

    /// See [`Origin::encode`].
    fn decode(text: &str) -> Origin {
        let rest = text.get(1..).unwrap_or_default();
        match text.get(..1) {
            Some("f") => {
                let (line, path) = rest.split_once(':').unwrap_or(("0", rest));
                Origin::File(line.parse().unwrap_or(0), path.to_owned())
            }
            Some("e") => Origin::Env(rest.to_owned()),
            Some("c") => Origin::Flag(rest.to_owned()),
            Some("x") => Origin::Computed,
            _ => Origin::Default,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(line, path) => write!(f, "{path}:{line}"),
            Origin::Env(name) => write!(f, "variable {name}"),
            Origin::Flag(name) => write!(f, "option {name}"),
            Origin::Computed => f.write_str("computed"),
        }
    }
}

/// A value without its origin.
#[derive(Clone, PartialEq, Debug)]
pub enum Raw {
    /// true or false
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Node>),
}

/// A value with its origin.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The value.
    pub raw: Raw,
    /// Where it came from.
    pub origin: Origin,
}

/// A TOML text that is no TOML: line and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// From 1.
    pub line: u32,
    /// For people.
    pub message: String,
}

impl Node {
    /// An empty table.
    pub fn table(origin: Origin) -> Node {
        Node { raw: Raw::Table(BTreeMap::new()), origin }
    }

    /// Reads a TOML document; `origin` gets the line of each key.
    ///
    /// # Errors
    /// Every syntax error with its line.
    pub fn parse(text: &str, origin: &dyn Fn(u32) -> Origin) -> Result<Node, Vec<Torn>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
            let lines = Lines { breaks, origin };
            return Ok(Node { raw: lines.table(document.into_inner()), origin: origin(1) });
        }
        let torn = |error: &toml::de::Error| Torn {
            line: line_of(text, error.span().map_or(text.len(), |span| span.start)),
            message: error.message().replace('\n', ", "),
        };
        Err(errors.iter().map(torn).collect())
    }

    /// Reads one TOML value, for variables and options.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_value(text: &str, origin: &Origin) -> Result<Node, String> {
        let document = format!("v = {text}");
        let parsed = Node::parse(&document, &|_| origin.clone());
        let table = parsed.map_err(|torn| torn.first().map(|t| t.message.clone()).unwrap_or_default())?;
        match table.raw {
            Raw::Table(mut names) if names.len() == 1 => names.remove("v").ok_or_else(|| "no value".to_owned()),
            _ => Err("more than one value".to_owned()),
        }
    }

    /// The node below, name by name; list elements are named `[0]`.
    pub fn get(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match &node.raw {
            Raw::Table(names) => names.get(step),
            Raw::List(elements) => elements.get(step.trim_matches(['[', ']']).parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Puts a node at a path, making tables on the way.
    ///
    /// # Errors
    /// The value that stands in the way is no table.
    pub fn put(&mut self, path: &[String], node: Node) -> Result<(), String> {
        let Raw::Table(names) = &mut self.raw else {
            return Err(format!("`{self}` ({}) is in the way", self.origin));
        };
        match path {
            [] => Err("the path is empty".to_owned()),
            [last] => {
                names.insert(last.clone(), node);
                Ok(())
            }
            [first, rest @ ..] => {
                let origin = node.origin.clone();
                names.entry(first.clone()).or_insert_with(|| Node::table(origin)).put(rest, node)
            }
        }
    }

    /// Removes the node at a path, if there is one.
    pub fn remove(&mut self, path: &[&str]) {
        if let (Raw::Table(names), [first, rest @ ..]) = (&mut self.raw, path) {
            match (rest.is_empty(), names.get_mut(*first)) {
                (true, _) => drop(names.remove(*first)),
                (false, Some(below)) => below.remove(rest),
                (false, None) => {}
            }
        }
    }

    /// Every value with its path; a list counts as one value, an empty table as none.
    pub fn leaves(&self) -> Vec<(Vec<String>, &Node)> {
        let mut found = Vec::new();
        self.collect_leaves(&mut Vec::new(), &mut found);
        found
    }

    fn collect_leaves<'a>(&'a self, at: &mut Vec<String>, found: &mut Vec<(Vec<String>, &'a Node)>) {
        match &self.raw {
            Raw::Table(names) => {
                for (name, node) in names {
                    at.push(name.clone());
                    node.collect_leaves(at, found);
                    at.pop();
                }
            }
            _ => found.push((at.clone(), self)),
        }
    }

    /// The value as JSON, for typed reading.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.raw {
            Raw::Bool(value) => (*value).into(),
            Raw::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Raw::Float(value) => (*value).into(),
            Raw::Text(value) => value.as_str().into(),
            Raw::List(elements) => elements.iter().map(Node::to_json).collect(),
            Raw::Table(names) => names.iter().map(|(name, node)| (name.clone(), node.to_json())).collect(),
        }
    }

    /// The form the layering library merges.
    pub fn to_layer(&self) -> Value {
        let origin = self.origin.encode();
        let kind = match &self.raw {
            Raw::Bool(value) => ValueKind::Boolean(*value),
            Raw::Int(value) => ValueKind::I128(*value),
            Raw::Float(value) => ValueKind::Float(*value),
            Raw::Text(value) => ValueKind::String(value.clone()),
            Raw::List(elements) => ValueKind::Array(elements.iter().map(Node::to_layer).collect()),
            Raw::Table(names) => ValueKind::Table(
                names.iter().map(|(name, node)| (name.clone(), node.to_layer())).collect::<Map<_, _>>(),
            ),
        };
        Value::new(Some(&origin), kind)
    }

    /// Back from [`Node::to_layer`]; names are sorted again.
    pub fn from_layer(value: Value) -> Node {
        let origin = value.origin().map_or(Origin::Default, Origin::decode);
        let raw = match value.kind {
            ValueKind::Nil => Raw::Table(BTreeMap::new()),
            ValueKind::Boolean(value) => Raw::Bool(value),
            ValueKind::I64(value) => Raw::Int(value.into()),
            ValueKind::I128(value) => Raw::Int(value),
            ValueKind::U64(value) => Raw::Int(value.into()),
            ValueKind::U128(value) => Raw::Int(i128::try_from(value).unwrap_or(i128::MAX)),
            ValueKind::Float(value) => Raw::Float(value),
            ValueKind::String(value) => Raw::Text(value),
            ValueKind::Array(elements) => Raw::List(elements.into_iter().map(Node::from_layer).collect()),
            ValueKind::Table(names) => {
                Raw::Table(names.into_iter().map(|(name, value)| (name, Node::from_layer(value))).collect())
            }
        };
        Node { raw, origin }
    }
}

/// TOML text of the value, on one line.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.raw {
            Raw::Bool(value) => value.fmt(f),
            Raw::Int(value) => value.fmt(f),
            Raw::Float(value) if value.is_finite() => write!(f, "{value:?}"),
            Raw::Float(value) => f.write_str(&value.to_string().to_lowercase()),
            Raw::Text(value) => f.write_str(&quoted(value)),
            Raw::List(elements) => {
                f.write_str("[")?;
                for (i, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Raw::Table(names) => {
                f.write_str("{ ")?;
                for (i, (name, node)) in names.iter().enumerate() {
                    write!(f, "{}{} = {node}", if i == 0 { "" } else { ", " }, quoted_name(name))?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Turns spans into lines while a document becomes a tree.
struct Lines<'a> {
    /// Positions of the line breaks; a document has hundreds of keys, so they are searched and not counted.
    breaks: Vec<usize>,
    origin: &'a dyn Fn(u32) -> Origin,
}

impl Lines<'_> {
    /// Line of a byte position, from 1.
    fn line(&self, at: usize) -> u32 {
        self.breaks.partition_point(|end| *end < at) as u32 + 1
    }

    fn table(&self, table: DeTable<'_>) -> Raw {
        let entry = |(name, value): (toml::Spanned<std::borrow::Cow<'_, str>>, toml::Spanned<DeValue<'_>>)| {
            let line = self.line(name.span().start);
            (name.into_inner().into_owned(), self.node(value, line))
        };
        Raw::Table(table.into_iter().map(entry).collect())
    }

    fn node(&self, value: toml::Spanned<DeValue<'_>>, line: u32) -> Node {
        let raw = match value.into_inner() {
            DeValue::String(text) => Raw::Text(text.into_owned()),
            DeValue::Boolean(value) => Raw::Bool(value),
            DeValue::Datetime(value) => Raw::Text(value.to_string()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => Raw::Int(value),
                Err(_) => Raw::Text(number.as_str().to_owned()),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(value) => Raw::Float(value),
                Err(_) => Raw::Text(number.as_str().to_owned()),
            },
            DeValue::Table(table) => self.table(table),
            DeValue::Array(elements) => {
                let element = |value: toml::Spanned<DeValue<'_>>| {
                    let line = self.line(value.span().start);
                    self.node(value, line)
                };
                Raw::List(elements.into_iter().map(element).collect())
            }
        };
        Node { raw, origin: (self.origin)(line) }
    }
}

/// Line of a byte position, from 1.
fn line_of(text: &str, at: usize) -> u32 {
    let before = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
    before.iter().fold(1, |line, byte| line + u32::from(*byte == b'\n'))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A name as it stands in a path: quoted only when TOML wants it.
pub fn quoted_name(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let plain = !name.is_empty() && name.bytes().all(bare);
    if plain { name.to_owned() } else { format!("\"{}\"", name.escape_default()) }
}

/// The dotted text of a path; list elements follow their list without a dot.
pub fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if step.starts_with('[') {
            text.push_str(step);
            continue;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&quoted_name(step));
    }
    text
}

/// The steps of a dotted text; quotes protect dots.
pub fn steps(text: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '"' => inside = !inside,
            '.' if !inside => path.push(String::new()),
            '[' if !inside => path.push("[".to_owned()),
            _ => {
                if let Some(last) = path.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node {
        Node::parse(text, &|line| Origin::File(line, "x.toml".to_owned())).unwrap()
    }

    #[test]
    fn every_value_knows_its_line() {
        let node = parse("a = 1\n\n[b.\"C/D\"]\ne = [\n  2,\n  3,\n]\n");
        let at = |path: &str| node.get(&steps(path)).map(|n| n.origin.to_string()).unwrap();
        assert_eq!(at("a"), "x.toml:1");
        assert_eq!(at("b.\"C/D\".e"), "x.toml:4");
        assert_eq!(at("b.\"C/D\".e[1]"), "x.toml:6");
    }

    #[test]
    fn the_layering_form_keeps_values_and_origins() {
        let node = parse("a = 1\nb = 2.5\nc = \"x\"\nd = [true]\ne = {f = 18446744073709551615}\n");
        assert_eq!(Node::from_layer(node.to_layer()), node);
    }

    #[test]
    fn torn_text_names_the_line() {
        let torn = Node::parse("a = 1\nb = [1,\n", &|_| Origin::Default).unwrap_err();
        assert!(torn.iter().all(|t| t.line >= 2), "{torn:?}");
    }

    #[test]
    fn paths_are_written_and_read_back() {
        for text in ["a.b", "market.symbol.\"BTC/USDT\".min_quantity", "risk.correlations[2].rho"] {
            assert_eq!(dotted(&steps(text)), text);
        }
    }
}
