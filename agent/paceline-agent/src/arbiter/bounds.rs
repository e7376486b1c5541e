//! The values one lease may ask of one knob: the policy's range, on the device's own steps.

/// Both ends are steps of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub floor: u32,
    pub ceiling: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clamped {
    Floor,
    Ceiling,
    Quantized,
}

impl Clamped {
    pub fn as_str(self) -> &'static str {
        match self {
            Clamped::Floor => "floor",
            Clamped::Ceiling => "ceiling",
            Clamped::Quantized => "quantized",
        }
    }
}

impl Bounds {
    /// `steps` ascending and not empty. A floor between two steps is the upper one, a ceiling the lower one;
    /// where that crosses them over the floor wins, because too fast costs joules and too slow costs deadlines.
    pub fn on(steps: &[u32], floor: Option<u32>, ceiling: Option<u32>) -> Self {
        let lowest = *steps.first().expect("a knob has steps");
        let highest = *steps.last().expect("a knob has steps");
        let floor = step_at_least(steps, floor.unwrap_or(0)).unwrap_or(highest);
        let ceiling = step_at_most(steps, ceiling.unwrap_or(u32::MAX));
        Self {
            floor,
            ceiling: ceiling.unwrap_or(lowest).max(floor),
        }
    }

    /// The step that serves a request: never slower than asked, except where the ceiling says so.
    pub fn fit(self, steps: &[u32], requested: u32) -> (u32, Option<Clamped>) {
        if requested < self.floor {
            return (self.floor, Some(Clamped::Floor));
        }
        match step_at_least(steps, requested) {
            Some(step) if step > self.ceiling => (self.ceiling, Some(Clamped::Ceiling)),
            None => (self.ceiling, Some(Clamped::Ceiling)),
            Some(step) if step != requested => (step, Some(Clamped::Quantized)),
            Some(step) => (step, None),
        }
    }
}

fn step_at_least(steps: &[u32], wanted: u32) -> Option<u32> {
    let position = steps.partition_point(|&step| step < wanted);
    steps.get(position).copied()
}

fn step_at_most(steps: &[u32], wanted: u32) -> Option<u32> {
    let position = steps.partition_point(|&step| step <= wanted);
    position.checked_sub(1).map(|before| steps[before])
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [u32; 4] = [210, 990, 1005, 1980];

    #[test]
    fn a_request_is_taken_up_to_the_next_step_and_clamped_to_the_range() {
        let all = Bounds::on(&STEPS, None, None);
        let some = Bounds::on(&STEPS, Some(900), Some(1500));
        let cases = [
            (all, 990, (990, None)),
            (all, 991, (1005, Some(Clamped::Quantized))),
            (all, 1, (210, Some(Clamped::Floor))),
            (all, 5000, (1980, Some(Clamped::Ceiling))),
            (some, 300, (990, Some(Clamped::Floor))),
            (some, 1005, (1005, None)),
            (some, 1006, (1005, Some(Clamped::Ceiling))),
        ];
        for (bounds, requested, wanted) in cases {
            assert_eq!(bounds.fit(&STEPS, requested), wanted, "{bounds:?} {requested}");
        }
    }

    #[test]
    fn a_range_without_a_step_in_it_falls_to_the_faster_side() {
        let cases = [
            (Some(1000), Some(1004), (1005, 1005)),
            (Some(2500), None, (1980, 1980)),
            (None, Some(100), (210, 210)),
            (Some(991), Some(1979), (1005, 1005)),
        ];
        for (floor, ceiling, wanted) in cases {
            let bounds = Bounds::on(&STEPS, floor, ceiling);
            assert_eq!((bounds.floor, bounds.ceiling), wanted);
        }
    }
}
