//! What NVML does on bad days: calls that hang, fail or are not supported.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::{Agent, command};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

const SET: &str = "nvmlDeviceSetGpuLockedClocks";
const RESET: &str = "nvmlDeviceResetGpuLockedClocks";

fn statuses(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| result["status"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_call_that_hangs_on_one_device_blocks_no_other() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    sandbox.write_faults(&json!({SET: {"device": 0, "hang": true}}));
    let hung = client.lease(&[sandbox.device(0)], 60_000);
    let asker = agent.client();
    let device = sandbox.device(0);
    let asked = std::thread::spawn(move || {
        let answer = asker.slow(&hung, 1, &[device], 990, 60_000);
        (hung, answer)
    });
    std::thread::sleep(Duration::from_millis(50));
    let started_at = Instant::now();
    let lease = client.lease(&[sandbox.device(1)], 60_000);
    let answer = client.slow(&lease, 1, &[sandbox.device(1)], 990, 60_000);
    assert!(
        started_at.elapsed() < Duration::from_millis(400),
        "{:?}",
        started_at.elapsed()
    );
    assert_eq!(statuses(&answer), ["applied"]);
    let (hung, answer) = asked.join().unwrap();
    assert_eq!(statuses(&answer), ["stuck"]);
    let reply = client.get("/readyz");
    assert_eq!(
        (reply.status, &reply.json()["restores_pending"]),
        (503, &json!([sandbox.device(0)]))
    );
    // Reading has a thread of its own.
    assert_eq!(client.get("/v1/samples").json()["samples"][0]["clock_mhz"], 1980);
    // The call comes back at last; default is what its thread finds in the mailbox.
    sandbox.write_faults(&json!({}));
    wait_until("the device is restored", || client.get("/readyz").status == 200);
    assert_eq!(sandbox.locked_mhz(0), 0);
    assert_eq!(sandbox.locked_mhz(1), 990);
    let answer = client.slow(&hung, 2, &[sandbox.device(0)], 990, 60_000);
    assert_eq!(statuses(&answer), ["applied"]);
}

#[test]
fn a_group_with_one_device_that_fails_goes_to_default() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    sandbox.write_faults(&json!({SET: {"device": 1, "return": 15}}));
    let lease = client.lease(&sandbox.devices(), 60_000);
    let answer = client.slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    assert_eq!(statuses(&answer), ["failed", "failed"]);
    assert_eq!(answer["results"][0]["target_mhz"], Value::Null);
    assert!(sandbox.are_all_default());
    assert_eq!(client.get("/readyz").status, 200);
    let failure = agent.wait_for_audit("clock-write-failed");
    assert!(
        failure["error"].as_str().unwrap().contains("GPU is lost (15)"),
        "{failure}"
    );
    sandbox.write_faults(&json!({}));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        statuses(&client.slow(&lease, 2, &sandbox.devices(), 990, 60_000)),
        ["applied"; 2]
    );
}

/// PROTOCOL.md: "if one control of one device cannot be set, all of them go to default". Found by `schedules.rs`.
#[test]
fn a_group_with_one_control_that_cannot_go_to_default_goes_to_default() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let mut rule = sandbox.own_rule();
    rule["controls"] = json!(["clock", "power_limit"]);
    sandbox.write_policy(&json!([rule]));
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease_of(&[sandbox.device(0)], &["clock", "power_limit"], 60_000);
    client.slow(&lease, 1, &[sandbox.device(0)], 990, 60_000);
    sandbox.write_faults(&json!({RESET: {"device": 0, "return": 4}}));
    let targets = json!([{"devices": [sandbox.device(0)], "clock_mhz": null, "power_limit_mw": 485_000,
        "hold_ms": 60_000}]);
    let answer = client.put(&lease, 2, &targets).json();
    assert_eq!(statuses(&answer), ["failed", "failed"], "{answer}");
}

#[test]
fn a_reset_that_fails_is_retried_and_shown_until_it_works() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    let lease = client.lease(&[sandbox.device(0)], 60_000);
    client.slow(&lease, 1, &[sandbox.device(0)], 990, 60_000);
    sandbox.write_faults(&json!({RESET: [{"device": 0, "return": 999}]}));
    let reply = client.send("DELETE", &format!("/v1/leases/{}", lease.id()), "");
    reply.assert_problem(503, "restore-pending");
    let ready = client.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["status"], "restoring");
    let body = json!({"holder": "a", "devices": [sandbox.device(0)]}).to_string();
    client
        .send("POST", "/v1/leases", &body)
        .assert_problem(503, "restore-pending");
    assert_eq!(sandbox.journal(), [sandbox.device(0)]);
    sandbox.write_faults(&json!({}));
    wait_until("the device is back", || client.get("/readyz").status == 200);
    assert_eq!(sandbox.locked_mhz(0), 0);
    wait_until("the journal is empty", || sandbox.journal().is_empty());
}

#[test]
fn leaving_with_a_device_that_cannot_be_reset_says_so_and_keeps_it_in_the_journal() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let mut agent = Agent::start_with(&sandbox, |command| {
        command.arg("--no-sentinel");
    });
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    sandbox.write_faults(&json!({RESET: {"device": 0, "return": 999}}));
    support::agent::send(agent.sentinel(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(1));
    assert_eq!(sandbox.locked_mhz(1), 0, "the other one is back");
    assert_eq!(sandbox.journal(), [sandbox.device(0)]);
    sandbox.write_faults(&json!({}));
    assert!(command(&sandbox, "restore").status().unwrap().success());
    assert!(sandbox.are_all_default());
}

#[test]
fn a_slow_set_is_measured_and_a_newer_target_replaces_what_waits_behind_it() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let client = agent.client();
    sandbox.write_faults(&json!({SET: {"delay_ms": 60}}));
    let lease = client.lease(&[sandbox.device(0)], 60_000);
    client.slow(&lease, 1, &[sandbox.device(0)], 990, 60_000);
    let switch = client.get("/v1/devices").json()["devices"][0]["switch"].clone();
    assert!(switch["call_us_max"].as_u64().unwrap() >= 60_000, "{switch}");
}

#[test]
fn what_the_driver_does_not_support_is_null_and_power_falls_back_to_the_averaged_one() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let not_supported = json!({"return": 3});
    sandbox.write_faults(&json!({
        "nvmlDeviceGetFieldValues": not_supported,
        "nvmlDeviceGetTemperature": not_supported,
        "nvmlDeviceGetUtilizationRates": not_supported,
        "nvmlDeviceGetCurrentClocksEventReasons": not_supported,
        "nvmlDeviceGetTotalEnergyConsumption": not_supported,
    }));
    let agent = Agent::start(&sandbox);
    let sample = agent.client().get("/v1/samples").json()["samples"][0].clone();
    for field in [
        "temperature_c",
        "utilization_pct",
        "throttle_reasons",
        "energy_mj",
        "energy_age_ms",
    ] {
        assert_eq!(sample[field], Value::Null, "{field}");
    }
    assert_eq!(sample["power_mw"], 310_000);
    assert_eq!(sample["error"], Value::Null);
}

#[test]
fn a_device_that_cannot_be_read_has_an_error_and_others_have_samples() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    sandbox.write_faults(&json!({"nvmlDeviceGetClockInfo": {"device": 0, "hang": true}}));
    let samples = agent.client().get("/v1/samples").json();
    assert!(
        samples["samples"][0]["error"]
            .as_str()
            .unwrap()
            .contains("no reading within")
    );
    assert_eq!(samples["samples"][0]["clock_mhz"], Value::Null);
    assert_eq!(samples["samples"][1]["clock_mhz"], 1980);
    sandbox.write_faults(&json!({}));
}

#[test]
fn the_age_of_the_energy_counter_is_told_once_it_was_seen_to_tick() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let age = || agent.client().get("/v1/samples").json()["samples"][0]["energy_age_ms"].clone();
    assert_eq!(age(), Value::Null);
    let telemetry = emulated_device::Telemetry {
        clock_mhz: 1980,
        energy_mj: 100_000,
        ..Default::default()
    };
    emulated_device::write_telemetry(&sandbox.devices_path(), 0, &telemetry).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    assert!(age().as_u64().unwrap() <= 100);
    std::thread::sleep(Duration::from_millis(60));
    assert!(age().as_u64().unwrap() >= 60);
}

#[test]
fn the_op_log_shows_a_ceiling_from_the_lowest_clock_and_a_reset() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&[sandbox.device(1)], 60_000);
    agent.client().slow(&lease, 1, &[sandbox.device(1)], 990, 60_000);
    drop(lease);
    wait_until("the device is back", || sandbox.are_all_default());
    drop(agent);
    let log = std::fs::read_to_string(sandbox.devices_path().join("nvml-ops.jsonl")).unwrap();
    let ops: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let writes: Vec<&Value> = ops
        .iter()
        .filter(|op| op["function"] == SET || op["function"] == RESET)
        .collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(writes[0]["device"], 1);
    assert_eq!(writes[0]["args"], json!({"min_mhz": 210, "max_mhz": 990}));
    assert_eq!(writes[1]["function"], RESET);
    assert!(
        writes
            .iter()
            .all(|op| op["result"] == 0 && op["at_ns"].is_u64() && op["pid"].is_u64())
    );
}

#[test]
fn a_killed_worker_with_a_device_that_hangs_leaves_the_others_at_default() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let agent = Agent::start(&sandbox);
    let worker = agent.worker();
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    sandbox.write_faults(&json!({RESET: {"device": 0, "hang": true}}));
    support::agent::send(worker, nix::sys::signal::Signal::SIGKILL);
    wait_until("the other device is back", || sandbox.locked_mhz(1) == 0);
    assert_eq!(sandbox.locked_mhz(0), 990);
    sandbox.write_faults(&json!({}));
    wait_until("both are back", || sandbox.are_all_default());
}

#[test]
fn a_gpu_that_is_lost_at_start_leaves_the_others_served() {
    let sandbox = Sandbox::new(Driver::Nvml);
    sandbox.write_faults(&json!({"nvmlDeviceGetUUID": {"device": 0, "return": 15}}));
    let agent = Agent::start(&sandbox);
    let devices = agent.client().get("/v1/devices").json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    assert_eq!(devices["devices"][0]["device"], sandbox.device(1));
    agent.client().lease(&[sandbox.device(1)], 3_000);
}
