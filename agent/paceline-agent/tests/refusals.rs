//! What is refused, and how it is said: bodies, policy, bounds, and starting at all.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use support::agent::{Agent, command};
use support::client::Client;
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

fn post_lease(client: &Client, body: &Value) -> support::client::Reply {
    client.send("POST", "/v1/leases", &body.to_string())
}

/// Method, path, body; then the status, the kind, the field, what was given, what is allowed.
type Case<'a> = (&'a str, &'a str, String, u16, &'a str, &'a str, Value, Value);

#[test]
fn a_lease_request_out_of_shape_is_a_400_that_names_the_field() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let many: Vec<String> = (0..65).map(|index| format!("sim:{index}")).collect();
    let cases = [
        (json!({"devices": ["sim:0"]}), "holder"),
        (json!({"holder": "a b", "devices": ["sim:0"]}), "holder"),
        (json!({"holder": "x".repeat(65), "devices": ["sim:0"]}), "holder"),
        (json!({"holder": "a"}), "devices"),
        (json!({"holder": "a", "devices": []}), "devices"),
        (json!({"holder": "a", "devices": many}), "devices"),
        (
            json!({"holder": "a", "devices": ["sim:0", "sim:0"]}),
            "devices[1]",
        ),
        (json!({"holder": "a", "devices": [0]}), "devices[0]"),
        (
            json!({"holder": "a", "devices": ["sim:0"], "ttl_ms": 99}),
            "ttl_ms",
        ),
        (
            json!({"holder": "a", "devices": ["sim:0"], "ttl_ms": 60_001}),
            "ttl_ms",
        ),
        (json!({"holder": "a", "devices": ["sim:0"], "ttl": 500}), "ttl"),
    ];
    for (body, field) in cases {
        let problem = post_lease(&agent.client(), &body).assert_problem(400, "bad-request");
        assert_eq!(problem["field"], field, "{body}");
        assert!(problem["allowed"].is_string());
    }
    agent
        .client()
        .send("POST", "/v1/leases", "{")
        .assert_problem(400, "bad-request");
    let unknown = json!({"holder": "a", "devices": ["sim:0", "sim:7"]});
    let problem = post_lease(&agent.client(), &unknown).assert_problem(404, "unknown-device");
    assert_eq!(problem["given"], "sim:7");
}

#[test]
fn a_targets_request_out_of_shape_is_a_400_that_names_the_field_and_changes_nothing() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&[sandbox.device(0)], 3_000);
    let good = json!({"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 500});
    let cases = [
        (
            json!([{"devices": ["sim:0"], "clock_mhz": 990}]),
            "targets[0].hold_ms",
        ),
        (
            json!([{"devices": ["sim:0"], "hold_ms": 500}]),
            "targets[0].clock_mhz",
        ),
        (
            json!([{"devices": ["sim:0"], "clock_mhz": 990.5, "hold_ms": 1}]),
            "targets[0].clock_mhz",
        ),
        (
            json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 0}]),
            "targets[0].hold_ms",
        ),
        (
            json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 60_001}]),
            "targets[0].hold_ms",
        ),
        (json!([{"devices": [], "clock_mhz": null}]), "targets[0].devices"),
        (json!([good, good]), "targets[1].devices[0]"),
        (
            json!([good, {"devices": ["sim:1"], "clock_mhz": null}]),
            "targets[1].devices[0]",
        ),
        (
            json!([good, {"devices": ["sim:9"], "clock_mhz": null}]),
            "targets[1].devices[0]",
        ),
        (
            json!([{"devices": ["sim:0"], "clock": 1, "hold_ms": 1}]),
            "targets[0].clock",
        ),
        (json!({}), "targets"),
    ];
    for (targets, field) in cases {
        let problem = client.put(&lease, 1, &targets).assert_problem(400, "bad-request");
        assert_eq!(problem["field"], field, "{targets}");
    }
    assert!(sandbox.are_all_default());
    assert_eq!(
        client.put(&lease, 1, &json!([good])).status,
        200,
        "the seq was not used up"
    );
}

#[test]
fn paths_and_methods_that_are_not_there_are_said_so() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    agent
        .client()
        .get("/v2/devices")
        .assert_problem(404, "unknown-path");
    let reply = agent.client().get("/v1/leases");
    reply.assert_problem(405, "wrong-method");
    assert!(reply.head.contains("allow: POST"), "{}", reply.head);
    let path = "/v1/leases/00000000000000000000000000000000/targets";
    let body = json!({"epoch": 1, "seq": 1, "targets": []}).to_string();
    agent
        .client()
        .send("PUT", path, &body)
        .assert_problem(404, "unknown-lease");
    agent
        .client()
        .send("DELETE", "/v1/leases/nonsense", "")
        .assert_problem(404, "unknown-lease");
}

/// What was wrong, what was given and what is allowed: a client can act on a refusal without reading its prose.
#[test]
fn every_refusal_names_its_field_what_was_given_and_what_is_allowed() {
    let sandbox = Sandbox::new(Driver::Sim);
    let mut rule = sandbox.own_rule();
    rule["devices"] = json!(["sim:0", "nvml:*"]);
    rule["max_ttl_ms"] = json!(2_000);
    rule["max_hold_ms"] = json!(1_000);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&[sandbox.device(0)], 2_000);
    let targets = format!("/v1/leases/{}/targets", lease.id());
    let epoch = lease.granted["epoch"].as_u64().unwrap();
    let put = |epoch: u64, seq: u64, targets: Value| {
        json!({"epoch": epoch, "seq": seq, "targets": targets}).to_string()
    };
    let grant =
        |device: &str, ttl_ms: u64| json!({"holder": "a", "devices": [device], "ttl_ms": ttl_ms}).to_string();
    assert_eq!(
        client.send("PUT", &targets, &put(epoch, 7, json!([]))).status,
        200
    );
    let nobody = "0".repeat(32);
    let of_nobody = format!("/v1/leases/{nobody}");
    let huge = json!({"holder": "x".repeat(70_000)}).to_string();
    let held = "the lease_id of a lease that is held";
    let hold = |hold_ms: u64| json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": hold_ms}]);
    let other = json!([{"devices": ["sim:1"], "clock_mhz": null}]);
    let devices = json!(["sim:0", "sim:1"]);
    let cases: Vec<Case> = vec![
        (
            "GET",
            "/v1/samples?device=sim:7",
            String::new(),
            404,
            "unknown-device",
            "device",
            json!("sim:7"),
            devices.clone(),
        ),
        (
            "POST",
            "/v1/leases",
            grant("sim:7", 500),
            404,
            "unknown-device",
            "devices[0]",
            json!("sim:7"),
            devices,
        ),
        (
            "POST",
            "/v1/leases",
            grant("sim:1", 500),
            403,
            "policy-denied",
            "devices[0]",
            json!("sim:1"),
            json!(["sim:0", "nvml:*"]),
        ),
        (
            "POST",
            "/v1/leases",
            grant("sim:0", 2_001),
            403,
            "policy-denied",
            "ttl_ms",
            json!(2_001),
            json!(2_000),
        ),
        (
            "POST",
            "/v1/leases",
            "{]".to_owned(),
            400,
            "bad-request",
            "body",
            json!("{]"),
            json!("one JSON object"),
        ),
        (
            "POST",
            "/v1/leases",
            huge.clone(),
            413,
            "body-too-large",
            "body",
            json!(huge.len()),
            json!(65_536),
        ),
        (
            "PUT",
            &targets,
            put(epoch, 8, hold(1_001)),
            403,
            "policy-denied",
            "targets[0].hold_ms",
            json!(1_001),
            json!(1_000),
        ),
        (
            "PUT",
            &targets,
            put(epoch + 1, 8, json!([])),
            412,
            "stale-epoch",
            "epoch",
            json!(epoch + 1),
            json!(epoch),
        ),
        (
            "PUT",
            &targets,
            put(epoch, 7, json!([])),
            412,
            "stale-seq",
            "seq",
            json!(7),
            json!("more than 7"),
        ),
        (
            "PUT",
            &targets,
            put(epoch, 8, other),
            400,
            "bad-request",
            "targets[0].devices[0]",
            json!("sim:1"),
            json!("a device whose clock this lease holds"),
        ),
        (
            "DELETE",
            &of_nobody,
            String::new(),
            404,
            "unknown-lease",
            "lease_id",
            json!(nobody),
            json!(held),
        ),
        (
            "DELETE",
            "/v1/leases/x",
            String::new(),
            404,
            "unknown-lease",
            "lease_id",
            json!("x"),
            json!(held),
        ),
        (
            "PATCH",
            "/v1/leases/x",
            String::new(),
            405,
            "wrong-method",
            "method",
            json!("PATCH"),
            json!("DELETE"),
        ),
        (
            "GET",
            "/v1/stream?period_ms=9",
            String::new(),
            400,
            "bad-request",
            "period_ms",
            json!("9"),
            json!("one whole number from 10 to 10000"),
        ),
        (
            "GET",
            "/v1/stream?peroid_ms=9",
            String::new(),
            400,
            "bad-request",
            "peroid_ms",
            json!("9"),
            json!("device, period_ms"),
        ),
        (
            "GET",
            "/readyz?verbose=1",
            String::new(),
            400,
            "bad-request",
            "verbose",
            json!("1"),
            json!("no query"),
        ),
    ];
    for (method, path, body, status, kind, field, given, allowed) in cases {
        let problem = client.send(method, path, &body).assert_problem(status, kind);
        let said = (&problem["field"], &problem["given"], &problem["allowed"]);
        assert_eq!(
            said,
            (&json!(field), &given, &allowed),
            "{method} {path} {body:.80}"
        );
    }
    let problem = client.get("/v2/devices").assert_problem(404, "unknown-path");
    assert_eq!(
        (&problem["field"], &problem["given"]),
        (&json!("path"), &json!("/v2/devices"))
    );
    assert!(
        problem["allowed"]
            .as_array()
            .unwrap()
            .contains(&json!("/v1/devices"))
    );
}

/// A refusal quotes what was given, but not all of it.
#[test]
fn a_refusal_is_short_however_long_the_mistake_was() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let long = "x".repeat(10_000);
    let cases = [
        ("GET", format!("/{long}"), String::new()),
        ("GET", format!("/v1/samples?device={long}"), String::new()),
        ("GET", format!("/v1/samples?{long}=1"), String::new()),
        ("GET", format!("/v1/stream?period_ms={long}"), String::new()),
        ("DELETE", format!("/v1/leases/{long}"), String::new()),
        ("POST", "/v1/leases".to_owned(), long.clone()),
        (
            "POST",
            "/v1/leases".to_owned(),
            json!({"holder": "a", "devices": [long]}).to_string(),
        ),
        (
            "POST",
            "/v1/leases".to_owned(),
            json!({long.clone(): 1}).to_string(),
        ),
    ];
    for (method, path, body) in cases {
        let reply = agent.client().send(method, &path, &body);
        assert!((400..500).contains(&reply.status), "{}", reply.body);
        assert!(
            reply.body.len() < 2_000,
            "{method} {path:.40}: {} bytes",
            reply.body.len()
        );
    }
}

#[test]
fn what_the_policy_does_not_allow_is_a_403_and_an_audit_line() {
    let sandbox = Sandbox::new(Driver::Sim);
    let mut rule = sandbox.own_rule();
    rule["devices"] = json!(["sim:0"]);
    rule["max_ttl_ms"] = json!(2_000);
    rule["max_hold_ms"] = json!(1_000);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let body = json!({"holder": "a", "devices": ["sim:0", "sim:1"]});
    let problem = post_lease(&client, &body).assert_problem(403, "policy-denied");
    assert_eq!(
        (&problem["field"], &problem["given"]),
        (&json!("devices[1]"), &json!("sim:1"))
    );
    let body = json!({"holder": "a", "devices": ["sim:0"], "ttl_ms": 2_001});
    let problem = post_lease(&client, &body).assert_problem(403, "policy-denied");
    assert_eq!(
        (&problem["field"], &problem["allowed"]),
        (&json!("ttl_ms"), &json!(2_000))
    );
    // Not said: as long as the policy lets it.
    let lease = client.lease(&["sim:0".to_owned()], 2_000);
    let targets = json!([{"devices": ["sim:0"], "clock_mhz": 990, "hold_ms": 1_001}]);
    let problem = client
        .put(&lease, 1, &targets)
        .assert_problem(403, "policy-denied");
    assert_eq!(problem["field"], "targets[0].hold_ms");
    assert_eq!(
        client.get("/v1/devices").json()["devices"][1]["controls"],
        json!([])
    );
    wait_until("the audit has caught up", || agent.audit("refused").len() == 3);
    let line = &agent.audit("refused")[0];
    assert_eq!(line["uid"], nix::unistd::geteuid().as_raw());
    assert_eq!(
        (&line["status"], &line["problem"]),
        (&json!(403), &json!("policy-denied"))
    );
    assert!(sandbox.are_all_default());
}

#[test]
fn a_user_without_a_rule_may_read_and_nothing_else() {
    let sandbox = Sandbox::new(Driver::Sim);
    sandbox.write_policy(&json!([{"uids": [4_000_000], "devices": ["*"], "controls": ["clock"]}]));
    let agent = Agent::start(&sandbox);
    assert_eq!(agent.client().get("/v1/samples").status, 200);
    assert_eq!(agent.client().get("/metrics").status, 200);
    let body = json!({"holder": "a", "devices": ["sim:0"]});
    post_lease(&agent.client(), &body).assert_problem(403, "policy-denied");
}

#[test]
fn a_rule_for_a_group_lets_its_members_in() {
    let sandbox = Sandbox::new(Driver::Sim);
    let gid = nix::unistd::getegid().as_raw();
    sandbox.write_policy(&json!([{"gids": [gid], "devices": ["*"], "controls": ["clock"]}]));
    let agent = Agent::start(&sandbox);
    agent.client().lease(&sandbox.devices(), 3_000);
}

#[test]
fn a_body_over_the_bound_is_a_413() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let body = json!({"holder": "x".repeat(70_000), "devices": []});
    post_lease(&agent.client(), &body).assert_problem(413, "body-too-large");
}

#[test]
fn leases_over_the_bound_are_a_429_and_connections_a_503() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let mut leases: Vec<_> = (0..48)
        .map(|_| client.lease(&[sandbox.device(0)], 60_000))
        .collect();
    let body = json!({"holder": "a", "devices": ["sim:0"]});
    let problem = post_lease(&client, &body).assert_problem(429, "too-many-leases");
    let said = (&problem["field"], &problem["given"], &problem["allowed"]);
    assert_eq!(said, (&json!("leases"), &json!(49), &json!(48)));
    // Closed connections are counted until the agent has seen them close, hence not simply 48.
    let mut idle = Vec::new();
    let refused = loop {
        let stream = client.connect();
        match refusal(&stream) {
            Some(reply) => break reply,
            None => idle.push(stream),
        }
        assert!(
            idle.len() <= 48,
            "the bound is 96 connections of one user, 48 are leases"
        );
    };
    refused.assert_problem(503, "too-many-connections");
    leases.pop();
    wait_until("the place is free again", || refusal(&client.connect()).is_none());
}

/// A refused connection is told so without having asked; others are silent.
fn refusal(stream: &UnixStream) -> Option<support::client::Reply> {
    stream
        .set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    reader.fill_buf().ok()?;
    Some(support::client::read_reply(&mut reader))
}

fn start_and_fail(sandbox: &Sandbox, change: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let mut command = command(sandbox, "serve");
    change(&mut command);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_policy_that_cannot_be_trusted_is_a_refusal_to_start() {
    let sandbox = Sandbox::new(Driver::Sim);
    let path = sandbox.policy_path();
    let refusal = |wanted: &str| {
        let (code, said) = start_and_fail(&sandbox, |_| {});
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("--policy") && said.contains(wanted), "{said}");
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    refusal("chmod go-w");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // Only root can give a file away, and to root nobody can.
    if nix::unistd::geteuid().is_root() {
        chown(&path, Some(12_345), None).unwrap();
        refusal("uid 12345");
        chown(&path, Some(0), None).unwrap();
    }
    fs::write(&path, r#"{"format":"paceline-agent-policy/1","principles":[]}"#).unwrap();
    refusal("principles");
    fs::write(&path, "{").unwrap();
    refusal("line 1");
    fs::remove_file(&path).unwrap();
    refusal("No such file");
}

#[test]
fn a_state_directory_that_others_can_write_is_a_refusal_to_start() {
    let sandbox = Sandbox::new(Driver::Sim);
    fs::create_dir(sandbox.state_path()).unwrap();
    fs::set_permissions(sandbox.state_path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, said) = start_and_fail(&sandbox, |_| {});
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("--state-dir"), "{said}");
}

#[test]
fn a_second_agent_on_the_same_state_or_socket_is_refused() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let (code, said) = start_and_fail(&sandbox, |_| {});
    assert_eq!(code, Some(78));
    assert!(said.contains("another paceline-agent holds it"), "{said}");
    let other_state = sandbox.path.join("other-state");
    let (code, said) = start_and_fail(&sandbox, |command| {
        let socket = sandbox.socket_path();
        *command = Command::new(env!("CARGO_BIN_EXE_paceline-agent"));
        command
            .args(["serve", "--driver", "sim", "--observe", "--sim-dir"])
            .arg(sandbox.devices_path());
        command
            .arg("--state-dir")
            .arg(&other_state)
            .arg("--socket")
            .arg(socket);
    });
    assert_eq!(code, Some(78));
    assert!(said.contains("somebody answers on it"), "{said}");
    let output = command(&sandbox, "restore").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(78),
        "restoring under a living agent is refused too"
    );
    assert_eq!(agent.client().get("/healthz").status, 200);
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let sandbox = Sandbox::new(Driver::Sim);
    drop(std::os::unix::net::UnixListener::bind(sandbox.socket_path()).unwrap());
    let agent = Agent::start_with(&sandbox, |_| {});
    let metadata = fs::metadata(sandbox.socket_path()).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o660);
    drop(agent);
    fs::write(sandbox.socket_path(), "a file of somebody's").unwrap();
    let (code, said) = start_and_fail(&sandbox, |_| {});
    assert_eq!(code, Some(78));
    assert!(said.contains("not a socket"), "{said}");
}

#[test]
fn the_socket_gets_its_group_and_an_unknown_group_is_refused() {
    let sandbox = Sandbox::new(Driver::Sim);
    let (code, said) = start_and_fail(&sandbox, |command| {
        command.args(["--socket-group", "no-such-group"]);
    });
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("no such group"), "{said}");
    assert!(!sandbox.socket_path().exists());
    let own = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap();
    let Some(own) = own else { return };
    let _agent = Agent::start_with(&sandbox, |command| {
        command.args(["--socket-group", &own.name]);
    });
    assert_eq!(
        fs::metadata(sandbox.socket_path()).unwrap().gid(),
        own.gid.as_raw()
    );
}

#[test]
fn a_driver_without_devices_is_said_to_be_unavailable() {
    let sandbox = Sandbox::new(Driver::Sim);
    fs::remove_dir_all(sandbox.devices_path()).unwrap();
    fs::create_dir(sandbox.devices_path()).unwrap();
    let (code, said) = start_and_fail(&sandbox, |_| {});
    assert_eq!(code, Some(69));
    assert!(said.contains("no devices in it"), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_paceline-agent"))
        .args(["probe", "--driver", "nvml", "--nvml-library", "libc.so.6"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8(output.stderr).unwrap().contains("nvmlInit_v2"));
}
