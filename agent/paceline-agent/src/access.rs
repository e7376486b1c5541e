//! What decides who may do what: the policy and the tokens, as files said at start or at the last SIGHUP that both were
//! valid at. Replaced as a whole or not at all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::device::{ControlName, DeviceId};
use crate::policy::{Policy, Rule};
use crate::principal::Principal;
use crate::start_error::StartError;
use crate::tokens::Tokens;

pub struct Access {
    files: AccessFiles,
    state: RwLock<State>,
    /// One reload at a time, so that what was read last is what stays.
    reloading: Mutex<()>,
}

pub struct AccessFiles {
    /// `None` with `--observe`: nothing is set, and everybody may hear what would be.
    pub policy: Option<PathBuf>,
    /// `None` without `--tcp`: nobody comes with a token.
    pub tokens: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Rules {
    policy: Policy,
    pub tokens: Tokens,
}

struct State {
    rules: Rules,
    loaded: Loaded,
}

/// For `/readyz` and `/metrics`.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// When the rules in force were read.
    pub at_unix_ms: u64,
    /// Why the latest reload was refused; `None` where the files are what is in force.
    pub error: Option<String>,
    pub reloads: u64,
    pub reloads_refused: u64,
}

impl Rules {
    /// A token whose name has left the file is nobody's, whatever the policy says of it.
    pub fn rule(&self, principal: &Principal, device: &DeviceId, control: ControlName) -> Option<&Rule> {
        let policy = self.knows(principal).then_some(&self.policy)?;
        policy.rule(principal, device, control)
    }

    /// Users are the kernel's; tokens are the file's, and may have left it.
    pub fn knows(&self, principal: &Principal) -> bool {
        match principal {
            Principal::User { .. } => true,
            Principal::Token { name } => self.tokens.has(name),
        }
    }

    /// For refusals: the devices a principal may slow, as the policy names them.
    pub fn device_patterns(&self, principal: &Principal, control: ControlName) -> Vec<&str> {
        self.policy.device_patterns(principal, control)
    }

    /// What the policy declares to be a device's default, per control.
    pub fn declared(&self, device: &DeviceId) -> BTreeMap<ControlName, u32> {
        self.policy.declared(device)
    }
}

impl Access {
    pub fn load(files: AccessFiles) -> Result<Self, StartError> {
        let rules = files.load()?;
        let loaded = Loaded {
            at_unix_ms: unix_ms(),
            error: None,
            reloads: 0,
            reloads_refused: 0,
        };
        Ok(Self {
            files,
            state: RwLock::new(State { rules, loaded }),
            reloading: Mutex::new(()),
        })
    }

    /// What follows from the rules must be done before the answer is dropped: a reload waits for that, so that nothing
    /// is granted under rules that are no longer in force.
    pub fn rules(&self) -> RulesGuard<'_> {
        RulesGuard(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn loaded(&self) -> Loaded {
        self.rules().0.loaded.clone()
    }

    /// Reads the files again. Where one is invalid the old rules stay, and why is kept for `/readyz`; else `enforce`
    /// is called before anybody else sees the new ones.
    pub fn reload<T>(&self, enforce: impl FnOnce(&Rules) -> T) -> Result<T, StartError> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.files.load();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(rules) => {
                state.rules = rules;
                state.loaded.at_unix_ms = unix_ms();
                state.loaded.error = None;
                state.loaded.reloads += 1;
                Ok(enforce(&state.rules))
            }
            Err(wrong) => {
                state.loaded.error = Some(wrong.to_string());
                state.loaded.reloads_refused += 1;
                Err(wrong)
            }
        }
    }
}

pub struct RulesGuard<'a>(RwLockReadGuard<'a, State>);

impl std::ops::Deref for RulesGuard<'_> {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        &self.0.rules
    }
}

impl AccessFiles {
    fn load(&self) -> Result<Rules, StartError> {
        let policy = match &self.policy {
            Some(path) => Policy::load(path)?,
            None => Policy::for_observing(),
        };
        let tokens = match &self.tokens {
            Some(path) => Tokens::load(path)?,
            None => Tokens::default(),
        };
        Ok(Rules { policy, tokens })
    }
}

/// Wall time, for people: everything that is decided by time uses the monotonic clock.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
