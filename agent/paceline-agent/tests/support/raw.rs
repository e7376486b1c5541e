//! The client of tests in which the agent may be dead at any moment: where `Client` panics, this one says `None`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::client::{Lease, Reply, request};

/// Longer than the agent makes anybody wait.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(8);

pub fn connect(socket_path: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket_path).ok()?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX)).ok()?;
    stream.set_write_timeout(Some(ANSWER_WAIT_MAX)).ok()?;
    Some(stream)
}

pub fn send(socket_path: &Path, method: &str, path: &str, body: &str) -> Option<Reply> {
    let mut stream = connect(socket_path)?;
    stream.write_all(request(method, path, body).as_bytes()).ok()?;
    read_reply(&mut BufReader::new(stream))
}

/// The lease, or the refusal.
pub fn lease(socket_path: &Path, body: &Value) -> Option<Result<Lease, Reply>> {
    let mut stream = connect(socket_path)?;
    stream
        .write_all(request("POST", "/v1/leases", &body.to_string()).as_bytes())
        .ok()?;
    let mut reader = BufReader::new(stream);
    let (status, head) = read_head(&mut reader)?;
    if status != 201 {
        let body = read_body(&mut reader, &head)?;
        return Some(Err(Reply { status, head, body }));
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.starts_with('{') {
            let granted = serde_json::from_str(&line).ok()?;
            return Some(Ok(Lease { reader, granted }));
        }
    }
}

pub fn read_reply(reader: &mut impl BufRead) -> Option<Reply> {
    let (status, head) = read_head(reader)?;
    let body = read_body(reader, &head)?;
    Some(Reply { status, head, body })
}

pub fn read_head(reader: &mut impl BufRead) -> Option<(u16, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, head))
}

fn read_body(reader: &mut impl BufRead, head: &str) -> Option<String> {
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0u8; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
