//! Frames, texts and the records of a journal: whatever they contain, they are decoded within bounds, and what was
//! decoded survives its encoding.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use transfer::base::printable::{LONGEST_TEXT, message, printable, short};
use transfer::proto::command::{FromAgent, ToAgent};
use transfer::proto::frame;
use transfer::proto::hello::Hello;
use transfer::proto::journal::{decode, encode};
use transfer_fuzz::{assert_line, messages};

/// Asserts that messages survive another encoding. The first one may drop what exceeds a bound.
fn survive<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    for message in messages::<T>(data) {
        let again = frame::encode(&message).expect("no longer than before");
        let decoded: T = frame::decode(&again[frame::HEADER..]).expect("an encoded message");
        assert_eq!(decoded, message);
    }
}

fuzz_target!(|data: &[u8]| {
    survive::<FromAgent>(data);
    survive::<ToAgent>(data);
    survive::<Hello>(data);

    if let Ok(journal) = decode(data) {
        assert!(journal.torn <= data.len());
        let again: Vec<u8> =
            journal.records.iter().flat_map(|record| encode(record).expect("no longer than before")).collect();
        let decoded = decode(&again).expect("an encoded journal");
        assert_eq!((decoded.records, decoded.torn), (journal.records, 0));
    }

    assert_line(&printable(data), 10 * data.len());
    assert_line(&short(data, LONGEST_TEXT), LONGEST_TEXT + 3);
    assert_line(&message(data, LONGEST_TEXT), LONGEST_TEXT + 3);
});
