//! Options that contradict each other, or that have no effect.

use super::tests::settings;
use super::*;
use crate::cli::Cli;

/// Settings for a transfer to these targets from a command line and a file.
fn checked(file: &str, words: &[&str], targets: &[&str]) -> Result<Settings, String> {
    let targets: Vec<Endpoint> = targets.iter().map(|word| Endpoint::parse(word.as_ref()).unwrap()).collect();
    let settings = settings(file, words).map_err(|error| error.to_string())?;
    let cli = Cli::read(["transfer", "a:/x", "b:/y"].iter().chain(words)).unwrap();
    settings.check(&cli.typed, &targets).map_err(|error| error.to_string())?;
    Ok(settings)
}

#[test]
fn target_address_requires_a_matching_target() {
    let typed = |words: &[&str], to: &[&str]| checked("", words, to).unwrap_err();
    assert!(checked("", &["--target-address", "10.0.0.1"], &["b:/y"]).is_ok());
    assert!(typed(&["--target-address", "10.0.0.1"], &["b:/y", "c:/y"]).contains("use HOST=10.0.0.1"));
    assert!(typed(&["--target-address", "d=10.0.0.1"], &["b:/y"]).contains("d is not a target"));
    assert!(
        checked("", &["--target-address", "b=10.0.0.1"], &["root@b:/y"]).is_ok(),
        "the user does not matter"
    );
    // In a file they apply to the runs that have such a target.
    let file = "target_address = [\"10.0.0.9\", \"db2=10.0.0.2\"]";
    let targets = ["b:/y", "root@db2:/y"].map(|word| Endpoint::parse(word.as_ref()).unwrap());
    let settings = checked(file, &[], &["b:/y"]).unwrap();
    assert_eq!(settings.address_of(&targets[0], false), None);
    assert_eq!(settings.address_of(&targets[0], true).unwrap().to_string(), "10.0.0.9");
    assert_eq!(settings.address_of(&targets[1], false).unwrap().to_string(), "10.0.0.2");
}

#[test]
fn rejects_typed_options_without_effect() {
    let error = |words: &[&str]| checked("", words, &["b:/y"]).unwrap_err();
    assert_eq!(error(&["--prepare"]), "--prepare has no effect with --type file");
    assert_eq!(
        error(&["--type", "xtrabackup", "--stop-server", "source"]),
        "--stop-server source has no effect with --type mariabackup"
    );
    assert!(error(&["--type", "decompress", "--exclude", "x"]).starts_with("--exclude has no effect"));
    assert!(error(&["--type", "mariabackup", "--replace"]).contains("--as NAME"));
    assert!(checked("", &["--type", "mariabackup", "--replace", "--as", "x"], &["b:/y"]).is_ok());
    assert!(error(&["--type", "compress", "--replace"]).contains("choose another name"));
    // In a file they may be meant for other runs, and transferpy accepted this one with every type.
    assert!(checked("prepare = true\nstop_server = \"source\"", &[], &["b:/y"]).is_ok());
    assert!(checked("", &["--stop-slave"], &["b:/y"]).is_ok());
}

#[test]
fn rejects_contradictory_options() {
    for (words, text) in [
        (&["--keep-old"][..], "--keep-old requires --replace"),
        (&["--replace=false", "--keep-old"], "--keep-old requires --replace"),
        (&["--port", "1", "--port-range", "1-2"], "cannot be used together"),
        (&["--compress=gzip", "--compress-level", "12"], "the maximum for gzip is 9"),
        (&["--replace", "--keep-staging"], "--keep-staging with --replace requires --keep-old"),
    ] {
        let error = checked("", words, &["b:/y"]).unwrap_err();
        assert!(error.contains(text), "{words:?}: {error}");
    }
    assert!(settings("port = 1\nport_range = \"1-2\"", &[]).is_err());
    // In a file they may be meant for other runs, and a higher source wins.
    assert_eq!(checked("keep_old = true", &[], &["b:/y"]).unwrap().replace, Replace::No);
    assert_eq!(
        checked("replace = true\nkeep_old = true", &["--replace=false"], &["b:/y"]).unwrap().replace,
        Replace::No
    );
    let replacing = checked("keep_staging = true", &["--replace"], &["b:/y"]).unwrap();
    assert_eq!((replacing.replace, replacing.keep_staging), (Replace::Remove, false));
    let keeping = checked("replace = true", &["--keep-staging"], &["b:/y"]).unwrap();
    assert_eq!((keeping.replace, keeping.keep_staging), (Replace::No, true));
    let level =
        |words: &[&str]| settings("compress = \"zstd\"\ncompress_level = 15", words).unwrap().compress_level;
    assert_eq!(
        (level(&["--compress=zstd"]), level(&["--compress"]), level(&["--compress=lz4"])),
        (15, 15, 1)
    );
    // The level was meant for another program.
    assert_eq!(
        settings("compress = \"zstd\"\ncompress_level = 15", &["--compress=gzip"]).unwrap().compress_level,
        1
    );
}
