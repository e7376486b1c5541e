//! PROTOCOL.md against the real binary: every case runs over the `sim` driver and over `nvml` with the fake library.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::{Agent, command};
use support::client::next_json_line;
use support::sandbox::{CLOCKS_MHZ, Driver, Sandbox};
use support::wait_until;

macro_rules! over_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod sim { $(#[test] fn $name() { super::$name(super::Driver::Sim); })* }
        mod nvml { $(#[test] fn $name() { super::$name(super::Driver::Nvml); })* }
    };
}

over_both_drivers!(
    devices_are_described,
    samples_tell_what_the_device_measures,
    a_lease_slows_its_devices_and_its_end_puts_them_back,
    a_clock_is_taken_up_to_the_next_step_and_clamped_to_the_policy,
    two_leases_and_the_fastest_demand_wins,
    a_hold_lapses,
    a_lease_without_renewal_expires,
    renewing_without_targets_keeps_the_demands,
    a_stale_seq_and_another_epoch_are_412_and_change_nothing,
    lowering_is_deferred_and_raising_is_not,
    groups_of_a_put_are_answered_device_by_device,
    epochs_rise_over_restarts,
    observing_recommends_and_sets_nothing,
    a_power_limit_is_a_control_of_its_own,
    a_declared_baseline_is_the_default,
    a_foreign_power_limit_is_left_alone,
    metrics_are_in_base_units,
    a_stream_gives_a_line_per_period,
    probe_says_what_the_node_can_do,
);

fn devices_are_described(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 3_000);
    agent.client().slow(&lease, 1, &[sandbox.device(0)], 1290, 60_000);
    let reply = agent.client().get("/v1/devices");
    assert_eq!(reply.status, 200);
    let first = &reply.json()["devices"][0];
    let wanted = json!({"device": sandbox.device(0), "name": "Emulated H100", "uuid": "GPU-0",
        "clocks_mhz": CLOCKS_MHZ, "default_clock_mhz": 1980, "power_limit_mw": 700_000,
        "controls": ["clock"], "floor_mhz": 210, "ceiling_mhz": 1980, "target_mhz": 1290});
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&first[field], value, "{field}");
    }
    let holder = &first["holders"][0];
    assert_eq!(holder["lease_id"], lease.id());
    assert_eq!(holder["holder"], "test");
    assert_eq!(holder["clock_mhz"], 1290);
    assert!(holder["hold_left_ms"].as_u64().unwrap() > 50_000);
    assert_eq!(first["switch"]["count"], 1);
    assert!(first["switch"]["call_us_p50"].is_u64() && first["switch"]["call_us_max"].is_u64());
    assert_eq!(reply.json()["devices"][1]["target_mhz"], Value::Null);
}

fn samples_tell_what_the_device_measures(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    // As URLSearchParams writes it.
    let one = sandbox.device(1).replace(':', "%3A");
    let reply = agent.client().get(&format!("/v1/samples?device={one}")).json();
    assert!(reply["at_ns"].as_u64().unwrap() > 0);
    let samples = reply["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 1);
    let wanted = json!({"device": sandbox.device(1), "clock_mhz": 1980, "power_mw": 310_000,
        "energy_mj": 99_120, "utilization_pct": 97, "temperature_c": 51,
        "throttle_reasons": ["sw_power_cap"], "target_mhz": null});
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&samples[0][field], value, "{field}");
    }
    // NVML does not say when its counter last ticked, and this one never was seen to.
    assert_eq!(samples[0]["energy_age_ms"].is_u64(), driver == Driver::Sim);
    assert_eq!(
        agent.client().get("/v1/samples").json()["samples"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    agent
        .client()
        .get("/v1/samples?device=sim:9")
        .assert_problem(404, "unknown-device");
    agent
        .client()
        .get("/v1/samples?devise=sim:0")
        .assert_problem(400, "bad-request");
}

fn a_lease_slows_its_devices_and_its_end_puts_them_back(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let mut lease = client.lease(&sandbox.devices(), 3_000);
    assert_eq!(lease.granted["devices"], json!(sandbox.devices()));
    assert_eq!(lease.granted["ttl_ms"], 3_000);
    let answer = client.slow(&lease, 17, &sandbox.devices(), 1290, 60_000);
    assert_eq!(answer["lease_id"], lease.id());
    let wanted = json!({"device": sandbox.device(1), "control": "clock", "requested_mhz": 1290, "demand_mhz": 1290,
        "target_mhz": 1290, "clamped": null, "status": "applied"});
    assert_eq!(answer["results"][1], wanted);
    for index in 0..2 {
        let told = sandbox.command(index);
        assert_eq!(
            (told.lock_min_mhz, told.lock_max_mhz),
            (210, 1290),
            "a ceiling, not a floor"
        );
    }
    assert_eq!(sandbox.journal(), sandbox.devices());
    let path = format!("/v1/leases/{}", lease.id());
    assert_eq!(client.send("DELETE", &path, "").status, 204);
    assert!(sandbox.are_all_default(), "before the answer is sent");
    assert_eq!(lease.ended().as_deref(), Some("released"));
    assert_eq!(lease.next_line(), None);
    client
        .send("DELETE", &path, "")
        .assert_problem(404, "unknown-lease");
    wait_until("the journal is empty", || sandbox.journal().is_empty());
}

fn a_clock_is_taken_up_to_the_next_step_and_clamped_to_the_policy(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut rule = sandbox.own_rule();
    rule["floor_mhz"] = json!(900);
    rule["ceiling_mhz"] = json!(1500);
    rule["lowering_min_interval_ms"] = json!(0);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&sandbox.devices(), 3_000);
    let devices = [sandbox.device(0)];
    let cases = [
        (991, 1005, json!("quantized")),
        (1290, 1290, json!(null)),
        (300, 990, json!("floor")),
        (1900, 1290, json!("ceiling")),
    ];
    for (seq, (requested_mhz, demand_mhz, clamped)) in cases.into_iter().enumerate() {
        let answer = client.slow(&lease, seq as u64, &devices, requested_mhz, 60_000);
        let result = &answer["results"][0];
        assert_eq!(result["demand_mhz"], demand_mhz);
        assert_eq!(result["clamped"], clamped);
        assert_eq!(sandbox.locked_mhz(0), demand_mhz);
    }
    let described = client.get("/v1/devices").json();
    assert_eq!(described["devices"][0]["floor_mhz"], 990);
    assert_eq!(described["devices"][0]["ceiling_mhz"], 1290);
}

fn two_leases_and_the_fastest_demand_wins(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let devices = [sandbox.device(0)];
    let slow = client.lease(&devices, 3_000);
    client.slow(&slow, 1, &devices, 990, 60_000);
    assert_eq!(sandbox.locked_mhz(0), 990);
    // A second holder that has said nothing demands the default, at once.
    let fast = client.lease(&devices, 3_000);
    wait_until("the device is raised", || sandbox.locked_mhz(0) == 0);
    std::thread::sleep(Duration::from_millis(200));
    client.slow(&fast, 1, &devices, 1290, 60_000);
    assert_eq!(sandbox.locked_mhz(0), 1290);
    let answer = client.slow(&slow, 2, &devices, 210, 60_000);
    assert_eq!(answer["results"][0]["demand_mhz"], 210);
    assert_eq!(answer["results"][0]["target_mhz"], 1290);
    drop(fast);
    wait_until("the slower demand is left", || sandbox.locked_mhz(0) == 210);
    drop(slow);
    wait_until("nobody is left", || sandbox.locked_mhz(0) == 0);
}

fn a_hold_lapses(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    let asked_at = Instant::now();
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 300);
    assert_eq!(sandbox.locked_mhz(0), 990);
    wait_until("the hold has passed", || sandbox.are_all_default());
    assert!(asked_at.elapsed() >= Duration::from_millis(300));
    // The lease lives on.
    agent.client().slow(&lease, 2, &sandbox.devices(), 990, 60_000);
    assert_eq!(sandbox.locked_mhz(0), 990);
}

fn a_lease_without_renewal_expires(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let mut lease = agent.client().lease(&sandbox.devices(), 200);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    assert_eq!(lease.ended().as_deref(), Some("expired"));
    wait_until("the devices are back", || sandbox.are_all_default());
    let targets = json!([]);
    agent
        .client()
        .put(&lease, 2, &targets)
        .assert_problem(404, "unknown-lease");
    assert_eq!(agent.wait_for_audit("lease-ended")["reason"], "expired");
}

fn renewing_without_targets_keeps_the_demands(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 400);
    agent.client().slow(&lease, 0, &sandbox.devices(), 990, 60_000);
    for seq in 1..8 {
        std::thread::sleep(Duration::from_millis(100));
        let reply = agent.client().put(&lease, seq, &json!([]));
        assert_eq!(
            reply.json(),
            json!({"lease_id": lease.id(), "ttl_ms": 400, "results": []})
        );
    }
    assert_eq!(sandbox.locked_mhz(0), 990);
}

fn a_stale_seq_and_another_epoch_are_412_and_change_nothing(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&sandbox.devices(), 3_000);
    client.slow(&lease, 5, &sandbox.devices(), 990, 60_000);
    let faster = json!([{"devices": sandbox.devices(), "clock_mhz": null}]);
    for seq in [4, 5] {
        let problem = client.put(&lease, seq, &faster).assert_problem(412, "stale-seq");
        assert_eq!(problem["field"], "seq");
        assert_eq!(problem["given"], seq);
    }
    let epoch = lease.granted["epoch"].as_u64().unwrap();
    let body = json!({"epoch": epoch + 1, "seq": 6, "targets": faster}).to_string();
    let path = format!("/v1/leases/{}/targets", lease.id());
    let problem = client
        .send("PUT", &path, &body)
        .assert_problem(412, "stale-epoch");
    assert_eq!(problem["allowed"], epoch);
    assert_eq!(sandbox.locked_mhz(0), 990);
}

fn lowering_is_deferred_and_raising_is_not(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut rule = sandbox.own_rule();
    rule["lowering_min_interval_ms"] = json!(600);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let devices = [sandbox.device(0)];
    let lease = client.lease(&devices, 60_000);
    let status = |answer: &Value| answer["results"][0]["status"].as_str().unwrap().to_owned();
    let started_at = Instant::now();
    assert_eq!(status(&client.slow(&lease, 1, &devices, 1005, 60_000)), "applied");
    assert_eq!(status(&client.slow(&lease, 2, &devices, 990, 60_000)), "deferred");
    assert_eq!(status(&client.slow(&lease, 3, &devices, 1290, 60_000)), "applied");
    assert_eq!(sandbox.locked_mhz(0), 1290);
    assert_eq!(status(&client.slow(&lease, 4, &devices, 210, 60_000)), "deferred");
    assert_eq!(sandbox.locked_mhz(0), 1290);
    wait_until("its turn has come", || sandbox.locked_mhz(0) == 210);
    assert!(started_at.elapsed() >= Duration::from_millis(600));
}

fn groups_of_a_put_are_answered_device_by_device(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 3_000);
    let targets = json!([
        {"devices": [sandbox.device(1)], "clock_mhz": 990, "hold_ms": 60_000},
        {"devices": [sandbox.device(0)], "clock_mhz": null},
    ]);
    let answer = agent.client().put(&lease, 0, &targets).json();
    assert_eq!(answer["results"][0]["device"], sandbox.device(1));
    assert_eq!(answer["results"][0]["target_mhz"], 990);
    assert_eq!(answer["results"][1]["device"], sandbox.device(0));
    assert_eq!(answer["results"][1]["requested_mhz"], Value::Null);
    assert_eq!(answer["results"][1]["target_mhz"], Value::Null);
    assert_eq!(answer["results"][1]["status"], "applied");
}

fn epochs_rise_over_restarts(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut last_epoch = 0;
    for _ in 0..2 {
        let agent = Agent::start(&sandbox);
        for _ in 0..3 {
            let lease = agent.client().lease(&[sandbox.device(0)], 3_000);
            let epoch = lease.granted["epoch"].as_u64().unwrap();
            assert!(epoch > last_epoch, "{epoch} after {last_epoch}");
            last_epoch = epoch;
        }
    }
}

fn observing_recommends_and_sets_nothing(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start_with(&sandbox, |command| {
        command.arg("--observe");
    });
    let client = agent.client();
    assert_eq!(client.get("/readyz").json()["mode"], "observe");
    let lease = client.lease(&sandbox.devices(), 3_000);
    let answer = client.slow(&lease, 1, &sandbox.devices(), 991, 60_000);
    let wanted = json!({"device": sandbox.device(1), "control": "clock", "requested_mhz": 991, "demand_mhz": 1005,
        "target_mhz": null, "recommended_mhz": 1005, "clamped": "quantized", "status": "observed"});
    assert_eq!(answer["results"][1], wanted);
    let described = client.get("/v1/devices").json();
    assert_eq!(described["devices"][0]["recommended_mhz"], 1005);
    assert_eq!(described["devices"][0]["target_mhz"], Value::Null);
    assert_eq!(agent.wait_for_audit("recommended")["clock_mhz"], 1005);
    drop(lease);
    wait_until("the lease has ended", || {
        client.get("/v1/devices").json()["devices"][0]["recommended_mhz"] == Value::Null
    });
    assert_eq!(sandbox.command(0).written_at_ns, 0, "never written");
    assert!(sandbox.journal().is_empty());
    assert_eq!(
        client.get("/v1/samples").json()["samples"][0]["power_mw"],
        310_000
    );
}

fn a_power_limit_is_a_control_of_its_own(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut rule = sandbox.own_rule();
    rule["controls"] = json!(["clock", "power_limit"]);
    rule["floor_power_limit_mw"] = json!(300_000);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease_of(&sandbox.devices(), &["clock", "power_limit"], 60_000);
    let targets = json!([{"devices": sandbox.devices(), "clock_mhz": 1290, "power_limit_mw": 450_500, "hold_ms": 60_000}]);
    let answer = client.put(&lease, 1, &targets).json();
    let wanted = json!({"device": sandbox.device(0), "control": "power_limit", "requested_mw": 450_500,
        "demand_mw": 451_000, "target_mw": 451_000, "clamped": "quantized", "status": "applied"});
    assert_eq!(answer["results"][1], wanted);
    assert_eq!(
        (sandbox.locked_mhz(0), sandbox.command(0).power_limit_mw),
        (1290, 451_000)
    );
    // A control that is not named keeps its demand.
    let targets = json!([{"devices": sandbox.devices(), "power_limit_mw": 100_000, "hold_ms": 60_000}]);
    std::thread::sleep(Duration::from_millis(200));
    let answer = client.put(&lease, 2, &targets).json();
    assert_eq!(answer["results"][0]["clamped"], "floor");
    assert_eq!(
        (sandbox.locked_mhz(0), sandbox.command(0).power_limit_mw),
        (1290, 300_000)
    );
    let described = client.get("/v1/devices").json();
    let first = &described["devices"][0];
    assert_eq!(first["target_power_limit_mw"], 300_000);
    assert_eq!(first["holders"][0]["power_limit_mw"], 300_000);
    assert_eq!(first["holders"][0]["clock_mhz"], 1290);
    drop(lease);
    wait_until("both are back", || {
        let told = sandbox.command(0);
        told.lock_max_mhz == 0 && [0, 700_000].contains(&told.power_limit_mw)
    });
    // Without being asked for, a lease has the clock alone.
    let lease = client.lease(&sandbox.devices(), 3_000);
    let problem = client.put(&lease, 1, &targets).assert_problem(400, "bad-request");
    assert_eq!(problem["field"], "targets[0].devices[0]");
}

fn a_declared_baseline_is_the_default(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let policy = json!({"format": "paceline-agent-policy/1", "principals": [sandbox.own_rule()],
        "baselines": [{"devices": ["*"], "clock_mhz": 1300}]});
    sandbox.write_policy_file(&policy);
    let mut agent = Agent::start(&sandbox);
    let client = agent.client();
    let described = client.get("/v1/devices").json();
    assert_eq!(described["devices"][0]["default_clock_mhz"], 1290);
    let lease = client.lease(&sandbox.devices(), 60_000);
    let answer = client.slow(&lease, 1, &sandbox.devices(), 1980, 60_000);
    assert_eq!(answer["results"][0]["clamped"], "ceiling");
    assert_eq!(sandbox.locked_mhz(0), 0, "nothing is held, so nothing is written");
    client.slow(&lease, 2, &sandbox.devices(), 990, 60_000);
    assert_eq!(sandbox.locked_mhz(0), 990);
    drop(lease);
    wait_until("the declared clock", || sandbox.locked_mhz(0) == 1290);
    wait_until("the journal is empty", || sandbox.journal().is_empty());
    // A crash in the middle: whoever restores knows it from the journal alone.
    let lease = client.lease(&sandbox.devices(), 60_000);
    client.slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    support::agent::send(agent.worker(), nix::sys::signal::Signal::SIGKILL);
    wait_until("the declared clock again", || sandbox.locked_mhz(0) == 1290);
    support::agent::send(agent.sentinel(), nix::sys::signal::Signal::SIGTERM);
    agent.wait();
}

fn a_foreign_power_limit_is_left_alone(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut rule = sandbox.own_rule();
    rule["controls"] = json!(["power_limit"]);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease_of(&sandbox.devices(), &["power_limit"], 60_000);
    let targets = json!([{"devices": [sandbox.device(0)], "power_limit_mw": 400_000, "hold_ms": 60_000}]);
    assert_eq!(
        client.put(&lease, 1, &targets).json()["results"][0]["status"],
        "applied"
    );
    // Seen once as it was set, before somebody else comes.
    std::thread::sleep(Duration::from_millis(300));
    sandbox.limit_power(0, 500_000);
    let seen = agent.wait_for_audit("foreign-writer");
    assert_eq!(
        (&seen["control"], &seen["evidence"]),
        (&json!("power_limit"), &json!("read"))
    );
    assert_eq!(
        client.put(&lease, 2, &targets).json()["results"][0]["status"],
        "yielded"
    );
    assert_eq!(
        client.get("/v1/devices").json()["devices"][0]["yielded"],
        json!(["power_limit"])
    );
    wait_until("it is no longer journaled", || sandbox.journal().is_empty());
    drop(lease);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        sandbox.command(0).power_limit_mw,
        500_000,
        "what the other one wants"
    );
}

fn metrics_are_in_base_units(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 3_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    drop(lease);
    wait_until("the devices are back", || sandbox.are_all_default());
    let one = sandbox.device(0);
    let lines = [
        format!("paceline_agent_device_clock_hertz{{device=\"{one}\"}} 1980000000"),
        format!("paceline_agent_device_power_watts{{device=\"{one}\"}} 310"),
        format!("paceline_agent_device_energy_joules_total{{device=\"{one}\"}} 99.12"),
        format!("paceline_agent_device_target_hertz{{device=\"{one}\"}} 1980000000"),
        "paceline_agent_leases 0".to_owned(),
        "paceline_agent_lease_ends_total{reason=\"disconnected\"} 1".to_owned(),
        format!("paceline_agent_clock_writes_total{{device=\"{one}\",direction=\"lower\"}} 1"),
        format!("paceline_agent_clock_writes_total{{device=\"{one}\",direction=\"raise\"}} 1"),
        format!("paceline_agent_clock_write_failures_total{{device=\"{one}\"}} 0"),
        "paceline_agent_restores_total{cause=\"disconnected\"} 2".to_owned(),
    ];
    wait_until("the counters have caught up", || {
        agent.client().get("/metrics").body.contains(&lines[9])
    });
    let page = agent.client().get("/metrics").body;
    for line in lines {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
}

fn a_stream_gives_a_line_per_period(driver: Driver) {
    use std::io::Write;
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let mut stream = agent.client().connect();
    let request = support::client::request("GET", "/v1/stream?period_ms=20", "");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = std::io::BufReader::new(stream);
    let started_at = Instant::now();
    let mut last_ns = 0;
    for _ in 0..6 {
        let line = next_json_line(&mut reader).unwrap();
        assert!(line["at_ns"].as_u64().unwrap() > last_ns);
        last_ns = line["at_ns"].as_u64().unwrap();
        assert_eq!(line["samples"].as_array().unwrap().len(), 2);
    }
    assert!(started_at.elapsed() >= Duration::from_millis(90));
    let reply = agent.client().get("/v1/stream?period_ms=9");
    assert_eq!(reply.assert_problem(400, "bad-request")["field"], "period_ms");
}

fn probe_says_what_the_node_can_do(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let output = command(&sandbox, "probe").arg("--json").output().unwrap();
    assert!(output.status.success());
    let probed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probed["devices"][1]["device"], sandbox.device(1));
    assert_eq!(probed["devices"][1]["reads"]["power"], true);
    let text = command(&sandbox, "probe").output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("5 steps from 210 to 1980 MHz"), "{text}");
}
