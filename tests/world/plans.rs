//! Rebalancing in small parts.

use crate::support::*;

fn allocator() -> Setup {
    Setup::new().with(|s| {
        for (task, settings) in &mut s.tasks {
            settings.enabled = *task == TaskName::PortfolioRebalance;
        }
    })
}

fn plan(world: &World) -> Plan {
    world.state().plans.values().next_back().cloned().unwrap_or_else(|| panic!("there is no plan"))
}

fn done(plan: &Plan) -> usize {
    plan.legs.iter().filter(|leg| leg.state == TradeState::Settled).count()
}

const HOUR: i64 = 3_600;

#[test]
fn a153_a157_twelve_legs_over_twenty_hours_and_no_second_plan() {
    allocator().play(async |world| {
        world.until(130).await;
        let planned = plan(world);
        assert_eq!(planned.legs.len(), 12);
        let amounts = |batch: u32| {
            planned.legs.iter().filter(|leg| leg.batch == batch).map(|leg| leg.amount.normalize()).collect::<Vec<_>>()
        };
        assert_eq!(amounts(0), [dec("555.58"), dec("555.58")]);
        for batch in 1..6 {
            assert_eq!(amounts(batch), [dec("555.55"), dec("555.55")]);
        }
        for batch in 0..6u32 {
            let hours = i64::from(batch) * 4;
            world.until(120 + hours * HOUR + 30).await;
            assert_eq!(done(&plan(world)), 2 * (batch as usize + 1), "after {hours} h\n{}", world.timeline());
        }
        assert_eq!(plan(world).state, PlanState::Completed);
        world.until(120 + 30 * HOUR).await;
        assert_eq!(world.count("PlanCreated"), 1);
    });
}

#[test]
fn a158_a_leg_that_falls_due_while_paused() {
    for (minutes, outcome) in [(20, "executed"), (120, "respread"), (300, "superseded")] {
        allocator().play(async |world| {
            world.until(150).await;
            let sum = |plan: &Plan| plan.legs.iter().map(|leg| leg.amount).sum::<Decimal>();
            let before = sum(&plan(world));
            world.order("p", Command::Pause { reason: String::new() }).await;
            let due = 120 + 4 * HOUR;
            world.until(due + minutes * 60).await;
            assert_eq!(done(&plan(world)), 2, "nothing is executed while paused");
            world.order("r", Command::Resume {}).await;
            world.pass(30).await;
            let after = plan(world);
            match outcome {
                "executed" => assert_eq!(done(&after), 4, "{}", world.timeline()),
                "respread" => {
                    assert!(world.count("LegsRespread") >= 1, "{}", world.timeline());
                    assert_eq!(sum(&after), before);
                    assert_eq!(after.state, PlanState::Active);
                }
                _ => assert_eq!(after.state, PlanState::Superseded, "{}", world.timeline()),
            }
        });
    }
}

#[test]
fn a160_a_leg_the_venue_refuses_is_given_up_and_the_others_go_on() {
    allocator().play(async |world| {
        world.until(120 + 8 * HOUR - 30).await;
        assert_eq!(done(&plan(world)), 4);
        world.faults.set(Some((8, Fault::Definite)));
        world.until(120 + 8 * HOUR + 120).await;
        let failures = world.times("TradeNotExecuted");
        assert!(failures.len() + world.count("TradeRejected") >= 8, "{}", world.timeline());
        let first = failures[0];
        let distinct: std::collections::BTreeSet<i64> = failures.iter().map(|at| (at - first).round() as i64).collect();
        assert!(distinct.is_superset(&[0, 5, 15].into()), "{distinct:?}");
        let rejected = plan(world).legs.iter().filter(|leg| leg.state == TradeState::Rejected).count();
        assert_eq!(rejected, 2, "{}", world.timeline());
        world.until(120 + 20 * HOUR + 30).await;
        assert_eq!(done(&plan(world)), 10);
    });
}

#[test]
fn a161_an_open_trading_position_alone_causes_no_plan() {
    let setup = Setup::new().with(|s| {
        s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true;
        let balances = [("USDT", "4500"), ("BTC", "0.1"), ("XRP", "7500")];
        s.account.initial_balances = balances.map(|(a, m)| (asset(a), dec(m))).into();
    });
    setup.play(async |world| {
        world.wishes.set(btc(), Wish { size_pct: 15.0, ..Wish::buy() });
        world.until(2 * HOUR + 300).await;
        assert_eq!(world.state().positions.len(), 1, "{}", world.timeline());
        assert_eq!(world.count("PlanCreated"), 0, "{}", world.timeline());
    });
}

/// A crash must not end a run without its plan, nor run a plan whose claim nobody wrote.
#[test]
fn d50_a_plan_its_legs_and_the_end_of_its_run_are_one_batch_behind_the_claim() {
    allocator().play(async |world| {
        world.until(130).await;
        let records = world.records();
        let at = |wanted: &dyn Fn(&Event) -> bool| records.iter().position(|record| wanted(&record.event)).unwrap();
        let task = TaskName::PortfolioRebalance;
        let claimed = at(&|event| matches!(event, Event::RunClaimed { marker } if marker.key.task == task));
        let finished = at(&|event| matches!(event, Event::RunFinished { key, .. } if key.task == task));
        let planned = at(&|event| matches!(event, Event::PlanCreated { .. }));
        assert!(claimed < finished, "{}", world.timeline());
        let batch = records[finished].n.map_or(1, |n| n as usize);
        assert!(finished < planned && planned < finished + batch, "{}", world.timeline());
    });
}
