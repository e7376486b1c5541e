//! What the file drivers share: files of the kernel's, read and written whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DriverError;
use crate::device::{ControlName, Device, DeviceError};

/// An attribute is a page at most; tables of clocks may be several.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// As the agent holds them, whichever driver they are of.
pub fn shared<D: Device + 'static>(devices: Vec<D>) -> Vec<Arc<dyn Device>> {
    devices.into_iter().map(|device| Arc::new(device) as _).collect()
}

/// A tree that is `/sys`, or stands for it. Paths are relative to it.
pub struct Sysfs {
    root: PathBuf,
    #[cfg(test)]
    written: std::sync::Mutex<Vec<(String, String)>>,
}

impl Sysfs {
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            #[cfg(test)]
            written: std::sync::Mutex::default(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Without the line end.
    pub fn read(&self, path: &str) -> Result<String, DeviceError> {
        let full = self.root.join(path);
        let wrong = |wrong: std::io::Error| DeviceError(format!("{}: {wrong}", full.display()));
        let mut text = String::new();
        let file = File::open(&full).map_err(wrong)?;
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(wrong)?;
        Ok(text.trim_end().to_owned())
    }

    /// `None` where the file is not there, cannot be read, or is no whole number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The kernel takes what one `write` brings, or refuses it.
    pub fn write(&self, path: &str, text: &str) -> Result<(), DeviceError> {
        let full = self.root.join(path);
        #[cfg(test)]
        self.written
            .lock()
            .expect("no test panics with it")
            .push((path.to_owned(), text.to_owned()));
        let written = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&full)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|wrong| DeviceError(format!("{}: writing {text:?}: {wrong}", full.display())))
    }

    /// Names in a directory that begin so, sorted; none where there is no such directory.
    pub fn names(&self, directory: &str, prefix: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(directory)) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    /// What a driver's `uevent` says of a key.
    pub fn uevent(&self, directory: &str, key: &str) -> Option<String> {
        let text = self.read(&format!("{directory}/uevent")).ok()?;
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
    }

    /// Every one is tried, whatever becomes of the ones before; the first failure is the answer. For the way back.
    pub fn write_each(&self, writes: impl Iterator<Item = (String, String)>) -> Result<(), DeviceError> {
        let written: Vec<_> = writes.map(|(path, text)| self.write(&path, &text)).collect();
        written.into_iter().collect()
    }

    /// In microwatts, as hwmon and powercap have it. `None`: the device has no such file.
    pub fn limit_power(&self, file: Option<String>, limit_mw: u32) -> Result<(), DeviceError> {
        let file = file.ok_or_else(|| DeviceError::lacks(ControlName::PowerLimit))?;
        let limit_uw = u64::from(limit_mw) * 1_000;
        self.write(&file, &limit_uw.to_string())
    }

    /// Directories of the graphics cards of one kernel driver, at least one.
    pub fn cards(&self, driver: &str) -> Result<Vec<String>, DriverError> {
        let cards = self.names("class/drm", "card").into_iter();
        // Connectors (`card0-DP-1`) lie beside the cards.
        let cards = cards.filter(|name| name[4..].bytes().all(|byte| byte.is_ascii_digit()));
        let directories = cards.map(|name| format!("class/drm/{name}/device"));
        let of_driver =
            directories.filter(|directory| self.uevent(directory, "DRIVER").as_deref() == Some(driver));
        let found: Vec<String> = of_driver.collect();
        if found.is_empty() {
            let root = self.root.display();
            return Err(DriverError(format!(
                "{root}/class/drm: no card of the {driver} driver"
            )));
        }
        Ok(found)
    }

    /// Where the card's sensors are.
    pub fn hwmon(&self, device: &str) -> Option<String> {
        let directory = format!("{device}/hwmon");
        let name = self.names(&directory, "hwmon").into_iter().next()?;
        Some(format!("{directory}/{name}"))
    }

    /// In the order they were written.
    #[cfg(test)]
    pub fn take_written(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.written.lock().expect("no test panics with it"))
    }
}
