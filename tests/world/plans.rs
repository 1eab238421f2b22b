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

/// Seconds after the start at which batches were executed.
fn leg_times(world: &World) -> Vec<i64> {
    let mut times: Vec<i64> = world.times("TradeFill").iter().map(|at| *at as i64 / 60 * 60).collect();
    times.dedup();
    times
}

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
                    // The late batch goes at once; after it nothing is closer than half the spacing, to the end.
                    assert_eq!(done(&after), 4);
                    world.until(120 + 26 * HOUR).await;
                    assert_eq!(plan(world).state, PlanState::Completed, "{}", world.timeline());
                    let times = leg_times(world);
                    assert_eq!(times.len(), 6, "{times:?}");
                    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 2 * HOUR), "{times:?}");
                    assert_eq!(times[1], due + minutes * 60);
                }
                _ => {
                    assert_eq!(after.state, PlanState::Superseded, "{}", world.timeline());
                    // The next check plans afresh, from the account as it is now: two of twelve legs were executed.
                    world.until(120 + 10 * HOUR).await;
                    let fresh: Vec<Plan> = world.state().plans.values().filter(|p| p.id != after.id).cloned().collect();
                    assert_eq!(fresh.len(), 1, "{}", world.timeline());
                    assert_eq!(fresh[0].created_at.since_ms(world.start) / 1_000 / HOUR, 10, "the next full hour");
                    let missing = before - after.legs[..2].iter().map(|leg| leg.amount).sum::<Decimal>();
                    assert!((sum(&fresh[0]) - missing).abs() < dec("20"), "{} {missing}", sum(&fresh[0]));
                }
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

/// A balanced account of 10 000: a third each.
fn balanced() -> Setup {
    Setup::new().with(|s| {
        s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true;
        let balances = [("USDT", "3333.34"), ("BTC", "0.07407407"), ("XRP", "5555.55")];
        s.account.initial_balances = balances.map(|(a, m)| (asset(a), dec(m))).into();
    })
}

#[test]
fn a161_an_open_trading_position_alone_causes_no_plan() {
    balanced().play(async |world| {
        world.wishes.set(btc(), Wish { size_pct: 20.0, ..Wish::buy() });
        world.until(2 * HOUR + 300).await;
        let state = world.state();
        let cost: Vec<Money> = state.positions.values().map(|p| p.quantity * p.average_entry()).collect();
        assert!(matches!(cost[..], [cost] if (cost - dec("2000")).abs() < dec("2")), "{cost:?}\n{}", world.timeline());
        assert_eq!(world.count("PlanCreated"), 0, "{}", world.timeline());
    });
}

#[test]
fn a161_the_plan_is_made_from_the_account_as_it_is() {
    let setup = balanced().with(|s| {
        s.account.initial_balances.insert(asset("USDT"), dec("6333.34"));
    });
    setup.play(async |world| {
        world.until(130).await;
        // 3 000 USDT too many: a third of them stays, a third each goes into the two others.
        let planned = plan(world);
        for symbol in [btc(), xrp()] {
            let amount: Money = planned.legs.iter().filter(|leg| leg.symbol == symbol).map(|leg| leg.amount).sum();
            assert!((amount - dec("1000")).abs() < dec("1"), "{symbol} {amount}");
        }
        assert!(planned.legs.iter().all(|leg| leg.side == Side::Buy));
    });
}

#[test]
fn a125_legs_wait_while_a_silent_market_keeps_the_level_at_reduced() {
    allocator().play(async |world| {
        let due = 120 + 4 * HOUR;
        world.until(due - 45).await;
        world.tape.silence(sym("XRP/BTC"));
        world.until(due + 1).await;
        assert_eq!(world.status().await.degradation, "REDUCED", "{}", world.timeline());
        world.tape.speak(sym("XRP/BTC"));
        world.until(due + 100).await;
        assert_eq!((world.status().await.degradation.as_str(), done(&plan(world))), ("REDUCED", 2));
        world.until(due + 600).await;
        assert_eq!((world.status().await.degradation.as_str(), done(&plan(world))), ("NORMAL", 4), "late, not lost");
    });
}

#[test]
fn b3_a_leg_cancelled_while_execution_claims_it_is_cancelled_and_not_traded() {
    allocator().play(async |world| {
        world.until(150).await;
        world.order("p", Command::Pause { reason: String::new() }).await;
        let due = 120 + 4 * HOUR;
        world.until(due + 60).await;
        let leg = plan(world).legs.iter().find(|leg| leg.batch == 1).cloned().unwrap();
        assert_eq!(leg.state, TradeState::Planned);
        // The resume lets execution go, and the cancel behind it is prepared in the same turn: execution claims a leg
        // that it still sees PLANNED, while its cancel is on the way to the store.
        let send = |key: &str, command| {
            let operate = Operate { key: key.into(), command, source: "test".into() };
            world.system.coordinator.send(operate)
        };
        let resume = send("r", Command::Resume {});
        let cancel = send("c", Command::CancelScheduled { id: leg.key.to_string() });
        let (resumed, cancelled) = futures_util::join!(resume, cancel);
        for answer in [resumed.unwrap(), cancelled.unwrap()] {
            assert!(matches!(answer, Operated::Answered(CommandAnswer::Ok { .. })), "{answer:?}\n{}", world.timeline());
        }
        world.pass(30).await;
        let traded = world.all(|event| match event {
            Event::TradeIntent { trade } if trade.key == leg.key => Some(()),
            _ => None,
        });
        assert_eq!((world.state().trade_index[&leg.key].state, traded.len()), (TradeState::Cancelled, 0));
        let other = plan(world).legs.iter().find(|other| other.batch == 1 && other.key != leg.key).cloned().unwrap();
        assert_eq!(other.state, TradeState::Settled, "the other leg of the batch goes on\n{}", world.timeline());
    });
}

#[test]
fn d51_a_late_plan_asks_the_operator_once_and_goes_on_or_ends_as_told() {
    for way_out in ["run", "cancel"] {
        let setup = allocator().with(|s| s.legs.late_policy = triplegain::settings::LatePolicy::AskOperator);
        setup.play(async |world| {
            world.until(150).await;
            world.order("p", Command::Pause { reason: String::new() }).await;
            world.until(120 + 6 * HOUR).await;
            world.order("r", Command::Resume {}).await;
            world.pass(1_800).await;
            let frozen = plan(world);
            let late: Vec<TradeKey> = frozen.legs.iter().filter(|leg| leg.batch == 1).map(|leg| leg.key).collect();
            assert_eq!(done(&frozen), 2);
            let told = world.on_bus(Topic::SystemEvents).await;
            let told = told.iter().filter(|envelope| match envelope.payload() {
                Payload::System(event) => matches!(&event.record().event,
                    Event::Noted { what, facts } if what == "leg_asks_operator" && late.iter().any(|leg| leg.to_string() == facts["leg"])),
                _ => false,
            });
            assert_eq!(told.count(), 1, "{}", world.timeline());
            let shown = world.status().await.scheduled;
            let asking: Vec<&str> = shown.iter().filter(|leg| leg.asks_operator).map(|leg| leg.trade_key.as_str()).collect();
            assert_eq!(asking.len(), 2, "{shown:?}");
            assert!(late.iter().all(|leg| asking.contains(&leg.to_string().as_str())));

            if way_out == "run" {
                world.order("go", Command::RunScheduled { id: asking[0].into() }).await;
                world.pass(60).await;
                assert_eq!(done(&plan(world)), 4, "{}", world.timeline());
                assert_eq!(world.refusal("again", Command::RunScheduled { id: frozen.id.to_string() }).await, "not_late");
            } else {
                for (number, leg) in asking.iter().enumerate() {
                    world.order(&format!("c{number}"), Command::CancelScheduled { id: (*leg).into() }).await;
                }
            }
            world.until(120 + 28 * HOUR).await;
            let ended = plan(world);
            assert_eq!(ended.state, PlanState::Completed, "{}", world.timeline());
            assert_eq!(done(&ended), if way_out == "run" { 12 } else { 10 });
            let times = leg_times(world);
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 2 * HOUR), "{times:?}");
        });
    }
}

/// The clock leaps over a run's deadline in the instant the run begins: its end must not be written before its claim.
#[test]
fn a_clock_that_jumps_as_a_run_begins_does_not_put_its_end_before_its_claim() {
    let mut setup = allocator();
    setup.wall_jump = Some((120_000, 9 * 60_000));
    setup.play(async |world| {
        world.until(130 + 9 * 60).await;
        let mut claimed = Vec::new();
        for record in world.records() {
            match &record.event {
                Event::RunClaimed { marker } => claimed.push(marker.run_id),
                Event::RunFinished { run_id, .. } => {
                    let place = claimed.iter().position(|claim| claim == run_id);
                    let place = place.unwrap_or_else(|| panic!("{run_id} was not claimed\n{}", world.timeline()));
                    claimed.remove(place);
                }
                _ => {}
            }
        }
        assert!(!world.times("RunFinished").is_empty() && claimed.is_empty(), "{}", world.timeline());
        assert!(world.state().coordinator.in_flight.is_empty(), "{}", world.timeline());
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
