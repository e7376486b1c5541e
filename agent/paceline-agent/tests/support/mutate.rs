//! Spoils what was valid: JSON by its nodes, anything by its bytes.

use serde_json::{Map, Value, json};

use super::seeded::Seeded;

/// What parsers and comparisons of numbers, texts and lists have tripped over elsewhere.
fn nasty(seeded: &mut Seeded) -> Value {
    let choices = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(u32::MAX),
        json!(u64::from(u32::MAX) + 1),
        json!((1u64 << 53) + 1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}"),
        json!("\u{202e}\u{10ffff}"),
        json!("sim:*"),
        json!("x".repeat(5_000)),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"": {}}),
        json!(vec![0; 1_000]),
        json!(["sim:0", "sim:0"]),
    ];
    match seeded.below(choices.len() as u64 + 1) as usize {
        index if index < choices.len() => choices[index].clone(),
        _ => {
            // As deep as a parser without a limit would not survive.
            let mut deep = json!(1);
            for _ in 0..100 {
                deep = json!([deep]);
            }
            deep
        }
    }
}

/// One node of the document, somewhere, is not what it was.
pub fn mutate_json(seeded: &mut Seeded, value: &mut Value) {
    let goes_deeper = !seeded.one_in(4);
    match value {
        Value::Object(map) if goes_deeper && !map.is_empty() => mutate_object(seeded, map),
        Value::Array(list) if goes_deeper && !list.is_empty() => {
            let index = seeded.below(list.len() as u64) as usize;
            match seeded.below(6) {
                0 => {
                    list.remove(index);
                }
                1 => list.push(list[index].clone()),
                _ => mutate_json(seeded, &mut list[index]),
            }
        }
        _ => *value = nasty(seeded),
    }
}

fn mutate_object(seeded: &mut Seeded, map: &mut Map<String, Value>) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let key = seeded.one_of(&keys).clone();
    match seeded.below(8) {
        0 => {
            map.remove(&key);
        }
        1 => {
            let value = nasty(seeded);
            map.insert(format!("{key}\u{e9}"), value);
        }
        _ => mutate_json(seeded, &mut map[&key]),
    }
}

/// A few bytes, or many, are not what they were.
pub fn mutate_bytes(seeded: &mut Seeded, bytes: &mut Vec<u8>) {
    for _ in 0..seeded.between(1, 4) {
        let at = seeded.below(bytes.len() as u64 + 1) as usize;
        let to = (at + seeded.below(20) as usize).min(bytes.len());
        match seeded.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let pieces: [&[u8]; 12] = [
                    b"\0",
                    b"\xff\xfe",
                    b"\xc3",
                    b"\xed\xa0\x80",
                    b"\r\n\r\n",
                    b"\n",
                    b"99999999999999999999999999",
                    b"-0",
                    b"1e999",
                    b"%",
                    b"\"",
                    b"}]",
                ];
                bytes.splice(at..at, seeded.one_of(&pieces).iter().copied());
            }
            4 => {
                let many = seeded.between(100, 2_000) as usize;
                let what = *seeded.one_of(b"[{ x0");
                bytes.splice(at..at, std::iter::repeat_n(what, many));
            }
            _ if at < bytes.len() => bytes[at] = seeded.next() as u8,
            _ => bytes.push(seeded.next() as u8),
        }
    }
}
