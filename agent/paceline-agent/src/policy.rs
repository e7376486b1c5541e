//! Who may slow which devices, and how far. A file of root's (or the agent's own user's), read at start and on SIGHUP.
//! What it does not allow is denied; reading needs no rule, only the socket.

mod pattern;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::arbiter::{Allowance, ClockBounds, Terms};
use crate::device::{DeviceId, DeviceInfo};
use crate::json_fields::{FieldError, Fields};
use crate::limits::{
    CLOCK_MHZ_MAX, HOLD_MS_MAX, LOWERING_INTERVAL_MS_DEFAULT, LOWERING_INTERVAL_MS_MAX, POLICY_BYTES_MAX,
    POLICY_LIST_MAX, PRINCIPALS_MAX, TOKEN_NAME_CHARS_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
use crate::principal::{Principal, is_name};
use crate::start_error::StartError;
use crate::trusted_file::{self, Secrecy};
use pattern::Pattern;

const FORMAT: &str = "paceline-agent-policy/1";

#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
pub struct Rule {
    /// For audit lines and refusals.
    pub name: String,
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// Names, as the file of the tokens gives them.
    tokens: Vec<String>,
    devices: Vec<Pattern>,
    controls_clock: bool,
    pub floor_mhz: Option<u32>,
    pub ceiling_mhz: Option<u32>,
    pub ttl_ms_max: u64,
    pub hold_ms_max: u64,
    pub lowering_interval: Duration,
}

impl Policy {
    /// For `--observe` without a file.
    pub fn denying_all() -> Self {
        Self { rules: Vec::new() }
    }

    pub fn load(path: &Path) -> Result<Self, StartError> {
        let refused = |wrong: String| StartError::refused(format!("--policy {}: {wrong}", path.display()));
        let text = trusted_file::read(path, Secrecy::Public, POLICY_BYTES_MAX).map_err(refused)?;
        Self::parse(&text).map_err(refused)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|wrong| wrong.to_string())?;
        read_policy(&document).map_err(|wrong| wrong.to_string())
    }

    /// The first rule, in the order of the file, that names this principal (or one of its groups), this device and the
    /// clock.
    pub fn clock_rule(&self, principal: &Principal, device: &DeviceId) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            let names_device = rule.devices.iter().any(|pattern| pattern.matches(&device.0));
            rule.names(principal) && names_device && rule.controls_clock
        })
    }

    /// Of all rules that let this principal control a clock.
    pub fn device_patterns(&self, principal: &Principal) -> Vec<&str> {
        let rules = self.rules.iter();
        let rules = rules.filter(|rule| rule.names(principal) && rule.controls_clock);
        rules
            .flat_map(|rule| rule.devices.iter().map(Pattern::as_str))
            .collect()
    }
}

impl Rule {
    fn names(&self, principal: &Principal) -> bool {
        match principal {
            Principal::User { uid, gids } => {
                self.uids.contains(uid) || gids.iter().any(|gid| self.gids.contains(gid))
            }
            Principal::Token { name } => self.tokens.contains(name),
        }
    }

    /// What this rule lets a lease do to a device that it names.
    pub fn allowance(&self, device: &DeviceInfo) -> Allowance {
        Allowance {
            terms: Terms {
                bounds: ClockBounds::on(&device.clocks_mhz, self.floor_mhz, self.ceiling_mhz),
                hold_max: Duration::from_millis(self.hold_ms_max),
                lowering_interval: self.lowering_interval,
            },
            ttl_max: Duration::from_millis(self.ttl_ms_max),
        }
    }
}

fn read_policy(document: &Value) -> Result<Policy, FieldError> {
    let fields = Fields::of("", document, &["format", "principals"])?;
    if fields.needed_text("format")? != FORMAT {
        return Err(fields.wrong("format", format!("{FORMAT:?}")));
    }
    let principals = fields.needed_list("principals", PRINCIPALS_MAX)?;
    let rules = principals.iter().enumerate();
    let rules = rules.map(|(position, principal)| read_rule(position, principal));
    Ok(Policy {
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn read_rule(position: usize, principal: &Value) -> Result<Rule, FieldError> {
    const KEYS: [&str; 11] = [
        "name",
        "uids",
        "gids",
        "tokens",
        "devices",
        "controls",
        "floor_mhz",
        "ceiling_mhz",
        "max_ttl_ms",
        "max_hold_ms",
        "lowering_min_interval_ms",
    ];
    let place = format!("principals[{position}]");
    let fields = Fields::of(&place, principal, &KEYS)?;
    let uids = read_ids(&fields, "uids")?;
    let gids = read_ids(&fields, "gids")?;
    let tokens = read_token_names(&fields)?;
    if uids.is_empty() && gids.is_empty() && tokens.is_empty() {
        let allowed = "at least one of uids, gids and tokens; a rule for nobody is a mistake";
        return Err(fields.wrong("uids", allowed));
    }
    let floor_mhz = read_clock(&fields, "floor_mhz")?;
    let ceiling_mhz = read_clock(&fields, "ceiling_mhz")?;
    if let (Some(floor_mhz), Some(ceiling_mhz)) = (floor_mhz, ceiling_mhz)
        && floor_mhz > ceiling_mhz
    {
        return Err(fields.wrong("floor_mhz", format!("at most ceiling_mhz, {ceiling_mhz}")));
    }
    let lowering_interval_ms = fields
        .whole("lowering_min_interval_ms", 0..=LOWERING_INTERVAL_MS_MAX)?
        .unwrap_or(LOWERING_INTERVAL_MS_DEFAULT);
    Ok(Rule {
        name: fields.text("name")?.unwrap_or(&place).to_owned(),
        uids,
        gids,
        tokens,
        devices: read_patterns(&fields)?,
        controls_clock: read_controls(&fields)?,
        floor_mhz,
        ceiling_mhz,
        ttl_ms_max: fields
            .whole("max_ttl_ms", TTL_MS_MIN..=TTL_MS_MAX)?
            .unwrap_or(TTL_MS_MAX),
        hold_ms_max: fields
            .whole("max_hold_ms", 1..=HOLD_MS_MAX)?
            .unwrap_or(HOLD_MS_MAX),
        lowering_interval: Duration::from_millis(lowering_interval_ms),
    })
}

fn read_ids(fields: &Fields<'_>, key: &str) -> Result<Vec<u32>, FieldError> {
    let list = fields.list(key, POLICY_LIST_MAX)?.unwrap_or_default();
    let ids = list.iter().enumerate().map(|(position, value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| FieldError {
            field: format!("{}[{position}]", fields.at(key)),
            given: Some(value.clone()),
            allowed: "a numeric id; names are not looked up".to_owned(),
        })
    });
    ids.collect()
}

fn read_token_names(fields: &Fields<'_>) -> Result<Vec<String>, FieldError> {
    let names = fields.texts("tokens", POLICY_LIST_MAX)?.unwrap_or_default();
    let names = names.into_iter().enumerate().map(|(position, name)| {
        is_name(name, TOKEN_NAME_CHARS_MAX)
            .then(|| name.to_owned())
            .ok_or_else(|| FieldError {
                field: format!("{}[{position}]", fields.at("tokens")),
                given: Some(Value::from("not a name")),
                allowed: "a name from the file of the tokens; the token itself stands only there".to_owned(),
            })
    });
    names.collect()
}

fn read_patterns(fields: &Fields<'_>) -> Result<Vec<Pattern>, FieldError> {
    let texts = fields.texts("devices", POLICY_LIST_MAX)?;
    let texts = texts.filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| fields.wrong("devices", "device ids, `*` for any characters"))?;
    Ok(texts.into_iter().map(Pattern::new).collect())
}

fn read_controls(fields: &Fields<'_>) -> Result<bool, FieldError> {
    let controls = fields.texts("controls", POLICY_LIST_MAX)?;
    let controls = controls.ok_or_else(|| fields.wrong("controls", "a list of \"clock\""))?;
    if controls.iter().any(|control| *control != "clock") {
        return Err(fields.wrong("controls", "a list of \"clock\", the only control so far"));
    }
    Ok(!controls.is_empty())
}

fn read_clock(fields: &Fields<'_>, key: &str) -> Result<Option<u32>, FieldError> {
    let clock_mhz = fields.whole(key, 1..=CLOCK_MHZ_MAX)?;
    Ok(clock_mhz.map(|clock_mhz| u32::try_from(clock_mhz).expect("CLOCK_MHZ_MAX fits")))
}
