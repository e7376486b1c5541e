//! One command as the site wrote it: argv with places for numbers. Never a shell, and nothing but numbers goes in.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::json_fields::{FieldError, Fields};
use crate::limits::EXEC_ARGS_MAX;
use crate::trusted_file::{self, Secrecy};

/// What may stand in braces. Closed: an unknown one is refused at start, not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    ClockMhz,
    LowestMhz,
    HighestMhz,
    PowerLimitMw,
    PowerLimitW,
    HighestPowerLimitMw,
    HighestPowerLimitW,
}

impl Placeholder {
    pub fn as_str(self) -> &'static str {
        match self {
            Placeholder::ClockMhz => "clock_mhz",
            Placeholder::LowestMhz => "lowest_mhz",
            Placeholder::HighestMhz => "highest_mhz",
            Placeholder::PowerLimitMw => "power_limit_mw",
            Placeholder::PowerLimitW => "power_limit_w",
            Placeholder::HighestPowerLimitMw => "highest_power_limit_mw",
            Placeholder::HighestPowerLimitW => "highest_power_limit_w",
        }
    }

    pub fn is_in_watts(self) -> bool {
        matches!(self, Placeholder::PowerLimitW | Placeholder::HighestPowerLimitW)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number(Placeholder),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Found once, at start: what `PATH` says later changes nothing.
    pub program: PathBuf,
    /// As the site wrote it; some programs go by it.
    pub name: String,
    args: Vec<Vec<Piece>>,
}

impl Template {
    /// The template under `key`, if there is one, in which only `known` may stand in braces.
    pub fn read(
        fields: &Fields<'_>,
        key: &str,
        known: &[Placeholder],
        path: &OsStr,
    ) -> Result<Option<Self>, FieldError> {
        let Some(texts) = fields.texts(key, EXEC_ARGS_MAX)? else {
            return Ok(None);
        };
        let Some((&name, args)) = texts.split_first() else {
            return Err(fields.wrong(key, "a command and its arguments, each a string of its own"));
        };
        let wrong = |position: usize, allowed: String| FieldError {
            field: format!("{}[{position}]", fields.at(key)),
            given: Some(Value::String(texts[position].to_owned())),
            allowed,
        };
        let program = find(name, path).map_err(|allowed| wrong(0, allowed))?;
        let args = args
            .iter()
            .enumerate()
            .map(|(position, text)| pieces(text, known).map_err(|allowed| wrong(position + 1, allowed)));
        Ok(Some(Self {
            program,
            name: name.to_owned(),
            args: args.collect::<Result<_, _>>()?,
        }))
    }

    pub fn names(&self, wanted: Placeholder) -> bool {
        let mut pieces = self.args.iter().flatten();
        pieces.any(|piece| *piece == Piece::Number(wanted))
    }

    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> {
        self.args.iter().flatten().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Number(placeholder) => Some(*placeholder),
        })
    }

    /// The arguments, with the numbers in their places.
    pub fn fill(&self, number: impl Fn(Placeholder) -> u32) -> Vec<String> {
        let fill = |pieces: &Vec<Piece>| {
            pieces.iter().fold(String::new(), |filled, piece| match piece {
                Piece::Text(text) => filled + text,
                Piece::Number(placeholder) => filled + &number(*placeholder).to_string(),
            })
        };
        self.args.iter().map(fill).collect()
    }
}

/// `{{` and `}}` are braces that are meant.
fn pieces(text: &str, known: &[Placeholder]) -> Result<Vec<Piece>, String> {
    let allowed = || {
        let names: Vec<String> = known.iter().map(|one| format!("{{{}}}", one.as_str())).collect();
        let names = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        format!("braces only around what is known here ({names}), others doubled; no NUL")
    };
    if text.contains('\0') {
        return Err(allowed());
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('}').ok_or_else(allowed)?;
        let found = known.iter().find(|one| brace == "{" && one.as_str() == name);
        let placeholder = *found.ok_or_else(allowed)?;
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(Piece::Number(placeholder));
        rest = after;
    }
    plain.push_str(rest);
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

/// Whoever can write the program can do what this agent may do, so its owner and mode are checked as the policy's.
fn find(name: &str, path: &OsStr) -> Result<PathBuf, String> {
    let searched = path.to_string_lossy();
    let program = if name.starts_with('/') {
        PathBuf::from(name)
    } else if name.is_empty() || name.contains('/') {
        return Err(format!("an absolute path, or a name to be found in {searched}"));
    } else {
        let candidates = std::env::split_paths(path).filter(|directory| directory.is_absolute());
        let mut candidates = candidates.map(|directory| directory.join(name));
        let found = candidates.find(|candidate| is_executable(candidate));
        found.ok_or_else(|| format!("an absolute path, or a name to be found in {searched}"))?
    };
    // Not opened: a `sudo` may be executable and not readable.
    let metadata = program.metadata().map_err(|wrong| wrong.to_string());
    match metadata.and_then(|metadata| trusted_file::check(&metadata, Secrecy::Public)) {
        Err(wrong) => Err(format!("a program of root's or this user's: {wrong}")),
        Ok(()) if !is_executable(&program) => Err("a program that can be executed".to_owned()),
        Ok(()) => Ok(program),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_into_their_places_and_doubled_braces_are_braces() {
        let known = [Placeholder::ClockMhz, Placeholder::LowestMhz];
        let template = Template {
            program: "/bin/true".into(),
            name: "true".to_owned(),
            args: vec![
                pieces("{lowest_mhz},{clock_mhz}", &known).expect("both known"),
                pieces("{{\"mhz\": {clock_mhz}}}", &known).expect("known, and braces"),
            ],
        };
        let filled = template.fill(|one| if one == Placeholder::ClockMhz { 990 } else { 210 });
        assert_eq!(filled, ["210,990", "{\"mhz\": 990}"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "{clock}",
            "{",
            "}",
            "{clock_mhz",
            "{power_limit_mw}",
            "{clock_mhz}}",
            "{}",
            "a\0",
        ] {
            assert!(pieces(text, &[Placeholder::ClockMhz]).is_err(), "{text}");
        }
    }
}
