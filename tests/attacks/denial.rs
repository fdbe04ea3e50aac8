//! Resources that any account of a host can exhaust: `/tmp`, rules of a firewall, names of files.

use crate::support::changes::Changed;
use crate::support::copies::assert_same;
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::hosts::Host;
use crate::support::scenes::Scene;

/// Fills /tmp, as any account of the host can.
fn full_tmp(host: &Host) -> Changed {
    let fill = "mount -t tmpfs -o size=16k,mode=1777 lab /tmp; \
        setpriv --reuid 65534 --regid 65534 --clear-groups dd if=/dev/zero of=/tmp/full bs=1k status=none 2>/dev/null || :; \
        ! dd if=/dev/zero of=/tmp/more bs=4k count=1 status=none 2>/dev/null; rm -f /tmp/more";
    Changed::new(host, fill, "umount -l /tmp")
}

/// Loads a firewall with more rules than fit into a pipe, which a run has to open.
fn many_rules(host: &Host) -> Changed {
    let rules = "{ echo 'table inet many { chain input { type filter hook input priority 0; policy drop;
            ct state established,related accept; iif lo accept; tcp dport 22 accept'
        for ((n = 10000; n < 15000; n++)); do
            echo \"ip saddr 192.0.2.$((n % 256)) tcp dport $n counter accept comment \\\"of somebody, number $n\\\"\"
        done; echo '}; }'; } | nft -f -";
    Changed::new(host, rules, "nft delete table inet many")
}

/// Creates more names than fit into a pipe or a command line.
fn many_files(scene: &Scene) {
    scene.db1.sh(&format!(
        "mkdir '{0}/many'; cd '{0}/many'; for ((n = 0; n < 1000; n++)); do echo $n >\"$n-{1}\"; done",
        scene.at("source"),
        "long".repeat(40)
    ));
}

#[test]
fn exclusive_full_tmp_on_both_hosts_stops_no_run() {
    let Some(scene) = Scene::with_source(1) else { return };
    many_files(&scene);
    let _full = [full_tmp(&scene.db1), full_tmp(&scene.db2)];
    scene.transfer(&[]).expect_success();
    assert_same((&scene.db1, &scene.at("source/marked")), (&scene.db2, &scene.at("in/source/marked")));
    let count = |host: &Host, path: &str| host.sh(&format!("find '{path}' | wc -l"));
    assert_eq!(count(&scene.db1, &scene.at("source")), count(&scene.db2, &scene.at("in/source")));
}

#[test]
fn exclusive_large_firewall_is_opened_with_full_tmp() {
    let Some(scene) = Scene::with_source(1) else { return };
    let _rules = many_rules(&scene.db2);
    let list = "nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//' | sha256sum";
    let before = scene.db2.sh(list);
    let _full = full_tmp(&scene.db2);
    scene.transfer(&[]).expect_success();
    assert_same((&scene.db1, &scene.at("source")), (&scene.db2, &scene.at("in/source")));
    assert_eq!(scene.db2.sh(list), before, "the firewall is not as it was");
}

#[test]
fn exclusive_failed_run_closes_large_firewall_with_full_tmp() {
    let Some(scene) = Scene::with_source(MORE_THAN_BUFFERS) else { return };
    let _rules = many_rules(&scene.db2);
    let _full = full_tmp(&scene.db2);
    let ends = [format!("db1:{}", scene.at("source")), format!("db2:{}", scene.at("in"))];
    let ends = ends.each_ref().map(String::as_str);
    let held = Held::start(&scene.lab, &ends, &scene.db2, &scene.at("in"));
    // The firewall is open now.
    held.port();
    held.transfer.signal("TERM");
    held.transfer.wait().expect_code(143);
    let ours = scene.db2.sh("nft list ruleset | grep -c transfer- || :");
    assert_eq!((ours.as_str(), scene.arrived()), ("0\n", Vec::new()));
}
