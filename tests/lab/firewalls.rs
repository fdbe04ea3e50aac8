//! Firewalls of a target: opened for the source and one port during the transfer, and restored afterwards.

use crate::support::copies::{assert_same, make_random};
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::hosts::{Host, Lab};
use crate::support::scenes::SOON;
use crate::support::trees::names;
use crate::support::waiting::eventually;

/// Rules that all sites have; other packets reach the end of the chain or its policy.
const NFT: &str = "table inet site {
        set trusted { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.7 } }
        chain input {
            type filter hook input priority filter; policy drop;
            ct state established,related accept
            iif \"lo\" accept comment \"this host\"
            meta l4proto ipv6-icmp accept
            ip saddr @trusted accept
            tcp dport 22 counter accept
        }
        chain output { type filter hook output priority filter; policy accept; tcp dport 1 reject; }
    }";
const IPTABLES: &str = "
    $t -N site; $t -A site -s $inside -p tcp --dport 22 -j ACCEPT; $t -A site -j RETURN
    $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    $t -A INPUT -i lo -m comment --comment 'this host, \"lo\"' -j ACCEPT
    $t -A INPUT -p $icmp -j ACCEPT
    $t -A INPUT -j site";
const REJECT: &str = "$t -A INPUT -j REJECT";
const DROP: &str = "$t -A INPUT -p tcp --dport 9 -j LOG; $t -P INPUT DROP";

/// Chains before and after those of `NFT`, both of which have to be opened.
const EARLY: &str = "table ip early {
        chain in {
            type filter hook input priority -300; policy drop;
            ct state invalid drop
            ct state established accept
            tcp dport 22 accept
        }
    }";
const LATE: &str = "table inet late {
        comment \"flags owner\"
        chain in {
            comment \"flags owner, type filter hook input\"
            type filter hook input priority filter + 10; policy accept;
            ct state established accept
            ip saddr 10.77.0.0/24 tcp dport != 22 reject
        }
    }";
/// Chains that filter no incoming IPv4 packets.
const BYSTANDERS: &str = "
    table ip6 other { chain in { type filter hook input priority 0; policy drop; }; }
    table bridge other { chain in { type filter hook input priority 0; policy drop; }; }
    table netdev other { chain in { type filter hook ingress device \"e0\" priority 0; policy accept; }; }
    table ip other {
        chain in { type nat hook input priority 100; policy accept; }
        chain out { type route hook output priority 0; policy accept; }
        chain forward { type filter hook forward priority 0; policy drop; }
        chain input { tcp dport 1 drop; }
    }";
/// Creates a table that belongs to one process, for as long as its input is open.
const OWN: &str = "cat <(echo 'add table inet owned { flags owner; chain in { \
    type filter hook input priority 0; policy drop; tcp dport { 22, 4444 } accept; }; }') - | nft -i";

/// Prints every rule of the host, without counters.
const LIST: &str = "
    for kind in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
        echo \"== $kind\"; $kind-save 2>&1 | sed '/^# .* on /d; s/\\[[0-9]*:[0-9]*\\]//'
    done
    echo == nft; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'";

fn rules(host: &Host) -> String {
    host.sh(LIST)
}

/// The target, with a firewall of its own until this is dropped.
struct Site {
    host: Host,
}

impl Site {
    fn set_up(lab: &Lab, script: &str) -> Self {
        let host = lab.host("db2");
        // Tables of the old iptables, once used, exist until the host boots.
        let used =
            "nft list ruleset; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || :";
        if !host.sh(used).is_empty() {
            host.crash();
            host.boot();
        }
        let site = Self { host };
        site.host.sh(script);
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let flush = "if systemctl -q is-active firewalld; then systemctl stop firewalld; fi
            if systemctl -q is-active ferm; then systemctl stop ferm; fi
            if grep -q ENABLED=yes /etc/ufw/ufw.conf; then ufw --force disable; ufw --force delete allow ssh; fi
            nft flush ruleset
            for names in $(ls /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null); do
                t=${names#/proc/net/}; t=${t%_tables_names}tables-legacy
                for table in $(cat $names); do $t -t $table -F; $t -t $table -X; done
                if grep -qx filter $names; then $t -P INPUT ACCEPT; fi
            done";
        self.host.run(&["bash", "-c", flush]);
    }
}

fn nft(tables: &str) -> String {
    format!("nft -f - <<'END'\n{tables}\nEND\n")
}

/// `tables` is the program, such as `ip6tables-legacy`.
fn iptables(tables: &str, end: &str) -> String {
    let (icmp, inside) =
        if tables.contains('6') { ("ipv6-icmp", "fd77::/64") } else { ("icmp", "10.77.0.0/24") };
    format!("t={tables}; icmp={icmp}; inside={inside}\n{IPTABLES}\n{end}\n")
}

/// Returns the rules that were added to a listing: `true` for each that is the first one of its chain. Rules
/// of iptables-nft are printed by nft, too, and count once.
#[track_caller]
fn holes(before: &str, during: &str, source: &str, port: u16) -> Vec<bool> {
    let mut holes = Vec::new();
    let (mut section, mut previous) = ("", "");
    for line in during.lines() {
        if line.starts_with("== ") {
            section = line;
        }
        if !before.lines().any(|other| other == line) {
            let nft = format!("saddr {source} tcp dport {port} ");
            let iptables = [format!(" {source}/32 "), format!(" {source}/128 "), format!(" --dport {port} ")];
            let named = line.contains(&nft)
                || iptables[..2].iter().any(|source| line.contains(source)) && line.contains(&iptables[2]);
            assert!(named && line.to_lowercase().contains("accept"), "a hole too wide: {line}");
            let first = if section == "== nft" {
                previous.contains("hook input")
            } else {
                !previous.starts_with('-')
            };
            if !section.ends_with("tables-nft") {
                holes.push(first);
            }
        }
        previous = line;
    }
    holes
}

/// Returns which of these hosts can connect to a port of the target.
fn admitted<const N: usize>(target: &Host, name: &str, port: u16, hosts: [&Host; N]) -> [bool; N] {
    let any = if name == "db26" { "::" } else { "0.0.0.0" };
    let mut listener = target.spawn(&["nc", "-k", "-l", any, &port.to_string()]);
    let listens = || !target.sh(&format!("ss -Hltn 'sport = :{port}'")).is_empty();
    assert!(eventually(SOON, || !listener.is_running() || listens()) && listener.is_running());
    let knock = format!("timeout 1 bash -c '</dev/tcp/{name}/{port}'");
    hosts.map(|host| host.run(&["bash", "-c", &knock]).status.success())
}

/// Runs transfers to the site: one that is interrupted, one whose controller is killed, and one to the end.
/// Asserts that the given number of chains is opened during each.
fn opens_for_one_peer_and_one_port(site: &str, [from, to, address]: [&str; 3], chains: usize) {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
    let _site = Site::set_up(&lab, site);
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, MORE_THAN_BUFFERS);
    let args = [&format!("{from}:{source}"), &format!("{to}:{}", scratch.path())];
    assert_eq!(admitted(&db2, to, 4400, [&db1, &db3]), [chains == 0; 2], "before the run");
    let before = rules(&db2);

    for end in [Some("INT"), Some("KILL"), None] {
        let mut held = Held::start(&lab, &args.map(String::as_str), &db2, scratch.path());
        let port = held.port();
        let during = rules(&db2);
        assert_eq!(
            holes(&before, &during, address, port),
            vec![true; chains],
            "port {port}, rules:\n{during}"
        );
        assert!(!during.contains("is incompatible"), "iptables cannot list the rules any more:\n{during}");
        // netcat accepts one peer only; another listener shows which hosts can connect.
        assert_eq!(
            admitted(&db2, to, port, [&db1, &db3]),
            [true, chains == 0],
            "the source and another client at port {port}, rules:\n{during}"
        );

        if let Some(signal) = end {
            held.transfer.signal(signal);
            held.transfer.wait_end(SOON);
            let code = held.transfer.wait().status.code();
            assert_eq!(code, (signal == "INT").then_some(130), "after {signal}");
            // The hosts of a killed controller need a moment.
            let rolled_back = || names(&db2, scratch.path()).is_empty() && rules(&db2) == before;
            assert!(rolled_back() || signal == "KILL" && eventually(SOON, rolled_back), "after {signal}");
        } else {
            held.go().expect_success();
            assert_same((&db1, &source), (&db2, &source));
        }
        assert_eq!(rules(&db2), before, "after a run that was ended by {end:?}");
    }
}

/// Configurations of programs that manage rules, as packaged by Debian; each of them lets ssh in.
const FERM: &str = "systemctl start ferm";
const UFW: &str = "ufw allow ssh; ufw --force enable";
const FIREWALLD: &str = "systemctl start firewalld; firewall-cmd --state";

const IPV4: [&str; 3] = ["db1", "db2", "10.77.0.11"];
const IPV6: [&str; 3] = ["db16", "db26", "fd77::11"];

#[test]
fn exclusive_every_nftables_chain_is_opened_and_closed() {
    let tables = nft(&[BYSTANDERS, EARLY, LATE, NFT].join("\n"));
    opens_for_one_peer_and_one_port(&tables, IPV4, 3);
}

#[test]
fn exclusive_iptables_is_opened_and_closed() {
    opens_for_one_peer_and_one_port(&iptables("iptables-nft", REJECT), IPV4, 1);
}

#[test]
fn exclusive_legacy_iptables_is_opened_and_closed() {
    opens_for_one_peer_and_one_port(&iptables("iptables-legacy", DROP), IPV4, 1);
}

#[test]
fn exclusive_all_layers_are_opened_and_closed_together() {
    let both = iptables("iptables-nft", REJECT) + &iptables("iptables-legacy", DROP);
    opens_for_one_peer_and_one_port(&(nft(&[EARLY, LATE, NFT].join("\n")) + &both), IPV4, 5);
}

#[test]
fn exclusive_legacy_iptables_is_opened_beside_open_nftables() {
    let open = nft("table inet open { chain in { type filter hook input priority 0; policy accept; }; }");
    opens_for_one_peer_and_one_port(&(open + &iptables("iptables-legacy", REJECT)), IPV4, 2);
}

#[test]
fn exclusive_ferm_is_opened_and_closed() {
    opens_for_one_peer_and_one_port(FERM, IPV4, 1);
    opens_for_one_peer_and_one_port(FERM, IPV6, 1);
}

#[test]
fn exclusive_ufw_is_opened_and_closed() {
    opens_for_one_peer_and_one_port(UFW, IPV4, 1);
    opens_for_one_peer_and_one_port(UFW, IPV6, 1);
}

#[test]
fn exclusive_firewalld_is_opened_and_closed() {
    opens_for_one_peer_and_one_port(FIREWALLD, IPV4, 1);
    opens_for_one_peer_and_one_port(FIREWALLD, IPV6, 1);
}

#[test]
fn exclusive_reloaded_rules_disturb_nothing_and_keep_no_hole() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    for (site, reload) in [
        (FERM, "systemctl reload ferm"),
        (UFW, "ufw reload"),
        (FIREWALLD, "firewall-cmd --reload"),
        (&nft(NFT), &format!("nft flush ruleset; {}", nft(NFT))),
    ] as [(&str, &str); 4]
    {
        let _site = Site::set_up(&lab, site);
        let scratch = lab.scratch(&["db1", "db2"]);
        let source = scratch.join("source");
        make_random(&db1, &source, MORE_THAN_BUFFERS);
        db2.sh(reload);
        let before = rules(&db2);
        let args = [format!("db1:{source}"), format!("db2:{}", scratch.path())];
        let held = Held::start(&lab, &args.each_ref().map(String::as_str), &db2, scratch.path());
        held.port();
        db2.sh(reload);
        held.go().expect_success();
        assert_same((&db1, &source), (&db2, &source));
        assert_eq!(rules(&db2), before, "after {reload}");
    }
}

#[test]
fn exclusive_host_without_firewall_gets_no_rules() {
    opens_for_one_peer_and_one_port("true", IPV4, 0);
}

#[test]
fn exclusive_ip6tables_is_opened_and_closed_for_ipv6() {
    let other_family = iptables("iptables-nft", DROP);
    opens_for_one_peer_and_one_port(&(iptables("ip6tables-nft", DROP) + &other_family), IPV6, 1);
}

#[test]
fn exclusive_legacy_ip6tables_is_opened_and_closed_for_ipv6() {
    opens_for_one_peer_and_one_port(&iptables("ip6tables-legacy", DROP), IPV6, 1);
}

#[test]
fn exclusive_nftables_is_opened_and_closed_for_ipv6() {
    opens_for_one_peer_and_one_port(&nft(NFT), IPV6, 1);
}

/// Asserts that a transfer to the site fails with a message, changes nothing, and reads nothing of the
/// source.
fn fails_before_anything_is_read(site: &str, options: &[&str]) {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 1);
    let last_read = format!("stat -c %X '{source}'");
    db1.sh(&format!("touch -a -d @1000000000 '{source}'"));
    let site = Site::set_up(&lab, site);
    let before = rules(&db2);
    let args = [format!("db1:{source}"), format!("db2:{}", scratch.path())];
    let args = args.each_ref().map(String::as_str);
    let output = lab.transfer(&[&args, options].concat()).expect_code(1);
    assert!(
        output.stderr.contains("db2: the source cannot connect to 10.77.0.12:44")
            && output.stderr.contains("that --firewall does not open"),
        "{output}"
    );
    assert_eq!(db1.sh(&last_read), "1000000000\n");
    assert_eq!(rules(&db2), before);
    assert!(names(&db2, scratch.path()).is_empty());
    drop(site);
    // Reading the file would change its access time.
    lab.transfer(&args).expect_success();
    assert_ne!(db1.sh(&last_read), "1000000000\n");
}

#[test]
fn exclusive_unopened_firewall_fails_before_reading() {
    fails_before_anything_is_read(&nft(NFT), &["--firewall", "none"]);
    // Another layer is opened, which is not sufficient.
    let both = nft(LATE) + &iptables("iptables-legacy", DROP);
    fails_before_anything_is_read(&both, &["--firewall", "iptables"]);
}

#[test]
fn exclusive_prerouting_drop_fails_before_reading() {
    let raw = "table inet early { chain raw { type filter hook prerouting priority raw; policy accept;
        ip saddr 10.77.0.11 tcp dport 4400-4500 drop; }; }";
    fails_before_anything_is_read(&nft(raw), &[]);
    let legacy = "iptables-legacy -t raw -A PREROUTING -s 10.77.0.11 -p tcp --dport 4400:4500 -j DROP";
    fails_before_anything_is_read(legacy, &[]);
}

#[test]
fn exclusive_owned_table_is_refused_before_any_change() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 1);
    let args = [format!("db1:{source}"), format!("db2:{}", scratch.path())];
    let args = args.each_ref().map(String::as_str);
    let _site = Site::set_up(&lab, &nft("add table inet free"));
    let mut owner = db2.command(&["bash", "-c", OWN]).hold_stdin().spawn();
    assert!(eventually(SOON, || !owner.is_running() || rules(&db2).contains("policy drop")));
    let before = rules(&db2);
    assert!(before.contains("flags owner"), "{before}");

    for option in [&[][..], &["--firewall", "nftables"], &["--dry-run"]] {
        let output = lab.transfer(&[&args, option].concat()).expect_code(4);
        let reported = "db2: nftables table inet owned filters incoming connections and can be changed only by the \
                 program that owns it";
        assert!(output.stderr.contains(reported) && output.stderr.contains("--firewall none"), "{output}");
        assert_eq!(rules(&db2), before);
    }
    // Its owner lets that port in.
    for choice in ["none", "iptables"] {
        lab.transfer(&[&args[..], &["--port", "4444", "--firewall", choice]].concat()).expect_success();
        assert_eq!(rules(&db2), before);
        db2.sh(&format!("rm '{source}'"));
    }
    owner.close_stdin();
    owner.wait_end(SOON);
    lab.transfer(&args).expect_success();
}
