//! What a session asks of the owner of the socket, and what it counts.

use crate::{
    market::feed::FeedItem,
    model::{Symbol, Ts},
};

/// Waits before connecting again, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The first; doubled with every failure.
    pub first_ms: i64,
    /// The longest.
    pub longest_ms: i64,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { first_ms: 1_000, longest_ms: 60_000 }
    }
}

/// What the owner of the socket has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a connection.
    Connect,
    /// Send a text frame.
    Send(String),
    /// Close the connection; `Session::lost` need not be called for it.
    Close,
    /// Market data.
    Item(FeedItem),
    /// Candles of `from` on should have come over a connection that stands, and did not.
    Hole {
        /// Which symbol.
        symbol: Symbol,
        /// Start of the first of them.
        from: Ts,
    },
    /// A connection stands and all was asked for again; candles of `from` and later may be missing.
    Missing {
        /// Which symbol.
        symbol: Symbol,
        /// Start of the first candle that may be missing; absent when nothing was ever received.
        from: Option<Ts>,
    },
    /// Something to tell the operator.
    Tell(Notice),
}

/// Something to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A connection was lost or could not be opened; the next try comes at that instant.
    Disconnected {
        /// Why.
        why: String,
        /// When it is tried again.
        again_at: Ts,
    },
    /// Connected and subscribed.
    Connected,
    /// The venue does not serve a symbol.
    Refused {
        /// Which one, when the venue says.
        symbol: Option<String>,
        /// Its words.
        error: String,
    },
    /// The venue serves a symbol it has refused before.
    Served(Symbol),
    /// A remark of the venue about a subscription; each is told once.
    Remark(String),
    /// The venue's engine is in another state, for example `maintenance`.
    System(String),
    /// The book of a symbol did not fit its checksum and was asked for anew.
    BookBroken {
        /// Which symbol.
        symbol: Symbol,
        /// What was wrong.
        why: String,
    },
    /// So many candles in a row of a symbol did not come although there were trades in them.
    CandlesFrozen(Symbol, u32),
    /// They come again.
    CandlesBack(Symbol),
    /// A frame could not be understood.
    Odd(String),
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Text frames heard.
    pub frames: u64,
    /// Connections opened.
    pub connections: u64,
    /// Connections lost or given up.
    pub losses: u64,
    /// Books that did not fit their checksum.
    pub broken_books: u64,
    /// Frames that could not be understood.
    pub odd_frames: u64,
    /// Candle rows that came after their candle was closed, and those a new connection repeats.
    pub late_rows: u64,
    /// Candle rows that began more than a minute after our own time; they are not taken.
    pub future_rows: u64,
}
