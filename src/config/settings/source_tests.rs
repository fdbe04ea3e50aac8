//! Files, profiles and the environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use super::tests::{all, at, settings};
use super::*;
use crate::cli::Cli;
use crate::config::values::Compressor;

#[test]
fn profile_overrides_only_its_file() {
    let file = "port = 1\ncompress = \"gzip\"\n[profile.wan]\ncompress = \"zstd\"\ncompress_level = 9\n[profile.lan]\ncompress = false\n";
    let with = |environment: &[(&str, &str)], words: &[&str]| all(file, environment, words).unwrap();
    assert_eq!(with(&[], &[]).compress, Compress::With(Compressor::Gzip));
    let wan = with(&[], &["--profile", "wan"]);
    assert_eq!((wan.compress, wan.compress_level, wan.ports.first), (Compress::With(Compressor::Zstd), 9, 1));
    assert_eq!(with(&[("TRANSFER_PROFILE", "lan")], &[]).compress, Compress::No);
    assert_eq!(with(&[("TRANSFER_PROFILE", "lan")], &["--profile", "wan"]).compress_level, 9);
    assert_eq!(
        with(&[("TRANSFER_COMPRESS", "lz4")], &["--profile", "wan"]).compress,
        Compress::With(Compressor::Lz4)
    );
    let error = all(file, &[], &["--profile", "moon"]).unwrap_err().to_string();
    assert!(error.contains("no [profile.moon]") && error.ends_with("has lan, wan"), "{error}");
    let missing = Path::new("/nonexistent");
    let error = at(missing, missing, &[], &["--profile", "wan"]).unwrap_err().to_string();
    assert!(error.ends_with("there is no configuration file"), "{error}");
    assert!(settings("[profile.a.profile.b]\nport = 1", &[]).is_err());
    assert!(settings("[profile.a]\nprot = 1", &[]).unwrap_err().to_string().contains("line 2"));
}

#[test]
fn file_errors_name_the_line() {
    for (text, expected) in [
        ("port = 1\nencrpyt = true\n", "line 2 (encrpyt = true): unknown key `encrpyt`"),
        ("port = \"many\"", "line 1 (port = \"many\"): invalid type: string \"many\", expected u16"),
        ("port = [\n", "line 1"),
        ("\n\nlease_time = 1", "line 3 (lease_time = 1): must be 2 to 86400 seconds"),
        ("firewall = \"ufw\"", "line 1 (firewall = \"ufw\"): unknown variant `ufw`"),
        ("compress = \"rar\"", "expected zstd, pigz, gzip, lz4"),
        ("exclude = [\"a\", \"\"]", "matches nothing"),
        ("exclude = 7", "expected a string or a list of strings"),
        ("compress_level = 20", "must be 1 to 19"),
        ("dry_run = true", "unknown key `dry_run`"),
    ] {
        let error = settings(text, &[]).unwrap_err().to_string();
        assert!(error.starts_with("configuration file /") && error.contains(expected), "{text:?}: {error}");
        assert!(!error.contains('\n') && error.len() < 250, "{error}");
    }
}

#[test]
fn environment_errors_name_the_variable() {
    for (name, value, expected) in [
        ("TRANSFER_PROT", "1", "environment variable TRANSFER_PROT: no such option"),
        ("TRANSFER_PORT", "many", "TRANSFER_PORT: "),
        ("TRANSFER_LEASE_TIME", "1", "TRANSFER_LEASE_TIME: must be 2 to 86400 seconds"),
        ("TRANSFER_DRY_RUN", "true", "TRANSFER_DRY_RUN: no such option"),
    ] {
        let error = all("", &[(name, value)], &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let raw = vec![("TRANSFER_AS".to_owned(), OsString::from_vec(b"\xff".to_vec()))];
    let sources = Sources { own: "/nonexistent".into(), old: "/nonexistent".into(), environment: raw };
    let cli = Cli::read(["transfer", "a:/x", "b:/y"]).unwrap();
    assert!(Settings::load(&cli.typed, &sources).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn first_named_file_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (own, old) = (file("own", "port = 1"), file("old", "[DEFAULT]\nport = 2\n"));
    let (named, variable) = (file("named", "port = 3"), file("variable", "port = 4"));
    let missing = directory.path().join("missing");
    let port = |own: &Path, old: &Path, environment: &[(&str, &str)], words: &[&str]| {
        at(own, old, environment, words).map(|settings| settings.ports.first)
    };
    let variable = [("TRANSFER_CONFIG", variable.to_str().unwrap())];
    let named = ["--config", named.to_str().unwrap()];
    assert_eq!(port(&own, &old, &variable, &named).unwrap(), 3);
    assert_eq!(port(&own, &old, &variable, &[]).unwrap(), 4);
    assert_eq!(port(&own, &old, &[], &[]).unwrap(), 1);
    assert_eq!(port(&missing, &old, &[], &[]).unwrap(), 2);
    assert_eq!(port(&missing, &missing, &[], &[]).unwrap(), 4400);
    assert!(port(&own, &old, &[], &["--config", missing.to_str().unwrap()]).is_err());
}

#[test]
fn configuration_of_transferpy_is_read() {
    let file = "# comment\n[DEFAULT]\nport = 4444\ntransfer_type = file\ncompress = False\nencrypt: no\nchecksum = True\n\
                parallel_checksum = False\nstop_slave = False\nverbose = True\n";
    let read = settings(file, &[]).unwrap();
    assert_eq!(
        (read.ports.first, read.compress, read.encrypt, read.verbose),
        (4444, Compress::No, false, true)
    );
    assert_eq!(settings(file, &["--compress"]).unwrap().compress, Compress::Auto);
    let error = |text: &str| settings(text, &[]).unwrap_err().to_string();
    assert!(error("[DEFAULT]\nport = 1\nprot = 2\n").ends_with("line 3 (prot): unknown key"));
    assert!(error("[DEFAULT]\nport = many\n").contains("line 2 (port): "));
    assert!(
        error("[DEFAULT]\nlease_time = 5\n").ends_with("line 2 (lease_time): unknown key"),
        "no key of ours"
    );
}
