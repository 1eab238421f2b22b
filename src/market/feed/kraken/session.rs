//! One connection after another as a pure machine: what to send, when a connection is given up, when to try again, and
//! what the frames mean. Whoever owns the socket carries the actions out and hands time, text and chance in.

use std::collections::{BTreeMap, BTreeSet};

pub use super::action::{Action, Counts, Notice, Waits};
use super::{
    book::OrderBook,
    candles::{CandleCloser, Closed},
    prices::LastPrices,
    wire::{self, BookFrame, Frame, OhlcRow, TickerRow},
    witness::{FROZEN_AFTER, Verdict, Witness},
};
use crate::{
    market::feed::{FeedItem, FeedKind},
    model::{Symbol, Timeframe, Ts},
};

/// A candle closes by itself so long after its end, milliseconds.
const GRACE_MS: i64 = 5_000;
/// So long after the end of a minute a symbol without a candle was not traded in it, milliseconds.
const SILENT_MS: i64 = 2_000;
/// Heartbeats come every second; silence of the socket itself for so long is a dead connection, milliseconds.
const DEAD_AFTER_MS: i64 = 10_000;
/// Connecting, and each acknowledgement, may take so long, milliseconds.
const PATIENCE_MS: i64 = 10_000;
/// A connection that brought data for so long starts the waits over, milliseconds.
const GOOD_AFTER_MS: i64 = 60_000;
/// What the venue refused is asked for again so often while a connection stands, milliseconds.
const ASK_AGAIN_MS: i64 = 300_000;

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Waits until the instant.
    Down(Ts),
    /// Asked for since the instant.
    Connecting(Ts),
    /// Open.
    Up { since: Ts, heard: Ts, asked: Ts, open: BTreeSet<(&'static str, Symbol)> },
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    symbols: Vec<Symbol>,
    phase: Phase,
    failures: u32,
    waits: Waits,
    system: String,
    refused: BTreeMap<String, String>,
    /// When what is refused was asked for last.
    asked_again: Ts,
    remarks: BTreeSet<String>,
    closer: CandleCloser,
    witness: Witness,
    frame: Timeframe,
    /// End of the last candles that were looked at for silence.
    declared: Ts,
    books: BTreeMap<Symbol, OrderBook>,
    last: LastPrices,
    counts: Counts,
}

/// Different remarks of the venue that are told.
const REMARKS_MAX: usize = 32;
/// The only state of the venue's engine in which it trades.
pub(super) const ONLINE: &str = "online";

const CHANNELS: [&str; 3] = ["ohlc", "ticker", "book"];

impl Session {
    /// A machine that wants to connect at once.
    pub fn new(symbols: Vec<Symbol>, frame: Timeframe, now: Ts) -> Session {
        Session {
            books: symbols.iter().map(|symbol| (*symbol, OrderBook::default())).collect(),
            symbols,
            phase: Phase::Down(now),
            failures: 0,
            waits: Waits::default(),
            system: ONLINE.to_owned(),
            refused: BTreeMap::new(),
            asked_again: now,
            remarks: BTreeSet::new(),
            closer: CandleCloser::new(frame, GRACE_MS),
            witness: Witness::new(frame),
            frame,
            declared: now.floor_to(frame.ms()),
            last: LastPrices::default(),
            counts: Counts::default(),
        }
    }

    /// With other waits.
    #[must_use]
    pub fn with_waits(self, waits: Waits) -> Session {
        Session { waits, ..self }
    }

    /// What was counted since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// State of the venue's engine, in its own words.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// Symbols the venue does not serve, with its words.
    pub fn refused(&self) -> &BTreeMap<String, String> {
        &self.refused
    }

    /// Start of the newest candle known or handed out.
    pub fn newest(&self, symbol: Symbol) -> Option<Ts> {
        self.closer.newest(symbol)
    }

    /// A connection stands.
    pub fn is_up(&self) -> bool {
        self.up_since().is_some()
    }

    /// Since when a connection stands.
    pub fn up_since(&self) -> Option<Ts> {
        if let Phase::Up { since, .. } = self.phase { Some(since) } else { None }
    }

    /// A connection stands and every channel of the symbol was acknowledged.
    pub fn is_subscribed(&self, symbol: Symbol) -> bool {
        let waits = |open: &BTreeSet<(&'static str, Symbol)>| open.iter().any(|(_, asked)| *asked == symbol);
        matches!(&self.phase, Phase::Up { open, .. } if !waits(open)) && !self.refused.contains_key(&symbol.to_string())
    }

    /// Candles up to this start are known from history or back-fill.
    pub fn known(&mut self, symbol: Symbol, newest: Ts) {
        self.closer.known(symbol, newest);
        self.witness.fetched(symbol, newest);
    }

    /// When [`Session::tick`] has something to do next.
    pub fn wakes_at(&self) -> Ts {
        let own = match &self.phase {
            Phase::Down(until) => *until,
            Phase::Connecting(since) => since.plus_ms(PATIENCE_MS),
            Phase::Up { heard, asked, open, .. } if !open.is_empty() => {
                heard.plus_ms(DEAD_AFTER_MS).min(asked.plus_ms(PATIENCE_MS))
            }
            Phase::Up { heard, .. } => heard.plus_ms(DEAD_AFTER_MS),
        };
        // What waits to be heard of first is done with the next frame.
        let Phase::Up { heard, .. } = &self.phase else { return own };
        let close = self.closer.next_close().filter(|close| *close <= heard.plus_ms(GRACE_MS));
        let end = self.declared.plus_ms(self.frame.ms());
        let silent = (end <= *heard).then(|| end.plus_ms(SILENT_MS));
        let again = (!self.refused.is_empty()).then(|| self.asked_again.plus_ms(ASK_AGAIN_MS));
        [close, silent, again].into_iter().flatten().fold(own, Ts::min)
    }

    /// Time passed. `chance` in 0..1 spreads the next try.
    pub fn tick(&mut self, now: Ts, chance: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Phase::Up { heard, .. } = self.phase {
            // A candle is whole when the connection was heard after its end; silence proves nothing.
            self.distrust(now.plus_ms(-SILENT_MS).min(heard), None);
            let closed = self.closer.advance(now.min(heard.plus_ms(GRACE_MS)));
            self.hand_out(closed, now, &mut actions);
            self.declare(heard, now, &mut actions);
            if now.since_ms(self.asked_again) >= ASK_AGAIN_MS {
                self.ask_again(now, &mut actions);
            }
        }
        match &self.phase {
            Phase::Down(until) if now >= *until => {
                self.phase = Phase::Connecting(now);
                actions.push(Action::Connect);
            }
            Phase::Connecting(since) if now.since_ms(*since) >= PATIENCE_MS => {
                self.give_up("no connection within 10 s".to_owned(), now, chance, &mut actions);
            }
            Phase::Up { heard, .. } if now.since_ms(*heard) >= DEAD_AFTER_MS => {
                self.give_up("not even a heartbeat for 10 s".to_owned(), now, chance, &mut actions);
            }
            Phase::Up { asked, open, .. } if !open.is_empty() && now.since_ms(*asked) >= PATIENCE_MS => {
                let missing: Vec<String> = open.iter().map(|(channel, symbol)| format!("{channel} {symbol}")).collect();
                let why = format!("no answer within 10 s to the subscription of {}", missing.join(", "));
                self.give_up(why, now, chance, &mut actions);
            }
            _ => {}
        }
        actions
    }

    /// The connection stands.
    pub fn opened(&mut self, now: Ts) -> Vec<Action> {
        self.counts.connections += 1;
        self.declared = now.floor_to(self.frame.ms());
        let served: Vec<Symbol> =
            self.symbols.iter().copied().filter(|symbol| !self.refused.contains_key(&symbol.to_string())).collect();
        let open = CHANNELS.iter().flat_map(|channel| served.iter().map(|symbol| (*channel, *symbol))).collect();
        self.phase = Phase::Up { since: now, heard: now, asked: now, open };
        self.books.values_mut().for_each(|book| *book = OrderBook::default());
        self.witness.reconnected(now);
        self.asked_again = now;
        // Also what was refused; only nobody waits for the answer to that.
        self.subscriptions(&self.symbols)
    }

    fn subscriptions(&self, symbols: &[Symbol]) -> Vec<Action> {
        let minutes = u32::try_from(self.frame.ms() / 60_000).unwrap_or(1);
        wire::subscriptions(symbols, minutes).into_iter().map(Action::Send).collect()
    }

    /// A venue that refuses a symbol today may serve it in a while: after its maintenance, after a listing.
    fn ask_again(&mut self, now: Ts, actions: &mut Vec<Action>) {
        self.asked_again = now;
        let refused = |symbol: &&Symbol| self.refused.contains_key(&symbol.to_string());
        let refused: Vec<Symbol> = self.symbols.iter().filter(refused).copied().collect();
        if !refused.is_empty() {
            actions.extend(self.subscriptions(&refused));
        }
    }

    /// The connection was lost or could not be opened.
    pub fn lost(&mut self, why: String, now: Ts, chance: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        if !matches!(self.phase, Phase::Down(_)) {
            self.give_up(why, now, chance, &mut actions);
            actions.retain(|action| *action != Action::Close);
        }
        actions
    }

    /// A text frame arrived.
    pub fn heard(&mut self, text: &str, now: Ts) -> Vec<Action> {
        let mut actions = Vec::new();
        match &mut self.phase {
            Phase::Up { heard, .. } => *heard = now,
            // What was under way when a connection was given up.
            _ => return actions,
        }
        self.counts.frames += 1;
        match wire::decode(text) {
            Err(error) => {
                self.counts.odd_frames += 1;
                actions.push(Action::Tell(Notice::Odd(error.to_string())));
            }
            Ok(Frame::Heartbeat | Frame::Pong | Frame::Other(_)) => {}
            Ok(Frame::Status(system)) => {
                if system != self.system {
                    actions.push(Action::Tell(Notice::System(system.clone())));
                    self.system = system;
                    if self.system == ONLINE {
                        self.ask_again(now, &mut actions);
                    }
                }
            }
            Ok(Frame::Subscribed { channel, symbol, warnings }) => {
                self.remark(warnings, &mut actions);
                self.subscribed(&channel, symbol, &mut actions);
            }
            Ok(Frame::Refused { symbol, error }) => self.turned_down(symbol, error, &mut actions),
            Ok(Frame::Ohlc(rows)) => self.candles(&rows, now, &mut actions),
            Ok(Frame::Ticker(row)) => self.price(row, now, &mut actions),
            Ok(Frame::Book(frame)) => self.book(&frame, now, &mut actions),
        }
        actions
    }

    fn subscribed(&mut self, channel: &str, symbol: Symbol, actions: &mut Vec<Action>) {
        let Phase::Up { open, .. } = &mut self.phase else { return };
        let waited = !open.is_empty();
        open.retain(|(name, asked)| !(*name == channel && *asked == symbol));
        if self.refused.remove(&symbol.to_string()).is_some() {
            actions.push(Action::Tell(Notice::Served(symbol)));
        }
        if channel == "ohlc" {
            let from = self.closer.newest(symbol).map(|newest| newest.plus_ms(self.frame.ms()));
            actions.push(Action::Missing { symbol, from });
        }
        self.complete(waited, actions);
    }

    /// The same remark comes with every subscription.
    fn remark(&mut self, warnings: Vec<String>, actions: &mut Vec<Action>) {
        let new = warnings
            .into_iter()
            .filter(|warning| self.remarks.len() < REMARKS_MAX && self.remarks.insert(warning.clone()));
        actions.extend(new.map(Notice::Remark).map(Action::Tell));
    }

    /// One symbol the venue does not serve must not take the others down.
    fn turned_down(&mut self, symbol: Option<String>, error: String, actions: &mut Vec<Action>) {
        let Phase::Up { open, .. } = &mut self.phase else { return };
        let waited = !open.is_empty();
        if let Some(name) = &symbol {
            open.retain(|(_, asked)| asked.to_string() != *name);
            if self.refused.insert(name.clone(), error.clone()).is_some() {
                return self.complete(waited, actions);
            }
        }
        actions.push(Action::Tell(Notice::Refused { symbol, error }));
        self.complete(waited, actions);
    }

    fn complete(&mut self, waited: bool, actions: &mut Vec<Action>) {
        if let Phase::Up { open, .. } = &self.phase
            && waited
            && open.is_empty()
        {
            actions.push(Action::Tell(Notice::Connected));
        }
    }

    fn candles(&mut self, rows: &[OhlcRow], now: Ts, actions: &mut Vec<Action>) {
        for row in rows {
            if !self.symbols.contains(&row.symbol) || self.closer.is_future(row, now) {
                continue;
            }
            // A later candle closes the one before: as it was heard last, which may not be how it ended.
            self.distrust(row.candle.open_time, Some(row.symbol));
            let is_new = self.closer.newest(row.symbol).is_none_or(|newest| row.candle.open_time > newest);
            if is_new && self.witness.candle(row.symbol, now) {
                actions.push(Action::Tell(Notice::CandlesBack(row.symbol)));
            }
        }
        let closed = self.closer.take(rows, now);
        self.hand_out(closed, now, actions);
    }

    /// Forgets held candles that ended by `end` and had trades after their last form: nobody knows what they became.
    fn distrust(&mut self, end: Ts, only: Option<Symbol>) {
        for symbol in self.symbols.iter().filter(|symbol| only.is_none_or(|only| only == **symbol)) {
            if self.closer.holds(*symbol, end)
                && let Some(start) = self.closer.held(*symbol).filter(|start| self.witness.suspects(*symbol, *start))
            {
                self.closer.forget(*symbol);
                self.witness.doubt_about(*symbol, start);
            }
        }
    }

    fn hand_out(&mut self, closed: Closed, now: Ts, actions: &mut Vec<Action>) {
        self.counts.late_rows += closed.late;
        self.counts.future_rows += closed.future;
        for (symbol, candle) in closed.candles.into_iter().filter(|(symbol, _)| self.symbols.contains(symbol)) {
            // Those before it are asked for first, so that it waits for them.
            if let Some(from) = self.witness.doubt(symbol).filter(|from| *from < candle.open_time) {
                actions.push(Action::Hole { symbol, from });
            }
            self.witness.closed(symbol, candle.open_time);
            actions.push(Action::Item(FeedItem { symbol, available_at: now, kind: FeedKind::Candle(candle) }));
        }
    }

    /// Says of which symbols nothing was traded in the minutes that have ended: everything sent before `heard` has arrived.
    /// What is not known to be silent is not called so: with trades in it the venue is asked at once, and when nothing at all
    /// was heard of the symbol, with its next candle.
    fn declare(&mut self, heard: Ts, now: Ts, actions: &mut Vec<Action>) {
        let end = now.plus_ms(-SILENT_MS).min(heard).floor_to(self.frame.ms());
        if end <= self.declared {
            return;
        }
        self.declared = end;
        let start = end.plus_ms(-self.frame.ms());
        for symbol in &self.symbols {
            let known = self.closer.newest(*symbol).is_some_and(|newest| newest >= start);
            if !self.is_subscribed(*symbol) || known || self.closer.holds(*symbol, end) {
                continue;
            }
            match self.witness.judge(*symbol, start) {
                Verdict::Silent => actions.push(match self.witness.doubt(*symbol) {
                    // One before it may still come, and would be too late for the longer candles that this one closes.
                    Some(from) => Action::Hole { symbol: *symbol, from },
                    None => Action::Item(FeedItem { symbol: *symbol, available_at: now, kind: FeedKind::Settled(end) }),
                }),
                Verdict::Doubtful => {}
                Verdict::Lacking { freezes } => {
                    let from = self.witness.doubt(*symbol).unwrap_or(start);
                    actions.push(Action::Hole { symbol: *symbol, from });
                    if freezes {
                        actions.push(Action::Tell(Notice::CandlesFrozen(*symbol, FROZEN_AFTER)));
                    }
                }
            }
        }
    }

    /// The last trade is the price; its venue time, so that an old price cannot look fresh.
    fn price(&mut self, row: TickerRow, now: Ts, actions: &mut Vec<Action>) {
        let at = row.at.unwrap_or(now).min(now);
        if row.last.is_finite() && row.last > 0.0 && self.symbols.contains(&row.symbol) {
            // The minute of a trade is the venue's, also when our clock is behind.
            self.witness.ticker(row.symbol, row.last, row.volume, row.at.unwrap_or(now), now);
            let at = self.last.trade(row.symbol, row.last, at);
            let item = FeedItem { symbol: row.symbol, available_at: at, kind: FeedKind::Price(row.last) };
            actions.push(Action::Item(item));
        }
    }

    fn book(&mut self, frame: &BookFrame, now: Ts, actions: &mut Vec<Action>) {
        let Some(book) = self.books.get_mut(&frame.symbol) else { return };
        self.witness.book(frame.symbol, now);
        match book.take(frame) {
            Ok(()) => {
                let item = |available_at, kind| Action::Item(FeedItem { symbol: frame.symbol, available_at, kind });
                let usd = self.last.quote_in_usd(frame.symbol);
                actions.extend(usd.and_then(|usd| book.view(usd)).map(|view| item(now, FeedKind::Book(view))));
                let at = frame.at.unwrap_or(now).min(now);
                if let Some((mid, spread_bps)) = book.middle()
                    && self.last.mid(frame.symbol, mid, spread_bps, at)
                {
                    actions.push(item(at, FeedKind::Mid(mid)));
                }
            }
            // Changes between the loss and the new snapshot.
            Err(super::book::BookError::NoSnapshot) => {}
            Err(error) => {
                self.counts.broken_books += 1;
                actions.push(no_book(frame.symbol, now));
                actions.push(Action::Tell(Notice::BookBroken { symbol: frame.symbol, why: error.to_string() }));
                actions.extend(wire::again_book(frame.symbol).into_iter().map(Action::Send));
            }
        }
    }

    fn give_up(&mut self, why: String, now: Ts, chance: f64, actions: &mut Vec<Action>) {
        if let Phase::Up { since, heard, .. } = self.phase {
            if now.since_ms(since) >= GOOD_AFTER_MS {
                self.failures = 0;
            }
            self.distrust(heard, None);
            let closed = self.closer.cut(heard);
            self.hand_out(closed, now, actions);
            for (symbol, book) in self.books.iter_mut().filter(|(_, book)| book.is_known()) {
                *book = OrderBook::default();
                actions.push(no_book(*symbol, now));
            }
        }
        self.counts.losses += 1;
        let again_at = now.plus_ms(wait_ms(self.waits, self.failures, chance));
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Down(again_at);
        actions.push(Action::Close);
        actions.push(Action::Tell(Notice::Disconnected { why, again_at }));
    }
}

/// Doubled with every failure, spread over its upper half by chance: many clients do not come back in one instant.
fn wait_ms(waits: Waits, failures: u32, chance: f64) -> i64 {
    let whole = waits.first_ms.saturating_mul(1_i64 << failures.min(16)).min(waits.longest_ms);
    whole / 2 + (whole as f64 / 2.0 * chance.clamp(0.0, 1.0)) as i64
}

/// What was known of a book is not known any more.
fn no_book(symbol: Symbol, now: Ts) -> Action {
    Action::Item(FeedItem { symbol, available_at: now, kind: FeedKind::NoBook })
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "session_candle_tests.rs"]
mod candle_tests;
