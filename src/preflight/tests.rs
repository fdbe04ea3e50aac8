use std::ffi::OsStr;
use std::path::PathBuf;

use super::tools::TOOLS;
use super::*;
use crate::cli::Cli;
use crate::host::facts::{OtherServer, SourceFacts, TargetFacts};
use crate::host::netcat::{Dialect, Netcat};
use crate::settings::Sources;

fn settings(words: &[&str]) -> Settings {
    let words = ["transfer", "a:/x", "b:/y"].into_iter().chain(words.iter().copied());
    let nowhere = Sources { own: "/nonexistent".into(), old: "/nonexistent".into(), environment: Vec::new() };
    Settings::load(&Cli::read(words).unwrap().typed, &nowhere).unwrap()
}

fn endpoint(word: &str) -> Endpoint {
    Endpoint::parse(OsStr::new(word)).unwrap()
}

fn facts() -> Facts {
    Facts {
        bash: (5, 2),
        syscalls_known: true,
        tools: TOOLS.iter().map(|(tool, _)| (*tool).to_owned()).chain(["openssl".to_owned()]).collect(),
        tar: "tar (GNU tar) 1.34".into(),
        netcats: vec![Netcat::default()],
        source: Some(SourceFacts {
            file_type: "directory".into(),
            readable: true,
            real: "/srv/data".into(),
            entries: 10,
            disk_bytes: 1000,
            ..SourceFacts::default()
        }),
        target: Some(TargetFacts {
            file_type: "directory".into(),
            writable: true,
            real: "/srv".into(),
            free_bytes: 2000,
            free_inodes: Some(20),
            ..TargetFacts::default()
        }),
        ..Facts::default()
    }
}

fn side<'a>(endpoint: &'a Endpoint, facts: &'a Facts) -> Side<'a> {
    Side { endpoint, facts, skew: Some(0.0), foreign: None, peer: Some("10.77.0.11".parse().unwrap()) }
}

fn text(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What stands against `target`, `db2:/srv` unless it is another, with these options.
fn against(words: &[&str], to: &str, change: impl FnOnce(&mut Facts, &mut Facts)) -> String {
    let (mut there, mut here) = (facts(), facts());
    change(&mut there, &mut here);
    let (from, to) = (endpoint("db1:/srv/data"), endpoint(to));
    text(&target(&settings(words), side(&from, &there), side(&to, &here), Before::default()))
}

fn against_target(change: impl FnOnce(&mut Facts)) -> String {
    against(&[], "db2:/srv", |_, here| change(here))
}

fn against_source(change: impl FnOnce(&mut Facts)) -> String {
    let mut changed = facts();
    change(&mut changed);
    text(&source(&settings(&[]), side(&endpoint("db1:/srv/data"), &changed)))
}

#[test]
fn nothing_stands_against_a_good_run() {
    assert_eq!(against_target(|_| ()), "");
    assert_eq!(against_source(|_| ()), "");
}

#[test]
fn an_address_that_is_another_s_is_refused_with_the_option_that_said_it() {
    let facts = Facts { addresses: vec!["10.77.0.12".parse().unwrap()], ..facts() };
    let (from, to) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let foreign = |end| Side { foreign: Some("10.9.9.9".parse().unwrap()), ..side(end, &facts) };
    assert_eq!(
        text(&source(&settings(&[]), foreign(&from))),
        "db1: --source-address 10.9.9.9 is no address of it (it has 10.77.0.12); give one that it has, or leave the option out"
    );
    let told = text(&target(&settings(&[]), side(&from, &facts), foreign(&to), Before::default()));
    assert!(told.starts_with("db2: --target-address 10.9.9.9 is no address of it"), "{told}");
}

#[test]
fn what_bind_mounts_hide_is_seen_by_its_place_in_the_file_system() {
    let on = |words: &[&str], place: &str| {
        against(words, "db1:/mnt", |there, here| {
            there.source.as_mut().unwrap().place = "/8:1/data".into();
            let target = here.target.as_mut().unwrap();
            (target.real, target.place) = ("/mnt".into(), place.into());
        })
    };
    assert!(on(&[], "/8:1/data/sub").contains("/mnt is inside of the source"));
    assert_eq!(on(&[], "/8:2/data/sub"), "");
    assert_eq!(on(&[], "/8:1/data2"), "");
    assert!(on(&["--replace"], "/8:1").contains("/mnt/data is the source, or holds it"));
    assert_eq!(on(&["--replace"], ""), "");
}

#[test]
fn each_finding_names_its_host_and_its_fix() {
    assert_eq!(
        against_target(|f| {
            f.netcats.clear();
            f.tools.remove("flock");
        }),
        "db2: programs are missing: flock, nc; apt install netcat-openbsd util-linux"
    );
    assert_eq!(
        against_target(|f| f.target.as_mut().unwrap().exists = Some("1:2".into())),
        "db2: /srv/data exists already; move it away, choose another directory or name (--as), or replace it (--replace)"
    );
    assert_eq!(
        against_target(|f| f.target.as_mut().unwrap().free_bytes = 999),
        "db2: /srv has 999 B free (999 bytes), the source takes 1000 B (1000 bytes); free some space or choose another directory"
    );
    assert!(against_target(|f| f.target.as_mut().unwrap().free_inodes = Some(9)).contains("inodes"));
    assert_eq!(against_target(|f| f.target = None), "db2: /srv does not exist; mkdir /srv");
    assert!(
        against_target(|f| f.target.as_mut().unwrap().writable = false).contains("may not write into /srv")
    );
    assert_eq!(
        against_target(|f| {
            f.netcats.clear();
            f.tools.insert("nc".into());
        }),
        "db2: its nc is neither OpenBSD's netcat nor the traditional one nor ncat; apt install netcat-openbsd"
    );
    assert!(against_source(|f| f.source = None).contains("db1: /srv/data does not exist"));
    assert!(against_source(|f| f.source.as_mut().unwrap().readable = false).contains("cannot be read"));
    assert!(
        against_source(|f| f.source.as_mut().unwrap().file_type = "socket".into()).contains("is a socket")
    );
    assert!(
        against_source(|f| f.source.as_mut().unwrap().file_type = "symbolic link".into())
            .contains("name what it points to")
    );
}

#[test]
fn a_target_inside_of_the_source_is_refused() {
    let inside = |_: &mut Facts, here: &mut Facts| here.target.as_mut().unwrap().real = "/srv/data/x".into();
    assert_eq!(against(&[], "db2:/srv", inside), "", "another host");
    assert!(against(&[], "db1:/srv/data/x", inside).contains("is inside of the source"));
}

#[test]
fn what_is_replaced_must_be_neither_the_source_nor_mounted() {
    let exists = |_: &mut Facts, here: &mut Facts| here.target.as_mut().unwrap().exists = Some("1:2".into());
    assert_eq!(against(&["--replace"], "db2:/srv", exists), "");
    let mounted = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        here.target.as_mut().unwrap().mounted = true;
    };
    assert!(
        against(&["--replace"], "db2:/srv", mounted).contains("something is mounted at /srv/data or below")
    );
    // The same file under another path.
    let same = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        there.source.as_mut().unwrap().inode = "1:2".into();
        here.target.as_mut().unwrap().real = "/mnt".into();
    };
    assert!(against(&["--replace"], "db1:/mnt", same).contains("/mnt/data is the source, or holds it"));
    assert_eq!(against(&["--replace"], "db2:/mnt", same), "", "inodes of another host are others");
    let holds = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        here.target.as_mut().unwrap().real = "/".into();
    };
    assert!(
        against(&["--replace", "--as", "srv"], "db1:/", holds).contains("/srv is the source, or holds it")
    );
}

#[test]
fn names_that_are_too_long_are_refused_before_anything_is_sent() {
    let long = "n".repeat(240);
    assert_eq!(against(&["--as", &long], "db2:/srv", |_, _| ()), "");
    let kept = ["--as", &long, "--replace", "--keep-old"];
    assert!(
        against(&kept, "db2:/srv", |_, _| ()).contains("has 240 bytes, 228 are possible; give it another")
    );
}

#[test]
fn two_targets_on_one_host_cannot_listen_on_one_port() {
    let (from, one, two, there, here) =
        (endpoint("db1:/srv/data"), endpoint("db2:/srv"), endpoint("db2:/mnt"), facts(), facts());
    let other = side(&one, &here);
    let found = |words: &[&str]| {
        let before = Before { accepted: &[other], ..Before::default() };
        text(&target(&settings(words), side(&from, &there), side(&two, &here), before))
    };
    assert_eq!(
        found(&["--port", "4444"]),
        "db2: port 4444 is for another target on this host; leave out --port, or say a range with --port-range"
    );
    assert_eq!(found(&["--port-range", "4444-4445"]), "");
}

#[test]
fn targets_on_one_file_system_need_its_space_together() {
    let (from, one, two) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"), endpoint("db2:/mnt"));
    let mut here = facts();
    here.target.as_mut().unwrap().device = "42".into();
    here.target.as_mut().unwrap().free_bytes = 1500;
    let mut other = here.clone();
    other.target.as_mut().unwrap().real = PathBuf::from("/mnt");
    let there = facts();
    let found = target(
        &settings(&[]),
        side(&from, &there),
        side(&two, &other),
        Before { accepted: &[side(&one, &here)], ..Before::default() },
    );
    assert!(text(&found).contains("2 copies on this file system take 1.95 KiB (2000 bytes)"), "{found:?}");
    let elsewhere = endpoint("db3:/srv");
    assert!(
        target(
            &settings(&[]),
            side(&from, &there),
            side(&two, &other),
            Before { accepted: &[side(&elsewhere, &here)], ..Before::default() }
        )
        .is_empty()
    );
}

#[test]
fn accounts_of_other_numbers_are_told_of_and_do_not_refuse() {
    let differ = |there: &mut Facts, here: &mut Facts| {
        there.users.insert("mysql".into(), 105);
        here.users.extend([("mysql".into(), 112), ("ntp".into(), 105)]);
    };
    assert_eq!(
        against(&[], "db2:/srv", differ),
        "db2: files of the user mysql, 105 on db1, will be those of 105, ntp: mysql is 112 here; give the copy its owner \
         with --chown USER:GROUP"
    );
    assert_eq!(against(&["--chown", "mysql:mysql"], "db2:/srv", differ), "");
    let nobody = |_: &mut Facts, here: &mut Facts| {
        here.target.as_mut().unwrap().unknown_owners.push("group mysql".into());
    };
    assert!(
        against(&["--chown", "mysql:mysql"], "db2:/srv", nobody)
            .contains("there is no group mysql for --chown")
    );
    let user = |_: &mut Facts, here: &mut Facts| here.uid = 1000;
    assert!(against(&["--chown", "mysql"], "db2:/srv", user).contains("only root may give files away"));
}

#[test]
fn clocks_and_cases_and_mounts_are_looked_at() {
    let (from, to, there, here) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"), facts(), facts());
    let late = Side { skew: Some(-61.0), ..side(&to, &here) };
    let found = target(&settings(&[]), side(&from, &there), late, Before::default());
    assert_eq!((found.len(), found[0].weight), (1, Weight::Warning));
    assert!(found[0].problem.contains("its clock is 61 s behind that of db1"), "{found:?}");
    let twins = |there: &mut Facts, here: &mut Facts| {
        there.source.as_mut().unwrap().twin = Some("data/readme".into());
        here.target.as_mut().unwrap().folds_case = true;
    };
    assert!(
        against(&[], "db2:/srv", twins)
            .contains("does not tell data/readme from the same name in another case")
    );
    assert!(against_target(|f| f.target.as_mut().unwrap().read_only = true).contains("mounted read-only"));
}

#[test]
fn attributes_that_a_target_cannot_hold_are_counted_unless_they_may_be_lost() {
    use crate::values::AttributeKind::{Acls, Capabilities, Xattrs};
    let lacks = |there: &mut Facts, here: &mut Facts| {
        let attributes = [(Acls, (3, "data/x".to_owned())), (Capabilities, (1, "data/ping".to_owned()))];
        there.source.as_mut().unwrap().attributes = attributes.into();
        here.target.as_mut().unwrap().lacks = [Xattrs, Acls].into();
    };
    assert_eq!(
        against(&[], "db2:/srv", lacks),
        "db2: the file system of /srv cannot hold ACLs, which 3 files of the source have, such as data/x; choose another \
         file system, or allow the loss with --drop-attributes=acls"
    );
    assert_eq!(against(&["--drop-attributes=acls,xattrs"], "db2:/srv", lacks), "");
}

#[test]
fn programs_are_needed_by_what_is_asked_for() {
    let without = |tool: &str| {
        let mut facts = facts();
        facts.tools.remove(tool);
        facts
    };
    let end = endpoint("db1:/srv/data");
    let found = |words: &[&str], facts: &Facts| text(&source(&settings(words), side(&end, facts)));
    assert!(found(&[], &without("openssl")).contains("apt install openssl"));
    assert_eq!(found(&["--no-encrypt"], &without("openssl")), "");
    assert_eq!(found(&[], &facts()), "");
    assert!(found(&["--compress=lz4"], &facts()).contains("missing: lz4; apt install lz4"));
    assert!(
        found(&["--checksum-algorithm", "blake2b"], &facts())
            .contains("missing: b2sum; apt install coreutils")
    );
    assert!(found(&["--nice"], &facts()).contains("missing: ionice; apt install util-linux"));
    assert!(found(&["--stop-slave"], &facts()).contains("--stop-replication has no effect on files"));
}

#[test]
fn a_server_that_is_to_rest_on_the_target_and_does_not_run_is_told() {
    let told = "db2: no server works in /srv/data: none is stopped, and none is started with the copy; start it yourself";
    assert!(against(&["--stop-server=both"], "db2:/srv", |_, _| ()).contains(told));
    assert_eq!(against(&["--stop-server=source"], "db2:/srv", |_, _| ()), "");
    let (there, here) = (facts(), facts());
    let ends = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let replicas = Before { replicas: true, ..Before::default() };
    let settings = settings(&["--stop-server=target"]);
    assert_eq!(text(&target(&settings, side(&ends.0, &there), side(&ends.1, &here), replicas)), "");
}

#[test]
fn a_table_with_an_owner_stands_against_those_who_would_open_it() {
    let found = |words: &[&str], table: &str| {
        against(words, "db2:/srv", |_, here| here.owned_tables = vec![table.to_owned()])
    };
    assert_eq!(
        found(&["--port", "4444"], "inet site"),
        "db2: its nftables table inet site filters what comes in, and only the program that owns it may change it; open \
         port 4444 for the source in that program and give --firewall none"
    );
    assert!(
        found(&["--firewall", "nftables"], "ip site").contains("open the ports 4400-4500 for the source")
    );
    assert_eq!(found(&["--firewall", "iptables"], "inet site"), "");
    assert_eq!(found(&["--firewall", "none"], "inet site"), "");
    assert_eq!(found(&[], "ip6 site"), "", "it does not see IPv4");
}

#[test]
fn where_no_address_fits_the_end_that_has_no_netcat_for_ipv6_is_told() {
    let traditional = || vec![Netcat { dialect: Dialect::Traditional, program: "nc".into() }];
    let found = |change: &dyn Fn(&mut Facts, &mut Facts)| {
        let (mut there, mut here) = (facts(), facts());
        here.addresses = vec!["fd77::12".parse().unwrap()];
        change(&mut there, &mut here);
        let ends = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
        let nowhere = Side { peer: None, ..side(&ends.1, &here) };
        text(&target(&settings(&[]), side(&ends.0, &there), nowhere, Before::default()))
    };
    let nothing = "db2: no address of it is known by which the source can reach it (it has fd77::12); name both hosts as \
                   SSH hosts with addresses of one family (IPv4 or IPv6), or say --target-address";
    assert_eq!(found(&|_, _| ()), nothing);
    let only = "its only netcat is the traditional one, which has no IPv6; apt install netcat-openbsd";
    assert_eq!(found(&|there, _| there.netcats = traditional()), format!("{nothing}\ndb1: {only}"));
    assert_eq!(found(&|_, here| here.netcats = traditional()), format!("{nothing}\ndb2: {only}"));
}

#[test]
fn of_many_owners_with_other_numbers_some_are_told_and_the_others_counted() {
    let owners = |first: u32| (0..500).map(|n| (format!("user{n}"), first + n)).collect();
    let (mut there, mut here) = (facts(), facts());
    (there.users, here.users) = (owners(1000), owners(5000));
    let (a, b) = (endpoint("a:/srv/data"), endpoint("b:/srv"));
    let side = |endpoint, facts| Side {
        endpoint,
        facts,
        skew: None,
        foreign: None,
        peer: Some(IpAddr::from([10, 0, 0, 1])),
    };
    let found = target(&settings(&[]), side(&a, &there), side(&b, &here), Before::default());
    let told: Vec<String> =
        found.iter().map(ToString::to_string).filter(|text| text.contains("--chown")).collect();
    assert_eq!(told.len(), 21, "{told:?}");
    assert!(told[20].contains("480 more"), "{}", told[20]);
}

#[test]
fn server_of_an_ordinary_account_is_a_warning_and_stops_no_run() {
    let told = against_source(|there| {
        there.other_servers = vec![OtherServer { datadir: "/srv/data/home".into(), account: "eve".into() }];
    });
    assert_eq!(
        told,
        "db1: the account eve has files of a server open in /srv/data/home; its copy may be inconsistent"
    );
}
