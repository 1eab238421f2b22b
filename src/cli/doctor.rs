//! `doctor`: one look at everything a run depends on. It changes nothing, says what is wrong and what to do, and exits 0
//! or 1.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::{Global, config, load};
use crate::{
    coordinator::clock::MAX_OFFSET_MS,
    llm::{
        actor::{http::Http, keys},
        doctor::{self, Listed, Seen, Severity},
    },
    market::feed::kraken::{
        actor::{fetch::RestClient, link::connect},
        wire::{self, Frame},
    },
    model::Symbol,
    runtime::{
        dead_man::read_url,
        failure::Exit,
        terminal::{self, tell},
    },
    settings::{CassetteMode, MarketSource, Settings},
    store::{files, identity, lock::StoreLock, verify},
};

/// The feed must answer within.
const FEED_PATIENCE: Duration = Duration::from_secs(10);
/// A provider of models must answer within.
const MODELS_PATIENCE: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; the program runs.
    Note,
    /// Something has to be done.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing.
    pub advice: String,
}

impl Finding {
    /// As it should be.
    pub fn good(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }

    /// Worth knowing.
    pub fn note(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Note, found: found.into(), advice: String::new() }
    }

    /// Something has to be done.
    pub fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Bad, found: found.into(), advice: advice.into() }
    }
}

/// Looks at one area.
pub type Check = fn(&Settings) -> Vec<Finding>;

/// Every area, in the order they are shown. Another one is a line here.
pub fn checks() -> Vec<Check> {
    vec![folder, journal, feed, models, dead_man, notifications]
}

/// Looks at everything.
///
/// # Errors
/// The result cannot be printed.
pub fn doctor(global: &Global) -> Result<Exit> {
    let mut findings = Vec::new();
    match load(global, &[]) {
        Err(error) => {
            findings.push(Finding::bad("settings", format!("{error:#}"), "correct the keys named above"));
        }
        Ok(loaded) => {
            findings.push(Finding::good("settings", format!("valid, config epoch {}", loaded.hash)));
            findings.extend(config::warnings(&loaded).iter().map(|warning| Finding::note("settings", warning)));
            for check in checks() {
                findings.extend(check(&loaded.settings));
            }
        }
    }
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    if global.json {
        tell!("{}", serde_json::to_string_pretty(&serde_json::json!({"healthy": healthy, "findings": findings}))?);
    } else {
        terminal::out(format_args!("{}", render(&findings)));
    }
    Ok(if healthy { Exit::Done } else { Exit::Failed })
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.check, finding.found.trim_end()));
        if !finding.advice.is_empty() {
            text.push_str(&format!("     what to do: {}\n", finding.advice));
        }
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    text.push_str(&match bad {
        0 => "everything is as it should be\n".to_owned(),
        1 => "one thing has to be done\n".to_owned(),
        n => format!("{n} things have to be done\n"),
    });
    text
}

/// The folder of the store: place, space, owner, kind of data.
fn folder(settings: &Settings) -> Vec<Finding> {
    let data = Path::new(&settings.data_dir);
    let shown = data.display();
    // The first folder that exists: a store that was not made yet is made inside it.
    let Some(place) = data.ancestors().find(|path| path.exists() || path.as_os_str().is_empty()) else {
        return vec![Finding::bad("store", format!("{shown} has no folder to be made in"), "make the folder above it")];
    };
    let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    let mut found = Vec::new();
    if let Err(error) = files::refuse_network_file_system(place) {
        found.push(Finding::bad("store", error.to_string(), "move `data_dir` to a local disk"));
    }
    match fs2::available_space(place) {
        Err(error) => found.push(Finding::note("store", format!("the free space cannot be told: {error}"))),
        Ok(free) if free / MIB < u64::from(settings.store.free_space.pause_mib) => {
            let text = format!(
                "{} MiB are free, the program pauses below {}",
                free / MIB,
                settings.store.free_space.pause_mib
            );
            found.push(Finding::bad("store", text, "free space on the disk of `data_dir`"));
        }
        Ok(free) => found.push(Finding::good("store", format!("{} MiB are free at {}", free / MIB, place.display()))),
    }
    match identity::read(data) {
        Err(error) => found.push(Finding::bad("store", error.to_string(), "take a store of this program and version")),
        Ok(identity::Found::None) => found.push(Finding::good("store", format!("{shown} holds no store yet"))),
        Ok(identity::Found::Moved(_)) => {
            let advice = "start with it only when the original never runs again";
            found.push(Finding::bad("store", format!("{shown} is a copy of another store"), advice));
        }
        Ok(identity::Found::Same(identity) | identity::Found::Unprovable(identity)) => {
            let wanted = super::run::data_kind(settings);
            if identity.data_kind == wanted {
                found.push(Finding::good("store", format!("{shown} holds {wanted} data")));
            } else {
                let text = format!("{shown} holds {} data, market.source asks for {wanted} data", identity.data_kind);
                found.push(Finding::bad("store", text, "set another `data_dir`, or the market.source of this store"));
            }
        }
    }
    let held = if StoreLock::is_held(data) { "in use by a running process" } else { "not in use" };
    found.push(Finding::good("lock", held));
    found
}

/// The journal, read once.
fn journal(settings: &Settings) -> Vec<Finding> {
    let data = Path::new(&settings.data_dir);
    if !data.join("journal").exists() {
        return vec![Finding::good("journal", "none yet")];
    }
    let report = verify::check(data);
    if report.is_sound() {
        return vec![Finding::good("journal", format!("{} records in {} segments", report.records, report.segments))];
    }
    let advice = "run `triplegain journal verify` for all of it; keep the folder as it is";
    report.defects.iter().take(5).map(|defect| Finding::bad("journal", defect, advice)).collect()
}

/// The address that is called while everything is alive. It is only read: a call would say that the program is alive.
fn dead_man(settings: &Settings) -> Vec<Finding> {
    let file = &settings.notify.dead_man_url_file;
    if file.is_empty() {
        return vec![Finding::note("dead man", "nobody outside of this machine hears of a silence")];
    }
    vec![match read_url("notify.dead_man_url_file", Path::new(file)) {
        Ok(url) => Finding::good("dead man", format!("an address at {}", url.host_str().unwrap_or("?"))),
        Err(why) => Finding::bad("dead man", why, "correct the file, or leave `notify.dead_man_url_file` empty"),
    }]
}

/// The address notifications are posted to. It is only read: somebody would have to read what a call says.
fn notifications(settings: &Settings) -> Vec<Finding> {
    let file = &settings.notify.webhook_url_file;
    if file.is_empty() {
        return vec![Finding::note("notifications", "none are posted; what happens is in the log only")];
    }
    vec![match read_url("notify.webhook_url_file", Path::new(file)) {
        Ok(url) => Finding::good(
            "notifications",
            format!("from `{}` on, to an address at {}", settings.notify.min_level, url.host_str().unwrap_or("?")),
        ),
        Err(why) => Finding::bad("notifications", why, "correct the file, or leave `notify.webhook_url_file` empty"),
    }]
}

/// The live feed: the venue's time over REST, and data of every symbol over the WebSocket.
fn feed(settings: &Settings) -> Vec<Finding> {
    match settings.market.source {
        MarketSource::Simulated => return vec![Finding::note("feed", "simulated: prices are invented")],
        MarketSource::Csv => {
            let dir = Path::new(&settings.market.csv.dir);
            return vec![if dir.is_dir() {
                Finding::good("feed", format!("candle files in {}", dir.display()))
            } else {
                Finding::bad("feed", format!("{} is no folder", dir.display()), "correct `market.csv.dir`")
            }];
        }
        MarketSource::Kraken => {}
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Err(error) => vec![Finding::bad("feed", format!("no runtime: {error}"), "look at the limits of this system")],
        Ok(runtime) => runtime.block_on(async {
            let mut found = clock(settings).await;
            found.extend(socket(settings).await);
            found
        }),
    }
}

/// The providers of models: their keys, and one request each for the list of models.
fn models(settings: &Settings) -> Vec<Finding> {
    let asked = settings.cassette.mode != CassetteMode::Replay;
    let keys = settings.providers.iter().map(|(name, provider)| {
        (name.clone(), provider, keys::read(name, provider, &|variable| std::env::var(variable).ok()))
    });
    let look = async {
        let http = Http::new();
        let mut seen = BTreeMap::new();
        for (name, provider, key) in keys.filter(|_| asked) {
            let (key, listed) = match (key, &http) {
                (Err(why), _) => (Err(why), None),
                (Ok(_), Err(why)) => (Ok(()), Some(Err(why.clone()))),
                (Ok(key), Ok(http)) => {
                    let url = format!("{}/models", provider.endpoint().trim_end_matches('/'));
                    let reply = timeout(MODELS_PATIENCE, http.get(&url, provider.kind, key.as_ref())).await;
                    let listed = match reply {
                        Err(_) => Err("no answer within 10 s".to_owned()),
                        Ok(Err(broken)) => Err(broken.why.detail),
                        Ok(Ok(raw)) => Ok(Listed::read(raw.status, &raw.body)),
                    };
                    (Ok(()), Some(listed))
                }
            };
            seen.insert(name, Seen { key, listed });
        }
        doctor::check(settings, &seen)
    };
    let found = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(look),
        Err(error) => {
            let advice = "look at the limits of this system";
            return vec![Finding::bad("models", format!("no runtime: {error}"), advice)];
        }
    };
    let told = found.into_iter().map(|one| match one.severity {
        Severity::Fine => Finding::good("models", one.text),
        Severity::Warning => Finding::note("models", one.text),
        Severity::Problem => {
            Finding::bad("models", one.text, "correct [providers] or its key; a chain goes on with its other models")
        }
    });
    told.collect()
}

async fn clock(settings: &Settings) -> Vec<Finding> {
    let url = &settings.market.kraken.rest_url;
    let asked = match RestClient::new(url) {
        Ok(mut client) => client.offset_ms().await,
        Err(error) => Err(error),
    };
    match asked {
        Err(error) => {
            let advice = "check the network and `market.kraken.rest_url`; without it missing candles are not fetched";
            vec![Finding::bad("feed", format!("REST: {error}"), advice)]
        }
        Ok(offset_ms) => {
            let rest = Finding::good("feed", format!("REST answers at {url}"));
            let text = format!("this machine is {offset_ms} ms behind the venue (± 500 ms; negative: ahead)");
            vec![
                rest,
                if offset_ms.abs() > MAX_OFFSET_MS {
                    Finding::bad(
                        "clock",
                        text,
                        "set this machine's clock, for example with a time service; it would run PAUSED (clock)",
                    )
                } else {
                    Finding::good("clock", text)
                },
            ]
        }
    }
}

async fn socket(settings: &Settings) -> Vec<Finding> {
    let url = &settings.market.kraken.ws_url;
    let until = Instant::now() + FEED_PATIENCE;
    let advice = "check the network and `market.kraken.ws_url`";
    let mut socket = match timeout_at(until, connect(url.clone())).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(why)) => return vec![Finding::bad("feed", format!("WebSocket: {why}"), advice)],
        Err(_) => return vec![Finding::bad("feed", format!("WebSocket: {url} does not answer within 10 s"), advice)],
    };
    let mut waits: BTreeSet<Symbol> = settings.symbols.iter().copied().collect();
    let mut found = Vec::new();
    let heard = timeout_at(until, async {
        for text in wire::subscriptions(&settings.symbols, settings.market.kraken.candle_minutes) {
            socket.send(Message::text(text)).await.map_err(|error| error.to_string())?;
        }
        while !waits.is_empty() {
            let message = socket.next().await.ok_or("the venue closed the connection")?;
            let Message::Text(text) = message.map_err(|error| error.to_string())? else { continue };
            match wire::decode(text.as_str()) {
                Ok(Frame::Ohlc(rows)) => waits.retain(|symbol| rows.iter().all(|row| row.symbol != *symbol)),
                Ok(Frame::Book(book)) => waits.retain(|symbol| *symbol != book.symbol),
                Ok(Frame::Refused { symbol, error }) => {
                    let known = symbol.as_deref().and_then(|name| name.parse::<Symbol>().ok());
                    // The venue refuses each channel by itself; once is enough.
                    if known.is_none_or(|known| waits.remove(&known)) {
                        let name = symbol.unwrap_or_else(|| "a subscription".to_owned());
                        found.push(Finding::bad(
                            "feed",
                            format!("the venue refuses {name}: {error}"),
                            "take it out of `symbols`, or write it as the venue does (BTC, not XBT)",
                        ));
                    }
                }
                Ok(Frame::Status(system)) if system != "online" => {
                    found.push(Finding::note("feed", format!("the venue's engine is `{system}`")));
                }
                _ => {}
            }
        }
        Ok::<(), String>(())
    });
    let ended = heard.await;
    if let Ok(Err(why)) = ended {
        found.push(Finding::bad("feed", format!("WebSocket: {why}"), advice));
    }
    if waits.is_empty() {
        if found.iter().all(|finding| finding.verdict != Verdict::Bad) {
            found.push(Finding::good("feed", format!("data of every symbol at {url}")));
        }
    } else {
        let names = waits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let advice = "the connection stands but brings nothing: look at the venue's status page, try again later";
        found.push(Finding::bad("feed", format!("no data of {names} within 10 s"), advice));
    }
    found
}
