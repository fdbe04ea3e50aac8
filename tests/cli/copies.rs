//! Copies are identical to their source: every kind of entry, every name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::{assert_same, odd_tree, walk};

/// Asserts that no name was run as a command.
#[track_caller]
fn nothing_was_run(sandbox: &Sandbox) {
    let pwned = |path: &std::path::PathBuf| path.file_name() == Some(OsStr::new("PWNED"));
    assert_eq!(walk(&sandbox.path("")).into_iter().find(pwned), None);
}

#[test]
fn every_entry_kind_arrives_unchanged_without_root() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (odd_tree(&sandbox, "tree".as_ref()), sandbox.dir("target"));
    sandbox.run(&[&source, &target]).expect_success();
    assert_same(&source, &target.join("tree"));
    nothing_was_run(&sandbox);
    sandbox.is_clean(&[&target]);
}

#[test]
fn every_entry_kind_keeps_numeric_owner_as_root() {
    let Some(sandbox) = Sandbox::root() else { return };
    let (source, target) = (odd_tree(&sandbox, "tree".as_ref()), sandbox.dir("target"));
    let owner = fs::metadata(source.join("names")).unwrap().uid();
    sandbox.run(&[&source, &target, &"--firewall", &"none"]).expect_success();
    assert_same(&source, &target.join("tree"));
    assert!(
        walk(&source).iter().any(|entry| fs::symlink_metadata(source.join(entry)).unwrap().uid() != owner)
    );
    nothing_was_run(&sandbox);
    sandbox.is_clean(&[&target]);
}

#[test]
fn source_and_target_accept_any_name() {
    let names: [&[u8]; 4] = [
        b"-rf $(touch PWNED) `touch PWNED` ; ' \" \\ \xff\n*",
        b"--help",
        b"ends with newline\n",
        "Daten für heute: 100 %s\t✓".as_bytes(),
    ];
    for name in names {
        let Some(sandbox) = Sandbox::new() else { return };
        let (name, into) = (OsStr::from_bytes(name), OsStr::from_bytes(&[b"to ", name].concat()).to_owned());
        let (source, target) = (sandbox.source(name.to_str().unwrap_or("placeholder")), sandbox.dir(into));
        let renamed = sandbox.path(name);
        fs::rename(source, &renamed).unwrap();
        sandbox.run(&[&renamed, &target]).expect_success();
        assert_same(&renamed, &target.join(name));
        nothing_was_run(&sandbox);
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn single_file_keeps_its_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let target = sandbox.dir("target");
    let odd = OsStr::from_bytes(b"-a $(touch PWNED)\nfile\xff");
    for (name, contents) in
        [(OsStr::new("plain"), &b"contents"[..]), (odd, b"odd"), (OsStr::new("empty"), b"")]
    {
        let source = sandbox.file(name, contents);
        fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
        sandbox.run(&[&source, &target]).expect_success();
        assert_same(&source, &target.join(name));
    }
    nothing_was_run(&sandbox);
    sandbox.is_clean(&[&target]);
}

#[test]
fn extra_slashes_are_ignored() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let word = |path: &std::path::Path, end: &str| -> OsString {
        let text = path.to_str().unwrap().rsplit_once('/').unwrap();
        format!("localhost:{}//{}{end}", text.0, text.1).into()
    };
    sandbox.run(&[&word(&source, "///"), &word(&target, "/")]).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn read_only_source_is_copied_without_root() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    fs::set_permissions(source.join("small"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o555)).unwrap();
    sandbox.run(&[&source, &target]).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn empty_directory_is_copied() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.dir("nothing"), sandbox.dir("target"));
    sandbox.run(&[&source, &target]).expect_success().says("0 B in 1 entries");
    assert_same(&source, &target.join("nothing"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn sockets_are_left_out_with_a_note() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let socket = UnixListener::bind(source.join("mysqld.sock")).unwrap();
    sandbox.own_it(&source.join("mysqld.sock"));
    sandbox.run(&[&source, &target]).expect_success().says("note: tar: ./source/mysqld.sock: socket ignored");
    drop(socket);
    fs::remove_file(source.join("mysqld.sock")).unwrap();
    let here = walk(&target.join("source"));
    assert_eq!(here, walk(&source), "all but the socket");
    sandbox.is_clean(&[&target]);
}
