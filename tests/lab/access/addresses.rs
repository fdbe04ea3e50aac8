//! Hosts of several addresses.

use super::*;
use crate::support::changes::{Changed, Wrapper};
use crate::support::held::MORE_THAN_BUFFERS;
use crate::support::hosts::Lab;
use crate::support::scenes::Scene;

/// Gives db1, db2 and db3 addresses in another network, too.
fn second_addresses(lab: &Lab) -> [Changed; 3] {
    [("db1", 11), ("db2", 12), ("db3", 13)].map(|(name, number)| {
        let each = |verb: &str, nodad: &str| {
            format!(
                "ip address {verb} 10.88.0.{number}/24 dev e0; ip address {verb} fd88::{number}/64 dev e0 {nodad}"
            )
        };
        Changed::new(&lab.host(name), &each("add", "nodad"), &each("del", ""))
    })
}

#[test]
fn exclusive_data_and_firewall_rule_use_given_addresses() {
    let Some(scene) = Scene::with_file(MORE_THAN_BUFFERS) else { return };
    let db3 = scene.lab.host("db3");
    let _addresses = second_addresses(&scene.lab);
    let _closed = [closed(&scene.db2), closed(&db3)];
    let third = format!("db3:{}", scene.scratch.path());
    for (ip, from, to, third_address) in [
        ("ip", "10.88.0.11", "10.88.0.12", "10.88.0.13"),
        // An address that no route leads to.
        ("ip", "10.77.0.11", "10.88.0.12", "10.88.0.13"),
        ("ip6", "fd88::11", "fd88::12", "fd88::13"),
    ] {
        let held = scene.held_between(
            ["db1", "db2"],
            &[
                &third,
                "--json",
                &format!("--source-address={from}"),
                &format!("--target-address=db2={to}"),
                &format!("--target-address=db3={third_address}"),
            ],
        );
        let port = held.port();
        for (host, address) in [(&scene.db2, to), (&db3, third_address)] {
            let connections = host.sh("ss -Htn state established '( sport >= :4400 and sport <= :4500 )'");
            let connections = connections.replace(['[', ']'], "");
            let expected = format!("{address}:{port}");
            assert!(
                connections.contains(&expected) && connections.contains(&format!(" {from}:")),
                "{connections}"
            );
            let rules = host.sh("nft list ruleset");
            assert!(rules.contains(&format!("{ip} saddr {from} tcp dport {port} accept")), "{rules}");
        }
        let output = held.go().expect_success();
        for address in [to, third_address] {
            assert!(output.stdout.contains(&format!(r#""address":"{address}""#)), "{output}");
        }
        assert_eq!(output.stdout.matches(&format!(r#""source_address":"{from}""#)).count(), 2, "{output}");
        scene.take_copy();
        db3.run(&["rm", &scene.source]).expect_success();
    }
}

#[test]
fn exclusive_every_netcat_sends_from_the_given_address() {
    let Some(scene) = Scene::with_file(1) else { return };
    let _addresses = second_addresses(&scene.lab);
    let _closed = closed(&scene.db2);
    for netcat in ["nc.openbsd", "nc.traditional", "ncat"] {
        let _netcat = Wrapper::new(&scene.db1, "nc", &format!("exec {netcat} \"$@\""));
        let said = ["--source-address=10.88.0.11", "--target-address=10.88.0.12"];
        scene.transfer_between(["db1", "db2"], &said).expect_success();
        scene.take_copy();
        // Without a target address, the one that ssh used.
        scene.transfer_between(["db1", "db2"], &said[..1]).expect_success();
        scene.take_copy();
    }
}

#[test]
fn exclusive_foreign_address_is_refused_with_its_option() {
    let Some(scene) = Scene::with_file(1) else { return };
    for (option, host) in [("--source-address", "db1"), ("--target-address", "db2")] {
        for foreign in ["10.77.0.99", "192.0.2.1", "fd77::99"] {
            let began = Instant::now();
            let output = scene.transfer_between(["db1", "db2"], &[option, foreign]).expect_code(4);
            let reported =
                format!("{host}: {option} {foreign} is not an address of this host (it has 10.77.0.1");
            assert!(output.stderr.contains(&reported), "{output}");
            assert!(output.stderr.contains("); give one of its addresses, or omit the option"), "{output}");
            assert!(began.elapsed() < AT_ONCE, "took {:?}: {output}", began.elapsed());
        }
    }
    // Addresses of different families.
    let both = ["--source-address=fd77::11", "--target-address=10.77.0.12"];
    let output = scene.transfer_between(["db1", "db2"], &both).expect_code(4);
    assert!(
        output.stderr.contains("db2: the source cannot reach any known address of this host"),
        "{output}"
    );
    assert!(scene.arrived().is_empty());
    scene.transfer_between(["db1", "db2"], &["--target-address=db2=fd77::12"]).expect_success();
    scene.take_copy();
}
