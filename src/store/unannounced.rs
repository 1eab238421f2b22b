//! What became durable and was perhaps never told: the records behind the newest one the announcer has noted. It reads
//! the journal once more, beside recovery, which has verified it; nothing is decided by it.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::Path,
};

use super::{
    frame,
    journal::segment_name,
    reader,
    segments::{Folder, Segments},
};
use crate::model::{Event, Record};

/// The newest so many are told again at most.
const MOST: usize = 1_000;

/// Records after `after` and after the newest clean stop, oldest first. What cannot be read is left out: the reader of
/// the truth has said what is wrong with it.
pub fn since(journal: &Path, after: u64) -> Vec<Record> {
    let Ok(firsts) = reader::segments(journal) else { return Vec::new() };
    // The segment that holds the first wanted record, and all behind it.
    let begin = firsts.iter().rposition(|first| *first <= after + 1).unwrap_or(0);
    let files = Folder(journal);
    // Lines, not records: whatever lies behind, only the newest are read for what they say.
    let mut newest: VecDeque<Vec<u8>> = VecDeque::with_capacity(MOST);
    for first in firsts.iter().skip(begin) {
        let Ok((file, _)) = files.open(&segment_name(*first)) else { continue };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if frame::peek_seq(&line).is_some_and(|seq| seq > after) {
                if newest.len() == MOST {
                    newest.pop_front();
                }
                newest.push_back(line);
            }
        }
    }
    let mut scratch = Vec::new();
    let decoded = newest.iter().filter_map(|line| frame::decode(line, &mut scratch).ok());
    let mut found: Vec<Record> = decoded.map(|(record, _)| record).collect();
    if let Some(stop) = found.iter().rposition(|record| matches!(record.event, Event::CleanStop {})) {
        found.drain(..=stop);
    }
    found
}
