//! Changed and broken inputs of everything that is read from outside: the journal, candle files, settings, commands.
//!
//! Valid inputs are taken and changed in their structure, by proptest: there are no cargo-fuzz targets, because no nightly
//! toolchain is to be had here. Nothing may panic, and nothing wrong may be accepted. The
//! cases come from a seed that is printed; `FUZZ_SEED` and `FUZZ_CASES` choose others and more.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod store_support;

use std::{collections::BTreeSet, fs, io::Write, path::Path, sync::OnceLock};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use store_support::{Generator, open};
use triplegain::{
    market::{
        Feed, FeedKind,
        feed::csv::{CsvFeed, CsvWindow},
    },
    model::{Command, Record},
    settings::{DEFAULT_TOML, Sources, load_with},
    store::{
        frame::{NO_LINE, decode},
        journal::segment_name,
        reader::{self, End, ReadError, Start},
    },
};

/// One change of a text or of bytes. Places are fractions, so that they fit every input.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Set(f64, u8),
    Cut(f64, f64),
    Repeat(f64, f64),
    Insert(f64, Vec<u8>),
    Truncate(f64),
    /// Two lines change places.
    Lines(f64, f64),
    /// A word becomes one that means something to a parser.
    Word(f64, usize),
}

const WORDS: [&str; 16] = [
    "null",
    "true",
    "-1",
    "1e400",
    "NaN",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "\u{0}",
    "\u{feff}",
    "\"\\ud800\"",
    "=",
    "[[",
    "0.1.2",
    "99999999999999999999999999999999",
];

impl Change {
    fn of(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let at = |place: f64| ((place * length as f64) as usize).min(length);
        let span = |a: f64, b: f64| (at(a), (at(a) + (b * 64.0) as usize).min(length));
        match self {
            Change::Flip(place, bit) if at(*place) < length => bytes[at(*place)] ^= 1 << (bit % 8),
            Change::Set(place, byte) if at(*place) < length => bytes[at(*place)] = *byte,
            Change::Flip(..) | Change::Set(..) => {}
            Change::Cut(a, b) => drop(bytes.drain(span(*a, *b).0..span(*a, *b).1)),
            Change::Repeat(a, b) => {
                let (from, to) = span(*a, *b);
                let block = bytes[from..to].to_vec();
                bytes.splice(to..to, block);
            }
            Change::Insert(place, more) => drop(bytes.splice(at(*place)..at(*place), more.iter().copied())),
            Change::Truncate(place) => bytes.truncate(at(*place)),
            Change::Lines(a, b) => {
                let mut lines: Vec<Vec<u8>> =
                    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                let last = lines.len().saturating_sub(1);
                if !lines.is_empty() {
                    lines.swap((a * last as f64) as usize, (b * last as f64) as usize);
                }
                *bytes = lines.concat();
            }
            Change::Word(place, word) => {
                let start = at(*place);
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
                let end = start + bytes[start..].iter().take_while(|byte| is_word(byte)).count();
                bytes.splice(start..end, WORDS[word % WORDS.len()].bytes());
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = 0.0..1.0f64;
    let near_the_end = 0.97..1.0f64;
    let any_place = prop_oneof![3 => place.clone(), 1 => near_the_end];
    let one = prop_oneof![
        4 => (any_place.clone(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any_place.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (any_place.clone(), place.clone()).prop_map(|(a, b)| Change::Cut(a, b)),
        1 => (any_place.clone(), place.clone()).prop_map(|(a, b)| Change::Repeat(a, b)),
        1 => (any_place.clone(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, more)| Change::Insert(at, more)),
        1 => any_place.clone().prop_map(Change::Truncate),
        1 => (place.clone(), place.clone()).prop_map(|(a, b)| Change::Lines(a, b)),
        2 => (any_place, 0..WORDS.len()).prop_map(|(at, word)| Change::Word(at, word)),
    ];
    prop::collection::vec(one, 1..4)
}

fn changed(input: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    changes.iter().for_each(|change| change.of(&mut bytes));
    bytes
}

/// Runs `test` on changes drawn from the printed seed.
fn fuzz(cases: u32, test: impl Fn(Vec<Change>) -> Result<(), TestCaseError>) {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (seed, cases) = (number("FUZZ_SEED", 1), number("FUZZ_CASES", u64::from(cases)));
    println!("FUZZ_SEED={seed} FUZZ_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = Config { cases: cases as u32, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    match runner.run(&changes(), test) {
        Ok(()) => {}
        Err(TestError::Fail(why, changes)) => panic!("seed {seed}: {why}\nwith {changes:?}"),
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
}

fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

// ---- the journal

/// A journal of random batches as one segment, and its records batch by batch.
fn journal() -> &'static (Vec<u8>, Vec<Vec<Record>>) {
    static JOURNAL: OnceLock<(Vec<u8>, Vec<Vec<Record>>)> = OnceLock::new();
    JOURNAL.get_or_init(|| {
        let data = in_memory();
        let (mut store, _) = open(data.path()).unwrap();
        let mut generator = Generator::new(3);
        for _ in 0..25 {
            let batch = generator.batch(store.state());
            store.commit(batch).unwrap().unwrap();
        }
        drop(store);
        let bytes = fs::read(data.path().join("journal").join(segment_name(1))).unwrap();
        let (batches, end) = accepted(&bytes);
        assert_eq!(end.unwrap().torn, None);
        (bytes, batches)
    })
}

/// The whole batches a reader accepts of these bytes, and how it ends.
fn accepted(bytes: &[u8]) -> (Vec<Vec<Record>>, Result<End, ReadError>) {
    let dir = in_memory();
    fs::write(dir.path().join(segment_name(1)), bytes).unwrap();
    let mut batches = Vec::new();
    let end = reader::read(dir.path(), Start::BEGINNING, &mut |batch| {
        batches.push(std::mem::take(batch));
        Ok(())
    });
    (batches, end)
}

/// What is accepted of a changed journal is a beginning of the whole one.
fn is_beginning(batches: &[Vec<Record>]) -> Result<(), TestCaseError> {
    let (_, whole) = journal();
    prop_assert!(batches.len() <= whole.len(), "{} batches of {}", batches.len(), whole.len());
    for (number, (found, wanted)) in batches.iter().zip(whole).enumerate() {
        prop_assert!(found == wanted, "batch {number} differs: {found:?}");
    }
    Ok(())
}

#[test]
fn a_changed_journal_is_read_up_to_the_change_and_no_further() {
    fuzz(2_000, |changes| {
        let (bytes, whole) = journal();
        let bad = changed(bytes, &changes);
        let (batches, end) = accepted(&bad);
        is_beginning(&batches)?;
        if batches.len() == whole.len() && bad != *bytes {
            // All of it, so the change is behind it: bytes that are torn off, or damage after the last batch.
            prop_assert!(bad.starts_with(bytes), "a change was not noticed");
            prop_assert!(!matches!(end, Ok(End { torn: None, .. })), "bytes after the end were not noticed");
        }
        Ok(())
    });
}

#[test]
fn every_single_changed_byte_is_refused_unless_it_is_the_cut_tail() {
    let (bytes, whole) = journal();
    let mut bad = bytes.clone();
    let last_batch = whole.last().unwrap().len();
    let lines: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let tail = lines[lines.len() - 1 - last_batch];
    let mut torn = 0;
    // Every byte of the first and the last lines, every seventh of those between.
    for at in (0..bytes.len()).filter(|at| *at < lines[3] || *at >= tail || at % 7 == 0) {
        bad[at] ^= 1 + (at % 255) as u8;
        let (batches, end) = accepted(&bad);
        is_beginning(&batches).unwrap();
        assert!(batches.len() < whole.len(), "byte {at} was not noticed");
        if end.is_ok_and(|end| end.torn.is_some()) {
            assert!(at >= tail, "byte {at} before the last batch was taken for a torn tail");
            torn += 1;
        }
        bad[at] = bytes[at];
    }
    assert!(torn > 0);
}

#[test]
fn a_changed_line_with_a_right_checksum_breaks_the_chain() {
    fuzz(1_000, |changes| {
        let (bytes, _) = journal();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        // The line is chosen by the change itself, never the last one: nothing names that yet.
        let at = format!("{changes:?}").len() % (lines.len() - 1);
        let (body, tail) = lines[at].split_at(lines[at].len() - 61);
        let prev = &tail[..42];
        let body = changed(body, &changes);
        let content = [&body[..], prev].concat();
        let line = [&content[..], format!(",\"crc\":\"{:08x}\"}}\n", crc32c::crc32c(&content)).as_bytes()].concat();
        if line == lines[at] {
            return Ok(());
        }
        let mut scratch = Vec::new();
        let _ = decode(&line[..line.len() - 1], &mut scratch);
        let all = [lines[..at].concat(), line, lines[at + 1..].concat()].concat();
        let (batches, end) = accepted(&all);
        prop_assert!(end.is_err(), "line {at} was changed and nothing was said");
        // The changed line itself may be a record; no whole batch after it is accepted.
        let records: usize = batches.iter().map(Vec::len).sum();
        prop_assert!(records <= at + 1, "{records} records accepted over a change of line {at}");
        Ok(())
    });
}

#[test]
fn any_bytes_are_no_journal() {
    fuzz(300, |changes| {
        let bytes: Vec<u8> = format!("{changes:?}").into_bytes();
        let (batches, end) = accepted(&bytes);
        prop_assert!(batches.is_empty());
        prop_assert!(!matches!(end, Ok(End { torn: None, .. })), "it ends like a whole journal");
        prop_assert!(decode(&bytes, &mut Vec::new()).is_err());
        Ok(())
    });
    assert_eq!(accepted(b"").1.unwrap().prev, NO_LINE);
}

// ---- candle files

/// Three days of minutes with a gap, as the exchange's files are.
fn candles() -> Vec<u8> {
    let mut text = String::new();
    for minute in (0..4_320).filter(|minute| minute % 97 != 5) {
        let at = 1_700_000_040 + minute * 60;
        let price = 40_000.0 + f64::from(minute % 211) * 3.5;
        text += &format!(
            "{at},{price},{},{},{},{:.4},{}\n",
            price + 5.0,
            price - 7.5,
            price + 1.25,
            0.5 + price / 9e4,
            minute % 40 + 1
        );
    }
    text.into_bytes()
}

/// Reads a folder to its end: candles in order and possible, or an error with a text.
fn read_candles(dir: &Path) -> Result<usize, TestCaseError> {
    let symbols = [store_support::symbol()];
    let mut feed = match CsvFeed::open(dir, &symbols, CsvWindow { from: None, to: None, warm_up_ms: 0 }) {
        Ok(feed) => feed,
        Err(error) => {
            prop_assert!(!error.to_string().is_empty());
            return Ok(0);
        }
    };
    let (mut count, mut last) = (0, None);
    while let Some(item) = feed.next() {
        let Ok(item) = item else { break };
        if let FeedKind::Candle(candle) = item.kind {
            prop_assert!(last.is_none_or(|last| candle.open_time > last), "{:?} after {last:?}", candle.open_time);
            last = Some(candle.open_time);
            let prices = [candle.open, candle.high, candle.low, candle.close];
            prop_assert!(prices.iter().all(|price| price.is_finite() && *price > 0.0), "{candle:?}");
            prop_assert!(candle.volume.is_finite() && candle.volume >= 0.0, "{candle:?}");
            prop_assert!(prices.iter().all(|price| candle.low <= *price && *price <= candle.high), "{candle:?}");
            count += 1;
        }
        prop_assert!(count <= 100_000);
    }
    Ok(count)
}

#[test]
fn changed_candle_files_give_possible_candles_in_order_or_an_error() {
    let whole = candles();
    let dir = in_memory();
    let path = dir.path().join("XBTUSDT_1.csv");
    fs::write(&path, &whole).unwrap();
    assert!(read_candles(dir.path()).unwrap() > 4_000, "the unchanged file is read");
    fuzz(250, |changes| {
        fs::write(&path, changed(&whole, &changes)).unwrap();
        read_candles(dir.path()).map(drop)
    });
}

#[test]
fn changed_compressed_candle_files_give_possible_candles_in_order_or_an_error() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&candles()).unwrap();
    let whole = packed.finish().unwrap();
    let dir = in_memory();
    let path = dir.path().join("XBTUSDT_1.csv.gz");
    fs::write(&path, &whole).unwrap();
    assert!(read_candles(dir.path()).unwrap() > 4_000, "the unchanged file is read");
    fuzz(250, |changes| {
        fs::write(&path, changed(&whole, &changes)).unwrap();
        read_candles(dir.path()).map(drop)
    });
}

// ---- settings

#[test]
fn changed_settings_load_or_are_named_as_problems() {
    fuzz(250, |changes| {
        let text = String::from_utf8_lossy(&changed(DEFAULT_TOML.as_bytes(), &changes)).into_owned();
        let sources = Sources { file: Some("changed.toml".into()), ..Sources::default() };
        match load_with(&sources, &|_| Ok(text.clone())) {
            Ok(loaded) => prop_assert_eq!(loaded.hash.len(), 64),
            Err(problems) => prop_assert!(problems.to_string().contains("changed.toml"), "{problems}"),
        }
        Ok(())
    });
}

// ---- commands

/// How many commands there are.
const COMMANDS: usize = 14;

fn name(command: &Command) -> &'static str {
    match command {
        Command::Pause { .. } => "pause",
        Command::Resume {} => "resume",
        Command::Halt { .. } => "halt",
        Command::Reset { .. } => "reset",
        Command::RunTask { .. } => "run_task",
        Command::CloseAll { .. } => "close_all",
        Command::EnableTask { .. } => "enable_task",
        Command::DisableTask { .. } => "disable_task",
        Command::CancelScheduled { .. } => "cancel_scheduled",
        Command::Release { .. } => "release",
        Command::ClockAck {} => "clock_ack",
        Command::RunScheduled { .. } => "run_scheduled",
        Command::ResolveManual { .. } => "resolve_manual",
        Command::AdoptStore { .. } => "adopt_store",
    }
}

#[test]
fn changed_commands_are_refused_or_mean_what_they_say() {
    let bodies = [
        r#"{"command":"pause","reason":"why"}"#,
        r#"{"command":"resume"}"#,
        r#"{"command":"halt","reason":"\u00e4 \"b\""}"#,
        r#"{"command":"reset","halt_id":"H1"}"#,
        r#"{"command":"run_task","task":"technical_analysis","symbol":"BTC/USDT"}"#,
        r#"{"command":"close_all"}"#,
        r#"{"command":"enable_task","task":"sentiment_analysis"}"#,
        r#"{"command":"disable_task","task":"sentiment_analysis"}"#,
        r#"{"command":"cancel_scheduled","id":"0190"}"#,
        r#"{"command":"run_scheduled","id":"0190"}"#,
        r#"{"command":"release","task":"trading_decision","symbol":"BTC/USDT"}"#,
        r#"{"command":"clock_ack"}"#,
        r#"{"command":"resolve_manual","trade":"3904a475ad45","outcome":"expired","evidence":"statement"}"#,
        r#"{"command":"resolve_manual","trade":"3904a475ad45","outcome":"filled","quantity":"0.5","price":"44896.59","fee":"1.4","evidence":"statement"}"#,
        r#"{"command":"adopt_store","store":"0190f0d2-0000-7000-8000-000000000001"}"#,
    ];
    let mut named = BTreeSet::new();
    for body in bodies {
        named.insert(name(&serde_json::from_str::<Command>(body).unwrap()));
    }
    // One body per command at least; a command without a body here does not compile in `name`.
    assert_eq!(named.len(), COMMANDS, "{named:?}");
    fuzz(2_000, |changes| {
        for body in bodies {
            // What the HTTP surface does with a body.
            let bytes = changed(body.as_bytes(), &changes);
            if let Ok(command) = serde_json::from_slice::<Command>(&bytes) {
                let text = serde_json::to_string(&command).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Command>(&text).unwrap(), &command);
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                let fields = value.as_object().map_or(0, serde_json::Map::len);
                prop_assert!(fields <= serde_json::to_value(&command).unwrap().as_object().unwrap().len(), "{value}");
            }
        }
        Ok(())
    });
}
