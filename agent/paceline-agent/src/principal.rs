//! Who a lease belongs to and whom the policy judges: a user, as the kernel says, or the holder of a token.

use std::fmt;

#[derive(Clone, Debug)]
pub enum Principal {
    User {
        uid: u32,
        /// Its primary group and all others, when it connected.
        gids: Vec<u32>,
    },
    Token {
        name: String,
    },
}

impl Principal {
    /// The same one, whatever groups it is in by now.
    pub fn is(&self, other: &Principal) -> bool {
        match (self, other) {
            (Principal::User { uid, .. }, Principal::User { uid: other, .. }) => uid == other,
            (Principal::Token { name }, Principal::Token { name: other }) => name == other,
            (Principal::User { .. }, Principal::Token { .. })
            | (Principal::Token { .. }, Principal::User { .. }) => false,
        }
    }

    pub fn uid(&self) -> Option<u32> {
        match self {
            Principal::User { uid, .. } => Some(*uid),
            Principal::Token { .. } => None,
        }
    }

    pub fn token(&self) -> Option<&str> {
        match self {
            Principal::User { .. } => None,
            Principal::Token { name } => Some(name),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User { uid, .. } => write!(formatter, "uid {uid}"),
            Principal::Token { name } => write!(formatter, "token {name}"),
        }
    }
}

/// Names of holders and of tokens: nothing that would have to be quoted in a log line, a label or a path.
pub fn is_name(text: &str, chars_max: usize) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    (1..=chars_max).contains(&text.len()) && text.bytes().all(is_allowed)
}
