//! Reading: which devices there are, who holds them, and what they measure.

use std::sync::Arc;
use std::time::Duration;

use emulated_device::monotonic_ns;
use hyper::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::answer::{self, Answer};
use super::app::App;
use super::device_description::{describe, knob, told};
use super::peer::Peer;
use super::problem::{Problem, ProblemKind};
use super::query::Query;
use crate::arbiter::DeviceIndex;
use crate::device::{ControlName, DeviceError, Reading};
use crate::json_fields::quotable;
use crate::limits::{STREAM_PERIOD_MS_DEFAULT, STREAM_PERIOD_MS_MAX, STREAM_PERIOD_MS_MIN};

pub fn devices(app: &App, peer: &Peer) -> Answer {
    let rules = app.access.rules();
    let devices: Vec<Value> = all(app)
        .map(|device| describe(app, &rules, peer, device))
        .collect();
    answer::json(&json!({"devices": devices}))
}

pub async fn samples(app: &App, uri: &Uri) -> Result<Answer, Problem> {
    let query = Query::of(uri, &["device"])?;
    let chosen = chosen_devices(app, &query)?;
    Ok(answer::json(&sample_all(app, &chosen).await))
}

pub fn stream(app: &Arc<App>, peer: &Peer, uri: &Uri) -> Result<Answer, Problem> {
    let query = Query::of(uri, &["device", "period_ms"])?;
    let chosen = chosen_devices(app, &query)?;
    let range = STREAM_PERIOD_MS_MIN..=STREAM_PERIOD_MS_MAX;
    let period_ms = query
        .whole("period_ms", range)?
        .unwrap_or(STREAM_PERIOD_MS_DEFAULT);
    // One line: a reader slower than the period gets fewer lines, never older ones.
    let (lines, receiver) = mpsc::channel(1);
    let app = Arc::clone(app);
    let principal = peer.principal.clone();
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
            // Its token has left the file since it was shown.
            if !app.access.rules().knows(&principal) {
                return;
            }
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
    let target_mhz = told(app, knob(device, ControlName::Clock));
    let target_power_limit_mw = told(app, knob(device, ControlName::PowerLimit));
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

pub fn unknown_device(app: &App, field: &str, id: &str) -> Problem {
    let known: Vec<&str> = all(app)
        .map(|device| app.control.device(device).info().id.0.as_str())
        .collect();
    let given = quotable(Value::from(id));
    let wrong = format!("{field}: got {given}, wanted one of {}", known.join(", "));
    let problem = Problem::new(ProblemKind::UnknownDevice, wrong).at(field);
    problem.given(given).allowed(known)
}

/// Those named, or all when none is.
fn chosen_devices(app: &App, query: &Query) -> Result<Vec<DeviceIndex>, Problem> {
    let named = query.all("device");
    if named.is_empty() {
        return Ok(all(app).collect());
    }
    let mut chosen = Vec::new();
    for id in named {
        let device = app
            .control
            .find(id)
            .ok_or_else(|| unknown_device(app, "device", id))?;
        // Named twice is still one device; this also bounds the answer.
        if !chosen.contains(&device) {
            chosen.push(device);
        }
    }
    Ok(chosen)
}
