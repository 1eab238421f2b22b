//! The list of keys: one row per key with unit, bounds and effect. It is the single source for the checks at boot,
//! `config explain`, `config schema` and docs/configuration.md. Defaults are not here but in `config/default.toml`.

mod models;
mod system;
mod trading;

use std::{collections::BTreeMap, fmt, sync::LazyLock};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path; `<name>` stands for any name of that kind, `[]` for any element of a list.
    pub path: &'static str,
    /// Unit of the value, `–` when it has none.
    pub unit: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Bound that depends on another key; empty when there is none.
    pub note: &'static str,
    /// What the key does.
    pub effect: &'static str,
}

/// Type and bounds of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// true or false
    Bool,
    /// A whole number.
    Int(Range),
    /// A number.
    Num(Range),
    /// A text.
    Text(Form),
    /// A list of values of one kind, with its smallest and largest length.
    List(&'static Kind, usize, usize),
}

/// Which texts are allowed.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Any text.
    Any,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A traded pair.
    Symbol,
    /// A traded pair or `PORTFOLIO`.
    TaskSymbol,
    /// An asset.
    Asset,
    /// A task.
    Task,
    /// `HH:MM-HH:MM`
    Window,
    /// `HOST:PORT`
    Address,
    /// Text that is not empty.
    Filled,
}

/// Bounds of a number; inclusive unless `open`.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Lower bound.
    pub min: f64,
    /// The lower bound itself is refused.
    pub min_open: bool,
    /// Upper bound; infinite when there is none.
    pub max: f64,
    /// The upper bound itself is refused.
    pub max_open: bool,
}

/// Largest value of a whole number without a bound of its own.
const LARGEST: f64 = u32::MAX as f64;

impl Range {
    /// Whether the number lies inside.
    pub fn allows(&self, value: f64) -> bool {
        let low = if self.min_open { value > self.min } else { value >= self.min };
        let high = if self.max_open { value < self.max } else { value <= self.max };
        value.is_finite() && low && high
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.max >= LARGEST && self.max != u64::MAX as f64 {
            return write!(f, "{} {}", if self.min_open { ">" } else { "≥" }, self.min);
        }
        let low = if self.min_open { "> " } else { "" };
        let high = if self.max_open { "< " } else { "" };
        if self.max == u64::MAX as f64 {
            return write!(f, "{low}{}..{}", self.min, u64::MAX);
        }
        write!(f, "{low}{}..{high}{}", self.min, self.max)
    }
}

/// `min..max`, both inclusive.
const fn to(min: f64, max: f64) -> Range {
    Range { min, min_open: false, max, max_open: false }
}
/// `≥ min`
const fn ge(min: f64) -> Range {
    Range { min, min_open: false, max: LARGEST, max_open: false }
}
/// `> min`
const fn gt(min: f64) -> Range {
    Range { min, min_open: true, max: LARGEST, max_open: false }
}
/// `> min..max`
const fn gt_to(min: f64, max: f64) -> Range {
    Range { min, min_open: true, max, max_open: false }
}
/// A row.
const fn key(path: &'static str, unit: &'static str, kind: Kind, effect: &'static str) -> Key {
    Key { path, unit, kind, note: "", effect }
}
/// A row of a whole number.
const fn int(path: &'static str, unit: &'static str, range: Range, effect: &'static str) -> Key {
    key(path, unit, Kind::Int(range), effect)
}
/// A row of a number.
const fn num(path: &'static str, unit: &'static str, range: Range, effect: &'static str) -> Key {
    key(path, unit, Kind::Num(range), effect)
}
/// A row of a switch.
const fn flag(path: &'static str, effect: &'static str) -> Key {
    key(path, "–", Kind::Bool, effect)
}
/// A row of a choice.
const fn one_of(path: &'static str, names: &'static [&'static str], effect: &'static str) -> Key {
    key(path, "–", Kind::Text(Form::OneOf(names)), effect)
}
/// A row of a text.
const fn text(path: &'static str, unit: &'static str, form: Form, effect: &'static str) -> Key {
    key(path, unit, Kind::Text(form), effect)
}

impl Key {
    /// Adds a bound that depends on another key.
    const fn note(mut self, note: &'static str) -> Key {
        self.note = note;
        self
    }

    /// The allowed values in words.
    pub fn bounds(&self) -> String {
        let own = self.kind.to_string();
        match (own.as_str(), self.note) {
            (_, "") => own,
            ("", note) => note.to_owned(),
            (_, note) => format!("{own}; {note}"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("true, false"),
            Kind::Int(range) | Kind::Num(range) => range.fmt(f),
            Kind::Text(form) => form.fmt(f),
            Kind::List(of, min, max) if min == max => write!(f, "list of {min}, each {of}"),
            Kind::List(of, min, max) => write!(f, "list of {min}..{max}, each {of}"),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Any => f.write_str("text"),
            Form::OneOf(names) => f.write_str(&names.join(", ")),
            Form::Symbol => f.write_str("BASE/QUOTE"),
            Form::TaskSymbol => f.write_str("BASE/QUOTE or PORTFOLIO"),
            Form::Asset => f.write_str("asset name"),
            Form::Task => f.write_str(&names_of("task").join(", ")),
            Form::Window => f.write_str("HH:MM-HH:MM"),
            Form::Address => f.write_str("HOST:PORT, loopback"),
            Form::Filled => f.write_str("text, not empty"),
        }
    }
}

/// All rows, section by section.
pub fn all() -> impl Iterator<Item = &'static Key> {
    trading::KEYS.iter().chain(system::KEYS).chain(models::KEYS)
}

/// Maps that a file or variable replaces as a whole, because an entry of the default could not be removed otherwise.
pub const REPLACED_AS_A_WHOLE: [&str; 4] =
    ["portfolio.targets", "account.initial_balances", "risk.leverage_by_drawdown", "risk.leverage_by_losses"];

/// Keys that may be absent where a new entry is written.
pub const OPTIONAL: [&str; 15] = [
    "agents.trading_decision.voters[].kind",
    "agents.trading_decision.voters[].strategy",
    "agents.trading_decision.voters[].chain",
    "tasks.<task>.depends_on[].max_age_seconds",
    "providers.<provider>.base_url",
    "providers.<provider>.key_env",
    "providers.<provider>.key_file",
    "providers.<provider>.calls_per_minute",
    "providers.<provider>.burst",
    "providers.<provider>.timeout_seconds",
    "providers.<provider>.max_parallel",
    "providers.<provider>.daily_usd",
    "providers.<provider>.models",
    "providers.<provider>.models.<model>.temperature",
    "providers.<provider>.models.<model>.answer_form",
];

/// Names an earlier version knew, anywhere in a path, and what to write now.
pub const RENAMED: [(&str, &str); 7] = [
    ("run_on_start", "catch_up_seconds"),
    ("ta_analysis", "technical_analysis"),
    ("portfolio_check", "portfolio_rebalance"),
    ("degradation.recovery_threshold", "degradation.recover_in_a_row"),
    ("emergency.daily_loss", "emergency.breach.daily_loss"),
    ("emergency.weekly_loss", "emergency.breach.weekly_loss"),
    ("emergency.max_drawdown", "emergency.breach.max_drawdown"),
];

/// Values that are well known but not part of this release, with the reason.
pub const REFUSED: [(&str, &str, &str); 1] =
    [("mode", "live", "live trading is refused in this release; it trades on paper only")];

/// What may stand at a place of the configuration tree.
#[derive(Debug)]
pub enum Shape {
    /// A value.
    Leaf(&'static Key),
    /// Fixed names, and possibly names of a kind such as `symbol`.
    Table(BTreeMap<&'static str, Shape>, Option<(&'static str, Box<Shape>)>),
    /// A list of tables.
    List(Box<Shape>),
}

/// The tree of all keys.
pub fn shape() -> &'static Shape {
    static ROOT: LazyLock<Shape> = LazyLock::new(|| {
        let mut root = Shape::Table(BTreeMap::new(), None);
        for row in all() {
            let steps: Vec<&'static str> = row.path.split('.').collect();
            plant(&mut root, &steps, row);
        }
        root
    });
    &ROOT
}

/// Adds one row below `at`.
fn plant(at: &mut Shape, steps: &[&'static str], row: &'static Key) {
    let (Shape::Table(names, wildcard), [step, rest @ ..]) = (at, steps) else {
        return;
    };
    let empty = || Shape::Table(BTreeMap::new(), None);
    let below = if let Some(kind) = step.strip_prefix('<').and_then(|s| s.strip_suffix('>')) {
        if rest.is_empty() {
            *wildcard = Some((kind, Box::new(Shape::Leaf(row))));
            return;
        }
        wildcard.get_or_insert_with(|| (kind, Box::new(empty()))).1.as_mut()
    } else if let Some(list) = step.strip_suffix("[]") {
        match names.entry(list).or_insert_with(|| Shape::List(Box::new(empty()))) {
            Shape::List(element) => element.as_mut(),
            other => other,
        }
    } else if rest.is_empty() {
        names.insert(step, Shape::Leaf(row));
        return;
    } else {
        names.entry(step).or_insert_with(empty)
    };
    plant(below, rest, row);
}

/// What may stand at a path (or at a pattern), and the pattern of that path.
pub fn find(path: &[String]) -> Option<(&'static Shape, String)> {
    let mut at = shape();
    let mut pattern = String::new();
    for step in path {
        let (below, name) = match at {
            Shape::Leaf(_) => return None,
            Shape::List(element) if step.starts_with('[') => (element.as_ref(), "[]".to_owned()),
            Shape::List(_) => return None,
            Shape::Table(names, wildcard) => match (names.get_key_value(step.as_str()), wildcard) {
                (Some((name, below)), _) => (below, format!(".{name}")),
                (None, Some((kind, below))) if *step == format!("<{kind}>") || wrong_name(kind, step).is_none() => {
                    (below.as_ref(), format!(".<{kind}>"))
                }
                _ => return None,
            },
        };
        at = below;
        pattern.push_str(&name);
    }
    Some((at, pattern.trim_start_matches('.').to_owned()))
}

/// The names a wildcard stands for; empty when they are open (symbols, assets, numbers).
pub fn names_of(kind: &str) -> Vec<&'static str> {
    use crate::model::{BreakerKind, Regime, TaskName, Timeframe};
    match kind {
        "task" => TaskName::ALL.iter().map(|t| t.name()).collect(),
        "regime" => Regime::ALL.iter().map(|r| r.name()).collect(),
        "timeframe" => Timeframe::ALL.iter().map(|t| t.name()).collect(),
        "breaker" => BreakerKind::ALL.iter().map(|b| b.name()).collect(),
        _ => Vec::new(),
    }
}

/// Why `name` is no name of that kind.
pub fn wrong_name(kind: &str, name: &str) -> Option<String> {
    use crate::model::{Asset, Symbol};
    match kind {
        "symbol" => match name.parse::<Symbol>() {
            Ok(symbol) if symbol.is_portfolio() => Some("PORTFOLIO is no traded pair".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        },
        "asset" => name.parse::<Asset>().err().map(|error| error.to_string()),
        "percent" => match name.parse::<f64>() {
            Ok(value) if value > 0.0 && value < 100.0 => None,
            _ => Some(format!("`{name}` must be a percentage > 0..< 100")),
        },
        "count" => match name.parse::<u32>() {
            Ok(1..=1000) => None,
            _ => Some(format!("`{name}` must be a whole number 1..1000")),
        },
        "provider" | "chain" => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            (name.is_empty() || name.len() > 64 || !name.chars().all(plain))
                .then(|| format!("the name `{name}` must be 1..64 letters, digits, `-` or `_`"))
        }
        "model" => {
            let odd = name.is_empty() || name.len() > 128 || name.chars().any(|c| c.is_whitespace() || c.is_control());
            odd.then(|| format!("the model `{name}` must be 1..128 characters without spaces"))
        }
        _ if names_of(kind).contains(&name) => None,
        _ => Some(format!("unknown {kind} `{name}`")),
    }
}

/// The candidate most like `word`, if any is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let scored = candidates.into_iter().map(|name| {
        let distance = strsim::normalized_damerau_levenshtein(&lower, &name.to_lowercase());
        (strsim::jaro_winkler(&lower, &name.to_lowercase()).max(distance), name)
    });
    let best = scored.fold(None, |best: Option<(f64, &str)>, new| match best {
        Some(old) if old.0 >= new.0 => Some(old),
        _ => Some(new),
    });
    best.filter(|(score, _)| *score >= 0.85).map(|(_, name)| name)
}
