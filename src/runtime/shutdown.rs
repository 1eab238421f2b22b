//! Being asked to stop: the first signal drains within a deadline, the second one ends at once (scheduling B12).
//!
//! It waits and decides which exit code it was; what draining means is the caller's future.

use std::{future::Future, io, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};

use super::{failure::Exit, terminal::note};

/// Who asks the process to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopSignal {
    /// SIGTERM: the service manager.
    Terminate,
    /// SIGINT: a person at the terminal.
    Interrupt,
}

/// The process's stop signals. From now on they no longer end the process by themselves.
///
/// # Errors
/// The handlers could not be installed; in virtual time there is no signal driver.
pub fn signals() -> io::Result<impl Stream<Item = StopSignal> + Unpin> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(stream::poll_fn(move |cx| {
        if terminate.poll_recv(cx).is_ready() {
            return std::task::Poll::Ready(Some(StopSignal::Terminate));
        }
        interrupt.poll_recv(cx).map(|_| Some(StopSignal::Interrupt))
    }))
}

/// Why a drained or undrained program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Draining finished with this exit code.
    Drained(Exit),
    /// The deadline passed first; nothing is lost, the next start recovers.
    DeadlinePassed,
    /// A second signal came first.
    Forced,
}

impl Stopped {
    /// The exit code of the process: 1 when draining was cut short.
    pub const fn exit(self) -> Exit {
        match self {
            Stopped::Drained(exit) => exit,
            Stopped::DeadlinePassed | Stopped::Forced => Exit::Failed,
        }
    }
}

/// Waits for the first signal, then drains for at most `within` (`coordinator.shutdown_seconds`) unless a second signal
/// comes. Without any signal it never ends; the caller races it against the program's own end.
pub async fn stop_on_signal<S, D, F>(mut signals: S, within: Duration, drain: D) -> Stopped
where
    S: Stream<Item = StopSignal> + Unpin,
    D: FnOnce(StopSignal) -> F,
    F: Future<Output = Exit>,
{
    let Some(first) = signals.next().await else { return std::future::pending().await };
    let deadline = tokio::time::sleep(within);
    let mut draining = pin!(drain(first));
    tokio::select! {
        biased;
        exit = &mut draining => Stopped::Drained(exit),
        Some(_) = signals.next() => Stopped::Forced,
        () = deadline => Stopped::DeadlinePassed,
    }
}

/// How long after the deadline, or after a second signal, the orderly way may still take.
const GRACE: Duration = Duration::from_secs(1);

/// The same promise for a program whose main thread stands still and hears no signal: a thread of its own ends the
/// process `GRACE` after the deadline of draining, and `GRACE` after a second signal. Nothing is lost; the next start
/// recovers.
///
/// # Errors
/// The thread could not be made.
pub fn end_by_force_if_needed(within: Duration) -> io::Result<()> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        tokio.block_on(async move {
            let Ok(signals) = signals() else { return };
            // Draining itself happens elsewhere.
            let stopped = stop_on_signal(signals, within, |_| std::future::pending::<Exit>()).await;
            tokio::time::sleep(GRACE).await;
            note!("the program did not end by itself ({stopped:?}); it is ended, the next start recovers");
            stopped.exit().end_now();
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    /// Signals after so many virtual seconds each.
    fn after(seconds: &'static [u64]) -> impl Stream<Item = StopSignal> + Unpin {
        let at = stream::iter(seconds).then(|seconds| async {
            sleep(Duration::from_secs(*seconds)).await;
            StopSignal::Terminate
        });
        Box::pin(at.chain(stream::pending()))
    }

    async fn drain_for(seconds: u64) -> Exit {
        sleep(Duration::from_secs(seconds)).await;
        Exit::Done
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_drains_and_ends_with_the_code_of_draining() {
        let begin = Instant::now();
        let stopped = stop_on_signal(after(&[5]), Duration::from_secs(25), |_| drain_for(3)).await;
        assert_eq!((stopped, begin.elapsed().as_secs()), (Stopped::Drained(Exit::Done), 8));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_ends_at_once() {
        let begin = Instant::now();
        let stopped = stop_on_signal(after(&[5, 2]), Duration::from_secs(25), |_| drain_for(20)).await;
        assert_eq!((stopped, begin.elapsed().as_secs()), (Stopped::Forced, 7));
        assert_eq!(stopped.exit().code(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_has_a_deadline() {
        let begin = Instant::now();
        let stopped = stop_on_signal(after(&[5]), Duration::from_secs(25), |_| drain_for(60)).await;
        assert_eq!((stopped, begin.elapsed().as_secs()), (Stopped::DeadlinePassed, 30));
    }
}
