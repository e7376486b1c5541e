use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FORMAT, Policy};
use crate::device::{ControlName, DeviceId};
use crate::json_fields::any_json;
use crate::principal::Principal;

const KEYS: [&str; 13] = [
    "name",
    "uids",
    "gids",
    "tokens",
    "devices",
    "controls",
    "floor_mhz",
    "ceiling_mhz",
    "floor_power_limit_mw",
    "ceiling_power_limit_mw",
    "max_ttl_ms",
    "max_hold_ms",
    "lowering_min_interval_ms",
];

fn sound() -> Value {
    json!({"name": "gateway", "uids": [7], "gids": [8], "tokens": ["gateway-1"], "devices": ["sim:*"],
        "controls": ["clock"], "floor_mhz": 990, "ceiling_mhz": 1980, "max_ttl_ms": 60_000, "max_hold_ms": 60_000,
        "lowering_min_interval_ms": 50})
}

fn parse(rule: &Value) -> Result<Policy, String> {
    Policy::parse(&json!({"format": FORMAT, "principals": [rule]}).to_string())
}

proptest! {
    #[test]
    fn a_field_that_is_anything_is_taken_or_refused_by_its_name(
        key in proptest::sample::select(KEYS.to_vec()), value in any_json(),
    ) {
        let mut rule = sound();
        rule[key] = value;
        if let Err(wrong) = parse(&rule) {
            let names_it = wrong.contains(&format!("principals[0].{key}"));
            // A floor is refused where a ceiling below it was given.
            let names_its_pair = key == "ceiling_mhz" && wrong.contains("floor_mhz");
            prop_assert!(names_it || names_its_pair, "{}", wrong);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place(key in "[a-z_]{1,12}", value in any_json()) {
        prop_assume!(!KEYS.contains(&key.as_str()));
        let mut rule = sound();
        rule[&key] = value;
        let wrong = parse(&rule).expect_err("unknown");
        prop_assert!(wrong.starts_with(&format!("principals[0].{key}: ")), "{}", wrong);
    }

    #[test]
    fn a_rule_names_its_users_and_nobody_else(
        uids in proptest::collection::vec(0u32..20, 0..4), gids in proptest::collection::vec(0u32..20, 1..4),
        uid in 0u32..20, peers in proptest::collection::vec(0u32..20, 0..4),
    ) {
        let mut rule = sound();
        rule["uids"] = json!(uids);
        rule["gids"] = json!(gids);
        let policy = parse(&rule).map_err(TestCaseError::fail)?;
        let peer = Principal::User { uid, gids: peers.clone() };
        let is_named = uids.contains(&uid) || peers.iter().any(|gid| gids.contains(gid));
        let device = DeviceId("sim:0".to_owned());
        prop_assert_eq!(policy.rule(&peer, &device, ControlName::Clock).is_some(), is_named);
        prop_assert!(policy.rule(&peer, &device, ControlName::PowerLimit).is_none());
        prop_assert!(policy.rule(&peer, &DeviceId("nvml:0".to_owned()), ControlName::Clock).is_none());
    }

    #[test]
    fn a_floor_above_its_ceiling_is_refused(floor in 1u32..5_000, ceiling in 1u32..5_000) {
        let mut rule = sound();
        rule["floor_mhz"] = json!(floor);
        rule["ceiling_mhz"] = json!(ceiling);
        prop_assert_eq!(parse(&rule).is_ok(), floor <= ceiling);
    }

    #[test]
    fn any_document_is_read_or_refused(document in any_json(), text in ".{0,80}") {
        let _ = Policy::parse(&document.to_string());
        let _ = Policy::parse(&text);
        let _ = Policy::parse(&json!({"format": FORMAT, "principals": [document]}).to_string());
        let _ = Policy::parse(&json!({"format": FORMAT, "principals": [], "baselines": [document]}).to_string());
    }
}
