//! `n.state` as bytes: offsets, and how a block is read and written so that nobody acts on half of one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::EmulatedDeviceError;

pub const STATE_BYTES: usize = 512;
pub const MAGIC: &[u8; 8] = b"PLDEVST1";

/// A block lies between two copies of its sequence number; both are counted in `bytes`.
#[derive(Clone, Copy)]
pub struct Block {
    pub offset: u64,
    pub bytes: usize,
}

pub const COMMAND: Block = Block {
    offset: 64,
    bytes: 40,
};
pub const TELEMETRY: Block = Block {
    offset: 128,
    bytes: 56,
};

/// A writer holds a block torn for as long as one `pwrite` of some 50 bytes takes. Having seen it torn this often,
/// something else is wrong, and saying so beats spinning.
const READS_MAX: u32 = 1000;

/// Opened for every access instead of being kept: an emulator that was started again has a new file under the same
/// name, and a kept descriptor would talk to the old one for ever.
pub fn open(path: &Path, writable: bool) -> Result<File, EmulatedDeviceError> {
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .open(path)
        .map_err(|source| EmulatedDeviceError::io(path, "open", source))?;
    let mut magic = [0u8; 8];
    file.read_exact_at(&mut magic, 0)
        .map_err(|source| EmulatedDeviceError::io(path, "read the magic", source))?;
    check_magic(path, &magic)?;
    Ok(file)
}

/// The whole block, its two sequence numbers equal.
pub fn read(file: &File, path: &Path, block: Block) -> Result<Vec<u8>, EmulatedDeviceError> {
    let mut bytes = vec![0u8; block.bytes];
    for _ in 0..READS_MAX {
        file.read_exact_at(&mut bytes, block.offset)
            .map_err(|source| EmulatedDeviceError::io(path, "read", source))?;
        if head(&bytes) == tail(&bytes) {
            return Ok(bytes);
        }
        std::thread::yield_now();
    }
    Err(EmulatedDeviceError::shape(
        path,
        "a block stayed torn: its two sequence numbers differ",
    ))
}

/// Both blocks, whole, with a single read where no writer is in the way: what a sampler does a hundred times a second.
/// Each as `read` gives it.
pub fn read_both(path: &Path) -> Result<(Vec<u8>, Vec<u8>), EmulatedDeviceError> {
    let file = File::open(path).map_err(|source| EmulatedDeviceError::io(path, "open", source))?;
    let mut state = [0u8; STATE_BYTES];
    file.read_exact_at(&mut state, 0)
        .map_err(|source| EmulatedDeviceError::io(path, "read", source))?;
    check_magic(path, &state)?;
    let of = |block: Block| {
        let offset = usize::try_from(block.offset).expect("within the file");
        let bytes = &state[offset..offset + block.bytes];
        if head(bytes) == tail(bytes) {
            return Ok(bytes.to_vec());
        }
        read(&file, path, block)
    };
    Ok((of(COMMAND)?, of(TELEMETRY)?))
}

fn check_magic(path: &Path, bytes: &[u8]) -> Result<(), EmulatedDeviceError> {
    if bytes.starts_with(MAGIC) {
        return Ok(());
    }
    Err(EmulatedDeviceError::shape(
        path,
        "not an emulated device: the magic is not PLDEVST1",
    ))
}

/// One read, whatever the sequence numbers say: for the only writer of a block, who must get past a torn one.
pub fn read_torn_or_not(file: &File, path: &Path, block: Block) -> Result<Vec<u8>, EmulatedDeviceError> {
    let mut bytes = vec![0u8; block.bytes];
    file.read_exact_at(&mut bytes, block.offset)
        .map_err(|source| EmulatedDeviceError::io(path, "read", source))?;
    Ok(bytes)
}

/// Writes `body` (the block without its sequence numbers), numbers raised by one, with a single `pwrite`.
pub fn write(file: &File, path: &Path, block: Block, body: &[u8]) -> Result<(), EmulatedDeviceError> {
    assert_eq!(
        body.len() + 16,
        block.bytes,
        "a block is written whole, so that no reader sees half of it"
    );
    let mut bytes = read_torn_or_not(file, path, block)?;
    // The greater of the two: a block left torn by a writer that died must not stay torn.
    let sequence = head(&bytes).max(tail(&bytes)).wrapping_add(1);
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..block.bytes - 8].copy_from_slice(body);
    bytes[block.bytes - 8..].copy_from_slice(&sequence.to_le_bytes());
    file.write_all_at(&bytes, block.offset)
        .map_err(|source| EmulatedDeviceError::io(path, "write", source))
}

pub fn head(bytes: &[u8]) -> u64 {
    u64_at(bytes, 0)
}

fn tail(bytes: &[u8]) -> u64 {
    u64_at(bytes, bytes.len() - 8)
}

pub fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("a slice of four"))
}

pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("a slice of eight"))
}
