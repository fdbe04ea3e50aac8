use super::*;
use crate::config::options::Options;
use crate::config::values::{Compress, Compressor, TransferType};

fn options(words: &[&str]) -> Options {
    let words = ["transfer"].iter().chain(words).chain(&["a:/x", "b:/y"]);
    Cli::read(words).unwrap().typed.layer()
}

#[test]
fn clap_accepts_the_definition() {
    command().debug_assert();
}

#[test]
fn last_of_opposite_options_wins() {
    assert_eq!(options(&["--compress", "--no-compress"]).compress, Some(Compress::No));
    assert_eq!(options(&["--no-compress", "--compress"]).compress, Some(Compress::Auto));
    assert_eq!(options(&["--no-compress", "--compress=lz4"]).compress, Some(Compress::With(Compressor::Lz4)));
    assert_eq!(options(&["--no-encrypt", "--encrypt"]).encrypt, Some(true));
    assert_eq!(options(&["--checksum", "--no-checksum"]).checksum, Some(false));
    assert_eq!(options(&["--no-fsync"]).fsync, Some(false));
    assert_eq!(options(&["--no-fsync", "--fsync"]).fsync, Some(true));
    assert_eq!(options(&[]), Options::default());
}

#[test]
fn switches_take_values_only_after_equals_sign() {
    assert_eq!(options(&["--replace"]).replace, Some(true));
    assert_eq!(options(&["--replace=false"]).replace, Some(false));
    assert_eq!(options(&["-v", "--json"]).verbose, Some(true));
}

#[test]
fn transferpy_option_prefixes_still_work() {
    let cli =
        |words: &[&str]| Cli::read(["transfer"].iter().chain(words).chain(&["a:/x", "b:/y"])).unwrap().typed;
    assert_eq!(cli(&["--comp"]).layer().compress, Some(Compress::Auto));
    assert_eq!(cli(&["--ch"]).layer().checksum, Some(true));
    assert_eq!(cli(&["--pa"]).layer().parallel_checksum, Some(true));
    assert_eq!(cli(&["--no-p"]).layer().parallel_checksum, Some(false));
    assert_eq!(cli(&["--no-co", "--no-e", "--no-ch"]).layer().encrypt, Some(false));
    assert_eq!(cli(&["--po", "4444"]).layer().port, Some(4444));
    assert_eq!(cli(&["--t", "file"]).layer().transfer_type, Some(TransferType::File));
    assert_eq!(cli(&["--s"]).layer().stop_replication, Some(true));
    assert_eq!(cli(&["--stop-slave", "--no-stop-slave"]).layer().stop_replication, Some(false));
    assert_eq!(cli(&["--verb"]).layer().verbose, Some(true));
    assert_eq!(cli(&["--con", "/x"]).config.unwrap().to_str(), Some("/x"));
    // And those of what is new.
    assert_eq!(cli(&["--idle", "5"]).layer().idle_timeout.unwrap().0.as_secs(), 5);
    let ambiguous = Cli::read(["transfer", "--co", "a:/x", "b:/y"]).unwrap_err().to_string();
    assert!(ambiguous.contains("--co"), "{ambiguous}");
}

#[test]
fn names_and_patterns_accept_any_bytes() {
    use std::os::unix::ffi::OsStringExt as _;
    let raw = OsString::from_vec(b"-\xff\n$(x)".to_vec());
    let words: Vec<OsString> =
        ["transfer".into(), "a:/x".into(), "b:/y".into(), "--as".into(), raw.clone()].into();
    assert!(Cli::read(&words).is_err(), "a leading dash needs the equals sign");
    let mut joined = OsString::from("--as=");
    joined.push(&raw);
    let cli = Cli::read(["transfer".into(), joined, "a:/x".into(), "b:/y".into()]).unwrap();
    assert_eq!(cli.typed.layer().rename.unwrap().0, raw);
}

#[test]
fn options_work_before_and_after_subcommand() {
    let cli = Cli::read(["transfer", "--config", "/x", "--sudo", "status", "db1"]).unwrap();
    assert!(matches!(cli.command, Some(Command::Status { .. })));
    let cli = Cli::read(["transfer", "clean", "db1", "--ssh-option", "Port=22"]).unwrap();
    assert_eq!(cli.typed.options.ssh_option.unwrap().len(), 1);
    assert!(Cli::read(["transfer", "a:/x", "status", "db1"]).is_err());
    assert!(Cli::read(["transfer", "--dry-run", "status", "db1"]).is_err());
}

#[test]
fn replica_takes_applicable_options_on_both_sides() {
    let read = |words: &[&str]| Cli::read(["transfer"].iter().chain(words));
    let cli = read(&["--no-fsync", "--nice=3", "replica", "db1", "db2", "db3", "--compress=lz4", "--nice=5"])
        .unwrap();
    let typed = cli.typed().layer();
    assert_eq!(typed.fsync, Some(false));
    assert_eq!(typed.nice.unwrap().0, 5, "the last one counts");
    assert_eq!(typed.compress, Some(Compress::With(Compressor::Lz4)));
    let Some(Command::Replica(order)) = cli.command else { panic!("no replica") };
    assert_eq!((order.primary.to_string(), order.targets.len()), ("db1".into(), 2));
    assert_eq!(read(&["replica", "a", "b", "--fsync"]).unwrap().typed().layer().fsync, Some(true));
    assert!(read(&["replica", "a", "b", "--dry-run", "--json"]).unwrap().typed().dry_run);
    for (word, option) in [("--type=file", "--type"), ("--prepare", "--prepare"), ("--as=x", "--as")] {
        for words in [[word, "replica", "a", "b"], ["replica", "a", "b", word]] {
            let error = read(&words).unwrap_err().to_string();
            assert!(error.contains(&format!("{option} cannot be used with replica")), "{error}");
        }
    }
    for words in [
        &["replica", "a", "b", "--chain", "--from", "c"][..],
        &["replica", "a", "b", "--replicate-from-primary", "--sibling"],
        &["replica", "a", "b", "--account", "f", "--create-account"],
        &["replica", "a", "b", "--max-lag", "0"],
        &["replica", "a", "b", "--primary-address", "x'y"],
        &["replica", "a"],
    ] {
        assert!(read(words).is_err(), "{words:?}");
    }
}

#[test]
fn host_lists_expand_for_targets_not_sources() {
    let cli = Cli::read(["transfer", "db1:/x", "db[2-3]:/y", "/z", "root@[fd77::9]:/y"]).unwrap();
    let targets: Vec<String> = all(&cli.targets).iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["db2:/y", "db3:/y", "localhost:/z", "root@fd77::9:/y"]);
    let error = Cli::read(["transfer", "db[1-2]:/x", "db3:/y"]).unwrap_err().to_string();
    assert!(error.contains("db[1-2]:/x"), "{error}");
    let error = Cli::read(["transfer", "db1:/x", "db[a]:/y"]).unwrap_err().to_string();
    assert!(error.contains("write db[1-20] or db{1,3,7}"), "{error}");
    let Some(Command::Status { hosts }) = Cli::read(["transfer", "status", "db{1,3}"]).unwrap().command
    else {
        panic!("no status")
    };
    assert_eq!(all(&hosts).len(), 2);
    let Some(Command::Replica(order)) = Cli::read(["transfer", "replica", "db1", "db[2-4]"]).unwrap().command
    else {
        panic!("no replica")
    };
    assert_eq!(order.hosts().len(), 3);
}
