use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Fields, quotable, shortened};

const KEYS: [&str; 3] = ["clock_mhz", "devices", "hold_ms"];

pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[\\x00-\\x1f\"\\\\]{0,400}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let key =
            prop_oneof![3 => proptest::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..5)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_said_is_taken_or_refused_with_its_place(value in any_json()) {
        match Fields::of("targets[0]", &value, &KEYS) {
            Ok(fields) => {
                prop_assert!(value.as_object().is_some_and(|map| map.keys().all(|key| KEYS.contains(&key.as_str()))));
                for key in KEYS {
                    for wrong in [
                        fields.needed_whole(key, 1..=60_000).err(),
                        fields.needed_text(key).err(),
                        fields.needed_list(key, 4).err(),
                        fields.texts(key, 4).err(),
                    ].into_iter().flatten() {
                        prop_assert!(wrong.field.starts_with(&format!("targets[0].{key}")), "{}", wrong);
                        // The text of a refusal goes into answers and log lines.
                        prop_assert!(wrong.to_string().chars().count() < 300, "{}", wrong);
                    }
                }
            }
            Err(wrong) => prop_assert!(wrong.field.starts_with("targets[0]")),
        }
    }

    #[test]
    fn a_number_is_taken_if_it_is_whole_and_in_range(number in any_json(), lowest in 0u64..100, more in any::<u64>()) {
        let range = lowest..=lowest.saturating_add(more);
        let document = json!({"hold_ms": number});
        let fields = Fields::of("", &document, &KEYS).expect("only known keys");
        let wanted = number.as_u64().filter(|number| range.contains(number));
        prop_assert_eq!(fields.whole("hold_ms", range).ok().flatten(), wanted);
        prop_assert_eq!(fields.whole("clock_mhz", 0..=1), Ok(None));
    }

    #[test]
    fn what_is_quoted_is_short_and_begins_as_what_was_given(value in any_json(), text in ".{0,200}", chars_max in 0usize..150) {
        let short = shortened(text.clone(), chars_max);
        prop_assert!(short.chars().count() <= chars_max + 1);
        prop_assert!(text.starts_with(short.trim_end_matches('…')));
        let quoted = quotable(value.clone());
        prop_assert!(quoted.to_string().chars().count() <= 2 * 121 + 2, "{}", quoted);
        prop_assert_eq!(quotable(quoted.clone()).to_string().chars().count() <= 2 * 121 + 2, true);
        prop_assert!(quoted == value || quoted.is_string());
    }
}
