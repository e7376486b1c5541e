//! Files that decide who may do what: read only where nobody but root, or the agent's own user, can have written them.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::geteuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everybody may read it, nobody else may write it.
    Public,
    /// Nobody else may read it either.
    Secret,
}

/// A link is followed, and the file it leads to is judged: in Kubernetes every file of a volume is a link of root's.
pub fn read(path: &Path, secrecy: Secrecy, bytes_max: u64) -> Result<String, String> {
    // Not blocking: to open a FIFO that nobody writes would take for ever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(|wrong| cannot_open(path, &wrong))?;
    // On the open file, not on its name: what is checked is what is read.
    check(&file.metadata().map_err(|wrong| wrong.to_string())?, secrecy)?;
    let mut text = String::new();
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(|wrong| wrong.to_string())?;
    if text.len() as u64 > bytes_max {
        return Err(format!("larger than {bytes_max} bytes"));
    }
    Ok(text)
}

/// Without CAP_DAC_OVERRIDE even root cannot open everybody's files, so the owner is worth a word.
fn cannot_open(path: &Path, wrong: &io::Error) -> String {
    match fs::metadata(path) {
        Ok(metadata) if wrong.kind() == io::ErrorKind::PermissionDenied => format!(
            "{wrong}; owned by uid {} with mode {:o}; wanted root or uid {}, because whoever owns it decides",
            metadata.uid(),
            metadata.mode() & 0o7777,
            geteuid()
        ),
        _ => wrong.to_string(),
    }
}

/// Whoever owns a file, or may write it, decides what it says.
pub fn check(metadata: &Metadata, secrecy: Secrecy) -> Result<(), String> {
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
    let mode = metadata.mode() & 0o7777;
    match secrecy {
        Secrecy::Public if mode & 0o022 != 0 => Err(format!(
            "mode {mode:o} lets others write it; wanted no write for group and others (chmod go-w)"
        )),
        Secrecy::Secret if mode & 0o077 != 0 => Err(format!(
            "mode {mode:o} lets others in; wanted 600 or 400, nothing for group and others (chmod go-rwx)"
        )),
        Secrecy::Public | Secrecy::Secret => Ok(()),
    }
}
