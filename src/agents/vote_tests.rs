//! Tests of the vote.

use proptest::prelude::*;
use rstest::rstest;
use rust_decimal_macros::dec;

use super::*;
use crate::agents::fixtures::boost;

fn levels(action: Action) -> Option<Levels> {
    match action {
        Action::Buy => Some(Levels { entry: dec!(100), stop: dec!(98), target: dec!(104) }),
        Action::Sell => Some(Levels { entry: dec!(100), stop: dec!(102), target: dec!(96) }),
        _ => None,
    }
}

fn vote(action: Action, confidence: f64) -> Ballot {
    let size = if levels(action).is_some() { 8.0 } else { 0.0 };
    Ballot::Vote(Vote {
        action,
        confidence: Score::from_f64(confidence),
        levels: levels(action),
        position_size_pct: Score::from_f64(size),
        reasoning: String::new(),
    })
}

fn named(ballots: Vec<Ballot>) -> Vec<NamedBallot> {
    ballots
        .into_iter()
        .enumerate()
        .map(|(i, ballot)| NamedBallot { voter: format!("v{i}").into(), ballot, model: None })
        .collect()
}

/// `B`uy, `S`ell, `H`old at 0.60, `A`bstain, `F`ailed.
fn ballots(text: &str) -> Vec<NamedBallot> {
    named(
        text.chars()
            .map(|c| match c {
                'B' => vote(Action::Buy, 0.60),
                'S' => vote(Action::Sell, 0.60),
                'H' => vote(Action::Hold, 0.60),
                'A' => Ballot::Abstain("insufficient_data".to_owned()),
                _ => Ballot::Failed("late".to_owned()),
            })
            .collect(),
    )
}

fn outcome(text: &str) -> Outcome {
    decide(&ballots(text), 0, &boost()).expect("a valid vote")
}

#[rstest]
#[case::a067_all("BBBBBB", Action::Buy, VoteClass::Unanimous, 0.75)]
#[case::a067_five("BBBBBS", Action::Buy, VoteClass::StrongMajority, 0.70)]
#[case::a067_four("BBBBSH", Action::Buy, VoteClass::Majority, 0.65)]
#[case::a067_three_three("BBBSSS", Action::Hold, VoteClass::NoMajority, 0.0)]
#[case::a067_two_two_two("BBSSHH", Action::Hold, VoteClass::NoMajority, 0.60)]
#[case::a068_below_quorum("BBBAAF", Action::Hold, VoteClass::InsufficientQuorum, 0.0)]
#[case::a068_holders_do_not_lift_it("HHHAAF", Action::Hold, VoteClass::InsufficientQuorum, 0.0)]
#[case::a069_four_of_six_asked("BBBBAF", Action::Buy, VoteClass::Majority, 0.65)]
#[case::a070_three_of_five_valid("BBBSHA", Action::Buy, VoteClass::Split, 0.60)]
#[case::held_by_choice("HHHHHH", Action::Hold, VoteClass::Unanimous, 0.75)]
#[case::sell("SSSSSB", Action::Sell, VoteClass::StrongMajority, 0.70)]
#[case::one_voter("B", Action::Buy, VoteClass::Unanimous, 0.75)]
fn a067_to_a070_winner_class_and_boost(
    #[case] text: &str,
    #[case] action: Action,
    #[case] class: VoteClass,
    #[case] confidence: f64,
) {
    let outcome = outcome(text);
    assert_eq!((outcome.action, outcome.class), (action, class));
    assert_eq!(outcome.confidence, Score::from_f64(confidence));
    assert_eq!(outcome.levels, levels(action), "levels exactly for BUY and SELL");
    assert_eq!(outcome.asked as usize, text.len());
}

#[test]
fn a071_mean_of_the_winners_plus_boost() {
    let mut all: Vec<Ballot> = [0.60, 0.70, 0.70, 0.80].map(|c| vote(Action::Buy, c)).to_vec();
    all.extend([vote(Action::Hold, 0.99), Ballot::Abstain("x".to_owned())]);
    let outcome = decide(&named(all), 0, &boost()).unwrap();
    assert_eq!((outcome.confidence, outcome.valid), (Score::from_f64(0.75), 5));
}

#[test]
fn confidence_never_exceeds_one_and_means_round_half_even() {
    let sure = named(vec![vote(Action::Buy, 0.95); 6]);
    assert_eq!(decide(&sure, 0, &boost()).unwrap().confidence, Score::ONE);
    assert_eq!((half_even(1, 2), half_even(3, 2), half_even(5, 3)), (Score(0), Score(2), Score(2)));
    assert_eq!(half_even(7, 0), Score::ZERO);
}

#[test]
fn a076_no_valid_vote_is_no_outcome() {
    assert_eq!(decide(&ballots("AAAAAA"), 0, &boost()), None);
    assert_eq!(decide(&[], 0, &boost()), None);
}

#[rstest]
#[case(0, 6, 4)]
#[case(0, 5, 4)]
#[case(0, 4, 3)]
#[case(0, 3, 2)]
#[case(0, 1, 1)]
#[case(2, 6, 2)]
fn quorum_is_two_thirds_rounded_up(#[case] configured: u32, #[case] asked: u32, #[case] needed: u32) {
    assert_eq!(quorum(configured, asked), needed);
}

#[rstest]
#[case::stop_above_entry(Action::Buy, dec!(101), dec!(104))]
#[case::stop_at_entry(Action::Buy, dec!(100), dec!(104))]
#[case::target_below_entry(Action::Buy, dec!(98), dec!(99))]
#[case::reward_below_1_5(Action::Buy, dec!(98), dec!(102.99))]
#[case::stop_not_a_price(Action::Buy, dec!(0), dec!(300))]
#[case::sell_with_stop_below(Action::Sell, dec!(98), dec!(96))]
#[case::sell_target_above(Action::Sell, dec!(102), dec!(104))]
fn a074_an_incoherent_vote_fails(#[case] action: Action, #[case] stop: Decimal, #[case] target: Decimal) {
    let Ballot::Vote(mut vote) = vote(action, 0.7) else { panic!("no vote") };
    vote.levels = Some(Levels { entry: dec!(100), stop, target });
    let ballot = checked(Ballot::Vote(vote));
    assert_eq!(ballot, Ballot::Failed(INCOHERENT.to_owned()));
    let mut all = ballots("BBBBB");
    all.push(NamedBallot { voter: "bad".into(), ballot, model: None });
    assert_eq!(decide(&all, 0, &boost()).unwrap().valid, 5, "not counted valid");
}

#[test]
fn a05_a_buy_without_levels_fails_and_a_close_needs_none() {
    let Ballot::Vote(mut bare) = vote(Action::Buy, 0.7) else { panic!("no vote") };
    bare.levels = None;
    assert_eq!(checked(Ballot::Vote(bare.clone())), Ballot::Failed(INCOHERENT.to_owned()));
    bare.action = Action::CloseLong;
    assert_eq!(checked(Ballot::Vote(bare.clone())), Ballot::Vote(bare.clone()));
    bare.confidence = Score(10_001);
    assert_eq!(checked(Ballot::Vote(bare)), Ballot::Failed(OUT_OF_RANGE.to_owned()));
    assert!(is_coherent(Action::Buy, levels(Action::Buy).as_ref()));
    assert_eq!(MIN_REWARD_RISK, dec!(1.5));
}

#[test]
fn levels_and_size_are_the_component_wise_median() {
    let with = |entry, stop, target, size: f64| {
        let Ballot::Vote(mut vote) = vote(Action::Buy, 0.6) else { panic!("no vote") };
        vote.levels = Some(Levels { entry, stop, target });
        vote.position_size_pct = Score::from_f64(size);
        Ballot::Vote(vote)
    };
    let winners = vec![
        with(dec!(100), dec!(98), dec!(104), 5.0),
        with(dec!(100), dec!(97), dec!(106), 6.0),
        with(dec!(101), dec!(98.5), dec!(105), 9.0),
        with(dec!(102), dec!(99), dec!(110), 10.0),
    ];
    let outcome = decide(&named(winners), 0, &boost()).unwrap();
    assert_eq!(outcome.levels, Some(Levels { entry: dec!(100.5), stop: dec!(98.25), target: dec!(105.5) }));
    assert_eq!(outcome.position_size_pct, Score::from_f64(7.5));
}

#[test]
fn medians_that_do_not_fit_together_are_a_hold() {
    let with = |entry, stop, target| {
        let Ballot::Vote(mut vote) = vote(Action::Buy, 0.6) else { panic!("no vote") };
        vote.levels = Some(Levels { entry, stop, target });
        Ballot::Vote(vote)
    };
    // each coherent; the medians 100, 95, 104.5 have reward:risk 0.9
    let mut all = vec![
        with(dec!(90), dec!(80), dec!(105)),
        with(dec!(100), dec!(99), dec!(104)),
        with(dec!(101), dec!(95), dec!(110)),
        with(dec!(100), dec!(95), dec!(107.5)),
        with(dec!(102), dec!(101), dec!(103.5)),
    ];
    for ballot in &all {
        assert!(matches!(checked(ballot.clone()), Ballot::Vote(_)));
    }
    all.push(vote(Action::Hold, 0.55));
    let outcome = decide(&named(all), 0, &boost()).unwrap();
    assert_eq!((outcome.action, outcome.class), (Action::Hold, VoteClass::Incoherent));
    assert_eq!((outcome.confidence, outcome.levels), (Score::from_f64(0.55), None));
}

fn any_ballot() -> impl Strategy<Value = Ballot> {
    let action = prop_oneof![
        4 => Just(Action::Buy),
        2 => Just(Action::Sell),
        2 => Just(Action::Hold),
        1 => Just(Action::CloseLong),
        1 => Just(Action::CloseShort),
    ];
    let vote = (action, 0..=10_000_i32, 0..200_i64, 1..200_i64, 0..400_i64).prop_map(
        |(action, confidence, shift, risk, extra)| {
            let (entry, risk) = (Decimal::new(10_000 + shift, 2), Decimal::new(risk, 2));
            let reward = risk * dec!(1.5) + Decimal::new(extra, 2);
            let levels = match action {
                Action::Buy => Some(Levels { entry, stop: entry - risk, target: entry + reward }),
                Action::Sell => Some(Levels { entry, stop: entry + risk, target: entry - reward }),
                _ => None,
            };
            let confidence = Score(confidence);
            Vote { action, confidence, levels, position_size_pct: Score(50_000), reasoning: String::new() }
        },
    );
    prop_oneof![
        8 => vote.prop_map(Ballot::Vote),
        1 => Just(Ballot::Abstain("insufficient_data".to_owned())),
        1 => Just(Ballot::Failed("late".to_owned())),
    ]
}

proptest! {
    #[test]
    fn the_winner_is_unique_and_the_class_follows_its_share(all in prop::collection::vec(any_ballot(), 1..12)) {
        let all = named(all);
        let Some(outcome) = decide(&all, 0, &boost()) else {
            prop_assert!(all.iter().all(|b| !matches!(b.ballot, Ballot::Vote(_))));
            return Ok(());
        };
        let count = |action| all.iter().filter(|b| matches!(&b.ballot, Ballot::Vote(v) if v.action == action)).count();
        let actions = [Action::Buy, Action::Sell, Action::Hold, Action::CloseLong, Action::CloseShort];
        let leaders: Vec<Action> = actions.into_iter().filter(|a| 2 * count(*a) > outcome.valid as usize).collect();
        prop_assert!(leaders.len() <= 1);
        prop_assert!((Score::ZERO..=Score::ONE).contains(&outcome.confidence));
        prop_assert!(is_coherent(outcome.action, outcome.levels.as_ref()));
        let share = count(outcome.action) as f64 / all.len() as f64;
        match outcome.class {
            VoteClass::Unanimous => prop_assert_eq!(share, 1.0),
            VoteClass::StrongMajority => prop_assert!((5.0 / 6.0 - 1e-9..1.0).contains(&share)),
            VoteClass::Majority => prop_assert!((2.0 / 3.0 - 1e-9..5.0 / 6.0).contains(&share)),
            VoteClass::Split => prop_assert!(share < 2.0 / 3.0),
            _ => prop_assert_eq!(outcome.action, Action::Hold),
        }
        if matches!(outcome.class, VoteClass::InsufficientQuorum | VoteClass::NoMajority | VoteClass::Incoherent) {
            prop_assert_eq!(outcome.levels, None);
        } else {
            prop_assert_eq!(leaders, vec![outcome.action]);
        }
    }

    #[test]
    fn the_order_of_ballots_never_matters(
        (all, shuffled) in prop::collection::vec(any_ballot(), 1..12)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        prop_assert_eq!(decide(&named(all), 0, &boost()), decide(&named(shuffled), 0, &boost()));
    }
}
