//! The replay of candle files: order, windows, damaged input, real files.

use std::io::Write;

use super::*;
use crate::{
    market::Market,
    model::time::{HOUR_MS, MINUTE_MS},
};

fn symbols(names: &[&str]) -> Vec<Symbol> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn row(minute: i64) -> String {
    format!("{},100.5,101,99.25,100,3.5,7\n", minute * 60)
}

fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn open(dir: &tempfile::TempDir, names: &[&str]) -> Result<CsvFeed, FeedError> {
    CsvFeed::open(dir.path(), &symbols(names), CsvWindow::default())
}

fn refusal(dir: &tempfile::TempDir, names: &[&str]) -> String {
    open(dir, names).map(|_| ()).unwrap_err().to_string()
}

fn all(feed: &mut CsvFeed) -> Vec<FeedItem> {
    std::iter::from_fn(|| feed.next()).map(|item| item.unwrap()).collect()
}

fn minutes(items: &[FeedItem]) -> Vec<i64> {
    items.iter().map(|item| item.available_at.0 / MINUTE_MS - 1).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn several_files_are_merged_in_time_order_and_ties_follow_the_symbols() {
    let (even, odd): (String, String) = ((0..10).map(row).collect(), (5..15).map(row).collect());
    let dir = folder(&[("XBTUSDT_1.csv", even)]);
    std::fs::write(dir.path().join("XRPUSDT_1.csv.gz"), gzip(&odd)).unwrap();
    let mut feed = open(&dir, &["XRP/USDT", "BTC/USDT"]).unwrap();
    let items = all(&mut feed);
    assert_eq!((feed.base(), items.len()), (Timeframe::M1, 20));
    assert!(items.windows(2).all(|pair| pair[0].available_at <= pair[1].available_at));
    let tie: Vec<String> = items[5..7].iter().map(|item| item.symbol.to_string()).collect();
    assert_eq!(tie, ["XRP/USDT", "BTC/USDT"]);
    let FeedKind::Candle(first) = items[0].kind else { panic!("a candle") };
    assert_eq!(items[0].available_at, Ts(MINUTE_MS), "a candle is known at its close");
    assert_eq!((first.open, first.high, first.low, first.close, first.volume), (100.5, 101.0, 99.25, 100.0, 3.5));
}

#[test]
fn the_window_reads_warm_up_as_history_and_stops_at_its_end() {
    let dir = folder(&[("BTCUSDT_1.csv", (0..100).map(row).collect())]);
    let window = CsvWindow { from: Some(Ts(50 * MINUTE_MS)), to: Some(Ts(60 * MINUTE_MS)), warm_up_ms: 10 * MINUTE_MS };
    let mut feed = CsvFeed::open(dir.path(), &symbols(&["BTC/USDT"]), window).unwrap();
    let mut history = Vec::new();
    feed.history(Ts(50 * MINUTE_MS), &mut |item| history.push(item)).unwrap();
    assert_eq!(minutes(&history), (40..50).collect::<Vec<_>>());
    assert_eq!(minutes(&all(&mut feed)), (50..60).collect::<Vec<_>>());
}

#[test]
fn defective_rows_are_skipped_counted_and_located() {
    let mut text = String::from("time,open,high,low,close,volume,trades\n");
    text += &row(1);
    text += "120,1,2,3\n"; // too few columns
    text += "180,100,NaN,99,100,1,1\n";
    text += "240,100,101,99,-100,1,1\n";
    text += "300,100,101,99,\"100,1,1\n"; // a stray quote spoils its row only
    text += "330,100,101,99,100,1,1\n"; // not on a minute
    text += "360,100,90,99,100,1,1\n"; // high below low
    text += &row(8);
    text += &row(8); // duplicate
    text += &row(7); // out of order
    text += &row(900_000); // a time far ahead
    text += &row(9);
    text += &row(10);
    text += "660,100,101,9"; // torn
    let dir = folder(&[("XBTUSDT_1.csv", text)]);
    let mut feed = open(&dir, &["BTC/USDT"]).unwrap();
    assert_eq!(minutes(&all(&mut feed)), [1, 8, 9, 10]);
    let issues = feed.issues();
    assert_eq!((issues.defective, issues.duplicates, issues.out_of_order), (8, 1, 2));
    assert_eq!(issues.first[0].line, 1);
    assert_eq!(issues.first[1].to_string(), "XBTUSDT_1.csv:3: 4 columns instead of 7");
    assert!(issues.first.len() <= 5);
}

#[test]
fn a_folder_that_cannot_be_used_says_what_to_do() {
    let empty = folder(&[("notes.txt", "x".into())]);
    assert!(refusal(&empty, &["BTC/USDT"]).contains("put files named like"));
    let one = folder(&[("XBTUSDT_1.csv", row(1))]);
    assert!(refusal(&one, &["BTC/USDT", "XRP/BTC"]).contains("add XRPXBT_1.csv or remove XRP/BTC"));
    let mixed = folder(&[("XBTUSDT_1.csv", row(1)), ("XRPUSDT_5.csv", row(5))]);
    assert!(refusal(&mixed, &["BTC/USDT", "XRP/USDT"]).contains("BTC/USDT: 1m, XRP/USDT: 5m"));
    let both = folder(&[("XBTUSDT_1.csv", row(1)), ("BTCUSDT_1.csv", row(1))]);
    assert!(refusal(&both, &["BTC/USDT"]).contains("keep one"));
    let hollow = folder(&[("XBTUSDT_1.csv", String::new())]);
    assert!(refusal(&hollow, &["BTC/USDT"]).contains("no usable candle"));
    let junk = folder(&[("XBTUSDT_1.csv", "a,b\n".into())]);
    assert!(refusal(&junk, &["BTC/USDT"]).contains("line 1: 2 columns"));
    let absent = empty.path().join("nowhere");
    assert!(CsvFeed::open(&absent, &symbols(&["BTC/USDT"]), CsvWindow::default()).is_err());
}

#[test]
fn the_shortest_length_every_symbol_has_is_the_base() {
    let dir = folder(&[
        ("XBTUSDT_1.csv", row(1)),
        ("XBTUSDT_5.csv", row(5)),
        ("XRPUSDT_5.csv", row(5)),
        ("XRPUSDT_60.csv", row(60)),
    ]);
    assert_eq!(open(&dir, &["BTC/USDT", "XRP/USDT"]).unwrap().base(), Timeframe::M5);
}

#[test]
fn a_damaged_gzip_gives_its_whole_rows_and_then_an_error() {
    let text: String =
        (0..50_000).map(|m| format!("{},100,{}.5,99,100,{}.25,1\n", m * 60, 101 + m % 7, m % 991)).collect();
    let whole = gzip(&text);
    let mut damaged = whole.clone();
    let middle = whole.len() / 2;
    damaged[middle..middle + 64].fill(0xFF);
    for bytes in [whole[..middle].to_vec(), damaged] {
        let dir = folder(&[]);
        std::fs::write(dir.path().join("XBTUSDT_1.csv.gz"), bytes).unwrap();
        let mut feed = open(&dir, &["BTC/USDT"]).unwrap();
        let items: Vec<_> = std::iter::from_fn(|| feed.next()).take(100_000).collect();
        let errors: Vec<String> = items.iter().filter_map(|item| item.as_ref().err()).map(|e| e.to_string()).collect();
        assert_eq!(errors.len(), 1, "one error, then the end");
        assert!(errors[0].contains("XBTUSDT_1.csv.gz") && errors[0].contains("replace the file"), "{}", errors[0]);
        assert!(items.last().unwrap().is_err() && items.len() > 1000);
    }
}

fn shared(folder: &str) -> Option<PathBuf> {
    let shared = std::env::var("TRIPLEGAIN_SHARED")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let dir = shared.join("data/candles").join(folder);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: shared data absent");
    None
}

#[test]
fn every_hour_absent_from_krakens_own_file_is_declared() {
    let Some(dir) = shared("kraken") else { return };
    let names = symbols(&["BTC/USDT"]);
    let mut feed = CsvFeed::open(&dir, &names, CsvWindow::default()).unwrap();
    let settings = crate::market::core::tests::market_settings();
    let mut market = Market::for_symbols(&settings, &names, feed.base()).unwrap();
    let (mut first, mut last, mut missing) = (None, Ts(0), 0);
    for item in all(&mut feed) {
        let FeedKind::Candle(candle) = item.kind else { panic!("a candle") };
        let outcome = market.on_candle(item.symbol, candle);
        assert_eq!(outcome.rejected, None);
        missing +=
            outcome.gaps.iter().filter(|g| g.frame == Timeframe::H1).map(crate::market::Gap::candles).sum::<i64>();
        first.get_or_insert(candle.open_time);
        last = candle.open_time;
    }
    let counts = market.feed_status(last)[0].counts;
    let hours = last.since_ms(first.unwrap()) / HOUR_MS + 1;
    assert_eq!((feed.base(), counts.accepted, missing), (Timeframe::H1, 41_379, 555));
    assert_eq!(hours, 41_379 + 555, "there or declared");
    assert_eq!(counts.missing_candles, 555);
    let snapshot = market.snapshot(names[0], last.plus_ms(HOUR_MS)).unwrap();
    assert!(snapshot.primary_view().unwrap().indicators.ema200.is_some(), "single silent hours reset nothing");
}

#[test]
fn the_outage_of_april_2021_is_declared_and_nothing_is_invented() {
    let Some(dir) = shared("binance_2021_may") else { return };
    let names = symbols(&["BTC/USDT", "XRP/USDT"]);
    let from = Ts::parse("2021-04-24T00:00").unwrap();
    let to = Ts::parse("2021-04-26T00:00").unwrap();
    let window = CsvWindow { from: Some(from), to: Some(to), warm_up_ms: 0 };
    let mut feed = CsvFeed::open(&dir, &names, window).unwrap();
    let settings = crate::market::core::tests::market_settings();
    let mut market = Market::for_symbols(&settings, &names, feed.base()).unwrap();
    let (mut gaps, mut hours, mut candles) = (Vec::new(), Vec::new(), 0);
    while let Some(item) = feed.next() {
        let item = item.unwrap();
        let FeedKind::Candle(candle) = item.kind else { panic!("a candle") };
        let outcome = market.on_candle(item.symbol, candle);
        assert_eq!(outcome.rejected, None);
        candles += 1;
        if item.symbol == names[0] {
            gaps.extend(outcome.gaps.iter().copied());
            hours.extend(outcome.closed.iter().filter(|c| c.frame == Timeframe::H1).copied());
        }
    }
    let long: Vec<_> = gaps.iter().filter(|gap| gap.frame == Timeframe::M1 && gap.candles() > 200).collect();
    assert_eq!(long.len(), 1, "{gaps:?}");
    assert!((280..=290).contains(&long[0].candles()), "{:?}", long[0]);
    let missing_hours: i64 =
        gaps.iter().filter(|gap| gap.frame == Timeframe::H1).map(crate::market::Gap::candles).sum();
    assert_eq!(hours.len() as i64 + missing_hours, 48, "every hour is there or declared missing");
    assert!(missing_hours >= 3);
    assert!(hours.iter().any(|hour| hour.partial && hour.candle.open_time.since_ms(long[0].to) > -HOUR_MS));
    let total: u64 = market.feed_status(to).iter().map(|s| s.counts.accepted).sum();
    assert_eq!((total, feed.issues().defective), (candles, 0));
}
