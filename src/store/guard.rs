//! Panics of the embedded library become sentences: damaged files make it panic, also on threads of its own, and a
//! person who starts the program over them must read what is wrong with the store, not a backtrace.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work`, which calls the library; a panic is caught, printed nowhere and given as a sentence.
///
/// # Errors
/// What the panic said and where.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    install();
    let outer = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outer);
    done.map_err(|_| {
        let text = TEXT.take().unwrap_or_else(|| "without a word".to_owned());
        format!("the library panicked: {text}")
    })
}

/// Once per process, before the library is first called; every other panic is told as before.
fn install() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| if is_the_library() { note(info) } else { before(info) }));
    });
}

/// Names of the library's own threads.
const THREADS: [&str; 2] = ["sled-", "log flusher"];

fn is_the_library() -> bool {
    let thread = std::thread::current();
    INSIDE.get() || thread.name().is_some_and(|name| THREADS.iter().any(|known| name.starts_with(known)))
}

fn note(info: &PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("no text").lines().next().unwrap_or_default();
    let text = match info.location() {
        Some(at) => format!("{what} ({}:{})", at.file().rsplit('/').next().unwrap_or_default(), at.line()),
        None => what.to_owned(),
    };
    tracing::warn!("the embedded store panicked: {text}");
    TEXT.set(Some(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_sentence_and_the_next_call_starts_anew() {
        let text = guarded(|| panic!("page {} is gone", 7)).unwrap_err();
        assert!(text.contains("page 7 is gone") && text.contains("guard.rs"), "{text}");
        assert_eq!(guarded(|| 5), Ok(5));
        let nested = guarded(|| guarded(|| panic!("inner")).map_err(|_| 1)).unwrap();
        assert_eq!(nested, Err(1));
        assert!(!INSIDE.get());
    }
}
