//! What every driver owes the agent, the same cases over all of them: the file drivers over trees that look as the kernel's
//! do, exec over a script, and sim. The file drivers also have their writes asserted, in their order. (NVML is loaded once per process, so it
//! is held to the same by `tests/conformance.rs`, through the real binary, beside sim.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sysfs::Sysfs;
use super::{DriverChoice, amdgpu, open_all, rapl, xe};
use crate::device::{Baseline, ControlName, Device, Reading};

/// A node with one device of the driver, in a directory of its own.
struct Node {
    directory: PathBuf,
    choice: DriverChoice,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Node {
    fn new(choice: impl FnOnce(&Path) -> DriverChoice) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("paceline-agent-drivers-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a temporary directory");
        let choice = choice(&directory);
        Self { directory, choice }
    }

    /// As another process would find it.
    fn open(&self) -> Arc<dyn Device> {
        let devices = open_all(std::slice::from_ref(&self.choice)).expect("the driver opens");
        Arc::clone(&devices[0])
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let full = root.join(path);
    fs::create_dir_all(full.parent().expect("a file has one")).expect("writable");
    fs::write(full, format!("{text}\n")).expect("writable");
}

fn sim() -> Node {
    Node::new(|directory| {
        let description = emulated_device::Description {
            uuid: "GPU-0".to_owned(),
            name: "Emulated".to_owned(),
            clocks_mhz: vec![210, 990, 1005, 1980],
            default_power_limit_mw: 700_000,
        };
        emulated_device::create(directory, 0, &description).expect("an emulated device");
        DriverChoice::Sim {
            directory: directory.to_owned(),
        }
    })
}

const CARD: &str = "class/drm/card0/device";

fn card(root: &Path, driver: &str) {
    put(
        root,
        &format!("{CARD}/uevent"),
        &format!("DRIVER={driver}\nPCI_SLOT_NAME=0000:03:00.0"),
    );
    put(root, "class/drm/card0-DP-1/status", "disconnected");
}

fn amdgpu_common(root: &Path) {
    card(root, "amdgpu");
    put(root, &format!("{CARD}/unique_id"), "5b1f");
    put(root, &format!("{CARD}/power_dpm_force_performance_level"), "auto");
    put(root, &format!("{CARD}/gpu_busy_percent"), "97");
    for (file, text) in [
        ("power1_cap", "300000000"),
        ("power1_cap_min", "150000000"),
        ("power1_cap_default", "310000000"),
        ("power1_average", "280000000"),
        ("freq1_input", "1700000000"),
        ("temp1_input", "61000"),
    ] {
        put(root, &format!("{CARD}/hwmon/hwmon3/{file}"), text);
    }
}

fn amdgpu_mask() -> Node {
    Node::new(|root| {
        amdgpu_common(root);
        put(root, &format!("{CARD}/pp_dpm_sclk"), LEVELS);
        DriverChoice::Amdgpu {
            sysfs: root.to_owned(),
        }
    })
}

const LEVELS: &str = "0: 500Mhz\n1: 800Mhz\n2: 1700Mhz *";
const OVERDRIVE: &str = "OD_SCLK:\n0: 500Mhz\n1: 2400Mhz\nOD_RANGE:\nSCLK:     500Mhz       2800Mhz";

fn amdgpu_overdrive() -> Node {
    Node::new(|root| {
        amdgpu_common(root);
        put(root, &format!("{CARD}/pp_od_clk_voltage"), OVERDRIVE);
        DriverChoice::Amdgpu {
            sysfs: root.to_owned(),
        }
    })
}

fn xe_card() -> Node {
    Node::new(|root| {
        card(root, "xe");
        for (gt, highest) in [("gt0", "2050"), ("gt1", "1300")] {
            let directory = format!("{CARD}/tile0/{gt}/freq0");
            for (file, text) in [
                ("rpn_freq", "300"),
                ("rp0_freq", highest),
                ("max_freq", highest),
                ("act_freq", "1500"),
            ] {
                put(root, &format!("{directory}/{file}"), text);
            }
            put(root, &format!("{directory}/throttle/status"), "1");
            put(root, &format!("{directory}/throttle/reason_pl1"), "1");
            put(root, &format!("{directory}/throttle/reason_thermal"), "0");
        }
        for (file, text) in [
            ("power1_max", "190000000"),
            ("power1_rated_max", "225000000"),
            ("energy1_input", "5000000"),
        ] {
            put(root, &format!("{CARD}/hwmon/hwmon1/{file}"), text);
        }
        DriverChoice::Xe {
            sysfs: root.to_owned(),
        }
    })
}

fn rapl_package() -> Node {
    Node::new(|root| {
        let zone = "class/powercap/intel-rapl:0";
        for (file, text) in [
            ("name", "package-0"),
            ("energy_uj", "900000"),
            ("max_energy_range_uj", "1000000"),
            ("constraint_0_name", "long_term"),
            ("constraint_0_power_limit_uw", "250000000"),
            ("constraint_0_max_power_uw", "270000000"),
        ] {
            put(root, &format!("{zone}/{file}"), text);
        }
        put(root, "class/powercap/intel-rapl:0:0/name", "core");
        // Two CPUs of this package, one of another.
        for (cpu, package) in [(0, 0), (1, 0), (2, 1)] {
            put(
                root,
                &format!("devices/system/cpu/cpu{cpu}/topology/physical_package_id"),
                &package.to_string(),
            );
            let policy = format!("devices/system/cpu/cpufreq/policy{cpu}");
            for (file, text) in [
                ("related_cpus", cpu.to_string().as_str()),
                ("cpuinfo_min_freq", "800000"),
                ("cpuinfo_max_freq", "3800000"),
                ("scaling_max_freq", "3600000"),
                ("scaling_cur_freq", "2100000"),
            ] {
                put(root, &format!("{policy}/{file}"), text);
            }
        }
        DriverChoice::Rapl {
            sysfs: root.to_owned(),
        }
    })
}

/// A site's script that keeps what it is told in files.
fn exec() -> Node {
    Node::new(|root| {
        let script = root.join("site.sh");
        let text = r#"case "$2" in
read) printf '{"power_limit_mw":%s}' "$(cat "$1/power")" ;;
*) echo "$3" > "$1/$2" ;;
esac"#;
        fs::write(&script, text).expect("writable");
        put(root, "power", "600000");
        put(root, "clock", "reset");
        let run = |words: &[&str]| {
            let words = words.iter().map(|word| serde_json::Value::from(*word));
            let argv = [
                "sh".into(),
                script.to_string_lossy().into(),
                root.to_string_lossy().into(),
            ];
            argv.into_iter().chain(words).collect::<Vec<serde_json::Value>>()
        };
        let config = serde_json::json!({"format": "paceline-agent-exec/1", "devices": [{
            "id": "0",
            "clocks_mhz": [210, 990, 1980], "limit_clock": run(&["clock", "{clock_mhz}"]), "reset_clock": run(&["clock", "reset"]),
            "power_limits_mw": [300_000, 450_000, 600_000], "limit_power": run(&["power", "{power_limit_mw}"]),
            "reset_power": run(&["power", "{highest_power_limit_mw}"]), "read": run(&["read"]),
        }]});
        let path = root.join("exec.json");
        fs::write(&path, config.to_string()).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        DriverChoice::Exec { config: path }
    })
}

fn all() -> Vec<(&'static str, Node)> {
    vec![
        ("exec", exec()),
        ("sim", sim()),
        ("amdgpu by mask", amdgpu_mask()),
        ("amdgpu by overdrive", amdgpu_overdrive()),
        ("xe", xe_card()),
        ("rapl", rapl_package()),
    ]
}

/// Every file of the node and what is in it.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).expect("it is there");
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("readable");
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// What is said to be in force, where it is said; a locked clock and a mask have no getter.
fn in_force(reading: &Reading, control: ControlName) -> Option<u32> {
    match control {
        ControlName::Clock => reading.clock_limit_mhz,
        ControlName::PowerLimit => reading.power_limit_mw.and_then(|mw| u32::try_from(mw).ok()),
    }
}

#[test]
fn what_can_be_set_has_ascending_steps_and_ends_at_what_is_in_force() {
    for (name, node) in all() {
        let device = node.open();
        assert_eq!(
            device.info().controls().collect::<Vec<_>>(),
            ControlName::ALL,
            "{name}"
        );
        let reading = device.read().expect(name);
        for control in ControlName::ALL {
            let steps = device.info().steps(control);
            assert!(
                steps.len() > 1 && steps.is_sorted_by(|a, b| a < b),
                "{name} {control}: {steps:?}"
            );
            if let Some(value) = in_force(&reading, control) {
                assert_eq!(steps.last(), Some(&value), "{name} {control}");
            }
        }
    }
}

#[test]
fn looking_writes_nothing() {
    for (name, node) in all() {
        let before = contents(&node.directory);
        let device = node.open();
        for control in ControlName::ALL {
            device.baseline(control).expect(name);
            device.default_baseline(control);
        }
        device.read().expect(name);
        assert_eq!(contents(&node.directory), before, "{name}");
    }
}

#[test]
fn every_step_can_be_set_and_another_process_puts_back_what_was_found() {
    for (name, node) in all() {
        let before = readings(&node);
        for control in ControlName::ALL {
            let device = node.open();
            let baseline = device.baseline(control).expect(name);
            let steps = device.info().steps(control).to_vec();
            for value in [steps[0], steps[steps.len() / 2], steps[steps.len() - 1]] {
                device.limit(control, value, &baseline).expect(name);
                pretend(&node, control, value);
                let said = in_force(&device.read().expect(name), control);
                assert!(
                    said.is_none_or(|said| said == value),
                    "{name} {control}: {said:?} after {value}"
                );
            }
            device.limit(control, steps[0], &baseline).expect(name);
            pretend(&node, control, steps[0]);
            // A crash: all that is left is the baseline in the journal.
            drop(device);
            let text = baseline.0.clone();
            for _ in 0..2 {
                node.open().restore(control, &Baseline(text.clone())).expect(name);
                pretend(&node, control, steps[steps.len() - 1]);
            }
            assert_eq!(readings(&node), before, "{name} {control}");
        }
    }
}

/// Both limits, and the level that amdgpu was at.
fn readings(node: &Node) -> (Option<u32>, Option<u64>, Option<String>) {
    let reading = node.open().read().expect("readable");
    let level = fs::read_to_string(
        node.directory
            .join(CARD)
            .join("power_dpm_force_performance_level"),
    )
    .ok();
    let level = level.map(|level| level.trim().to_owned());
    (reading.clock_limit_mhz, reading.power_limit_mw, level)
}

/// What the kernel does with a command, and a plain file does not.
fn pretend(node: &Node, control: ControlName, value: u32) {
    if node.directory.join(CARD).join("pp_dpm_sclk").exists() {
        put(&node.directory, &format!("{CARD}/pp_dpm_sclk"), LEVELS);
    }
    if control == ControlName::Clock && node.directory.join(CARD).join("pp_od_clk_voltage").exists() {
        let text = OVERDRIVE.replace("2400Mhz", &format!("{value}Mhz"));
        put(&node.directory, &format!("{CARD}/pp_od_clk_voltage"), &text);
    }
}

#[test]
fn nothing_is_ever_set_above_what_was_found() {
    // What a site's command does with a number is the site's; it is never given one above the list.
    for (name, node) in all().into_iter().filter(|(name, _)| *name != "exec") {
        let device = node.open();
        let baseline = device.baseline(ControlName::PowerLimit).expect(name);
        device
            .limit(ControlName::PowerLimit, u32::MAX / 2, &baseline)
            .expect(name);
        let said = in_force(&device.read().expect(name), ControlName::PowerLimit);
        assert_eq!(said.as_ref(), device.info().power_limits_mw.last(), "{name}");
    }
}

#[test]
fn what_is_not_there_is_not_zero() {
    let node = rapl_package();
    fs::remove_file(node.directory.join("class/powercap/intel-rapl:0/energy_uj")).expect("it was there");
    let reading = node.open().read().expect("the rest is there");
    assert_eq!((reading.energy_mj, reading.power_mw), (None, None));
    assert_eq!(reading.clock_limit_mhz, Some(3600));
    let node = amdgpu_mask();
    fs::remove_dir_all(node.directory.join(CARD).join("hwmon")).expect("it was there");
    let device = node.open();
    assert_eq!(device.info().controls().collect::<Vec<_>>(), [ControlName::Clock]);
    assert_eq!(device.read().expect("the rest is there").power_limit_mw, None);
    let wrong = device
        .baseline(ControlName::PowerLimit)
        .expect_err("it lacks the control");
    assert!(wrong.to_string().contains("power_limit"), "{wrong}");
}

#[test]
fn a_baseline_of_somebody_else_is_refused_in_words() {
    // exec has one way back, whatever was there.
    for (name, node) in all().into_iter().filter(|(name, _)| *name != "exec") {
        let device = node.open();
        let wrong = device.restore(ControlName::PowerLimit, &Baseline("much".to_owned()));
        assert!(wrong.expect_err(name).to_string().contains("much"), "{name}");
    }
}

fn writes(sysfs: &Sysfs) -> Vec<String> {
    let written = sysfs.take_written().into_iter();
    let name = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    written
        .map(|(path, text)| format!("{} <- {text}", name(path)))
        .collect()
}

#[test]
fn amdgpu_writes_the_performance_level_first_and_commits_last() {
    let node = amdgpu_overdrive();
    let sysfs = Arc::new(Sysfs::at(&node.directory));
    let device = &amdgpu::open_at(&sysfs).expect("a card")[0];
    let baseline = device.baseline(ControlName::Clock).expect("readable");
    device
        .limit(ControlName::Clock, 1500, &baseline)
        .expect("writable");
    assert_eq!(
        writes(&sysfs),
        [
            "power_dpm_force_performance_level <- manual",
            "pp_od_clk_voltage <- s 1 1500",
            "pp_od_clk_voltage <- c"
        ]
    );
    device.restore(ControlName::Clock, &baseline).expect("writable");
    assert_eq!(
        writes(&sysfs),
        [
            "power_dpm_force_performance_level <- manual",
            "pp_od_clk_voltage <- s 1 2400",
            "pp_od_clk_voltage <- c",
            "power_dpm_force_performance_level <- auto"
        ]
    );
    let node = amdgpu_mask();
    let sysfs = Arc::new(Sysfs::at(&node.directory));
    let device = &amdgpu::open_at(&sysfs).expect("a card")[0];
    let baseline = device.baseline(ControlName::Clock).expect("readable");
    device
        .limit(ControlName::Clock, 800, &baseline)
        .expect("writable");
    assert_eq!(
        writes(&sysfs),
        [
            "power_dpm_force_performance_level <- manual",
            "pp_dpm_sclk <- 0 1"
        ]
    );
    device
        .limit(ControlName::PowerLimit, 200_000, &Baseline("300000".to_owned()))
        .expect("writable");
    assert_eq!(writes(&sysfs), ["power1_cap <- 200000000"]);
}

#[test]
fn xe_and_rapl_write_every_part_and_none_of_another_device() {
    let node = xe_card();
    let sysfs = Arc::new(Sysfs::at(&node.directory));
    let device = &xe::open_at(&sysfs).expect("a card")[0];
    let baseline = device.baseline(ControlName::Clock).expect("readable");
    // The media GT goes no faster than 1300.
    device
        .limit(ControlName::Clock, 1500, &baseline)
        .expect("writable");
    assert_eq!(writes(&sysfs), ["max_freq <- 1500", "max_freq <- 1300"]);
    assert_eq!(
        device.read().expect("readable").throttle_reasons,
        Some(vec!["pl1".to_owned()])
    );
    let node = rapl_package();
    let sysfs = Arc::new(Sysfs::at(&node.directory));
    let device = &rapl::open_at(&sysfs).expect("a package")[0];
    let baseline = device.baseline(ControlName::Clock).expect("readable");
    assert_eq!(baseline.0, "policy0=3600000 policy1=3600000");
    device
        .limit(ControlName::Clock, 1500, &baseline)
        .expect("writable");
    assert_eq!(
        writes(&sysfs),
        ["scaling_max_freq <- 1500000", "scaling_max_freq <- 1500000"]
    );
}

#[test]
fn a_limit_that_fails_in_the_middle_says_so_and_can_be_put_back() {
    let node = rapl_package();
    let device = node.open();
    let baseline = device.baseline(ControlName::Clock).expect("readable");
    let second = node
        .directory
        .join("devices/system/cpu/cpufreq/policy1/scaling_max_freq");
    fs::remove_file(&second).expect("it was there");
    let wrong = device
        .limit(ControlName::Clock, 1500, &baseline)
        .expect_err("half of it is gone");
    assert!(wrong.to_string().contains("policy1"), "{wrong}");
    // Both are tried: the first is back although the second cannot be.
    device
        .restore(ControlName::Clock, &baseline)
        .expect_err("it is still gone");
    let first = fs::read_to_string(
        node.directory
            .join("devices/system/cpu/cpufreq/policy0/scaling_max_freq"),
    );
    assert_eq!(first.expect("it is there").trim(), "3600000");
}

#[test]
fn rapl_energy_goes_on_over_the_wraparound() {
    let node = rapl_package();
    let device = node.open();
    let energy = |uj: &str| {
        put(&node.directory, "class/powercap/intel-rapl:0/energy_uj", uj);
        device.read().expect("readable").energy_mj
    };
    assert_eq!(
        [energy("900000"), energy("990000"), energy("10000")],
        [Some(900), Some(990), Some(1_010)]
    );
}
