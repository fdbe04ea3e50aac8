//! Ports that are taken, unexpected peers, and locks of the firewall.

use super::{Fault, GIVEN_UP, fault, plain};
use crate::damage::experiment::Experiment;
use crate::damage::moments::End;
use crate::damage::variants::Variant;

pub(super) fn ports() -> Vec<Fault> {
    let unexpected_peers = [
        ("stranger-silent", "sleep 20"),
        ("stranger-talking", "head -c 1000000 /dev/urandom >&3; sleep 20"),
        ("stranger-leaving", "exec 3>&-"),
    ];
    let mut faults = Vec::new();
    for (name, then) in unexpected_peers {
        let peer = || {
            fault(name, move |experiment| experiment.send_unexpected_peer(then))
                .at(|moment| moment.name == "listening")
        };
        faults.push(
            peer()
                .by(|variant| ["plain", "two-targets", "local-source"].contains(&variant.name))
                .ends(&[0], &[]),
        );
        faults.push(peer().by(Variant::has_one_port).ends(&[0, 5], &["db2"]));
    }
    let taken =
        || fault("port-taken", Experiment::take_port).at(|moment| ["port", "rule"].contains(&moment.name));
    faults.push(taken().by(|variant| variant.name != "small" && !variant.has_one_port()).ends(&[0], &[]));
    // A listener on all addresses may permit another one on a single address.
    faults.push(taken().by(Variant::has_one_port).ends(&[0, 5], &["db2"]));
    faults.push(
        fault("xtables-locked", |experiment| {
            experiment.spawn(End::Target, &["flock", "/run/xtables.lock", "sleep", "30"]);
        })
        .at(|moment| ["target", "rule", "closing", "verifying"].contains(&moment.name))
        .by(plain)
        .ends(&[0, 1], &["db2", "xtables"])
        .patience(GIVEN_UP),
    );
    faults
}
