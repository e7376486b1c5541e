//! What a device is told. Ordered by speed, so that "the fastest demand wins" is `max`.

/// Locked clocks are a ceiling, never a floor: an idle device may still fall to its own idle clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    // The order of the cases is their order of speed: every ceiling is slower than the default.
    Ceiling { clock_mhz: u32 },
    Default,
}

impl Setting {
    /// `None` at default clocks.
    pub fn clock_mhz(self) -> Option<u32> {
        match self {
            Setting::Default => None,
            Setting::Ceiling { clock_mhz } => Some(clock_mhz),
        }
    }
}
