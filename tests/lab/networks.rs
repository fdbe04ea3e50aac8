//! Between two hosts: netcats that differ, address families, hosts of several addresses.

use std::time::{Duration, Instant};

use crate::support::changes::{Changed, Wrapper, call_nc};
use crate::support::copies::assert_same;
use crate::support::hosts::Host;
use crate::support::scenes::Scene;

const ALL: [&str; 4] = ["nc", "nc.openbsd", "nc.traditional", "ncat"];
/// Less than the time for which the program waits for a connection.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Names of each netcat of a lab host, whichever of them is `nc`.
pub(crate) const NETCATS: [&str; 3] = ["nc.openbsd", "nc.traditional", "ncat"];

impl Scene {
    /// Runs a transfer by these host names, whose dry run shows these texts; compares and removes the copy.
    #[track_caller]
    fn copies(&self, names: [&str; 2], reported: &[&str]) {
        let dry = self.transfer_between(names, &["--dry-run"]).expect_success();
        for text in reported {
            assert!(dry.stdout.contains(text), "no '{text}': {dry}");
        }
        let output = self.transfer_between(names, &["--no-compress"]).expect_success();
        // Successful messages of a netcat are neither notes nor warnings.
        assert!(!output.stdout.contains("note:") && !output.stderr.contains("warning:"), "{output}");
        assert_same((&self.db1, &self.source), (&self.db2, &self.source));
        self.db2.run(&["rm", &self.source]).expect_success();
    }

    /// Asserts that the preflight refuses a transfer, with each of these texts.
    #[track_caller]
    fn is_refused(&self, names_of_hosts: [&str; 2], reported: &[&str]) {
        let output = self.transfer_between(names_of_hosts, &[]).expect_code(4);
        for text in reported {
            assert!(output.stderr.contains(text), "no '{text}': {output}");
        }
        assert!(self.arrived().is_empty(), "{output}");
    }
}

fn sends_to_every_dialect(netcat: &str) {
    let Some(scene) = Scene::with_file(50) else { return };
    let large = scene.source.clone();
    let tiny = Scene { source: scene.scratch.join("tiny"), ..scene };
    tiny.db1.put("tiny\n", &tiny.source, 0o644);
    let _sender = call_nc(&tiny.db1, netcat);
    for other in NETCATS {
        let _receiver = call_nc(&tiny.db2, other);
        tiny.copies(["db1", "db2"], &[]);
    }
    let large = Scene { source: large, ..tiny };
    for other in NETCATS {
        let _receiver = call_nc(&large.db2, other);
        large.copies(["db1", "db2"], &[]);
    }
}

#[test]
fn exclusive_openbsd_netcat_sends_to_every_dialect() {
    sends_to_every_dialect("nc.openbsd");
}

#[test]
fn exclusive_traditional_netcat_sends_to_every_dialect() {
    sends_to_every_dialect("nc.traditional");
}

#[test]
fn exclusive_ncat_sends_to_every_dialect() {
    sends_to_every_dialect("ncat");
}

#[test]
fn exclusive_every_dialect_feeds_targets_with_other_dialects() {
    let Some(scene) = Scene::with_file(20) else { return };
    let db3 = scene.lab.host("db3");
    for (number, netcat) in NETCATS.iter().enumerate() {
        let _netcats = [
            call_nc(&scene.db1, netcat),
            call_nc(&scene.db2, NETCATS[(number + 1) % 3]),
            call_nc(&db3, NETCATS[(number + 2) % 3]),
        ];
        let to = [format!("db2:{}", scene.scratch.path()), format!("db3:{}", scene.scratch.path())];
        let output = scene.lab.transfer(&[&format!("db1:{}", scene.source), &to[0], &to[1]]).expect_success();
        assert!(!output.stdout.contains("note:"), "{output}");
        for host in [&scene.db2, &db3] {
            assert_same((&scene.db1, &scene.source), (host, &scene.source));
            host.run(&["rm", &scene.source]).expect_success();
        }
    }
}

#[test]
fn exclusive_every_dialect_reports_closed_port_at_once() {
    let Some(scene) = Scene::with_file(1) else { return };
    let close = "nft 'add table inet closed; add chain inet closed in { type filter hook input priority 0; };
        add rule inet closed in tcp dport 4400-4500 reject with tcp reset'";
    let _closed = Changed::new(&scene.db2, close, "nft delete table inet closed");
    for netcat in NETCATS {
        let _sender = call_nc(&scene.db1, netcat);
        let began = Instant::now();
        let output = scene.transfer_between(["db1", "db2"], &["--firewall", "none"]).expect_code(1);
        let reported = "the source cannot connect to 10.77.0.12:4400: ";
        assert!(output.stderr.contains(reported) && output.stderr.contains("Connection refused"), "{output}");
        assert!(began.elapsed() < AT_ONCE, "{netcat} took {:?}: {output}", began.elapsed());
        assert!(scene.arrived().is_empty(), "{output}");

        let other = scene.scratch.join("other");
        scene.db1.run(&["mkdir", &other]).expect_success();
        let began = Instant::now();
        let output = scene
            .transfer_between(["db1", "db2"], &["--firewall", "none", &format!("db1:{other}")])
            .expect_code(1);
        assert!(output.stderr.contains(reported) && output.stderr.contains("Connection refused"), "{output}");
        assert!(began.elapsed() < AT_ONCE, "{netcat} took {:?}: {output}", began.elapsed());
        assert_same((&scene.db1, &scene.source), (&scene.db1, &format!("{other}/source")));
        scene.db1.run(&["rm", "-r", &other]).expect_success();
    }
}

#[test]
fn exclusive_lost_port_costs_one_retry_in_every_dialect() {
    let Some(scene) = Scene::with_file(1) else { return };
    for netcat in NETCATS {
        // Another process takes the first port when it is leased.
        let thief = format!(
            r#"if [[ " $* " == *' -l '*4400* ]]; then
                perl -MIO::Socket::IP -e 'my $s = IO::Socket::IP->new(LocalAddr => "10.77.0.12", LocalPort => 4400,
                    Listen => 1, ReuseAddr => 1) or die; exit if fork; sleep 3' 5>&- 6>&- 7>&- 8>&- </dev/null >/dev/null
            fi
            exec {netcat} "$@""#
        );
        let _thief = Wrapper::new(&scene.db2, "nc", &thief);
        let began = Instant::now();
        let output = scene.transfer_between(["db1", "db2"], &["-v"]).expect_success();
        assert!(output.stderr.contains("port lost before the start of our sender"), "{netcat}: {output}");
        assert!(began.elapsed() < AT_ONCE, "{netcat} took {:?}: {output}", began.elapsed());
        assert_same((&scene.db1, &scene.source), (&scene.db2, &scene.source));
        scene.db2.run(&["rm", &scene.source]).expect_success();
        scene.db2.sh("while ss -Hltn 'sport = :4400' | grep -q .; do sleep 0.1; done");
    }
}

#[test]
fn exclusive_netcat_is_found_by_its_own_name() {
    let Some(scene) = Scene::with_file(1) else { return };
    let _source = Changed::without(&scene.db1, &["nc"]);
    let _target = Changed::without(&scene.db2, &["nc", "nc.openbsd"]);
    scene.copies(["db1", "db2"], &["| nc.openbsd -n -N ", "ncat -n --no-shutdown -l 10.77.0.12 "]);
}

#[test]
fn exclusive_missing_or_unknown_netcat_names_the_package() {
    let Some(scene) = Scene::with_file(1) else { return };
    let hidden = Changed::without(&scene.db2, &ALL);
    scene.is_refused(["db1", "db2"], &["db2: not installed: nc; apt install netcat-openbsd"]);
    let unknown = Wrapper::new(&scene.db2, "nc", "echo BusyBox >&2; exit 1");
    scene.is_refused(["db1", "db2"], &["db2: nc is not a supported netcat", "; apt install netcat-openbsd"]);
    drop((hidden, unknown));
    let _hidden = Changed::without(&scene.db1, &ALL);
    scene.is_refused(["db1", "db2"], &["db1: not installed: nc; apt install netcat-openbsd"]);
}

#[test]
fn exclusive_netcat_without_ipv6_has_fallbacks() {
    let Some(scene) = Scene::with_file(1) else { return };
    let by_ipv6 = ["[fd77::11]", "[fd77::12]"];
    let _traditional = call_nc(&scene.db2, "nc.traditional");
    scene.copies(by_ipv6, &["nc.openbsd -n -d -l fd77::12 "]);
    let _only = Changed::without(&scene.db2, &["nc.openbsd", "ncat"]);
    scene.copies(by_ipv6, &["nc -n -v -l -s 10.77.0.12 "]);
    let _ipv6_only = Changed::without_address(&scene.db2, "10.77.0.12/24");
    scene.is_refused(
        by_ipv6,
        &["fd77::12: the only netcat is the traditional one, which does not support IPv6; apt install netcat-openbsd"],
    );
}

#[test]
fn exclusive_ipv6_only_hosts_are_reached() {
    let Some(scene) = Scene::with_file(1) else { return };
    let _ipv6_only = [(&scene.db1, "10.77.0.11/24"), (&scene.db2, "10.77.0.12/24")]
        .map(|(host, address)| Changed::without_address(host, address));
    for netcat in ["nc.openbsd", "ncat"] {
        for other in ["nc.openbsd", "ncat"] {
            let _netcats = [call_nc(&scene.db1, netcat), call_nc(&scene.db2, other)];
            scene.copies(["db16", "[fd77::12]"], &[" fd77::12 4400"]);
        }
    }
}

#[test]
fn exclusive_dual_stack_hosts_use_address_family_of_login() {
    let Some(scene) = Scene::with_file(1) else { return };
    for (names, address) in
        [(["db1", "[fd77::12]"], "fd77::12"), (["db16", "db2"], "10.77.0.12"), (["db16", "db26"], "fd77::12")]
    {
        scene.copies(names, &[&format!("nc -n -d -l {address} 4400"), &format!("-v {address} 4400")]);
    }
}

#[test]
fn exclusive_hosts_use_their_common_address_family() {
    let Some(scene) = Scene::with_file(1) else { return };
    {
        let _source = Changed::without_address(&scene.db1, "10.77.0.11/24");
        scene.copies(["db16", "db2"], &["nc -n -d -l fd77::12 "]);
        let _target = Changed::without_address(&scene.db2, "fd77::12/64");
        scene.is_refused(
            ["db16", "db2"],
            &["db2: the source cannot reach any known address of this host (it has 10.77.0.12)"],
        );
    }
    let _source = Changed::without_address(&scene.db1, "fd77::11/64");
    scene.copies(["db1", "[fd77::12]"], &["nc -n -d -l 10.77.0.12 "]);
}

#[test]
fn exclusive_multihomed_hosts_use_the_named_address() {
    let Some(scene) = Scene::with_file(1) else { return };
    let ctl = scene.lab.host("ctl");
    let add = |host: &Host, number: u8| {
        let each = |verb: &str| format!("ip address {verb} 10.88.0.{number}/24 dev e0");
        Changed::new(host, &each("add"), &each("del"))
    };
    let _addresses = [add(&ctl, 10), add(&scene.db1, 11), add(&scene.db2, 12)];
    let hosts = "/etc/ssh/ssh_known_hosts";
    let _known = Changed::new(
        &ctl,
        &format!("sed 's/^db2,/10.88.0.12,db2,/' -i.before {hosts}"),
        &format!("mv {hosts}.before {hosts}"),
    );
    // Only our rule lets connections in.
    let close = "nft 'add table inet closed; add chain inet closed in { type filter hook input priority 0; policy drop; };
        add rule inet closed in ct state established,related accept; add rule inet closed in tcp dport 22 accept'";
    let _closed = Changed::new(&scene.db2, close, "nft delete table inet closed");
    scene.copies(
        ["db1", "10.88.0.12"],
        &["nftables: insert a rule: accept tcp from 10.88.0.11 to that port", "nc -n -d -l 10.88.0.12 4400"],
    );
    scene.copies(["db1", "db2"], &["tcp from 10.77.0.11 to that port", "nc -n -d -l 10.77.0.12 4400"]);
}
