//! The sentiment analyst. This release has no news or social provider, so it has no opinion and says why.

use super::contract::{Answer, NO_PROVIDER};
use crate::model::SentimentOutput;

/// Abstains `no_provider` (domain §4.3): a mood nobody measured is not "neutral".
pub fn analyse() -> Answer<SentimentOutput> {
    Answer::Abstain(NO_PROVIDER.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_provider_there_is_no_opinion() {
        assert_eq!(analyse(), Answer::Abstain("no_provider".into()));
    }
}
