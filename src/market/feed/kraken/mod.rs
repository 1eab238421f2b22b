//! Kraken's public market data: WebSocket v2 frames, the book with its checksum, and when a candle is closed. Pure; who
//! connects and reads bytes stands elsewhere.

pub mod action;
pub mod actor;
pub mod backfill;
pub mod book;
pub mod candles;
pub mod prices;
pub mod rest;
pub mod session;
pub mod silence;
pub mod view;
pub mod wire;
pub mod witness;
