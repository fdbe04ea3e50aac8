//! Sockets of a port, connections to it, and what the controller concludes from them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::engine::netcat::{Port, made_to};
use transfer::proto::command::Answer;
use transfer_fuzz::messages;

fuzz_target!(|data: &[u8]| {
    let (mut ports, mut made) = (Vec::new(), Vec::new());
    for answer in messages(data) {
        match answer {
            Answer::Sockets(sockets) => ports.push((Port::of(&sockets), sockets.len())),
            Answer::Connections(connections) => {
                let to = "10.0.0.2:4400".parse().expect("a socket");
                let own = made_to(&connections, to);
                assert!(own.len() <= connections.len());
                assert!(own.iter().all(|socket| socket.ip() == socket.ip().to_canonical()));
                made.push(own);
            }
            _ => {}
        }
    }
    for (port, sockets) in &ports {
        for own in &made {
            assert!(!port.is_only(own) || (own.len() == 1 && *sockets >= 1));
        }
    }
});
