//! Checks one layer against the list of keys: unknown names, wrong types, values out of bounds. Rules that look at
//! more than one key are in `rules.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    keys::{self, Form, Key, Kind, Shape},
    problem::Problem,
    tree::{Node, Origin, Raw, dotted},
};

/// Collects problems while a tree is walked.
#[derive(Default)]
pub(super) struct Checker {
    /// What was found.
    pub problems: Vec<Problem>,
    /// Keys whose value was dropped; rules that need them are not judged.
    pub dropped: BTreeSet<String>,
}

impl Checker {
    /// The part of a layer that can be merged; everything else becomes problems.
    pub fn layer(&mut self, node: &Node) -> Node {
        self.walk(node, keys::shape(), &mut Vec::new()).unwrap_or_else(|| Node::table(node.origin.clone()))
    }

    fn problem(&mut self, path: &[String], node: &Node, message: String) {
        let given = match &node.raw {
            Raw::Table(_) => String::new(),
            _ => node.to_string(),
        };
        self.problems.push(Problem { key: dotted(path), given, origin: node.origin.clone(), message });
    }

    fn drop_value(&mut self, path: &[String], node: &Node, message: String) {
        self.dropped.insert(dotted(path));
        self.problem(path, node, message);
    }

    fn walk(&mut self, node: &Node, shape: &Shape, path: &mut Vec<String>) -> Option<Node> {
        match (shape, &node.raw) {
            (Shape::Leaf(key), _) => self.value(node, key, path).then(|| node.clone()),
            (Shape::Table(names, wildcard), Raw::Table(entries)) => {
                let mut kept = BTreeMap::new();
                for (name, entry) in entries {
                    path.push(name.clone());
                    let below = match (names.get(name.as_str()), wildcard) {
                        (Some(below), _) => Some(below),
                        (None, Some((kind, below))) => match keys::wrong_name(kind, name) {
                            None => Some(below.as_ref()),
                            Some(why) => {
                                self.wrong_name(path, entry, &why, &keys::names_of(kind));
                                None
                            }
                        },
                        (None, None) => {
                            self.unknown(path, entry, names.keys().copied());
                            None
                        }
                    };
                    if let Some(good) = below.and_then(|below| self.walk(entry, below, path)) {
                        kept.insert(name.clone(), good);
                    }
                    path.pop();
                }
                Some(Node { raw: Raw::Table(kept), origin: node.origin.clone() })
            }
            (Shape::Table(..), _) => {
                self.drop_value(path, node, "must be a table of keys".to_owned());
                None
            }
            (Shape::List(element), Raw::List(entries)) => self.list_of_tables(node, entries, element, path),
            (Shape::List(_), _) => {
                self.drop_value(path, node, "must be a list of tables".to_owned());
                None
            }
        }
    }

    /// A list of tables is kept only when every element is whole, because lists are replaced and never merged.
    fn list_of_tables(
        &mut self,
        node: &Node,
        entries: &[Node],
        element: &Shape,
        path: &mut Vec<String>,
    ) -> Option<Node> {
        let before = self.dropped.len();
        let pattern = keys::find(path).map(|(_, pattern)| pattern).unwrap_or_default();
        for (i, entry) in entries.iter().enumerate() {
            path.push(format!("[{i}]"));
            self.walk(entry, element, path);
            self.missing(entry, element, &format!("{pattern}[]"), path);
            path.pop();
        }
        if self.dropped.len() > before {
            self.dropped.insert(dotted(path));
            return None;
        }
        Some(node.clone())
    }

    /// Reports keys an entry lacks.
    pub fn missing(&mut self, entry: &Node, shape: &Shape, pattern: &str, path: &mut Vec<String>) {
        let (Shape::Table(names, _), Raw::Table(given)) = (shape, &entry.raw) else {
            return;
        };
        for (name, below) in names {
            let optional = keys::OPTIONAL.contains(&format!("{pattern}.{name}").as_str());
            if !given.contains_key(*name) && !optional {
                path.push((*name).to_owned());
                if !self.dropped.contains(&dotted(path)) {
                    let allowed = match below {
                        Shape::Leaf(key) => format!("; allowed: {}", key.bounds()),
                        _ => String::new(),
                    };
                    self.dropped.insert(dotted(path));
                    let message = format!("is missing{allowed}");
                    let key = dotted(path);
                    self.problems.push(Problem { key, given: String::new(), origin: entry.origin.clone(), message });
                }
                path.pop();
            }
        }
    }

    fn unknown<'a>(&mut self, path: &[String], node: &Node, siblings: impl Iterator<Item = &'a str>) {
        let name = path.last().map_or("", String::as_str);
        let full = dotted(path);
        let hint = renamed(path)
            .map(|new| format!(", it is now `{new}`"))
            .or_else(|| keys::nearest(name, siblings).map(|near| format!(", did you mean `{near}`?")))
            .or_else(|| {
                let elsewhere = keys::all().find(|key| key.path.rsplit('.').next() == Some(name));
                elsewhere.map(|key| format!(", did you mean `{}`?", key.path))
            });
        self.drop_value(path, node, format!("unknown key `{full}`{}", hint.unwrap_or_default()));
    }

    fn wrong_name(&mut self, path: &[String], node: &Node, why: &str, names: &[&'static str]) {
        let name = path.last().map_or("", String::as_str);
        let hint = renamed(path)
            .map(|new| format!(", it is now `{new}`"))
            .or_else(|| keys::nearest(name, names.iter().copied()).map(|near| format!(", did you mean `{near}`?")));
        self.drop_value(path, node, format!("{why}{}", hint.unwrap_or_default()));
    }

    /// Checks type and bounds; false when the value cannot be used at all.
    fn value(&mut self, node: &Node, key: &Key, path: &[String]) -> bool {
        let refused = keys::REFUSED
            .iter()
            .find(|(name, value, _)| *name == key.path && matches!(&node.raw, Raw::Text(text) if text == value));
        if let Some((_, _, why)) = refused {
            self.drop_value(path, node, (*why).to_owned());
            return false;
        }
        self.kind(node, &key.kind, key, path)
    }

    fn kind(&mut self, node: &Node, kind: &Kind, key: &Key, path: &[String]) -> bool {
        let unit = if key.unit == "–" { String::new() } else { format!(" {}", key.unit) };
        let (type_name, range) = match (kind, &node.raw) {
            (Kind::Bool, Raw::Bool(_)) => return true,
            (Kind::Int(range), Raw::Int(value)) => {
                if range.allows(*value as f64) {
                    return true;
                }
                // Values the typed settings cannot hold must not reach them.
                let message = format!("out of bounds, allowed: {range}{unit}");
                if *value < 0 || *value > i128::from(u32::MAX) {
                    self.drop_value(path, node, message);
                    return false;
                }
                self.problem(path, node, message);
                return true;
            }
            (Kind::Num(range), Raw::Int(_) | Raw::Float(_)) => {
                let value = match node.raw {
                    Raw::Int(value) => value as f64,
                    Raw::Float(value) => value,
                    _ => f64::NAN,
                };
                if range.allows(value) && value.abs() < 1e15 {
                    return true;
                }
                let message = format!("out of bounds, allowed: {range}{unit}");
                if !value.is_finite() || value.abs() >= 1e15 {
                    self.drop_value(path, node, message);
                    return false;
                }
                self.problem(path, node, message);
                return true;
            }
            (Kind::Text(form), Raw::Text(text)) => {
                let Some(why) = wrong_text(form, text) else {
                    return true;
                };
                self.drop_value(path, node, why);
                return false;
            }
            (Kind::List(of, min, max), Raw::List(elements)) => {
                return self.list(node, elements, of, (*min, *max), key, path);
            }
            (Kind::Bool, _) => ("true or false", String::new()),
            (Kind::Int(range), _) => ("a whole number", format!(" {range}{unit}")),
            (Kind::Num(range), _) => ("a number", format!(" {range}{unit}")),
            (Kind::Text(form), _) => ("a text", format!(" ({form})")),
            (Kind::List(..), _) => ("a list", String::new()),
        };
        self.drop_value(path, node, format!("wrong type, must be {type_name}{range}"));
        false
    }

    fn list(
        &mut self,
        node: &Node,
        elements: &[Node],
        of: &Kind,
        (min, max): (usize, usize),
        key: &Key,
        path: &[String],
    ) -> bool {
        let mut usable = true;
        let mut seen = BTreeSet::new();
        for (i, element) in elements.iter().enumerate() {
            let mut below = path.to_vec();
            below.push(format!("[{i}]"));
            usable &= self.kind(element, of, key, &below);
            if let Raw::Text(name) = &element.raw
                && !seen.insert(name.as_str())
            {
                self.problem(&below, element, "stands in the list twice".to_owned());
            }
        }
        if elements.len() < min || elements.len() > max {
            let allowed = if min == max { format!("exactly {min}") } else { format!("{min}..{max}") };
            self.drop_value(path, node, format!("has {} entries, allowed: {allowed}", elements.len()));
            return false;
        }
        if !usable {
            self.dropped.insert(dotted(path));
        }
        usable
    }
}

/// What is written today instead of a name of an earlier version.
pub(super) fn renamed(path: &[String]) -> Option<String> {
    let full = dotted(path);
    let last = path.last()?;
    keys::RENAMED.iter().find_map(|(old, new)| {
        if *old == full {
            return Some((*new).to_owned());
        }
        (old == last).then(|| {
            let mut path = path.to_vec();
            if let Some(last) = path.last_mut() {
                *last = (*new).to_owned();
            }
            dotted(&path)
        })
    })
}

/// Why a text has not the form.
fn wrong_text(form: &Form, text: &str) -> Option<String> {
    let choice = |names: &[&'static str], what: &str| {
        if names.contains(&text) {
            return None;
        }
        let new = keys::RENAMED.iter().find(|(old, new)| *old == text && names.contains(new));
        let hint = match (new, keys::nearest(text, names.iter().copied())) {
            (Some((_, new)), _) => format!(", it is now `{new}`"),
            (None, Some(near)) => format!(", did you mean `{near}`?"),
            (None, None) => String::new(),
        };
        Some(format!("unknown {what} `{text}`{hint}; allowed: {}", names.join(", ")))
    };
    match form {
        Form::Any => None,
        Form::Filled => text.trim().is_empty().then(|| "must not be empty".to_owned()),
        Form::OneOf(names) => choice(names, "value"),
        Form::Task => choice(&keys::names_of("task"), "task"),
        Form::Symbol => keys::wrong_name("symbol", text),
        Form::TaskSymbol if text == "PORTFOLIO" => None,
        Form::TaskSymbol => keys::wrong_name("symbol", text),
        Form::Asset => keys::wrong_name("asset", text),
        Form::Window => {
            window(text).is_none().then(|| "must look like HH:MM-HH:MM, for example 22:00-23:30".to_owned())
        }
        Form::Address => wrong_address(text),
    }
}

/// Minutes of the day of both ends of `HH:MM-HH:MM`; absent when the text is something else or the window is empty.
fn window(text: &str) -> Option<(u32, u32)> {
    let minute = |part: &str| {
        let (hours, minutes) = part.split_once(':')?;
        if hours.len() != 2 || minutes.len() != 2 || !part.bytes().all(|b| b.is_ascii_digit() || b == b':') {
            return None;
        }
        let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    let (from, to) = text.split_once('-')?;
    let ends = (minute(from)?, minute(to)?);
    (ends.0 != ends.1).then_some(ends)
}

/// Why an address is none, or none this release listens on.
fn wrong_address(text: &str) -> Option<String> {
    let Some((host, port)) =
        text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    else {
        return Some("must look like HOST:PORT, for example 127.0.0.1:8710".to_owned());
    };
    let octets: Vec<&str> = host.split('.').collect();
    let loopback =
        octets.len() == 4 && octets.first() == Some(&"127") && octets.iter().all(|o| o.parse::<u8>().is_ok());
    (!loopback && host != "[::1]" && host != "localhost").then(|| {
        format!(
            "port {port} of {host} is not loopback; other addresses need TLS, which this release does not have: \
             use 127.0.0.1:{port} behind a proxy of your own"
        )
    })
}

/// A problem of a whole source.
pub(super) fn torn(origin: Origin, message: String) -> Problem {
    Problem { key: String::new(), given: String::new(), origin, message }
}
