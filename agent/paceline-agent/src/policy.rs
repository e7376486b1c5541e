//! Who may slow which devices, and how far. A file of root's (or the agent's own user's), read at start and on SIGHUP.
//! What it does not allow is denied; reading needs no rule, only the socket.

mod pattern;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::arbiter::{Allowance, Bounds, Terms};
use crate::device::{ControlName, DeviceId};
use crate::json_fields::{FieldError, Fields};
use crate::limits::{
    HOLD_MS_MAX, LOWERING_INTERVAL_MS_DEFAULT, LOWERING_INTERVAL_MS_MAX, POLICY_BYTES_MAX, POLICY_LIST_MAX,
    PRINCIPALS_MAX, TOKEN_NAME_CHARS_MAX, TTL_MS_MAX, TTL_MS_MIN, value_max,
};
use crate::principal::{Principal, is_name};
use crate::start_error::StartError;
use crate::trusted_file::{self, Secrecy};
use pattern::Pattern;

const FORMAT: &str = "paceline-agent-policy/1";

#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    baselines: Vec<DeclaredBaseline>,
}

/// What counts as the default of these devices, where nothing can tell it: locked clocks have no getter.
#[derive(Debug)]
struct DeclaredBaseline {
    devices: Vec<Pattern>,
    values: BTreeMap<ControlName, u32>,
}

/// What a demand is clamped to. `None`: the device's own end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub floor: Option<u32>,
    pub ceiling: Option<u32>,
}

#[derive(Debug)]
pub struct Rule {
    /// For audit lines and refusals.
    pub name: String,
    /// Not from a file: see `for_observing`.
    names_everybody: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// Names, as the file of the tokens gives them.
    tokens: Vec<String>,
    devices: Vec<Pattern>,
    pub controls: BTreeSet<ControlName>,
    ranges: BTreeMap<ControlName, Range>,
    pub ttl_ms_max: u64,
    pub hold_ms_max: u64,
    pub lowering_interval: Duration,
}

impl Policy {
    /// For `--observe` without a file: nothing is set, so everybody may hear what would be.
    pub fn for_observing() -> Self {
        let everything = Rule {
            name: "observe".to_owned(),
            names_everybody: true,
            uids: Vec::new(),
            gids: Vec::new(),
            tokens: Vec::new(),
            devices: vec![Pattern::new("*")],
            controls: ControlName::ALL.into(),
            ranges: BTreeMap::new(),
            ttl_ms_max: TTL_MS_MAX,
            hold_ms_max: HOLD_MS_MAX,
            lowering_interval: Duration::from_millis(LOWERING_INTERVAL_MS_DEFAULT),
        };
        Self {
            rules: vec![everything],
            baselines: Vec::new(),
        }
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

    /// What the first entry that names the device declares to be its default, per control.
    pub fn declared(&self, device: &DeviceId) -> BTreeMap<ControlName, u32> {
        let named = self
            .baselines
            .iter()
            .find(|baseline| names(&baseline.devices, device));
        named.map(|baseline| baseline.values.clone()).unwrap_or_default()
    }

    /// The first rule, in the order of the file, that names this principal (or one of its groups), this device and this
    /// control.
    pub fn rule(&self, principal: &Principal, device: &DeviceId, control: ControlName) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            rule.names(principal) && names(&rule.devices, device) && rule.controls.contains(&control)
        })
    }

    /// Of all rules that let this principal set this control.
    pub fn device_patterns(&self, principal: &Principal, control: ControlName) -> Vec<&str> {
        let rules = self.rules.iter();
        let rules = rules.filter(|rule| rule.names(principal) && rule.controls.contains(&control));
        rules
            .flat_map(|rule| rule.devices.iter().map(Pattern::as_str))
            .collect()
    }
}

impl Rule {
    pub fn range(&self, control: ControlName) -> Range {
        self.ranges.get(&control).copied().unwrap_or_default()
    }

    fn names(&self, principal: &Principal) -> bool {
        let is_named = match principal {
            Principal::User { uid, gids } => {
                self.uids.contains(uid) || gids.iter().any(|gid| self.gids.contains(gid))
            }
            Principal::Token { name } => self.tokens.contains(name),
        };
        is_named || self.names_everybody
    }

    /// What this rule lets a lease do to a control that it names, on the control's own steps.
    pub fn allowance(&self, control: ControlName, steps: &[u32]) -> Allowance {
        let Range { floor, ceiling } = self.range(control);
        Allowance {
            terms: Terms {
                bounds: Bounds::on(steps, floor, ceiling),
                hold_max: Duration::from_millis(self.hold_ms_max),
                lowering_interval: self.lowering_interval,
            },
            ttl_max: Duration::from_millis(self.ttl_ms_max),
        }
    }
}

fn names(patterns: &[Pattern], device: &DeviceId) -> bool {
    patterns.iter().any(|pattern| pattern.matches(&device.0))
}

fn read_policy(document: &Value) -> Result<Policy, FieldError> {
    let fields = Fields::of("", document, &["format", "principals", "baselines"])?;
    if fields.needed_text("format")? != FORMAT {
        return Err(fields.wrong("format", format!("{FORMAT:?}")));
    }
    let principals = fields.needed_list("principals", PRINCIPALS_MAX)?;
    let rules = principals.iter().enumerate();
    let rules = rules.map(|(position, principal)| read_rule(position, principal));
    let baselines = fields.list("baselines", POLICY_LIST_MAX)?.unwrap_or_default();
    let baselines = baselines.iter().enumerate();
    let baselines = baselines.map(|(position, baseline)| read_baseline(position, baseline));
    Ok(Policy {
        rules: rules.collect::<Result<_, _>>()?,
        baselines: baselines.collect::<Result<_, _>>()?,
    })
}

fn read_baseline(position: usize, baseline: &Value) -> Result<DeclaredBaseline, FieldError> {
    let place = format!("baselines[{position}]");
    let fields = Fields::of(&place, baseline, &["devices", "clock_mhz", "power_limit_mw"])?;
    let mut values = BTreeMap::new();
    for (control, key) in [
        (ControlName::Clock, "clock_mhz"),
        (ControlName::PowerLimit, "power_limit_mw"),
    ] {
        if let Some(value) = read_value(&fields, key, control)? {
            values.insert(control, value);
        }
    }
    if values.is_empty() {
        return Err(fields.wrong(
            "clock_mhz",
            "clock_mhz, power_limit_mw or both; a baseline of nothing is a mistake",
        ));
    }
    Ok(DeclaredBaseline {
        devices: read_patterns(&fields)?,
        values,
    })
}

fn read_rule(position: usize, principal: &Value) -> Result<Rule, FieldError> {
    const KEYS: [&str; 13] = [
        "name",
        "uids",
        "gids",
        "tokens",
        "devices",
        "controls",
        "floor_mhz",
        "ceiling_mhz",
        "floor_power_limit_mw",
        "ceiling_power_limit_mw",
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
    let clock = read_range(&fields, ControlName::Clock, "floor_mhz", "ceiling_mhz")?;
    let power_limit = read_range(
        &fields,
        ControlName::PowerLimit,
        "floor_power_limit_mw",
        "ceiling_power_limit_mw",
    )?;
    let lowering_interval_ms = fields
        .whole("lowering_min_interval_ms", 0..=LOWERING_INTERVAL_MS_MAX)?
        .unwrap_or(LOWERING_INTERVAL_MS_DEFAULT);
    Ok(Rule {
        name: fields.text("name")?.unwrap_or(&place).to_owned(),
        names_everybody: false,
        uids,
        gids,
        tokens,
        devices: read_patterns(&fields)?,
        controls: read_controls(&fields)?,
        ranges: [
            (ControlName::Clock, clock),
            (ControlName::PowerLimit, power_limit),
        ]
        .into(),
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

fn read_controls(fields: &Fields<'_>) -> Result<BTreeSet<ControlName>, FieldError> {
    let allowed = "a list of \"clock\", \"power_limit\"";
    let texts = fields.texts("controls", POLICY_LIST_MAX)?;
    let texts = texts.ok_or_else(|| fields.wrong("controls", allowed))?;
    let controls = texts.into_iter().map(ControlName::parse);
    let controls: Option<BTreeSet<ControlName>> = controls.collect();
    controls.ok_or_else(|| fields.wrong("controls", allowed))
}

fn read_range(
    fields: &Fields<'_>,
    control: ControlName,
    floor_key: &str,
    ceiling_key: &str,
) -> Result<Range, FieldError> {
    let floor = read_value(fields, floor_key, control)?;
    let ceiling = read_value(fields, ceiling_key, control)?;
    if let (Some(floor), Some(ceiling)) = (floor, ceiling)
        && floor > ceiling
    {
        return Err(fields.wrong(floor_key, format!("at most {ceiling_key}, {ceiling}")));
    }
    Ok(Range { floor, ceiling })
}

fn read_value(fields: &Fields<'_>, key: &str, control: ControlName) -> Result<Option<u32>, FieldError> {
    let value = fields.whole(key, 1..=value_max(control))?;
    Ok(value.map(|value| u32::try_from(value).expect("both bounds fit")))
}
