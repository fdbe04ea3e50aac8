//! Output of ssh about a failed login, including banners of the server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::base::printable::LONGEST_TEXT;
use transfer::host::{HostError, what_ssh_said};
use transfer_fuzz::assert_line;

fuzz_target!(|data: &[u8]| {
    let text = what_ssh_said(data);
    assert!(!text.is_empty());
    assert_line(&text, 2 * (LONGEST_TEXT + 4));
    let error =
        HostError::Connect { host: "db2".into(), text, command: "ssh -o BatchMode=yes db2 true".into() };
    let _ = error.may_pass();
    assert_line(&transfer::error::chain(&error), 2 * LONGEST_TEXT + 200);
});
