//! What can go wrong with the directory. The file is always named: the reader of a log has several devices.

use std::fmt;
use std::io;
use std::path::Path;

#[derive(Debug)]
pub struct EmulatedDeviceError {
    message: String,
    source: Option<io::Error>,
}

impl EmulatedDeviceError {
    pub(crate) fn io(path: &Path, doing: &str, source: io::Error) -> Self {
        Self {
            message: format!("{}: {doing}: {source}", path.display()),
            source: Some(source),
        }
    }

    pub(crate) fn shape(path: &Path, wrong: impl fmt::Display) -> Self {
        Self {
            message: format!("{}: {wrong}", path.display()),
            source: None,
        }
    }
}

impl fmt::Display for EmulatedDeviceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for EmulatedDeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
