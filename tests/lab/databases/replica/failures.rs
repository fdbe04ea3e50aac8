//! Whatever fails, and whichever process is killed, the old server is as it was.

use std::path::Path;

use nix::libc;
use nix::sys::signal::{Signal, kill};

use crate::databases::{HOLD, LEASE, Servers, expect_held, let_go};
use crate::support::agents::Found;
use crate::support::changes::Wrapper;
use crate::support::commands::Running;
use crate::support::holder::{Holder, Point, Role};
use crate::support::hosts::Host;
use crate::support::processes;
use crate::support::roots;

/// Before the copy gets its final name.
const PUBLISHING: Point =
    Point::Before(&[libc::SYS_renameat2], |call| call.path(2, 3) == Path::new("/var/lib/mysql"));

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

/// Puts a bash script in front of each line of statements for `mariadb`, `$line`, that meets a condition. The client
/// gets the line at the end of the script.
fn of_statements(host: &Host, condition: &str, script: &str) -> Wrapper {
    let filter = format!(
        "while IFS= read -r line || [[ $line ]]; do if [[ {condition} ]]; then {script}; fi; printf '%s\\n' \"$line\"; done"
    );
    Wrapper::new(host, "mariadb", &format!("exec $real \"$@\" < <({filter} 2>/dev/null)"))
}

/// Hold of one run at a step.
enum Hold {
    /// By a script on a host.
    Script { host: Host, _wrapper: Wrapper },
    /// At a system call of the agent.
    Call(Holder),
}

impl Hold {
    fn at(servers: &Servers, step: &str) -> Self {
        // The rollback must not be held.
        let once = format!("if mkdir /run/held-once 2>/dev/null; then {HOLD}; fi");
        let program = |host: &Host, program, condition| {
            host.sh("rm -rf /run/held-once");
            let script = format!("if [[ {condition} ]]; then {once}; fi");
            Self::Script { host: host.clone(), _wrapper: Wrapper::new(host, program, &script) }
        };
        let (db1, db2) = (&servers.db1, &servers.db2);
        let line = |condition| {
            db2.sh("rm -rf /run/held-once");
            Self::Script { host: db2.clone(), _wrapper: of_statements(db2, condition, &once) }
        };
        match step {
            "copying" => program(db1, "mariadb-backup", "$* == *--backup*"),
            "stopping" => program(db2, "systemctl", "$1 == stop"),
            "publishing" => Self::Call(roots::hold(db2, &[Role::Serve], PUBLISHING)),
            "starting" => program(db2, "systemctl", "$1 == start"),
            "following" => line("$line == 'START SLAVE'"),
            "catching up" => line("$line == *MASTER_GTID_WAIT*"),
            "comparing" => line("$line == 'CHECKSUM TABLE'*"),
            _ => unreachable!("{step}"),
        }
    }

    /// Waits until the run is held.
    #[track_caller]
    fn expect_held(&self, mut run: Running) -> Running {
        match self {
            Self::Script { host, .. } => expect_held(host, run),
            Self::Call(holder) => {
                holder.expect_held(&mut run);
                run
            }
        }
    }

    /// Lets the run continue.
    #[track_caller]
    fn let_go(&self) {
        match self {
            Self::Script { host, .. } => let_go(host),
            Self::Call(holder) => holder.open(),
        }
    }
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
            let hold = Hold::at(&servers, step);
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
            let run = hold.expect_held(servers.lab.transfer_spawn(&order));
            match whom {
                "controller" => run.signal("KILL"),
                "signal" => run.signal("INT"),
                _ => drop(processes::sh(&servers.db2, "kill -KILL $(agent)")),
            }
            // Every rollback waits for a change in progress.
            hold.let_go();
            let ended = run.wait();
            assert!(!ended.status.success(), "{when}: {ended}");
            servers.expect_old_one(&when);
            // A shell that has found the program once would not look for it again.
            drop(hold);
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
fn exclusive_killed_agent_of_donor_releases_its_locks() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let reading = Point::Before(&[libc::SYS_write], |call| call.bytes(1, 2).starts_with(b"CHECKSUM TABLE "));
    let holder = roots::hold(&servers.db1, &[Role::Serve], reading);
    let order = ["replica", "db1", "db2", "--replace", "--create-account", "--verify-tables"];
    let mut run = servers.lab.transfer_spawn(&order);
    let held = holder.expect_held(&mut run);
    let written = |seconds: u8| {
        let write =
            format!("SET lock_wait_timeout = {seconds}; REPLACE INTO shop.myisam VALUES (1, 'written')");
        servers.db1.run(&["mariadb", "-e", &write]).status.success()
    };
    assert!(!written(1), "the table is not locked");
    kill(held.process, Signal::SIGKILL).expect("it runs");
    assert!(written(10), "the lock has outlasted the agent");
    holder.open();
    let ended = run.wait();
    assert!(!ended.status.success(), "{ended}");
    servers.expect_old_one("donor");
}

#[test]
fn exclusive_next_run_rolls_back_orphaned_replica() {
    let Some(servers) = Servers::set() else { return };
    servers.old_replica();
    let hold = Hold::at(&servers, "catching up");
    let order = ["replica", "db1", "db2", "--replace", "--create-account", "--lease-time", LEASE];
    let run = hold.expect_held(servers.lab.transfer_spawn(&order));
    run.signal("STOP");
    let found = Found::of(&servers.db2, &["agent", "watchdog", "pgrep -P $(agent) mariadb"]);
    found.freeze();
    found.signal("KILL");
    found.thaw();
    run.signal("KILL");
    drop(run.wait());
    hold.let_go();
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
    let hold = Hold::at(&servers, "catching up");
    let order = ["replica", "db1", "db2", "--replace", "--create-account", "--lease-time", LEASE];
    let run = hold.expect_held(servers.lab.transfer_spawn(&order));
    servers.db2.crash();
    let ended = run.wait();
    assert!(!ended.status.success(), "{ended}");
    servers.expect_no_accounts("crashed");
    servers.db2.boot();
    drop(hold);
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
        let spoil = "$real -e 'SET sql_log_bin = 0; DELETE FROM shop.plain LIMIT 1' </dev/null >/dev/null";
        let _spoilt = of_statements(&servers.db2, "$line == 'CHECKSUM TABLE'*", spoil);
        let failed = servers.replica(&order).expect_code(3).stderr;
        assert!(
            failed.contains("db2: its tables differ from those of db1: 1 entry differs: shop/plain"),
            "{failed}"
        );
        servers.expect_old_one("differs");
    }
    {
        let spoil = "$real -e 'SET sql_log_bin = 0; DROP TABLE shop.plain' </dev/null >/dev/null";
        let _spoilt = of_statements(&servers.db2, "$line == 'START SLAVE'", spoil);
        let writer = servers.write_rows();
        let failed = servers.replica(&order).expect_code(1).stderr;
        writer.stop();
        assert!(failed.contains("replication from db1 failed: its SQL thread has stopped: "), "{failed}");
        servers.expect_old_one("stopped");
    }
}
