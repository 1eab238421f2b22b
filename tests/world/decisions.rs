//! From a signal to its end.

use std::rc::Rc;

use crate::support::*;

fn with_opinions(bias: Bias, kind: Regime) -> Setup {
    let mut setup = Setup::new();
    setup.doubles.technical = Rc::new(move |run| Reply::Now(ta(&run.ctx, bias)));
    setup.doubles.regime = Rc::new(move |run| Reply::Now(regime(&run.ctx, kind)));
    setup
}

fn consensus_of(world: &World) -> Vec<(u32, f64, String, String)> {
    world.all(|event| match event {
        Event::ConsensusComputed { consensus: c, .. } => {
            Some((c.eligible, c.multiplier, c.confidence_before.to_string(), c.confidence_after.to_string()))
        }
        _ => None,
    })
}

#[test]
fn a041_dissent_lowers_confidence_and_risk_refuses() {
    with_opinions(Bias::Short, Regime::Ranging).play(async |world| {
        world.wishes.set(btc(), Wish { confidence: 0.70, ..Wish::buy() });
        world.until(150).await;
        let seen = consensus_of(world);
        assert_eq!(seen, [(2, 0.85, "0.7000".into(), "0.5950".into())], "{}", world.timeline());
        let refusal = world.all(|event| match event {
            Event::RiskRefused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        });
        assert_eq!(refusal.len(), 1);
        assert_eq!(refusal[0].code, RiskCode::ConfidenceTooLow);
        assert!(refusal[0].limit.contains("0.65"), "{refusal:?}");
        assert_eq!(world.count("TradeIntent"), 0);
    });
}

#[test]
fn a045_a053_two_agreeing_opinions_raise_confidence_and_the_signal_stays_as_it_was() {
    with_opinions(Bias::Long, Regime::TrendingBull).play(async |world| {
        world.wishes.set(btc(), Wish { confidence: 0.70, ..Wish::buy() });
        world.until(150).await;
        assert_eq!(consensus_of(world), [(2, 1.3, "0.7000".into(), "0.9100".into())]);
        let signal = world.all(|event| match event {
            Event::SignalReceived { signal, .. } if signal.action == Action::Buy => Some(signal.head.confidence),
            _ => None,
        });
        assert_eq!(signal, [Score::from_f64(0.70)]);
        assert_eq!(world.state().positions.len(), 1, "{}", world.timeline());
    });
}

#[test]
fn a045_a_neutral_analyst_halves_the_agreement() {
    with_opinions(Bias::Neutral, Regime::TrendingBull).play(async |world| {
        world.wishes.set(btc(), Wish { confidence: 0.70, ..Wish::buy() });
        world.until(150).await;
        assert_eq!(consensus_of(world), [(2, 1.0, "0.7000".into(), "0.7000".into())]);
    });
}
