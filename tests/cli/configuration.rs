//! The configuration file, by `--config`, as the program reads it.

use crate::support::local::sandbox::Sandbox;

#[test]
fn command_line_beats_configuration_file() {
    let sandbox = Sandbox::own();
    let file = sandbox.file("transfer.conf", "compress = false\nencrypt = false\nport = 4477\n");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let set = sandbox.run(&[&source, &target, &"--dry-run", &"--config", &file]).expect_success();
    assert!(set.stdout.contains("lock 4477") && !set.stdout.contains("openssl enc"), "{set}");
    assert!(!set.stdout.contains("zstd") && !set.stdout.contains("gzip"), "{set}");
    let typed = ["--port", "0", "--encrypt", "--dry-run", "--config"];
    let beaten = sandbox
        .run(&[&source, &target, &typed[0], &typed[1], &typed[2], &typed[3], &typed[4], &file])
        .expect_success();
    assert!(beaten.stdout.contains("4400-4500") && beaten.stdout.contains("openssl enc"), "{beaten}");
}

#[test]
fn example_with_every_key_is_valid() {
    let sandbox = Sandbox::own();
    let example = include_str!("../../transfer.conf.example").replace("#:", "");
    let file = sandbox.file("transfer.conf", example);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target, &"--dry-run", &"--config", &file]).expect_success();
}

#[test]
fn configuration_errors_name_file_and_cause() {
    let sandbox = Sandbox::own();
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    for (text, wrong) in [
        ("encrpyt = true\n", "encrpyt"),
        ("port = \"many\"\n", "port"),
        ("port = 70000\n", "port"),
        ("lease_time = 1\n", "must be 2 to 86400 seconds"),
        ("type = \"tape\"\n", "tape"),
        ("[DEFAULT]\nport = one\n", "line 2 (port)"),
        ("port = [\n", "line 1"),
        ("firewall = \"ufw\"\n", "ufw"),
    ] {
        let file = sandbox.file("wrong.conf", text);
        let ended = sandbox.run(&[&source, &target, &"--config", &file]).expect_code(2).says(wrong);
        assert!(ended.stderr.contains("wrong.conf"), "names no file: {ended}");
    }
    assert_eq!(crate::support::local::processes::names(&target), Vec::<String>::new());
}

#[test]
fn named_configuration_must_exist() {
    let sandbox = Sandbox::own();
    let missing = sandbox.path("missing.conf");
    sandbox.run(&[&"/etc/hostname", &"/tmp", &"--config", &missing]).expect_code(2).says("missing.conf");
    sandbox.run(&[&"--config", &missing, &"status", &"localhost"]).expect_code(2).says("missing.conf");
}
