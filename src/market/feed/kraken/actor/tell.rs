//! What the link tells of itself: log lines, the bus, the view behind `status`, and which symbols' prices have stopped.

use std::borrow::Cow;

use super::link::{Link, Parts};
use crate::{
    bus::{MarketData, Payload},
    market::feed::kraken::session::{Action, Notice},
    model::{Clock, Symbol, Ts},
};

/// Its name on the bus.
const NAME: &str = "kraken";

impl Parts {
    pub(super) fn announce(&self, symbol: Option<Symbol>, healthy: bool, detail: String) {
        let health = MarketData::FeedHealth { symbol, feed: Cow::Borrowed(NAME), healthy, detail: Cow::Owned(detail) };
        self.bus.publish("market", symbol, Payload::Market(health));
    }
}

impl Link {
    /// A connection that stands says nothing about data: prices that stop are told once, and again when they are back.
    pub(super) fn notice_silence(&mut self, now: Ts) {
        for change in self.silence.judge(now, self.session.up_since()) {
            let (symbol, silent, age_ms) = (change.symbol, change.silent, change.age_ms);
            self.parts.view.change(|view| {
                let line = view.symbols.entry(symbol).or_default();
                line.silent = silent;
                line.silences += u64::from(silent);
            });
            if silent {
                let text = format!("no price for {age_ms} ms, the connection stands");
                tracing::warn!("{symbol}: {text}; nothing is entered in it");
                self.parts.announce(Some(symbol), false, text);
            } else {
                tracing::info!("{symbol}: prices are back");
                self.parts.announce(Some(symbol), true, "prices are back".to_owned());
            }
        }
        if let Some(stopped) = self.silence.stopped(now) {
            (self.parts.on_silence)(stopped.clone());
        }
    }

    pub(super) fn tell_of(&mut self, action: Action) {
        let Action::Tell(notice) = action else { return };
        match notice {
            Notice::Connected => {
                tracing::info!("connected to {} and subscribed", self.parts.ws_url);
                let now = self.parts.clock.now();
                for symbol in self.parts.symbols.iter().filter(|symbol| self.session.is_subscribed(**symbol)) {
                    self.silence.expect(*symbol, now);
                }
                self.parts.announce(None, true, "connected and subscribed".to_owned());
            }
            Notice::Disconnected { why, again_at } => {
                tracing::warn!("no connection to {}: {why}; tried again at {again_at}", self.parts.ws_url);
                self.parts.announce(None, false, why);
            }
            Notice::Refused { symbol, error } => {
                let name = symbol.as_deref().unwrap_or("a subscription");
                tracing::error!(
                    "the venue refuses {name}: {error}; the other symbols go on, it is asked for again later"
                );
                let known = symbol.as_deref().and_then(|name| name.parse::<Symbol>().ok());
                self.parts.announce(known, false, format!("refused: {error}"));
            }
            Notice::Served(symbol) => {
                tracing::info!("the venue serves {symbol} now");
                self.silence.expect(symbol, self.parts.clock.now());
                self.parts.announce(Some(symbol), true, "served".to_owned());
            }
            Notice::Remark(text) => tracing::warn!("the venue remarks about a subscription: {text}"),
            Notice::System(system) => {
                tracing::warn!("the venue's engine is `{system}`");
                let healthy = system == "online";
                self.parts.announce(None, healthy, format!("the venue's engine is {system}"));
            }
            Notice::BookBroken { symbol, why } => {
                tracing::warn!("{symbol}: the book is asked for anew: {why}");
                self.parts.view.change(|view| view.symbols.entry(symbol).or_default().broken_books += 1);
            }
            Notice::CandlesFrozen(symbol, candles) => {
                let text = format!("the last {candles} candles did not come although there were trades");
                tracing::warn!("{symbol}: {text}; they are fetched, nothing is entered in it");
                self.silence.candles(symbol, true);
                self.parts.view.change(|view| {
                    let line = view.symbols.entry(symbol).or_default();
                    line.candles_frozen = true;
                    line.candle_freezes += 1;
                });
                self.parts.announce(Some(symbol), false, text);
            }
            Notice::CandlesBack(symbol) => {
                tracing::info!("{symbol}: candles come again");
                self.silence.candles(symbol, false);
                self.parts.view.change(|view| view.symbols.entry(symbol).or_default().candles_frozen = false);
                self.parts.announce(Some(symbol), true, "candles come again".to_owned());
            }
            Notice::Odd(why) => tracing::warn!("{why}"),
        }
    }

    pub(super) fn show(&self) {
        let counts = self.session.counts();
        self.parts.view.change(|view| {
            view.connected = self.session.is_up();
            view.reconnects = counts.connections.saturating_sub(1);
            view.losses = counts.losses;
            (view.frames, view.odd_frames) = (counts.frames, counts.odd_frames);
            (view.late_rows, view.future_rows) = (counts.late_rows, counts.future_rows);
            if view.system != self.session.system() {
                self.session.system().clone_into(&mut view.system);
            }
            for symbol in &self.parts.symbols {
                let line = view.symbols.entry(*symbol).or_default();
                line.subscribed = self.session.is_subscribed(*symbol);
                line.refused = self.session.refused().get(&symbol.to_string()).cloned();
            }
        });
    }
}
