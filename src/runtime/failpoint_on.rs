//! The failpoints of a build with the feature `failpoints`; never part of a release.

use std::{
    cell::RefCell,
    io,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::process::{Signal, getpid, kill_process};

use super::{Class, SITES, Site};
use crate::runtime::terminal::note;

/// Where the rules stand.
const VARIABLE: &str = "TRIPLEGAIN_FAILPOINTS";
/// When set, every site that is passed is appended to this file.
const TRACE: &str = "TRIPLEGAIN_FAILPOINTS_TRACE";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Kill,
    Stop,
    Error,
    Full,
    Panic,
    Torn,
}

#[derive(Debug)]
struct Rule {
    /// Absent: any durable write.
    site: Option<&'static str>,
    about: Option<String>,
    action: Action,
    /// 1 is the first hit.
    at: u64,
    hits: AtomicU64,
}

fn action(text: &str) -> Option<Action> {
    Some(match text {
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        "error" => Action::Error,
        "full" => Action::Full,
        "panic" => Action::Panic,
        "torn" => Action::Torn,
        _ => return None,
    })
}

/// What can be done where nothing is written.
fn ends(action: Action) -> bool {
    matches!(action, Action::Kill | Action::Stop | Action::Panic)
}

fn rule(text: &str) -> Result<Rule, String> {
    let bad = |why: &str| format!("failpoint `{text}`: {why}; write SITE[ABOUT]=ACTION@HIT, [ABOUT] and @HIT optional");
    let (place, what) = text.split_once('=').ok_or_else(|| bad("there is no `=`"))?;
    let (name, about) = match place.split_once('[') {
        None => (place, None),
        Some((name, rest)) => (name, Some(rest.strip_suffix(']').ok_or_else(|| bad("`]` is missing"))?.to_owned())),
    };
    let (what, at) = what.split_once('@').unwrap_or((what, "1"));
    let at = at.parse().ok().filter(|at| *at > 0).ok_or_else(|| bad("the hit is a number from 1"))?;
    let action = action(what).ok_or_else(|| bad("actions are kill, stop, error, full, panic and torn"))?;
    let site = if name == "*" {
        None
    } else {
        let site: &Site = SITES.iter().find(|site| site.name == name).ok_or_else(|| bad("there is no such site"))?;
        if site.class == Class::Effect && !ends(action) {
            return Err(bad("nothing is written there, so it can only kill, stop or panic"));
        }
        Some(site.name)
    };
    Ok(Rule { site, about, action, at, hits: AtomicU64::new(0) })
}

fn rules(text: &str) -> Result<Vec<Rule>, String> {
    text.split(';').map(str::trim).filter(|text| !text.is_empty()).map(rule).collect()
}

static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
/// Half of something was written: the next site is the end.
static TORN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static ABOUT: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Takes the rules of the environment.
///
/// # Errors
/// What is wrong with them, for people.
pub fn setup() -> Result<(), String> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let rules = rules(&text)?;
    if !rules.is_empty() {
        note!("this build has failpoints and follows {VARIABLE}={text}; it is for tests only");
    }
    // A second call changes nothing.
    let _ = RULES.set(rules);
    Ok(())
}

/// The rule whose turn it is. Every matching rule counts the hit.
fn due(rules: &[Rule], site: &Site, about: &str, subjects: &[&str]) -> Option<Action> {
    let mut due = None;
    for rule in rules {
        // `*` counts writes: how many effects there are depends on how fast the machine is.
        let here = rule.site.map_or(site.class == Class::Write, |name| name == site.name);
        let fits = rule.about.as_deref().is_none_or(|wanted| wanted == about || subjects.contains(&wanted));
        let can = site.class == Class::Write || ends(rule.action);
        if here && fits && can && rule.hits.fetch_add(1, Ordering::Relaxed) + 1 == rule.at {
            due = due.or(Some(rule.action));
        }
    }
    due
}

fn trace(site: &Site, about: &str, subjects: &[&str]) {
    use std::io::Write;
    let Some(path) = std::env::var_os(TRACE) else { return };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // A trace that cannot be written is missed by the test that reads it.
    let _ = file.and_then(|mut file| writeln!(file, "{} {about} {}", site.name, subjects.join(",")));
}

fn reach(name: &'static str, about: &str) -> Option<Action> {
    if TORN.load(Ordering::Relaxed) {
        end(Signal::KILL);
    }
    let site = SITES.iter().find(|site| site.name == name);
    debug_assert!(site.is_some(), "failpoint `{name}` is not in the table");
    let site = site?;
    ABOUT.with_borrow(|subjects| {
        trace(site, about, subjects);
        due(RULES.get()?, site, about, subjects)
    })
}

/// SIGKILL does not return; SIGSTOP does when somebody continues the process.
fn end(signal: Signal) {
    let sent = kill_process(getpid(), signal);
    debug_assert!(sent.is_ok(), "the own process can always be sent a signal");
    if signal == Signal::KILL {
        loop {
            std::thread::park();
        }
    }
}

fn act(name: &'static str, about: &str) -> io::Result<()> {
    let failed = |kind: io::ErrorKind| Err(io::Error::new(kind, format!("the failpoint {name} says so")));
    match reach(name, about) {
        None | Some(Action::Torn) => {}
        Some(Action::Kill) => end(Signal::KILL),
        Some(Action::Stop) => end(Signal::STOP),
        Some(Action::Error) => return failed(io::ErrorKind::Other),
        Some(Action::Full) => return failed(io::ErrorKind::StorageFull),
        Some(Action::Panic) => std::panic::panic_any(format!("the failpoint {name} panics")),
    }
    Ok(())
}

/// A durable write happens next.
///
/// # Errors
/// When a rule says so.
pub fn write(name: &'static str) -> io::Result<()> {
    act(name, "")
}

/// As [`write`], about the directory `path` lies in.
///
/// # Errors
/// When a rule says so.
pub fn write_about(name: &'static str, path: &Path) -> io::Result<()> {
    let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
    act(name, &dir.to_string_lossy())
}

/// An effect outside the process happens next; `about` says what it is about.
pub fn effect(name: &'static str, about: &str) {
    // A rule of an effect asks for no error.
    let _ = act(name, about);
}

/// The part of `bytes` that is written: all of them, or half when they are to be torn.
pub fn cut<'b>(name: &'static str, bytes: &'b [u8]) -> &'b [u8] {
    let torn = ABOUT.with_borrow(|subjects| {
        let rules = RULES.get().map(Vec::as_slice).unwrap_or_default();
        let site = SITES.iter().find(|site| site.name == name);
        let wanted = |rule: &&Rule| rule.action == Action::Torn && rule.site == Some(name);
        // The hit was counted by `write` just before.
        site.and_then(|_| rules.iter().find(wanted)).is_some_and(|rule| {
            // What a file is about its name told; only that one is under way.
            let fits = subjects.is_empty() || rule.about.as_deref().is_none_or(|wanted| subjects.contains(&wanted));
            fits && rule.hits.load(Ordering::Relaxed) == rule.at
        })
    });
    if !torn {
        return bytes;
    }
    TORN.store(true, Ordering::Relaxed);
    bytes.get(..bytes.len() / 2).unwrap_or_default()
}

/// What the group of commits under way is about.
pub fn about(kind: &'static str) {
    ABOUT.with_borrow_mut(|subjects| subjects.push(kind));
}

/// The group is done.
pub fn over() {
    ABOUT.with_borrow_mut(Vec::clear);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> &'static Site {
        SITES.iter().find(|site| site.name == name).unwrap()
    }

    #[test]
    fn a_rule_acts_at_its_hit_and_only_there() {
        let rules = rules("journal.append[TradeIntent]=kill@2; state.flush=error;*=stop@4").unwrap();
        let append = site("journal.append");
        assert_eq!(due(&rules, append, "", &["Booted"]), None);
        assert_eq!(due(&rules, append, "", &["TradeIntent"]), None);
        assert_eq!(due(&rules, append, "", &["Sized", "TradeIntent"]), Some(Action::Kill));
        assert_eq!(due(&rules, site("announce"), "", &[]), None);
        assert_eq!(due(&rules, site("aux.write"), "", &[]), Some(Action::Stop));
        assert_eq!(due(&rules, site("state.flush"), "", &[]), Some(Action::Error));
        assert_eq!(due(&rules, site("state.flush"), "", &[]), None);
        let panics = super::rules("venue.execute[Submitting]=panic").unwrap();
        assert_eq!(due(&panics, site("venue.execute"), "Acked", &[]), None);
        assert_eq!(due(&panics, site("venue.execute"), "Submitting", &[]), Some(Action::Panic));
    }

    #[test]
    fn a_bad_rule_is_named_with_what_is_wrong() {
        for (text, word) in [
            ("journal.append", "no `=`"),
            ("journal.apend=kill", "no such site"),
            ("journal.append=explode", "actions are"),
            ("journal.append=kill@0", "number from 1"),
            ("journal.append[x=kill", "`]`"),
            ("announce=error", "only kill, stop or panic"),
        ] {
            let error = rules(text).unwrap_err();
            assert!(error.contains(word) && error.contains(text), "{error}");
        }
    }
}
