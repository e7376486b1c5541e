use proptest::prelude::*;

use super::LeaseId;

proptest! {
    #[test]
    fn an_id_is_read_as_it_was_written(id in any::<u128>()) {
        prop_assert_eq!(LeaseId::parse(&LeaseId(id).to_string()), Some(LeaseId(id)));
    }

    #[test]
    fn an_id_has_one_spelling(text in "[0-9a-fA-F+-]{31,33}|[0-9a-f]{32}|.{0,40}") {
        if let Some(id) = LeaseId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}
