//! Tests of lines and envelopes.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Emergency, EmergencyAction, EmergencyKey, PositionId};

fn record(seq: u64, event: Event) -> Record {
    let (actor, corr) = ("te\"st".into(), "c,\"kind\":\"x".to_owned());
    Record { v: 1, seq, epoch: 2, ts: Ts(1_234), n: (seq == 1).then_some(2), actor, corr, cause: "ä\n".into(), event }
}

fn emergency() -> Event {
    let key = EmergencyKey { breach: "max_drawdown".into(), period: "1".into(), action: EmergencyAction::HaltAll };
    let targets = BTreeMap::from([(PositionId(7), "0.10".parse().unwrap())]);
    let attempts = BTreeMap::from([(PositionId(7), 1)]);
    Event::EmergencyStarted {
        emergency: Emergency { key, started_at: Ts(5), targets, attempts, retry_at: None, done: false },
    }
}

#[test]
fn d06_lines_hold_the_record_in_the_specified_order_and_read_back() {
    let mut framer = Framer::new(NO_LINE);
    let mut out = Vec::new();
    let records = [record(1, Event::CleanStop {}), record(2, emergency())];
    for one in &records {
        framer.push(&mut out, one).unwrap();
    }
    let mut prev = NO_LINE;
    let mut scratch = Vec::new();
    for (line, one) in out.split(|byte| *byte == b'\n').zip(&records) {
        let (back, named) = decode(line, &mut scratch).unwrap();
        assert_eq!((&back, named), (one, prev));
        prev = line_hash(line);
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let all = ["v", "seq", "epoch", "ts", "n", "actor", "corr", "cause", "kind", "data", "prev", "crc"];
        let wanted: Vec<&str> = all.into_iter().filter(|field| *field != "n" || one.n.is_some()).collect();
        assert_eq!(fields, wanted);
        // The hand-written frame equals what serde makes of the record.
        let plain = serde_json::to_string(one).unwrap();
        assert!(line.starts_with(plain.trim_end_matches('}').as_bytes()), "{plain}");
    }
    assert_eq!(framer.head(), prev);
}

#[test]
fn any_flipped_bit_is_noticed() {
    let mut out = Vec::new();
    Framer::new(NO_LINE).push(&mut out, &record(1, emergency())).unwrap();
    out.pop();
    let mut scratch = Vec::new();
    for at in 0..out.len() {
        for bit in 0..8 {
            out[at] ^= 1 << bit;
            assert!(decode(&out, &mut scratch).is_err(), "byte {at} bit {bit}");
            out[at] ^= 1 << bit;
        }
    }
    assert!(decode(&out, &mut scratch).is_ok());
    for length in 0..out.len() {
        assert!(decode(&out[..length], &mut scratch).is_err());
    }
}

#[test]
fn a146_newer_versions_and_kinds_are_told_from_damage() {
    let mut out = Vec::new();
    let mut newer = record(1, Event::CleanStop {});
    newer.v = 99;
    Framer::new(NO_LINE).push(&mut out, &newer).unwrap();
    out.pop();
    assert_eq!(decode(&out, &mut Vec::new()).unwrap_err(), LineDefect::Version(99));
    let mut out = Vec::new();
    Framer::new(NO_LINE).push(&mut out, &record(1, Event::CleanStop {})).unwrap();
    let text = String::from_utf8(out).unwrap().replace("CleanStop", "DirtyStop");
    let body = &text.as_bytes()[..text.len() - 1 - CRC_TAIL];
    let line = [body, format!(r#","crc":"{:08x}"}}"#, crc32c::crc32c(body)).as_bytes()].concat();
    assert_eq!(decode(&line, &mut Vec::new()).unwrap_err(), LineDefect::Kind("DirtyStop".into()));
}

#[test]
fn envelopes_notice_damage() {
    let mut sealed = envelope(7, br#"{"a":1}"#);
    assert_eq!(open_envelope(&sealed).unwrap(), br#"{"a":1}"#);
    assert!(serde_json::from_slice::<serde_json::Value>(&sealed).is_ok());
    sealed[20] ^= 1;
    assert!(open_envelope(&sealed).is_err());
    assert!(open_envelope(b"{}").is_err());
}
