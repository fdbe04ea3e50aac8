//! Several targets of one run, and several runs on one host: faults of one do not affect the others.

use crate::support::commands::Running;
use crate::support::copies::{assert_same, make_random};
use crate::support::held::{Held, MORE_THAN_BUFFERS, being_read};
use crate::support::hosts::{Host, Lab};
use crate::support::scenes::SOON;
use crate::support::snapshots::Snapshot;
use crate::support::trees::names;

/// Fills a disk, `$1`, as soon as a transfer uses it, after the check of its space.
const FILL: &str = r#"
    until compgen -G "$1/.transfer-*" >/dev/null; do sleep 0.005; done
    cat /dev/zero 2>/dev/null >"$1/somebody-elses"
    truncate -s -1M "$1/somebody-elses"
"#;

fn fill_when_used(host: &Host, disk: &str) -> Running {
    host.spawn(&["bash", "--norc", "-c", FILL, "bash", disk])
}

#[test]
fn three_targets_are_fed_from_one_read() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let source = scratch.join("source");
    db1.run(&["mkdir", &source]).expect_success();
    make_random(&db1, &format!("{source}/random"), MORE_THAN_BUFFERS);
    db1.put("small", &format!("{source}/small"), 0o640);
    let second = scratch.join("second");
    db2.run(&["mkdir", &second]).expect_success();
    let targets = [(&db2, scratch.path()), (&db2, second.as_str()), (&db3, scratch.path())];

    let args = [
        &format!("db1:{source}"),
        &format!("db2:{}", scratch.path()),
        &format!("db2:{second}"),
        &format!("db3:{}", scratch.path()),
    ];
    let held = Held::start(&lab, &args.map(String::as_str), &db3, scratch.path());
    being_read(&db1, scratch.path());
    let readers = "for cwd in /proc/[0-9]*/cwd; do [[ $cwd -ef $1 ]] && cat \"${cwd%cwd}comm\"; done; true";
    let readers = db1.run(&["bash", "-c", readers, "bash", &source]).expect_success().stdout;
    let count = |name: &str| readers.lines().filter(|line| *line == name).count();
    assert_eq!((count("tar"), count("zstd"), count("nc")), (1, 1, 3), "{readers}");
    let output = held.go().expect_success();

    assert_eq!(output.stdout.matches(": done: ").count(), 3, "{output}");
    for (host, target) in targets {
        assert_same((&db1, &source), (host, &format!("{target}/source")));
    }
}

#[test]
fn one_failed_target_of_three_publishes_nothing() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 20);
    let second = scratch.join("second");
    db2.run(&["mkdir", &second]).expect_success();
    let disk = scratch.small_disk(&db3, "disk", 40 << 20);
    let mut filler = fill_when_used(&db3, &disk);

    let output = lab
        .transfer(&[
            &format!("db1:{source}"),
            &format!("db2:{}", scratch.path()),
            &format!("db3:{disk}"),
            &format!("db2:{second}"),
        ])
        .expect_code(1);
    filler.wait_end(crate::support::scenes::SOON);

    assert_same((&db1, &source), (&db2, &source));
    assert_same((&db1, &source), (&db2, &format!("{second}/source")));
    assert_eq!(names(&db3, &disk), ["somebody-elses"]);
    let reported = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(reported.matches(": done: ").count(), 2, "{output}");
    let failed =
        reported.lines().find(|line| line.starts_with(&format!("db3:{disk}: FAILED: "))).unwrap_or_default();
    assert!(failed.contains("tar"), "{output}");
}

#[test]
fn full_target_disk_publishes_nothing() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 20);
    let disk = scratch.small_disk(&db2, "disk", 40 << 20);
    for options in [&[][..], &["--no-compress", "--no-encrypt"]] {
        let filler = fill_when_used(&db2, &disk);
        let mut args = vec![format!("db1:{source}"), format!("db2:{disk}")];
        args.extend(options.iter().map(ToString::to_string));
        let output = lab.transfer(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect_code(1);
        filler.wait().expect_success();
        assert!(output.stderr.contains("No space left"), "{output}");
        assert_eq!(names(&db2, &disk), ["somebody-elses"]);
        db2.run(&["rm", &format!("{disk}/somebody-elses")]).expect_success();
    }
    // A disk that is too small from the start is not used at all.
    let tiny = scratch.small_disk(&db2, "tiny", 10 << 20);
    let output = lab.transfer(&[&format!("db1:{source}"), &format!("db2:{tiny}")]).expect_code(4);
    assert!(output.stderr.contains("has 10.00 MiB free (10485760 bytes), the source needs "), "{output}");
}

#[test]
fn refused_target_refuses_all_unless_skipped() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let source = scratch.join("source");
    db1.put("new", &source, 0o600);
    db2.put("old", &source, 0o640);
    let args =
        [&format!("db1:{source}"), &format!("db2:{}", scratch.path()), &format!("db3:{}", scratch.path())];
    let args = args.map(String::as_str);

    let output = lab.transfer(&args).expect_code(4);
    assert!(output.stderr.contains(&format!("db2: {source} already exists")), "{output}");
    assert!(names(&db3, scratch.path()).is_empty());

    let output = lab.transfer(&[&args[..], &["--skip-refused"]].concat()).expect_code(1);
    assert!(output.stderr.contains("left out") && output.stderr.contains("already exists"), "{output}");
    assert_same((&db1, &source), (&db3, &source));
    assert_eq!(db2.sh(&format!("cat '{source}'")), "old");

    // Nothing is left to do without a target.
    let output = lab.transfer(&[&args[..], &["--skip-refused"]].concat()).expect_code(4);
    assert!(output.stderr.contains("db2") && output.stderr.contains("db3"), "{output}");
}

#[test]
fn many_hosts_work_with_few_open_files() {
    let Some(lab) = Lab::get() else { return };
    let ctl = lab.host("ctl");
    lab.transfer(&["--version"]).expect_success();
    // Names of db1, by which it is asked many times.
    let scratch = lab.scratch(&["ctl"]);
    let config = scratch.join("ssh");
    ctl.put("Host many*\n    HostName db1\n    HostKeyAlias db1\n", &config, 0o600);
    let status = format!(
        "ulimit -Sn 32; /usr/local/bin/transfer --ssh-config {config} status 'many[1-12]' | sort -u | wc -l"
    );
    assert_eq!(ctl.sh(&status), "12\n");
}

#[test]
fn unreachable_host_is_named_and_changes_nothing() {
    let Some(lab) = Lab::get() else { return };
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    lab.host("db1").put("x", &source, 0o600);
    let output = lab
        .transfer(&[&format!("db1:{source}"), &format!("db2:{}", scratch.path()), "nowhere:/srv"])
        .expect_code(4);
    assert!(output.stderr.contains("nowhere: cannot connect with ssh"), "{output}");
    assert!(names(&lab.host("db2"), scratch.path()).is_empty());
}

#[test]
fn exclusive_twenty_concurrent_runs_into_one_host_succeed() {
    let Some(lab) = Lab::get() else { return };
    let hosts = ["ctl", "db1", "db2", "db3"].map(|name| lab.host(name));
    let [_, db1, db2, db3] = &hosts;
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let source = scratch.join("source");
    for host in [db1, db3] {
        host.run(&["mkdir", &source]).expect_success();
        make_random(host, &format!("{source}/random"), 1);
    }
    db2.sh(&format!("cd '{}'; mkdir {{1..20}}", scratch.path()));
    // The first connection leaves traces.
    lab.transfer(&["status", "db1", "db2", "db3"]).expect_success();
    let before = hosts.each_ref().map(|host| Snapshot::of(host, &["/run/transfer-ssh", "/root"]));

    let from = |number: u32| if number % 4 == 0 { "db3" } else { "db1" };
    let transfers: Vec<Running> = (1..=20)
        .map(|number| {
            let target = format!("db2:{}", scratch.join(&number.to_string()));
            lab.transfer_spawn(&[&format!("{}:{source}", from(number)), &target])
        })
        .collect();
    let outputs: Vec<String> = transfers
        .into_iter()
        .map(Running::wait)
        .filter(|output| !output.status.success())
        .map(|o| o.to_string())
        .collect();
    assert!(outputs.is_empty(), "{} failed:\n{}", outputs.len(), outputs.join("\n"));

    for number in 1..=20 {
        let copy = format!("{}/source", scratch.join(&number.to_string()));
        assert_same((if from(number) == "db3" { db3 } else { db1 }, &source), (db2, &copy));
    }
    for (host, before) in hosts.iter().zip(&before) {
        assert_eq!(before.remaining(host, SOON), Vec::<String>::new());
    }
}

#[test]
fn exclusive_dry_run_changes_nothing() {
    let Some(lab) = Lab::get() else { return };
    let hosts = ["ctl", "db1", "db2", "db3"].map(|name| lab.host(name));
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let source = scratch.join("source");
    make_random(&hosts[1], &source, 1);
    hosts[2].sh(
        "nft add table inet mine; nft 'add chain inet mine input { type filter hook input priority 0; }'",
    );
    // The first use of a program or a connection may leave traces.
    let args =
        [&format!("db1:{source}"), &format!("db2:{}", scratch.path()), &format!("db3:{}", scratch.path())];
    let args = [&args.map(String::as_str)[..], &["--dry-run"]].concat();
    lab.transfer(&args).expect_success();
    let dirs = [scratch.path(), "/run/transfer-ssh", "/root", "/etc"];
    let before = hosts.each_ref().map(|host| Snapshot::of(host, &dirs));

    let output = lab.transfer(&args).expect_success();
    for (host, before) in hosts.iter().zip(&before) {
        assert_eq!(before.remaining(host, SOON), Vec::<String>::new());
    }
    hosts[2].sh("nft delete table inet mine");
    for reported in ["db2 (target", "db3 (target", "db1 (source", "from 10.77.0.11", "nothing was changed"] {
        assert!(output.stdout.contains(reported), "{reported}: {output}");
    }
}
