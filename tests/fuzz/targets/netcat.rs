//! Netcats: their help, and what they print about a connection. The name of a netcat is sent back to its own
//! host, quoted.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use transfer::engine::netcat::variant::{Dialect, Netcat};
use transfer::host::command::quote;
use transfer::base::printable::{LONGEST_TEXT, short};
use transfer_fuzz::parts;

/// Returns the word that a shell makes of a quoted one.
fn unquoted(quoted: &[u8]) -> Vec<u8> {
    let Some(inner) = quoted.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")) else {
        assert!(quoted.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(byte)));
        return quoted.to_vec();
    };
    let mut word = Vec::new();
    let mut rest = inner;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\'' {
            rest = tail
                .strip_prefix(br"\''")
                .expect("the quotes are closed, and nothing else is outside of them");
            word.push(b'\'');
        } else {
            word.push(byte);
            rest = tail;
        }
    }
    word
}

fuzz_target!(|data: &[u8]| {
    let [program, help, said] = parts(data).map(|part| short(part, LONGEST_TEXT));
    let addresses = ["10.77.0.11", "fd77::11"].map(|address| address.parse::<IpAddr>().expect("an address"));
    let _ = Netcat::finds_port_taken(&said);
    let Some(netcat) = Netcat::from_help(&program, &help) else { return };
    for address in addresses {
        for words in [netcat.listen(address, 4400), netcat.connect(Some(address), address, 4400)] {
            assert_eq!(words[0], program);
            assert!(words.len() <= 10);
            for word in &words {
                assert_eq!(unquoted(&quote(word.as_bytes())), word.as_bytes());
            }
        }
        if netcat.gives_up(&said, address, 4400, false) {
            // Of several netcats, only one that was listed.
            assert!(
                netcat.dialect != Dialect::Ncat
                    && said.contains(&address.to_string())
                    && said.contains("4400")
            );
        }
        let _ = netcat.gives_up(&said, address, 4400, true);
    }
});
