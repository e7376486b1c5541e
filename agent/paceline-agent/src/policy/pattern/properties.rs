use proptest::prelude::*;

use super::Pattern;

/// By trying every place for every star.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        (Some((wanted, pattern)), Some((found, text))) => wanted == found && matches(pattern, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_as_its_definition_does(pattern in "[ab:*é]{0,8}", text in "[ab:é]{0,10}") {
        let [slow_pattern, slow_text] = [&pattern, &text].map(|text| text.chars().collect::<Vec<char>>());
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), matches(&slow_pattern, &slow_text));
    }
}
