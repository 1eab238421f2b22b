//! What the service manager is told: ready, alive, stopping (operations §6). Without `NOTIFY_SOCKET` nothing happens.
//! It decides nothing: who is alive is the coordinator's finding.

use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager.
#[derive(Clone, Debug)]
pub struct Service {
    /// The manager ends the process after so long without [`Service::alive`]; absent when it does not watch.
    pub watchdog: Option<Duration>,
}

impl Service {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; absent when no manager listens. The environment is left
    /// as it is: the process starts no children that could inherit it.
    pub fn from_environment() -> Option<Service> {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        listens.then(|| Service { watchdog: sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) })
    }

    /// Recovery is done and every actor runs.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One more proof of life; `status` is what `systemctl status` shows.
    pub fn alive(&self, status: &str) {
        match self.watchdog {
            Some(_) => tell(&[NotifyState::Watchdog, NotifyState::Status(status)]),
            None => tell(&[NotifyState::Status(status)]),
        }
    }

    /// No proof of life; only the text.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// Draining began.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }
}

/// A manager that does not hear is not waited for; its watchdog draws the conclusion.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
