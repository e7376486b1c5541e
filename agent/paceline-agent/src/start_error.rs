//! Why the agent does not start. The exit status tells the sentinel and systemd whether trying again can help.

use std::fmt;

#[derive(Debug)]
pub struct StartError {
    message: String,
    kind: StartErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartErrorKind {
    /// Somebody must change something first.
    Refused,
    /// The driver or its devices are not there (yet).
    Unavailable,
}

/// sysexits.h: EX_CONFIG, EX_UNAVAILABLE. systemd's `RestartPreventExitStatus=78` fits.
pub const EXIT_REFUSED: u8 = 78;
pub const EXIT_UNAVAILABLE: u8 = 69;

impl StartError {
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: StartErrorKind::Refused,
        }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: StartErrorKind::Unavailable,
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self.kind {
            StartErrorKind::Refused => EXIT_REFUSED,
            StartErrorKind::Unavailable => EXIT_UNAVAILABLE,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}
