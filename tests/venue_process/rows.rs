//! The crash points that only a venue outside of the process has (durability §12, rows marked L), each struck by SIGKILL,
//! by an error in its place (the connection ends, the write of the store fails) and by a second SIGKILL while the process
//! after the first one asks the venue; after K22 and K50, where its first question depends on the clock, when the numbers of
//! its requests are durable and none is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use rust_decimal::Decimal;
use triplegain::model::TradeState;

use super::{Scenario, Stage, market, resting};
use crate::faulty_venue::Faults;

/// The rows of the crash-point matrix that only a live venue has.
const LIVE: [&str; 8] = ["K15", "K16", "K17", "K18", "K19", "K22", "K26", "K50"];

/// Which blows each row has stood.
static STOOD: Mutex<BTreeMap<&str, BTreeSet<&str>>> = Mutex::new(BTreeMap::new());

/// Rows that stood these blows in this run.
fn stood(blows: &[&str]) -> usize {
    let stood = STOOD.lock().unwrap();
    LIVE.iter().filter(|row| stood.get(**row).is_some_and(|had| blows.iter().all(|blow| had.contains(blow)))).count()
}

/// How many rows stood a kill and an error, and how many a second kill, for people.
pub fn covered() -> String {
    let (both, twice) = (stood(&["kill", "error"]), stood(&["two kills"]));
    format!("{both} / {} by a kill and an error, {twice} by a second kill", LIVE.len())
}

/// What strikes the first process at its row.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill,
    /// The connection ends there, the process lives.
    Cut,
    /// The write of this kind of record fails in its middle; the process ends itself.
    DiskFails(&'static str),
    /// As `Kill`; the next process is killed as well, when it asks the venue this.
    TwoKills(&'static str),
    /// As `Kill`; the next process is killed as well, when a record of this kind is durable.
    TwoKillsStored(&'static str),
}

impl Blow {
    const fn name(self) -> &'static str {
        match self {
            Blow::Kill => "kill",
            Blow::Cut | Blow::DiskFails(_) => "error",
            Blow::TwoKills(_) | Blow::TwoKillsStored(_) => "two kills",
        }
    }
}

/// Where the first process is struck.
#[derive(Clone, Copy)]
enum Place {
    /// At a request of this kind, with what the venue does with it.
    Request(&'static str, &'static str),
    /// When the stream tells its first fill.
    Stream,
    /// When a record of this kind is durable and nobody has been told.
    Stored(&'static str),
}

struct Row {
    name: &'static str,
    place: Place,
    limit: fn() -> Decimal,
    /// Resting orders of it do not fill.
    open: bool,
    /// Fills come in parts.
    partial: bool,
    /// The program goes on until nothing rests any more.
    closing: bool,
    /// State of the order in the end, and how often the venue took it.
    ends: &'static [(TradeState, usize)],
}

const ROW: Row = Row {
    name: "",
    place: Place::Stream,
    limit: market,
    open: false,
    partial: false,
    closing: false,
    ends: &[(TradeState::Settled, 1)],
};

/// On a slow machine an order may be too old before it is at the venue: a legal end, and not the row.
const TRIES: u32 = 20;

fn play(row: &Row, blow: Blow) {
    let context = format!("{} {blow:?}", row.name);
    println!("  {context}");
    let met = (0..TRIES).any(|_| once(row, blow, &context));
    assert!(met, "{context}: the order was too old {TRIES} times");
    STOOD.lock().unwrap().entry(row.name.split(' ').next().unwrap()).or_default().insert(blow.name());
}

/// One try; whether the row was met.
fn once(row: &Row, blow: Blow, context: &str) -> bool {
    let partial = if row.partial { 1.0 } else { 0.0 };
    let stage = Stage::new(1, &Faults { partial, latency_ms: 1_000, ..Faults::none() });
    if row.open {
        stage.tell("keep open"); // on a slow machine the venue's time is enough to fill it
    }
    let (limit, end) = ((row.limit)(), if row.closing { "closed" } else { "settled" });
    // Whoever waits for nothing but the order at rest is gone before a fill is written.
    let stays = row.partial && matches!(blow, Blow::DiskFails(_));
    let first_end = if stays { "closed" } else { end };
    let first = |more: &[(&str, &str)]| stage.program(1, limit, first_end, more);
    let kills = matches!(blow, Blow::Kill | Blow::TwoKills(_) | Blow::TwoKillsStored(_));
    let cut = if kills { "" } else { "-cut" };
    let told = match row.place {
        Place::Request(kind, plan) => {
            stage.tell(&format!("plan {kind} {plan}{cut}"));
            format!("at {plan}{cut}")
        }
        Place::Stream => {
            stage.tell(if cut.is_empty() { "stream one" } else { "stream cut" });
            "at streamed".to_owned()
        }
        Place::Stored(_) => String::new(),
    };
    let mut finished = false;
    let mut met = match (blow, row.place) {
        (Blow::DiskFails(kind), _) => {
            let mut program = first(&[("VENUE_FAILS", kind)]);
            let (code, placed) = program.end();
            assert!(matches!(code, Some(0 | 70)), "{context}: {code:?}");
            stage.placed(&placed);
            code == Some(70)
        }
        (_, Place::Stored(kind)) => {
            let program = first(&[("VENUE_STOPS", kind)]);
            let met = program.says("at stored", "done");
            stage.kill(program);
            met
        }
        (Blow::Cut, _) => {
            let mut program = first(&[]);
            let met = stage.venue.says(&told, "finished");
            program.until("done");
            stage.ends_well(&mut program);
            finished = !row.partial;
            met
        }
        (Blow::Kill | Blow::TwoKills(_) | Blow::TwoKillsStored(_), _) => {
            let program = first(&[]);
            let met = stage.venue.says(&told, "finished");
            stage.kill(program);
            met
        }
    };
    stage.tell("thaw");
    stage.tell("stream on");
    let before = stage.numbers().1;
    if let Blow::TwoKills(question) = blow {
        // What the stream tells would spare the question.
        stage.tell("stream off");
        stage.tell(&format!("plan {question} look"));
        let program = stage.program(1, limit, end, &[]);
        met &= stage.venue.says("at look", "finished");
        stage.kill(program);
        stage.tell("thaw");
        stage.tell("stream on");
    }
    if let Blow::TwoKillsStored(kind) = blow {
        let program = stage.program(1, limit, end, &[("VENUE_STOPS", kind)]);
        met &= program.says("at stored", "done");
        stage.kill(program);
    }
    if !finished {
        stage.finish(1, limit, if row.partial { "closed" } else { end });
    }
    let ends = stage.compare(context);
    let states: Vec<_> = ends.values().map(|state| (*state, stage.taken().len())).collect();
    assert_eq!(states.len(), 1, "{context}");
    let is_wanted = row.ends.is_empty() || row.ends.contains(&states[0]);
    // Too old, or sent again and at rest: the program ends there, before it has heard of the fill.
    let is_legal = is_wanted || [(TradeState::Expired, 0), (TradeState::Acked, 1)].contains(&states[0]);
    assert!(is_legal, "{context}: {states:?}");
    let (repeated, numbers) = stage.numbers();
    assert_eq!(repeated, 0, "{context}: request numbers were used twice");
    // Every process takes its numbers from a block of its own.
    let after: Vec<u64> = numbers.difference(&before).copied().collect();
    if !finished && let (Some(last), Some(next)) = (before.last(), after.first()) {
        assert!(last / 1_000 < next / 1_000, "{context}: {next} follows {last}");
    }
    met && is_wanted
}

fn all(row: &Row, blows: &[Blow]) {
    blows.iter().for_each(|blow| play(row, *blow));
}

/// Sent again after proof of its absence, or too old for that.
const AGAIN: &[(TradeState, usize)] = &[(TradeState::Settled, 1), (TradeState::Expired, 0)];

fn k14_killed_before_the_first_byte() {
    let row = Row { name: "K14", place: Place::Request("submit", "connected"), ends: AGAIN, ..ROW };
    all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeSubmitting"), Blow::TwoKills("time")]);
}

fn k15_struck_with_half_of_the_request_sent() {
    let row = Row { name: "K15", place: Place::Request("submit", "half"), ends: AGAIN, ..ROW };
    all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeUnknown"), Blow::TwoKills("time")]);
}

fn k16_struck_while_a_slow_venue_has_the_order() {
    // Taken just before its deadline, or refused after it and sent again.
    for (name, plan, question) in [("K16 late", "late", "open"), ("K16 too late", "too-late", "trades")] {
        let row = Row { name, place: Place::Request("submit", plan), ends: AGAIN, ..ROW };
        all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeUnknown"), Blow::TwoKills(question)]);
    }
}

const RESTS: &[(TradeState, usize)] = &[(TradeState::Acked, 1)];

fn k17_struck_before_the_answer_of_an_open_order() {
    let place = Place::Request("submit", "unread");
    let row = Row { name: "K17", place, limit: resting, open: true, ends: RESTS, ..ROW };
    all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeUnknown"), Blow::TwoKills("open")]);
}

fn k18_struck_before_the_answer_of_a_filled_order() {
    let row = Row { name: "K18", place: Place::Request("submit", "unread"), ..ROW };
    all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeUnknown"), Blow::TwoKills("closed")]);
}

fn k19_struck_with_the_answer_just_read() {
    let place = Place::Request("submit", "answered");
    let rests = Row { name: "K19 rests", place, limit: resting, open: true, ends: RESTS, ..ROW };
    for row in [Row { name: "K19 filled", place, ..ROW }, rests] {
        all(&row, &[Blow::Kill, Blow::DiskFails("TradeAcked"), Blow::TwoKills("trades")]);
    }
}

fn k22_struck_when_the_stream_told_a_fill() {
    let row = Row { name: "K22", partial: true, ends: &[], ..ROW };
    all(&row, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeFill"), Blow::TwoKillsStored("NoncesReserved")]);
}

fn k26_struck_with_a_cancel_on_its_way() {
    let row = Row { name: "K26", limit: resting, open: true, closing: true, ..ROW };
    let place = Place::Request("cancel", "unread");
    let cancelled = Row { name: "K26 cancelled", place, ends: &[(TradeState::Cancelled, 1)], ..row };
    all(&cancelled, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeCancelled"), Blow::TwoKills("closed")]);
    let filled = Row { name: "K26 filled", place: Place::Request("cancel", "filled-instead"), ..row };
    all(&filled, &[Blow::Kill, Blow::Cut, Blow::DiskFails("TradeFill"), Blow::TwoKills("open")]);
}

fn k50_struck_with_a_block_of_numbers_just_reserved() {
    let place = Place::Stored("NoncesReserved");
    let row = Row { name: "K50", place, limit: resting, open: true, ends: RESTS, ..ROW };
    all(&row, &[Blow::Kill, Blow::DiskFails("NoncesReserved"), Blow::TwoKillsStored("NoncesReserved")]);
}

pub const SCENARIOS: &[Scenario] = &[
    ("k14_killed_before_the_first_byte", k14_killed_before_the_first_byte),
    ("k15_struck_with_half_of_the_request_sent", k15_struck_with_half_of_the_request_sent),
    ("k16_struck_while_a_slow_venue_has_the_order", k16_struck_while_a_slow_venue_has_the_order),
    ("k17_struck_before_the_answer_of_an_open_order", k17_struck_before_the_answer_of_an_open_order),
    ("k18_struck_before_the_answer_of_a_filled_order", k18_struck_before_the_answer_of_a_filled_order),
    ("k19_struck_with_the_answer_just_read", k19_struck_with_the_answer_just_read),
    ("k22_struck_when_the_stream_told_a_fill", k22_struck_when_the_stream_told_a_fill),
    ("k26_struck_with_a_cancel_on_its_way", k26_struck_with_a_cancel_on_its_way),
    ("k50_struck_with_a_block_of_numbers_just_reserved", k50_struck_with_a_block_of_numbers_just_reserved),
];
