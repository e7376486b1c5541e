//! NVML's throttle (since driver 535 "event") reasons as words. The emulated device uses the same bits.

const REASONS: [(u64, &str); 9] = [
    (0x001, "gpu_idle"),
    (0x002, "applications_clocks_setting"),
    (0x004, "sw_power_cap"),
    (0x008, "hw_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "sw_thermal_slowdown"),
    (0x040, "hw_thermal_slowdown"),
    (0x080, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
];

/// A bit without a name (a newer driver's) is `bit_<number>`: unknown is not "none".
pub fn reasons(bits: u64) -> Vec<String> {
    (0..u64::BITS)
        .map(|number| (number, 1u64 << number))
        .filter(|(_, bit)| bits & bit != 0)
        .map(|(number, bit)| {
            let known = REASONS.iter().find(|(reason, _)| *reason == bit);
            known.map_or_else(|| format!("bit_{number}"), |(_, name)| (*name).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::reasons;

    #[test]
    fn bits_become_words_and_an_unknown_bit_keeps_its_number() {
        assert_eq!(reasons(0), Vec::<String>::new());
        assert_eq!(reasons(0x24), ["sw_power_cap", "sw_thermal_slowdown"]);
        assert_eq!(reasons(1 << 40), ["bit_40"]);
    }
}
