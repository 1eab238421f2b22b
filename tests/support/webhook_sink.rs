//! An address on loopback that takes notifications.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::Value;

/// What was posted, in order.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<Value>>>);

impl Sink {
    /// A sink and the file that names it; one that hangs takes everything and never answers.
    pub fn start(folder: &Path, hangs: bool) -> (Sink, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = folder.join("webhook");
        fs::write(&file, format!("http://{}/hook/secret-token\n", listener.local_addr().unwrap())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let sink = Sink::default();
        let posted = sink.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut stream in listener.incoming().flatten() {
                posted.0.lock().unwrap().push(body(&mut stream));
                match hangs {
                    true => held.push(stream),
                    false => {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap()
                    }
                }
            }
        });
        (sink, format!("[notify]\nwebhook_url_file = {:?}\n", file.to_str().unwrap()))
    }

    /// Everything posted so far.
    pub fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    /// What was posted about this.
    pub fn about(&self, what: &str) -> Vec<Value> {
        self.all().into_iter().filter(|line| line["what"] == what).collect()
    }
}

fn body(stream: &mut TcpStream) -> Value {
    let (mut all, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let count = stream.read(&mut part).unwrap();
        all.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some(value) = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()) {
            return value;
        }
        assert!(count > 0, "half a request: {text}");
    }
}
