//! Addresses: routes, a host's own addresses, peers of sockets, and host names that contain two.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use transfer::engine::netcat::{Port, made_to};
use transfer::host::wire::LONGEST_PATH;
use transfer::probe;
use transfer_fuzz::{answer, assert_line};

fuzz_target!(|data: &[u8]| {
    let messages = answer(data);
    for address in ["10.0.0.2", "fd77::2"] {
        let address: IpAddr = address.parse().expect("an address");
        // Typed: only an address goes to another host's firewall.
        let _: Option<IpAddr> = probe::route(&messages, &address);
    }
    let _ = probe::is_own(&messages);
    if let Some(twin) = probe::twin(&messages) {
        assert_line(&twin, LONGEST_PATH + 3);
    }
    for fields in &messages {
        let to = "10.0.0.2:4400".parse().expect("a socket");
        let made = made_to(fields, to);
        assert!(made.len() <= fields.len());
        assert!(made.iter().all(|socket| socket.ip() == socket.ip().to_canonical()));
        assert!(made.len() == 1 || !Port::parse(fields).is_only(&made));
    }
});
