//! `/metrics`: Prometheus text in base units. Names live here and nowhere else; labels come from closed lists and the
//! node's own devices.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::answer::{self, Answer};
use super::app::App;
use super::device_routes::{all, readings};
use crate::arbiter::{DeviceIndex, Knob};
use crate::device::ControlName;

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
        let target = target(
            app,
            Knob {
                device,
                control: ControlName::Clock,
            },
        );
        page.value(
            &label(app, device),
            target.map(|clock_mhz| f64::from(clock_mhz) * 1e6),
        );
    }
    let help = "The power limit that the device was last told; its default where none is set.";
    page.family("device_power_limit_target_watts", "gauge", help);
    for &device in devices {
        let target = target(
            app,
            Knob {
                device,
                control: ControlName::PowerLimit,
            },
        );
        page.value(
            &label(app, device),
            target.map(|limit_mw| f64::from(limit_mw) / 1e3),
        );
    }
}

/// `None` where the device lacks the control.
fn target(app: &App, knob: Knob) -> Option<u32> {
    if !app.control.device(knob.device).info().has(knob.control) {
        return None;
    }
    app.control.view(|arbiter, _| {
        arbiter
            .commanded(knob)
            .value()
            .or(arbiter.steps(knob).last().copied())
    })
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
    let of = |control| {
        let threads = devices
            .iter()
            .map(|&device| (device, &app.control.threads()[device.0]));
        threads.map(move |(device, thread)| (device, thread.stats(control)))
    };
    let stats: Vec<_> = of(ControlName::Clock).collect();
    let limits: Vec<_> = of(ControlName::PowerLimit).collect();
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
        "power_limit_writes_total",
        "counter",
        "Calls that set a power limit.",
    );
    for (device, stats) in &limits {
        page.value(&label(app, *device), Some(stats.count() as f64));
    }
    settles(app, devices, page);
    page.family(
        "restores_total",
        "counter",
        "Resets to default clocks that worked, by why.",
    );
    let mut restores: BTreeMap<&str, u64> = BTreeMap::new();
    for (cause, count) in stats.iter().chain(&limits).flat_map(|(_, stats)| &stats.restores) {
        *restores.entry(cause.as_str()).or_default() += count;
    }
    for (cause, count) in restores {
        page.value(&format!("{{cause=\"{cause}\"}}"), Some(count as f64));
    }
}

fn settles(app: &App, devices: &[DeviceIndex], page: &mut Page) {
    let known: Vec<_> = devices
        .iter()
        .map(|&device| (label(app, device), app.control.sampler(device).settles()))
        .collect();
    page.family(
        "clock_settles_total",
        "counter",
        "Changes of clock whose arrival was seen.",
    );
    for (device, settles) in &known {
        let count: u64 = settles.pairs().map(|(_, pair)| pair.count).sum();
        page.value(device, Some(count as f64));
    }
    page.family(
        "clock_settles_late_total",
        "counter",
        "Changes of clock that had not arrived within a second.",
    );
    for (device, settles) in &known {
        let late: u64 = settles.pairs().map(|(_, pair)| pair.late).sum();
        page.value(device, Some(late as f64));
    }
    page.family(
        "clock_settle_seconds_max",
        "gauge",
        "The longest of the latest times from write to arrival.",
    );
    for (device, settles) in &known {
        let max_us = settles.pairs().filter_map(|(_, pair)| pair.us_max()).max();
        page.value(device, max_us.map(|us| us as f64 / 1e6));
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
