//! The state directory: a lock that says whose devices these are, and files that survive power loss whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::unistd::geteuid;

use crate::limits::STATE_FILE_BYTES_MAX;
use crate::start_error::StartError;

#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Held for as long as it lives, by this process and by every child that inherits the descriptor: a worker whose
/// sentinel was killed still holds it.
pub struct StateLock {
    _file: Flock<File>,
}

impl StateDir {
    /// Made if it is not there, for this user only. One that others can write is refused: they could hide a journal.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|wrong| StartError::refused(format!("--state-dir {}: {wrong}", path.display())))?;
        let metadata = fs::metadata(path)
            .map_err(|wrong| StartError::refused(format!("--state-dir {}: {wrong}", path.display())))?;
        let uid = geteuid().as_raw();
        if metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
            return Err(StartError::refused(format!(
                "--state-dir {}: owned by uid {} with mode {:o}; wanted uid {uid} and nobody else able to write",
                path.display(),
                metadata.uid(),
                metadata.mode() & 0o7777,
            )));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Waits up to `wait` for another agent to leave, then says that it did not.
    pub fn lock(&self, wait: Duration) -> Result<StateLock, StartError> {
        let path = self.path.join("lock");
        let give_up_at = Instant::now() + wait;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(|wrong| StartError::refused(format!("{}: {wrong}", path.display())))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    // Inherited on purpose, see `StateLock`.
                    fcntl(&*file, FcntlArg::F_SETFD(FdFlag::empty()))
                        .map_err(|wrong| StartError::refused(format!("{}: {wrong}", path.display())))?;
                    return Ok(StateLock { _file: file });
                }
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() < give_up_at => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(StartError::refused(format!(
                        "{}: another paceline-agent holds it; stop that one, or give this one its own --state-dir",
                        path.display()
                    )));
                }
                Err((_, wrong)) => {
                    return Err(StartError::refused(format!("{}: {wrong}", path.display())));
                }
            }
        }
    }

    /// `None` where there is no such file.
    pub fn read(&self, name: &str) -> io::Result<Option<String>> {
        let file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(wrong) => return Err(wrong),
        };
        let mut text = String::new();
        file.take(STATE_FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// When this returns the text is on the disk under its name; at no moment is half of it.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
