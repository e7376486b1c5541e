//! Small shell scripts as the site's commands. What they did is in a file beside them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

use super::*;

struct Site {
    path: PathBuf,
}

impl Site {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("paceline-exec-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self { path }
    }

    /// A device whose commands all run `script` with what they are called for and the number.
    fn device(&self, script: &str, timeout_ms: u64) -> ExecDevice {
        let program = self.path.join("site");
        let text = format!("cd {}\n{script}\n", self.path.display());
        // Read by a shell, not executed: while another test's child holds it open for writing, that would fail.
        fs::write(&program, text).expect("a script");
        let document = json!({
            "format": "paceline-agent-exec/1",
            "env": {"SITE": "east"},
            "devices": [{
                "id": "gpu0",
                "clocks_mhz": [210, 990, 1980],
                "limit_clock": ["/bin/sh", program, "limit", "{lowest_mhz},{clock_mhz}"],
                "reset_clock": ["/bin/sh", program, "reset"],
                "read": ["/bin/sh", program, "read"],
                "timeout_ms": timeout_ms,
            }],
        });
        let config = config::parse(&document.to_string())
            .expect("a good file")
            .remove(0);
        ExecDevice::new(config)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path.join("said")).unwrap_or_default()
    }

    fn pid(&self, name: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.path.join(name)).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn slow(device: &ExecDevice) -> Result<(), DeviceError> {
    device.limit(ControlName::Clock, 990, &Baseline(RESET.to_owned()))
}

fn reset(device: &ExecDevice) -> Result<(), DeviceError> {
    device.restore(ControlName::Clock, &Baseline(RESET.to_owned()))
}

#[test]
fn commands_run_in_order_with_numbers_and_nothing_else_in_their_environment() {
    let site = Site::new();
    let device = site.device("echo \"$@ $SITE $HOME $CARGO $(wc -c)\" >> said", 2_000);
    slow(&device).expect("done");
    reset(&device).expect("done");
    assert_eq!(site.said(), "limit 210,990 east   0\nreset east   0\n");
}

#[test]
fn a_failing_command_says_why() {
    let site = Site::new();
    let device = site.device("echo 'sudo: a password\nis required' >&2; exit 3", 2_000);
    let wrong = slow(&device).expect_err("it fails").0;
    assert!(
        wrong.ends_with("limit 210,990`: exit status 3: sudo: a password is required"),
        "{wrong}"
    );
    let device = site.device("kill -9 $$", 2_000);
    let wrong = slow(&device).expect_err("it dies").0;
    assert!(wrong.ends_with("ended by signal 9"), "{wrong}");
}

#[test]
fn a_timeout_kills_the_whole_group_even_one_that_does_not_listen() {
    let site = Site::new();
    let device = site.device(
        "trap '' TERM; sleep 60 & echo $! > inner; echo $$ > outer; wait; wait; sleep 60",
        300,
    );
    let started_at = Instant::now();
    let wrong = slow(&device).expect_err("it hangs").0;
    assert!(wrong.ends_with("no end within 300 ms, killed"), "{wrong}");
    assert!(started_at.elapsed() < Duration::from_millis(1_500));
    for name in ["inner", "outer"] {
        let pid = site.pid(name).expect("it wrote so");
        assert!(!runs(pid), "{name} still runs");
    }
    assert!(
        reset(&device).is_err(),
        "the next one is begun, and hangs by itself"
    );
}

#[test]
fn what_a_command_leaves_behind_is_ended_with_it() {
    let site = Site::new();
    let device = site.device("sleep 60 & echo $! > inner", 2_000);
    let started_at = Instant::now();
    slow(&device).expect("done");
    assert!(
        started_at.elapsed() < Duration::from_millis(1_500),
        "its pipes were waited for"
    );
    assert!(!runs(site.pid("inner").expect("it wrote so")));
}

/// A zombie does not: whoever inherited it will reap it.
fn runs(pid: Pid) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(pid, None).is_ok() && !stat.contains(") Z ")
}

#[test]
fn no_zombie_and_no_descriptor_is_left() {
    let site = Site::new();
    let device = site.device(
        "echo $$ > outer; ls -l /proc/self/fd | grep -c '[3-9] ->' > said; exit 1",
        2_000,
    );
    slow(&device).expect_err("it fails");
    assert!(kill(site.pid("outer").expect("it wrote so"), None).is_err());
    // `ls` itself has the directory open.
    assert_eq!(site.said(), "1\n");
}

#[test]
fn big_output_is_read_and_dropped() {
    let site = Site::new();
    let noise = "head -c 3000000 /dev/zero | tr '\\0' 'x'";
    let device = site.device(&format!("{noise} >&2; echo the end >&2; exit 1"), 2_000);
    let wrong = slow(&device).expect_err("it fails").0;
    assert!(wrong.ends_with("xthe end") && wrong.len() < 600, "{wrong}");
    let device = site.device(noise, 2_000);
    let wrong = slow(&device).expect_err("too much").0;
    assert!(wrong.ends_with("more than 65536 bytes of output"), "{wrong}");
    let device = site.device("yes", 200);
    assert!(slow(&device).is_err(), "endless");
}

#[test]
fn a_reading_is_one_object_or_several() {
    let site = Site::new();
    let device = site.device(
        "echo '{\"clock_mhz\": 990, \"power_mw\": null}'; echo '{\"power_mw\": 310000}'",
        2_000,
    );
    let reading = device.read().expect("a reading");
    assert_eq!(
        (reading.clock_mhz, reading.power_mw, reading.energy_mj),
        (Some(990), Some(310_000), None)
    );
    for (output, wanted) in [
        ("{\"clock\": 5}", "clock: got 5, wanted no such key"),
        ("{\"clock_mhz\": -5}", "clock_mhz: got -5, wanted a whole number"),
        ("", "nothing, wanted a JSON object"),
        ("5", "the document: got 5, wanted an object"),
    ] {
        let device = site.device(&format!("echo '{output}'"), 2_000);
        let wrong = device.read().expect_err(output).0;
        assert!(wrong.contains(wanted), "{wrong}");
    }
}
