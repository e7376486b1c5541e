//! Spoilt requests to one running agent, and spoilt files to one that starts. Whatever comes, it lives, answers what is
//! complete, says problem+json where it refuses, and leaves no device lowered; from files it starts, or refuses with 78
//! and the file's name.
//!
//! `PACELINE_FUZZ=20000 cargo test --test fuzz_http -- --nocapture` for more of it, `PACELINE_SEED=7` from another seed.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::Agent;
use support::mutate::{mutate_bytes, mutate_json};
use support::raw;
use support::sandbox::{Driver, Sandbox};
use support::seeded::{Seeded, number_from_environment};
use support::wait_until;

const INPUTS_DEFAULT: u64 = 400;
/// A start takes as long as some twenty requests.
const INPUTS_PER_START: u64 = 16;
const AT_ONCE: u64 = 3;
/// For what need not be answered, because it may not be complete.
const PATIENCE: Duration = Duration::from_millis(30);

#[test]
fn spoilt_requests_and_files_crash_nothing() {
    let inputs = number_from_environment("PACELINE_FUZZ").unwrap_or(INPUTS_DEFAULT);
    let seed = number_from_environment("PACELINE_SEED").unwrap_or(1);
    let starts = inputs / INPUTS_PER_START;
    let mut wrongs = fuzz_requests(inputs - starts, seed);
    wrongs.extend(fuzz_files(starts, seed));
    for wrong in wrongs.iter().take(20) {
        eprintln!("{wrong}");
    }
    // On a line of its own: the harness may have begun one with the test's name.
    println!("\n{{\"fuzzInputs\":{inputs},\"crashes\":{}}}", wrongs.len());
    assert!(wrongs.is_empty(), "PACELINE_SEED={seed}: see above");
}

/// Found by the above: the first grant added to it, overflowed, and ended the worker, and the next worker's first grant
/// likewise.
#[test]
fn an_epoch_that_could_not_rise_refuses_the_start_instead_of_crashing_at_the_first_grant() {
    let sandbox = Sandbox::new(Driver::Sim);
    drop(Agent::start(&sandbox));
    let path = sandbox.state_path().join("epoch.json");
    std::fs::write(&path, json!({"next_epoch": u64::MAX}).to_string()).unwrap();
    let mut agent = Agent::spawn(&sandbox, |_| {});
    assert_eq!(agent.wait().code(), Some(78));
    assert!(agent.log().contains("epoch.json"), "{}", agent.log());
}

/// Found by the above.
#[test]
fn a_method_as_long_as_a_head_is_not_quoted_whole() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let reply = agent.client().send(&"X".repeat(4_000), "/healthz", "");
    reply.assert_problem(405, "wrong-method");
    assert!(reply.body.len() < 600, "{}", reply.body);
}

// ---- requests ----

fn fuzz_requests(inputs: u64, seed: u64) -> Vec<String> {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let worker = agent.worker_now();
    let socket_path = sandbox.socket_path();
    let wrongs = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut leases = VecDeque::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= inputs || wrongs.lock().unwrap().len() > 20 {
                        return;
                    }
                    let mut seeded = Seeded::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
                    if let Err(wrong) = one_request(&mut seeded, &socket_path, &mut leases) {
                        wrongs
                            .lock()
                            .unwrap()
                            .push(format!("input {number} of seed {seed}: {wrong}"));
                    }
                    if number.is_multiple_of(64) && agent.worker_now() != worker {
                        let wrong = format!("about input {number} of seed {seed}: the worker died");
                        wrongs.lock().unwrap().push(wrong);
                        return;
                    }
                }
            });
        }
    });
    let mut wrongs = wrongs.into_inner().unwrap();
    if agent.worker_now() != worker {
        wrongs.push("the worker died".to_owned());
    }
    wait_until("the devices are back", || sandbox.are_all_default());
    wait_until("no lease is left", || {
        agent
            .client()
            .get("/metrics")
            .body
            .contains("\npaceline_agent_leases 0\n")
    });
    if agent.log().contains("panic") {
        wrongs.push(format!("a panic in the log: {}", agent.log()));
    }
    wrongs
}

struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

fn any_request(seeded: &mut Seeded, lease: Option<&Value>) -> Request {
    let get = |path: &str| Request {
        method: "GET",
        path: path.to_owned(),
        body: None,
    };
    let granted = lease.cloned().unwrap_or_default();
    let id = granted["lease_id"]
        .as_str()
        .unwrap_or("00112233445566778899aabbccddeeff")
        .to_owned();
    match seeded.below(12) {
        0 => get("/healthz"),
        1 => get("/readyz"),
        2 => get("/v1/devices"),
        3 => get("/v1/samples?device=sim:0&device=sim:1"),
        4 => get("/metrics"),
        5..8 => Request {
            method: "POST",
            path: "/v1/leases".to_owned(),
            body: Some(
                json!({"holder": "fuzz", "devices": ["sim:0", "sim:1"], "controls": ["clock"],
                "ttl_ms": 60_000}),
            ),
        },
        8..11 => Request {
            method: "PUT",
            path: format!("/v1/leases/{id}/targets"),
            body: Some(json!({"epoch": granted["epoch"], "seq": seeded.below(1 << 53),
                "targets": [{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 60_000},
                    {"devices": ["sim:1"], "clock_mhz": null}]})),
        },
        _ => Request {
            method: "DELETE",
            path: format!("/v1/leases/{id}"),
            body: None,
        },
    }
}

/// What became of a request, from the side of who sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Complete: an answer is owed.
    Sound,
    /// The head, or where the body ends, may be anything: an answer or none, but no nonsense.
    Spoilt,
}

fn one_request(
    seeded: &mut Seeded,
    socket_path: &Path,
    leases: &mut VecDeque<(Value, UnixStream)>,
) -> Result<(), String> {
    if leases.len() > 6 || seeded.one_in(12) {
        leases.pop_front();
    }
    let lease = leases.back().map(|(granted, _)| granted.clone());
    let mut request = any_request(seeded, lease.as_ref());
    let mut framing = Framing::Sound;
    let mut bytes = match seeded.below(10) {
        0..5 => {
            spoil_meaning(seeded, &mut request);
            encode(seeded, &request, 1)
        }
        5 => {
            let count = seeded.between(2, 5) as usize;
            encode(seeded, &request, count)
        }
        6 => {
            framing = Framing::Spoilt;
            spoil_head(seeded, &request)
        }
        _ => {
            framing = Framing::Spoilt;
            let mut bytes = encode(seeded, &request, 1);
            mutate_bytes(seeded, &mut bytes);
            bytes
        }
    };
    let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
    let mut stream = raw::connect(socket_path).ok_or_else(|| format!("nobody listens to {sent:?}"))?;
    let hangs_up = seeded.one_in(10);
    if hangs_up {
        bytes.truncate(seeded.below(bytes.len() as u64 + 1) as usize);
    }
    // It may refuse and close before it has all; what it says is read all the same.
    let _ = send_in_pieces(seeded, &mut stream, &bytes);
    if hangs_up {
        if seeded.one_in(2) {
            let _ = stream.shutdown(Shutdown::Write);
        }
        return Ok(());
    }
    if framing == Framing::Spoilt {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // An answer to HEAD has a length and no body.
    match read_answer(&mut stream, !bytes.starts_with(b"HEAD")) {
        Ok(Some(answer)) => {
            judge(&answer, framing).map_err(|wrong| format!("{wrong}\nto {sent:?}"))?;
            if let Some(granted) = answer.granted {
                leases.push_back((granted, stream));
            }
            Ok(())
        }
        Ok(None) if framing == Framing::Sound => Err(format!("no answer to {sent:?}")),
        Ok(None) => Ok(()),
        Err(wrong) => Err(format!("{wrong}\nto {sent:?}")),
    }
}

/// Sound HTTP, and a path, query or body that may mean anything.
fn spoil_meaning(seeded: &mut Seeded, request: &mut Request) {
    if let Some(body) = &mut request.body {
        if !seeded.one_in(6) {
            mutate_json(seeded, body);
        }
        return;
    }
    let tails = [
        "?device=".to_owned(),
        "?device=sim:9".to_owned(),
        "?period_ms=-1".to_owned(),
        format!("?period_ms={}", "9".repeat(40)),
        format!("?device={}", "sim:0&device=".repeat(900)),
        format!("?{}", "%".repeat(200)),
        "?device=%ff%fe%00".to_owned(),
        "?=&&==&".to_owned(),
        "/".to_owned(),
        "/../../etc/passwd".to_owned(),
        format!("/{}", "a".repeat(4_000)),
        "%2f%2e%2e".to_owned(),
    ];
    let tail = seeded.one_of(&tails);
    request.path.push_str(tail);
    if seeded.one_in(3) {
        request.method = *seeded.one_of(&["PATCH", "HEAD", "OPTIONS", "TRACE", "X", "PUT", "DELETE"]);
    }
}

fn encode(seeded: &mut Seeded, request: &Request, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let Request { method, path, .. } = request;
    let is_chunked = !body.is_empty() && seeded.one_in(3);
    for _ in 0..count {
        if is_chunked {
            bytes.extend(
                format!("{method} {path} HTTP/1.1\r\nhost: agent\r\ntransfer-encoding: chunked\r\n\r\n")
                    .bytes(),
            );
            for chunk in body.as_bytes().chunks(seeded.between(1, 400) as usize) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(support::client::request(method, path, &body).bytes());
        }
    }
    bytes
}

fn spoil_head(seeded: &mut Seeded, request: &Request) -> Vec<u8> {
    let Request { method, path, .. } = request;
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let length = body.len();
    let headers = [
        format!("content-length: {}", u64::MAX),
        format!("content-length: {}", "9".repeat(50)),
        "content-length: -1".to_owned(),
        format!("content-length: {length}\r\ncontent-length: {}", length + 1),
        format!("content-length: {length}\r\ntransfer-encoding: chunked"),
        "transfer-encoding: gzip, chunked".to_owned(),
        "transfer-encoding: chunked, chunked".to_owned(),
        format!("x: {}\r\ncontent-length: {length}", "y".repeat(20_000)),
        format!("{}content-length: {length}", "a: b\r\n".repeat(200)),
        format!("content-length: {length}\r\nexpect: 100-continue"),
        format!("content-length: {length}\r\nconnection: upgrade\r\nupgrade: h2c"),
        format!("content-length : {length}"),
        format!("content-length: {length}\r\n folded"),
        format!("content-length: {}", 70 * 1024),
    ];
    let version = *seeded.one_of(&[
        "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", "",
    ]);
    let header = seeded.one_of(&headers);
    format!("{method} {path} {version}\r\nhost: agent\r\n{header}\r\n\r\n{body}").into_bytes()
}

fn send_in_pieces(seeded: &mut Seeded, stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    if !seeded.one_in(4) || bytes.is_empty() {
        return stream.write_all(bytes);
    }
    for piece in bytes.chunks(bytes.len().div_ceil(seeded.between(2, 6) as usize)) {
        stream.write_all(piece)?;
        std::thread::sleep(Duration::from_micros(seeded.below(800)));
    }
    Ok(())
}

struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// The first line of a lease's stream.
    granted: Option<Value>,
}

/// The first answer. `None`: nothing came, or the connection was closed without one.
fn read_answer(stream: &mut UnixStream, has_body: bool) -> Result<Option<Answered>, String> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match reader.read_until(b'\n', &mut head) {
            Ok(0) if head.is_empty() => return Ok(None),
            Err(wrong) if head.is_empty() && is_silence(&wrong) => return Ok(None),
            Ok(0) | Err(_) => return Err(format!("half a head: {:?}", String::from_utf8_lossy(&head))),
            Ok(_) => {}
        }
    }
    // What has begun to answer goes on.
    let patience = Some(Duration::from_secs(8));
    reader
        .get_ref()
        .set_read_timeout(patience)
        .map_err(|wrong| wrong.to_string())?;
    let head = String::from_utf8(head).map_err(|_| "a head that is not UTF-8".to_owned())?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok());
    let Some(status) = status.filter(|status| (100..600).contains(status)) else {
        return Err(format!("no status line: {head:?}"));
    };
    if status == 100 {
        return Ok(None);
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = Vec::new();
    let mut granted = None;
    if let Some(length) = length {
        let length: usize = length.parse().map_err(|_| format!("no length: {head:?}"))?;
        body.resize(length, 0);
        if !has_body {
            body.clear();
        } else if reader.read_exact(&mut body).is_err() {
            return Err(format!("half a body: {head:?}"));
        }
    } else if head.contains("application/x-ndjson") && status == 201 {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(read) if read > 0 => {}
                _ => return Err("a lease without its first line".to_owned()),
            }
        }
        granted = Some(serde_json::from_str(&line).map_err(|wrong| format!("{wrong}: {line:?}"))?);
    }
    Ok(Some(Answered {
        status,
        head,
        body,
        granted,
    }))
}

fn is_silence(wrong: &std::io::Error) -> bool {
    matches!(
        wrong.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn judge(answer: &Answered, framing: Framing) -> Result<(), String> {
    let Answered {
        status, head, body, ..
    } = answer;
    if *status < 400 || (body.is_empty() && head.contains("content-type: application/problem+json")) {
        return Ok(());
    }
    // What cannot be read as HTTP is refused by hyper itself, in three words.
    let is_hypers = matches!(status, 400 | 414 | 431 | 505) && body.is_empty();
    if is_hypers && framing == Framing::Spoilt {
        return Ok(());
    }
    let said = || format!("{head:?} {:?}", String::from_utf8_lossy(body));
    if !head.contains("content-type: application/problem+json") {
        return Err(format!("no problem+json: {}", said()));
    }
    let problem: Value = serde_json::from_slice(body).map_err(|wrong| format!("{wrong}: {}", said()))?;
    let is_whole =
        problem["status"] == *status && problem["title"].is_string() && problem["detail"].is_string();
    if !is_whole {
        return Err(format!("a problem without status, title or detail: {}", said()));
    }
    if *status >= 500 && *status != 503 {
        return Err(format!("the agent blames itself: {}", said()));
    }
    // A refusal quotes what was given, and not all of it.
    if body.len() > 4_096 {
        return Err(format!("a refusal of {} bytes", body.len()));
    }
    Ok(())
}

// ---- files ----

const TOKENS: &str = "# of the tests\ngateway-1 0123456789abcdef0123456789abcdef\ngateway-2 fedcba9876543210fedcba9876543210\n";

fn fuzz_files(starts: u64, seed: u64) -> Vec<String> {
    let wrongs = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= starts {
                        return;
                    }
                    let mut seeded = Seeded::new(seed.wrapping_mul(7_000_003).wrapping_add(number));
                    if let Err(wrong) = one_start(&mut seeded, number) {
                        wrongs
                            .lock()
                            .unwrap()
                            .push(format!("start {number} of seed {seed}: {wrong}"));
                    }
                }
            });
        }
    });
    wrongs.into_inner().unwrap()
}

fn one_start(seeded: &mut Seeded, number: u64) -> Result<(), String> {
    let sandbox = Sandbox::new(Driver::Sim);
    let policy = json!({"format": "paceline-agent-policy/1", "principals": [{"name": "tests",
        "uids": [nix::unistd::geteuid().as_raw()], "gids": [1, 2], "tokens": ["gateway-1"],
        "devices": ["sim:*"], "controls": ["clock", "power_limit"], "floor_mhz": 990, "ceiling_mhz": 1980,
        "max_ttl_ms": 60_000, "max_hold_ms": 60_000, "lowering_min_interval_ms": 50}],
        "baselines": [{"devices": ["sim:1"], "clock_mhz": 1290}]});
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let journal = json!({"format": "paceline-agent-journal/2", "boot_id": boot_id.trim(),
        "devices": {"sim:0": {"clock": {"found": "reset"}, "power_limit": {"found": "0"}},
            "sim:1": {"clock": {"found": "reset", "declared": 1290}}}});
    let tokens_path = sandbox.path.join("tokens");
    let mut policy_bytes = policy.to_string().into_bytes();
    let mut tokens_bytes = TOKENS.as_bytes().to_vec();
    let mut state = None;
    let spoilt = match number % 4 {
        0 => {
            policy_bytes = spoil_document(seeded, policy);
            "policy.json"
        }
        1 => {
            mutate_bytes(seeded, &mut tokens_bytes);
            "tokens"
        }
        2 => {
            state = Some(spoil_document(seeded, journal));
            "journal.json"
        }
        _ => {
            state = Some(spoil_document(seeded, json!({"next_epoch": 1_001})));
            "epoch.json"
        }
    };
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&sandbox.policy_path(), &policy_bytes);
    write(&tokens_path, &tokens_bytes);
    if let Some(bytes) = &state {
        std::fs::create_dir_all(sandbox.state_path()).unwrap();
        std::fs::set_permissions(sandbox.state_path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        write(&sandbox.state_path().join(spoilt), bytes);
    }
    let has_sentinel = seeded.one_in(3);
    let mut agent = Agent::spawn(&sandbox, |command| {
        command
            .args(["--tcp", "127.0.0.1:0", "--tcp-token-file"])
            .arg(&tokens_path);
        if !has_sentinel {
            command.arg("--no-sentinel");
        }
    });
    let give_up_at = Instant::now() + Duration::from_secs(20);
    let wrong = loop {
        if let Some(status) = agent.has_left() {
            let names_it = agent.log().contains(spoilt);
            let is_refused = status.code() == Some(78) && names_it && spoilt != "journal.json";
            break (!is_refused).then(|| format!("left with {status}"));
        }
        let body = json!({"holder": "fuzz", "devices": ["sim:0"]});
        // Refused or not: what was read at start is used, and must not be what kills it.
        if raw::lease(&sandbox.socket_path(), &body).is_some() {
            let lives = raw::send(&sandbox.socket_path(), "GET", "/metrics", "").is_some();
            break (!lives).then(|| "died of its first lease".to_owned());
        }
        if Instant::now() > give_up_at {
            break Some("neither serves nor leaves".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let log = agent.log();
    let wrong = wrong.or_else(|| log.contains("panic").then(|| "a panic".to_owned()));
    let what = || {
        let bytes = state.as_deref().unwrap_or(if spoilt == "tokens" {
            &tokens_bytes
        } else {
            &policy_bytes
        });
        String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned()
    };
    wrong.map_or(Ok(()), |wrong| {
        Err(format!("{spoilt} {:?}: {wrong}\n{log}", what()))
    })
}

fn spoil_document(seeded: &mut Seeded, mut document: Value) -> Vec<u8> {
    if seeded.one_in(2) {
        mutate_json(seeded, &mut document);
        return document.to_string().into_bytes();
    }
    let mut bytes = document.to_string().into_bytes();
    mutate_bytes(seeded, &mut bytes);
    bytes
}
