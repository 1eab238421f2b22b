//! Futures that belong to no actor. A panic in one of them would only end the future, and whoever waits for what it was
//! to do waits for ever; so each is spawned here, and either ends the process or has an owner who looks at its end.

use std::{future::Future, panic::AssertUnwindSafe};

use actix_rt::task::JoinHandle;
use futures_util::{FutureExt, future::lazy};

use super::{chaos, supervisor::text_of};

/// Spawns a future nobody waits for. Its panic is told to `on_fatal`, as that of an actor that is not restarted in
/// place; in live mode that ends the process with [`super::failure::Exit::Internal`].
pub fn guarded<F>(what: &'static str, on_fatal: fn(&str), future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    // Combinators hold the future once; an async block around it would hold it once more for every layer.
    let lived = AssertUnwindSafe(lazy(move |_| chaos::starting(what)).then(|()| future)).catch_unwind();
    actix_rt::spawn(lived.map(move |ended| {
        if let Err(panic) = ended {
            on_fatal(&format!("{what} panicked: {}", text_of(&*panic)));
        }
    }))
}

/// Spawns a future whose owner waits for its end and so learns of its panic: keep the handle.
#[must_use = "only the owner of the handle learns of a panic"]
pub fn owned<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    actix_rt::spawn(future)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    fn told(what: &str) {
        TOLD.with_borrow_mut(|told| told.push(what.to_owned()));
    }

    #[actix_rt::test]
    async fn a_panic_is_told_and_an_end_and_an_abort_are_not() {
        guarded("a", told, async {}).await.unwrap();
        guarded("b", told, async { panic!("x {}", 1) }).await.unwrap();
        let hangs = guarded("c", told, std::future::pending());
        hangs.abort();
        assert!(hangs.await.is_err_and(|end| end.is_cancelled()));
        assert_eq!(TOLD.take(), ["b panicked: x 1"]);
    }
}
