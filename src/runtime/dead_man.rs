//! A dead man's switch outside of this machine (resilience §6): an address that is called while everything is alive, so
//! that whoever watches it hears of a silence. Called by the progress of the program, never by a timer of its own; what
//! comes of a call decides nothing and is waited for by nobody.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use reqwest::{Client, Url, redirect};
use tokio::time::Instant;

use super::failpoint;

/// A call that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the address in the file that `key` names. It often carries a token, so it lies in a file only its owner reads; it is never shown.
///
/// # Errors
/// Which file, what is wrong with it, and what to do; the address is not repeated.
pub fn read_url(key: &str, path: &Path) -> Result<Url, String> {
    let at = |what: String| format!("{key}: {} {what}", path.display());
    let found = fs::metadata(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    let mode = found.permissions().mode() & 0o777;
    if !found.is_file() || mode & 0o177 != 0 {
        return Err(at(format!("has mode {mode:04o}; others may read it: chmod 0600 {}", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    let url = Url::parse(text.trim()).map_err(|error| at(format!("holds no address: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(at("holds no https or http address".to_owned()));
    }
    Ok(url)
}

/// The switch.
#[derive(Debug)]
pub struct DeadMan {
    client: Client,
    url: Url,
    every: Duration,
    /// When it was last called; before the first call, when the first proof of life was seen.
    called: Option<Instant>,
    /// A call is under way: a slow address is not called twice at a time.
    busy: Arc<AtomicBool>,
    /// The last call failed; told once.
    failing: Arc<AtomicBool>,
}

impl DeadMan {
    /// A switch that is called at most once per `every`.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn new(url: Url, every: Duration) -> Result<DeadMan, String> {
        let builder = Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).user_agent("triplegain");
        let client = builder.build().map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        let (busy, failing) = Default::default();
        Ok(DeadMan { client, url, every, called: None, busy, failing })
    }

    /// Every actor has answered and time advances. The first time nobody was asked yet, so nothing is called.
    pub fn alive(&mut self) {
        let now = Instant::now();
        let Some(called) = self.called else {
            // The first call follows the next proof of life.
            self.called = Some(now.checked_sub(self.every).unwrap_or(now));
            return;
        };
        if now.duration_since(called) < self.every || self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        self.called = Some(now);
        let (request, busy, failing) = (self.client.get(self.url.clone()), self.busy.clone(), self.failing.clone());
        failpoint::effect("dead_man.call", "");
        // Its panic is a failure like any other.
        let call = AssertUnwindSafe(async move { request.send().await?.error_for_status().map(drop) }).catch_unwind();
        actix_rt::spawn(async move {
            let failed = match call.await {
                Ok(Ok(())) => None,
                // Without the address, which may carry a token.
                Ok(Err(error)) => Some(error.without_url().to_string()),
                Err(_) => Some("the HTTP client panicked".to_owned()),
            };
            busy.store(false, Ordering::Relaxed);
            match failed {
                Some(why) if !failing.swap(true, Ordering::Relaxed) => {
                    tracing::warn!("notify.dead_man_url_file: its address cannot be called ({why}); tried again");
                }
                None if failing.swap(false, Ordering::Relaxed) => {
                    tracing::info!("notify.dead_man_url_file: its address answers again");
                }
                _ => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener, sync::Notify};

    use super::*;

    /// Answers with this text, or never; counts who came.
    async fn server(answer: Option<&'static str>) -> (Url, std::rc::Rc<(Cell<u32>, Notify)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/ping/token", listener.local_addr().unwrap())).unwrap();
        let seen = std::rc::Rc::new((Cell::new(0), Notify::new()));
        let told = seen.clone();
        actix_rt::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut part = [0; 1024];
                let count = stream.read(&mut part).await.unwrap();
                assert!(String::from_utf8_lossy(&part[..count]).starts_with("GET /ping/token HTTP/1.1"));
                told.0.set(told.0.get() + 1);
                match answer {
                    Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    None => held.push(stream),
                }
                told.1.notify_one();
            }
        });
        (url, seen)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 500 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    async fn idle(switch: &DeadMan) {
        while switch.busy.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    #[actix_rt::test]
    async fn r6_it_is_called_by_proofs_of_life_only_and_not_more_often_than_asked() {
        let (url, seen) = server(Some(OK)).await;
        let mut switch = DeadMan::new(url, Duration::from_secs(3_600)).unwrap();
        switch.alive();
        assert!(!switch.busy.load(Ordering::Relaxed), "nobody has answered yet");
        switch.alive();
        seen.1.notified().await;
        idle(&switch).await;
        switch.alive();
        assert!(!switch.busy.load(Ordering::Relaxed), "an hour has not passed");
        assert_eq!(seen.0.get(), 1);
        assert!(!switch.failing.load(Ordering::Relaxed));
    }

    #[actix_rt::test]
    async fn r6_an_address_that_fails_or_hangs_blocks_nothing_and_is_called_one_at_a_time() {
        let (url, seen) = server(Some(BROKEN)).await;
        let mut switch = DeadMan::new(url, Duration::ZERO).unwrap();
        for calls in 1..=2 {
            while seen.0.get() < calls {
                switch.alive();
                tokio::task::yield_now().await;
            }
            idle(&switch).await;
            assert!(switch.failing.load(Ordering::Relaxed));
        }
        let (url, seen) = server(None).await;
        let mut switch = DeadMan::new(url, Duration::ZERO).unwrap();
        switch.alive();
        switch.alive();
        seen.1.notified().await;
        (0..100).for_each(|_| switch.alive());
        tokio::task::yield_now().await;
        assert_eq!(seen.0.get(), 1);
    }

    #[test]
    fn an_address_lies_in_a_file_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let put = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(read_url("notify.dead_man_url_file", &path).unwrap_err().contains("cannot be read"));
        put("https://example.org/secret\n", 0o644);
        assert!(read_url("notify.dead_man_url_file", &path).unwrap_err().contains("chmod 0600"));
        put("https://example.org/secret\n", 0o600);
        assert_eq!(read_url("notify.dead_man_url_file", &path).unwrap().host_str(), Some("example.org"));
        for wrong in ["", "ftp://example.org/secret", "secret", "file:///secret"] {
            put(wrong, 0o600);
            let why = read_url("notify.dead_man_url_file", &path).unwrap_err();
            assert!(!why.contains("secret"), "never repeated: {why}");
        }
    }
}
