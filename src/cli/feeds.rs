//! What a run is fed with: the configured source, and which symbols of it are watched.

use std::path::Path;

use anyhow::Result;

use super::live_feed;
use crate::{
    market::{
        Feed, Market,
        feed::{
            csv::{CsvFeed, CsvWindow},
            kraken::view::Shared,
            simulated::SimulatedFeed,
        },
    },
    model::{State, Symbol, Timeframe, Ts},
    settings::{MarketSource, Settings},
};

/// The configured folder of candles.
///
/// # Errors
/// A folder or file that cannot be read.
pub(super) fn csv_feed(settings: &Settings) -> Result<CsvFeed> {
    let window = CsvWindow { from: None, to: None, warm_up_ms: 0 };
    Ok(CsvFeed::open(Path::new(&settings.market.csv.dir), &settings.symbols, window)?)
}

/// The configured feed; it continues the same simulated market after a restart. What a live one finds missing at its start is
/// told in `view`.
///
/// # Errors
/// Candles that cannot be read, a market that cannot be made, a venue whose history does not come.
pub(super) async fn make_feed(settings: &Settings, state: &State, now: Ts, view: &Shared) -> Result<Box<dyn Feed>> {
    Ok(match settings.market.source {
        MarketSource::Simulated => {
            let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
            let (simulated, origin) = (&settings.market.simulated, state.meta.created_at);
            Box::new(SimulatedFeed::new(simulated, &settings.symbols, state.meta.seed, origin, now, history_ms)?)
        }
        MarketSource::Csv => Box::new(csv_feed(settings)?),
        MarketSource::Kraken => Box::new(live_feed::open(settings, view).await?),
    })
}

/// The settings the market is watched with: what is open or owned in a symbol that was taken out of them needs its prices,
/// or no stop of it would ever be reached and nothing could be valued. Nothing is scheduled for such a symbol.
pub(super) fn watched(settings: &Settings, state: &State) -> Settings {
    let start_prices = &settings.market.simulated.start_prices;
    let is_fed = |symbol: &Symbol| match settings.market.source {
        MarketSource::Simulated => SimulatedFeed::knows(symbol, start_prices),
        // A replay without the candles of a symbol still is one of the others.
        MarketSource::Csv => csv_feed(&Settings { symbols: vec![*symbol], ..settings.clone() }).is_ok(),
        MarketSource::Kraken => true,
    };
    let mut watched = settings.clone();
    for symbol in state.symbols_at_stake(settings.account_currency) {
        if !watched.symbols.contains(&symbol) && settings.market.symbol.contains_key(&symbol) && is_fed(&symbol) {
            tracing::info!("{symbol} is not in `symbols`; its prices are watched for what is open or owned of it");
            watched.symbols.push(symbol);
        }
    }
    watched
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LedgerAccount;

    #[test]
    fn a_symbol_taken_out_of_the_settings_keeps_its_prices_while_something_of_it_is_held() {
        let mut settings = Settings::defaults();
        let xrp: Symbol = "XRP/USDT".parse().unwrap();
        settings.symbols = vec!["BTC/USDT".parse().unwrap()];
        let mut state = State::default();
        let symbols = |settings: &Settings, state: &State| watched(settings, state).symbols;
        assert_eq!(symbols(&settings, &state), settings.symbols, "nothing is held");
        state.account.ledger.entry(xrp.base).or_default().insert(LedgerAccount::Free, 5.into());
        assert_eq!(symbols(&settings, &state), ["BTC/USDT".parse().unwrap(), xrp]);
        settings.market.symbol.remove(&xrp);
        assert_eq!(symbols(&settings, &state), settings.symbols, "a symbol without rules cannot be watched");
    }
}
