//! Hosts with few programs: a POSIX shell, busybox, and the programs of the transfer.

use crate::support::changes::Changed;
use crate::support::copies::{assert_same, make_random};
use crate::support::firewall::FIREWALL;
use crate::support::scenes::Scene;

/// Gives logins a search path in which the other tools are busybox's. Several of those that earlier versions called
/// are missing.
const BARE: &str = r#"
    mkdir /opt/bare
    for tool in $(busybox --list); do
        case $tool in
            awk | bash | dpkg* | flock | ip | nc | perl | setpriv | ss | tar) ;;
            *) ln -s "$(type -P busybox)" "/opt/bare/$tool" ;;
        esac
    done
    for tool in tar nc openssl zstd nft iptables{,-legacy} ip6tables{,-legacy} systemctl; do
        ln -s "$(type -P "$tool")" /opt/bare/
    done
    echo 'SetEnv PATH=/opt/bare' >/etc/ssh/sshd_config.d/bare.conf
    systemctl reload ssh"#;
const BACK: &str = "rm -rf /opt/bare /etc/ssh/sshd_config.d/bare.conf; systemctl reload ssh";

#[test]
fn exclusive_busybox_and_the_programs_of_the_transfer_are_enough() {
    let Some(mut scene) = Scene::new() else { return };
    scene.source = scene.at("data");
    scene.db1.sh(&format!("mkdir -p {0}/dir; echo small >{0}/dir/small; ln -s dir {0}/link", scene.source));
    make_random(&scene.db1, &scene.at("data/large"), 5);
    scene.db2.sh(&format!("mkdir {}", scene.at("in")));
    let _bare = [&scene.db1, &scene.db2].map(|host| Changed::new(host, BARE, BACK));
    let _firewall = Changed::new(&scene.db2, FIREWALL, "nft delete table inet closed");
    let gone = "command -v perl awk ss flock setpriv bash ip; command -v head";
    let found = scene.lab.host("ctl").run(&["ssh", "-n", "root@db2", gone]).stdout;
    assert_eq!(found, "/opt/bare/head\n");
    let (source, copy) = (scene.at("data"), scene.at("in/data"));
    for options in [&[][..], &["--replace"], &["--replace", "--keep-old", "--checksum-algorithm", "md5"]] {
        scene.transfer(options).expect_success();
        assert_same((&scene.db1, &source), (&scene.db2, &copy));
    }
    let status = scene.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
    assert_eq!(status, "db1: no runs\ndb2: no runs\n");
    // What is missing is a finding.
    scene.db2.sh("rm /opt/bare/openssl");
    let output = scene.transfer(&["--as", "other"]).expect_code(4);
    assert!(output.stderr.contains("db2: not installed: openssl; apt install openssl"), "{output}");
}
