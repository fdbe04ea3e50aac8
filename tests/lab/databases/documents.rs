//! Runs every command of the documents, in the order in which a reader sees them, on hosts in their original
//! state.

use std::fmt::Write as _;

use crate::support::documents;
use crate::support::documents::Step;
use crate::support::hosts::Lab;
use crate::support::servers::{PUT_BACK, configure, put_back};

/// Defines one test per document, so that documents do not depend on each other.
macro_rules! documents {
    ($($test:ident: $path:literal),* $(,)?) => {
        const TESTED: &[&str] = &[$($path),*];
        $(
            #[test]
            fn $test() {
                follow($path);
            }
        )*
    };
}

documents! {
    exclusive_readme_commands_work: "README.md",
    exclusive_tutorial: "docs/tutorial.md",
    exclusive_ansible_commands_work: "docs/ansible.md",
    exclusive_configuration_commands_work: "docs/configuration.md",
    exclusive_exit_code_commands_work: "docs/exit-codes.md",
    exclusive_migration_commands_work: "docs/migration.md",
    exclusive_performance_commands_work: "docs/performance.md",
    exclusive_security_commands_work: "docs/security.md",
    exclusive_cold_clone_runbook_works: "docs/runbooks/cold-clone.md",
    exclusive_crash_runbook_works: "docs/runbooks/crash.md",
    exclusive_failed_runbook_works: "docs/runbooks/failed.md",
    exclusive_hot_backup_runbook_works: "docs/runbooks/hot-backup.md",
    exclusive_nightly_refresh_runbook_works: "docs/runbooks/nightly-refresh.md",
    exclusive_replica_runbook_works: "docs/runbooks/replica.md",
    exclusive_terabyte_runbook_works: "docs/runbooks/terabyte.md",
    exclusive_upgrade_runbook_works: "docs/runbooks/upgrade.md",
}

#[test]
fn exclusive_every_document_with_commands_is_tested() {
    let types = |(_, step): &(usize, Step)| matches!(step, Step::Type { .. } | Step::Write { .. });
    for path in documents::all() {
        let document = documents::read(&path).unwrap();
        let is_tested = TESTED.contains(&path.as_str());
        assert_eq!(document.steps.iter().any(types), is_tested, "{path}");
    }
}

/// Restores the hosts, whether or not the document was completed.
struct Reader {
    lab: Lab,
    undo: String,
}

const HOSTS: [&str; 4] = ["ctl", "db1", "db2", "db3"];

impl Reader {
    fn begins() -> Option<Self> {
        let lab = Lab::get()?;
        // Installs the program.
        lab.transfer(&["--version"]).expect_success();
        // In the directory that the package uses.
        let tar = ["-C", concat!(env!("CARGO_MANIFEST_DIR"), "/contrib"), "-c", "ansible"];
        let tar = std::process::Command::new("tar").args(tar).output().expect("no tar").stdout;
        let place = "/usr/share/transfer";
        lab.host("ctl")
            .command(&["sh", "-c", "mkdir -p $1 && tar -C $1 -x", "sh", place])
            .stdin(tar)
            .run()
            .expect_success();
        for (id, name) in HOSTS.iter().enumerate().skip(1) {
            let host = lab.host(name);
            put_back(&host);
            configure(&host, u8::try_from(id).unwrap(), "");
        }
        Some(Self { lab, undo: String::new() })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for name in HOSTS {
            let servers = if name == "ctl" { "" } else { PUT_BACK };
            let script = format!(
                "{}\nrm -rf /srv/* /etc/transfer /var/lib/transfer-history /usr/share/transfer\n\
                 systemctl daemon-reload\n{servers}",
                self.undo
            );
            self.lab.host(name).run(&["bash", "--norc", "-c", &script]);
        }
    }
}

#[track_caller]
fn follow(path: &str) {
    let document = documents::read(path).unwrap();
    let Some(mut reader) = Reader::begins() else { return };
    for (line, step) in document.steps {
        match step {
            Step::Type { host, exit, script } => {
                let script = format!("cd /root; export HOME=/root\n{script}");
                // Not on its input, which ssh would read.
                let ended =
                    reader.lab.host(&host).run(&["bash", "--norc", "-euo", "pipefail", "-c", &script]);
                assert!(ended.status.code() == Some(exit), "{path}, line {line}, on {host}: {ended}");
                println!("{path}, line {line}:\n{}{}", ended.stdout, ended.stderr);
            }
            Step::Write { host, path, mode, text } => {
                let (directory, name) = path.rsplit_once('/').unwrap();
                if directory == "/etc/systemd/system" {
                    let _ = writeln!(reader.undo, "systemctl disable --now {name} 2>/dev/null");
                }
                let _ = writeln!(reader.undo, "rm -f {path}");
                reader.lab.host(&host).sh(&format!("mkdir -p {directory}"));
                reader.lab.host(&host).put(text, &path, u32::from_str_radix(&mode, 8).unwrap());
            }
            Step::Elsewhere { .. } | Step::Show => {}
        }
    }
}
