//! `/metrics`: Prometheus text in base units. Names live here and nowhere else; labels come from closed lists and the
//! node's own devices.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::answer::{self, Answer};
use super::app::App;
use super::device_routes::{all, readings};
use crate::arbiter::DeviceIndex;

pub async fn answer(app: &App) -> Answer {
    let mut page = Page::default();
    let devices: Vec<DeviceIndex> = all(app).collect();
    let readings = readings(app, &devices).await;
    let known: Vec<_> = readings
        .iter()
        .filter_map(|(device, reading)| Some((label(app, *device), reading.as_ref().ok()?)))
        .collect();
    // A device that cannot tell has no line: absent is not 0.
    page.family("device_clock_hertz", "gauge", "Actual clock of the device.");
    for (device, reading) in &known {
        page.value(device, reading.clock_mhz.map(|mhz| f64::from(mhz) * 1e6));
    }
    page.family("device_power_watts", "gauge", "Power drawn now.");
    for (device, reading) in &known {
        page.value(device, reading.power_mw.map(|mw| mw as f64 / 1e3));
    }
    page.family(
        "device_energy_joules_total",
        "counter",
        "Energy used since the driver counts.",
    );
    for (device, reading) in &known {
        page.value(device, reading.energy_mj.map(|mj| mj as f64 / 1e3));
    }
    targets(app, &devices, &mut page);
    leases(app, &mut page);
    writes(app, &devices, &mut page);
    access(app, &mut page);
    answer::text("text/plain; version=0.0.4; charset=utf-8", page.text)
}

fn targets(app: &App, devices: &[DeviceIndex], page: &mut Page) {
    let help = "What the device was last told; its default clock where nothing is locked.";
    page.family("device_target_hertz", "gauge", help);
    for &device in devices {
        let commanded = app.control.view(|arbiter, _| arbiter.commanded(device));
        let default_mhz = app.control.device(device).info().default_clock_mhz();
        let clock_mhz = commanded.clock_mhz().unwrap_or(default_mhz);
        page.value(&label(app, device), Some(f64::from(clock_mhz) * 1e6));
    }
}

fn leases(app: &App, page: &mut Page) {
    page.family("leases", "gauge", "Leases held now.");
    let count = app.control.view(|arbiter, _| arbiter.lease_count());
    page.value("", Some(count as f64));
    page.family("lease_ends_total", "counter", "Leases that have ended, by why.");
    for (reason, count) in app.control.lease_ends() {
        page.value(&format!("{{reason=\"{}\"}}", reason.as_str()), Some(count as f64));
    }
}

fn access(app: &App, page: &mut Page) {
    let loaded = app.access.loaded();
    let help = "When the policy in force was read, as Unix time.";
    page.family("policy_loaded_timestamp_seconds", "gauge", help);
    page.value("", Some(loaded.at_unix_ms as f64 / 1e3));
    let help = "1 where the latest reload was refused and an older policy is in force.";
    page.family("policy_is_stale", "gauge", help);
    page.value("", Some(f64::from(u8::from(loaded.error.is_some()))));
    page.family(
        "policy_reloads_total",
        "counter",
        "Reloads, by what came of them.",
    );
    page.value("{result=\"loaded\"}", Some(loaded.reloads as f64));
    page.value("{result=\"refused\"}", Some(loaded.reloads_refused as f64));
    let help = "TCP requests that showed no good token or came from a browser.";
    page.family("token_refusals_total", "counter", help);
    page.value("", Some(app.token_refusals.total() as f64));
}

fn writes(app: &App, devices: &[DeviceIndex], page: &mut Page) {
    let stats: Vec<_> = devices
        .iter()
        .map(|&device| (device, app.control.threads()[device.0].stats()))
        .collect();
    page.family(
        "clock_writes_total",
        "counter",
        "Calls that set or reset a clock.",
    );
    for (device, stats) in &stats {
        let id = escaped(&app.control.device(*device).info().id.0);
        for (direction, count) in [("raise", stats.raises), ("lower", stats.lowers)] {
            let labels = format!("{{device=\"{id}\",direction=\"{direction}\"}}");
            page.value(&labels, Some(count as f64));
        }
    }
    page.family(
        "clock_write_failures_total",
        "counter",
        "Those of them that failed.",
    );
    for (device, stats) in &stats {
        page.value(&label(app, *device), Some(stats.failures as f64));
    }
    page.family(
        "restores_total",
        "counter",
        "Resets to default clocks that worked, by why.",
    );
    let mut restores: BTreeMap<&str, u64> = BTreeMap::new();
    for (cause, count) in stats.iter().flat_map(|(_, stats)| &stats.restores) {
        *restores.entry(cause.as_str()).or_default() += count;
    }
    for (cause, count) in restores {
        page.value(&format!("{{cause=\"{cause}\"}}"), Some(count as f64));
    }
}

fn label(app: &App, device: DeviceIndex) -> String {
    let id = escaped(&app.control.device(device).info().id.0);
    format!("{{device=\"{id}\"}}")
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[derive(Default)]
struct Page {
    text: String,
    name: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = format!("paceline_agent_{name}");
        writeln!(
            self.text,
            "# HELP {} {help}\n# TYPE {} {kind}",
            self.name, self.name
        )
        .expect("writing to a string");
    }

    fn value(&mut self, labels: &str, value: Option<f64>) {
        if let Some(value) = value {
            writeln!(self.text, "{}{labels} {value}", self.name).expect("writing to a string");
        }
    }
}
