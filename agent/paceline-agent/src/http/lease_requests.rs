//! The bodies of lease requests: from JSON to values, or a refusal that names the field.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::problem::{Problem, ProblemKind};
use crate::arbiter::{DeviceIndex, Knob, Target, Wish};
use crate::control::Control;
use crate::device::ControlName;
use crate::json_fields::{FieldError, Fields, quotable};
use crate::limits::{
    HOLD_MS_MAX, HOLDER_CHARS_MAX, LEASE_DEVICES_MAX, SEQ_MAX, TARGETS_MAX, TTL_MS_MAX, TTL_MS_MIN, value_max,
};
use crate::principal::is_name;

pub struct LeaseBody<'a> {
    pub holder: &'a str,
    pub devices: Vec<&'a str>,
    /// In the order of `ControlName::ALL`; the clock where nothing is said.
    pub controls: Vec<ControlName>,
    /// `None`: the default, as far as the policy lets it.
    pub ttl_ms: Option<u64>,
}

pub struct TargetsBody {
    pub epoch: u64,
    pub seq: u64,
    pub targets: Vec<Target>,
}

pub fn read_lease(body: &Value) -> Result<LeaseBody<'_>, Problem> {
    let fields = Fields::of("", body, &["holder", "devices", "controls", "ttl_ms"])?;
    let holder = fields.needed_text("holder")?;
    if !is_name(holder, HOLDER_CHARS_MAX) {
        let allowed = format!("1 to {HOLDER_CHARS_MAX} of A-Z a-z 0-9 . _ : -");
        return Err(fields.wrong("holder", allowed).into());
    }
    let devices = read_devices(&fields, &mut HashSet::new())?;
    let controls = read_controls(&fields)?;
    let ttl_ms = fields.whole("ttl_ms", TTL_MS_MIN..=TTL_MS_MAX)?;
    Ok(LeaseBody {
        holder,
        devices,
        controls,
        ttl_ms,
    })
}

pub fn read_targets(body: &Value, control: &Control) -> Result<TargetsBody, Problem> {
    let fields = Fields::of("", body, &["epoch", "seq", "targets"])?;
    let epoch = fields.needed_whole("epoch", 0..=SEQ_MAX)?;
    let seq = fields.needed_whole("seq", 0..=SEQ_MAX)?;
    let mut named = HashSet::new();
    let mut targets = Vec::new();
    for (position, target) in fields.needed_list("targets", TARGETS_MAX)?.iter().enumerate() {
        let place = format!("targets[{position}]");
        let fields = Fields::of(
            &place,
            target,
            &["devices", "clock_mhz", "power_limit_mw", "hold_ms"],
        )?;
        let devices = read_devices(&fields, &mut named)?;
        let devices = devices.iter().enumerate().map(|(position, id)| {
            let found = control.find(id);
            found.ok_or_else(|| {
                not_held(
                    &format!("{place}.devices[{position}]"),
                    id,
                    "a device of this lease",
                )
            })
        });
        let devices: Vec<DeviceIndex> = devices.collect::<Result<_, _>>()?;
        let asked = read_wishes(&fields)?;
        let wishes = devices.into_iter().flat_map(|device| {
            let of_device = asked.iter();
            of_device.map(move |&(control, wish)| (Knob { device, control }, wish))
        });
        let wishes = wishes.collect();
        targets.push(Target { wishes });
    }
    Ok(TargetsBody { epoch, seq, targets })
}

pub fn not_held(field: &str, device: &str, wanted: &str) -> Problem {
    let given = quotable(Value::from(device));
    let wrong = format!("{field}: got {given}, wanted {wanted}");
    let problem = Problem::new(ProblemKind::BadRequest, wrong).at(field);
    problem.given(given).allowed(wanted)
}

/// At least one, none twice, neither here nor among those named before.
fn read_devices<'a>(fields: &Fields<'a>, named: &mut HashSet<&'a str>) -> Result<Vec<&'a str>, FieldError> {
    let devices = fields.texts("devices", LEASE_DEVICES_MAX)?.unwrap_or_default();
    if devices.is_empty() {
        let allowed = format!("a list of 1 to {LEASE_DEVICES_MAX} device ids");
        return Err(fields.wrong("devices", allowed));
    }
    for (position, device) in devices.iter().enumerate() {
        if !named.insert(device) {
            return Err(FieldError {
                field: format!("{}[{position}]", fields.at("devices")),
                given: Some(Value::from(*device)),
                allowed: "every device once".to_owned(),
            });
        }
    }
    Ok(devices)
}

fn read_controls(fields: &Fields<'_>) -> Result<Vec<ControlName>, FieldError> {
    let Some(texts) = fields.texts("controls", ControlName::ALL.len())? else {
        return Ok(vec![ControlName::Clock]);
    };
    let named: Option<Vec<ControlName>> = texts.into_iter().map(ControlName::parse).collect();
    let named = named.filter(|named| !named.is_empty());
    let named =
        named.ok_or_else(|| fields.wrong("controls", "a list of \"clock\", \"power_limit\", or nothing"))?;
    Ok(ControlName::ALL
        .into_iter()
        .filter(|control| named.contains(control))
        .collect())
}

/// What is wished must be said: a forgotten clock is not a wish for default clocks. A control that is not named keeps
/// its demand.
fn read_wishes(fields: &Fields<'_>) -> Result<Vec<(ControlName, Wish)>, FieldError> {
    let hold_ms = fields.whole("hold_ms", 1..=HOLD_MS_MAX)?;
    let mut wishes = Vec::new();
    for (control, key) in [
        (ControlName::Clock, "clock_mhz"),
        (ControlName::PowerLimit, "power_limit_mw"),
    ] {
        if fields.raw(key) == Some(&Value::Null) {
            wishes.push((control, Wish::Default));
            continue;
        }
        let Some(requested) = fields.whole(key, 1..=value_max(control))? else {
            continue;
        };
        let Some(hold_ms) = hold_ms else {
            let allowed = format!("1 to {HOLD_MS_MAX}, because every slow-down must lapse by itself");
            return Err(fields.wrong("hold_ms", allowed));
        };
        let requested = u32::try_from(requested).expect("value_max fits");
        let hold = Duration::from_millis(hold_ms);
        wishes.push((control, Wish::Limit { requested, hold }));
    }
    if wishes.is_empty() {
        let allowed = "clock_mhz or power_limit_mw: a whole number, or null for the default";
        return Err(fields.wrong("clock_mhz", allowed));
    }
    Ok(wishes)
}
