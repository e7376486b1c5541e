//! Bearer tokens of clients that come over loopback TCP, and who each of them is. Compared in constant time; never in a
//! message, a log line or a `Debug`.

use std::fmt;
use std::path::Path;

use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::limits::{
    TOKEN_CHARS_MAX, TOKEN_CHARS_MIN, TOKEN_FILE_BYTES_MAX, TOKEN_NAME_CHARS_MAX, TOKENS_MAX,
};
use crate::principal::is_name;
use crate::start_error::StartError;
use crate::trusted_file::{self, Secrecy};

#[derive(Default)]
pub struct Tokens {
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    secret: Secret,
}

/// Filled up with zeros, which no token contains: tokens of all lengths take the same time.
struct Secret([u8; TOKEN_CHARS_MAX]);

impl Tokens {
    pub fn load(path: &Path) -> Result<Self, StartError> {
        let refused = |wrong| StartError::refused(format!("--tcp-token-file {}: {wrong}", path.display()));
        let text = trusted_file::read(path, Secrecy::Secret, TOKEN_FILE_BYTES_MAX).map_err(refused)?;
        Self::parse(&text).map_err(refused)
    }

    /// `name token` a line; empty lines and those that begin with `#` are passed over. A name may have two tokens, so
    /// that one can be replaced without a gap.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut this = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line's number only: what stands in it may be a secret in the wrong place.
            let entry = Entry::parse(line).map_err(|wrong| format!("line {}: {wrong}", index + 1))?;
            let same = this
                .entries
                .iter()
                .find(|other| bool::from(other.secret.0.ct_eq(&entry.secret.0)));
            if let Some(same) = same {
                let name = &same.name;
                return Err(format!(
                    "line {}: the token of {name:?} once more; wanted one of its own",
                    index + 1
                ));
            }
            if this.entries.len() == TOKENS_MAX {
                return Err(format!("line {}: wanted at most {TOKENS_MAX} tokens", index + 1));
            }
            this.entries.push(entry);
        }
        if this.entries.is_empty() {
            return Err("no token in it; wanted lines of `name token`".to_owned());
        }
        Ok(this)
    }

    /// Whose token it is. Every entry is compared in full, whichever matches: the time tells nothing.
    pub fn name_of(&self, presented: &str) -> Option<&str> {
        const NONE: u32 = u32::MAX;
        let presented = Secret::of(presented)?;
        let mut found = NONE;
        for (index, entry) in (0..).zip(&self.entries) {
            found.conditional_assign(&index, entry.secret.0.ct_eq(&presented.0));
        }
        let found = usize::try_from(found).ok()?;
        self.entries.get(found).map(|entry| entry.name.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.entries.iter().map(|entry| &entry.name))
            .finish()
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return Err("wanted `name token` and nothing else".to_owned());
        };
        if !is_name(name, TOKEN_NAME_CHARS_MAX) {
            return Err(format!(
                "the name: wanted 1 to {TOKEN_NAME_CHARS_MAX} of A-Z a-z 0-9 . _ : -"
            ));
        }
        let secret = Secret::of(token).filter(|_| token.len() >= TOKEN_CHARS_MIN);
        let secret = secret.ok_or_else(|| {
            format!(
                "the token of {name:?}: got {} characters, wanted {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} of \
                 A-Z a-z 0-9 - . _ ~ + / = (openssl rand -hex 32)",
                token.chars().count()
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            secret,
        })
    }
}

impl Secret {
    /// `None` for what cannot be a token: RFC 6750's characters, as many as fit.
    fn of(token: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let mut bytes = [0u8; TOKEN_CHARS_MAX];
        if !token.bytes().all(is_allowed) {
            return None;
        }
        bytes.get_mut(..token.len())?.copy_from_slice(token.as_bytes());
        Some(Self(bytes))
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210-and-more";

    #[test]
    fn a_token_is_its_name_s_and_nothing_near_it_is() {
        let text = format!("# gateways\n\ngateway-1 {A}\n gateway-2\t{B} \n");
        let tokens = Tokens::parse(&text).expect("valid");
        let cases = [
            (A, Some("gateway-1")),
            (B, Some("gateway-2")),
            (&A[..31], None),
            (&A.to_uppercase(), None),
            (&format!("{A}0"), None),
            (&format!("{A}\0"), None),
            ("", None),
            (&"x".repeat(TOKEN_CHARS_MAX + 1), None),
        ];
        for (presented, wanted) in cases {
            assert_eq!(tokens.name_of(presented), wanted, "{presented}");
        }
        assert!(tokens.has("gateway-2") && !tokens.has("gateway-3"));
        assert_eq!(format!("{tokens:?}"), r#"["gateway-1", "gateway-2"]"#);
    }

    #[test]
    fn a_name_may_have_two_tokens_and_a_token_one_name() {
        assert!(Tokens::parse(&format!("a {A}\na {B}")).is_ok());
        let wrong = Tokens::parse(&format!("a {A}\nb {A}")).expect_err("one token, two names");
        assert!(wrong.starts_with("line 2:"), "{wrong}");
    }

    #[test]
    fn a_mistake_is_refused_with_its_line_and_without_its_token() {
        let cases = [
            String::new(),
            "# nothing".to_owned(),
            format!("a {A}\n{B}"),
            format!("a {A}\nb {B} c"),
            format!("a {A}\nb\"c {B}"),
            format!("a {A}\nb {}", &B[..31]),
            format!("a {A}\nb {B}\u{e9}"),
            format!("a {A}\nb {}", "x".repeat(TOKEN_CHARS_MAX + 1)),
        ];
        for text in cases {
            let wrong = Tokens::parse(&text).expect_err(&text);
            assert!(
                wrong.starts_with("line 2:") || wrong.starts_with("no token"),
                "{wrong}"
            );
            assert!(!wrong.contains(&B[..31]), "{wrong}");
        }
    }
}
