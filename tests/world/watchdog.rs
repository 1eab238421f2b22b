//! The signs of life behind the service watchdog, in the whole program: they end as soon as one actor, the store above
//! all, stops answering, whatever goes on beside it, and come back with its answers. A frozen thread, which makes no
//! beat at all, is shown with the real binary in `chaos_process.rs`.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use triplegain::{
    coordinator::heartbeat::{Beat, Watch},
    runtime::pulse::{Ping, Pulse},
};

use crate::support::*;

/// Passes pings on to the real actor until it is stuck; then it keeps them for good.
struct Between {
    real: Recipient<Ping>,
    stuck: Rc<Cell<bool>>,
}

impl Actor for Between {
    type Context = Context<Self>;
}

impl Handler<Ping> for Between {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, ping: Ping, _: &mut Context<Self>) -> Self::Result {
        let (real, stuck) = (self.real.clone(), Rc::clone(&self.stuck));
        Box::pin(async move {
            while stuck.get() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            real.send(ping).await.unwrap();
        })
    }
}

const EVERY: Duration = Duration::from_secs(5);

/// Beats from now on, with one actor behind a gate.
async fn watch(world: &World, gated: &str, stuck: &Rc<Cell<bool>>) -> Arc<Mutex<Vec<Beat>>> {
    let beats = Arc::new(Mutex::new(Vec::new()));
    let behind_gate = |mut pulse: Pulse| {
        if pulse.actor == gated {
            let between = Between { real: pulse.ping.clone(), stuck: Rc::clone(stuck) };
            pulse.ping = between.start().recipient();
        }
        pulse
    };
    let pulses: Vec<Pulse> = world.system.pulses.iter().cloned().map(behind_gate).collect();
    assert!(pulses.iter().any(|pulse| pulse.actor == gated), "`{gated}` is not asked at all");
    let heard = Arc::clone(&beats);
    let on_beat = Box::new(move |beat: &Beat| heard.lock().unwrap().push(beat.clone()));
    world.system.coordinator.send(Watch { pulses, horizon: EVERY * 2, every: EVERY, on_beat }).await.unwrap();
    beats
}

fn taken(beats: &Mutex<Vec<Beat>>) -> Vec<Beat> {
    std::mem::take(&mut *beats.lock().unwrap())
}

#[test]
fn r6_whoever_stops_answering_ends_the_signs_of_life_and_brings_them_back() {
    for gated in ["store", "execution", "market", "risk", "trading_decision"] {
        let setup = Setup::new().with(|s| s.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = true);
        setup.play(async |world| {
            let stuck = Rc::new(Cell::new(false));
            let beats = watch(world, gated, &stuck).await;
            world.until(60).await;
            let calm = taken(&beats);
            assert!(calm.len() >= 12, "{gated}: one beat every five seconds: {calm:?}");
            assert!(calm.iter().all(|beat| beat.silent.is_empty()), "{gated}: {calm:?}");
            stuck.set(true);
            world.until(75).await;
            drop(taken(&beats));
            world.until(300).await;
            let late = taken(&beats);
            assert!(late.len() >= 40, "{gated}: the coordinator itself goes on: {late:?}");
            assert!(late.iter().all(|beat| beat.silent == [gated]), "{gated}: no sign of life any more: {late:?}");
            assert!(late.iter().all(|beat| beat.status.contains(&format!("silent: {gated}"))), "{late:?}");
            stuck.set(false);
            world.until(310).await;
            drop(taken(&beats));
            world.until(360).await;
            let back = taken(&beats);
            assert!(!back.is_empty() && back.iter().all(|beat| beat.silent.is_empty()), "{gated}: {back:?}");
        });
    }
}
