//! What a knob is told. Ordered by speed, so that "the fastest demand wins" is `max`.

/// A ceiling, never a floor: an idle device may still fall to its own idle clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    // The order of the cases is their order of speed: every ceiling is slower than the default.
    Ceiling { value: u32 },
    Default,
}

impl Setting {
    /// `None` at default.
    pub fn value(self) -> Option<u32> {
        match self {
            Setting::Default => None,
            Setting::Ceiling { value } => Some(value),
        }
    }
}
