//! Which symbols' prices or candles have stopped. A connection that stands says nothing about data. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Symbol, Ts};

/// One symbol.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Its newest price, or when one was expected first.
    at: Ts,
    /// The venue has taken its subscription: a price that never comes is a silence as well.
    expected: bool,
    /// Its silence was told.
    told: bool,
}

/// A silence that began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which symbol.
    pub symbol: Symbol,
    /// It began.
    pub silent: bool,
    /// Age of its newest price, milliseconds.
    pub age_ms: i64,
}

/// The prices of every symbol of a connection.
#[derive(Clone, Debug)]
pub struct Silence {
    limit_ms: i64,
    lines: BTreeMap<Symbol, Line>,
    /// Candles do not come although there are prices.
    frozen: BTreeSet<Symbol>,
    stopped: BTreeSet<Symbol>,
}

impl Silence {
    /// Nothing is expected yet; a price older than `limit_ms` is silence.
    pub fn new(limit_ms: i64) -> Silence {
        Silence { limit_ms, lines: BTreeMap::new(), frozen: BTreeSet::new(), stopped: BTreeSet::new() }
    }

    /// From now on prices of the symbol are expected.
    pub fn expect(&mut self, symbol: Symbol, now: Ts) {
        let line = self.lines.entry(symbol).or_insert(Line { at: now, expected: false, told: false });
        if !line.expected {
            *line = Line { at: line.at.max(now), expected: true, ..*line };
        }
    }

    /// A price that was true at `at`.
    pub fn heard(&mut self, symbol: Symbol, at: Ts) {
        let line = self.lines.entry(symbol).or_insert(Line { at, expected: false, told: false });
        line.at = line.at.max(at);
    }

    /// Its candles stand still while its prices go on, or come again.
    pub fn candles(&mut self, symbol: Symbol, frozen: bool) {
        if frozen {
            self.frozen.insert(symbol);
        } else {
            self.frozen.remove(&symbol);
        }
    }

    /// Silences that began or ended. While there is no connection nothing is told: its loss is. After a new one prices have
    /// the whole limit to come back.
    pub fn judge(&mut self, now: Ts, up_since: Option<Ts>) -> Vec<Change> {
        let Some(since) = up_since else { return Vec::new() };
        let mut changes = Vec::new();
        for (symbol, line) in self.lines.iter_mut().filter(|(_, line)| line.expected) {
            let age_ms = now.since_ms(line.at);
            let begins = !line.told && now.since_ms(line.at.max(since)) > self.limit_ms;
            let ends = line.told && age_ms <= self.limit_ms;
            if begins || ends {
                line.told = begins;
                changes.push(Change { symbol: *symbol, silent: begins, age_ms });
            }
        }
        changes
    }

    /// When the next symbol stops if no price comes: also without a connection somebody has to look then.
    pub fn wakes_at(&self) -> Option<Ts> {
        let going = self.lines.iter().filter(|(symbol, line)| line.expected && !self.stopped.contains(symbol));
        going.map(|(_, line)| line.at.plus_ms(self.limit_ms + 1)).min()
    }

    /// The symbols without a price within the limit, whatever the reason, and those whose candles stand still, when they are
    /// others than before.
    pub fn stopped(&mut self, now: Ts) -> Option<&BTreeSet<Symbol>> {
        let expected = self.lines.iter().filter(|(_, line)| line.expected);
        let stopped = expected.filter(|(_, line)| line.told || now.since_ms(line.at) > self.limit_ms);
        let stopped: BTreeSet<Symbol> = stopped.map(|(symbol, _)| *symbol).chain(self.frozen.iter().copied()).collect();
        (stopped != self.stopped).then(|| {
            self.stopped = stopped;
            &self.stopped
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Ts {
        Ts::from_secs(1_000 + seconds)
    }

    fn symbol(name: &str) -> Symbol {
        name.parse().unwrap()
    }

    fn both() -> (Silence, Symbol, Symbol) {
        let (mut silence, btc, xrp) = (Silence::new(3_000), symbol("BTC/USDT"), symbol("XRP/USDT"));
        silence.expect(btc, at(0));
        silence.expect(xrp, at(0));
        (silence, btc, xrp)
    }

    #[test]
    fn one_silent_symbol_is_told_once_and_stops_alone() {
        let (mut silence, btc, xrp) = both();
        for second in 1..=5 {
            silence.heard(xrp, at(second));
            let changes = silence.judge(at(second), Some(at(0)));
            let begins = Change { symbol: btc, silent: true, age_ms: 4_000 };
            assert_eq!(changes, if second == 4 { vec![begins] } else { vec![] }, "second {second}");
            let stopped = silence.stopped(at(second)).cloned();
            assert_eq!(stopped, (second == 4).then(|| BTreeSet::from([btc])), "second {second}");
        }
        silence.heard(btc, at(6));
        assert_eq!(silence.judge(at(6), Some(at(0))), [Change { symbol: btc, silent: false, age_ms: 0 }]);
        assert_eq!(silence.stopped(at(6)), Some(&BTreeSet::new()));
    }

    #[test]
    fn a_lost_connection_stops_entries_but_is_no_silence_of_a_feed() {
        let (mut silence, btc, xrp) = both();
        assert_eq!(silence.wakes_at(), Some(at(3).plus_ms(1)), "nothing else would wake anybody");
        assert_eq!(silence.judge(at(70), None), []);
        assert_eq!(silence.stopped(at(70)), Some(&BTreeSet::from([btc, xrp])));
        assert_eq!(silence.wakes_at(), None);
        // Connected again: prices have three seconds to come back, entries wait for them.
        assert_eq!(silence.judge(at(72), Some(at(71))), []);
        silence.heard(xrp, at(73));
        assert_eq!(silence.stopped(at(73)), Some(&BTreeSet::from([btc])));
        assert_eq!(silence.judge(at(75), Some(at(71))), [Change { symbol: btc, silent: true, age_ms: 75_000 }]);
        // A second connection without a price of it does not end its silence.
        assert_eq!(silence.judge(at(80), Some(at(79))), []);
        assert_eq!(silence.stopped(at(80)), Some(&BTreeSet::from([btc, xrp])));
    }

    #[test]
    fn an_old_trade_before_the_acknowledgement_is_no_silence_yet() {
        let (mut silence, btc) = (Silence::new(3_000), symbol("BTC/USDT"));
        silence.heard(btc, at(-300));
        assert_eq!((silence.judge(at(0), Some(at(0))), silence.stopped(at(0))), (vec![], None));
        silence.expect(btc, at(0));
        silence.expect(btc, at(2));
        assert_eq!(silence.judge(at(3), Some(at(0))), []);
        assert_eq!(silence.judge(at(4), Some(at(0))).len(), 1, "a price that never comes is a silence too");
    }

    #[test]
    fn candles_that_stand_still_stop_a_symbol_whose_prices_go_on() {
        let (mut silence, btc, xrp) = both();
        silence.heard(btc, at(2));
        silence.heard(xrp, at(2));
        silence.candles(btc, true);
        assert_eq!(silence.judge(at(3), Some(at(0))), [], "its prices are there");
        assert_eq!(silence.stopped(at(3)), Some(&BTreeSet::from([btc])));
        silence.candles(btc, false);
        assert_eq!(silence.stopped(at(3)), Some(&BTreeSet::new()));
    }
}
