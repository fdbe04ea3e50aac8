use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;

use super::*;
use crate::base::endpoint::Endpoint;
use crate::cli::Cli;
use crate::config::settings::Sources;
use crate::engine::netcat::variant::{Dialect, Netcat};
use crate::host::facts::{Existing, Facts, OtherServer, PathType, SourceFacts, TargetFacts};
use crate::preflight::{Weight, counted};
use crate::proto::files::FileId;

/// Programs that every host needs for a copy.
const TOOLS: [&str; 3] = ["gzip", "openssl", "tar"];

/// Identity of some data.
const ID: FileId = FileId { device: 1, inode: 2 };

fn entry() -> Existing {
    Existing::Entry(ID)
}

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
        tools: TOOLS.iter().map(|tool| (*tool).to_owned()).collect(),
        tar: "tar (GNU tar) 1.34".into(),
        netcats: vec![Netcat::default()],
        source: Some(SourceFacts {
            path_type: PathType::Directory,
            readable: true,
            real: "/srv/data".into(),
            entries: 10,
            disk_bytes: 1000,
            ..SourceFacts::default()
        }),
        target: Some(TargetFacts {
            path_type: PathType::Directory,
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

/// Findings of a copy of `db1:/srv/data` to the target `to`, with these options.
fn findings(words: &[&str], to: &str, change: impl FnOnce(&mut Facts, &mut Facts)) -> String {
    let (mut there, mut here) = (facts(), facts());
    change(&mut there, &mut here);
    let (from, to) = (endpoint("db1:/srv/data"), endpoint(to));
    text(&target(&settings(words), side(&from, &there), side(&to, &here), Before::default()))
}

fn target_findings(change: impl FnOnce(&mut Facts)) -> String {
    findings(&[], "db2:/srv", |_, here| change(here))
}

fn source_findings(change: impl FnOnce(&mut Facts)) -> String {
    let mut changed = facts();
    change(&mut changed);
    text(&source(&settings(&[]), side(&endpoint("db1:/srv/data"), &changed)))
}

#[test]
fn good_run_has_no_findings() {
    assert_eq!(target_findings(|_| ()), "");
    assert_eq!(source_findings(|_| ()), "");
}

#[test]
fn foreign_address_is_refused_with_its_option() {
    let facts = Facts { addresses: vec!["10.77.0.12".parse().unwrap()], ..facts() };
    let (from, to) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let foreign = |end| Side { foreign: Some("10.9.9.9".parse().unwrap()), ..side(end, &facts) };
    assert_eq!(
        text(&source(&settings(&[]), foreign(&from))),
        "db1: --source-address 10.9.9.9 is not an address of this host (it has 10.77.0.12); give one of its \
         addresses, or omit the option"
    );
    let found = text(&target(&settings(&[]), side(&from, &facts), foreign(&to), Before::default()));
    assert!(found.starts_with("db2: --target-address 10.9.9.9 is not an address of this host"), "{found}");
}

#[test]
fn overlap_is_seen_through_bind_mounts() {
    let on = |words: &[&str], place: &str| {
        findings(words, "db1:/mnt", |there, here| {
            there.source.as_mut().unwrap().place = "/8:1/data".into();
            let target = here.target.as_mut().unwrap();
            (target.real, target.place) = ("/mnt".into(), place.into());
        })
    };
    assert!(on(&[], "/8:1/data/sub").contains("/mnt is inside the source"));
    assert_eq!(on(&[], "/8:2/data/sub"), "");
    assert_eq!(on(&[], "/8:1/data2"), "");
    assert!(on(&["--replace"], "/8:1").contains("/mnt/data is or contains the source"));
    assert_eq!(on(&["--replace"], ""), "");
}

#[test]
fn findings_name_host_and_fix() {
    assert_eq!(
        target_findings(|f| {
            f.netcats.clear();
            f.tools.remove("gzip");
        }),
        "db2: not installed: gzip, nc; apt install gzip netcat-openbsd"
    );
    assert_eq!(
        target_findings(|f| f.target.as_mut().unwrap().existing = entry()),
        "db2: /srv/data already exists; move it away, choose another directory or name (--as), or replace \
         it (--replace)"
    );
    assert_eq!(
        target_findings(|f| f.target.as_mut().unwrap().free_bytes = 999),
        "db2: /srv has 999 B free (999 bytes), the source needs 1000 B (1000 bytes); free some space, or \
         choose another directory"
    );
    assert!(target_findings(|f| f.target.as_mut().unwrap().free_inodes = Some(9)).contains("inodes"));
    assert_eq!(target_findings(|f| f.target = None), "db2: /srv does not exist; mkdir /srv");
    assert!(
        target_findings(|f| f.target.as_mut().unwrap().writable = false)
            .contains("uid 0 cannot write to /srv")
    );
    assert_eq!(
        target_findings(|f| {
            f.netcats.clear();
            f.tools.insert("nc".into());
        }),
        "db2: nc is not a supported netcat (OpenBSD, traditional or ncat); apt install netcat-openbsd"
    );
    assert!(source_findings(|f| f.source = None).contains("db1: /srv/data does not exist"));
    assert!(source_findings(|f| f.source.as_mut().unwrap().readable = false).contains("uid 0 cannot read"));
    assert!(
        source_findings(|f| f.source.as_mut().unwrap().path_type = PathType::Socket).contains("is a socket")
    );
    assert!(
        source_findings(|f| f.source.as_mut().unwrap().path_type = PathType::Symlink)
            .contains("give the path that it points to")
    );
}

#[test]
fn target_inside_the_source_is_refused() {
    let inside = |_: &mut Facts, here: &mut Facts| here.target.as_mut().unwrap().real = "/srv/data/x".into();
    assert_eq!(findings(&[], "db2:/srv", inside), "", "another host");
    assert!(findings(&[], "db1:/srv/data/x", inside).contains("is inside the source"));
}

#[test]
fn replaced_directory_is_neither_source_nor_mount_point() {
    let exists = |_: &mut Facts, here: &mut Facts| here.target.as_mut().unwrap().existing = entry();
    assert_eq!(findings(&["--replace"], "db2:/srv", exists), "");
    let mounted = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        here.target.as_mut().unwrap().mounted = true;
    };
    assert!(
        findings(&["--replace"], "db2:/srv", mounted)
            .contains("a file system is mounted at or below /srv/data")
    );
    // The same file under another path.
    let same = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        there.source.as_mut().unwrap().id = Some(ID);
        here.target.as_mut().unwrap().real = "/mnt".into();
    };
    assert!(findings(&["--replace"], "db1:/mnt", same).contains("/mnt/data is or contains the source"));
    assert_eq!(findings(&["--replace"], "db2:/mnt", same), "", "inodes of another host are others");
    let holds = |there: &mut Facts, here: &mut Facts| {
        exists(there, here);
        here.target.as_mut().unwrap().real = "/".into();
    };
    assert!(
        findings(&["--replace", "--as", "srv"], "db1:/", holds).contains("/srv is or contains the source")
    );
}

#[test]
fn too_long_names_are_refused() {
    let long = "n".repeat(240);
    assert_eq!(findings(&["--as", &long], "db2:/srv", |_, _| ()), "");
    let kept = ["--as", &long, "--replace", "--keep-old"];
    assert!(
        findings(&kept, "db2:/srv", |_, _| ())
            .contains("has 240 bytes, the limit is 228; choose a shorter one")
    );
}

#[test]
fn two_targets_on_one_host_need_two_ports() {
    let (from, one, two, there, here) =
        (endpoint("db1:/srv/data"), endpoint("db2:/srv"), endpoint("db2:/mnt"), facts(), facts());
    let other = side(&one, &here);
    let found = |words: &[&str]| {
        let before = Before { accepted: &[other], ..Before::default() };
        text(&target(&settings(words), side(&from, &there), side(&two, &here), before))
    };
    assert_eq!(
        found(&["--port", "4444"]),
        "db2: port 4444 is already used for another target on this host; omit --port, or give a range with \
         --port-range"
    );
    assert_eq!(found(&["--port-range", "4444-4445"]), "");
}

#[test]
fn space_is_counted_for_all_targets_on_a_file_system() {
    let (from, one, two) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"), endpoint("db2:/mnt"));
    let mut here = facts();
    here.target.as_mut().unwrap().id = Some(ID);
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
    assert!(text(&found).contains("2 copies on this file system need 1.95 KiB (2000 bytes)"), "{found:?}");
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
fn id_mismatches_are_warnings() {
    let differ = |there: &mut Facts, here: &mut Facts| {
        there.users.insert("mysql".into(), 105);
        here.users.extend([("mysql".into(), 112), ("ntp".into(), 105)]);
    };
    assert_eq!(
        findings(&[], "db2:/srv", differ),
        "db2: uid mismatch: mysql is 105 on db1 but 112 here; the copy would belong to uid 105 (ntp); set \
         the owner with --chown USER:GROUP"
    );
    assert_eq!(findings(&["--chown", "mysql:mysql"], "db2:/srv", differ), "");
    let unused = |there: &mut Facts, here: &mut Facts| {
        there.groups.insert("mysql".into(), 111);
        here.groups.insert("mysql".into(), 121);
    };
    assert!(findings(&[], "db2:/srv", unused).contains(
        "gid mismatch: mysql is 111 on db1 but 121 here; the copy would belong to gid 111 (no such group)"
    ));
    let unknown = |_: &mut Facts, here: &mut Facts| {
        here.target.as_mut().unwrap().unknown_owners.push("group mysql".into());
    };
    assert!(
        findings(&["--chown", "mysql:mysql"], "db2:/srv", unknown)
            .contains("group mysql does not exist (--chown)")
    );
    let user = |_: &mut Facts, here: &mut Facts| here.uid = 1000;
    assert!(findings(&["--chown", "mysql"], "db2:/srv", user).contains("--chown requires root"));
}

#[test]
fn clock_case_and_read_only_mounts_are_checked() {
    let (from, to, there, here) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"), facts(), facts());
    let late = Side { skew: Some(-61.0), ..side(&to, &here) };
    let found = target(&settings(&[]), side(&from, &there), late, Before::default());
    assert_eq!((found.len(), found[0].weight), (1, Weight::Warning));
    assert!(found[0].problem.contains("the clock is 61 s behind that of db1"), "{found:?}");
    let twins = |there: &mut Facts, here: &mut Facts| {
        there.source.as_mut().unwrap().twin = Some("data/readme".into());
        here.target.as_mut().unwrap().folds_case = true;
    };
    assert!(
        findings(&[], "db2:/srv", twins)
            .contains("is case-insensitive, and another name differs from data/readme only in case")
    );
    assert!(
        target_findings(|f| f.target.as_mut().unwrap().read_only = true)
            .contains("/srv is on a read-only file system")
    );
}

#[test]
fn unsupported_attributes_are_refused_unless_they_may_be_dropped() {
    use crate::config::values::AttributeKind::{Acls, Capabilities, Xattrs};
    let lacks = |there: &mut Facts, here: &mut Facts| {
        let attributes = [(Acls, (3, "data/x".to_owned())), (Capabilities, (1, "data/ping".to_owned()))];
        there.source.as_mut().unwrap().attributes = attributes.into();
        here.target.as_mut().unwrap().lacks = [Xattrs, Acls].into();
    };
    assert_eq!(
        findings(&[], "db2:/srv", lacks),
        "db2: the file system of /srv does not support ACLs, which are set on 3 files of the source, such \
         as data/x; choose another file system, or allow the loss with --drop-attributes=acls"
    );
    assert_eq!(findings(&["--drop-attributes=acls,xattrs"], "db2:/srv", lacks), "");
}

#[test]
fn required_programs_depend_on_options() {
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
    assert!(found(&["--compress=lz4"], &facts()).contains("not installed: lz4; apt install lz4"));
    assert!(found(&["--nice"], &facts()).contains("not installed: ionice; apt install util-linux"));
    assert!(
        found(&["--stop-slave"], &facts()).contains("--stop-replication has no effect on a copy of files")
    );
}

#[test]
fn stop_server_warns_if_none_is_running_on_the_target() {
    let warning =
        "db2: no server is running in /srv/data, so none will be stopped or started with the copy; start it";
    assert!(findings(&["--stop-server=both"], "db2:/srv", |_, _| ()).contains(warning));
    assert_eq!(findings(&["--stop-server=source"], "db2:/srv", |_, _| ()), "");
    let (there, here) = (facts(), facts());
    let ends = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let replicas = Before { replicas: true, ..Before::default() };
    let settings = settings(&["--stop-server=target"]);
    assert_eq!(text(&target(&settings, side(&ends.0, &there), side(&ends.1, &here), replicas)), "");
}

#[test]
fn nftables_table_with_an_owner_is_refused() {
    let found = |words: &[&str], table: &str| {
        findings(words, "db2:/srv", |_, here| here.owned_tables = vec![table.to_owned()])
    };
    assert_eq!(
        found(&["--port", "4444"], "inet site"),
        "db2: nftables table inet site filters incoming connections and can be changed only by the program \
         that owns it; open port 4444 for the source in that program, and use --firewall none"
    );
    assert!(found(&["--firewall", "nftables"], "ip site").contains("open ports 4400-4500 for the source"));
    assert_eq!(found(&["--firewall", "iptables"], "inet site"), "");
    assert_eq!(found(&["--firewall", "none"], "inet site"), "");
    assert_eq!(found(&[], "ip6 site"), "", "IPv6 only");
}

#[test]
fn unreachable_target_names_hosts_without_ipv6_netcat() {
    let traditional = || vec![Netcat { dialect: Dialect::Traditional, program: "nc".into() }];
    let found = |change: &dyn Fn(&mut Facts, &mut Facts)| {
        let (mut there, mut here) = (facts(), facts());
        here.addresses = vec!["fd77::12".parse().unwrap()];
        change(&mut there, &mut here);
        let ends = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
        let nowhere = Side { peer: None, ..side(&ends.1, &here) };
        text(&target(&settings(&[]), side(&ends.0, &there), nowhere, Before::default()))
    };
    let nothing = "db2: the source cannot reach any known address of this host (it has fd77::12); give both \
                   hosts as SSH hosts with addresses of the same family (IPv4 or IPv6), or give \
                   --target-address";
    assert_eq!(found(&|_, _| ()), nothing);
    let only =
        "the only netcat is the traditional one, which does not support IPv6; apt install netcat-openbsd";
    assert_eq!(found(&|there, _| there.netcats = traditional()), format!("{nothing}\ndb1: {only}"));
    assert_eq!(found(&|_, here| here.netcats = traditional()), format!("{nothing}\ndb2: {only}"));
}

#[test]
fn many_id_mismatches_are_summarized() {
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
    let warnings: Vec<String> =
        found.iter().map(ToString::to_string).filter(|text| text.contains("--chown")).collect();
    assert_eq!(warnings.len(), 21, "{warnings:?}");
    assert!(warnings[20].contains("the same applies to 480 more users"), "{}", warnings[20]);
}

#[test]
fn server_of_an_ordinary_account_is_a_warning() {
    let found = source_findings(|there| {
        there.other_servers = vec![OtherServer { datadir: "/srv/data/home".into(), account: "eve".into() }];
    });
    assert_eq!(
        found,
        "db1: a process of user eve has database files open in /srv/data/home; the copy may be inconsistent"
    );
}

#[test]
fn counted_uses_singular_for_one() {
    assert_eq!(counted(1, "client"), "1 client");
    assert_eq!([counted(0, "client"), counted(2, "client")], ["0 clients", "2 clients"]);
}
