//! Lines and fields: whatever they contain and however they arrive, none is longer than 64 KiB.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokio::io::BufReader;
use transfer::host::wire::{LONGEST_TEXT, MAX_LINE, decode, encode, message, printable, read_record, short};
use transfer_fuzz::{assert_line, done};

/// Limit for all lines: several of the longest ones.
const MOST: usize = 4 * MAX_LINE;

/// A byte of 0xff and the next one stand for that many KiB: the fuzzer does not generate long inputs by
/// itself.
fn longer(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.iter();
    let mut long = Vec::new();
    while let Some(&byte) = bytes.next() {
        match bytes.as_slice().first() {
            Some(&count) if byte == 0xff => {
                long.resize((long.len() + usize::from(count) * 1024).min(MOST), b'x');
                bytes.next();
            }
            _ => long.push(byte),
        }
    }
    long
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else { return };
    let data = longer(data);
    let mut expected = data.split(|byte| *byte == b'\n');
    let mut reader = BufReader::with_capacity(usize::from(size) * 64 + 1, data.as_slice());
    loop {
        match done(read_record(&mut reader, b'\n')) {
            Ok(Some(line)) => {
                assert!(line.len() <= MAX_LINE);
                assert_eq!(Some(line.as_slice()), expected.next());
                let fields = decode(&line);
                assert!(fields.iter().map(Vec::len).sum::<usize>() <= line.len());
                let again = encode(&fields);
                assert!(!again.contains(&b'\n'));
                assert_eq!(decode(&again), fields);
                for field in &fields {
                    assert_line(&printable(field), 10 * MAX_LINE);
                    assert_line(&short(field, LONGEST_TEXT), LONGEST_TEXT + 3);
                    assert_line(&message(field, LONGEST_TEXT), LONGEST_TEXT + 3);
                }
            }
            Ok(None) => {
                assert_eq!(expected.next().unwrap_or_default(), b"");
                break;
            }
            Err(_) => {
                assert!(expected.next().is_some_and(|line| line.len() > MAX_LINE));
                break;
            }
        }
    }
});
