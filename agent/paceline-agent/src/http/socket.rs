//! The listening socket's file: appears complete, with its mode and group, or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::chown;

use crate::privilege::gid_of;
use crate::start_error::StartError;

pub struct AgentSocket {
    path: PathBuf,
    /// To remove only what this process made.
    inode: u64,
}

impl AgentSocket {
    /// A file left by a dead agent is replaced; one that somebody answers on is not.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<(Self, UnixListener), StartError> {
        let refused = |wrong: String| StartError::refused(format!("--socket {}: {wrong}", path.display()));
        refuse_if_in_use(path).map_err(refused)?;
        let mut new_path = path.as_os_str().to_owned();
        new_path.push(".new");
        let new_path = PathBuf::from(new_path);
        let made = make(&new_path, group).and_then(|listener| {
            fs::rename(&new_path, path).map_err(|wrong| wrong.to_string())?;
            let inode = fs::symlink_metadata(path)
                .map_err(|wrong| wrong.to_string())?
                .ino();
            Ok((listener, inode))
        });
        match made {
            Ok((listener, inode)) => {
                let path = path.to_owned();
                Ok((Self { path, inode }, listener))
            }
            Err(wrong) => {
                let _ = fs::remove_file(&new_path);
                Err(refused(wrong))
            }
        }
    }

    pub fn remove(&self) {
        let still_ours = fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode);
        if still_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn refuse_if_in_use(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(wrong) => return Err(wrong.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err("exists and is not a socket; it is left alone".to_owned());
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("somebody answers on it; stop that agent first".to_owned()),
        Err(wrong) if wrong.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(wrong) => Err(format!("cannot tell whether it is in use: {wrong}")),
    }
}

/// Listening already when the rename gives it its name, so nobody meets a socket that refuses them.
fn make(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    match fs::remove_file(path) {
        Err(wrong) if wrong.kind() != io::ErrorKind::NotFound => return Err(wrong.to_string()),
        _ => {}
    }
    // Nobody but us until the group is set.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(|wrong| wrong.to_string())?;
    if let Some(name) = group {
        let found = gid_of(name).map_err(|wrong| format!("--socket-group {name}: {wrong}"))?;
        let gid = found.ok_or_else(|| format!("--socket-group {name}: no such group"))?;
        let has_it = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.gid() == gid.as_raw());
        let given = if has_it {
            Ok(())
        } else {
            chown(path, None, Some(gid))
        };
        given.map_err(|wrong| format!("--socket-group {name}: {wrong}; start as root, or in that group"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(|wrong| wrong.to_string())?;
    listener
        .set_nonblocking(true)
        .map_err(|wrong| wrong.to_string())?;
    Ok(listener)
}
