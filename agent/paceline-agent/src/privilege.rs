//! Gives up what the agent does not need. To set clocks NVML asks for CAP_SYS_ADMIN; for everything else here the files
//! belong to us. Called before the first thread: capabilities are each thread's own.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, getegid, getgroups, setgroups};

const KEPT: Capability = Capability::CAP_SYS_ADMIN;

/// What is left, for the log.
#[derive(Debug)]
pub struct Privilege {
    effective: Vec<Capability>,
    bounding: Vec<Capability>,
    /// The steps that failed. None of them leaves more than the agent was started with.
    pub wrong: Vec<String>,
}

impl Privilege {
    /// Drops every capability but CAP_SYS_ADMIN, here and for what is started from here, and the way to gain others.
    /// With `commands_may_gain` (the exec driver, whose commands may be sudo's) only here.
    pub fn drop_all_but_kept(commands_may_gain: bool) -> Self {
        let mut wrong = Vec::new();
        let mut note = |what: &str, result: Result<(), String>| {
            if let Err(error) = result {
                wrong.push(format!("{what}: {error}"));
            }
        };
        // A worker that root's sentinel starts gets whatever is in the bounding set, so that one first. Taking from
        // it needs CAP_SETPCAP; who does not have that has been started with what it may have.
        let may_take = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false);
        if may_take && !commands_may_gain {
            for capability in caps::runtime::thread_all_supported() {
                if capability != KEPT {
                    let dropped = caps::drop(None, CapSet::Bounding, capability);
                    note("bounding set", dropped.map_err(|error| error.to_string()));
                }
            }
        }
        // The ambient and the inheritable set first: neither may hold more than the permitted one. They are what a
        // sentinel that is not root hands to its worker.
        for set in [
            CapSet::Ambient,
            CapSet::Inheritable,
            CapSet::Effective,
            CapSet::Permitted,
        ] {
            let result = caps::read(None, set).and_then(|held| {
                let kept: CapsHashSet = held.iter().copied().filter(|&one| one == KEPT).collect();
                // A service manager that gives us no more may also have taken the call from us.
                if kept == held {
                    Ok(())
                } else {
                    caps::set(None, set, &kept)
                }
            });
            note(&format!("{set:?} set"), result.map_err(|error| error.to_string()));
        }
        if !commands_may_gain {
            let no_new = prctl::set_no_new_privs();
            note("no_new_privs", no_new.map_err(|error| error.to_string()));
        }
        Self {
            effective: read(CapSet::Effective),
            bounding: read(CapSet::Bounding),
            wrong,
        }
    }

    pub fn may_set_clocks(&self) -> bool {
        self.effective.contains(&KEPT)
    }

    pub fn effective(&self) -> impl fmt::Display {
        Listed(self.effective.clone())
    }

    pub fn bounding(&self) -> impl fmt::Display {
        Listed(self.bounding.clone())
    }
}

/// To give a file to a group needs CAP_CHOWN, unless one is in it. So we join it while we may; systemd's `Group` does the
/// same for an agent that was never able to. That it worked shows at the socket.
pub fn join_group(name: &str) {
    let Ok(Some(gid)) = gid_of(name) else {
        return;
    };
    let Ok(mut groups) = getgroups() else { return };
    if gid != getegid() && !groups.contains(&gid) {
        groups.push(gid);
        let _ = setgroups(&groups);
    }
}

/// A number is an id: in a container there may be no name for the host's group.
pub fn gid_of(name: &str) -> Result<Option<Gid>, Errno> {
    match name.parse() {
        Ok(id) => Ok(Some(Gid::from_raw(id))),
        Err(_) => Ok(Group::from_name(name)?.map(|group| group.gid)),
    }
}

fn read(set: CapSet) -> Vec<Capability> {
    let mut held: Vec<Capability> = caps::read(None, set).unwrap_or_default().into_iter().collect();
    held.sort_by_key(Capability::index);
    held
}

struct Listed(Vec<Capability>);

impl fmt::Display for Listed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("none");
        }
        for (index, capability) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{capability}")?;
        }
        Ok(())
    }
}
