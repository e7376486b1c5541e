//! A device pattern: literal characters, and `*` for any number of any characters.

#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    pieces: Vec<String>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            pieces: text.split('*').map(str::to_owned).collect(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, text: &str) -> bool {
        let (first, rest) = self.pieces.split_first().expect("split gives at least one piece");
        let Some(mut left) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some((last, middle)) = rest.split_last() else {
            return left.is_empty();
        };
        // The leftmost place is always good enough for a piece between two stars.
        for piece in middle {
            let Some(found) = left.find(piece.as_str()) else {
                return false;
            };
            left = &left[found + piece.len()..];
        }
        left.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        let cases = [
            ("sim:*", "sim:0", true),
            ("sim:*", "nvml:GPU-0", false),
            ("sim:1", "sim:10", false),
            ("*", "anything", true),
            ("nvml:GPU-*-a*", "nvml:GPU-12-ab", true),
            ("nvml:GPU-*-a", "nvml:GPU-12-ab", false),
            ("a*a", "a", false),
            ("", "sim:0", false),
        ];
        for (pattern, text, wanted) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), wanted, "{pattern} on {text}");
        }
    }
}
