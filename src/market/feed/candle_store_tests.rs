//! Appending, cutting a torn row, merging.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn symbol() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

fn candle(minute: i64, close: f64) -> Candle {
    Candle { open_time: Ts(minute * 60_000), open: 1.0, high: 9.0, low: 0.5, close, volume: 1.5 }
}

fn store() -> (tempfile::TempDir, CandleStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = CandleStore::open(&folder.path().join("candles"), Timeframe::M1).unwrap();
    (folder, store)
}

fn kept(store: &CandleStore) -> Vec<(i64, f64)> {
    let mut all = Vec::new();
    store.read(symbol(), Ts(0), &mut |c| all.push((c.open_time.0 / 60_000, c.close))).unwrap();
    all
}

#[test]
fn appended_candles_are_read_back_once_and_nobody_else_may_read_them() {
    let (_folder, store) = store();
    assert_eq!(store.newest(symbol()).unwrap(), None);
    assert_eq!(store.append(symbol(), &[candle(1, 2.0), candle(2, 3.0)]).unwrap(), 2);
    assert_eq!(store.append(symbol(), &[candle(2, 7.0), candle(4, 4.0)]).unwrap(), 1);
    assert_eq!(kept(&store), [(1, 2.0), (2, 3.0), (4, 4.0)]);
    assert_eq!(store.newest(symbol()).unwrap(), Some(Ts(240_000)));
    let path = store.path(symbol());
    assert!(path.ends_with("XBTUSDT_1.csv"));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_row_is_cut_before_the_next_one() {
    let (_folder, store) = store();
    store.append(symbol(), &[candle(1, 2.0), candle(2, 3.0)]).unwrap();
    let path = store.path(symbol());
    let length = fs::metadata(&path).unwrap().len();
    for cut in 1..20 {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - cut).unwrap();
        assert_eq!(store.newest(symbol()).unwrap(), Some(Ts(60_000)));
        assert_eq!(store.append(symbol(), &[candle(2, 3.0)]).unwrap(), 1);
        assert_eq!(kept(&store), [(1, 2.0), (2, 3.0)], "{cut} bytes lost");
    }
}

#[test]
fn a_merge_fills_holes_replaces_values_and_reports_what_is_missing() {
    let (_folder, store) = store();
    store.append(symbol(), &[candle(3, 3.0), candle(10, 8.0)]).unwrap();
    let rows = [candle(1, 1.0), candle(3, 3.5), candle(4, 4.0)];
    let merged = store.merge(symbol(), &mut rows.iter().copied().map(Ok)).unwrap();
    assert_eq!((merged.added, merged.changed, merged.total), (2, 1, 4));
    assert_eq!((merged.holes, merged.missing), (2, 6));
    assert_eq!(merged.longest, [(Ts(300_000), Ts(600_000)), (Ts(120_000), Ts(180_000))]);
    assert_eq!(kept(&store), [(1, 1.0), (3, 3.5), (4, 4.0), (10, 8.0)]);
}

#[test]
fn a_merge_that_breaks_leaves_the_old_file() {
    let (_folder, store) = store();
    store.append(symbol(), &[candle(3, 3.0)]).unwrap();
    let broken = FeedError::Write { file: "x".to_owned(), source: io::Error::other("gone") };
    let mut rows = vec![Ok(candle(1, 1.0)), Err(broken)].into_iter();
    store.merge(symbol(), &mut rows).unwrap_err();
    assert_eq!(kept(&store), [(3, 3.0)]);
}
