//! Who may do what, as it changes while the agent runs (SIGHUP), and clients that come over loopback TCP with a token.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::agent::{Agent, command, send};
use support::client::{Reply, read_reply};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Sends SIGHUP to the sentinel, as systemd does, and waits until the worker has looked.
fn reload(agent: &Agent, event: &str) -> Value {
    let before = agent.audit(event).len();
    send(agent.sentinel(), Signal::SIGHUP);
    wait_until(event, || agent.audit(event).len() > before);
    agent.audit(event).pop().unwrap()
}

#[test]
fn leases_that_a_new_policy_would_not_grant_are_revoked_and_others_are_not() {
    let cases = [
        ("no rule", json!({"uids": [4_000_000]}), true),
        ("another device", json!({"devices": ["sim:1"]}), true),
        ("no control", json!({"controls": []}), true),
        ("a floor above the demand", json!({"floor_mhz": 1_000}), true),
        ("a ceiling below the demand", json!({"ceiling_mhz": 900}), true),
        ("a ttl that is shorter", json!({"max_ttl_ms": 59_999}), true),
        ("a hold that is shorter", json!({"max_hold_ms": 10_000}), true),
        ("the same", json!({}), false),
        ("a floor at the demand", json!({"floor_mhz": 990}), false),
        (
            "another interval",
            json!({"lowering_min_interval_ms": 1_000}),
            false,
        ),
    ];
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    for (what, change, is_revoked) in cases {
        let mut rule = sandbox.own_rule();
        rule["lowering_min_interval_ms"] = json!(0);
        sandbox.write_policy(&json!([rule]));
        reload(&agent, "policy-reloaded");
        let mut lease = client.lease(&[sandbox.device(0)], 60_000);
        client.slow(&lease, 1, &[sandbox.device(0)], 990, 60_000);
        for (key, value) in change.as_object().unwrap() {
            rule[key] = value.clone();
        }
        sandbox.write_policy(&json!([rule]));
        let line = reload(&agent, "policy-reloaded");
        assert_eq!(line["revoked"], u64::from(is_revoked), "{what}");
        if is_revoked {
            assert_eq!(lease.ended().as_deref(), Some("revoked"), "{what}");
            wait_until(what, || sandbox.locked_mhz(0) == 0);
            let put = client.put(&lease, 2, &json!([]));
            put.assert_problem(404, "unknown-lease");
        } else {
            assert_eq!(sandbox.locked_mhz(0), 990, "{what}");
            assert_eq!(client.put(&lease, 2, &json!([])).status, 200, "{what}");
        }
    }
    let ended = agent.audit("lease-ended");
    assert_eq!(ended.iter().filter(|line| line["reason"] == "revoked").count(), 7);
    let page = client.get("/metrics").body;
    assert!(
        page.contains("paceline_agent_lease_ends_total{reason=\"revoked\"} 7"),
        "{page}"
    );
}

#[test]
fn a_lease_that_goes_on_has_the_new_policy_s_terms() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&[sandbox.device(0)], 60_000);
    client.slow(&lease, 1, &[sandbox.device(0)], 1_290, 500);
    let mut rule = sandbox.own_rule();
    rule["floor_mhz"] = json!(1_005);
    rule["max_hold_ms"] = json!(1_000);
    sandbox.write_policy(&json!([rule]));
    assert_eq!(reload(&agent, "policy-reloaded")["revoked"], 0);
    let targets = json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 1_001}]);
    let problem = client
        .put(&lease, 2, &targets)
        .assert_problem(403, "policy-denied");
    assert_eq!(
        (&problem["given"], &problem["allowed"]),
        (&json!(1_001), &json!(1_000))
    );
    let answer = client.slow(&lease, 2, &[sandbox.device(0)], 990, 1_000);
    assert_eq!(answer["results"][0]["clamped"], "floor");
    assert_eq!(answer["results"][0]["demand_mhz"], 1_005);
}

#[test]
fn an_invalid_policy_changes_nothing_and_everybody_can_see_why() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&[sandbox.device(0)], 60_000);
    client.slow(&lease, 1, &[sandbox.device(0)], 990, 60_000);
    let ready = client.get("/readyz").json();
    assert_eq!(ready["policy"]["error"], Value::Null);
    let loaded_at = ready["policy"]["loaded_at_unix_ms"].as_u64().unwrap();
    sandbox.write_policy(&json!([{"uids": [0], "devices": ["*"], "controls": ["clock"], "flor_mhz": 1}]));
    let line = reload(&agent, "policy-reload-refused");
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("--policy") && error.contains("principals[0].flor_mhz"),
        "{error}"
    );
    let reply = client.get("/readyz");
    assert_eq!(
        (reply.status, &reply.json()["policy"]["error"]),
        (200, &line["error"])
    );
    assert_eq!(reply.json()["policy"]["loaded_at_unix_ms"], loaded_at);
    assert!(
        client
            .get("/metrics")
            .body
            .contains("paceline_agent_policy_is_stale 1")
    );
    fs::remove_file(sandbox.policy_path()).unwrap();
    reload(&agent, "policy-reload-refused");
    // A FIFO that nobody writes must not hold anything up.
    nix::unistd::mkfifo(&sandbox.policy_path(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    reload(&agent, "policy-reload-refused");
    assert_eq!(client.put(&lease, 2, &json!([])).status, 200);
    assert_eq!(sandbox.locked_mhz(0), 990);
    fs::remove_file(sandbox.policy_path()).unwrap();
    sandbox.write_policy(&json!([sandbox.own_rule()]));
    reload(&agent, "policy-reloaded");
    assert_eq!(client.get("/readyz").json()["policy"]["error"], Value::Null);
    assert!(
        client
            .get("/metrics")
            .body
            .contains("paceline_agent_policy_is_stale 0")
    );
}

/// As in a ConfigMap volume: the file is a link to a link, and a new version moves one of them.
#[test]
fn a_policy_behind_links_is_followed_and_its_target_judged() {
    let sandbox = Sandbox::new(Driver::Sim);
    let path = sandbox.policy_path();
    let data = |name: &str, mode: u32| {
        let directory = sandbox.path.join(name);
        fs::create_dir(&directory).unwrap();
        let file = directory.join("policy.json");
        fs::copy(&path, &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        directory
    };
    let (good, bad) = (data("..2026_1", 0o644), data("..2026_2", 0o664));
    fs::remove_file(&path).unwrap();
    symlink(&good, sandbox.path.join("..data")).unwrap();
    symlink("..data/policy.json", &path).unwrap();
    let agent = Agent::start(&sandbox);
    agent.client().lease(&sandbox.devices(), 3_000);
    symlink(&bad, sandbox.path.join("..new")).unwrap();
    fs::rename(sandbox.path.join("..new"), sandbox.path.join("..data")).unwrap();
    let line = reload(&agent, "policy-reload-refused");
    assert!(line["error"].as_str().unwrap().contains("chmod go-w"), "{line}");
}

fn write_tokens(sandbox: &Sandbox, text: &str) {
    let path = sandbox.path.join("tokens");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn with_tcp<'a>(sandbox: &Sandbox, command: &'a mut Command, address: &str) -> &'a mut Command {
    let tokens = sandbox.path.join("tokens");
    command.args(["--tcp", address, "--tcp-token-file"]).arg(tokens)
}

/// Two tokens, `gateway` and `other`; a rule for each, and one for the tests' own user.
fn start_with_tcp(sandbox: &Sandbox) -> (Agent, SocketAddr) {
    write_tokens(sandbox, &format!("gateway {TOKEN}\nother {OTHER}\n"));
    let rule = |name: &str| {
        json!({"name": name, "tokens": [name], "devices": ["*"], "controls": ["clock"],
        "lowering_min_interval_ms": 0})
    };
    sandbox.write_policy(&json!([rule("gateway"), rule("other"), sandbox.own_rule()]));
    let agent = Agent::start_with(sandbox, |command| {
        with_tcp(sandbox, command, "127.0.0.1:0");
    });
    let mut address = None;
    wait_until("the address is said", || {
        let lines = agent.log_lines();
        let ready = lines.iter().find(|line| line["message"] == "ready");
        address = ready.map(|line| line["tcp"].as_str().unwrap().parse().unwrap());
        address.is_some()
    });
    (agent, address.unwrap())
}

fn tcp_request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn open(address: SocketAddr, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn send_tcp(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    read_reply(&mut open(address, &tcp_request(method, path, headers, body)))
}

fn bearing(token: &str) -> String {
    format!("host: localhost:9500\r\nauthorization: Bearer {token}\r\n")
}

/// Its stream, and the line that granted it.
fn tcp_lease(address: SocketAddr, token: &str) -> (BufReader<TcpStream>, Value) {
    let body = json!({"holder": "tcp", "devices": ["sim:0"], "ttl_ms": 60_000}).to_string();
    let mut reader = open(
        address,
        &tcp_request("POST", "/v1/leases", &bearing(token), &body),
    );
    let granted = next_json(&mut reader);
    assert_eq!(granted["type"], "granted");
    (reader, granted)
}

fn next_json(reader: &mut BufReader<TcpStream>) -> Value {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

fn tcp_put(address: SocketAddr, token: &str, granted: &Value, seq: u64) -> Reply {
    let path = format!("/v1/leases/{}/targets", granted["lease_id"].as_str().unwrap());
    let targets = json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 60_000}]);
    let body = json!({"epoch": granted["epoch"], "seq": seq, "targets": targets});
    send_tcp(address, "PUT", &path, &bearing(token), &body.to_string())
}

#[test]
fn over_tcp_nothing_but_healthz_is_answered_without_a_good_token() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (agent, address) = start_with_tcp(&sandbox);
    let host = "host: 127.0.0.1\r\n";
    assert_eq!(send_tcp(address, "GET", "/healthz", host, "").status, 200);
    let longer = format!("{TOKEN}0");
    let cases = [
        ("GET", "/readyz", host.to_owned()),
        ("GET", "/metrics", bearing(&TOKEN[..31])),
        ("GET", "/v1/devices", bearing(&longer)),
        (
            "POST",
            "/v1/leases",
            format!("{host}authorization: Basic {TOKEN}\r\n"),
        ),
        ("POST", "/healthz", host.to_owned()),
        ("GET", "/nowhere", format!("{host}authorization: {TOKEN}\r\n")),
    ];
    for (method, path, headers) in cases {
        let reply = send_tcp(address, method, path, &headers, "");
        let problem = reply.assert_problem(401, "unauthenticated");
        assert_eq!(problem["field"], "authorization");
        assert!(!reply.body.contains(&TOKEN[..31]), "{}", reply.body);
        assert!(reply.head.contains("www-authenticate: Bearer"), "{}", reply.head);
        assert!(reply.head.contains("connection: close"), "{}", reply.head);
    }
    for path in ["/readyz", "/metrics", "/v1/devices", "/v1/samples"] {
        assert_eq!(
            send_tcp(address, "GET", path, &bearing(TOKEN), "").status,
            200,
            "{path}"
        );
    }
    let twice = format!("{}authorization: Bearer {OTHER}\r\n", bearing(TOKEN));
    send_tcp(address, "GET", "/readyz", &twice, "").assert_problem(400, "bad-request");
    wait_until("the audit has caught up", || {
        agent.audit("token-refused").len() == 7
    });
    assert!(!agent.log().contains(&TOKEN[..31]));
}

#[test]
fn guesses_are_bounded_in_the_audit_and_hold_nobody_up() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (agent, address) = start_with_tcp(&sandbox);
    let guess = || send_tcp(address, "GET", "/readyz", &bearing("x"), "");
    let mut refused = None;
    for _ in 0..40 {
        let reply = guess();
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.unwrap();
    let problem = refused.assert_problem(429, "too-many-attempts");
    assert_eq!(problem["allowed"], 10);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert_eq!(
        send_tcp(address, "GET", "/readyz", &bearing(TOKEN), "").status,
        200
    );
    assert!(agent.audit("token-refused").len() <= 20);
    let page = agent.client().get("/metrics").body;
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("paceline_agent_token_refusals_total "));
    assert!(count.unwrap().parse::<u64>().unwrap() > 10, "{page}");
}

#[test]
fn what_a_browser_sends_is_refused_even_with_the_token() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (_agent, address) = start_with_tcp(&sandbox);
    let with = |host: &str| format!("host: {host}\r\nauthorization: Bearer {TOKEN}\r\n");
    let cases = [
        (
            format!("{}origin: http://localhost:3000\r\n", with("localhost")),
            "/v1/devices",
            "origin",
        ),
        (
            format!("{}origin: null\r\n", with("localhost")),
            "/healthz",
            "origin",
        ),
        (with("rebound.example:9500"), "/v1/devices", "host"),
        (with("rebound.example"), "/healthz", "host"),
        (with("localhost"), "http://rebound.example/v1/devices", "host"),
    ];
    for (headers, path, field) in cases {
        let reply = send_tcp(address, "GET", path, &headers, "");
        assert_eq!(reply.assert_problem(403, "not-for-browsers")["field"], field);
    }
    let no_host = format!("authorization: Bearer {TOKEN}\r\n");
    send_tcp(address, "GET", "/v1/devices", &no_host, "").assert_problem(400, "bad-request");
    assert_eq!(
        send_tcp(address, "GET", "/v1/devices", &with("[::1]:9500"), "").status,
        200
    );
}

#[test]
fn a_lease_over_tcp_belongs_to_its_token_and_ends_with_its_stream() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (agent, address) = start_with_tcp(&sandbox);
    for half_closed in [false, true] {
        let (reader, granted) = tcp_lease(address, TOKEN);
        tcp_put(address, OTHER, &granted, 1).assert_problem(403, "not-your-lease");
        let path = format!("/v1/leases/{}", granted["lease_id"].as_str().unwrap());
        // Not root's either, who is somebody else.
        agent
            .client()
            .send("DELETE", &path, "")
            .assert_problem(403, "not-your-lease");
        assert_eq!(tcp_put(address, TOKEN, &granted, 1).status, 200);
        assert_eq!(sandbox.locked_mhz(0), 990);
        if half_closed {
            reader.get_ref().shutdown(Shutdown::Write).unwrap();
        } else {
            drop(reader);
        }
        wait_until("its end is noticed", || sandbox.locked_mhz(0) == 0);
    }
    let line = agent.wait_for_audit("lease-granted");
    assert_eq!((&line["token"], &line["uid"]), (&json!("gateway"), &Value::Null));
    wait_until("both have ended", || agent.audit("lease-ended").len() == 2);
    assert!(
        agent
            .audit("lease-ended")
            .iter()
            .all(|line| line["reason"] == "disconnected")
    );
}

#[test]
fn a_token_that_has_left_the_file_takes_its_leases_along_and_a_replaced_one_does_not() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (agent, address) = start_with_tcp(&sandbox);
    let (mut gateway, granted) = tcp_lease(address, TOKEN);
    let (_other, others) = tcp_lease(address, OTHER);
    assert_eq!(tcp_put(address, TOKEN, &granted, 1).status, 200);
    let mut samples = open(
        address,
        &tcp_request("GET", "/v1/stream?period_ms=10", &bearing(TOKEN), ""),
    );
    next_json(&mut samples);
    let new = "new".repeat(16);
    write_tokens(&sandbox, &format!("other {new}\n"));
    assert_eq!(reload(&agent, "policy-reloaded")["revoked"], 1);
    let ended = loop {
        let line = next_json(&mut gateway);
        if line["type"] == "ended" {
            break line;
        }
    };
    assert_eq!(ended["reason"], "revoked");
    // The last chunk; the connection itself may be used again, with a good token.
    assert!(samples.lines().any(|line| line.unwrap() == "0"));
    for token in [TOKEN, OTHER] {
        let reply = send_tcp(address, "GET", "/readyz", &bearing(token), "");
        reply.assert_problem(401, "unauthenticated");
    }
    assert_eq!(tcp_put(address, &new, &others, 1).status, 200);
    write_tokens(&sandbox, "other short\n");
    let line = reload(&agent, "policy-reload-refused");
    assert!(line["error"].as_str().unwrap().contains("line 1"), "{line}");
    assert_eq!(
        send_tcp(address, "GET", "/readyz", &bearing(&new), "").status,
        200
    );
}

#[test]
fn strangers_on_tcp_are_few_and_do_not_stay() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (agent, address) = start_with_tcp(&sandbox);
    // Proven: it may idle for longer than strangers may.
    let mut proven = open(address, &tcp_request("GET", "/readyz", &bearing(TOKEN), ""));
    assert_eq!(read_reply(&mut proven).status, 200);
    let mut strangers: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(address).unwrap()).collect();
    wait_until("one more is refused", || {
        let mut one = TcpStream::connect(address).unwrap();
        one.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut said = String::new();
        let _ = one.read_to_string(&mut said);
        said.starts_with("HTTP/1.1 503") && said.contains("too-many-connections")
    });
    assert_eq!(
        agent.client().get("/healthz").status,
        200,
        "the socket is not concerned"
    );
    let stranger = strangers.last_mut().unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(stranger.read(&mut [0u8; 1]).unwrap(), 0, "closed by the agent");
    let again = tcp_request("GET", "/readyz", &bearing(TOKEN), "");
    proven.get_mut().write_all(again.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut proven).status, 200);
}

#[test]
fn tcp_beyond_this_machine_or_with_a_token_file_for_all_is_a_refusal_to_start() {
    let sandbox = Sandbox::new(Driver::Sim);
    let path = sandbox.path.join("tokens");
    let refused = |address: &str, wanted: &str| {
        let mut command = command(&sandbox, "serve");
        let output = with_tcp(&sandbox, &mut command, address).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(wanted), "{said}");
    };
    write_tokens(&sandbox, &format!("gateway {TOKEN}"));
    refused("0.0.0.0:0", "--tcp 0.0.0.0:0: not a loopback address");
    refused("localhost:9500", "names are not looked up");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    refused("127.0.0.1:0", "chmod go-rwx");
    write_tokens(&sandbox, &format!("gateway {}", &TOKEN[..31]));
    refused("127.0.0.1:0", "line 1: the token of \"gateway\"");
    fs::remove_file(&path).unwrap();
    refused("[::1]:0", "--tcp-token-file");
}
