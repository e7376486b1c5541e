use hyper::Uri;
use proptest::prelude::*;

use super::Query;

const KEYS: [&str; 2] = ["device", "period_ms"];

fn uri(query: &str) -> Option<Uri> {
    format!("/v1/samples?{query}").parse().ok()
}

proptest! {
    #[test]
    fn what_was_encoded_is_read_as_it_was(values in proptest::collection::vec(".{0,40}", 0..8)) {
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        for value in &values {
            encoded.append_pair("device", value);
        }
        let uri = uri(&encoded.finish()).expect("encoded");
        let Ok(query) = Query::of(&uri, &KEYS) else {
            return Err(TestCaseError::fail("a known key was refused"));
        };
        prop_assert_eq!(query.all("device"), values);
        prop_assert!(query.all("period_ms").is_empty());
    }

    #[test]
    fn any_query_at_all_is_read_or_refused(text in "[ -~]{0,80}|.{0,30}|([%&=+;]|%[0-9a-fA-F]{2}){0,40}") {
        // What hyper takes for no URI never comes this far.
        if let Some(uri) = uri(&text) {
            let asked: Vec<(String, String)> =
                form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
            let is_known = asked.iter().all(|(key, _)| KEYS.contains(&key.as_str()));
            prop_assert_eq!(Query::of(&uri, &KEYS).is_ok(), is_known);
        }
    }

    #[test]
    fn a_number_is_one_whole_number_in_range(numbers in proptest::collection::vec(any::<u64>(), 1..3), highest in any::<u64>()) {
        let said: Vec<String> = numbers.iter().map(|number| format!("period_ms={number}")).collect();
        let uri = uri(&said.join("&")).expect("digits");
        let Ok(query) = Query::of(&uri, &KEYS) else {
            return Err(TestCaseError::fail("a known key was refused"));
        };
        let wanted = (numbers.len() == 1 && numbers[0] <= highest).then_some(Some(numbers[0]));
        prop_assert_eq!(query.whole("period_ms", 0..=highest).ok(), wanted);
    }
}
