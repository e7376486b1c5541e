//! The query of a URL, decoded; keys that a path does not know are refused.

#[cfg(test)]
mod properties;

use hyper::Uri;
use serde_json::Value;

use super::problem::{Problem, ProblemKind};
use crate::json_fields::{quotable, shortened};

/// Of a key that no path knows, in a refusal.
const KEY_CHARS_MAX: usize = 100;

pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn of(uri: &Uri, keys: &[&str]) -> Result<Self, Problem> {
        let text = uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        if let Some((key, value)) = pairs.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            let known = match keys {
                [] => "no query".to_owned(),
                keys => keys.join(", "),
            };
            let key = shortened(key.clone(), KEY_CHARS_MAX);
            let wrong = format!("query {key}: no such key; this path knows {known}");
            let problem = Problem::new(ProblemKind::BadRequest, wrong).at(key);
            return Err(problem
                .given(quotable(Value::from(value.as_str())))
                .allowed(known));
        }
        Ok(Self { pairs })
    }

    pub fn all(&self, key: &str) -> Vec<&str> {
        let named = self.pairs.iter().filter(|(name, _)| name == key);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn whole(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let given = self.all(key);
        let (text, is_alone) = match given.as_slice() {
            [] => return Ok(None),
            [text, others @ ..] => (*text, others.is_empty()),
        };
        match text
            .parse()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|number| is_alone && range.contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => {
                let allowed = format!("one whole number from {} to {}", range.start(), range.end());
                let given = quotable(Value::from(text));
                let wrong = format!("query {key}: got {given}, wanted {allowed}");
                let problem = Problem::new(ProblemKind::BadRequest, wrong).at(key);
                Err(problem.given(given).allowed(allowed))
            }
        }
    }
}
