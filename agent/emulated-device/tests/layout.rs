//! The bytes, against the table in PROTOCOL.md: written out by hand here, because TypeScript reads them too.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use emulated_device::{Description, EmulatedDevice, Telemetry, create, list, write_telemetry};

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("paceline-layout-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn description() -> Description {
    Description {
        uuid: "GPU-0".into(),
        name: "Emulated".into(),
        clocks_mhz: vec![210, 1980],
        default_power_limit_mw: 700_000,
    }
}

#[test]
fn a_lock_is_written_where_the_protocol_says() {
    let directory = directory("lock");
    let device = create(&directory, 0, &description()).unwrap();
    device.lock_clock(210, 1290).unwrap();
    device.lock_clock(210, 1305).unwrap();
    let bytes = std::fs::read(directory.join("0.state")).unwrap();
    assert_eq!(bytes.len(), 512);
    assert_eq!(&bytes[0..8], b"PLDEVST1");
    assert_eq!(bytes[64..72], 2u64.to_le_bytes());
    assert_eq!(bytes[72..76], 210u32.to_le_bytes());
    assert_eq!(bytes[76..80], 1305u32.to_le_bytes());
    assert_eq!(bytes[84..88], std::process::id().to_le_bytes());
    assert_eq!(bytes[96..104], 2u64.to_le_bytes());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_block_torn_by_a_dead_writer_is_mended_by_the_next_write() {
    let directory = directory("torn");
    let device = create(&directory, 0, &description()).unwrap();
    let path = directory.join("0.state");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64..72].copy_from_slice(&9u64.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert!(device.command().is_err());
    device.lock_clock(0, 0).unwrap();
    assert_eq!(device.command().unwrap().lock_max_mhz, 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn telemetry_is_absent_until_it_was_written_and_then_reads_back() {
    let directory = directory("telemetry");
    let device = create(&directory, 3, &description()).unwrap();
    assert_eq!(device.telemetry().unwrap(), None);
    let telemetry = Telemetry {
        clock_mhz: 1290,
        power_mw: 310_000,
        energy_mj: 99_120,
        energy_at_ns: 77,
        utilization_pct: 97,
        temperature_c: 51,
        throttle_reasons: 4,
    };
    write_telemetry(&directory, 3, &telemetry).unwrap();
    assert_eq!(device.telemetry().unwrap(), Some(telemetry));
    let bytes = std::fs::read(directory.join("3.state")).unwrap();
    assert_eq!(bytes[136..140], 1290u32.to_le_bytes());
    assert_eq!(bytes[144..152], 99_120u64.to_le_bytes());
    assert_eq!(bytes[168..176], 4u64.to_le_bytes());
    assert_eq!(bytes[176..184], 1u64.to_le_bytes());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_directory_lists_its_devices_by_number_and_a_foreign_file_is_refused() {
    let directory = directory("list");
    for index in [10, 2] {
        create(&directory, index, &description()).unwrap();
    }
    std::fs::write(directory.join("notes.txt"), "not ours").unwrap();
    let indexes: Vec<u32> = list(&directory)
        .unwrap()
        .iter()
        .map(EmulatedDevice::index)
        .collect();
    assert_eq!(indexes, [2, 10]);
    std::fs::write(directory.join("2.state"), vec![0u8; 512]).unwrap();
    let wrong = list(&directory).unwrap_err().to_string();
    assert!(wrong.contains("2.state") && wrong.contains("PLDEVST1"), "{wrong}");
    std::fs::remove_dir_all(directory).unwrap();
}
