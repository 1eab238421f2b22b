//! Kraken's public market data: WebSocket v2 frames, the book with its checksum, and when a candle is closed. Pure; who
//! connects and reads bytes stands elsewhere.

pub mod book;
pub mod candles;
pub mod session;
pub mod wire;
