use super::*;

fn parse(principal: &str) -> Result<Policy, String> {
    Policy::parse(&format!(
        r#"{{"format":"paceline-agent-policy/1","principals":[{principal}]}}"#
    ))
}

fn user(uid: u32, gid: u32) -> Principal {
    Principal::User { uid, gids: vec![gid] }
}

#[test]
fn what_no_rule_allows_is_denied() {
    let rule = r#"{"uids":[1000],"gids":[50],"devices":["sim:*"],"controls":["clock"]}"#;
    let policy = parse(rule).expect("valid");
    let cases = [
        (1000, 1000, "sim:3", true),
        (1001, 50, "sim:3", true),
        (1001, 1001, "sim:3", false),
        (1000, 1000, "nvml:GPU-1", false),
        (0, 0, "sim:3", false),
    ];
    for (uid, gid, device, wanted) in cases {
        let rule = policy.rule(&user(uid, gid), &DeviceId(device.to_owned()), ControlName::Clock);
        assert_eq!(rule.is_some(), wanted, "uid {uid} gid {gid} {device}");
    }
}

#[test]
fn a_rule_without_the_clock_control_allows_none() {
    let policy = parse(r#"{"uids":[0],"devices":["*"],"controls":[]}"#).expect("valid");
    assert!(
        policy
            .rule(&user(0, 0), &DeviceId("sim:0".to_owned()), ControlName::Clock)
            .is_none()
    );
}

#[test]
fn a_token_is_named_by_its_name_and_is_no_user() {
    let rule = r#"{"tokens":["gateway"],"devices":["sim:0","nvml:*"],"controls":["clock"]}"#;
    let policy = parse(rule).expect("valid");
    let token = |name: &str| Principal::Token {
        name: name.to_owned(),
    };
    let device = DeviceId("sim:0".to_owned());
    assert!(
        policy
            .rule(&token("gateway"), &device, ControlName::Clock)
            .is_some()
    );
    assert!(
        policy
            .rule(&token("other"), &device, ControlName::Clock)
            .is_none()
    );
    assert!(policy.rule(&user(0, 0), &device, ControlName::Clock).is_none());
    assert_eq!(
        policy.device_patterns(&token("gateway"), ControlName::Clock),
        ["sim:0", "nvml:*"]
    );
}

#[test]
fn a_mistake_is_refused_with_its_place() {
    let cases = [
        (
            r#"{"uids":[0],"devices":["*"],"controls":["clock"],"flor_mhz":1}"#,
            "principals[0].flor_mhz",
        ),
        (
            r#"{"uids":["root"],"devices":["*"],"controls":[]}"#,
            "principals[0].uids[0]",
        ),
        (r#"{"devices":["*"],"controls":[]}"#, "principals[0].uids"),
        (
            r#"{"tokens":["a b"],"devices":["*"],"controls":[]}"#,
            "principals[0].tokens[0]",
        ),
        (
            r#"{"uids":[0],"devices":[],"controls":[]}"#,
            "principals[0].devices",
        ),
        (
            r#"{"uids":[0],"devices":["*"],"controls":["power"]}"#,
            "principals[0].controls",
        ),
        (r#"{"uids":[0],"devices":["*"]}"#, "principals[0].controls"),
        (
            r#"{"uids":[0],"devices":["*"],"controls":[],"floor_mhz":9,"ceiling_mhz":8}"#,
            "principals[0].floor_mhz",
        ),
        (
            r#"{"uids":[0],"devices":["*"],"controls":[],"max_ttl_ms":1}"#,
            "principals[0].max_ttl_ms",
        ),
    ];
    for (principal, place) in cases {
        let wrong = parse(principal).expect_err(place);
        assert!(wrong.starts_with(&format!("{place}:")), "{wrong}");
    }
    assert!(Policy::parse("{").expect_err("not JSON").contains("line 1"));
}
