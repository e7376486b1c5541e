use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Tokens;

/// Names by their tokens.
fn entries() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[A-Za-z0-9._~+/=-]{32,256}", "[A-Za-z0-9._:-]{1,64}", 1..8)
}

fn file(entries: &BTreeMap<String, String>) -> String {
    let lines = entries
        .iter()
        .map(|(token, name)| format!(" {name}\t{token}\n# {name}\n\n"));
    lines.collect()
}

proptest! {
    #[test]
    fn a_token_is_its_own_name_s(entries in entries(), other in "[A-Za-z0-9._~+/=-]{0,300}") {
        let tokens = Tokens::parse(&file(&entries)).map_err(TestCaseError::fail)?;
        for (token, name) in &entries {
            prop_assert_eq!(tokens.name_of(token), Some(name.as_str()));
            prop_assert!(tokens.has(name));
        }
        prop_assert_eq!(tokens.name_of(&other), entries.get(&other).map(String::as_str));
    }

    #[test]
    fn a_token_that_is_nearly_one_is_none(
        entries in entries(), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        instead in any::<char>(),
    ) {
        let tokens = Tokens::parse(&file(&entries)).map_err(TestCaseError::fail)?;
        let token = entries.keys().nth(which.index(entries.len())).expect("one of them");
        let mut changed: Vec<char> = token.chars().collect();
        changed[at.index(token.len())] = instead;
        let changed: String = changed.into_iter().collect();
        prop_assert_eq!(tokens.name_of(&changed), entries.get(&changed).map(String::as_str));
        for cut in [&token[1..], &token[..token.len() - 1]] {
            prop_assert_eq!(tokens.name_of(cut), entries.get(cut).map(String::as_str));
        }
    }

    #[test]
    fn a_refusal_has_a_line_s_number_and_no_token(
        entries in entries(), broken in "[^\n\r]{1,80}", before in any::<bool>(),
    ) {
        let sound = file(&entries);
        let text = if before { format!("{broken}\n{sound}") } else { format!("{sound}{broken}\n") };
        if let Err(wrong) = Tokens::parse(&text) {
            prop_assert!(wrong.starts_with("line "), "{}", wrong);
            for token in entries.keys() {
                prop_assert!(!wrong.contains(token.as_str()), "{}", wrong);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(.|\n){0,200}") {
        let _ = Tokens::parse(&text);
        let _ = Tokens::default().name_of(&text);
    }
}
