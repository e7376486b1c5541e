//! Reading: which devices there are, who holds them, and what they measure.

use std::sync::Arc;
use std::time::Duration;

use emulated_device::monotonic_ns;
use hyper::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::answer::{self, Answer};
use super::app::{App, Mode};
use super::peer::Peer;
use super::problem::{Problem, ProblemKind};
use super::query::Query;
use crate::arbiter::{Bounds, DeviceIndex, HolderView, Knob};
use crate::device::{ControlName, DeviceError, DeviceInfo, Reading};
use crate::limits::{STREAM_PERIOD_MS_DEFAULT, STREAM_PERIOD_MS_MAX, STREAM_PERIOD_MS_MIN};

pub fn devices(app: &App, peer: &Peer) -> Answer {
    let devices: Vec<Value> = all(app).map(|device| describe(app, peer, device)).collect();
    answer::json(&json!({"devices": devices}))
}

pub async fn samples(app: &App, uri: &Uri) -> Result<Answer, Problem> {
    let query = Query::of(uri, &["device"])?;
    let chosen = chosen_devices(app, &query)?;
    Ok(answer::json(&sample_all(app, &chosen).await))
}

pub fn stream(app: &Arc<App>, uri: &Uri) -> Result<Answer, Problem> {
    let query = Query::of(uri, &["device", "period_ms"])?;
    let chosen = chosen_devices(app, &query)?;
    let range = STREAM_PERIOD_MS_MIN..=STREAM_PERIOD_MS_MAX;
    let period_ms = query
        .whole("period_ms", range)?
        .unwrap_or(STREAM_PERIOD_MS_DEFAULT);
    // One line: a reader slower than the period gets fewer lines, never older ones.
    let (lines, receiver) = mpsc::channel(1);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut closing = app.closing.subscribe();
        let mut period = tokio::time::interval(Duration::from_millis(period_ms));
        period.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                _ = closing.wait_for(|closing| *closing) => return,
                () = lines.closed() => return,
            }
            let Ok(permit) = lines.reserve().await else {
                return;
            };
            permit.send(answer::line(&sample_all(&app, &chosen).await));
        }
    });
    Ok(answer::lines(StatusCode::OK, receiver, ()))
}

/// Read together: one slow device costs the batch its own time, not the sum.
pub async fn readings(
    app: &App,
    devices: &[DeviceIndex],
) -> Vec<(DeviceIndex, Result<Reading, DeviceError>)> {
    let asked: Vec<_> = devices
        .iter()
        .map(|&device| {
            let sampler = Arc::clone(app.control.sampler(device));
            (device, tokio::spawn(async move { sampler.sample().await }))
        })
        .collect();
    let mut readings = Vec::with_capacity(asked.len());
    for (device, asked) in asked {
        let reading = asked.await;
        let reading = reading.unwrap_or_else(|wrong| Err(DeviceError(wrong.to_string())));
        readings.push((device, reading));
    }
    readings
}

pub fn all(app: &App) -> impl Iterator<Item = DeviceIndex> + use<> {
    (0..app.control.threads().len()).map(DeviceIndex)
}

async fn sample_all(app: &App, devices: &[DeviceIndex]) -> Value {
    let readings = readings(app, devices).await;
    let samples: Vec<Value> = readings
        .into_iter()
        .map(|(device, reading)| sample(app, device, reading))
        .collect();
    json!({"at_ns": monotonic_ns(), "samples": samples})
}

fn sample(app: &App, device: DeviceIndex, reading: Result<Reading, DeviceError>) -> Value {
    let id = &app.control.device(device).info().id.0;
    let target_mhz = told(
        app,
        Knob {
            device,
            control: ControlName::Clock,
        },
    );
    let target_power_limit_mw = told(
        app,
        Knob {
            device,
            control: ControlName::PowerLimit,
        },
    );
    let (reading, wrong) = match reading {
        Ok(reading) => (reading, None),
        Err(wrong) => (Reading::default(), Some(wrong.to_string())),
    };
    let mut sample = json!({
        "device": id,
        "clock_mhz": reading.clock_mhz,
        "power_mw": reading.power_mw,
        "energy_mj": reading.energy_mj,
        "energy_age_ms": reading.energy_age_ms,
        "utilization_pct": reading.utilization_pct,
        "temperature_c": reading.temperature_c,
        "throttle_reasons": reading.throttle_reasons,
        "clock_limit_mhz": reading.clock_limit_mhz,
        "power_limit_mw": reading.power_limit_mw,
        "target_mhz": target_mhz,
        "target_power_limit_mw": target_power_limit_mw,
    });
    if let Some(wrong) = wrong {
        sample["error"] = Value::String(wrong);
    }
    sample
}

/// What the device was last told of this control; `None` at its default, where it lacks the control, and where the agent
/// only observes.
fn told(app: &App, knob: Knob) -> Option<u32> {
    let has = app.control.device(knob.device).info().has(knob.control);
    if !has || app.mode == Mode::Observe {
        return None;
    }
    app.control.view(|arbiter, _| arbiter.commanded(knob)).value()
}

fn describe(app: &App, peer: &Peer, device: DeviceIndex) -> Value {
    let info = app.control.device(device).info();
    let controls = ControlName::ALL.into_iter().filter(|&control| info.has(control));
    let clock = range_for(
        app,
        peer,
        Knob {
            device,
            control: ControlName::Clock,
        },
    );
    let power_limit = range_for(
        app,
        peer,
        Knob {
            device,
            control: ControlName::PowerLimit,
        },
    );
    let mut described = json!({
        "device": info.id.0,
        "driver": info.driver,
        "name": info.name,
        "uuid": info.uuid,
        "controls": controls.clone().filter(|&control| may_set(app, peer, info, control))
            .map(ControlName::as_str).collect::<Vec<_>>(),
        "clocks_mhz": info.clocks_mhz,
        "default_clock_mhz": clock.map(|range| range.default),
        "floor_mhz": clock.map(|range| range.bounds.floor),
        "ceiling_mhz": clock.map(|range| range.bounds.ceiling),
        "target_mhz": told(app, Knob { device, control: ControlName::Clock }),
        "power_limit_mw": info.power_limit_mw,
        "lowest_power_limit_mw": info.power_limits_mw.first(),
        "floor_power_limit_mw": power_limit.map(|range| range.bounds.floor),
        "ceiling_power_limit_mw": power_limit.map(|range| range.bounds.ceiling),
        "target_power_limit_mw": told(app, Knob { device, control: ControlName::PowerLimit }),
        "yielded": yielded(app, device),
        "holders": holders(app, device),
        "switch": switch(app, device),
    });
    if app.mode == Mode::Observe {
        for (control, field) in [
            (ControlName::Clock, "recommended_mhz"),
            (ControlName::PowerLimit, "recommended_power_limit_mw"),
        ] {
            if info.has(control) {
                let commanded = app
                    .control
                    .view(|arbiter, _| arbiter.commanded(Knob { device, control }));
                described[field] = json!(commanded.value());
            }
        }
    }
    described
}

fn may_set(app: &App, peer: &Peer, info: &DeviceInfo, control: ControlName) -> bool {
    app.policy.rule(peer.uid, &peer.gids, &info.id, control).is_some()
}

#[derive(Clone, Copy)]
struct KnobRange {
    default: u32,
    bounds: Bounds,
}

/// What this peer's demands are clamped to; the device's own range where no rule is for it.
fn range_for(app: &App, peer: &Peer, knob: Knob) -> Option<KnobRange> {
    let info = app.control.device(knob.device).info();
    if !info.has(knob.control) {
        return None;
    }
    let rule = app.policy.rule(peer.uid, &peer.gids, &info.id, knob.control);
    let range = rule.map(|rule| rule.range(knob.control)).unwrap_or_default();
    app.control.view(|arbiter, _| {
        let steps = arbiter.steps(knob);
        let default = *steps.last()?;
        let bounds = Bounds::on(steps, range.floor, range.ceiling);
        Some(KnobRange { default, bounds })
    })
}

fn yielded(app: &App, device: DeviceIndex) -> Vec<&'static str> {
    let info = app.control.device(device).info();
    let controls = ControlName::ALL.into_iter().filter(|&control| info.has(control));
    let yielded = controls.filter(|&control| {
        app.control
            .view(|arbiter, _| arbiter.is_yielded(Knob { device, control }))
    });
    yielded.map(ControlName::as_str).collect()
}

/// One line per lease that holds the device, whichever of its controls.
fn holders(app: &App, device: DeviceIndex) -> Vec<Value> {
    let of = |control| {
        app.control
            .view(|arbiter, now| arbiter.holders(Knob { device, control }, now))
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

/// Those named, or all when none is.
fn chosen_devices(app: &App, query: &Query) -> Result<Vec<DeviceIndex>, Problem> {
    let named = query.all("device");
    if named.is_empty() {
        return Ok(all(app).collect());
    }
    let mut chosen = Vec::new();
    for id in named {
        let device = app.control.find(id).ok_or_else(|| {
            let wrong = format!("query device: got {id:?}; GET /v1/devices lists what there is");
            Problem::new(ProblemKind::UnknownDevice, wrong)
                .at("device")
                .given(id)
        })?;
        // Named twice is still one device; this also bounds the answer.
        if !chosen.contains(&device) {
            chosen.push(device);
        }
    }
    Ok(chosen)
}
