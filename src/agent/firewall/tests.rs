use super::*;
use crate::agent::tool::Tool;
use rustix::thread::UnshareFlags;

const TAG: &str = "transfer-r1-t";

/// Runs a test in a network namespace of its own; not without root. Only this thread is there, and the programs
/// that it starts.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let thread = std::thread::spawn(|| {
        #[expect(deprecated, reason = "of the flags that affect a thread alone, this is no danger")]
        if rustix::thread::unshare(UnshareFlags::NEWNET).is_ok() {
            test();
        }
    });
    thread.join().unwrap();
}

fn nft(script: &str) -> bool {
    Tool::new("nft").args(["-f", "-"]).input(script).succeed().is_ok()
}

/// Returns whether nftables works here.
fn has_nft() -> bool {
    Tool::new("nft").args(["list", "ruleset"]).succeed().is_ok()
}

fn ruleset() -> String {
    String::from_utf8(Tool::new("nft").args(["list", "ruleset"]).succeed().unwrap()).unwrap()
}

fn rule<'a>(layer: Layer, peer: &str, tag: &'a str) -> Rule<'a> {
    Rule { layer, peer: peer.parse().unwrap(), port: 4400, tag }
}

fn close_all(layer: Layer, family: Family, tag: &str) -> Result<(), FirewallError> {
    close(layer, family, tag, Duration::from_secs(3))
}

const TABLES: &str = "
table inet site {
	chain input {
		comment \"flags owner\"
		type filter hook input priority -5; policy drop;
		ct state established accept
	}
	chain other {
		tcp dport 22 accept comment \"type filter hook input\"
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy drop;
	}
}
table ip6 filter {
	chain INPUT {
		type filter hook input priority 0; policy drop;
	}
}
table bridge b {
	chain input {
		type filter hook input priority 0; policy drop;
	}
}
";

#[test]
fn every_input_chain_of_the_family_is_opened_and_closed() {
    in_namespace(|| {
        if !has_nft() {
            return;
        }
        assert!(nft(TABLES));
        let before = ruleset();
        assert_eq!(open(&rule(Layer::Nftables, "10.0.0.1", TAG)).unwrap(), 2);
        assert_eq!(open(&rule(Layer::Nftables, "fd00::1", TAG)).unwrap(), 2);
        assert_eq!(open(&rule(Layer::Nftables, "::ffff:10.0.0.2", "transfer-r1-t2")).unwrap(), 2);
        let opened = ruleset();
        assert_eq!(opened.matches("ip saddr 10.0.0.1 tcp dport 4400 accept").count(), 2, "{opened}");
        assert_eq!(opened.matches("ip6 saddr fd00::1 tcp dport 4400 accept").count(), 2, "{opened}");
        close_all(Layer::Nftables, Family::V4, TAG).unwrap();
        assert_eq!(ruleset().matches("transfer-r1-t2").count(), 2);
        close_all(Layer::Nftables, Family::V4, TAG).unwrap();
        close_all(Layer::Nftables, Family::V4, "transfer-r1-t2").unwrap();
        assert_eq!(ruleset(), before);
        let used = [(Layer::Nftables, Family::V4), (Layer::Nftables, Family::V6)];
        assert!(used.iter().all(|pair| layers().used.contains(pair)));
        assert!(layers().owned.is_empty());
    });
}

#[test]
fn table_of_another_process_is_owned_and_left_alone() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};
    in_namespace(|| {
        if !has_nft() {
            return;
        }
        // Interactive: the owner of a table is the process that made it.
        let started = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut owner) = started else { return };
        let mut stdin = owner.stdin.take().unwrap();
        let table = "add table inet firewalld { flags owner; }\n\
            add chain inet firewalld in { type filter hook input priority 10; policy accept; }\nlist tables\n";
        stdin.write_all(table.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(owner.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        let owned = layers().owned;
        let opened = open(&rule(Layer::Nftables, "10.0.0.1", TAG));
        drop(stdin);
        owner.wait().unwrap();
        assert_eq!(owned, ["inet firewalld"], "{answer}");
        assert_eq!(opened.unwrap(), 0);
    });
}

#[test]
fn host_without_rules_is_opened_nowhere() {
    in_namespace(|| {
        if !has_nft() {
            return;
        }
        assert_eq!(layers(), Layers::default());
        assert_eq!(open(&rule(Layer::Nftables, "10.0.0.1", TAG)).unwrap(), 0);
        close_all(Layer::Nftables, Family::V4, TAG).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn rules_of_iptables_are_opened_and_closed() {
    for (layer, program) in [(Layer::IptablesNft, "iptables-nft"), (Layer::IptablesLegacy, "iptables-legacy")]
    {
        in_namespace(move || {
            let list = || Tool::new(program).args(["-S", "INPUT"]).succeed();
            if Tool::new(program).args(["-P", "INPUT", "DROP"]).succeed().is_err() {
                return;
            }
            let before = list().unwrap();
            assert_eq!(open(&rule(layer, "10.0.0.1", TAG)).unwrap(), 1);
            assert_eq!(open(&rule(layer, "10.0.0.1", TAG)).unwrap(), 1);
            assert_eq!(open(&rule(layer, "10.0.0.1", "transfer-r1-t2")).unwrap(), 1);
            // The tables of the old back end are listed for the main thread's namespace.
            if layer == Layer::IptablesNft {
                assert!(layers().used.contains(&(layer, Family::V4)));
            }
            close_all(layer, Family::V4, TAG).unwrap();
            let left = String::from_utf8(list().unwrap()).unwrap();
            assert_eq!(left.matches("transfer-r1-t").count(), 1, "{left}");
            close_all(layer, Family::V4, "transfer-r1-t2").unwrap();
            assert_eq!(list().unwrap(), before);
        });
    }
}

#[test]
fn tags_that_need_quotes_are_refused() {
    for tag in ["", "a b", "a\"b", "a;b", "a\nb", &"x".repeat(200)] {
        assert!(matches!(open(&rule(Layer::Nftables, "10.0.0.1", tag)), Err(FirewallError::Tag(_))));
        assert!(matches!(close_all(Layer::Nftables, Family::V4, tag), Err(FirewallError::Tag(_))));
    }
}
