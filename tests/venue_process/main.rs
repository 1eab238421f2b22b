//! The order protocol with three processes: this one, a venue with a ledger of its own, and a program on a store in
//! files that is killed with SIGKILL. The venue says what it has seen, and that decides when the program dies; no timing
//! does. Started again on its own binary: `VENUE_ROLE` names the part to play.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/faulty_venue.rs"]
mod faulty_venue;
mod program;
mod rows;
mod server;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use faulty_venue::{Faults, Taken};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use rust_decimal::Decimal;
use triplegain::{
    model::{Event, TradeKey, TradeState, Ts},
    store::{
        oracle::{Ack, acks},
        verify,
    },
};

/// Logical milliseconds per millisecond of the wall, in every process.
pub const SPEED: i64 = 40;
pub const START: Ts = Ts(1_767_787_080_000);
/// Only a test that hangs is ended by it.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn wall_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The clock all processes of one scenario share.
pub fn shared_now(wall0: i64) -> Ts {
    START.plus_ms((wall_ms() - wall0) * SPEED)
}

pub fn env<T: std::str::FromStr>(name: &str) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} is not set"))
}

/// A child whose lines arrive one by one; killed when dropped.
struct Part {
    child: Child,
    lines: Receiver<String>,
    /// Orders it said it has placed.
    placed: RefCell<Vec<String>>,
}

impl Part {
    fn start(role: &str, vars: &[(&str, String)]) -> Part {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("VENUE_ROLE", role).envs(vars.iter().map(|(name, value)| (*name, value)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Part { child, lines, placed: RefCell::default() }
    }

    fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("the process says something");
        self.hear(&line);
        line
    }

    fn hear(&self, line: &str) {
        self.placed.borrow_mut().extend(line.strip_prefix("placed ").map(str::to_owned));
    }

    /// Waits for a line.
    fn until(&self, wanted: &str) {
        while self.line() != wanted {}
    }

    /// Waits for a line; false when it says instead that nothing more comes.
    fn says(&self, wanted: &str, over: &str) -> bool {
        loop {
            match self.line() {
                line if line == wanted => return true,
                line if line == over => return false,
                _ => {}
            }
        }
    }

    /// SIGKILL.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.end().1
    }

    /// Waits for its end: the exit code, and the orders it said it has placed.
    fn end(&mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().unwrap().code();
        // What it said and nobody has read yet.
        self.lines.iter().for_each(|line| self.hear(&line));
        (code, self.placed.take())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stage {
    venue: Part,
    port: u16,
    side: u16,
    wall0: i64,
    folder: tempfile::TempDir,
    /// What the program said it has placed, in all its lives.
    acks: RefCell<Vec<Ack>>,
}

impl Stage {
    fn new(seed: u64, faults: &Faults) -> Stage {
        let wall0 = wall_ms();
        let faults = serde_json::to_string(faults).unwrap();
        let vars = [("VENUE_SEED", seed.to_string()), ("VENUE_WALL0", wall0.to_string()), ("VENUE_FAULTS", faults)];
        let venue = Part::start("venue", &vars);
        let line = venue.line();
        let (port, side) = line.strip_prefix("ports ").unwrap().split_once(' ').unwrap();
        let (port, side) = (port.parse().unwrap(), side.parse().unwrap());
        Stage { venue, port, side, wall0, folder: tempfile::tempdir().unwrap(), acks: RefCell::default() }
    }

    /// Tells the venue something that no order is.
    fn tell(&self, text: &str) -> String {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.side)).unwrap());
        let mut line = String::new();
        writeln!(stream.get_mut(), "!{text}").unwrap();
        stream.read_line(&mut line).unwrap();
        line
    }

    fn program(&self, orders: u32, limit: Decimal, end: &str, more: &[(&str, &str)]) -> Part {
        let mut vars = vec![
            ("VENUE_PORT", self.port.to_string()),
            ("VENUE_SIDE", self.side.to_string()),
            ("VENUE_WALL0", self.wall0.to_string()),
            ("VENUE_STORE", self.folder.path().display().to_string()),
            ("VENUE_ORDERS", orders.to_string()),
            ("VENUE_LIMIT", limit.to_string()),
            ("VENUE_END", end.to_owned()),
        ];
        vars.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Part::start("program", &vars)
    }

    /// Takes what a program said before its end: an order it has placed is durable.
    fn placed(&self, keys: &[String]) {
        let line = |key: &String| serde_json::json!({"what": "trade", "key": key, "state": "intent"}).to_string();
        let lines: Vec<String> = keys.iter().map(line).collect();
        self.acks.borrow_mut().extend(acks::parse(&lines.join("\n")).unwrap());
    }

    fn kill(&self, program: Part) {
        self.placed(&program.kill());
    }

    /// A life that is not killed.
    fn finish(&self, orders: u32, limit: Decimal, end: &str) {
        let mut program = self.program(orders, limit, end, &[]);
        program.until("done");
        self.ends_well(&mut program);
    }

    fn ends_well(&self, program: &mut Part) {
        let (code, placed) = program.end();
        assert_eq!(code, Some(0));
        self.placed(&placed);
    }

    /// How many requests came with a number the venue had seen, and all numbers.
    fn numbers(&self) -> (u64, BTreeSet<u64>) {
        serde_json::from_str(&self.tell("numbers")).unwrap()
    }

    /// The venue's truth.
    fn taken(&self) -> Vec<Taken> {
        serde_json::from_str(&self.tell("ledger")).unwrap()
    }

    /// The seven checks of `journal verify`, with every order the program said it has placed; then its books against the
    /// venue's; the states its orders ended in.
    fn compare(&self, context: &str) -> BTreeMap<TradeKey, TradeState> {
        let report = verify::check_with(self.folder.path(), &self.acks.borrow());
        assert!(report.is_sound() || report.is_rebuilt_by_a_start(), "{context}: {:?}", report.defects);
        let (state, events) = program::read(self.folder.path());
        triplegain::execution::ledger::check_conservation(&state).unwrap();
        let taken = self.taken();
        let mut ends = BTreeMap::new();
        for (key, stub) in &state.trade_index {
            let own: Vec<_> = taken.iter().filter(|taken| taken.order.client_id == key.client_order_id()).collect();
            assert!(own.len() <= 1, "{context}: {key:?} was executed {} times", own.len());
            ends.insert(*key, stub.state);
            if matches!(stub.state, TradeState::Acked | TradeState::Partial) {
                continue;
            }
            let booked = events.iter().filter_map(|event| match event {
                Event::TradeFill { trade_key, venue_fill, quantity, price, fee, .. } if trade_key == key => {
                    Some((venue_fill.clone().unwrap().into_string(), *quantity, *price, *fee))
                }
                _ => None,
            });
            let mut booked: Vec<_> = booked.collect();
            let fills = own.iter().flat_map(|taken| &taken.fills);
            let mut told: Vec<_> =
                fills.map(|(_, fill)| (fill.id.clone(), fill.quantity, fill.price, fill.fee)).collect();
            booked.sort();
            told.sort();
            assert_eq!(booked, told, "{context}: {key:?} is {:?}", stub.state);
        }
        assert!(taken.iter().all(|taken| ends.keys().any(|key| key.client_order_id() == taken.order.client_id)));
        ends
    }
}

fn market() -> Decimal {
    Decimal::from(40_100)
}

fn resting() -> Decimal {
    Decimal::from(39_000)
}

/// Orders under every fault; each life is killed after a drawn number of requests.
fn random_kills_execute_no_key_twice() {
    let one = std::env::var("TRIPLEGAIN_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or_else(|| vec![1, 2, 3], |seed| vec![seed]) {
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let stage = Stage::new(seed, &Faults::all());
        let mut killed = 0;
        for _ in 0..8 {
            let mut program = stage.program(6, market(), "closed", &[]);
            let requests = 1 + random.next_u64() % 25;
            let mut seen = 0;
            let finished = loop {
                match stage.venue.line().as_str() {
                    "finished" => break true,
                    "request" => seen += 1,
                    _ => {}
                }
                if seen >= requests {
                    break false;
                }
            };
            if finished {
                stage.ends_well(&mut program);
                break;
            }
            stage.kill(program);
            killed += 1;
        }
        stage.tell("heal");
        stage.finish(6, market(), "closed");
        let ends = stage.compare(&format!("seed {seed}"));
        let over = |end: &TradeState| end.is_terminal() || *end == TradeState::Manual;
        assert!(ends.values().all(over), "seed {seed}: {ends:?}");
        println!("  {killed} kills, {} taken by the venue, {ends:?}", stage.taken().len());
    }
}

type Scenario = (&'static str, fn());

fn main() -> ExitCode {
    match std::env::var("VENUE_ROLE").as_deref() {
        Ok("venue") => server::serve(),
        Ok("program") => program::run(),
        _ => {}
    }
    let random: Scenario = ("random_kills_execute_no_key_twice", random_kills_execute_no_key_twice);
    let scenarios: Vec<Scenario> = rows::SCENARIOS.iter().copied().chain([random]).collect();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        scenarios.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (name, play) in &scenarios {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let passed = std::panic::catch_unwind(play).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    println!("live rows covered: {}", rows::covered());
    ExitCode::from(failed.min(1))
}
