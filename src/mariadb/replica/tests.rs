//! Tests of the preflight of replicas, without hosts.

use std::net::IpAddr;

use clap::Parser as _;

use super::whom::{Asked, AskedHost};
use crate::base::endpoint::HostName;
use crate::cli::{Cli, Command, Replica};
use crate::host::facts::{Facts, Installed, Upstream};
use crate::mariadb::client::LoginError;
use crate::mariadb::plan::{Account, Whose};
use crate::mariadb::survey::Reached;
use crate::proto::Text;
use crate::proto::server::SqlFailure;

fn order(words: &[&str]) -> Replica {
    match Cli::parse_from(["transfer", "replica"].iter().chain(words)).command {
        Some(Command::Replica(order)) => order,
        other => panic!("{other:?}"),
    }
}

fn host(name: &str) -> HostName {
    HostName::Ssh(name.into())
}

fn asked_host(name: &str, facts: &Facts) -> AskedHost {
    AskedHost { name: host(name), facts: facts.clone() }
}

/// Facts of a suitable server on the host with the address 10.0.0.`id`.
fn runs(id: u32) -> Facts {
    let mut server = Installed {
        unit: "mariadb.service".into(),
        runs: true,
        version: "mariadbd  Ver 10.11.6-MariaDB-log for debian-linux-gnu".into(),
        socket: "/run/mysqld/mysqld.sock".into(),
        datadir: "/var/lib/mysql".into(),
        ..Installed::default()
    };
    let variables = [
        ("version", "10.11.4-MariaDB-log"),
        ("log_bin", "ON"),
        ("bind_address", "0.0.0.0"),
        ("port", "3306"),
        ("log_slave_updates", "ON"),
    ];
    server.instance.variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    server.instance.variables.insert("server_id".into(), id.to_string());
    server.configured = [("server_id", id.to_string()), ("read_only", "TRUE".into())]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    let own: IpAddr = format!("10.0.0.{id}").parse().unwrap();
    Facts {
        machine_id: id.to_string(),
        ssh: Some(("10.0.0.99".parse().unwrap(), own)),
        addresses: vec![own],
        installed: Some(server),
        ..Facts::default()
    }
}

fn follows(facts: &mut Facts, id: u32) {
    let upstream = Upstream {
        runs: true,
        by_gtid: true,
        host: format!("10.0.0.{id}"),
        port: 3306,
        server_id: id,
        ..Upstream::default()
    };
    facts.installed.as_mut().unwrap().upstreams.push(upstream);
}

/// Findings of `transfer replica db1 db2` with these options.
fn found(words: &[&str], change: impl Fn(&mut Facts, &mut Facts)) -> Vec<String> {
    let order = order(&[&["db1", "db2"], words].concat());
    let (mut source, mut target) = (runs(1), runs(2));
    change(&mut source, &mut target);
    let asked = Asked {
        order: &order,
        donor: asked_host("db1", &source),
        primary: asked_host("db1", &source),
        targets: vec![asked_host("db2", &target)],
    };
    asked.servers().iter().map(ToString::to_string).collect()
}

fn failed(number: Option<u32>, text: &str) -> LoginError {
    LoginError::of(&SqlFailure { number, message: Text::new(text) })
}

fn installed(facts: &mut Facts) -> &mut Installed {
    facts.installed.as_mut().unwrap()
}

#[test]
fn good_pair_has_no_findings() {
    assert_eq!(found(&[], |_, _| {}), Vec::<String>::new());
}

type Change<'a> = &'a dyn Fn(&mut Facts, &mut Facts);

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn each_finding_names_its_problem_and_fix() {
    let set = |facts: &mut Facts, name: &str, value: &str| {
        installed(facts).instance.variables.insert(name.into(), value.into());
    };
    let cases: [(&str, Change<'_>); 22] = [
        (
            "db2: the server keeps files outside its data directory: log_bin=/var/log/mysql/bin; set the",
            &|_, target| {
                installed(target).configured.insert("log_bin".into(), "/var/log/mysql/bin".into());
            },
        ),
        ("db2: the server is a Galera cluster node; choose", &|_, target| {
            installed(target).configured.insert("wsrep_on".into(), "ON".into());
        }),
        (
            "db2: the orphaned run r-target1 has left provisional data on the server; transfer clean \
             --start-servers db2",
            &|_, target| {
                installed(target).stale = vec![("r-target1".into(), true)];
            },
        ),
        ("db1: no MariaDB server is running; start it", &|source, _| installed(source).runs = false),
        ("db1: cannot query the server: no; log in as root", &|source, _| {
            installed(source).instance.error = Some(failed(None, "no"));
        }),
        ("db1: the server is 8.0.36; only MariaDB is supported", &|source, _| {
            set(source, "version", "8.0.36");
        }),
        ("db1: binary logging is off", &|source, _| set(source, "log_bin", "OFF")),
        ("db1: the server listens on 127.0.0.1 only; set bind_address", &|source, _| {
            set(source, "bind_address", "127.0.0.1");
        }),
        (
            "db1: the server has networking off (skip_networking); set skip_networking=0 below [mysqld]",
            &|source, _| set(source, "skip_networking", "ON"),
        ),
        (
            "db1: the server has networking off (skip_networking); set skip_networking=0 and \
             bind_address=0.0.0.0 below",
            &|source, _| {
                set(source, "skip_networking", "ON");
                set(source, "bind_address", "127.0.0.1");
            },
        ),
        ("db1: binary logs expire after 600 s", &|source, _| {
            set(source, "binlog_expire_logs_seconds", "600");
        }),
        ("db1: 2 servers are running: a.service, b.service; choose one with --unit", &|source, _| {
            installed(source).unit.clear();
            installed(source).running = vec!["a.service".into(), "b.service".into()];
        }),
        ("db2: uid 7 cannot stop and start the server", &|_, target| target.uid = 7),
        ("db2: it is the same host as db1", &|source, target| target.machine_id = source.machine_id.clone()),
        (
            "db2: no MariaDB server is installed; apt install mariadb-server (version 10.11.4)",
            &|_, target| {
                target.installed = None;
            },
        ),
        ("db2: the server is 11.4.2, but that of db1 is 10.11.4", &|_, target| {
            installed(target).version = "mariadbd  Ver 11.4.2-MariaDB".into();
        }),
        ("db2: a file system is mounted at or below /var/lib/mysql", &|_, target| {
            installed(target).mounted = true;
        }),
        ("db2: the server has databases: a, b, c, …; use --replace", &|_, target| {
            installed(target).databases = ["a", "b", "c", "d"].map(Into::into).into();
        }),
        ("db2: the server has 1 connected client: app@10.0.0.7", &|_, target| {
            installed(target).clients = vec!["app@10.0.0.7".into()];
        }),
        ("db2: the server receives writes", &|_, target| installed(target).written = true),
        (
            "db2: read_only is not set in its configuration; the replica will accept writes after its next restart",
            &|_, target| {
                installed(target).configured.remove("read_only");
            },
        ),
        ("db2: server_id is not set; set server_id=2 below [mysqld]", &|_, target| {
            installed(target).configured.insert("server_id".into(), "0".into());
        }),
    ];
    for (expected, change) in cases {
        let found = found(&[], change);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
    }
    // Warnings do not hide later findings.
    let both = found(&[], |source, target| {
        set(source, "wsrep_on", "ON");
        installed(target).databases = vec!["a".into()];
    });
    assert!(both.len() == 2 && both[0].starts_with("db1: the server is a Galera cluster node"), "{both:?}");
    let databases = |_: &mut Facts, target: &mut Facts| installed(target).databases = vec!["a".into()];
    assert_eq!(found(&["--replace"], databases), Vec::<String>::new());
    let used = |_: &mut Facts, target: &mut Facts| installed(target).downstreams = vec![(9, String::new())];
    assert!(found(&[], used)[0].starts_with("db2: the server has 1 replica;"));
    assert_eq!(found(&["--allow-clients"], used), Vec::<String>::new());
}

#[test]
fn server_id_of_another_server_is_refused() {
    let same = |_: &mut Facts, target: &mut Facts| {
        installed(target).configured.insert("server_id".into(), "1".into());
    };
    assert_eq!(found(&[], same), ["db2: server_id 1 is already used by db1; set server_id=2 below [mysqld]"]);
    let other = |source: &mut Facts, _: &mut Facts| {
        installed(source).downstreams = vec![(2, "10.0.0.3".into()), (8, "x".into())];
    };
    assert_eq!(
        found(&[], other),
        ["db2: server_id 2 is already used by 10.0.0.3; set server_id=9 below [mysqld]"]
    );
    // A target that is already a replica keeps its id, but cannot take that of another one.
    let renamed = |source: &mut Facts, target: &mut Facts| {
        installed(source).downstreams = vec![(2, String::new()), (3, "10.0.0.3".into())];
        follows(target, 1);
        installed(target).configured.insert("server_id".into(), "3".into());
    };
    assert!(
        found(&[], renamed)[0].contains("server_id 3 is already used by 10.0.0.3"),
        "{:?}",
        found(&[], renamed)
    );
    let same = |source: &mut Facts, target: &mut Facts| {
        installed(source).downstreams = vec![(2, String::new())];
        follows(target, 1);
    };
    assert_eq!(found(&[], same), Vec::<String>::new());
    // The primary may still list the target itself.
    for own in ["10.0.0.2", "db2"] {
        let itself =
            |source: &mut Facts, _: &mut Facts| installed(source).downstreams = vec![(2, own.into())];
        assert_eq!(found(&[], itself), Vec::<String>::new());
    }
}

#[test]
fn upstream_depends_on_the_command() {
    let whom = |words: &[&str], donor: &Facts, primary: &Facts| {
        let order = order(words);
        let donor_name = order.from.clone().unwrap_or(order.primary.clone());
        let asked = Asked {
            order: &order,
            donor: AskedHost { name: donor_name, facts: donor.clone() },
            primary: AskedHost { name: order.primary.clone(), facts: primary.clone() },
            targets: Vec::new(),
        };
        asked.whom().map(|whom| (whom.name, whom.port, whom.position)).map_err(|finding| finding.to_string())
    };
    let (primary, mut replica) = (runs(1), runs(4));
    follows(&mut replica, 1);
    assert_eq!(whom(&["db1", "db2"], &primary, &primary), Ok(("db1".into(), 3306, Whose::Own)));
    assert_eq!(whom(&["db4", "db2"], &replica, &replica), Ok(("10.0.0.1".into(), 3306, Whose::Upstream)));
    assert_eq!(
        whom(&["db4", "db2", "--replicate-from-primary"], &replica, &replica),
        Ok(("db4".into(), 3306, Whose::Own))
    );
    assert_eq!(
        whom(&["db1", "db2", "--from", "db4"], &replica, &primary),
        Ok(("db1".into(), 3306, Whose::Upstream))
    );
    let not_its = whom(&["db9", "db2", "--from", "db4"], &replica, &runs(9)).unwrap_err();
    assert!(not_its.starts_with("db4: it does not replicate from db9"), "{not_its}");
    follows(&mut replica, 5);
    let many = whom(&["db4", "db2"], &replica, &replica).unwrap_err();
    assert!(many.starts_with("db4: it replicates from 2 servers; use --replicate-from-primary"), "{many}");
    assert_eq!(
        whom(&["db1", "db2", "--from", "db4"], &replica, &primary),
        Ok(("db1".into(), 3306, Whose::Upstream))
    );
    let none = whom(&["db1", "db2", "--sibling"], &primary, &primary).unwrap_err();
    assert!(none.starts_with("db1: it is not a replica; omit --sibling"), "{none}");
}

#[test]
fn account_is_used_only_for_a_given_primary() {
    let mut replica = runs(4);
    follows(&mut replica, 1);
    let order = order(&["db4", "db2"]);
    let asked = Asked {
        order: &order,
        donor: asked_host("db4", &replica),
        primary: asked_host("db4", &replica),
        targets: Vec::new(),
    };
    let whom = asked.whom().unwrap();
    assert!(!whom.is_asked);
    assert_eq!(
        asked.account_for_unnamed(&whom).to_string(),
        "db4: it replicates from 10.0.0.1, which was not given: --account is used only for hosts that are; \
         give the primary: transfer replica PRIMARY TARGET --from db4"
    );
}

#[test]
fn closed_port_and_refused_login_have_different_fixes() {
    let order = order(&["db1", "db2"]);
    let asked = Asked {
        order: &order,
        donor: asked_host("db1", &runs(1)),
        primary: asked_host("db1", &runs(1)),
        targets: Vec::new(),
    };
    let whom = asked.whom().unwrap();
    let account = Account::new("repl".into(), "secret".into()).unwrap();
    let findings = |reached: &Reached| {
        let found = asked.reached(&whom, &asked_host("db2", &runs(2)), Some(&account), reached);
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let variables =
        [("server_id".to_owned(), "1".to_owned()), ("version".to_owned(), "10.11.4-MariaDB".to_owned())];
    let good = Reached {
        host: "db1".into(),
        own: "10.0.0.2".into(),
        current: "repl@%".into(),
        variables: variables.into(),
        may_replicate: true,
        error: None,
    };
    assert_eq!(findings(&good), "");
    let closed = Reached {
        error: Some(failed(Some(2002), "ERROR 2002 (HY000): Can't connect to server on 'db1' (111)")),
        ..good.clone()
    };
    assert!(findings(&closed).contains("open port 3306 of db1 for 10.0.0.2"), "{}", findings(&closed));
    let denied = Reached { error: Some(failed(Some(1045), "Access denied for user")), ..good.clone() };
    assert!(findings(&denied).contains("allow repl to log in there from 10.0.0.2"), "{}", findings(&denied));
    let poor = Reached { may_replicate: false, ..good.clone() };
    assert!(findings(&poor).contains("GRANT REPLICATION SLAVE ON *.* TO 'repl'@'%'"), "{}", findings(&poor));
    let mut other = good;
    other.variables.insert("server_id".into(), "7".into());
    assert!(
        findings(&other).contains("db1:3306 is not the server of db1: its server_id is 7"),
        "{}",
        findings(&other)
    );
}
