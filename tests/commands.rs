//! Operator commands over the bus, answered on their correlation id, with the real system in virtual time (F13, A169).

#![expect(clippy::unwrap_used, reason = "helpers outside #[test] functions fail the test that calls them")]

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{Actor, Addr, Context, Handler};
use triplegain::{
    bus::{
        BusLimits, ChainId, EnvelopeFactory, Payload, Topic,
        actor::{BusActor, Deliver, HandlingFailed, Publisher, Subscribe},
    },
    cli::system::{self, Ingredients, System},
    coordinator::{
        command_desk::{CommandAnswered, CommandDesk},
        messages::{Operate, Operated},
    },
    market::{Market, actor::FeedEnded, feed::simulated::SimulatedFeed},
    model::{Clock, Command, CommandAnswer, CoordinatorState, Timeframe, Ts},
    runtime::placement::{Place, run_virtual},
    settings::{Sources, load},
    store::{OpenInfo, Store},
};

const START: Ts = Ts(1_767_787_200_000);

struct Deaf;
impl Actor for Deaf {
    type Context = Context<Self>;
}
impl Handler<FeedEnded> for Deaf {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut Context<Self>) {}
}
/// A subscriber that takes commands and never answers.
impl Handler<Deliver> for Deaf {
    type Result = Result<(), HandlingFailed>;
    fn handle(&mut self, _: Deliver, _: &mut Context<Self>) -> Self::Result {
        Ok(())
    }
}

async fn start(place: Place) -> System {
    let loaded = load(&Sources::default()).unwrap();
    let settings = Rc::new(loaded.settings);
    let info = OpenInfo {
        seed: 7,
        data_kind: "simulated".to_owned(),
        config_hash: loaded.hash.clone(),
        version: "0".to_owned(),
        now: START,
        deposits: system::deposits(&settings),
        stands_still: false,
        store_id: Some(uuid::Uuid::from_u128(7)),
    };
    let (store, opened) = Store::memory(&info, None).unwrap();
    let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
    let simulated = &settings.market.simulated;
    let feed = SimulatedFeed::new(simulated, &settings.symbols, 7, START, START, history_ms).unwrap();
    let ingredients = Ingredients {
        settings,
        config_hash: loaded.hash,
        place,
        store,
        opened,
        feed: Box::new(feed),
        outside: Default::default(),
        volatile: true,
        on_end: Deaf.start().recipient(),
        on_fatal: |what| panic!("{what}"),
        seams: Default::default(),
    };
    system::assemble(ingredients).await.unwrap()
}

fn operate(key: &str, command: Command) -> Operate {
    Operate { key: key.to_owned(), command, source: "test".to_owned() }
}

fn pause() -> Command {
    Command::Pause { reason: String::new() }
}

fn refusal(operated: Operated) -> (String, String) {
    match operated {
        Operated::Answered(CommandAnswer::Refused { code, reason }) => (code, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn f13_a_command_over_the_bus_is_answered_after_it_is_durable_and_once_per_key() {
    run_virtual(START, |place| async move {
        let system = start(place).await;
        let first = system.desk.send(operate("k1", pause())).await.unwrap();
        assert!(matches!(first, Operated::Answered(CommandAnswer::Ok { .. })), "{first:?}");
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Paused);
        assert!(system.view.read().commands["k1"].answer.is_some());
        assert_eq!(system.desk.send(operate("k1", pause())).await.unwrap(), first);
        assert_eq!(system.desk.send(operate("k1", Command::Resume {})).await.unwrap(), Operated::KeyReused);
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Paused);
    })
    .unwrap();
}

#[test]
fn a169_an_unknown_task_is_refused_with_a_suggestion() {
    run_virtual(START, |place| async move {
        let system = start(place).await;
        let task = "technical_analysys".to_owned();
        let (code, reason) = refusal(system.desk.send(operate("k", Command::EnableTask { task })).await.unwrap());
        assert_eq!(code, "unknown_task");
        assert!(reason.contains("did you mean `technical_analysis`?"), "{reason}");
        assert!(system.view.read().commands["k"].answer.is_some(), "a refusal is kept too");
    })
    .unwrap();
}

fn lonely(place: &Place) -> (Addr<CommandDesk>, Addr<BusActor>) {
    let limits = BusLimits::default();
    let factory = EnvelopeFactory::new(1, &limits);
    let bus = BusActor::new(limits, place.clock.clone()).start();
    let publisher = Publisher::new(bus.clone(), factory, place.clock.clone());
    let desk = CommandDesk::new(publisher, place.clock.clone());
    (triplegain::runtime::supervisor::supervise("desk", Default::default(), move || desk.clone(), |_| ()), bus)
}

#[test]
fn f13_without_a_coordinator_a_command_is_refused_and_never_silent() {
    run_virtual(START, |place| async move {
        let (desk, bus) = lonely(&place);
        let (code, _) = refusal(desk.send(operate("k", pause())).await.unwrap());
        assert_eq!((code.as_str(), place.clock.now()), ("nobody", START));
        let recipient = Deaf.start().recipient();
        let topic = Topic::CoordinatorCommands;
        bus.send(Subscribe { subscriber: "deaf".into(), recipient, topic, filter: None }).await.unwrap();
        let answer = desk.send(operate("k", pause())).await.unwrap();
        assert!(matches!(answer, Operated::Unavailable(_)), "{answer:?}");
        assert_eq!(place.clock.now(), START.plus_ms(60_001), "as long as the message lives");
    })
    .unwrap();
}

/// What a subscriber saw of a command.
type Seen = Rc<RefCell<Vec<(ChainId, Arc<str>)>>>;

/// Answers a command twice: under a foreign correlation id and under its own.
struct Echo(Addr<CommandDesk>, Seen);
impl Actor for Echo {
    type Context = Context<Self>;
}
impl Handler<Deliver> for Echo {
    type Result = Result<(), HandlingFailed>;
    fn handle(&mut self, Deliver(envelope): Deliver, _: &mut Context<Self>) -> Self::Result {
        let Payload::Command(request) = envelope.payload() else { panic!("not a command") };
        self.1.borrow_mut().push((envelope.correlation().clone(), Arc::clone(&request.key)));
        for (root, why) in [(ChainId::Named("other".into()), "foreign"), (envelope.correlation().clone(), "own")] {
            let operated = Operated::Unavailable(why.to_owned());
            let answer = CommandAnswered { correlation: root, request: envelope.id(), operated };
            self.0.try_send(answer).unwrap();
        }
        Ok(())
    }
}

#[test]
fn f13_an_answer_counts_only_on_its_correlation_id() {
    run_virtual(START, |place| async move {
        let (desk, bus) = lonely(&place);
        let seen = Seen::default();
        let recipient = Echo(desk.clone(), Rc::clone(&seen)).start().recipient();
        let topic = Topic::CoordinatorCommands;
        bus.send(Subscribe { subscriber: "echo".into(), recipient, topic, filter: None }).await.unwrap();
        let answer = desk.send(operate("k", pause())).await.unwrap();
        assert_eq!(answer, Operated::Unavailable("own".to_owned()));
        assert_eq!(*seen.borrow(), [(ChainId::Named("k".into()), "k".into())]);
    })
    .unwrap();
}

/// Puts two commands into the coordinator's mailbox in one turn, past the desk, which would hand them on one by one:
/// the second is handled before the first is durable. Waits for both answers.
async fn at_once(system: &System, first: Command, second: Command) -> (Operated, Operated) {
    let (one, two) = (system.coordinator.send(operate("one", first)), system.coordinator.send(operate("two", second)));
    let (one, two) = futures_util::join!(one, two);
    (one.unwrap(), two.unwrap())
}

#[test]
fn an_acknowledged_halt_is_never_lost_to_a_command_prepared_beside_it() {
    let halt = || Command::Halt { reason: "test".to_owned() };
    for (first, second) in
        [(halt(), pause()), (pause(), halt()), (halt(), Command::Resume {}), (Command::Resume {}, halt())]
    {
        run_virtual(START, |place| async move {
            let system = start(place).await;
            let (one, two) = at_once(&system, first.clone(), second).await;
            let halted = if matches!(first, Command::Halt { .. }) { one } else { two };
            assert!(matches!(halted, Operated::Answered(CommandAnswer::Ok { .. })), "{halted:?}");
            let state = system.view.read();
            assert_eq!(state.coordinator.state, CoordinatorState::Halted);
            assert!(state.coordinator.halt.is_some());
        })
        .unwrap();
    }
}
