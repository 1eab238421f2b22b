//! How objects of the state lie in the trees of the embedded store: tree, key bytes and value of each, and back.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    frame,
    touched::{ObjectKey, Swept},
};
use crate::model::{DecisionId, PositionId, RunId, State, TradeKey, spending::ModelSpending};

/// All trees, in the order their numbers mean.
pub const TREES: [&str; 12] = [
    "meta",
    "coordinator",
    "account",
    "positions",
    "trades",
    "trade_index",
    "plans",
    "decisions",
    "risk",
    "emergencies",
    "commands",
    "leaderboard",
];
/// Number of the tree `meta`.
pub const META: usize = 0;

/// Keys and values of one tree, in key order.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Key of objects of which there is one.
const ONE: &[u8] = b"value";
const PENDING: u8 = b'p';
const TALLY: u8 = b't';

impl ObjectKey {
    /// Number of its tree and its key there.
    pub fn place(&self) -> (usize, Vec<u8>) {
        match self {
            ObjectKey::Totals => (META, b"totals".to_vec()),
            ObjectKey::Models => (META, b"models".to_vec()),
            ObjectKey::Coordinator => (1, ONE.to_vec()),
            ObjectKey::Account => (2, ONE.to_vec()),
            ObjectKey::Position(id) => (3, id.0.to_be_bytes().to_vec()),
            ObjectKey::Trade(key) => (4, key.0.to_vec()),
            ObjectKey::Stub(key) => (5, key.0.to_vec()),
            ObjectKey::Plan(id) => (6, id.as_bytes().to_vec()),
            ObjectKey::Decision(id) => (7, decision_bytes(*id, &[])),
            ObjectKey::Risk => (8, ONE.to_vec()),
            ObjectKey::Emergency(id) => (9, id.as_bytes().to_vec()),
            ObjectKey::Command(key) => (10, key.as_bytes().to_vec()),
            ObjectKey::Pending(id) => (11, decision_bytes(*id, &[PENDING])),
            ObjectKey::Tally(voter) => (11, [&[TALLY], voter.as_bytes()].concat()),
        }
    }

    /// Its JSON form in `state`; absent when it does not exist there.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn value(&self, state: &State) -> Result<Option<Vec<u8>>, serde_json::Error> {
        match self {
            ObjectKey::Totals => json(Some(&state.totals)),
            ObjectKey::Models => json(Some(&state.models)),
            ObjectKey::Coordinator => json(Some(&state.coordinator)),
            ObjectKey::Account => json(Some(&state.account)),
            ObjectKey::Risk => json(Some(&state.risk)),
            ObjectKey::Position(id) => json(state.positions.get(id)),
            ObjectKey::Trade(key) => json(state.trades.get(key)),
            ObjectKey::Stub(key) => json(state.trade_index.get(key)),
            ObjectKey::Plan(id) => json(state.plans.get(id)),
            ObjectKey::Decision(id) => json(state.decisions.get(id)),
            ObjectKey::Emergency(id) => json(state.emergencies.get(id)),
            ObjectKey::Command(key) => json(state.commands.get(key)),
            ObjectKey::Pending(id) => json(state.leaderboard.pending.get(id)),
            ObjectKey::Tally(voter) => json(state.leaderboard.tallies.get(voter)),
        }
    }

    /// The collection that may drop it without an event of its own.
    pub fn swept_by(&self) -> Option<Swept> {
        match self {
            ObjectKey::Plan(_) => Some(Swept::Plans),
            ObjectKey::Emergency(_) => Some(Swept::Emergencies),
            ObjectKey::Command(_) => Some(Swept::Commands),
            ObjectKey::Pending(_) => Some(Swept::Pending),
            _ => None,
        }
    }

    /// True when `state` holds it; only asked for objects of swept collections.
    pub fn is_in(&self, state: &State) -> bool {
        match self {
            ObjectKey::Plan(id) => state.plans.contains_key(id),
            ObjectKey::Emergency(id) => state.emergencies.contains_key(id),
            ObjectKey::Command(key) => state.commands.contains_key(key),
            ObjectKey::Pending(id) => state.leaderboard.pending.contains_key(id),
            _ => true,
        }
    }
}

fn json<T: Serialize>(value: Option<&T>) -> Result<Option<Vec<u8>>, serde_json::Error> {
    value.map(serde_json::to_vec).transpose()
}

fn decision_bytes(id: DecisionId, prefix: &[u8]) -> Vec<u8> {
    [prefix, &id.0.epoch.to_be_bytes(), &id.0.seq.to_be_bytes()].concat()
}

fn decision_from(bytes: &[u8]) -> Result<DecisionId, String> {
    let (epoch, seq) = bytes.split_at_checked(4).ok_or("a decision key is too short")?;
    let epoch = u32::from_be_bytes(sized(epoch)?);
    Ok(DecisionId(RunId { epoch, seq: u64::from_be_bytes(sized(seq)?) }))
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("a key has {} bytes where {N} belong", bytes.len()))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a key is no text".to_owned())
}

/// Every object that exists in `state`, to write a store anew.
pub fn all_keys(state: &State) -> Vec<ObjectKey> {
    let mut keys = vec![ObjectKey::Coordinator, ObjectKey::Account, ObjectKey::Risk, ObjectKey::Totals];
    keys.extend((state.models != ModelSpending::default()).then_some(ObjectKey::Models));
    keys.extend(state.positions.keys().map(|id| ObjectKey::Position(*id)));
    keys.extend(state.trades.keys().map(|key| ObjectKey::Trade(*key)));
    keys.extend(state.trade_index.keys().map(|key| ObjectKey::Stub(*key)));
    keys.extend(state.plans.keys().map(|id| ObjectKey::Plan(*id)));
    keys.extend(state.decisions.keys().map(|id| ObjectKey::Decision(*id)));
    keys.extend(state.emergencies.keys().cloned().map(ObjectKey::Emergency));
    keys.extend(state.commands.keys().cloned().map(ObjectKey::Command));
    keys.extend(state.leaderboard.pending.keys().map(|id| ObjectKey::Pending(*id)));
    keys.extend(state.leaderboard.tallies.keys().cloned().map(ObjectKey::Tally));
    keys
}

/// Reads the state back from the trees, which `rows` gives by number.
///
/// # Errors
/// The first value or key that cannot be read, for people.
pub fn load(rows: &mut dyn FnMut(usize) -> Result<Rows, String>) -> Result<State, String> {
    let mut state = State::default();
    for (key, value) in rows(META)? {
        match key.as_slice() {
            b"meta" => state.meta = parse(&value)?,
            b"totals" => state.totals = parse(&value)?,
            b"models" => state.models = parse(&value)?,
            _ => {}
        }
    }
    state.coordinator = one(rows(1)?)?;
    state.account = one(rows(2)?)?;
    state.risk = one(rows(8)?)?;
    state.positions = many(rows(3)?, |key| Ok(PositionId(u64::from_be_bytes(sized(key)?))))?;
    state.trades = many(rows(4)?, |key| Ok(TradeKey(sized(key)?)))?;
    state.trade_index = many(rows(5)?, |key| Ok(TradeKey(sized(key)?)))?;
    state.plans = many(rows(6)?, |key| Ok(Uuid::from_bytes(sized(key)?)))?;
    state.decisions = many(rows(7)?, decision_from)?;
    state.emergencies = many(rows(9)?, text)?;
    state.commands = many(rows(10)?, text)?;
    let (pending, tallies): (Vec<_>, Vec<_>) =
        rows(11)?.into_iter().partition(|(key, _)| key.first() == Some(&PENDING));
    state.leaderboard.pending = many(pending, |key| decision_from(&key[1..]))?;
    state.leaderboard.tallies = many(tallies, |key| text(key.get(1..).unwrap_or_default()))?;
    Ok(state)
}

fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(frame::open_envelope(value)?).map_err(|error| error.to_string())
}

fn one<T: DeserializeOwned + Default>(rows: Rows) -> Result<T, String> {
    rows.first().map_or_else(|| Ok(T::default()), |(_, value)| parse(value))
}

fn many<K: Ord, T: DeserializeOwned>(
    rows: Rows,
    key_of: impl Fn(&[u8]) -> Result<K, String>,
) -> Result<BTreeMap<K, T>, String> {
    rows.into_iter().map(|(key, value)| Ok((key_of(&key)?, parse(&value)?))).collect()
}
