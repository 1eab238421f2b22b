//! Which prices are believed.

use super::*;

const FACTOR: f64 = 1.5;

/// Feeds (second, price) and answers which were believed.
fn believed(prices: &[(i64, f64)]) -> Vec<bool> {
    let mut guard = JumpGuard::default();
    let one = |(second, price): &(i64, f64)| guard.believes(&[*price], *price, Ts(second * 1000), FACTOR);
    prices.iter().map(one).collect()
}

#[test]
fn the_limit_itself_is_believed_and_what_lies_beyond_is_not_in_both_directions() {
    assert_eq!(believed(&[(0, 100.0), (1, 150.0)]), [true, true]);
    assert_eq!(believed(&[(0, 100.0), (1, 150.1)]), [true, false]);
    assert_eq!(believed(&[(0, 150.0), (1, 100.0)]), [true, true]);
    assert_eq!(believed(&[(0, 150.1), (1, 100.0)]), [true, false]);
}

#[test]
fn one_wrong_price_changes_nothing() {
    assert_eq!(
        believed(&[(0, 100.0), (1, 100_000.0), (2, 101.0), (3, 0.1), (4, 99.0)]),
        [true, false, true, false, true]
    );
}

#[test]
fn a_new_level_is_believed_when_three_agree_over_two_minutes() {
    assert_eq!(
        believed(&[(0, 100.0), (60, 200.0), (120, 205.0), (180, 210.0), (240, 211.0)]),
        [true, false, false, true, true]
    );
    assert_eq!(
        believed(&[(0, 100.0), (60, 200.0), (61, 200.0), (62, 200.0), (179, 200.0)]),
        [true, false, false, false, false]
    );
    assert_eq!(believed(&[(0, 100.0), (60, 200.0), (180, 200.0), (181, 200.0)]), [true, false, false, true]);
}

#[test]
fn a_price_at_the_old_level_between_them_starts_the_agreement_over() {
    let prices = [(0, 100.0), (60, 200.0), (120, 200.0), (150, 100.0), (180, 200.0), (240, 200.0), (300, 200.0)];
    assert_eq!(believed(&prices), [true, false, false, true, false, false, true]);
}

#[test]
fn wrong_prices_that_contradict_each_other_never_agree() {
    let mut prices = vec![(0, 100.0)];
    prices.extend((1..100).map(|n| (n * 60, if n % 2 == 0 { 1_000.0 } else { 100_000.0 })));
    assert_eq!(believed(&prices).into_iter().filter(|known| *known).count(), 1);
}

#[test]
fn the_same_instant_again_is_no_second_opinion() {
    let prices = [(0, 100.0), (60, 200.0), (180, 200.0), (180, 200.0), (180, 200.0), (181, 200.0)];
    assert_eq!(believed(&prices), [true, false, false, false, false, true]);
}

#[test]
fn a_candle_with_one_impossible_price_is_never_believed_however_often_it_comes() {
    let mut guard = JumpGuard::default();
    for minute in 0..10 {
        assert!(!guard.believes(&[100.0, 100_000.0, 99.0, 100.0], 100.0, Ts(minute * 60_000), FACTOR));
        assert!(guard.in_doubt());
    }
    assert!(guard.believes(&[100.0, 101.0, 99.0, 100.0], 100.0, Ts(600_000), FACTOR));
    assert!(!guard.in_doubt());
}
