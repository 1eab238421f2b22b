//! The store as an actor: shared syncs, order of announcements, failures.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod store_support;

use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler};
use store_support::*;
use triplegain::store::*;

type Log = Arc<Mutex<Vec<String>>>;

struct Observer(&'static str, Log);

impl Actor for Observer {
    type Context = Context<Self>;
}

impl Handler<CommittedBatch> for Observer {
    type Result = ();

    fn handle(&mut self, CommittedBatch(records): CommittedBatch, _: &mut Self::Context) {
        let mut log = self.1.lock().unwrap();
        log.extend(records.iter().map(|record| format!("{}:{}", self.0, record.seq)));
    }
}

fn config(observers: Vec<actix::Recipient<CommittedBatch>>, grouping: bool, log: &Log) -> StoreActorConfig {
    let log = Arc::clone(log);
    StoreActorConfig {
        log: Default::default(),
        observers,
        max_group_events: 100,
        aux_flush_ms: 0,
        grouping,
        on_fatal: Box::new(move |fatal| log.lock().unwrap().push(format!("fatal: {fatal}"))),
    }
}

#[actix::test]
async fn commits_that_wait_together_share_a_group_and_are_answered_in_order() {
    for grouping in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let (store, opened) = open(data.path()).unwrap();
        let first = opened.state.meta.seq + 1;
        let log = Log::default();
        let observers = ["one", "two"].map(|name| Observer(name, Arc::clone(&log)).start().recipient());
        let actor = StoreActor::new(store, config(observers.to_vec(), grouping, &log)).start();
        let requests: Vec<_> = (0..5).map(|_| actor.send(Commit(batch(vec![note("x")])))).collect();
        for (index, request) in requests.into_iter().enumerate() {
            assert_eq!(request.await.unwrap().unwrap().first_seq, first + index as u64);
        }
        assert_eq!(actor.send(JournalHead).await.unwrap().seq, first + 4);
        let state = actor.send(GetState).await.unwrap();
        assert_eq!(state.meta.seq, first + 4);
        let expected: Vec<String> = (first..first + 5).map(|seq| format!("one:{seq}")).collect();
        let seen: Vec<String> = log.lock().unwrap().iter().filter(|line| line.starts_with("one")).cloned().collect();
        assert_eq!(seen, expected);
        assert_eq!(actor.send(Close).await.unwrap(), None);
        assert!(open(data.path()).unwrap().0.verify().unwrap().is_sound());
    }
}

/// Commits, then writes to an observer: the observer must know the records by then.
#[actix::test]
async fn observers_hear_before_the_committer() {
    let (store, _) = Store::memory(&info(), None).unwrap();
    let log = Log::default();
    let observer = Observer("o", Arc::clone(&log)).start();
    let actor = StoreActor::new(store, config(vec![observer.clone().recipient()], true, &log)).start();
    let committed = actor.send(Commit(batch(vec![note("x"), note("y")]))).await.unwrap().unwrap();
    observer.send(CommittedBatch(Arc::from([]))).await.unwrap();
    let expected: Vec<String> = (committed.first_seq..=committed.last_seq).map(|seq| format!("o:{seq}")).collect();
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(actor.send(Close).await.unwrap().is_some());
}

#[actix::test]
async fn a_refusal_is_a_normal_answer_and_an_empty_batch_too() {
    let (store, _) = Store::memory(&info(), None).unwrap();
    let log = Log::default();
    let actor = StoreActor::new(store, config(Vec::new(), true, &log)).start();
    let never = Expectation::PositionUnchanged(triplegain::model::PositionId(1), 0);
    assert!(actor.send(Commit(batch(vec![note("x")]).expecting(never))).await.unwrap().is_err());
    assert!(actor.send(Commit(batch(Vec::new()))).await.unwrap().unwrap().records.is_empty());
    assert!(log.lock().unwrap().is_empty());
}

#[actix::test]
async fn a_failure_calls_on_fatal_and_answers_nobody() {
    let (store, _) = Store::memory(&info(), None).unwrap();
    let log = Log::default();
    let actor = StoreActor::new(store, config(Vec::new(), true, &log)).start();
    let wrong = triplegain::model::Event::TradeSettled { trade_key: triplegain::model::TradeKey([1; 32]) };
    let (bad, good) = (actor.send(Commit(batch(vec![wrong]))), actor.send(Commit(batch(vec![note("x")]))));
    assert!(bad.await.is_err() && good.await.is_err());
    let log = log.lock().unwrap();
    assert!(log.len() == 1 && log[0].starts_with("fatal: "), "{log:?}");
}

#[actix::test]
async fn a_lost_observer_is_fatal_unless_it_was_detached() {
    for detach in [true, false] {
        let (store, _) = Store::memory(&info(), None).unwrap();
        let log = Log::default();
        let arbiter = actix::Arbiter::new();
        let inner = Arc::clone(&log);
        let observer = Observer::start_in_arbiter(&arbiter.handle(), move |_| Observer("o", inner)).recipient();
        let actor = StoreActor::new(store, config(vec![observer.clone()], true, &log)).start();
        arbiter.stop();
        tokio::task::spawn_blocking(move || arbiter.join().unwrap()).await.unwrap();
        if detach {
            actor.send(Detach).await.unwrap();
        }
        let _ = actor.send(Commit(batch(vec![note("x")]))).await;
        tokio::task::yield_now().await;
        assert_eq!(log.lock().unwrap().len(), usize::from(!detach));
    }
}
