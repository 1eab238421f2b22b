//! The venue as a process: one line of JSON per request over loopback, its own ledger, and a plan for the next request
//! of a kind. It tells its parent what it has seen by lines on its standard output.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rust_decimal::Decimal;
use triplegain::model::Ts;
use uuid::Uuid;

use crate::{
    SPEED, env,
    faulty_venue::{Faults, Request, Venue},
    shared_now,
};

struct Desk {
    venue: Venue,
    /// What to do with the next request of a kind.
    plans: BTreeMap<String, String>,
    /// Orders that rest are kept from filling.
    keep_open: bool,
    /// The stream tells nothing.
    silent: bool,
    /// The first word of the stream does not arrive: its connection ends.
    cut_stream: bool,
    /// The stream tells one fill; then the venue freezes.
    one_fill: bool,
    /// Nobody is answered any more: the program can do nothing until it is killed, however late that comes.
    frozen: bool,
    streamed: Ts,
}

/// Says one line at once: the parent waits for it.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent is gone: nobody needs the venue any more.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub fn serve() -> ! {
    let wall0: i64 = env("VENUE_WALL0");
    let faults: Faults = serde_json::from_str(&std::env::var("VENUE_FAULTS").unwrap()).unwrap();
    let venue = Venue::new(env("VENUE_SEED"), Decimal::from(40_000), faults);
    let desk = Desk {
        venue,
        plans: BTreeMap::new(),
        keep_open: false,
        silent: false,
        cut_stream: false,
        one_fill: false,
        frozen: false,
        streamed: Ts(0),
    };
    let desk = Arc::new(Mutex::new(desk));
    // Orders and questions come in at one port; the stream, and what the test arranges, at another.
    let (orders, side) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    say(&format!("ports {} {}", port(&orders), port(&side)));
    let beside = Arc::clone(&desk);
    std::thread::spawn(move || listen(&side, &beside, wall0, talk_aside));
    listen(&orders, &desk, wall0, talk)
}

type Talk = fn(TcpStream, &Mutex<Desk>, i64) -> std::io::Result<()>;

fn listen(listener: &TcpListener, desk: &Arc<Mutex<Desk>>, wall0: i64, talk: Talk) -> ! {
    loop {
        let (stream, desk) = (listener.accept().unwrap().0, Arc::clone(desk));
        std::thread::spawn(move || {
            // A caller that was killed in the middle is what this is for.
            let _ = talk(stream, &desk, wall0);
        });
    }
}

/// Keeps the connection, answers nothing, until the caller is gone.
fn hold(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Says that the request of this plan is here; then its connection ends when the plan says `-cut`, and else everything
/// hangs.
fn stop(stream: &mut BufReader<TcpStream>, desk: &Mutex<Desk>, plan: &str) -> std::io::Result<()> {
    let cut = plan.ends_with("-cut");
    desk.lock().unwrap().frozen |= !cut;
    say(&format!("at {plan}"));
    if cut { Ok(()) } else { hold(stream) }
}

fn name(plan: &str) -> &str {
    plan.strip_suffix("-cut").unwrap_or(plan)
}

/// An answer takes its time; another request may overtake it.
fn take_time(ms: i64) {
    let (_nobody, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis((ms / SPEED).unsigned_abs()));
}

/// The stream of fills, and what the test arranges.
fn talk_aside(stream: TcpStream, desk: &Mutex<Desk>, wall0: i64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if let Some(control) = line.strip_prefix('!') {
        let answer = controlled(control.trim(), &mut desk.lock().unwrap());
        return writeln!(stream.get_mut(), "{answer}");
    }
    let mut desk = desk.lock().unwrap();
    if desk.frozen {
        drop(desk);
        return hold(&mut stream);
    }
    let now = shared_now(wall0);
    desk.venue.deliver_held(now);
    // Everything of the last minute again and again: a stream that repeats itself.
    let mut fills = desk.venue.stream(now.plus_ms(-60_000), now);
    if desk.silent {
        fills.clear();
    }
    if !fills.is_empty() && desk.streamed == Ts(0) {
        desk.streamed = now;
        if desk.cut_stream {
            say("at streamed");
            return Ok(());
        }
        if desk.one_fill {
            fills.truncate(1);
            desk.frozen = true;
        }
        writeln!(stream.get_mut(), "{}", serde_json::to_string(&fills)?)?;
        say("at streamed");
        return Ok(());
    }
    writeln!(stream.get_mut(), "{}", serde_json::to_string(&fills)?)
}

fn talk(stream: TcpStream, desk: &Mutex<Desk>, wall0: i64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if desk.lock().unwrap().frozen {
        return hold(&mut stream);
    }
    // What becomes of a submission before all of it is here.
    let early = |wanted: &str| {
        let mut desk = desk.lock().unwrap();
        let is_wanted = desk.plans.get("submit").is_some_and(|plan| name(plan) == wanted);
        is_wanted.then(|| desk.plans.remove("submit")).flatten()
    };
    // Any other question of this order comes later than its submission.
    if let Some(plan) = early("connected") {
        return stop(&mut stream, desk, &plan);
    }
    stream.get_mut().write_all(b"ready\n")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let half: usize = line.trim().parse().unwrap_or_default();
    let mut bytes = vec![0; half];
    stream.read_exact(&mut bytes)?;
    if bytes.starts_with(b"{\"submit\"")
        && let Some(plan) = early("half")
    {
        return stop(&mut stream, desk, &plan);
    }
    stream.get_mut().write_all(b"half\n")?;
    stream.read_until(b'\n', &mut bytes)?;
    let request: Request = serde_json::from_slice(&bytes)?;
    say("request");
    let now = shared_now(wall0);
    let kind = match request {
        Request::Submit { .. } => "submit",
        Request::Cancel { .. } => "cancel",
        Request::Time => "time",
        Request::Open { .. } => "open",
        Request::Closed { .. } => "closed",
        Request::Trades { .. } => "trades",
    };
    let submitted = if let Request::Submit { order, .. } = &request { Some(order.client_id) } else { None };
    let mut guard = desk.lock().unwrap();
    let plan = guard.plans.remove(kind);
    let reply = match plan.as_deref().map(name) {
        None => guard.venue.request(request.clone(), now),
        Some("late" | "too-late") => {
            let Request::Submit { order, .. } = &request else { return Ok(()) };
            let late = if plan.as_deref().map(name) == Some("late") { -100 } else { 1 };
            let at = order.deadline.plus_ms(late);
            guard.venue.hold(at, request);
            None
        }
        Some("filled-instead") => {
            if let Request::Cancel { client_id, .. } = request {
                guard.venue.fill_now(client_id, now);
            }
            None
        }
        Some("answered") => {
            let reply = guard.venue.handle(request.clone(), now);
            keep_open(&mut guard, submitted);
            guard.frozen |= plan.as_deref() == Some("answered");
            drop(guard);
            writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply)?)?;
            say("at answered");
            return Ok(());
        }
        Some(_) => {
            guard.venue.handle(request.clone(), now);
            None
        }
    };
    keep_open(&mut guard, submitted);
    let latency_ms = guard.venue.latency_ms();
    drop(guard);
    if let Some(plan) = plan {
        return stop(&mut stream, desk, &plan);
    }
    take_time(latency_ms);
    match reply {
        Some(reply) => writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply)?),
        // The connection ends without a word.
        None => Ok(()),
    }
}

/// Keeps an order that was just handed in from filling, where that is arranged.
fn keep_open(desk: &mut Desk, submitted: Option<Uuid>) {
    if let Some(client_id) = submitted.filter(|_| desk.keep_open) {
        desk.venue.never_fills(client_id);
    }
}

fn controlled(control: &str, desk: &mut Desk) -> String {
    let words: Vec<&str> = control.split_whitespace().collect();
    match words.as_slice() {
        ["plan", kind, plan] => {
            desk.plans.insert((*kind).to_owned(), (*plan).to_owned());
            "ok".to_owned()
        }
        ["keep", "open"] => {
            desk.keep_open = true;
            "ok".to_owned()
        }
        ["stream", what] => {
            (desk.silent, desk.cut_stream, desk.one_fill) = (*what == "off", *what == "cut", *what == "one");
            "ok".to_owned()
        }
        ["thaw"] => {
            desk.frozen = false;
            "ok".to_owned()
        }
        ["numbers"] => serde_json::to_string(&(desk.venue.repeated_numbers(), desk.venue.numbers())).unwrap(),
        ["finished"] => {
            say("finished");
            "ok".to_owned()
        }
        ["heal"] => {
            desk.venue.faults = Faults::none();
            "ok".to_owned()
        }
        _ => serde_json::to_string(&desk.venue.taken).unwrap(),
    }
}
