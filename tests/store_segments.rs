//! Damage in a journal of several segments: where it is said to be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "support/killed_stores.rs"]
mod killed_stores;
mod store_support;

use std::fs;

use killed_stores::*;
use store_support::*;
use triplegain::{
    model::Ts,
    store::{Batch, verify},
};

/// Three days, so three segments; something is wrong in the second one, whose lines are counted from its own first.
#[test]
fn damage_in_a_later_segment_is_named_with_its_line_and_what_is_behind_it() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let mut firsts = Vec::new();
    for day in 0..3 {
        firsts.push(store.state().meta.seq + 1);
        let at = Ts(info().now.0 + day * 86_400_000);
        for text in ["a", "b"] {
            store.commit(Batch::new("t", "", "", at, vec![note(text)])).unwrap().unwrap();
        }
        store.commit(Batch::new("t", "", "", at, vec![note("c"), note("d"), note("e")])).unwrap().unwrap();
    }
    let last = store.state().meta.seq;
    let copy = killed(data.path());
    // From the first record on: a checkpoint would spare the segments before it.
    let _ = fs::remove_dir_all(copy.path().join("checkpoint"));
    let all = segments(copy.path());
    assert_eq!(all.len(), 3);
    let whole = fs::read_to_string(&all[1]).unwrap();
    let name = all[1].file_name().unwrap().to_str().unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 5);
    let halted = |text: &str| {
        fs::write(&all[1], text).unwrap();
        let (_store, opened) = open(copy.path()).unwrap();
        let halt = opened.halt.unwrap();
        assert_eq!((halt.code, opened.frozen), ("journal_damaged", true));
        (halt.text, verify::check(copy.path()).text())
    };

    // A byte of its second line.
    let bad = whole.replacen("\"b\"", "\"x\"", 1);
    assert_ne!(bad, whole);
    let (halt, report) = halted(&bad);
    let place = format!("segment {name}, line 2, seq {}", firsts[1] + 1);
    assert!(halt.contains(&place), "{halt}");
    let intact = last - firsts[1] - 1;
    let behind = format!(
        "journal/{name} from line 2 on; intact records behind it: {intact}, the last has number {last}; none of them counts"
    );
    assert!(report.contains(&behind), "{report}");
    assert!(report.contains(&format!("holds up to record {}", firsts[1])), "{report}");
    assert!(report.ends_with("the journal is NOT sound\n"), "{report}");

    // Its last batch lacks a record, and another segment follows.
    let (halt, _) = halted(&lines[..4].concat());
    let place = format!("segment {name}, line 4, seq {}", firsts[1] + 3);
    assert!(halt.contains(&place) && halt.contains("the last batch lacks 1 of its records"), "{halt}");

    // It ends with a whole batch, and records are missing before the next one.
    let (halt, _) = halted(&lines[..2].concat());
    let third = all[2].file_name().unwrap().to_str().unwrap();
    let place = format!("segment {third}, line 1, seq {}", firsts[1] + 2);
    assert!(halt.contains(&place), "{halt}");

    fs::write(&all[1], &whole).unwrap();
    let sound = verify::check(copy.path());
    assert!(sound.is_sound() && sound.text().ends_with("the journal is sound\n"), "{}", sound.text());
}
