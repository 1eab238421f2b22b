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

#[test]
fn a056_a057_a_choppy_market_aborts_and_waits_when_told_to() {
    for (fallback, word) in [(ResolutionAction::Abort, "aborted"), (ResolutionAction::Wait, "waited")] {
        let setup = with_opinions(Bias::Long, Regime::Choppy).with(|s| {
            s.conflicts.fallback.insert(ConflictKind::RegimeConflict, fallback);
        });
        setup.play(async |world| {
            world.wishes.set(btc(), Wish { confidence: 0.99, ..Wish::buy() });
            world.until(150).await;
            let ends: Vec<_> = world.ends().iter().map(|end| end.name().to_owned()).filter(|n| n != "hold").collect();
            assert_eq!(ends, [word], "{}", world.timeline());
            assert_eq!(world.count("TradeIntent"), 0);
        });
    }
}

#[test]
fn a113_a_pause_between_signal_and_risk_suppresses_the_entry() {
    let mut setup = Setup::new();
    setup.doubles.reserve = Some(Rc::new(|_| Reply::Pass(5_000)));
    setup.play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(123).await;
        assert_eq!(world.count("Sized"), 1);
        world.order("p", Command::Pause { reason: String::new() }).await;
        world.until(140).await;
        assert!(world.ends().contains(&DecisionEnd::Suppressed("paused".into())), "{}", world.timeline());
        assert_eq!(world.count("TradeIntent"), 0);
        assert!(world.state().risk.reservations.is_empty());
    });
}

#[test]
fn a066_a_decision_outlives_its_run() {
    let mut setup = Setup::new().with(|s| s.tasks.get_mut(&TaskName::TradingDecision).unwrap().timeout_seconds = 5);
    setup.doubles.reserve = Some(Rc::new(|_| Reply::Pass(9_000)));
    setup.play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        assert_eq!(world.state().positions.len(), 1, "{}", world.timeline());
        assert!(world.notes("task_error").is_empty());
    });
}

#[test]
fn a114_analysis_goes_on_while_paused() {
    Setup::new().play(async |world| {
        world.order("p", Command::Pause { reason: String::new() }).await;
        world.wishes.set(btc(), Wish::buy());
        world.until(601).await;
        assert_eq!(world.seen.seconds(TaskName::TechnicalAnalysis, btc()).len(), 11);
        assert!(world.seen.of(TaskName::TradingDecision, btc()).is_empty());
        assert_eq!(world.count("TradeIntent"), 0);
        let status = world.status().await;
        let row = status.tasks.iter().find(|t| t.task == TaskName::TradingDecision && t.symbol == btc()).unwrap();
        assert_eq!(row.last_skip_reason.as_deref(), Some("state_paused"));
    });
}

#[test]
fn a116_three_order_errors_in_a_row_cool_entries_down_for_a_quarter_of_an_hour() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.faults.set(Some((3, Fault::Definite)));
        world.until(170).await;
        assert_eq!(world.count("TradeNotExecuted"), 3, "{}", world.timeline());
        let cooldowns = world.all(|event| match event {
            Event::CooldownSet { until, cause: CooldownCause::OrderErrors } => Some(*until),
            _ => None,
        });
        assert_eq!(cooldowns.len(), 1);
        let third = world.times("TradeNotExecuted")[2];
        assert_eq!(cooldowns[0].since_ms(world.start) as f64 / 1_000.0, third + 900.0);
        assert_eq!(world.state().positions.len(), 1, "the fourth attempt");
    });
}

#[test]
fn a126_nothing_is_entered_while_the_level_is_emergency() {
    let sizes = |silent_from: i64| {
        let early = silent_from.min(0);
        Setup::new().at(START.plus_ms(early * 1_000)).play(async |world| {
            world.wishes.set(btc(), Wish::buy());
            world.until(silent_from - early + 5).await;
            world.tape.silence(sym("XRP/BTC"));
            world.until(150 - early).await;
            let level = world.status().await.degradation;
            let sized = world.all(|event| match event {
                Event::Sized { sizing, .. } => Some(sizing.notional.normalize()),
                _ => None,
            });
            (level, sized, world.ends().into_iter().filter(|end| *end != DecisionEnd::Hold).collect::<Vec<_>>())
        })
    };
    let (_, whole, _) = sizes(149);
    assert_eq!(whole, [dec("1000")]);
    // The decision hour falls into EMERGENCY: nothing is decided, nothing is bought.
    let (level, none, ends) = sizes(-200);
    assert_eq!((level.as_str(), none, ends), ("EMERGENCY", vec![], vec![]));
}

/// The level at the decision hour, which comes 120 s after the start, when a symbol falls silent so many seconds after it.
fn silent_from(second: i64) -> (Setup, impl AsyncFn(&World)) {
    let silence = async move |world: &World| {
        world.until(second).await;
        world.tape.silence(sym("XRP/BTC"));
    };
    (Setup::new(), silence)
}

#[test]
fn a125_reduced_by_a_silent_market_halves_entries_defers_legs_and_leaves_sentiment_out() {
    let (setup, silence) = silent_from(75);
    let setup = setup.with(|s| s.tasks.get_mut(&TaskName::SentimentAnalysis).unwrap().enabled = true);
    setup.play(async |world| {
        let sentiment = async || {
            let status = world.status().await;
            let of_btc = |t: &&triplegain::coordinator::status::TaskStatus| {
                t.task == TaskName::SentimentAnalysis && t.symbol == btc()
            };
            let skip = status.tasks.iter().find(of_btc).unwrap().last_skip_reason.clone();
            let stats = world.stats().await.stats;
            let of_task = stats.keys.iter().filter(|key| key.key.task == TaskName::SentimentAnalysis);
            (of_task.map(|key| key.counts.started).sum::<u64>(), skip)
        };
        world.until(60).await;
        let (started, _) = sentiment().await;
        assert!(started > 0, "at NORMAL it is asked");
        world.wishes.set(btc(), Wish::buy());
        silence(world).await;
        world.until(122).await;
        assert_eq!(world.status().await.degradation, "REDUCED", "{}", world.timeline());
        world.tape.speak(sym("XRP/BTC"));
        world.until(150).await;
        let sized = world.all(|event| match event {
            Event::Sized { sizing, .. } => Some((sizing.degradation_factor.normalize(), sizing.notional.normalize())),
            _ => None,
        });
        assert_eq!(sized, [(dec("0.5"), dec("500"))], "{}", world.timeline());
        assert_eq!(world.state().positions.len(), 1, "trading is not blocked by it");
        world.until(200).await;
        assert_eq!(world.status().await.degradation, "REDUCED");
        let (later, skip) = sentiment().await;
        assert_eq!((later, skip.as_deref()), (started, Some("degraded")));
    });
}

#[test]
fn a065_limited_by_a_silent_market_asks_no_resolver_and_enters_nothing() {
    let asked = |second: i64| {
        let (mut setup, silence) = silent_from(second);
        let count = Rc::new(std::cell::Cell::new(0));
        let counter = Rc::clone(&count);
        setup.doubles.regime = Rc::new(|run| Reply::Now(regime(&run.ctx, Regime::Choppy)));
        setup.doubles.resolver = Some(Rc::new(move |_| {
            counter.set(counter.get() + 1);
            Reply::Pass(0)
        }));
        setup.play(async |world| {
            world.wishes.set(btc(), Wish { confidence: 0.99, ..Wish::buy() });
            silence(world).await;
            world.until(121).await;
            let level = world.status().await.degradation;
            world.until(150).await;
            let ends: Vec<_> = world.ends().into_iter().filter(|end| *end != DecisionEnd::Hold).collect();
            assert_eq!(world.count("TradeIntent"), 0, "{}", world.timeline());
            (level, count.get(), ends.iter().map(|end| end.name().to_owned()).collect::<Vec<_>>())
        })
    };
    assert_eq!(asked(119), ("NORMAL".to_owned(), 1, vec!["aborted".to_owned()]));
    assert_eq!(asked(45), ("LIMITED".to_owned(), 0, vec!["suppressed".to_owned()]));
}
