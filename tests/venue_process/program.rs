//! The program as a process: the real store in files, the real execution actor, the wire in place of the paper venue.
//! It makes its orders again in every life, by the same keys, and ends when nothing is on its way any more.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use actix::{Actor, Context, Handler};
use futures_util::future::LocalBoxFuture;
use rust_decimal::Decimal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use triplegain::{
    execution::{
        actor::{CancelEntries, ExecutionActor, Parts, Place, Tick, desk::VenueFilled},
        intent::EntryOrder,
        remote::{Answer, FillReport, Order, OrderReport, RemoteVenue, Submitted, VenueTime},
        restart::Gap,
    },
    model::*,
    risk::{RiskRules, actor::Mark, board::PriceBoard},
    runtime::{clock::LogicalClock, placement::run_live, supervisor::run_fatal},
    settings::Settings,
    store::{
        OpenInfo, Opened, Store, StoreActor, StoreActorConfig, files,
        journal::{JournalFile, Opener},
        view::{CommitLog, StateView},
    },
};
use uuid::Uuid;

use crate::{
    SPEED, env,
    faulty_venue::{self, Reply, Request},
    shared_now,
};

fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

/// A segment on a disk that fails in the middle of the append of one kind of record (`VENUE_FAILS`), or that stops the
/// process once such a record is durable and before anybody is told (`VENUE_STOPS`).
struct Struck {
    file: File,
    stops: bool,
}

fn holds(bytes: &[u8], kind: &str) -> bool {
    let Ok(kind) = std::env::var(kind) else { return false };
    let wanted = format!("\"{kind}\"");
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

impl JournalFile for Struck {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if holds(bytes, "VENUE_FAILS") {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::other("the disk fails here"));
        }
        self.stops = holds(bytes, "VENUE_STOPS");
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.stops {
            println!("at stored");
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

fn struck() -> Opener {
    Box::new(|path, new| {
        let file = files::owner_only().append(true).create_new(new).open(path)?;
        Ok(Box::new(Struck { file, stops: false }) as Box<dyn JournalFile>)
    })
}

fn open(data: &Path, settings: &Settings, now: Ts) -> (Store, Opened) {
    let info = OpenInfo {
        seed: 7,
        data_kind: "simulated".to_owned(),
        config_hash: "0".repeat(64),
        version: "0".to_owned(),
        now,
        deposits: triplegain::cli::system::deposits(settings),
        stands_still: false,
        store_id: Some(Uuid::from_u128(7)),
    };
    Store::open_with(data, &settings.store, &info, struck()).unwrap()
}

/// The state a start would find, and every event of the journal.
pub fn read(data: &Path) -> (State, Vec<Event>) {
    let (store, _) = open(data, &Settings::defaults(), crate::START);
    let state = store.state().clone();
    drop(store);
    let all = std::fs::read_dir(data.join("journal")).unwrap().map(|file| file.unwrap().path());
    // A tail that was cut off lies beside the segments; it does not count.
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let events = text.lines().filter_map(|line| {
        // The frame of a line carries the record as its one object.
        let start = line.find('{')?;
        serde_json::Deserializer::from_str(&line[start..]).into_iter::<Record>().next()?.ok()
    });
    (state, events.map(|record| record.event).collect())
}

/// The venue behind a loopback connection; one connection per request.
struct Wire(u16);

async fn exchange(port: u16, request: Request) -> Result<Option<Reply>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    // From here on the venue may have it.
    Ok(speak(stream, &request).await.ok().flatten())
}

async fn speak(stream: TcpStream, request: &Request) -> std::io::Result<Option<Reply>> {
    let mut stream = BufReader::new(stream);
    let text = serde_json::to_string(request)?;
    let (first, rest) = text.split_at(text.len() / 2);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    stream.write_all(format!("{}\n{first}", first.len()).as_bytes()).await?;
    stream.flush().await?;
    stream.read_line(&mut line).await?;
    stream.write_all(format!("{rest}\n").as_bytes()).await?;
    line.clear();
    stream.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line).ok())
}

/// Says one line beside the orders, and hears one.
async fn aside(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let mut line = String::new();
    stream.write_all(format!("{text}\n").as_bytes()).await?;
    stream.read_line(&mut line).await?;
    Ok(line)
}

impl Wire {
    fn ask<T: 'static>(&self, request: Request, read: fn(Option<Reply>) -> T) -> LocalBoxFuture<'static, T> {
        let port = self.0;
        Box::pin(async move { read(exchange(port, request).await.ok().flatten()) })
    }
}

impl RemoteVenue for Wire {
    fn submit(&self, number: u64, order: Order) -> LocalBoxFuture<'static, Submitted> {
        let port = self.0;
        Box::pin(async move {
            match exchange(port, Request::Submit { number, order }).await {
                Ok(reply) => faulty_venue::submitted(reply),
                Err(why) => Submitted::NotSent(why),
            }
        })
    }
    fn open_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>> {
        self.ask(Request::Open { number, client_id }, faulty_venue::orders)
    }
    fn closed_orders(&self, number: u64, client_id: Uuid) -> Answer<Vec<OrderReport>> {
        self.ask(Request::Closed { number, client_id }, faulty_venue::orders)
    }
    fn trades(&self, number: u64, client_id: Uuid, since: Ts) -> Answer<Vec<FillReport>> {
        self.ask(Request::Trades { number, client_id, since }, faulty_venue::fills)
    }
    fn cancel(&self, number: u64, client_id: Uuid) -> Answer<()> {
        self.ask(Request::Cancel { number, client_id }, |reply| reply.map(drop).ok_or_else(|| "no answer".to_owned()))
    }
    fn time(&self) -> Answer<VenueTime> {
        self.ask(Request::Time, faulty_venue::time)
    }
}

struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<Mark> for Nobody {
    type Result = ();
    fn handle(&mut self, _: Mark, _: &mut Context<Self>) {}
}

fn order(number: u32, limit: Decimal) -> EntryOrder {
    EntryOrder {
        decision: DecisionId(RunId { epoch: 1, seq: number.into() }),
        slot: format!("slot:{number}"),
        replacement: 0,
        symbol: btc(),
        side: Side::Buy,
        quantity: Decimal::new(1, 2),
        entry: limit,
        market: Decimal::from(40_000),
        stop: None,
        target: None,
        leverage: 1,
    }
}

fn tick(clock: &LogicalClock) -> PriceTick {
    PriceTick { symbol: btc(), price: Decimal::from(40_000), at: clock.now(), price_id: 1, range: None }
}

/// A broken invariant ends the process like a crash would; the parent sees that no `done` came.
fn fatal(what: &str) {
    eprintln!("fatal: {what}");
    std::process::exit(70);
}

/// On its way: what has to be known before the process may end.
fn under_way(state: &State, closing: bool) -> bool {
    state.trades.values().any(|trade| match trade.state {
        TradeState::Manual => false,
        TradeState::Acked | TradeState::Partial => closing,
        _ => true,
    })
}

pub fn run() -> ! {
    let settings = Rc::new(Settings::defaults());
    let data = std::env::var("VENUE_STORE").unwrap();
    let (wall0, port, orders): (i64, u16, u32) = (env("VENUE_WALL0"), env("VENUE_PORT"), env("VENUE_ORDERS"));
    let side: u16 = env("VENUE_SIDE");
    let limit: Decimal = env("VENUE_LIMIT");
    let closing = std::env::var("VENUE_END").unwrap() == "closed";
    let now = shared_now(wall0);
    let (store, opened) = open(Path::new(&data), &settings, now);
    let start = now.max(opened.last_logical_time);
    let speed = u32::try_from(SPEED).unwrap();
    let ran = run_live(start, speed, |place| async move {
        let clock = place.clock.clone();
        let log = CommitLog::default();
        let view = StateView::new(store.state().clone(), log.clone(), Rc::new(|misfit| fatal(&misfit.to_string())));
        let config = StoreActorConfig {
            observers: Vec::new(),
            log,
            max_group_events: 64,
            aux_flush_ms: 0,
            grouping: true,
            on_fatal: Box::new(|failure| fatal(&failure.to_string())),
        };
        let store = place.start_store(move || StoreActor::new(store, config), |_| fatal("store")).await.unwrap();
        let board = PriceBoard::new(settings.account_currency);
        board.set(tick(&clock));
        let rules = RiskRules::of(&settings);
        let execution = ExecutionActor::new(Parts {
            settings: Rc::clone(&settings),
            clock: clock.clone(),
            view: view.clone(),
            prices: board.reader(),
            store: store.clone(),
            rules: Rc::new(rules.unwrap()),
            level: Rc::new(Cell::new(DegradationLevel::Normal)),
            feed: "test".into(),
            venue: None,
            remote: Some(Rc::new(Wire(port))),
            risk: Nobody.start().recipient(),
            gap: Gap::none(),
            read_only: false,
            on_fatal: Rc::new(|what: String| fatal(&what)),
        });
        let execution = run_fatal("execution", execution, |_| fatal("execution"));
        let mut next = 1;
        loop {
            let price = tick(&clock);
            board.set(price);
            execution.send(Tick(price)).await.unwrap();
            let told = aside(side, "stream").await.unwrap_or_default();
            for fill in serde_json::from_str::<Vec<FillReport>>(&told).unwrap_or_default() {
                execution.send(VenueFilled(fill)).await.unwrap();
            }
            if next <= orders {
                let placed = execution.send(Place { order: order(next, limit), events: Vec::new() }).await.unwrap();
                // While an order of unknown fate blocks the symbol this one waits.
                if let Ok(triplegain::execution::actor::Placed::Intent(key)) = placed {
                    println!("placed {key}");
                    next += 1;
                }
            } else if !under_way(&view.read(), closing) {
                break;
            } else if closing && !under_way(&view.read(), false) {
                let cancel = CancelEntries { symbol: btc(), reason: "the end".into() };
                execution.send(cancel).await.unwrap();
            }
            clock.sleep_until(clock.now().plus_ms(1_000)).await;
        }
        // Whoever counts this program's requests learns that no more come.
        aside(side, "!finished").await.unwrap();
    });
    ran.unwrap();
    println!("done");
    std::process::exit(0);
}
