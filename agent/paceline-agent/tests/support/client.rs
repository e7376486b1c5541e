//! HTTP/1.1 by hand over a Unix socket: a test of the agent must not lean on the agent's own library.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

pub struct Client {
    socket_path: PathBuf,
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|wrong| panic!("{wrong}: {:?}", self.body))
    }

    /// The reply is a refusal of this kind, and says so as problem+json.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, kind: &str) -> Value {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{}",
            self.head
        );
        assert_eq!(body["type"], format!("urn:paceline:problem:{kind}"));
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["detail"].is_string());
        body
    }
}

impl Client {
    pub fn new(socket_path: &Path) -> Self {
        Self {
            socket_path: socket_path.to_owned(),
        }
    }

    pub fn try_new(socket_path: &Path) -> Option<Self> {
        UnixStream::connect(socket_path).ok()?;
        Some(Self::new(socket_path))
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket_path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "")
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request(method, path, body).as_bytes()).unwrap();
        read_reply(&mut BufReader::new(stream))
    }

    pub fn lease(&self, devices: &[String], ttl_ms: u64) -> Lease {
        self.lease_with(&json!({"holder": "test", "devices": devices, "ttl_ms": ttl_ms}))
    }

    pub fn lease_of(&self, devices: &[String], controls: &[&str], ttl_ms: u64) -> Lease {
        self.lease_with(
            &json!({"holder": "test", "devices": devices, "controls": controls, "ttl_ms": ttl_ms}),
        )
    }

    pub fn lease_with(&self, body: &Value) -> Lease {
        let mut stream = self.connect();
        stream
            .write_all(request("POST", "/v1/leases", &body.to_string()).as_bytes())
            .unwrap();
        let mut reader = BufReader::new(stream);
        let (status, head) = read_head(&mut reader);
        assert_eq!(status, 201, "{head}");
        assert!(head.contains("content-type: application/x-ndjson"), "{head}");
        let mut lease = Lease {
            reader,
            granted: Value::Null,
        };
        lease.granted = lease.next_line().expect("the grant");
        assert_eq!(lease.granted["type"], "granted");
        lease
    }

    pub fn put(&self, lease: &Lease, seq: u64, targets: &Value) -> Reply {
        let body = json!({"epoch": lease.granted["epoch"], "seq": seq, "targets": targets});
        self.send(
            "PUT",
            &format!("/v1/leases/{}/targets", lease.id()),
            &body.to_string(),
        )
    }

    /// One group, applied.
    #[track_caller]
    pub fn slow(&self, lease: &Lease, seq: u64, devices: &[String], clock_mhz: u32, hold_ms: u64) -> Value {
        let targets = json!([{"devices": devices, "clock_mhz": clock_mhz, "hold_ms": hold_ms}]);
        let reply = self.put(lease, seq, &targets);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }
}

/// Held for as long as this lives: dropping it closes the stream.
pub struct Lease {
    pub reader: BufReader<UnixStream>,
    pub granted: Value,
}

impl Lease {
    pub fn id(&self) -> String {
        self.granted["lease_id"].as_str().unwrap().to_owned()
    }

    /// The next line of the stream, whatever the chunks; `None` once it has ended.
    pub fn next_line(&mut self) -> Option<Value> {
        next_json_line(&mut self.reader)
    }

    /// The reason given in the last line, heartbeats passed over.
    pub fn ended(&mut self) -> Option<String> {
        while let Some(line) = self.next_line() {
            if line["type"] == "ended" {
                return line["reason"].as_str().map(str::to_owned);
            }
        }
        None
    }
}

pub fn next_json_line(reader: &mut BufReader<UnixStream>) -> Option<Value> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "0\r\n" {
            return None;
        }
        // Lines of chunk sizes lie between those of JSON.
        if line.starts_with('{') {
            return Some(serde_json::from_str(&line).unwrap());
        }
    }
}

pub fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-length: {length}\r\n\r\n{body}")
}

pub fn read_head(reader: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head)
}

pub fn read_reply(reader: &mut impl BufRead) -> Reply {
    let (status, head) = read_head(reader);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0u8; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    Reply { status, head, body }
}
