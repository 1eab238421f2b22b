//! Owns the socket and carries out what the session says. A task beside the actors: what it hears goes to the market as
//! a message, what it notices goes to the log, the bus and `status`.

use std::{borrow::Cow, collections::BTreeMap, future::pending, rc::Rc, time::Duration};

use actix::Recipient;
use futures_util::{SinkExt, StreamExt};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::fetch::{self, Answer, RestClient, Wanted};
use crate::{
    bus::{MarketData, Payload, actor::Publisher},
    market::{
        actor::Delivered,
        feed::{
            FeedItem, FeedKind,
            candle_store::CandleStore,
            kraken::{
                backfill::{Backfill, Filled},
                session::{Action, Notice, Session},
                view::Shared,
            },
        },
    },
    model::{Candle, Clock, Symbol, Timeframe, Ts},
    runtime::{clock::LogicalClock, post::post, task},
};

/// Largest frame taken, bytes; a snapshot of candles is about 150 kB.
const FRAME_MAX: usize = 4 << 20;
/// For handing one frame to the network.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// After a panic of the task, before it is begun again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the link works with.
#[derive(Clone)]
pub struct Parts {
    /// Traded symbols.
    pub symbols: Vec<Symbol>,
    /// Length of the candles.
    pub frame: Timeframe,
    /// WebSocket address.
    pub ws_url: String,
    /// REST address.
    pub rest_url: String,
    /// Prices older than this are silence, milliseconds.
    pub silence_ms: i64,
    /// Missing candles are fetched.
    pub gap_fill: bool,
    /// Program time, at speed 1.
    pub clock: LogicalClock,
    /// Who takes the market data.
    pub market: Recipient<Delivered>,
    /// Where closed candles are kept.
    pub store: CandleStore,
    /// Where the state is shown.
    pub view: Shared,
    /// Spreads the tries to connect.
    pub seed: u64,
    /// Where changes are announced.
    pub bus: Publisher,
}

/// Starts the link on this thread. It never ends by itself: after a panic it begins again.
pub fn start(parts: Parts) -> JoinHandle<()> {
    task::owned(async move {
        loop {
            let ended = task::owned(Link::new(parts.clone()).run()).await;
            parts.view.change(|view| view.connected = false);
            tracing::error!("the link to the venue ended ({ended:?}); it is begun again");
            tokio::time::sleep(AFTER_PANIC).await;
        }
    })
}

struct Link {
    parts: Parts,
    session: Session,
    backfill: Backfill,
    chance: ChaCha8Rng,
    socket: Option<Socket>,
    connecting: Option<JoinHandle<Result<Socket, String>>>,
    wanted: Option<UnboundedSender<Wanted>>,
    answers: UnboundedReceiver<Answer>,
    fetcher: Option<JoinHandle<()>>,
    /// Newest price of each symbol, and whether its silence was told.
    priced: BTreeMap<Symbol, (Ts, bool)>,
    /// The names stay the same for the whole process.
    name: Rc<str>,
}

/// What happened.
enum Heard {
    Time,
    Frame(String),
    Opened(Box<Socket>),
    Lost(String),
    Nothing,
    Answer(Answer),
    /// Who fetches missing candles panicked.
    NoFetcher,
}

impl Link {
    fn new(parts: Parts) -> Link {
        let now = parts.clock.now();
        let mut session = Session::new(parts.symbols.clone(), parts.frame, now);
        for symbol in &parts.symbols {
            if let Ok(Some(newest)) = parts.store.newest(*symbol) {
                session.known(*symbol, newest);
            }
        }
        parts.view.change(|view| {
            for symbol in &parts.symbols {
                view.symbols.entry(*symbol).or_default().silent = false;
            }
        });
        let (wanted, questions) = unbounded_channel();
        let (sender, answers) = unbounded_channel();
        let client = RestClient::new(&parts.rest_url);
        if let Err(error) = &client {
            tracing::error!("no REST client: {error}; missing candles are not fetched");
        }
        let fetcher = client.ok().map(|client| task::owned(fetch::serve(client, parts.frame, questions, sender)));
        Link {
            session,
            backfill: Backfill::new(parts.frame),
            chance: ChaCha8Rng::seed_from_u64(parts.seed ^ now.0.unsigned_abs()),
            socket: None,
            connecting: None,
            wanted: fetcher.is_some().then_some(wanted),
            answers,
            fetcher,
            priced: BTreeMap::new(),
            name: "kraken".into(),
            parts,
        }
    }

    async fn run(mut self) {
        loop {
            let heard = self.listen().await;
            let (now, chance) = (self.parts.clock.now(), self.chance());
            let actions = match heard {
                Heard::Time => self.session.tick(now, chance),
                Heard::Frame(text) => self.session.heard(&text, now),
                Heard::Opened(socket) => {
                    self.socket = Some(*socket);
                    self.opened(now)
                }
                Heard::Lost(why) => {
                    self.socket = None;
                    self.session.lost(why, now, chance)
                }
                Heard::Nothing => Vec::new(),
                // Everything begins again, the fetcher too.
                Heard::NoFetcher => return,
                Heard::Answer(answer) => {
                    self.answered(answer, now);
                    Vec::new()
                }
            };
            self.carry_out(actions).await;
            self.notice_silence(now);
            self.show();
        }
    }

    /// Waits for whatever comes first.
    async fn listen(&mut self) -> Heard {
        let wakes_at = self.session.wakes_at();
        let frame = async {
            match &mut self.socket {
                Some(socket) => socket.next().await,
                None => pending().await,
            }
        };
        let connected = async {
            match &mut self.connecting {
                Some(task) => task.await,
                None => pending().await,
            }
        };
        let answer = async {
            match self.answers.recv().await {
                Some(answer) => Heard::Answer(answer),
                // The fetcher never ends by itself.
                None if self.fetcher.is_some() => Heard::NoFetcher,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.parts.clock.sleep_until(wakes_at) => Heard::Time,
            frame = frame => match frame {
                Some(Ok(Message::Text(text))) => Heard::Frame(text.as_str().to_owned()),
                Some(Ok(Message::Close(_))) | None => Heard::Lost("the venue closed the connection".to_owned()),
                Some(Ok(_)) => Heard::Nothing,
                Some(Err(error)) => Heard::Lost(format!("the connection broke: {error}")),
            },
            connected = connected => {
                self.connecting = None;
                match connected {
                    Ok(Ok(socket)) => Heard::Opened(Box::new(socket)),
                    Ok(Err(why)) => Heard::Lost(why),
                    Err(error) => Heard::Lost(format!("connecting failed: {error}")),
                }
            }
            answer = answer => answer,
        }
    }

    /// Before anything of the new connection is heard it is noted where what may be missing begins.
    fn opened(&mut self, now: Ts) -> Vec<Action> {
        if self.parts.gap_fill && self.wanted.is_some() {
            let refused = self.session.refused().clone();
            for symbol in self.parts.symbols.iter().filter(|symbol| !refused.contains_key(&symbol.to_string())) {
                let newest = self.session.newest(*symbol);
                self.backfill.begin(*symbol, newest.map(|newest| newest.plus_ms(self.parts.frame.ms())));
            }
        }
        self.session.opened(now)
    }

    async fn carry_out(&mut self, actions: Vec<Action>) {
        let mut items = Vec::new();
        for action in actions {
            match action {
                Action::Connect => {
                    let url = self.parts.ws_url.clone();
                    self.connecting = Some(task::owned(connect(url)));
                }
                Action::Send(text) => {
                    let Some(socket) = &mut self.socket else { continue };
                    let sent = timeout(SEND_PATIENCE, socket.send(Message::text(text))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        self.socket = None;
                        let (now, chance) = (self.parts.clock.now(), self.chance());
                        for action in self.session.lost("nothing can be sent".to_owned(), now, chance) {
                            match action {
                                Action::Item(item) => self.item(item, &mut items),
                                action => self.tell_of(action),
                            }
                        }
                    }
                }
                Action::Close => {
                    self.socket = None;
                    if let Some(task) = self.connecting.take() {
                        task.abort();
                    }
                }
                Action::Item(item) => self.item(item, &mut items),
                Action::Missing { symbol, .. } => {
                    if let (Some((from, round)), Some(wanted)) = (self.backfill.wanted(symbol), &self.wanted) {
                        // The fetcher ends only with this task.
                        let _ = wanted.send(Wanted { symbol, from, round });
                    }
                }
                action @ Action::Tell(_) => self.tell_of(action),
            }
        }
        self.deliver(items);
    }

    fn item(&mut self, item: FeedItem, items: &mut Vec<FeedItem>) {
        if matches!(item.kind, FeedKind::Settled(_)) {
            // Nothing is settled while candles are fetched, and it is no word of the venue.
            if self.backfill.wanted(item.symbol).is_none() {
                items.push(item);
            }
            return;
        }
        self.parts.view.change(|view| {
            view.symbols.entry(item.symbol).or_default().last_message_at = Some(self.parts.clock.now());
        });
        match item.kind {
            FeedKind::Candle(candle) => {
                if let Some(candle) = self.backfill.candle(item.symbol, candle) {
                    self.keep(item.symbol, &[candle]);
                    items.push(item);
                }
            }
            FeedKind::Price(_) => {
                let told = self.priced.get(&item.symbol).is_some_and(|(_, told)| *told);
                self.priced.insert(item.symbol, (item.available_at, told));
                items.push(item);
            }
            FeedKind::Book(_) | FeedKind::Longer(..) | FeedKind::Settled(_) => items.push(item),
        }
    }

    /// A connection that stands says nothing about data: prices that stop are told once, and again when they are back.
    fn notice_silence(&mut self, now: Ts) {
        let (up, silence_ms) = (self.session.is_up(), self.parts.silence_ms);
        let mut changed = Vec::new();
        for (symbol, (at, told)) in &mut self.priced {
            let silent = now.since_ms(*at) > silence_ms;
            if up && silent != *told {
                *told = silent;
                changed.push((*symbol, silent, now.since_ms(*at)));
            }
        }
        for (symbol, silent, age_ms) in changed {
            self.parts.view.change(|view| view.symbols.entry(symbol).or_default().silent = silent);
            if silent {
                tracing::warn!("{symbol}: no price for {age_ms} ms, the connection stands");
                self.parts.view.change(|view| view.symbols.entry(symbol).or_default().silences += 1);
                self.announce(Some(symbol), false, format!("no price for {age_ms} ms, the connection stands"));
            } else {
                tracing::info!("{symbol}: prices are back");
                self.announce(Some(symbol), true, "prices are back".to_owned());
            }
        }
    }

    fn answered(&mut self, answer: Answer, now: Ts) {
        match answer {
            Answer::Candles(wanted, rows) => {
                if let Some(filled) = self.backfill.filled(wanted.symbol, wanted.round, &rows) {
                    self.hand_on(wanted.symbol, filled, now);
                }
            }
            Answer::GivenUp(wanted, error) => {
                tracing::warn!("{}: the candles since {:?} could not be fetched: {error}", wanted.symbol, wanted.from);
                if let Some(filled) = self.backfill.given_up(wanted.symbol, wanted.round) {
                    self.hand_on(wanted.symbol, filled, now);
                }
            }
            Answer::Later(error) => tracing::warn!("the venue's REST interface: {error}; it is asked again"),
            Answer::Offset(offset_ms) => self.parts.view.change(|view| view.offset = Some((offset_ms, now))),
        }
    }

    fn hand_on(&mut self, symbol: Symbol, filled: Filled, now: Ts) {
        if let Some(gap) = filled.gap {
            let missing = self.backfill.missing(gap);
            let view = &self.parts.view;
            view.change(|view| {
                let line = view.symbols.entry(symbol).or_default();
                line.unfilled_candles += missing.unsigned_abs();
                line.last_gap = Some(gap);
            });
            let text =
                format!("{missing} candles from {} to {} are missing; the venue does not give them", gap.0, gap.1);
            tracing::warn!("{symbol}: {text}; `triplegain import kraken-csv` can");
            self.announce(Some(symbol), false, text);
        }
        self.keep(symbol, &filled.candles);
        if let Some(last) = filled.candles.last() {
            self.session.known(symbol, last.open_time);
        }
        let item = |candle: &Candle| FeedItem { symbol, available_at: now, kind: FeedKind::Candle(*candle) };
        let items: Vec<FeedItem> = filled.candles.iter().map(item).collect();
        tracing::info!("{symbol}: {} candles up to now were fetched or held back", items.len());
        self.deliver(items);
    }

    fn keep(&self, symbol: Symbol, candles: &[Candle]) {
        if let Err(error) = self.parts.store.append(symbol, candles) {
            tracing::warn!(
                "{symbol}: closed candles could not be kept in {}: {error}",
                self.parts.store.path(symbol).display()
            );
        }
    }

    fn deliver(&self, items: Vec<FeedItem>) {
        if !items.is_empty() {
            post("market", &self.parts.market, Delivered(items));
        }
    }

    fn tell_of(&mut self, action: Action) {
        let Action::Tell(notice) = action else { return };
        match notice {
            Notice::Connected => {
                tracing::info!("connected to {} and subscribed", self.parts.ws_url);
                let now = self.parts.clock.now();
                for symbol in self.parts.symbols.iter().filter(|symbol| self.session.is_subscribed(**symbol)) {
                    // A symbol whose first price never comes is silent as well.
                    self.priced.entry(*symbol).or_insert((now, false));
                }
                self.announce(None, true, "connected and subscribed".to_owned());
            }
            Notice::Disconnected { why, again_at } => {
                tracing::warn!("no connection to {}: {why}; tried again at {again_at}", self.parts.ws_url);
                self.announce(None, false, why);
            }
            Notice::Refused { symbol, error } => {
                let name = symbol.as_deref().unwrap_or("a subscription");
                tracing::error!("the venue refuses {name}: {error}; the other symbols go on");
                let known = symbol.as_deref().and_then(|name| name.parse::<Symbol>().ok());
                self.announce(known, false, format!("refused: {error}"));
            }
            Notice::System(system) => {
                tracing::warn!("the venue's engine is `{system}`");
                let healthy = system == "online";
                self.announce(None, healthy, format!("the venue's engine is {system}"));
            }
            Notice::BookBroken { symbol, why } => {
                tracing::warn!("{symbol}: the book is asked for anew: {why}");
                self.parts.view.change(|view| view.symbols.entry(symbol).or_default().broken_books += 1);
            }
            Notice::Odd(why) => tracing::warn!("{why}"),
        }
    }

    fn announce(&self, symbol: Option<Symbol>, healthy: bool, detail: String) {
        let feed = Cow::Owned(self.name.to_string());
        let health = MarketData::FeedHealth { symbol, feed, healthy, detail: Cow::Owned(detail) };
        self.parts.bus.publish("market", symbol, Payload::Market(health));
    }

    fn show(&self) {
        let counts = self.session.counts();
        self.parts.view.change(|view| {
            view.connected = self.session.is_up();
            view.reconnects = counts.connections.saturating_sub(1);
            view.losses = counts.losses;
            (view.frames, view.odd_frames) = (counts.frames, counts.odd_frames);
            if view.system != self.session.system() {
                self.session.system().clone_into(&mut view.system);
            }
            for symbol in &self.parts.symbols {
                let line = view.symbols.entry(*symbol).or_default();
                line.subscribed = self.session.is_subscribed(*symbol);
                line.refused = self.session.refused().get(&symbol.to_string()).cloned();
            }
        });
    }

    /// A number in 0..1.
    fn chance(&mut self) -> f64 {
        f64::from(self.chance.next_u32()) / f64::from(u32::MAX)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in [self.fetcher.take()].into_iter().flatten() {
            task.abort();
        }
        if let Some(task) = self.connecting.take() {
            task.abort();
        }
    }
}

/// Opens a connection with limits on what it may bring.
///
/// # Errors
/// Why not, for people.
pub async fn connect(url: String) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, String> {
    let config = WebSocketConfig::default().max_message_size(Some(FRAME_MAX)).max_frame_size(Some(FRAME_MAX));
    match connect_async_with_config(&url, Some(config), true).await {
        Ok((socket, _)) => Ok(socket),
        Err(error) => Err(format!("{url} cannot be reached: {error}")),
    }
}
