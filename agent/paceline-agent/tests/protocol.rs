//! PROTOCOL.md states what is said; here its examples are held against what the agent says. The gateway's client is held
//! against the same examples by its own tests.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::agent::Agent;
use support::sandbox::{Driver, Sandbox};

const PROTOCOL: &str = include_str!("../../PROTOCOL.md");

/// The JSON blocks under the heading, in their order.
fn examples(heading: &str) -> Vec<Value> {
    let section = PROTOCOL
        .split("\n## ")
        .find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading:?}"));
    let blocks = section.split("```json\n").skip(1);
    let texts = blocks.map(|block| block.split("```").next().unwrap());
    texts
        .map(|text| serde_json::from_str(text).unwrap_or_else(|wrong| panic!("{heading}: {wrong} in {text}")))
        .collect()
}

/// Every key with its path, lists by their first entry: two values are of one shape when these are equal.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(list) => {
            if let Some(first) = list.first() {
                keys(first, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[track_caller]
fn assert_same_shape(example: &Value, said: &Value) {
    let (mut wanted, mut got) = (BTreeSet::new(), BTreeSet::new());
    keys(example, "", &mut wanted);
    keys(said, "", &mut got);
    // Nothing has settled on a device that only a test moves.
    wanted.retain(|path| !path.contains("settle[]"));
    assert_eq!(wanted, got);
}

#[test]
fn the_agent_says_what_the_examples_say() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let client = agent.client();

    let lease_examples = examples("POST /v1/leases");
    let lease = client.lease_with(&lease_examples[0]);
    assert_same_shape(&lease_examples[1], &lease.granted);

    let mut put = examples("PUT /v1/leases/{lease_id}/targets");
    let answer_example = put.remove(1);
    put[0]["epoch"] = lease.granted["epoch"].clone();
    put[0]["targets"][0]["hold_ms"] = json!(60_000);
    let path = format!("/v1/leases/{}/targets", lease.id());
    let answer = client.send("PUT", &path, &put[0].to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_same_shape(&answer_example, &answer.json());

    assert_same_shape(&examples("GET /v1/devices")[0], &client.get("/v1/devices").json());
    assert_same_shape(&examples("GET /v1/samples")[0], &client.get("/v1/samples").json());
}

#[test]
fn every_metric_is_written_down_and_every_one_written_down_is_there() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let page = agent.client().get("/metrics").body;
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<&str> = families.map(|line| line.split(' ').next().unwrap()).collect();
    let section = PROTOCOL.split("\n## GET /metrics").nth(1).unwrap();
    let section = section.split("\n# ").next().unwrap();
    let quoted = section
        .split('`')
        .filter(|word| word.starts_with("paceline_agent_"));
    let written: BTreeSet<&str> = quoted.map(|word| word.split('{').next().unwrap()).collect();
    assert_eq!(served, written);
}
