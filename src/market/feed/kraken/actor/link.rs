//! Owns the socket and carries out what the session says. A task beside the actors: what it hears goes to the market as
//! a message, what it notices goes to the log, the bus and `status`.

use std::{collections::BTreeSet, future::pending, rc::Rc, time::Duration};

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
    bus::actor::Publisher,
    market::{
        actor::{Delivered, Rewarm},
        feed::{
            FeedItem, FeedKind,
            candle_store::CandleStore,
            hours::Hours,
            kraken::{
                backfill::{Backfill, Filled, gap_words},
                session::{Action, Session, Waits},
                silence::Silence,
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
    /// Who builds frames anew when their history came late.
    pub rewarm: Recipient<Rewarm>,
    /// Where closed candles are kept.
    pub store: CandleStore,
    /// Hours from before the candles; absent when the candles are as long.
    pub hours: Option<Hours>,
    /// Where the state is shown.
    pub view: Shared,
    /// Told which symbols' prices have stopped, when they are others than before.
    pub on_silence: Rc<dyn Fn(BTreeSet<Symbol>)>,
    /// Spreads the tries to connect.
    pub seed: u64,
    /// Between two of them.
    pub waits: Waits,
    /// Where changes are announced.
    pub bus: Publisher,
}

/// Starts the link on this thread. It never ends by itself: after a panic it begins again.
pub fn start(parts: Parts) -> JoinHandle<()> {
    // Holes that were found before there was a bus are told like any other.
    for (symbol, line) in parts.view.read().symbols {
        if let Some(gap) = line.last_gap {
            parts.announce(Some(symbol), false, gap_words(parts.frame, gap));
        }
    }
    task::owned(async move {
        loop {
            let ended = task::owned(Link::new(parts.clone()).run()).await;
            parts.view.change(|view| view.connected = false);
            tracing::error!("the link to the venue ended ({ended:?}); it is begun again");
            tokio::time::sleep(AFTER_PANIC).await;
        }
    })
}

pub(super) struct Link {
    pub(super) parts: Parts,
    pub(super) session: Session,
    backfill: Backfill,
    chance: ChaCha8Rng,
    socket: Option<Socket>,
    connecting: Option<JoinHandle<Result<Socket, String>>>,
    wanted: Option<UnboundedSender<Wanted>>,
    answers: UnboundedReceiver<Answer>,
    fetcher: Option<JoinHandle<()>>,
    pub(super) silence: Silence,
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
        let mut session = Session::new(parts.symbols.clone(), parts.frame, now).with_waits(parts.waits);
        for symbol in &parts.symbols {
            if let Ok(Some(newest)) = parts.store.newest(*symbol) {
                session.known(*symbol, newest);
            }
        }
        parts.view.change(|view| {
            for symbol in &parts.symbols {
                let line = view.symbols.entry(*symbol).or_default();
                (line.silent, line.candles_frozen) = (false, false);
            }
        });
        (parts.on_silence)(BTreeSet::new());
        let (wanted, questions) = unbounded_channel();
        let (sender, answers) = unbounded_channel();
        let client = RestClient::new(&parts.rest_url);
        if let Err(error) = &client {
            tracing::error!("no REST client: {error}; missing candles are not fetched");
        }
        let fetcher = client.ok().map(|client| task::owned(fetch::serve(client, parts.frame, questions, sender)));
        let mut link = Link {
            session,
            backfill: Backfill::default(),
            chance: ChaCha8Rng::seed_from_u64(parts.seed ^ now.0.unsigned_abs()),
            socket: None,
            connecting: None,
            wanted: fetcher.is_some().then_some(wanted),
            answers,
            fetcher,
            silence: Silence::new(parts.silence_ms),
            parts,
        };
        for symbol in link.parts.symbols.clone() {
            link.ask_for_hours(symbol, now);
        }
        link
    }

    /// History that did not come before the start comes when the venue gives it.
    fn ask_for_hours(&mut self, symbol: Symbol, now: Ts) {
        let (Some(hours), Some(wanted)) = (&self.parts.hours, &self.wanted) else { return };
        if !self.parts.gap_fill || !matches!(hours.are_missing(&self.parts.store, symbol, now), Ok(true)) {
            return;
        }
        let (newest, frame) = (hours.store.newest(symbol), hours.store.frame());
        let from = newest.ok().flatten().map(|newest| newest.plus_ms(frame.ms()));
        // The fetcher ends only with this task.
        let _ = wanted.send(Wanted { symbol, frame, from, round: 0 });
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
        let own = self.session.wakes_at();
        let wakes_at = self.silence.wakes_at().map_or(own, |silent| own.min(silent));
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
            for symbol in self.parts.symbols.clone() {
                let newest = self.session.newest(symbol);
                self.backfill.begin(symbol, newest.map(|newest| newest.plus_ms(self.parts.frame.ms())));
            }
        }
        self.session.opened(now)
    }

    /// Asks for what is missing, when that can be asked for.
    fn fetch_missing(&self, symbol: Symbol) {
        if let (Some((from, round)), Some(wanted)) = (self.backfill.wanted(symbol), &self.wanted) {
            // The fetcher ends only with this task.
            let _ = wanted.send(Wanted { symbol, frame: self.parts.frame, from, round });
        }
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
                Action::Missing { symbol, from } => {
                    // Not yet, when the venue serves it only now.
                    if self.parts.gap_fill && self.wanted.is_some() && self.backfill.wanted(symbol).is_none() {
                        self.backfill.begin(symbol, from);
                    }
                    self.fetch_missing(symbol);
                }
                // Who waits already has asked for it, or does so with what comes next.
                Action::Hole { symbol, from } if self.backfill.wanted(symbol).is_none() => {
                    if self.parts.gap_fill && self.wanted.is_some() {
                        tracing::warn!("{symbol}: candles since {from} did not come; the venue is asked for them");
                        self.backfill.begin(symbol, Some(from));
                        self.fetch_missing(symbol);
                    }
                }
                Action::Hole { .. } => {}
                action @ Action::Tell(_) => self.tell_of(action),
            }
        }
        self.deliver(items);
    }

    fn item(&mut self, item: FeedItem, items: &mut Vec<FeedItem>) {
        // What follows from the venue's silence is no word of it; nothing is settled while candles are fetched.
        match item.kind {
            FeedKind::Settled(_) if self.backfill.wanted(item.symbol).is_some() => return,
            FeedKind::Settled(_) | FeedKind::NoBook => return items.push(item),
            _ => {}
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
            FeedKind::Price(_) | FeedKind::Mid(_) => {
                self.silence.heard(item.symbol, item.available_at);
                items.push(item);
            }
            _ => items.push(item),
        }
    }

    fn answered(&mut self, answer: Answer, now: Ts) {
        match answer {
            Answer::Candles(wanted, rows) if wanted.frame != self.parts.frame => self.hours_came(wanted.symbol, &rows),
            Answer::GivenUp(wanted, error) if wanted.frame != self.parts.frame => {
                tracing::warn!("{}: no hours from before the candles: {error}", wanted.symbol);
            }
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

    /// They lie beside the candles; the market reads both again, as at a start.
    fn hours_came(&mut self, symbol: Symbol, rows: &[Candle]) {
        let Some(hours) = &self.parts.hours else { return };
        match hours.store.append(symbol, rows) {
            Ok(added) => {
                tracing::info!("{symbol}: {added} hours from before the candles fetched");
                post("market", &self.parts.rewarm, Rewarm(symbol));
            }
            Err(error) => {
                let path = hours.store.path(symbol);
                tracing::warn!("{symbol}: hours could not be kept in {}: {error}", path.display());
            }
        }
    }

    fn hand_on(&mut self, symbol: Symbol, filled: Filled, now: Ts) {
        if let Some(gap) = filled.gap {
            let text = self.parts.view.miss(symbol, self.parts.frame, gap);
            self.parts.announce(Some(symbol), false, text);
        }
        self.keep(symbol, &filled.candles);
        if let Some(last) = filled.candles.last() {
            self.session.known(symbol, last.open_time);
        }
        let item = |candle: &Candle| FeedItem { symbol, available_at: now, kind: FeedKind::Candle(*candle) };
        let items: Vec<FeedItem> = filled.candles.iter().map(item).collect();
        tracing::info!("{symbol}: {} candles up to now were fetched or held back", items.len());
        self.deliver(items);
        if filled.gap.is_some() {
            // Longer frames may start over with it; hours lie in it when the venue gives them.
            self.ask_for_hours(symbol, now);
        }
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
