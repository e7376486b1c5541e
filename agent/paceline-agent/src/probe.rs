//! `paceline-agent probe`: what this node can do, before anybody trusts it with a lease. Reads only.

use std::process::ExitCode;

use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use crate::cli::ProbeOptions;
use crate::device::{Device, DeviceError, Reading};
use crate::driver;
use crate::log;
use crate::start_error::StartError;

pub fn run(options: &ProbeOptions) -> Result<ExitCode, StartError> {
    log::start(LevelFilter::WARN).map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    let devices =
        driver::open(&options.driver.choice()).map_err(|wrong| StartError::unavailable(wrong.to_string()))?;
    let readings = devices.iter().map(|device| (device.as_ref(), device.read()));
    if options.json {
        let devices: Vec<Value> = readings
            .map(|(device, reading)| as_json(device, &reading))
            .collect();
        println!("{}", json!({"devices": devices}));
    } else {
        for (device, reading) in readings {
            print!("{}", as_text(device, &reading));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(device: &dyn Device, reading: &Result<Reading, DeviceError>) -> Value {
    let info = device.info();
    let mut probed = json!({
        "device": info.id.0,
        "driver": info.driver,
        "name": info.name,
        "uuid": info.uuid,
        "clocks_mhz": info.clocks_mhz,
        "default_clock_mhz": info.default_clock_mhz(),
        "power_limit_mw": info.power_limit_mw,
    });
    match reading {
        Ok(reading) => {
            for (name, is_known) in readable(reading) {
                probed["reads"][name] = Value::Bool(is_known);
            }
        }
        Err(wrong) => probed["error"] = Value::String(wrong.to_string()),
    }
    probed
}

fn as_text(device: &dyn Device, reading: &Result<Reading, DeviceError>) -> String {
    let info = device.info();
    let name = info.name.as_deref().unwrap_or("(no name)");
    let reads = match reading {
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
    format!(
        "{}  {name}\n  clocks  {} steps from {} to {} MHz\n  reads   {reads}\n",
        info.id,
        info.clocks_mhz.len(),
        info.lowest_clock_mhz(),
        info.default_clock_mhz(),
    )
}

fn readable(reading: &Reading) -> [(&'static str, bool); 6] {
    [
        ("clock", reading.clock_mhz.is_some()),
        ("power", reading.power_mw.is_some()),
        ("energy", reading.energy_mj.is_some()),
        ("utilization", reading.utilization_pct.is_some()),
        ("temperature", reading.temperature_c.is_some()),
        ("throttle_reasons", reading.throttle_reasons.is_some()),
    ]
}
