//! Rules of the pure bus: order, overflow, counters, history.

use std::sync::Arc;

use rand::{Rng, SeedableRng};

use super::*;
use crate::{
    bus::{
        Priority,
        envelope::{Draft, EnvelopeFactory},
        payload::{MarketData, Payload},
    },
    model::{
        Bias, LevelPosition, MacdSignal, OutputHead, RsiSignal, RunId, Score, SentimentBias, SentimentOutput, SlotId,
        TaOutput, TaskName,
    },
};

fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

fn head(agent: TaskName) -> OutputHead {
    OutputHead {
        agent,
        symbol: btc(),
        run_id: RunId { epoch: 1, seq: 1 },
        slot: SlotId::Grid(1),
        as_of: Ts(0),
        produced_at: Ts(0),
        confidence: Score::ONE,
        reasoning: String::new(),
        latency_ms: 0,
        path: "rules".into(),
        degraded: false,
        warnings: Vec::new(),
        models: Vec::new(),
    }
}

fn ta() -> Payload {
    Payload::Ta(Arc::new(TaOutput {
        head: head(TaskName::TechnicalAnalysis),
        bias: Bias::Neutral,
        trend_strength: Score::ZERO,
        momentum_score: Score::ZERO,
        rsi_signal: RsiSignal::Neutral,
        macd_signal: MacdSignal::Neutral,
        support_levels: Vec::new(),
        resistance_levels: Vec::new(),
        current_position: LevelPosition::MidRange,
        timeframe_alignment: Vec::new(),
        primary_signal: "".into(),
    }))
}

fn sentiment() -> Payload {
    Payload::Sentiment(Arc::new(SentimentOutput {
        head: head(TaskName::SentimentAnalysis),
        bias: SentimentBias::Neutral,
        social_score: None,
        news_score: None,
        overall_score: Score::ZERO,
        news: Vec::new(),
    }))
}

fn feed() -> Payload {
    let (feed, detail) = ("simulated".into(), "".into());
    Payload::Market(MarketData::FeedHealth { symbol: None, feed, healthy: true, detail })
}

struct Rig {
    bus: Bus,
    factory: EnvelopeFactory,
}

impl Rig {
    fn new(queue: usize) -> Rig {
        let limits = BusLimits { subscriber_queue: queue, ..BusLimits::default() };
        Rig { factory: EnvelopeFactory::new(7, &limits), bus: Bus::new(limits) }
    }

    /// Publishes with a priority and a source that names the message; returns who became ready.
    fn publish(&mut self, name: &str, payload: Payload, priority: Priority, now: Ts) -> Vec<SubscriberId> {
        let draft = Draft::new(name.to_owned(), payload).priority(priority);
        let message = self.factory.build(draft, now).unwrap();
        let mut ready = Vec::new();
        self.bus.publish(&message, now, |id| ready.push(id));
        ready
    }

    /// Delivers and settles everything that waits; the names in order.
    fn drain(&mut self, id: SubscriberId) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(delivery) = self.bus.next(id) {
            names.push(delivery.message.source().to_owned());
            self.bus.settle(delivery.ticket, true);
        }
        names
    }

    fn tally(&self, position: usize) -> Tally {
        self.bus.stats().subscriptions[position].tally
    }
}

#[test]
fn a165_a_refused_message_touches_neither_history_nor_counters() {
    let mut rig = Rig::new(8);
    let id = rig.bus.join("watcher");
    rig.bus.subscribe(id, Topic::TaSignals, None);
    let before = rig.bus.stats();
    assert!(rig.factory.build(Draft::new("coordinator", ta()).symbol(None), Ts(0)).is_err());
    assert!(rig.factory.build(Draft::new("", ta()), Ts(0)).is_err());
    assert!(rig.factory.build(Draft::new("coordinator", ta()).ttl_seconds(0), Ts(0)).is_err());
    assert!(rig.factory.build(Draft::new("coordinator", ta()).ttl_seconds(-1), Ts(0)).is_err());
    assert_eq!(rig.bus.stats(), before);
    assert!(rig.bus.recent(Topic::TaSignals, None, 10, Ts(0)).is_empty());
}

#[test]
fn a166_urgent_overtakes_queued_normal_over_all_topics_and_order_within_a_priority_is_kept() {
    let mut rig = Rig::new(8);
    let id = rig.bus.join("slow");
    for topic in [Topic::TaSignals, Topic::MarketData] {
        rig.bus.subscribe(id, topic, None);
    }
    assert_eq!(rig.publish("n1", ta(), Priority::Normal, Ts(0)), [id]);
    let first = rig.bus.next(id).unwrap();
    assert!(rig.publish("n2", feed(), Priority::Normal, Ts(0)).is_empty(), "one is in flight");
    rig.publish("n3", ta(), Priority::Normal, Ts(0));
    rig.publish("l1", ta(), Priority::Low, Ts(0));
    rig.publish("h1", ta(), Priority::High, Ts(0));
    rig.publish("u1", feed(), Priority::Urgent, Ts(0));
    assert!(rig.bus.next(id).is_none(), "one is in flight");
    rig.bus.settle(first.ticket, true);
    assert_eq!(rig.drain(id), ["u1", "h1", "n2", "n3", "l1"]);
    assert!(rig.bus.stats().is_balanced());
}

#[test]
fn a166_overflow_drops_the_oldest_of_the_lowest_priority_and_never_urgent_for_lower() {
    let mut rig = Rig::new(3);
    let id = rig.bus.join("full");
    rig.bus.subscribe(id, Topic::TaSignals, None);
    for (name, priority) in [
        ("l1", Priority::Low),
        ("n1", Priority::Normal),
        ("l2", Priority::Low),
        ("u1", Priority::Urgent), // drops l1
        ("u2", Priority::Urgent), // drops l2
        ("u3", Priority::Urgent), // drops n1
        ("h1", Priority::High),   // is itself the lowest: dropped
        ("u4", Priority::Urgent), // only urgent left: drops u1
    ] {
        rig.publish(name, ta(), priority, Ts(0));
    }
    let tally = rig.tally(0);
    assert_eq!((tally.offered, tally.dropped, tally.queued), (8, 5, 3));
    assert!(tally.is_balanced());
    assert_eq!(rig.drain(id), ["u2", "u3", "u4"]);
}

#[test]
fn a_failing_or_panicking_filter_is_no_match_and_an_error_and_others_are_undisturbed() {
    let mut rig = Rig::new(8);
    let (fails, panics, picky, fine) =
        (rig.bus.join("fails"), rig.bus.join("panics"), rig.bus.join("picky"), rig.bus.join("fine"));
    rig.bus.subscribe(fails, Topic::TaSignals, Some(Box::new(|_| Err(FilterFailed("no".to_owned())))));
    rig.bus.subscribe(panics, Topic::TaSignals, Some(Box::new(|_| panic!("filter"))));
    rig.bus.subscribe(picky, Topic::TaSignals, Some(Box::new(|message| Ok(message.source() == "b"))));
    rig.bus.subscribe(fine, Topic::TaSignals, None);
    rig.publish("a", ta(), Priority::Normal, Ts(0));
    rig.publish("b", ta(), Priority::Normal, Ts(0));
    for position in [0, 1] {
        let tally = rig.tally(position);
        assert_eq!((tally.offered, tally.errors, tally.queued), (2, 2, 0));
    }
    assert_eq!(rig.drain(picky), ["b"]);
    assert_eq!(rig.drain(fine), ["a", "b"]);
    assert!(rig.bus.stats().is_balanced());
}

#[test]
fn subscribing_again_replaces_and_a_late_report_of_an_ended_subscription_settles_nothing() {
    let mut rig = Rig::new(8);
    let id = rig.bus.join("s");
    rig.bus.subscribe(id, Topic::TaSignals, Some(Box::new(|_| Ok(false))));
    assert!(rig.bus.subscribe(id, Topic::TaSignals, None));
    rig.publish("a", ta(), Priority::Normal, Ts(0));
    assert_eq!(rig.bus.stats().subscriptions.len(), 1);
    let old = rig.bus.next(id).unwrap();
    assert!(rig.bus.unsubscribe(id, Topic::TaSignals));
    assert!(!rig.bus.unsubscribe(id, Topic::TaSignals));
    rig.bus.subscribe(id, Topic::TaSignals, None);
    rig.publish("b", ta(), Priority::Normal, Ts(0));
    let new = rig.bus.next(id).unwrap();
    rig.bus.settle(old.ticket, true);
    assert_eq!(rig.tally(0).delivered, 0, "the late report must not settle the new delivery");
    rig.bus.settle(new.ticket, true);
    let stats = rig.bus.stats();
    assert!(stats.is_balanced());
    let tally = stats.topic(Topic::TaSignals).unwrap().tally;
    assert_eq!((tally.offered, tally.delivered, tally.dropped), (2, 1, 1));
}

#[test]
fn the_id_of_a_subscriber_that_left_is_dead_even_when_its_place_is_taken() {
    let mut rig = Rig::new(8);
    let old = rig.bus.join("old");
    rig.bus.subscribe(old, Topic::TaSignals, None);
    rig.publish("a", ta(), Priority::Normal, Ts(0));
    assert!(rig.bus.leave(old, true));
    let new = rig.bus.join("new");
    assert!(!rig.bus.subscribe(old, Topic::TaSignals, None));
    assert!(!rig.bus.leave(old, true));
    rig.bus.subscribe(new, Topic::TaSignals, None);
    rig.publish("b", ta(), Priority::Normal, Ts(0));
    assert!(rig.bus.next(old).is_none());
    assert_eq!(rig.drain(new), ["b"]);
    let stats = rig.bus.stats();
    assert_eq!(stats.dead_subscribers, 1);
    assert!(stats.is_balanced());
}

#[test]
fn a167_the_counters_balance_at_every_step_of_random_work() {
    let seed = 0xB05;
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut rig = Rig::new(5);
    let mut ids: Vec<SubscriberId> = (0..6).map(|n| rig.bus.join(format!("s{n}"))).collect();
    let mut flying: Vec<Ticket> = Vec::new();
    for step in 0..20_000 {
        let who = random.random_range(0..ids.len());
        let topic = [Topic::TaSignals, Topic::SentimentUpdates, Topic::MarketData][random.random_range(0..3)];
        match random.random_range(0..20) {
            0 => drop(rig.bus.subscribe(ids[who], topic, None)),
            1 => drop(rig.bus.subscribe(ids[who], topic, Some(Box::new(|_| Err(FilterFailed(String::new())))))),
            2 => drop(rig.bus.unsubscribe(ids[who], topic)),
            3 if step % 7 == 0 => {
                rig.bus.leave(ids[who], true);
                ids[who] = rig.bus.join("again");
            }
            4..=10 => flying.extend(rig.bus.next(ids[who]).map(|delivery| delivery.ticket)),
            11..=14 if !flying.is_empty() => {
                let ticket = flying.swap_remove(random.random_range(0..flying.len()));
                rig.bus.settle(ticket, random.random_bool(0.7));
            }
            _ => {
                let payload = [ta(), sentiment(), feed()][random.random_range(0..3)].clone();
                let priority = Priority::ALL[random.random_range(0..4)];
                rig.publish("p", payload, priority, Ts(step));
            }
        }
        assert!(rig.bus.stats().is_balanced(), "step {step}");
    }
}

#[test]
fn a168_at_the_ttl_visible_a_second_later_not_and_a_busy_topic_evicts_no_other() {
    let mut rig = Rig::new(8);
    rig.publish("coordinator", sentiment(), Priority::Normal, Ts(0));
    for n in 0..5_000 {
        rig.publish("coordinator", ta(), Priority::Normal, Ts(n));
    }
    let of_ta = rig.bus.stats().topic(Topic::TaSignals).copied().unwrap();
    assert_eq!((of_ta.published, of_ta.history, of_ta.latest), (5_000, 1_000, 1));
    let ttl = Ts(7_200_000);
    let latest =
        |rig: &Rig, now| rig.bus.latest(Topic::SentimentUpdates, Some(btc()), Some("coordinator"), now).is_some();
    assert!(latest(&rig, ttl));
    assert_eq!(rig.bus.recent(Topic::SentimentUpdates, None, 9, ttl).len(), 1);
    assert!(!latest(&rig, ttl.plus_ms(1_000)));
    assert!(rig.bus.recent(Topic::SentimentUpdates, None, 9, ttl.plus_ms(1_000)).is_empty());
}

#[test]
fn the_latest_of_a_key_outlives_the_ring_and_is_found_by_source_or_over_all() {
    let mut rig = Rig::new(8);
    rig.publish("first", ta(), Priority::Normal, Ts(0));
    for n in 0..1_500 {
        rig.publish("second", ta(), Priority::Normal, Ts(n / 100));
    }
    let latest = |source| rig.bus.latest(Topic::TaSignals, Some(btc()), source, Ts(20));
    assert_eq!(latest(Some("first")).unwrap().source(), "first");
    assert_eq!(latest(None).unwrap().source(), "second");
    assert!(latest(Some("third")).is_none());
    assert!(rig.bus.latest(Topic::TaSignals, None, None, Ts(20)).is_none());
    let ring = rig.bus.recent(Topic::TaSignals, Some(btc()), usize::MAX, Ts(20));
    assert_eq!(ring.len(), 1_000);
    assert!(ring.iter().all(|message| message.source() == "second"));
    assert!(ring.windows(2).all(|pair| pair[0].id() > pair[1].id()), "newest first");
}

#[test]
fn expired_messages_are_purged_by_publishing_once_per_interval() {
    let mut rig = Rig::new(8);
    rig.publish("a", feed(), Priority::Low, Ts(0));
    rig.publish("b", feed(), Priority::Low, Ts(59_000));
    rig.publish("c", ta(), Priority::Normal, Ts(60_000));
    assert_eq!(rig.bus.stats().topic(Topic::MarketData).unwrap().history, 2, "at exactly the ttl it stays");
    rig.publish("c", ta(), Priority::Normal, Ts(119_500));
    assert_eq!(rig.bus.stats().topic(Topic::MarketData).unwrap().history, 2, "not due yet");
    rig.publish("c", ta(), Priority::Normal, Ts(120_000));
    let market = rig.bus.stats().topic(Topic::MarketData).copied().unwrap();
    assert_eq!((market.history, market.latest), (0, 0));
}
