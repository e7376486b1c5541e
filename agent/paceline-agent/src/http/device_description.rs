//! One device as `/v1/devices` tells it to one client: what it is, what of it this client may set, who holds it.

use serde_json::{Value, json};

use super::app::{App, Mode};
use super::peer::Peer;
use crate::access::Rules;
use crate::arbiter::{Bounds, DeviceIndex, HolderView, Knob};
use crate::device::ControlName;

pub fn describe(app: &App, rules: &Rules, peer: &Peer, device: DeviceIndex) -> Value {
    let info = app.control.device(device).info();
    let may_set = |control: &ControlName| rules.rule(&peer.principal, &info.id, *control).is_some();
    let settable = info.controls().filter(may_set).map(ControlName::as_str);
    let clock_knob = knob(device, ControlName::Clock);
    let power_knob = knob(device, ControlName::PowerLimit);
    let clock = range_for(app, rules, peer, clock_knob);
    let power_limit = range_for(app, rules, peer, power_knob);
    let mut described = json!({
        "device": info.id.0,
        "driver": info.driver,
        "name": info.name,
        "uuid": info.uuid,
        "controls": settable.collect::<Vec<_>>(),
        "clocks_mhz": info.clocks_mhz,
        "default_clock_mhz": clock.map(|range| range.default),
        "floor_mhz": clock.map(|range| range.bounds.floor),
        "ceiling_mhz": clock.map(|range| range.bounds.ceiling),
        "target_mhz": told(app, clock_knob),
        "power_limit_mw": info.power_limit_mw,
        "lowest_power_limit_mw": info.power_limits_mw.first(),
        "floor_power_limit_mw": power_limit.map(|range| range.bounds.floor),
        "ceiling_power_limit_mw": power_limit.map(|range| range.bounds.ceiling),
        "target_power_limit_mw": told(app, power_knob),
        "yielded": yielded(app, device),
        "holders": holders(app, device),
        "switch": switch(app, device),
    });
    if app.mode == Mode::Observe {
        described["recommended_mhz"] = json!(commanded(app, clock_knob));
        described["recommended_power_limit_mw"] = json!(commanded(app, power_knob));
    }
    described
}

/// What the device was last told of this control; `None` at its default, where it lacks the control, and where the agent
/// only observes.
pub fn told(app: &App, knob: Knob) -> Option<u32> {
    commanded(app, knob).filter(|_| app.mode == Mode::Control)
}

pub fn knob(device: DeviceIndex, control: ControlName) -> Knob {
    Knob { device, control }
}

fn commanded(app: &App, knob: Knob) -> Option<u32> {
    if !app.control.device(knob.device).info().has(knob.control) {
        return None;
    }
    app.control.view(|arbiter, _| arbiter.commanded(knob)).value()
}

#[derive(Clone, Copy)]
struct KnobRange {
    default: u32,
    bounds: Bounds,
}

/// What this peer's demands are clamped to; the device's own range where no rule is for it.
fn range_for(app: &App, rules: &Rules, peer: &Peer, knob: Knob) -> Option<KnobRange> {
    let info = app.control.device(knob.device).info();
    if !info.has(knob.control) {
        return None;
    }
    let rule = rules.rule(&peer.principal, &info.id, knob.control);
    let range = rule.map(|rule| rule.range(knob.control)).unwrap_or_default();
    app.control.view(|arbiter, _| {
        let steps = arbiter.steps(knob);
        let default = *steps.last()?;
        let bounds = Bounds::on(steps, range.floor, range.ceiling);
        Some(KnobRange { default, bounds })
    })
}

fn yielded(app: &App, device: DeviceIndex) -> Vec<&'static str> {
    let is_yielded = |control: &ControlName| {
        let knob = knob(device, *control);
        app.control.view(|arbiter, _| arbiter.is_yielded(knob))
    };
    let controls = app.control.device(device).info().controls();
    controls.filter(is_yielded).map(ControlName::as_str).collect()
}

/// One line per lease that holds the device, whichever of its controls.
fn holders(app: &App, device: DeviceIndex) -> Vec<Value> {
    let of = |control| {
        app.control
            .view(|arbiter, now| arbiter.holders(knob(device, control), now))
    };
    let (clock, power_limit) = (of(ControlName::Clock), of(ControlName::PowerLimit));
    let clock_alone = clock.iter().map(|holder| (holder, Some(holder), None));
    let mut all: Vec<(&HolderView, Option<&HolderView>, Option<&HolderView>)> = clock_alone.collect();
    for holder in &power_limit {
        match all
            .iter_mut()
            .find(|(known, _, _)| known.lease_id == holder.lease_id)
        {
            Some((_, _, of_power)) => *of_power = Some(holder),
            None => all.push((holder, None, Some(holder))),
        }
    }
    let lines = all.into_iter().map(|(lease, clock, power_limit)| {
        json!({
            "lease_id": lease.lease_id.to_string(),
            "holder": lease.holder,
            "clock_mhz": clock.and_then(|holder| holder.value),
            "hold_left_ms": clock.and_then(hold_left_ms),
            "power_limit_mw": power_limit.and_then(|holder| holder.value),
            "power_limit_hold_left_ms": power_limit.and_then(hold_left_ms),
        })
    });
    lines.collect()
}

fn hold_left_ms(holder: &HolderView) -> Option<u64> {
    let left = holder.hold_left?;
    Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// What changing the clock costs: calls, and how long until the clock is there.
fn switch(app: &App, device: DeviceIndex) -> Value {
    let stats = app.control.threads()[device.0].stats(ControlName::Clock);
    let settles = app.control.sampler(device).settles();
    let settle = settles.pairs().map(|(span, pair)| {
        json!({"from_mhz": span.from, "to_mhz": span.to, "count": pair.count, "late": pair.late,
            "us_p50": pair.us_p50(), "us_max": pair.us_max()})
    });
    json!({
        "count": stats.count(),
        "call_us_p50": stats.call_us_p50(),
        "call_us_max": stats.call_us_max(),
        "settle": settle.collect::<Vec<_>>(),
    })
}
