//! Reads JSON field by field, so that a refusal can say which field, what was given and what is allowed. Unknown keys
//! are refused: a misspelt `hold_ms` must not be a lease without a hold. Serves the request bodies and the policy.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// `targets[0].clock_mhz`; empty for the whole document.
    pub field: String,
    pub given: Option<Value>,
    pub allowed: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.field.is_empty() {
            "the document"
        } else {
            &self.field
        };
        match &self.given {
            Some(given) => write!(
                formatter,
                "{field}: got {}, wanted {}",
                shortened(given.to_string(), GIVEN_CHARS_MAX),
                self.allowed
            ),
            None => write!(formatter, "{field}: missing, wanted {}", self.allowed),
        }
    }
}

/// Error messages quote what was given, but not all of a 64 KiB body.
const GIVEN_CHARS_MAX: usize = 120;

pub fn shortened(text: String, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The value itself where it is small, else the beginning of its text.
pub fn quotable(given: Value) -> Value {
    if given.to_string().len() <= GIVEN_CHARS_MAX {
        return given;
    }
    Value::String(shortened(given.to_string(), GIVEN_CHARS_MAX))
}

/// One JSON object and where it stands in the document.
pub struct Fields<'a> {
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn of(place: &str, value: &'a Value, keys: &[&str]) -> Result<Self, FieldError> {
        let Value::Object(map) = value else {
            return Err(FieldError {
                field: place.to_owned(),
                given: Some(value.clone()),
                allowed: format!("an object with {}", keys.join(", ")),
            });
        };
        let this = Self {
            place: place.to_owned(),
            map,
        };
        if let Some(key) = map.keys().find(|key| !keys.contains(&key.as_str())) {
            return Err(FieldError {
                field: this.at(key),
                given: Some(map[key].clone()),
                allowed: format!("no such key; known are {}", keys.join(", ")),
            });
        }
        Ok(this)
    }

    pub fn at(&self, key: &str) -> String {
        if self.place.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place)
        }
    }

    /// The field as it stands; `null` is a value.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub fn wrong(&self, key: &str, allowed: impl Into<String>) -> FieldError {
        FieldError {
            field: self.at(key),
            given: self.raw(key).cloned(),
            allowed: allowed.into(),
        }
    }

    pub fn whole(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.raw(key) else {
            return Ok(None);
        };
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, whole_number(&range))),
        }
    }

    pub fn needed_whole(&self, key: &str, range: RangeInclusive<u64>) -> Result<u64, FieldError> {
        let allowed = whole_number(&range);
        self.whole(key, range)?.ok_or_else(|| self.wrong(key, allowed))
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, FieldError> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub fn needed_text(&self, key: &str) -> Result<&'a str, FieldError> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "a string"))
    }

    pub fn list(&self, key: &str, count_max: usize) -> Result<Option<&'a [Value]>, FieldError> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= count_max => Ok(Some(list)),
            Some(Value::Array(list)) => Err(FieldError {
                field: self.at(key),
                given: Some(Value::String(format!("{} entries", list.len()))),
                allowed: format!("a list of at most {count_max}"),
            }),
            Some(_) => Err(self.wrong(key, format!("a list of at most {count_max}"))),
        }
    }

    pub fn needed_list(&self, key: &str, count_max: usize) -> Result<&'a [Value], FieldError> {
        self.list(key, count_max)?
            .ok_or_else(|| self.wrong(key, format!("a list of at most {count_max}")))
    }

    pub fn texts(&self, key: &str, count_max: usize) -> Result<Option<Vec<&'a str>>, FieldError> {
        let Some(list) = self.list(key, count_max)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(list.len());
        for (position, value) in list.iter().enumerate() {
            let text = value.as_str().ok_or_else(|| FieldError {
                field: format!("{}[{position}]", self.at(key)),
                given: Some(value.clone()),
                allowed: "a string".to_owned(),
            })?;
            texts.push(text);
        }
        Ok(Some(texts))
    }
}

fn whole_number(range: &RangeInclusive<u64>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub use properties::any_json;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_names_the_field_what_was_given_and_what_is_allowed() {
        let value = json!({"ttl_ms": 5});
        let fields = Fields::of("", &value, &["ttl_ms", "seq"]).expect("known keys");
        let wrong = fields.whole("ttl_ms", 100..=60_000).expect_err("too small");
        assert_eq!(
            wrong.to_string(),
            "ttl_ms: got 5, wanted a whole number from 100 to 60000"
        );
        let missing = fields.needed_whole("seq", 0..=9).expect_err("missing");
        assert_eq!(
            missing.to_string(),
            "seq: missing, wanted a whole number from 0 to 9"
        );
    }

    #[test]
    fn numbers_that_are_not_whole_are_refused() {
        for given in [json!(1.5), json!(-1), json!("5"), json!(null), json!(1e3)] {
            let value = json!({"seq": given});
            let fields = Fields::of("", &value, &["seq"]).expect("known keys");
            assert!(fields.whole("seq", 0..=10_000).is_err(), "{value}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let value = json!({"hold": 5});
        let wrong = Fields::of("targets[1]", &value, &["hold_ms"])
            .err()
            .expect("unknown");
        assert_eq!(wrong.field, "targets[1].hold");
    }
}
