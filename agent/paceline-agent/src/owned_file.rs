//! Files that decide what this agent does: only root's, or the agent's own user's, and writable by nobody else.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

/// The text of such a file. The check is on the open file, not on its name: what is checked is what is read.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|wrong| wrong.to_string())?;
    check(&file.metadata().map_err(|wrong| wrong.to_string())?)?;
    let mut text = String::new();
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(|wrong| wrong.to_string())?;
    if text.len() as u64 > bytes_max {
        return Err(format!("larger than {bytes_max} bytes"));
    }
    Ok(text)
}

pub fn check(metadata: &Metadata) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("not a plain file".to_owned());
    }
    let own_uid = geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own_uid {
        return Err(format!(
            "owned by uid {}; wanted root or uid {own_uid}, because whoever owns it decides",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "mode {:o} lets others write it; wanted no write for group and others (chmod go-w)",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}
