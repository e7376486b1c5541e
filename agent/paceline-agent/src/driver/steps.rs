//! What several drivers say alike: steps of a power limit, and the words of a baseline.

use crate::device::{Baseline, DeviceError};

/// The baseline of a control without a getter: there is one way back, whatever was there.
pub const RESET: &str = "reset";

/// One watt: finer than any card holds its limit.
const POWER_STEP_MW: u32 = 1_000;

/// From the lowest limit a device takes to the one in force, which is the last. Empty where there is nothing between.
pub fn power_steps(lowest_mw: u32, in_force_mw: u32) -> Vec<u32> {
    if lowest_mw >= in_force_mw {
        return Vec::new();
    }
    let whole_watts = lowest_mw.next_multiple_of(POWER_STEP_MW)..in_force_mw;
    let mut steps: Vec<u32> = whole_watts.step_by(POWER_STEP_MW as usize).collect();
    steps.push(in_force_mw);
    steps
}

/// The baseline of a power limit, which every driver writes as whole milliwatts.
pub fn found_power_limit_mw(baseline: &Baseline) -> Result<u32, DeviceError> {
    let found = baseline.0.parse();
    found.map_err(|_| DeviceError(format!("the journal says {:?}, wanted milliwatts", baseline.0)))
}

#[cfg(test)]
mod tests {
    use super::power_steps;

    #[test]
    fn a_power_limit_has_steps_of_a_watt_and_ends_at_the_one_in_force() {
        assert_eq!(power_steps(99_500, 102_500), [100_000, 101_000, 102_000, 102_500]);
        assert_eq!(power_steps(100_000, 100_000), [] as [u32; 0]);
    }
}
