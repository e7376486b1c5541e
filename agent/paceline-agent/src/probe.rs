//! `paceline-agent probe`: what this node can do, before anybody trusts it with a lease. Reads only.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use crate::cli::ProbeOptions;
use crate::device::{ControlName, Device, DeviceError, DeviceInfo, Reading};
use crate::driver;
use crate::log;
use crate::start_error::StartError;

/// Readings that are timed even where nothing is watched.
const READINGS_MIN: usize = 5;

/// A fraction of the shortest tick known (about 20 ms), and far from a load.
const WATCH_PERIOD: Duration = Duration::from_millis(4);

/// What one device showed.
struct Probed {
    reading: Result<Reading, DeviceError>,
    /// Of the readings, ascending.
    call_us: Vec<u64>,
    /// Between two changes of the energy counter, ascending. Empty where it did not change twice.
    energy_ticks_ms: Vec<u64>,
}

pub fn run(options: &ProbeOptions) -> Result<ExitCode, StartError> {
    log::start(LevelFilter::WARN).map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    let devices = driver::open_all(&options.driver.choices())
        .map_err(|wrong| StartError::unavailable(wrong.to_string()))?;
    let watch = Duration::from_millis(options.watch_ms);
    let probing: Vec<_> = devices
        .iter()
        .map(|device| {
            let watched = Arc::clone(device);
            (device, thread::spawn(move || probe(watched.as_ref(), watch)))
        })
        .collect();
    let probed = probing.into_iter().map(|(device, probing)| {
        let probed = probing.join().unwrap_or_else(|_| Probed {
            reading: Err(DeviceError::new("its reader crashed")),
            call_us: Vec::new(),
            energy_ticks_ms: Vec::new(),
        });
        (device.info(), probed)
    });
    if options.json {
        let devices: Vec<Value> = probed.map(|(info, probed)| as_json(info, &probed)).collect();
        println!("{}", json!({"devices": devices}));
    } else {
        for (info, probed) in probed {
            print!("{}", as_text(info, &probed));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn probe(device: &dyn Device, watch: Duration) -> Probed {
    let started_at = Instant::now();
    let mut call_us = Vec::new();
    let mut energy_ticks_ms = Vec::new();
    let mut last_mj = None;
    let mut ticked_at: Option<Instant> = None;
    let reading = loop {
        let called_at = Instant::now();
        let reading = device.read();
        let at = Instant::now();
        call_us.push(u64::try_from((at - called_at).as_micros()).unwrap_or(u64::MAX));
        let energy_mj = reading.as_ref().ok().and_then(|reading| reading.energy_mj);
        if energy_mj.is_some() && last_mj.is_some() && energy_mj != last_mj {
            if let Some(ticked_at) = ticked_at {
                energy_ticks_ms.push(u64::try_from((at - ticked_at).as_millis()).unwrap_or(u64::MAX));
            }
            ticked_at = Some(at);
        }
        last_mj = energy_mj;
        if reading.is_err() || (call_us.len() >= READINGS_MIN && started_at.elapsed() >= watch) {
            break reading;
        }
        thread::sleep(WATCH_PERIOD);
    };
    call_us.sort_unstable();
    energy_ticks_ms.sort_unstable();
    Probed {
        reading,
        call_us,
        energy_ticks_ms,
    }
}

fn middle(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len() / 2).copied()
}

fn as_json(info: &DeviceInfo, probed: &Probed) -> Value {
    let controls = ControlName::ALL.into_iter().filter(|&control| info.has(control));
    let mut told = json!({
        "device": info.id.0,
        "driver": info.driver,
        "name": info.name,
        "uuid": info.uuid,
        "controls": controls.map(ControlName::as_str).collect::<Vec<_>>(),
        "clocks_mhz": info.clocks_mhz,
        "default_clock_mhz": info.clocks_mhz.last(),
        "power_limit_mw": info.power_limit_mw,
        "lowest_power_limit_mw": info.power_limits_mw.first(),
        "read_us_p50": middle(&probed.call_us),
        "read_us_max": probed.call_us.last(),
        "energy_tick_ms_p50": middle(&probed.energy_ticks_ms),
        "energy_tick_ms_max": probed.energy_ticks_ms.last(),
    });
    match &probed.reading {
        Ok(reading) => {
            for (name, is_known) in readable(reading) {
                told["reads"][name] = Value::Bool(is_known);
            }
        }
        Err(wrong) => told["error"] = Value::String(wrong.to_string()),
    }
    told
}

fn as_text(info: &DeviceInfo, probed: &Probed) -> String {
    let name = info.name.as_deref().unwrap_or("(no name)");
    let clocks = match (info.clocks_mhz.first(), info.clocks_mhz.last()) {
        (Some(lowest), Some(highest)) => {
            let steps = info.clocks_mhz.len();
            format!("{steps} steps from {lowest} to {highest} MHz")
        }
        _ => "cannot be set".to_owned(),
    };
    let limits = match (info.power_limits_mw.first(), info.power_limits_mw.last()) {
        (Some(&lowest), Some(&highest)) => format!("{} to {} W", watts(lowest), watts(highest)),
        _ => "cannot be set".to_owned(),
    };
    let reads = match &probed.reading {
        Ok(reading) => {
            let known = readable(reading).into_iter().filter(|(_, is_known)| *is_known);
            let names: Vec<&str> = known.map(|(name, _)| name).collect();
            if names.is_empty() {
                "nothing yet".to_owned()
            } else {
                names.join(", ")
            }
        }
        Err(wrong) => format!("cannot be read: {wrong}"),
    };
    let reading = match (middle(&probed.call_us), probed.call_us.last()) {
        (Some(p50), Some(max)) => format!(
            "takes {p50} µs (p50), {max} µs (longest of {})",
            probed.call_us.len()
        ),
        _ => "was not tried".to_owned(),
    };
    let energy = match (middle(&probed.energy_ticks_ms), probed.energy_ticks_ms.last()) {
        (Some(p50), Some(max)) => format!("ticks every {p50} ms (p50), {max} ms (longest)"),
        _ => "was not seen to tick".to_owned(),
    };
    format!(
        "{}  {name}\n  clocks       {clocks}\n  power limit  {limits}\n  reads        {reads}\n  \
         a reading    {reading}\n  energy       {energy}\n",
        info.id,
    )
}

fn watts(mw: u32) -> u32 {
    mw / 1_000
}

fn readable(reading: &Reading) -> [(&'static str, bool); 7] {
    [
        ("clock", reading.clock_mhz.is_some()),
        ("power", reading.power_mw.is_some()),
        ("energy", reading.energy_mj.is_some()),
        ("utilization", reading.utilization_pct.is_some()),
        ("temperature", reading.temperature_c.is_some()),
        ("throttle_reasons", reading.throttle_reasons.is_some()),
        ("power_limit", reading.power_limit_mw.is_some()),
    ]
}
