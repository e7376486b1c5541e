//! The clocks one lease may ask of one device: the policy's range, on the device's own steps.

/// Both ends are steps of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBounds {
    pub floor_mhz: u32,
    pub ceiling_mhz: u32,
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

impl ClockBounds {
    /// `clocks_mhz` ascending and not empty. A floor between two steps is the upper one, a ceiling the lower one;
    /// where that crosses them over the floor wins, because too fast costs joules and too slow costs deadlines.
    pub fn on(clocks_mhz: &[u32], floor_mhz: Option<u32>, ceiling_mhz: Option<u32>) -> Self {
        let lowest_mhz = *clocks_mhz.first().expect("a device has clocks");
        let highest_mhz = *clocks_mhz.last().expect("a device has clocks");
        let floor_mhz = step_at_least(clocks_mhz, floor_mhz.unwrap_or(0)).unwrap_or(highest_mhz);
        let ceiling_mhz = step_at_most(clocks_mhz, ceiling_mhz.unwrap_or(u32::MAX));
        Self {
            floor_mhz,
            ceiling_mhz: ceiling_mhz.unwrap_or(lowest_mhz).max(floor_mhz),
        }
    }

    /// The step that serves a request: never slower than asked, except where the ceiling says so.
    pub fn fit(self, clocks_mhz: &[u32], requested_mhz: u32) -> (u32, Option<Clamped>) {
        if requested_mhz < self.floor_mhz {
            return (self.floor_mhz, Some(Clamped::Floor));
        }
        match step_at_least(clocks_mhz, requested_mhz) {
            Some(step_mhz) if step_mhz > self.ceiling_mhz => (self.ceiling_mhz, Some(Clamped::Ceiling)),
            None => (self.ceiling_mhz, Some(Clamped::Ceiling)),
            Some(step_mhz) if step_mhz != requested_mhz => (step_mhz, Some(Clamped::Quantized)),
            Some(step_mhz) => (step_mhz, None),
        }
    }
}

fn step_at_least(clocks_mhz: &[u32], wanted_mhz: u32) -> Option<u32> {
    let position = clocks_mhz.partition_point(|&step_mhz| step_mhz < wanted_mhz);
    clocks_mhz.get(position).copied()
}

fn step_at_most(clocks_mhz: &[u32], wanted_mhz: u32) -> Option<u32> {
    let position = clocks_mhz.partition_point(|&step_mhz| step_mhz <= wanted_mhz);
    position.checked_sub(1).map(|before| clocks_mhz[before])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCKS_MHZ: [u32; 4] = [210, 990, 1005, 1980];

    #[test]
    fn a_request_is_taken_up_to_the_next_step_and_clamped_to_the_range() {
        let all = ClockBounds::on(&CLOCKS_MHZ, None, None);
        let some = ClockBounds::on(&CLOCKS_MHZ, Some(900), Some(1500));
        let cases = [
            (all, 990, (990, None)),
            (all, 991, (1005, Some(Clamped::Quantized))),
            (all, 1, (210, Some(Clamped::Floor))),
            (all, 5000, (1980, Some(Clamped::Ceiling))),
            (some, 300, (990, Some(Clamped::Floor))),
            (some, 1005, (1005, None)),
            (some, 1006, (1005, Some(Clamped::Ceiling))),
        ];
        for (bounds, requested_mhz, wanted) in cases {
            assert_eq!(
                bounds.fit(&CLOCKS_MHZ, requested_mhz),
                wanted,
                "{bounds:?} {requested_mhz}"
            );
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
        for (floor_mhz, ceiling_mhz, wanted) in cases {
            let bounds = ClockBounds::on(&CLOCKS_MHZ, floor_mhz, ceiling_mhz);
            assert_eq!((bounds.floor_mhz, bounds.ceiling_mhz), wanted);
        }
    }
}
