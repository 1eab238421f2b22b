//! The venue as a process: one line of JSON per request over loopback, its own ledger, and a plan for the next request
//! of a kind. It tells its parent what it has seen by lines on its standard output.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use rust_decimal::Decimal;
use triplegain::model::Ts;

use crate::{
    env,
    faulty_venue::{Faults, Request, Venue},
    shared_now,
};

struct Desk {
    venue: Venue,
    /// What to do with the next request of a kind.
    plans: BTreeMap<String, String>,
    /// Orders that rest are kept from filling.
    keep_open: bool,
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
    let desk = Desk { venue, plans: BTreeMap::new(), keep_open: false, streamed: Ts(0) };
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
    let now = shared_now(wall0);
    desk.venue.deliver_held(now);
    // Everything of the last minute again and again: a stream that repeats itself.
    let fills = desk.venue.stream(now.plus_ms(-60_000), now);
    if !fills.is_empty() && desk.streamed == Ts(0) {
        desk.streamed = now;
        writeln!(stream.get_mut(), "{}", serde_json::to_string(&fills)?)?;
        say("at streamed");
        return Ok(());
    }
    writeln!(stream.get_mut(), "{}", serde_json::to_string(&fills)?)
}

fn talk(stream: TcpStream, desk: &Mutex<Desk>, wall0: i64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if desk.lock().unwrap().plans.get("submit").is_some_and(|plan| plan == "connected") {
        // Any other question of this order comes later than its submission.
        desk.lock().unwrap().plans.remove("submit");
        say("at connected");
        return hold(&mut stream);
    }
    stream.get_mut().write_all(b"ready\n")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let half: usize = line.trim().parse().unwrap_or_default();
    let mut bytes = vec![0; half];
    stream.read_exact(&mut bytes)?;
    let is_submit = bytes.starts_with(b"{\"submit\"");
    if is_submit && desk.lock().unwrap().plans.get("submit").is_some_and(|plan| plan == "half") {
        desk.lock().unwrap().plans.remove("submit");
        say("at half");
        return hold(&mut stream);
    }
    stream.get_mut().write_all(b"half\n")?;
    stream.read_until(b'\n', &mut bytes)?;
    let request: Request = serde_json::from_slice(&bytes)?;
    say("request");
    let now = shared_now(wall0);
    let kind = match request {
        Request::Submit { .. } => "submit",
        Request::Cancel { .. } => "cancel",
        _ => "query",
    };
    let submitted = if let Request::Submit { order, .. } = &request { Some(order.client_id) } else { None };
    let mut guard = desk.lock().unwrap();
    let plan = guard.plans.remove(kind);
    let reply = match plan.as_deref() {
        None => guard.venue.request(request.clone(), now),
        Some("late" | "too-late") => {
            let Request::Submit { order, .. } = &request else { return Ok(()) };
            let late = if plan.as_deref() == Some("late") { -100 } else { 1 };
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
    if guard.keep_open
        && let Some(client_id) = submitted
    {
        guard.venue.never_fills(client_id);
    }
    drop(guard);
    if let Some(plan) = plan {
        say(&format!("at {plan}"));
        return hold(&mut stream);
    }
    match reply {
        Some(reply) => writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply)?),
        // The connection ends without a word.
        None => Ok(()),
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
