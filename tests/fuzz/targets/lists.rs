//! Lists of files: of the source, of a target, and of changes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::verify::{compare, explain};
use transfer_fuzz::{assert_line, done, parts};

/// Limit for twenty names of 4 KiB and their differences.
const MOST: usize = 20 * 5000;

fuzz_target!(|data: &[u8]| {
    // Records end with NUL, which the fuzzer may write as a newline.
    let data: Vec<u8> = data.iter().map(|byte| if *byte == b'\n' { 0 } else { *byte }).collect();
    let [there, here, changed] = parts(&data);
    let Ok(differences) = done(compare(there, here)) else { return };
    let text = differences.to_string();
    assert_line(&text, MOST);
    if there == here {
        assert_eq!(text, "the lists of files differed, but not when read again");
    }
    let _ = done(explain(&differences, changed));
});
