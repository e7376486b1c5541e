//! Reads `--exec-config`: which devices there are, and by which commands they are set, reset and read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::template::{Placeholder, Template};
use crate::device::{ControlName, DeviceId, DeviceInfo};
use crate::json_fields::{FieldError, Fields};
use crate::limits::{
    EXEC_CONFIG_BYTES_MAX, EXEC_DEVICES_MAX, EXEC_ENV_MAX, EXEC_STEPS_MAX, EXEC_TIMEOUT_MS_MAX,
    EXEC_TIMEOUT_MS_MIN, value_max,
};
use crate::trusted_file::{self, Secrecy};

const FORMAT: &str = "paceline-agent-exec/1";

/// Not the agent's own: whoever starts it should not be able to choose which `sudo` it runs.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone, Debug)]
pub struct ExecDeviceConfig {
    pub info: DeviceInfo,
    pub controls: BTreeMap<ControlName, ControlCommands>,
    pub read: Option<Template>,
    pub timeout: Duration,
    /// All that a command finds in its environment.
    pub env: BTreeMap<String, String>,
}

/// No control without a way back.
#[derive(Clone, Debug)]
pub struct ControlCommands {
    pub limit: Template,
    pub reset: Template,
}

pub fn load(path: &Path) -> Result<Vec<ExecDeviceConfig>, String> {
    parse(&trusted_file::read(path, Secrecy::Public, EXEC_CONFIG_BYTES_MAX)?)
}

pub fn parse(text: &str) -> Result<Vec<ExecDeviceConfig>, String> {
    let document: Value = serde_json::from_str(text).map_err(|wrong| wrong.to_string())?;
    read_config(&document).map_err(|wrong| wrong.to_string())
}

fn read_config(document: &Value) -> Result<Vec<ExecDeviceConfig>, FieldError> {
    let fields = Fields::of("", document, &["format", "env", "devices"])?;
    if fields.needed_text("format")? != FORMAT {
        return Err(fields.wrong("format", format!("{FORMAT:?}")));
    }
    let env = read_env(&fields)?;
    let list = fields.needed_list("devices", EXEC_DEVICES_MAX)?;
    let mut devices: Vec<ExecDeviceConfig> = Vec::new();
    for (position, value) in list.iter().enumerate() {
        let place = format!("devices[{position}]");
        let device = read_device(&place, value, &env)?;
        if devices.iter().any(|one| one.info.id == device.info.id) {
            return Err(FieldError {
                field: format!("{place}.id"),
                given: Some(value["id"].clone()),
                allowed: "an id that no other device of this file has".to_owned(),
            });
        }
        devices.push(device);
    }
    if devices.is_empty() {
        return Err(fields.wrong("devices", "at least one device"));
    }
    Ok(devices)
}

fn read_env(fields: &Fields<'_>) -> Result<BTreeMap<String, String>, FieldError> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    let Some(given) = fields.raw("env") else {
        return Ok(env);
    };
    let allowed = format!("an object of at most {EXEC_ENV_MAX} names and strings");
    let Some(map) = given.as_object().filter(|map| map.len() <= EXEC_ENV_MAX) else {
        return Err(fields.wrong("env", allowed));
    };
    for (name, value) in map {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        let text = value.as_str().filter(|text| is_name && !text.contains('\0'));
        let text = text.ok_or_else(|| FieldError {
            field: format!("env.{name}"),
            given: Some(value.clone()),
            allowed: "a string without NUL, under a name without `=`".to_owned(),
        })?;
        env.insert(name.clone(), text.to_owned());
    }
    Ok(env)
}

fn read_device(
    place: &str,
    value: &Value,
    env: &BTreeMap<String, String>,
) -> Result<ExecDeviceConfig, FieldError> {
    const KEYS: [&str; 10] = [
        "id",
        "name",
        "clocks_mhz",
        "limit_clock",
        "reset_clock",
        "power_limits_mw",
        "limit_power",
        "reset_power",
        "read",
        "timeout_ms",
    ];
    let fields = Fields::of(place, value, &KEYS)?;
    let id = fields.needed_text("id")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if id.is_empty() || id.len() > 64 || !id.bytes().all(is_plain) {
        return Err(fields.wrong(
            "id",
            "1 to 64 of A-Z a-z 0-9 . _ - (the device is then exec:<id>)",
        ));
    }
    let path = env["PATH"].as_ref();
    let mut controls = BTreeMap::new();
    let clocks_mhz = read_control(&fields, &CLOCK, path, &mut controls)?;
    let power_limits_mw = read_control(&fields, &POWER_LIMIT, path, &mut controls)?;
    let read = Template::read(&fields, "read", &[], path)?;
    if controls.is_empty() && read.is_none() {
        return Err(fields.wrong(
            "limit_clock",
            "limit_clock, limit_power or read; a device with none is a mistake",
        ));
    }
    let timeout_ms = fields.whole("timeout_ms", EXEC_TIMEOUT_MS_MIN..=EXEC_TIMEOUT_MS_MAX)?;
    Ok(ExecDeviceConfig {
        info: DeviceInfo {
            id: DeviceId(format!("exec:{id}")),
            driver: "exec",
            name: fields.text("name")?.map(str::to_owned),
            uuid: None,
            power_limit_mw: power_limits_mw.last().copied().map(u64::from),
            clocks_mhz,
            power_limits_mw,
        },
        controls,
        read,
        timeout: Duration::from_millis(timeout_ms.unwrap_or(EXEC_TIMEOUT_MS_MAX)),
        env: env.clone(),
    })
}

/// The keys of one control, and what may stand in braces in its commands.
struct ControlKeys {
    control: ControlName,
    steps: &'static str,
    limit: &'static str,
    reset: &'static str,
    in_limit: &'static [Placeholder],
    /// One of them must be in the command: else it would set the same whatever is asked.
    in_limit_needed: &'static [Placeholder],
    in_reset: &'static [Placeholder],
}

const CLOCK: ControlKeys = ControlKeys {
    control: ControlName::Clock,
    steps: "clocks_mhz",
    limit: "limit_clock",
    reset: "reset_clock",
    in_limit: &[
        Placeholder::ClockMhz,
        Placeholder::LowestMhz,
        Placeholder::HighestMhz,
    ],
    in_limit_needed: &[Placeholder::ClockMhz],
    in_reset: &[Placeholder::LowestMhz, Placeholder::HighestMhz],
};

const POWER_LIMIT: ControlKeys = ControlKeys {
    control: ControlName::PowerLimit,
    steps: "power_limits_mw",
    limit: "limit_power",
    reset: "reset_power",
    in_limit: &[Placeholder::PowerLimitMw, Placeholder::PowerLimitW],
    in_limit_needed: &[Placeholder::PowerLimitMw, Placeholder::PowerLimitW],
    in_reset: &[Placeholder::HighestPowerLimitMw, Placeholder::HighestPowerLimitW],
};

/// The control's steps; none where it has none of its keys.
fn read_control(
    fields: &Fields<'_>,
    keys: &ControlKeys,
    path: &std::ffi::OsStr,
    controls: &mut BTreeMap<ControlName, ControlCommands>,
) -> Result<Vec<u32>, FieldError> {
    let given = [keys.steps, keys.limit, keys.reset].map(|key| fields.raw(key).is_some());
    if given == [false; 3] {
        return Ok(Vec::new());
    }
    let needs =
        |key: &str, why: &str| fields.wrong(key, format!("beside the other two of {} ({why})", keys.control));
    let steps = read_steps(fields, keys)?.ok_or_else(|| needs(keys.steps, "what it can be held to"))?;
    let limit = Template::read(fields, keys.limit, keys.in_limit, path)?
        .ok_or_else(|| needs(keys.limit, "how it is held down"))?;
    let reset = Template::read(fields, keys.reset, keys.in_reset, path)?
        .ok_or_else(|| needs(keys.reset, "the way back; without one it is not slowed"))?;
    if !keys.in_limit_needed.iter().any(|&one| limit.names(one)) {
        return Err(fields.wrong(
            keys.limit,
            format!("a command with {{{}}} in it", keys.in_limit_needed[0].as_str()),
        ));
    }
    let takes_watts = |template: &Template| template.placeholders().any(Placeholder::is_in_watts);
    if (takes_watts(&limit) || takes_watts(&reset)) && steps.iter().any(|step| step % 1_000 != 0) {
        return Err(fields.wrong(
            keys.steps,
            "whole watts (multiples of 1000), because a command takes watts",
        ));
    }
    controls.insert(keys.control, ControlCommands { limit, reset });
    Ok(steps)
}

fn read_steps(fields: &Fields<'_>, keys: &ControlKeys) -> Result<Option<Vec<u32>>, FieldError> {
    let Some(list) = fields.list(keys.steps, EXEC_STEPS_MAX)? else {
        return Ok(None);
    };
    let most = value_max(keys.control);
    let steps: Option<Vec<u32>> = list
        .iter()
        .map(|value| {
            let step = value.as_u64().filter(|step| (1..=most).contains(step))?;
            u32::try_from(step).ok()
        })
        .collect();
    let steps = steps.filter(|steps| !steps.is_empty() && steps.is_sorted_by(|before, after| before < after));
    let allowed =
        format!("whole numbers from 1 to {most}, ascending, the last one what it runs at by itself");
    Ok(Some(steps.ok_or_else(|| fields.wrong(keys.steps, allowed))?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "format": "paceline-agent-exec/1",
            "devices": [{
                "id": "gpu0",
                "clocks_mhz": [210, 990, 1980],
                "limit_clock": ["/bin/echo", "{lowest_mhz},{clock_mhz}"],
                "reset_clock": ["echo", "reset"],
                "power_limits_mw": [200_000, 350_000],
                "limit_power": ["/bin/echo", "{power_limit_w}"],
                "reset_power": ["/bin/echo", "{highest_power_limit_w}"],
            }],
        })
    }

    #[test]
    fn a_program_is_found_once_and_pinned() {
        let devices = parse(&good().to_string()).expect("a good file");
        let reset = &devices[0].controls[&ControlName::Clock].reset;
        assert!(
            reset.program.is_absolute() && reset.program.ends_with("echo"),
            "{reset:?}"
        );
        assert_eq!(devices[0].info.id.0, "exec:gpu0");
        assert_eq!(devices[0].env.keys().collect::<Vec<_>>(), ["PATH"]);
    }

    #[test]
    fn a_bad_file_is_refused_with_place_what_was_given_and_what_is_allowed() {
        let cases: [(&str, Value, &str); 17] = [
            (
                "/format",
                json!("x"),
                "format: got \"x\", wanted \"paceline-agent-exec/1\"",
            ),
            ("/devices", json!([]), "devices: got [], wanted at least one"),
            ("/env", json!({"A": 5}), "env.A: got 5, wanted a string"),
            ("/env", json!({"A=B": "x"}), "env.A=B: got \"x\", wanted"),
            (
                "/devices/0/id",
                json!("a b"),
                "devices[0].id: got \"a b\", wanted 1 to 64",
            ),
            (
                "/devices/0/shell",
                json!("x"),
                "devices[0].shell: got \"x\", wanted no such key",
            ),
            (
                "/devices/0/clocks_mhz",
                json!([990, 210]),
                "devices[0].clocks_mhz: got [990,210], wanted whole",
            ),
            (
                "/devices/0/clocks_mhz",
                json!([]),
                "devices[0].clocks_mhz: got [], wanted whole",
            ),
            (
                "/devices/0/clocks_mhz",
                Value::Null,
                "devices[0].clocks_mhz: missing",
            ),
            (
                "/devices/0/reset_clock",
                Value::Null,
                "devices[0].reset_clock: missing, wanted beside the other two",
            ),
            (
                "/devices/0/limit_power",
                Value::Null,
                "devices[0].limit_power: missing",
            ),
            (
                "/devices/0/limit_clock",
                json!([]),
                "devices[0].limit_clock: got [], wanted a command",
            ),
            (
                "/devices/0/limit_clock",
                json!("echo {clock_mhz}"),
                "devices[0].limit_clock: got \"echo",
            ),
            (
                "/devices/0/limit_clock",
                json!(["/bin/echo", "x"]),
                "wanted a command with {clock_mhz} in it",
            ),
            (
                "/devices/0/limit_clock",
                json!(["/bin/echo", "{uuid}"]),
                "devices[0].limit_clock[1]: got \"{uuid}\", wanted braces only around what is known here ({clock_mhz}",
            ),
            (
                "/devices/0/limit_clock",
                json!(["./echo", "{clock_mhz}"]),
                "devices[0].limit_clock[0]: got \"./echo\"",
            ),
            (
                "/devices/0/power_limits_mw",
                json!([200_500]),
                "wanted whole watts",
            ),
        ];
        for (pointer, given, wanted) in cases {
            let mut document = good();
            let (place, key) = pointer.rsplit_once('/').expect("a pointer");
            let object = document.pointer_mut(place).and_then(Value::as_object_mut);
            let object = object.expect("a place in it");
            match given {
                Value::Null => object.remove(key),
                given => object.insert(key.to_owned(), given),
            };
            let wrong = parse(&document.to_string()).expect_err(pointer);
            assert!(wrong.contains(wanted), "{pointer}: {wrong}");
        }
    }

    #[test]
    fn a_device_cannot_be_in_it_twice_nor_wait_for_ever() {
        let mut document = good();
        document["devices"][0]["timeout_ms"] = json!(60_000);
        let wrong = parse(&document.to_string()).expect_err("too long");
        assert_eq!(
            wrong,
            "devices[0].timeout_ms: got 60000, wanted a whole number from 10 to 2000"
        );
        let mut document = good();
        let twin = document["devices"][0].clone();
        document["devices"].as_array_mut().expect("a list").push(twin);
        let wrong = parse(&document.to_string()).expect_err("twice");
        assert!(wrong.starts_with("devices[1].id: got \"gpu0\""), "{wrong}");
    }
}
