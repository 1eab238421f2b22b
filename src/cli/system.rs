//! Puts the actors together: the same ones for the long-running process and for a backtest. Only clock, feed and the
//! store's backend differ.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use actix::{Addr, Recipient};
use anyhow::{Result, anyhow};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{
    models,
    restored::{Aux, restore},
};
use crate::{
    agents::actor::{PortfolioRebalance, RegimeDetection, SentimentAnalysis, TechnicalAnalysis, TradingDecision},
    bus::{
        BusLimits, EnvelopeFactory, Topic,
        actor::{BusActor, Publisher, Subscribe},
    },
    coordinator::{
        actor::{self, Coordinator, Links},
        announce::{Announcer, Progress},
        command_desk::CommandDesk,
        resolver::ConflictResolver,
        timekeeper::Outside,
        watch::AgentGone,
    },
    execution::{
        actor::{ExecutionActor, Parts as ExecutionParts, Tick},
        remote::RemoteVenue,
        restart::Gap,
        venue::Venue,
    },
    llm::actor::{AskModel, Models, http::Http, router::Router},
    market::{
        Feed, Market,
        actor::{FeedEnded, MarketActor},
    },
    model::{Clock, PriceTick, Recovered},
    risk::{
        RiskRules,
        actor::{Mark, Parts as RiskParts, RiskActor},
        board::{PriceBoard, Prices},
    },
    runtime::{
        clock::LogicalClock,
        placement::Place,
        post::post,
        pulse::{Pulse, answers_pings},
        supervisor::{Incident, Next, Policy, run_fatal, supervise},
        task,
    },
    settings::Settings,
    store::{
        Flush, Observe, Opened, Store, StoreActor, StoreActorConfig,
        view::{CommitLog, StateView},
    },
};

/// How far announcing has got is noted this often: so much is said again after a crash.
const ANNOUNCED_NOTE: Duration = Duration::from_secs(1);

/// What a system is made of.
pub struct Ingredients {
    /// What the program is told.
    pub settings: Rc<Settings>,
    /// SHA-256 of the effective settings, hex.
    pub config_hash: String,
    /// Clock and threads.
    pub place: Place,
    /// Open and recovered.
    pub store: Store,
    /// What opening found.
    pub opened: Opened,
    /// Prices; everything up to now is taken as history.
    pub feed: Box<dyn Feed>,
    /// Wall clock and free space; nothing for a backtest.
    pub outside: Outside,
    /// Nothing outlives the process (backtest).
    pub volatile: bool,
    /// Told when the feed has ended.
    pub on_end: Recipient<FeedEnded>,
    /// Called for a broken invariant or a failed store, from any thread.
    pub on_fatal: fn(&str),
    /// What stands in for parts of the program; nothing outside tests.
    pub seams: Seams,
}

/// Places where another part can be put in: a venue that fails, an agent that hangs, a market that does not answer.
#[derive(Default)]
pub struct Seams {
    /// Where orders are executed; the paper venue when absent.
    pub venue: Option<Box<dyn Venue>>,
    /// Who is asked over a wire instead of it; nothing outside tests.
    pub remote: Option<Rc<dyn RemoteVenue>>,
    /// Changes whom the coordinator talks to.
    pub links: Option<Box<dyn FnOnce(Links) -> Links>>,
    /// A market of these settings that has taken the older part of the history already; the feed goes on after it.
    pub market: Option<Market>,
    /// Who answers questions to models instead of the router.
    pub models: Option<Recipient<AskModel>>,
    /// Who stands for the providers of models behind the router.
    pub providers: Option<Http>,
}

/// The running actors.
pub struct System {
    /// Schedules, decides, answers.
    pub coordinator: Addr<Coordinator>,
    /// Takes commands and brings their answers.
    pub desk: Addr<CommandDesk>,
    /// Everyone else.
    pub links: Links,
    /// Asks models; absent when no chain is configured.
    pub models: Option<Addr<Router>>,
    /// Newest durable state.
    pub view: StateView,
    /// Newest prices.
    pub prices: Prices,
    /// Where they are written, and which symbols' have stopped.
    pub board: PriceBoard,
    /// What the boot found.
    pub recovered: Recovered,
    /// Logical time.
    pub clock: LogicalClock,
    /// Who must answer for the process to count as alive: everyone but the coordinator, who asks.
    pub pulses: Vec<Pulse>,
    /// The journal is damaged: nothing can be recorded, so nothing is carried out.
    pub read_only: bool,
}

answers_pings!(
    BusActor,
    CommandDesk,
    ConflictResolver,
    Coordinator,
    ExecutionActor,
    MarketActor,
    PortfolioRebalance,
    RegimeDetection,
    RiskActor,
    Router,
    SentimentAnalysis,
    StoreActor,
    TechnicalAnalysis,
    TradingDecision,
);

/// How to reach one actor.
macro_rules! pulse {
    ($name:expr, $address:expr) => {
        Pulse {
            actor: $name,
            ping: $address.clone().recipient(),
            #[cfg(feature = "failpoints")]
            strike: $address.clone().recipient(),
        }
    };
}

#[cfg(feature = "failpoints")]
impl System {
    /// Where a test strikes: everyone, the coordinator too.
    pub fn everyone(&self) -> Vec<Pulse> {
        let mut everyone = self.pulses.clone();
        everyone.push(pulse!("coordinator", self.coordinator));
        everyone
    }
}

/// Starts every actor on what recovery returned.
///
/// # Errors
/// Settings the risk engine, the bus, the market or the scheduler cannot work with, or a feed that breaks at once.
pub async fn assemble(ingredients: Ingredients) -> Result<System> {
    let Ingredients {
        settings,
        config_hash,
        place,
        store,
        opened,
        mut feed,
        outside,
        volatile,
        on_end,
        on_fatal,
        seams,
    } = ingredients;
    let clock = place.clock.clone();
    let aux = Aux::read(&store, clock.now())?;
    let (endpoints, is_virtual) = (store.aux_rows(crate::llm::actor::shared::TREE)?, place.is_virtual());
    let log = CommitLog::default();
    let fatal: Rc<dyn Fn(String)> = Rc::new(move |what| on_fatal(&what));
    let misfit = Rc::clone(&fatal);
    let view = StateView::new(store.state().clone(), log.clone(), Rc::new(move |m| misfit(m.to_string())));
    let config = StoreActorConfig {
        observers: Vec::new(),
        log,
        max_group_events: settings.store.group.max_events.max(1) as usize,
        aux_flush_ms: if volatile { 0 } else { u64::from(settings.store.aux_flush_ms) },
        grouping: !is_virtual,
        on_fatal: Box::new(move |failure| on_fatal(&failure.to_string())),
    };
    let panicked = move |incident: &Incident| on_fatal(&format!("{} panicked: {}", incident.actor, incident.message));
    let store = place.start_store(move || StoreActor::new(store, config), panicked).await?;

    let limits = BusLimits::from_settings(&settings.bus)?;
    let (seed, epoch) = (view.read().meta.seed, view.read().meta.epoch);
    let factory = EnvelopeFactory::new(seed ^ (u64::from(epoch) << 32), &limits);
    let bus = run_fatal("bus", BusActor::new(limits, clock.clone()), panicked);
    let bus = Publisher::new(bus, factory, clock.clone());

    let board = PriceBoard::new(settings.account_currency);
    let prices = board.reader();
    let policy = Policy::from_settings(&settings.supervisor);
    let rules = RiskRules::of(&settings);
    let rules = Rc::new(rules.map_err(|text| anyhow!(text))?);
    let (ready, risk_ready) = watch::channel(true);
    let ready = Rc::new(ready);
    let risk_parts = RiskParts {
        rules: Rc::clone(&rules),
        clock: clock.clone(),
        view: view.clone(),
        prices: prices.clone(),
        store: store.clone(),
        keep_curve: volatile,
        ready: Rc::clone(&ready),
    };
    let escalate = move |incident: &Incident| {
        // Whoever asks meanwhile is told that there is no account state.
        ready.send_replace(false);
        report(incident, on_fatal);
    };
    let risk = supervise("risk", policy, move || RiskActor::new(risk_parts.clone()), escalate);

    let level = Rc::new(Cell::new(Default::default()));
    let mut market = seams.market.map_or_else(|| Market::new(&settings, feed.base()), Ok)?;
    let mut gap = opened.gap_from.map_or_else(Gap::none, |from| Gap::since(from, &view.read()));
    feed.history(clock.now(), &mut |item| {
        if let Some(tick) = market.take(item) {
            gap.take(tick);
            board.set(tick);
        }
    })?;
    // What is done about the downtime is told like everything else.
    let every = ANNOUNCED_NOTE * outside.seldom.max(1);
    let progress = (!volatile).then(|| Progress { store: store.clone(), every });
    let announcer = Announcer::start_with(bus.clone(), progress, outside.notifier.clone(), &opened.unannounced);
    store.send(Observe(announcer.recipient())).await?;
    let execution = ExecutionActor::new(ExecutionParts {
        settings: Rc::clone(&settings),
        clock: clock.clone(),
        view: view.clone(),
        prices: prices.clone(),
        store: store.clone(),
        rules: Rc::clone(&rules),
        level: Rc::clone(&level),
        feed: feed.name().to_owned(),
        venue: watched(seams.venue, &settings, feed.name()),
        remote: seams.remote,
        risk: risk.clone().recipient(),
        gap,
        on_fatal: Rc::clone(&fatal),
        read_only: opened.frozen,
    });
    let execution = run_fatal("execution", execution, panicked);
    let on_price = price_hook(board.clone(), execution.clone(), bus.clone());
    let market = MarketActor::new(market, feed, clock.clone(), on_price, on_end);
    let market = run_fatal("market", market, panicked);

    let around = models::Around {
        settings: Rc::clone(&settings),
        config_hash: config_hash.clone(),
        clock: clock.clone(),
        view: view.clone(),
        store: store.clone(),
        stored: endpoints,
        is_virtual,
        stand: seams.providers,
    };
    let (gone, mut gone_agents) = tokio::sync::mpsc::unbounded_channel();
    // Everything with a fallback: the program goes on without it, and says so.
    let dispensable = |gone: &UnboundedSender<AgentGone>| {
        let gone = gone.clone();
        move |incident: &Incident| {
            report(incident, |_| ());
            if incident.next == Next::GaveUp {
                // The receiver outlives every agent; without it there is nobody left to tell.
                let _ = gone.send(AgentGone { actor: incident.actor });
            }
        }
    };
    let models = models::start(around, dispensable(&gone))?;

    let agent_settings = Rc::clone(&settings);
    let router = seams.models.or_else(|| models.as_ref().map(|(router, _)| router.clone().recipient()));
    let asked = router.map_or_else(Models::default, |router| Models::through(router, clock.clone()));
    let mut pulses =
        vec![pulse!("store", store), pulse!("bus", bus.bus()), pulse!("risk", risk), pulse!("execution", execution)];
    pulses.push(pulse!("market", market));
    if let Some((router, _)) = &models {
        pulses.push(pulse!("models", router));
    }
    macro_rules! agent {
        ($type:ident, $name:literal) => {{
            let settings = Rc::clone(&agent_settings);
            let asked = asked.clone();
            let agent =
                supervise($name, policy, move || $type::new(Rc::clone(&settings), asked.clone()), dispensable(&gone));
            pulses.push(pulse!($name, agent));
            agent.recipient()
        }};
    }
    let desk_parts = (bus.clone(), clock.clone());
    let desk = supervise(
        "command_desk",
        policy,
        move || CommandDesk::new(desk_parts.0.clone(), desk_parts.1.clone()),
        move |incident: &Incident| report(incident, on_fatal),
    );
    pulses.push(pulse!("command_desk", desk));
    let links = Links {
        technical: agent!(TechnicalAnalysis, "technical_analysis"),
        regime: agent!(RegimeDetection, "regime_detection"),
        sentiment: agent!(SentimentAnalysis, "sentiment_analysis"),
        trading: agent!(TradingDecision, "trading_decision"),
        portfolio: agent!(PortfolioRebalance, "portfolio_rebalance"),
        resolver: agent!(ConflictResolver, "conflict_resolver"),
        answers: desk.clone().recipient(),
        store: store.clone(),
        snapshots: market.clone().recipient(),
        market,
        reserve: risk.clone().recipient(),
        risk,
        execution,
        bus: bus.clone(),
        risk_ready,
        on_fatal,
    };
    let links = match seams.links {
        Some(change) => change(links),
        None => links,
    };

    let (scheduler, effects, recovered) =
        restore(&settings, &config_hash, &view, &store, &opened, aux.scheduler, &clock).await?;
    // The recovered account is judged before the first decision: a loss of the downtime trips its breaker now, and the
    // coordinator's first look starts the emergency.
    links.risk.send(Mark { tick: None }).await?;
    store.send(Flush).await?;
    let coordinator = Coordinator::new(actor::Parts {
        settings,
        clock: clock.clone(),
        view: view.clone(),
        prices: prices.clone(),
        links: links.clone(),
        risk_rules: rules,
        scheduler,
        effects,
        opinions: aux.opinions,
        recovered: recovered.clone(),
        moved: opened.moved,
        level,
        outside,
        volatile,
        models: models.as_ref().map(|(router, _)| router.clone().recipient()),
        on_fatal,
    });
    let coordinator = run_fatal("coordinator", coordinator, panicked);
    if let Some((_, shared)) = &models {
        *shared.outcomes.borrow_mut() = Some(coordinator.clone().recipient());
    }
    store.send(Observe(coordinator.clone().recipient())).await?;
    let told = coordinator.clone();
    task::guarded("given up", on_fatal, async move {
        while let Some(agent) = gone_agents.recv().await {
            post("coordinator", &told, agent);
        }
    });
    let commands = Subscribe {
        subscriber: "coordinator".into(),
        recipient: coordinator.clone().recipient(),
        topic: Topic::CoordinatorCommands,
        filter: None,
    };
    links.bus.bus().send(commands).await?;
    let models = models.map(|(router, _)| router);
    let read_only = opened.frozen;
    Ok(System { desk, coordinator, links, models, view, prices, board, recovered, clock, pulses, read_only })
}

/// The venue with failpoints around it, in a build that has them.
#[cfg(feature = "failpoints")]
fn watched(venue: Option<Box<dyn Venue>>, settings: &Settings, feed: &str) -> Option<Box<dyn Venue>> {
    use crate::{
        execution::venue::{PaperVenue, VenueAnswer},
        model::{Trade, Ts},
        runtime::failpoint,
    };
    struct Watched(Box<dyn Venue>);
    impl Venue for Watched {
        fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer {
            failpoint::effect("venue.execute", &format!("{:?}", trade.state));
            let answer = self.0.execute(trade, price, now);
            let text = format!("{answer:?}");
            failpoint::effect("venue.answer", text.split([' ', '(']).next().unwrap_or_default());
            answer
        }
    }
    let venue = venue.unwrap_or_else(|| Box::new(PaperVenue::new(settings, feed.to_owned())));
    Some(Box::new(Watched(venue)))
}

#[cfg(not(feature = "failpoints"))]
fn watched(venue: Option<Box<dyn Venue>>, _: &Settings, _: &str) -> Option<Box<dyn Venue>> {
    venue
}

/// A supervised actor that is given up ends the process; one that comes back is only reported.
fn report(incident: &Incident, on_fatal: fn(&str)) {
    tracing::error!(actor = incident.actor, next = ?incident.next, "panic: {}", incident.message);
    if incident.next == Next::GaveUp {
        on_fatal(&format!("{} panicked too often: {}", incident.actor, incident.message));
    }
}

fn price_hook(board: PriceBoard, execution: Addr<ExecutionActor>, bus: Publisher) -> Box<dyn FnMut(PriceTick)> {
    use crate::bus::{MarketData, Payload};
    Box::new(move |tick| {
        board.set(tick);
        post("execution", &execution, Tick(tick));
        bus.publish("market", Some(tick.symbol), Payload::Market(MarketData::Price(tick)));
    })
}

/// The deposits of a new store.
pub fn deposits(settings: &Settings) -> BTreeMap<crate::model::Asset, rust_decimal::Decimal> {
    settings.account.initial_balances.iter().filter(|(_, amount)| !amount.is_zero()).map(|(a, m)| (*a, *m)).collect()
}
