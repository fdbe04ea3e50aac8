//! Firewalls of a target: opened for the source and one port while the transfer runs, and afterwards as they were.
//!
//! Rules are the whole host's, so all of these tests are in a module `alone`.

mod alone {
    use crate::fixtures::{Held, MORE_THAN_BUFFERS, SOON, assert_same, make_random, names};
    use crate::harness::{Host, Lab, eventually};

    /// What all sites let in; everything else is for the end of the chain or for its policy.
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

    /// Every rule of the host, as the tools print them, without their counters.
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
            // The old iptables, once used, is there until the host boots again.
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
            let flush = "nft flush ruleset; cd /proc/net; for table in $(ls ip_tables_names ip6_tables_names 2>/dev/null); do
                grep -q filter $table && t=${table%_names}-legacy && t=${t/_/} &&
                \"$t\" -P INPUT ACCEPT && \"$t\" -F && \"$t\" -X; done";
            self.host.run(&["bash", "-c", flush]);
        }
    }

    fn nft() -> String {
        format!("nft -f - <<'END'\n{NFT}\nEND\n")
    }

    /// `tables` is the program, such as `ip6tables-legacy`.
    fn iptables(tables: &str, end: &str) -> String {
        let (icmp, inside) =
            if tables.contains('6') { ("ipv6-icmp", "fd77::/64") } else { ("icmp", "10.77.0.0/24") };
        format!("t={tables}; icmp={icmp}; inside={inside}\n{IPTABLES}\n{end}\n")
    }

    /// The holes that a listing has and another one has not: `true` for each that is the first rule of its chain.
    /// What iptables-nft makes is printed by nft, too, and counts once.
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
                let iptables =
                    [format!(" {source}/32 "), format!(" {source}/128 "), format!(" --dport {port} ")];
                let named = line.contains(&nft)
                    || iptables[..2].iter().any(|source| line.contains(source))
                        && line.contains(&iptables[2]);
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

    /// Transfers into the site, once to the end and once until an interruption, and looks at it meanwhile.
    fn opens_for_one_peer_and_one_port(site: &str, [from, to, address]: [&str; 3], chains: usize) {
        let Some(lab) = Lab::get() else { return };
        let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
        let _site = Site::set_up(&lab, site);
        let scratch = lab.scratch(&["db1", "db2"]);
        let source = scratch.join("source");
        make_random(&db1, &source, MORE_THAN_BUFFERS);
        let args = [&format!("{from}:{source}"), &format!("{to}:{}", scratch.path())];
        let before = rules(&db2);

        for interrupt in [true, false] {
            let mut held = Held::start(&lab, &args.map(String::as_str), &db2, scratch.path());
            let port = held.port();
            let during = rules(&db2);
            assert_eq!(
                holes(&before, &during, address, port),
                vec![true; chains],
                "port {port}, rules:\n{during}"
            );
            assert!(
                !during.contains("is incompatible"),
                "iptables cannot list the rules any more:\n{during}"
            );
            // netcat listens for one peer only; another one of ours shows who could come.
            let mut listener = db2.spawn(&[
                "nc",
                "-k",
                "-l",
                if to == "db26" { "::" } else { "0.0.0.0" },
                &port.to_string(),
            ]);
            let knock = format!("timeout 1 bash -c '</dev/tcp/{to}/{port}'");
            let opens = |host: &Host| host.run(&["bash", "-c", &knock]).status.success();
            assert!(
                eventually(SOON, || !listener.is_running() || opens(&db1)) && listener.is_running(),
                "{during}"
            );
            assert_eq!(opens(&db3), chains == 0, "a stranger at port {port}, rules:\n{during}");
            drop(listener);

            if interrupt {
                held.transfer.signal("INT");
                held.transfer.wait_end(SOON);
                held.transfer.wait().expect_code(130);
                assert!(names(&db2, scratch.path()).is_empty());
            } else {
                held.go().expect_success();
                assert_same((&db1, &source), (&db2, &source));
            }
            assert_eq!(rules(&db2), before, "after a run, interrupted: {interrupt}");
        }
    }

    const IPV4: [&str; 3] = ["db1", "db2", "10.77.0.11"];
    const IPV6: [&str; 3] = ["db16", "db26", "fd77::11"];

    #[test]
    fn every_chain_of_nftables_that_could_drop_is_opened_and_closed() {
        let early = "nft 'add table ip early; add chain ip early in { type filter hook input priority -10; policy drop; };
            add rule ip early in ct state established accept; add rule ip early in tcp dport 22 accept'\n";
        opens_for_one_peer_and_one_port(&(nft() + early), IPV4, 2);
    }

    #[test]
    fn iptables_that_rejects_is_opened_and_closed() {
        opens_for_one_peer_and_one_port(&iptables("iptables-nft", REJECT), IPV4, 1);
    }

    #[test]
    fn the_old_iptables_that_drops_is_opened_and_closed() {
        opens_for_one_peer_and_one_port(&iptables("iptables-legacy", DROP), IPV4, 1);
    }

    #[test]
    fn nftables_and_the_old_iptables_together_are_opened_and_closed() {
        opens_for_one_peer_and_one_port(&(nft() + &iptables("iptables-legacy", DROP)), IPV4, 2);
    }

    #[test]
    fn a_host_without_a_firewall_gets_none() {
        opens_for_one_peer_and_one_port("true", IPV4, 0);
    }

    #[test]
    fn ip6tables_that_drops_is_opened_and_closed_for_ipv6() {
        let other_family = iptables("iptables-nft", DROP);
        opens_for_one_peer_and_one_port(&(iptables("ip6tables-nft", DROP) + &other_family), IPV6, 1);
    }

    #[test]
    fn the_old_ip6tables_that_drops_is_opened_and_closed_for_ipv6() {
        opens_for_one_peer_and_one_port(&iptables("ip6tables-legacy", DROP), IPV6, 1);
    }

    #[test]
    fn nftables_that_drops_is_opened_and_closed_for_ipv6() {
        opens_for_one_peer_and_one_port(&nft(), IPV6, 1);
    }

    #[test]
    fn a_firewall_that_is_not_to_be_opened_fails_the_run_before_anything_is_read() {
        let Some(lab) = Lab::get() else { return };
        let (db1, db2) = (lab.host("db1"), lab.host("db2"));
        let scratch = lab.scratch(&["db1", "db2"]);
        let source = scratch.join("source");
        make_random(&db1, &source, 1);
        let last_read = format!("stat -c %X '{source}'");
        db1.sh(&format!("touch -a -d @1000000000 '{source}'"));
        let site = Site::set_up(&lab, &nft());
        let before = rules(&db2);
        let args = [&format!("db1:{source}"), &format!("db2:{}", scratch.path()), "--firewall", "none"];
        let output = lab.transfer(&args).expect_code(1);
        assert!(output.stderr.contains("db2: ") && output.stderr.contains("--firewall"), "{output}");
        assert_eq!(db1.sh(&last_read), "1000000000\n");
        assert_eq!(rules(&db2), before);
        assert!(names(&db2, scratch.path()).is_empty());
        drop(site);
        // The same file, when it is read, shows it.
        lab.transfer(&[&format!("db1:{source}"), &format!("db2:{}", scratch.path())]).expect_success();
        assert_ne!(db1.sh(&last_read), "1000000000\n");
    }
}
