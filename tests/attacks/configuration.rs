//! Files that decide what root runs, and that other accounts can write to: none of them is used.

use crate::assertions::says;
use crate::support::attackers::eve::Eve;
use crate::support::changes::Changed;
use crate::support::commands::Invocation;
use crate::support::hosts::{Host, Lab};
use crate::support::output::Output;
use crate::support::scratch::Scratch;

/// A file of root's with a hook that leaves a trace on the controller.
struct Desk {
    lab: Lab,
    ctl: Host,
    scratch: Scratch,
}

/// Ways in which eve gets control of a file of root's, in bash; `$1` is the file.
const WAYS: [(&str, &str); 4] = [
    ("hers", r#"chown eve "$1""#),
    ("everybody's", r#"chmod 0666 "$1""#),
    ("of her group", r#"chgrp eve "$1"; chmod 0664 "$1""#),
    ("in a directory of everybody's", r#"chmod 0777 "${1%/*}""#),
];

impl Desk {
    fn new() -> Option<Self> {
        let lab = Lab::get()?;
        let ctl = lab.host("ctl");
        Eve::on(&ctl);
        let scratch = lab.scratch(&["ctl", "db1", "db2"]);
        lab.host("db1").sh(&format!("echo x >'{}'", scratch.join("source")));
        Some(Self { lab, ctl, scratch })
    }

    /// Creates a file in a directory of its own, and gives eve control of it.
    #[track_caller]
    fn file(&self, text: &str, way: &str) -> String {
        let (directory, file) = (self.scratch.join("files"), self.scratch.join("files/file"));
        self.ctl.sh(&format!("rm -rf '{directory}' '{}'; mkdir '{directory}'", self.trace()));
        self.ctl.put(text, &file, 0o600);
        self.ctl.run(&["bash", "-c", way, "way", &file]).expect_success();
        file
    }

    fn trace(&self) -> String {
        self.scratch.join("was-run")
    }

    fn hook(&self) -> String {
        format!("hook = {{ before_controller = \"touch {}\" }}\n", self.trace())
    }

    fn program(&self, options: &[&str]) -> Invocation {
        let ends = [format!("db1:{}", self.scratch.join("source")), format!("db2:{}", self.scratch.path())];
        self.lab.program(&[&ends.each_ref().map(String::as_str)[..], options].concat())
    }

    /// Asserts that nothing in the file was run, and that the refusal names it.
    #[track_caller]
    fn is_refused(&self, way: &str, file: &str, output: Output) {
        let ran = self.ctl.run(&["test", "-e", &self.trace()]).status.success();
        assert!(!ran, "root ran what eve wrote, from a file that is {way}: {output}");
        says(&output.expect_code(2), file);
    }
}

#[test]
fn untrusted_named_configuration_is_refused() {
    let Some(desk) = Desk::new() else { return };
    for (way, change) in WAYS {
        let file = desk.file(&desk.hook(), change);
        desk.is_refused(way, &file, desk.program(&["--config", &file, "--dry-run"]).run());
        desk.is_refused(way, &file, desk.program(&["--config", &file]).run());
    }
}

#[test]
fn untrusted_environment_configuration_is_refused() {
    let Some(desk) = Desk::new() else { return };
    for (way, change) in WAYS {
        let file = desk.file(&desk.hook(), change);
        desk.is_refused(way, &file, desk.program(&[]).env("TRANSFER_CONFIG", &file).run());
    }
}

#[test]
fn link_to_untrusted_configuration_is_refused() {
    let Some(desk) = Desk::new() else { return };
    let file = desk.file(&desk.hook(), WAYS[0].1);
    let link = desk.scratch.join("link");
    desk.ctl.run(&["ln", "-s", &file, &link]).expect_success();
    let output = desk.program(&["--config", &link]).run();
    let name = if output.stderr.contains(&link) { &link } else { &file };
    desk.is_refused("linked", name, output);
}

#[test]
fn untrusted_ssh_configuration_is_refused() {
    let Some(desk) = Desk::new() else { return };
    let text = format!("Host *\n    ProxyCommand sh -c 'touch {}; exec nc %h %p'\n", desk.trace());
    for (way, change) in WAYS {
        let file = desk.file(&text, change);
        desk.is_refused(way, &file, desk.program(&["--ssh-config", &file]).run());
    }
}

#[test]
fn root_only_configuration_is_used() {
    let Some(desk) = Desk::new() else { return };
    for readable in ["chmod 0600 \"$1\"", "chmod 0644 \"$1\""] {
        let file = desk.file(&desk.hook(), readable);
        desk.program(&["--config", &file, "--replace"]).run().expect_success();
        desk.ctl.run(&["test", "-e", &desk.trace()]).expect_success();
    }
}

/// Starts a primary, and removes all traces of it.
const START: &str = "printf '[mysqld]\nlog_bin = attack-bin\nbind_address = 0.0.0.0\n' >/etc/mysql/mariadb.conf.d/98-attack.cnf; systemctl start mariadb";
const STOP: &str =
    "systemctl stop mariadb; rm -f /etc/mysql/mariadb.conf.d/98-attack.cnf /var/lib/mysql/attack-bin.*";

#[test]
fn exclusive_untrusted_system_configuration_is_refused() {
    let Some(desk) = Desk::new() else { return };
    let file = "/etc/transfer/transfer.conf";
    let _changed = Changed::new(&desk.ctl, "mkdir /etc/transfer", "rm -rf /etc/transfer");
    for (way, change) in WAYS {
        desk.ctl.sh(&format!("chmod 0755 /etc/transfer; rm -f {file} '{}'", desk.trace()));
        desk.ctl.put(desk.hook(), file, 0o644);
        desk.ctl.run(&["bash", "-c", change, "way", file]).expect_success();
        desk.is_refused(way, file, desk.program(&[]).run());
    }
}

#[test]
fn exclusive_untrusted_account_file_is_refused() {
    let Some(desk) = Desk::new() else { return };
    // The account file is read once there is a primary.
    let primary = desk.lab.host("db1");
    let _server = Changed::new(&primary, START, STOP);
    for (way, change) in WAYS {
        let file = desk.file("[client]\nuser=repl\npassword=chosen-by-eve\n", change);
        let args = ["replica", "db1", "db2", "--account", &file, "--dry-run"];
        let output = desk.lab.transfer(&args).expect_code(4);
        let line = output.stderr.lines().find(|line| line.contains(&file));
        let line = line.unwrap_or_else(|| panic!("{way}: {file} is not named: {output}"));
        let reasons = ["eve", "others", "writ", "mode", "owner"];
        assert!(reasons.iter().any(|reason| line.contains(reason)), "{way}: {output}");
        assert!(!output.stderr.contains("chosen-by-eve"), "{output}");
    }
}
