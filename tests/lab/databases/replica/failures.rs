//! Whatever fails, and whichever process is killed, the old server is as it was.

use crate::databases::{HOLD, LEASE, Servers, expect_held, let_go};
use crate::support::agents::Found;
use crate::support::changes::Wrapper;
use crate::support::hosts::Host;
use crate::support::processes;

#[test]
fn exclusive_failed_prepare_leaves_old_replica_running() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let process = || servers.db2.sh("systemctl show -p MainPID --value mariadb");
    let before = process();
    let fails = "if [[ $* == *--prepare* ]]; then
        echo '2026-11-21 23:04:36 0 [Note] InnoDB: IO Error: 28 during write of 4096 bytes, for file shop/compressed.ibd(9), returned 0' >&2
        exit 1; fi";
    let full = Wrapper::new(&servers.db2, "mariadb-backup", fails);
    let order = ["db1", "db2", "--replace", "--create-account"];
    let failed = servers.replica(&order).expect_code(1).stderr;
    assert!(failed.contains("the disk is full"), "{failed}");
    servers.expect_old_one("full");
    assert_eq!(process(), before);
    drop(full);
    servers.replica(&order).expect_success();
    servers.expect_replica(&servers.db2);
}

/// Puts a script on a host that holds a run at a step.
fn hold(servers: &Servers, step: &str) -> (Host, Wrapper) {
    let (host, program, condition) = match step {
        "copying" => (&servers.db1, "mariadb-backup", "$* == *--backup*"),
        "stopping" => (&servers.db2, "systemctl", "$1 == stop"),
        "publishing" => (&servers.db2, "perl", "${@: -1} == */fd/14/mysql"),
        "starting" => (&servers.db2, "systemctl", "$1 == start"),
        "following" => (&servers.db2, "mariadb", "${!#} == 'START SLAVE'"),
        "catching up" => (&servers.db2, "mariadb", "${!#} == *MASTER_GTID_WAIT*"),
        "comparing" => (&servers.db2, "mariadb", "$* == *--unbuffered*"),
        _ => unreachable!("{step}"),
    };
    // Once: the rollback must not be held.
    let script = format!("if [[ {condition} ]] && mkdir /run/held-once 2>/dev/null; then {HOLD}; fi");
    host.sh("rm -rf /run/held-once");
    (host.clone(), Wrapper::new(host, program, &script))
}

fn killed_at(steps: &[&str]) {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    for step in steps {
        for whom in ["controller", "agent", "signal"] {
            // All three lead to the same code of the agent or its watchdog, where they have an effect.
            let strikes = match whom {
                "controller" => !["copying", "following"].contains(step),
                "signal" => ["publishing", "catching up"].contains(step),
                _ => true,
            };
            if !strikes {
                continue;
            }
            let when = format!("{whom} at {step}");
            let (host, wrapper) = hold(&servers, step);
            let order = [
                "replica",
                "db1",
                "db2",
                "--replace",
                "--create-account",
                "--verify-tables",
                "--lease-time",
                LEASE,
            ];
            let run = expect_held(&host, servers.lab.transfer_spawn(&order));
            match whom {
                "controller" => run.signal("KILL"),
                "signal" => run.signal("INT"),
                _ => drop(processes::sh(&servers.db2, "kill -KILL $(agent)")),
            }
            // Every rollback waits for a change in progress.
            let_go(&host);
            let ended = run.wait();
            assert!(!ended.status.success(), "{when}: {ended}");
            servers.expect_old_one(&when);
            // A shell that has found the program once would not look for it again.
            drop(wrapper);
        }
    }
    servers.replica(&["db1", "db2", "--replace", "--create-account"]).expect_success();
    servers.expect_replica(&servers.db2);
}

#[test]
fn exclusive_kill_before_publication_keeps_old_replica() {
    killed_at(&["copying", "stopping", "publishing"]);
}

#[test]
fn exclusive_kill_after_publication_restores_old_replica() {
    killed_at(&["starting", "following"]);
}

#[test]
fn exclusive_kill_before_commit_restores_old_replica() {
    killed_at(&["catching up", "comparing"]);
}

#[test]
fn exclusive_next_run_rolls_back_orphaned_replica() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let (host, wrapper) = hold(&servers, "catching up");
    let order = ["replica", "db1", "db2", "--replace", "--create-account", "--lease-time", LEASE];
    let run = expect_held(&host, servers.lab.transfer_spawn(&order));
    run.signal("STOP");
    let found = Found::of(&servers.db2, &["agent", "watchdog", "of 8 $home/follow.job"]);
    found.freeze();
    found.signal("KILL");
    found.thaw();
    run.signal("KILL");
    drop((run.wait(), wrapper));
    let_go(&host);
    let cleaned = servers.transfer(&["clean", "db2"]).expect_code(6);
    assert!(
        cleaned.stdout.contains("db2: PROVISIONAL: ") && cleaned.stdout.contains("clean --start-servers db2"),
        "{cleaned}"
    );
    let again = servers.replica(&["db1", "db2", "--replace", "--create-account"]).expect_success();
    assert!(again.stderr.contains("db2: an orphaned run had left provisional data on the server"), "{again}");
    servers.expect_replica(&servers.db2);
    servers.expect_nothing_left();
    assert_eq!(servers.db2.sh("ls -d /var/lib/mysql.old-* 2>/dev/null || :"), "");
}

#[test]
fn exclusive_crashed_target_restores_old_data_on_request() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let (host, wrapper) = hold(&servers, "catching up");
    let order = ["replica", "db1", "db2", "--replace", "--create-account", "--lease-time", LEASE];
    let run = expect_held(&host, servers.lab.transfer_spawn(&order));
    servers.db2.crash();
    let ended = run.wait();
    assert!(!ended.status.success(), "{ended}");
    servers.expect_no_accounts("crashed");
    servers.db2.boot();
    drop(wrapper);
    // It may have been used since, so the decision is left to the user.
    let refused = servers.replica(&["db1", "db2", "--replace", "--create-account"]).expect_code(4).stderr;
    assert!(
        refused.contains("db2: the orphaned run ")
            && refused.contains(" has left provisional data on the server")
            && refused.contains("transfer clean --start-servers db2"),
        "{refused}"
    );
    let cleaned = servers.transfer(&["clean", "db2"]).expect_code(6);
    assert!(cleaned.stdout.contains("db2: PROVISIONAL: mariadb.service has provisional data"), "{cleaned}");
    servers.transfer(&["clean", "--start-servers", "db2"]).expect_success();
    servers.expect_old_one("crashed");
    servers.replica(&["db1", "db2", "--replace", "--create-account"]).expect_success();
    servers.expect_replica(&servers.db2);
}

#[test]
fn exclusive_broken_or_differing_replica_is_rolled_back() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let order = ["db1", "db2", "--replace", "--create-account", "--verify-tables"];
    // Adds a row to the copy only, between the copy and the comparison.
    {
        let spoil = "if [[ $* == *--unbuffered* ]]; then $real -e \"SET sql_log_bin = 0; DELETE FROM shop.plain LIMIT 1\"; fi";
        let _spoilt = Wrapper::new(&servers.db2, "mariadb", spoil);
        let failed = servers.replica(&order).expect_code(3).stderr;
        assert!(
            failed.contains("db2: its tables differ from those of db1: 1 entry differs: shop/plain"),
            "{failed}"
        );
        servers.expect_old_one("differs");
    }
    {
        let spoil = "if [[ ${!#} == 'START SLAVE' ]]; then $real -e \"SET sql_log_bin = 0; DROP TABLE shop.plain\"; fi";
        let _spoilt = Wrapper::new(&servers.db2, "mariadb", spoil);
        let writer = servers.write_rows();
        let failed = servers.replica(&order).expect_code(1).stderr;
        writer.stop();
        assert!(failed.contains("replication from db1 failed: its SQL thread has stopped: "), "{failed}");
        servers.expect_old_one("stopped");
    }
}
