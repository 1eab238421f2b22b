//! Settings a store takes at its creation and never again. Pure.

use std::collections::BTreeSet;

use crate::{model::State, settings::Settings};

/// One warning for each setting that says something else than the store that exists; it has no effect any more.
pub fn without_effect(settings: &Settings, state: &State) -> Vec<String> {
    let mut warnings = Vec::new();
    let advice = "it counts for a new store only: choose another `--store`, or put the value back";
    if settings.seed != 0 && settings.seed != state.meta.seed {
        let (given, kept) = (settings.seed, state.meta.seed);
        warnings.push(format!("seed = {given} has no effect, this store began with {kept}; {advice}"));
    }
    let (given, kept) = (&settings.account.initial_balances, &state.account.baseline);
    for asset in given.keys().chain(kept.keys()).copied().collect::<BTreeSet<_>>() {
        let [given, kept] = [given, kept].map(|amounts| amounts.get(&asset).copied().unwrap_or_default());
        if given != kept {
            let text =
                format!("account.initial_balances.{asset} = {given} has no effect, this store began with {kept}");
            warnings.push(format!("{text}; {advice}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Asset, Money};

    fn asset(name: &str) -> Asset {
        name.parse().unwrap()
    }

    /// A store that began as the settings say.
    fn begun() -> (Settings, State) {
        let mut settings = Settings::defaults();
        settings.seed = 7;
        settings.account.initial_balances = [(asset("USDT"), Money::from(10_000)), (asset("BTC"), Money::ZERO)].into();
        let mut state = State::default();
        state.meta.seed = 7;
        state.account.baseline = [(asset("USDT"), Money::from(10_000))].into();
        (settings, state)
    }

    #[test]
    fn settings_that_are_still_true_are_not_mentioned_and_no_seed_fits_every_store() {
        let (mut settings, state) = begun();
        assert_eq!(without_effect(&settings, &state), Vec::<String>::new());
        settings.seed = 0;
        assert_eq!(without_effect(&settings, &state), Vec::<String>::new());
    }

    #[test]
    fn each_changed_one_is_named_with_both_values_and_what_to_do() {
        let (mut settings, state) = begun();
        settings.seed = 8;
        settings.account.initial_balances = [(asset("USDC"), Money::from(5))].into();
        let warnings = without_effect(&settings, &state);
        let begins: Vec<&str> = warnings.iter().map(|text| text.split(';').next().unwrap()).collect();
        assert_eq!(
            begins,
            [
                "seed = 8 has no effect, this store began with 7",
                "account.initial_balances.USDC = 5 has no effect, this store began with 0",
                "account.initial_balances.USDT = 0 has no effect, this store began with 10000",
            ]
        );
        assert!(warnings.iter().all(|text| text.contains("--store")));
    }
}
