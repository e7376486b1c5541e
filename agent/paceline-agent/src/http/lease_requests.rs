//! The bodies of lease requests: from JSON to values, or a refusal that names the field.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::problem::{Problem, ProblemKind};
use crate::arbiter::{DeviceIndex, Target, Wish};
use crate::control::Control;
use crate::json_fields::{FieldError, Fields, quotable};
use crate::limits::{
    CLOCK_MHZ_MAX, HOLD_MS_MAX, HOLDER_CHARS_MAX, LEASE_DEVICES_MAX, SEQ_MAX, TARGETS_MAX, TTL_MS_MAX,
    TTL_MS_MIN,
};
use crate::principal::is_name;

pub struct LeaseBody<'a> {
    pub holder: &'a str,
    pub devices: Vec<&'a str>,
    /// `None`: the default, as far as the policy lets it.
    pub ttl_ms: Option<u64>,
}

pub struct TargetsBody {
    pub epoch: u64,
    pub seq: u64,
    pub targets: Vec<Target>,
}

pub fn read_lease(body: &Value) -> Result<LeaseBody<'_>, Problem> {
    let fields = Fields::of("", body, &["holder", "devices", "ttl_ms"])?;
    let holder = fields.needed_text("holder")?;
    if !is_name(holder, HOLDER_CHARS_MAX) {
        let allowed = format!("1 to {HOLDER_CHARS_MAX} of A-Z a-z 0-9 . _ : -");
        return Err(fields.wrong("holder", allowed).into());
    }
    let devices = read_devices(&fields, &mut HashSet::new())?;
    let ttl_ms = fields.whole("ttl_ms", TTL_MS_MIN..=TTL_MS_MAX)?;
    Ok(LeaseBody {
        holder,
        devices,
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
        let fields = Fields::of(&place, target, &["devices", "clock_mhz", "hold_ms"])?;
        let devices = read_devices(&fields, &mut named)?;
        let devices = devices.iter().enumerate().map(|(position, id)| {
            let found = control.find(id);
            found.ok_or_else(|| not_held(&format!("{place}.devices[{position}]"), id))
        });
        let devices: Vec<DeviceIndex> = devices.collect::<Result<_, _>>()?;
        let wish = read_wish(&fields)?;
        targets.push(Target { devices, wish });
    }
    Ok(TargetsBody { epoch, seq, targets })
}

pub fn not_held(field: &str, device: &str) -> Problem {
    let given = quotable(Value::from(device));
    let allowed = "a device of this lease";
    let wrong = format!("{field}: got {given}, wanted {allowed}");
    let problem = Problem::new(ProblemKind::BadRequest, wrong).at(field);
    problem.given(given).allowed(allowed)
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

/// `clock_mhz` must be said: a forgotten one is not a wish for default clocks.
fn read_wish(fields: &Fields<'_>) -> Result<Wish, FieldError> {
    let hold_ms = fields.whole("hold_ms", 1..=HOLD_MS_MAX)?;
    if fields.raw("clock_mhz") == Some(&Value::Null) {
        return Ok(Wish::Default);
    }
    let range = 1..=CLOCK_MHZ_MAX;
    let Some(requested_mhz) = fields.whole("clock_mhz", range)? else {
        return Err(fields.wrong("clock_mhz", "a whole number of MHz, or null for default clocks"));
    };
    let Some(hold_ms) = hold_ms else {
        let allowed = format!("1 to {HOLD_MS_MAX}, because every slow-down must lapse by itself");
        return Err(fields.wrong("hold_ms", allowed));
    };
    Ok(Wish::Clock {
        requested_mhz: u32::try_from(requested_mhz).expect("CLOCK_MHZ_MAX fits"),
        hold: Duration::from_millis(hold_ms),
    })
}
