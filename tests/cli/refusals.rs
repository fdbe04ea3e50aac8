//! Refusals before anything is changed: exit code 2 for the command line, 4 for the state of the hosts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc::SYS_getdents64;

use crate::support::holder::Point;
use crate::support::local::agents::serve;
use crate::support::local::processes::names;
use crate::support::local::sandbox::{Sandbox, Words};

/// Runs the program, which has to refuse, and asserts that nothing in the sandbox changes.
#[track_caller]
fn refused(sandbox: &Sandbox, words: Words<'_>, why: &str) {
    let before = sandbox.contents();
    sandbox.run(words).expect_code(4).says("refused, nothing was changed").says(why);
    assert_eq!(sandbox.contents(), before);
    sandbox.is_clean(&[]);
}

#[test]
fn invalid_command_line_exits_with_2() {
    let sandbox = Sandbox::own();
    let cases: [(Words<'_>, &str); 12] = [
        (&[], "Usage"),
        (&[&"/etc/hostname"], "TARGET"),
        (&[&"/etc/hostname", &"/tmp", &"--fast"], "--fast"),
        (&[&"etc/hostname", &"/tmp"], "HOST:/PATH"),
        (&[&"/etc/hostname", &"db2:tmp"], "not absolute"),
        (&[&"/etc/hostname", &"-oProxyCommand=touch PWNED:/tmp"], "unexpected argument"),
        (&[&"/etc/hostname", &"--", &"-oProxyCommand=x:/tmp"], "host name"),
        (&[&"/etc/hostname", &"/tmp", &"--port", &"65536"], "--port"),
        (&[&"/etc/hostname", &"/tmp", &"--lease-time", &"1"], "--lease-time"),
        (&[&"/etc/hostname", &"/tmp", &"--idle-timeout", &"0"], "--idle-timeout"),
        (&[&"/etc/hostname", &"/tmp", &"--firewall", &"ufw"], "auto"),
        (&[&"status"], "HOST"),
    ];
    for (words, why) in cases {
        sandbox.run(words).expect_code(2).says(why);
    }
}

#[test]
fn missing_or_special_source_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let target = sandbox.dir("target");
    let missing = sandbox.path("missing");
    refused(&sandbox, &[&missing, &target], "missing does not exist; check the path");
    let link = sandbox.path("link");
    symlink(sandbox.dir("real"), &link).unwrap();
    let fix =
        format!("is a symbolic link; give the path that it points to: {}", sandbox.path("real").display());
    refused(&sandbox, &[&link, &target], &fix);
    let _listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    refused(&sandbox, &[&sandbox.path("socket"), &target], "is a socket; give a file or a directory");
    sandbox.fifo(&sandbox.path("fifo"));
    refused(&sandbox, &[&sandbox.path("fifo"), &target], "is a fifo");
}

/// Whether an agent has read the root directory.
static WALKED: AtomicBool = AtomicBool::new(false);

#[test]
fn root_directory_is_refused_without_a_walk() {
    let Some(sandbox) = Sandbox::new() else { return };
    let target = sandbox.dir("target");
    let _walking = sandbox.trace(serve(Point::Before(&[SYS_getdents64], |call| {
        WALKED.fetch_or(call.descriptor(0) == Path::new("/"), Ordering::Relaxed);
        false
    })));
    sandbox.run(&[&"/", &target]).expect_code(4).says("/ has no last component");
    assert!(!WALKED.load(Ordering::Relaxed));
}

#[test]
fn unreadable_source_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.is_root() {
        return;
    }
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let file = sandbox.file("file", "secret");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    refused(&sandbox, &[&file, &target], "cannot read");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o300)).unwrap();
    sandbox.run(&[&source, &target]).expect_code(4).says("cannot read");
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn unusable_target_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    let missing = sandbox.path("missing");
    refused(&sandbox, &[&source, &missing], &format!("missing does not exist; mkdir {}", missing.display()));
    let file = sandbox.file("file", "");
    refused(&sandbox, &[&source, &file], "is a regular file; give a directory");
    let closed = sandbox.dir("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    refused(&sandbox, &[&source, &closed], "cannot write to");
}

#[test]
fn existing_name_is_refused_and_left_alone() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for taken in ["file", "directory", "dangling link"] {
        let target = sandbox.dir(format!("target with {taken}"));
        let name = target.join("source");
        match taken {
            "file" => fs::write(&name, "mine").unwrap(),
            "directory" => fs::create_dir(&name).unwrap(),
            _ => symlink("/nowhere", &name).unwrap(),
        }
        let before = fs::symlink_metadata(&name).unwrap();
        refused(
            &sandbox,
            &[&source, &target],
            "source already exists; move it away, choose another directory or name (--as), or replace it (--replace)",
        );
        let after = fs::symlink_metadata(&name).unwrap();
        assert_eq!(
            (before.file_type(), before.modified().unwrap()),
            (after.file_type(), after.modified().unwrap())
        );
    }
    refused(&sandbox, &[&source, &sandbox.path("")], "already exists");
}

#[test]
fn target_inside_source_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    let inside = sandbox.dir("source/inside");
    refused(&sandbox, &[&source, &inside], "is inside the source");
    refused(&sandbox, &[&source, &source], "is inside the source");
    let link = sandbox.path("way in");
    symlink(&inside, &link).unwrap();
    refused(&sandbox, &[&source, &link], "is inside the source");
    // A name with the same beginning is another directory.
    let beside = sandbox.dir("source-beside");
    sandbox.run(&[&source, &beside]).expect_success().says("done");
}

#[test]
fn duplicate_target_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let words = [format!("localhost:{}/", target.display()), format!("{}/../target", target.display())];
    refused(&sandbox, &[&source, &target, &words[0]], "is given twice as a target; give it once");
    refused(&sandbox, &[&source, &target, &words[1]], "is given twice as a target; give it once");
    let link = sandbox.path("the same");
    symlink(&target, &link).unwrap();
    refused(&sandbox, &[&source, &target, &link], "is given twice as a target; give it once");
}

#[test]
fn refused_target_refuses_the_run_unless_skipped() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, good) = (sandbox.source("source"), sandbox.dir("good"));
    let missing = sandbox.path("missing");
    refused(&sandbox, &[&source, &missing, &good], "missing does not exist");
    assert_eq!(names(&good), Vec::<String>::new());
    let ended = sandbox.run(&[&source, &missing, &good, &"--skip-refused"]).expect_code(1);
    // Not 4, since something was changed.
    ended
        .says(&format!("localhost:{}: FAILED: left out (--skip-refused)", missing.display()))
        .says("good/source: done: ");
    crate::support::local::trees::assert_same(&source, &good.join("source"));
    sandbox.is_clean(&[&good]);
    // Nothing is left to do without a target.
    refused(
        &sandbox,
        &[&source, &missing, &Path::new("/nowhere"), &"--skip-refused"],
        "/nowhere does not exist",
    );
}

#[test]
fn missing_program_is_refused_with_its_package() {
    let Some(mut sandbox) = Sandbox::new() else { return };
    sandbox.without(&["nc", "nc.openbsd", "nc.traditional", "ncat", "openssl"]);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    refused(&sandbox, &[&source, &target], "not installed: nc, openssl; apt install netcat-openbsd openssl");
}

#[test]
fn unresolvable_host_is_refused_by_name() {
    let sandbox = Sandbox::own();
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let dead = "no-such-host.invalid:/srv";
    for words in [[dead, target.to_str().unwrap()], [source.to_str().unwrap(), dead]] {
        let running = sandbox.spawn(&[&words[0], &words[1]]);
        let ended = running.wait(Duration::from_secs(20)).expect_code(4).says("cannot connect with ssh");
        ended.says("try: ssh -o BatchMode=yes no-such-host.invalid true");
    }
    assert_eq!(names(&target), Vec::<String>::new());
}
