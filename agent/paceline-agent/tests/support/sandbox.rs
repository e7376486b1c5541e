//! A directory of its own for one test, with two emulated devices in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use emulated_device::{
    Command, Description, EmulatedDevice, Telemetry, create, monotonic_ns, write_telemetry,
};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Sim,
    Nvml,
    /// Commands that the test writes.
    Exec,
}

pub struct Sandbox {
    pub path: PathBuf,
    pub driver: Driver,
}

pub const CLOCKS_MHZ: [u32; 5] = [210, 990, 1005, 1290, 1980];
pub const DEVICES: u32 = 2;

static MADE: AtomicU32 = AtomicU32::new(0);

impl Sandbox {
    pub fn new(driver: Driver) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("paceline-agent-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("devices")).unwrap();
        let sandbox = Self { path, driver };
        for index in 0..DEVICES {
            sandbox.emulate(index);
        }
        sandbox.write_policy(&json!([sandbox.own_rule()]));
        sandbox
    }

    fn emulate(&self, index: u32) {
        let description = Description {
            uuid: format!("GPU-{index}"),
            name: "Emulated H100".to_owned(),
            clocks_mhz: CLOCKS_MHZ.to_vec(),
            default_power_limit_mw: 700_000,
        };
        create(&self.devices_path(), index, &description).unwrap();
        let telemetry = Telemetry {
            clock_mhz: 1980,
            power_mw: 310_000,
            energy_mj: 99_120,
            energy_at_ns: monotonic_ns(),
            utilization_pct: 97,
            temperature_c: 51,
            throttle_reasons: 4,
        };
        write_telemetry(&self.devices_path(), index, &telemetry).unwrap();
    }

    pub fn devices_path(&self) -> PathBuf {
        self.path.join("devices")
    }

    pub fn state_path(&self) -> PathBuf {
        self.path.join("state")
    }

    pub fn socket_path(&self) -> PathBuf {
        self.path.join("agent.sock")
    }

    pub fn exec_config_path(&self) -> PathBuf {
        self.path.join("exec.json")
    }

    pub fn policy_path(&self) -> PathBuf {
        self.path.join("policy.json")
    }

    /// Everything, for the user that runs the tests.
    pub fn own_rule(&self) -> Value {
        json!({"name": "tests", "uids": [nix::unistd::geteuid().as_raw()], "devices": ["*"],
            "controls": ["clock"]})
    }

    pub fn write_policy(&self, principals: &Value) {
        self.write_policy_file(&json!({"format": "paceline-agent-policy/1", "principals": principals}));
    }

    pub fn write_policy_file(&self, policy: &Value) {
        fs::write(self.policy_path(), policy.to_string()).unwrap();
        fs::set_permissions(self.policy_path(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Read anew by the fake NVML for every call, so never seen half written.
    pub fn write_faults(&self, faults: &Value) {
        let new = self.devices_path().join("nvml-faults.json.new");
        fs::write(&new, faults.to_string()).unwrap();
        fs::rename(new, self.devices_path().join("nvml-faults.json")).unwrap();
    }

    /// The name that clients know the device by.
    pub fn device(&self, index: u32) -> String {
        match self.driver {
            Driver::Sim => format!("sim:{index}"),
            Driver::Nvml => format!("nvml:GPU-{index}"),
            Driver::Exec => format!("exec:{index}"),
        }
    }

    pub fn devices(&self) -> Vec<String> {
        (0..DEVICES).map(|index| self.device(index)).collect()
    }

    /// What the device was really told, whichever driver told it.
    pub fn command(&self, index: u32) -> Command {
        let device = EmulatedDevice::open(&self.devices_path(), index).unwrap();
        device.command().unwrap()
    }

    /// 0: at default.
    pub fn locked_mhz(&self, index: u32) -> u32 {
        self.command(index).lock_max_mhz
    }

    pub fn are_all_default(&self) -> bool {
        (0..DEVICES).all(|index| self.locked_mhz(index) == 0)
    }

    pub fn journal(&self) -> Vec<String> {
        let text = fs::read_to_string(self.state_path().join("journal.json")).unwrap();
        let journal: Value = serde_json::from_str(&text).unwrap();
        journal["devices"].as_object().unwrap().keys().cloned().collect()
    }

    /// As somebody else would, behind the agent's back.
    pub fn limit_power(&self, index: u32, limit_mw: u32) {
        let device = EmulatedDevice::open(&self.devices_path(), index).unwrap();
        device.limit_power(limit_mw).unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Kept where a test failed: its log and its devices say why.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
