use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use super::*;
use crate::cli::Cli;
use crate::config::values::Compressor;

/// Settings from a command line, an environment and a file with this text.
fn all(file: &str, environment: &[(&str, &str)], words: &[&str]) -> Result<Settings, SettingsError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    at(on_disk.path(), Path::new("/nonexistent"), environment, words)
}

fn at(
    own: &Path,
    old: &Path,
    environment: &[(&str, &str)],
    words: &[&str],
) -> Result<Settings, SettingsError> {
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let sources = Sources { own: own.into(), old: old.into(), environment };
    let words = ["transfer", "a:/x", "b:/y"].iter().chain(words);
    Settings::load(&Cli::read(words).unwrap().typed, &sources)
}

fn settings(file: &str, words: &[&str]) -> Result<Settings, SettingsError> {
    all(file, &[], words)
}

/// Checks one option in all places: the default, the file, the environment over the file, and the command
/// line over both.
fn check<T: PartialEq + std::fmt::Debug>(
    get: impl Fn(&Settings) -> T,
    default: T,
    (file, in_file): (&str, T),
    (name, value, in_environment): (&str, &str, T),
    (words, typed): (&[&str], T),
) {
    let environment = [(name, value)];
    assert_eq!(get(&settings("", &[]).unwrap()), default, "default of {name}");
    assert_eq!(get(&settings(file, &[]).unwrap()), in_file, "{file}");
    assert_eq!(get(&all(file, &environment, &[]).unwrap()), in_environment, "{file} {environment:?}");
    assert_eq!(get(&all(file, &environment, words).unwrap()), typed, "{file} {environment:?} {words:?}");
}

#[test]
fn contents() {
    let patterns = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<Pattern>>();
    check(
        |s| s.exclude.clone(),
        vec![],
        ("exclude = [\"*.log\", \"/tmp\"]", patterns(&["*.log", "/tmp"])),
        ("TRANSFER_EXCLUDE", "*.err", patterns(&["*.err"])),
        (&["--exclude", "a", "--exclude", "b"], patterns(&["a", "b"])),
    );
    check(
        |s| s.ignore_changed,
        false,
        ("ignore_changed = true", true),
        ("TRANSFER_IGNORE_CHANGED", "no", false),
        (&["--ignore-changed"], true),
    );
    check(
        |s| s.transfer_type,
        TransferType::File,
        ("type = \"decompress\"", TransferType::Decompress),
        ("TRANSFER_TYPE", "xtrabackup", TransferType::Backup),
        (&["--type", "file"], TransferType::File),
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a case for each option")]
fn database_options_resolve_in_order() {
    check(
        |s| s.servers.threads,
        None,
        ("backup_threads = 2", Some(2)),
        ("TRANSFER_BACKUP_THREADS", "3", Some(3)),
        (&["--backup-threads", "4"], Some(4)),
    );
    check(
        |s| s.servers.stop_replication,
        false,
        ("stop_slave = true", true),
        ("TRANSFER_STOP_REPLICATION", "0", false),
        (&["--stop-slave"], true),
    );
    check(
        |s| s.servers.stop_replication,
        false,
        ("stop_replication = true", true),
        ("TRANSFER_STOP_REPLICATION", "true", true),
        (&["--no-stop-replication"], false),
    );
    check(
        |s| s.servers.prepare,
        false,
        ("prepare = true", true),
        ("TRANSFER_PREPARE", "false", false),
        (&["--prepare"], true),
    );
    check(
        |s| s.servers.prepare_memory,
        None,
        ("prepare_memory = \"1G\"", Some(1 << 30)),
        ("TRANSFER_PREPARE_MEMORY", "512M", Some(512 << 20)),
        (&["--prepare-memory", "2GiB"], Some(2 << 30)),
    );
    check(
        |s| s.servers.stop,
        Ends::None,
        ("stop_server = \"source\"", Ends::Source),
        ("TRANSFER_STOP_SERVER", "both", Ends::Both),
        (&["--stop-server", "target"], Ends::Target),
    );
    let unit = |name: &str| Some(name.to_owned());
    check(
        |s| s.servers.unit.clone(),
        None,
        ("unit = \"mariadb\"", unit("mariadb.service")),
        ("TRANSFER_UNIT", "mariadb@a", unit("mariadb@a.service")),
        (&["--unit", "mysql.service"], unit("mysql.service")),
    );
    check(
        |s| s.servers.timeout.as_secs(),
        600,
        ("server_timeout = \"5m\"", 300),
        ("TRANSFER_SERVER_TIMEOUT", "60", 60),
        (&["--server-timeout", "10s"], 10),
    );
    check(
        |s| s.servers.allow_running,
        false,
        ("allow_running = true", true),
        ("TRANSFER_ALLOW_RUNNING", "no", false),
        (&["--allow-running"], true),
    );
    check(
        |s| s.servers.defaults_file.clone(),
        None,
        ("defaults_file = \"/a\"", unit("/a")),
        ("TRANSFER_DEFAULTS_FILE", "/b", unit("/b")),
        (&["--defaults-file", "/c"], unit("/c")),
    );
    let hooks = |words: &[&str]| words.iter().map(|word| word.parse::<Hook>().unwrap()).collect::<Vec<_>>();
    check(
        |s| s.hooks.clone(),
        vec![],
        (
            "[hook]\nafter-target = \"b\"\nbefore_source = [\"a\", \"c\"]",
            hooks(&["after-target=b", "before-source=a", "before-source=c"]),
        ),
        ("TRANSFER_HOOK", "before-source=d", hooks(&["before-source=d"])),
        (
            &["--hook", "after-controller=e f", "--hook", "before-target=g"],
            hooks(&["after-controller=e f", "before-target=g"]),
        ),
    );
    for words in
        [["--unit", "-x"], ["--unit", "a b"], ["--defaults-file", "my.cnf"], ["--server-timeout", "900"]]
    {
        assert!(Cli::read(["transfer", "a:/x", "b:/y"].iter().chain(&words)).is_err(), "{words:?}");
    }
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
fn publication() {
    let name = |name: &str| Some(name.parse::<FileName>().unwrap());
    check(
        |s| s.rename.clone(),
        None,
        ("as = \"a\"", name("a")),
        ("TRANSFER_AS", "b c", name("b c")),
        (&["--as", "c"], name("c")),
    );
    check(
        |s| s.replace,
        Replace::No,
        ("replace = true", Replace::Remove),
        ("TRANSFER_REPLACE", "false", Replace::No),
        (&["--replace", "--keep-old"], Replace::Keep),
    );
    check(
        |s| s.replace,
        Replace::No,
        ("replace = true\nkeep_old = true", Replace::Keep),
        ("TRANSFER_KEEP_OLD", "false", Replace::Remove),
        (&["--replace=false"], Replace::No),
    );
    let owner = |owner: &str| Some(Owner(owner.to_owned()));
    check(
        |s| s.chown.clone(),
        None,
        ("chown = \"mysql:mysql\"", owner("mysql:mysql")),
        ("TRANSFER_CHOWN", "114:120", owner("114:120")),
        (&["--chown", ":dba"], owner(":dba")),
    );
    check(
        |s| s.keep_staging,
        false,
        ("keep_staging = true", true),
        ("TRANSFER_KEEP_STAGING", "off", false),
        (&["--keep-staging"], true),
    );
    check(
        |s| s.fsync,
        true,
        ("fsync = false", false),
        ("TRANSFER_FSYNC", "true", true),
        (&["--no-fsync"], false),
    );
    check(
        |s| s.allow_shared_path,
        false,
        ("allow_shared_path = true", true),
        ("TRANSFER_ALLOW_SHARED_PATH", "false", false),
        (&["--allow-shared-path"], true),
    );
    check(
        |s| s.skip_refused,
        false,
        ("skip_refused = true", true),
        ("TRANSFER_SKIP_REFUSED", "false", false),
        (&["--skip-refused"], true),
    );
}

#[test]
fn stream() {
    check(
        |s| s.compress,
        Compress::Auto,
        ("compress = false", Compress::No),
        ("TRANSFER_COMPRESS", "lz4", Compress::With(Compressor::Lz4)),
        (&["--compress=pigz"], Compress::With(Compressor::Pigz)),
    );
    check(
        |s| s.compress_level,
        1,
        ("compress_level = 3", 3),
        ("TRANSFER_COMPRESS_LEVEL", "5", 5),
        (&["--compress-level", "7"], 7),
    );
    check(
        |s| s.encrypt,
        true,
        ("encrypt = false", false),
        ("TRANSFER_ENCRYPT", "True", true),
        (&["--no-encrypt"], false),
    );
    check(
        |s| s.threads,
        None,
        ("threads = 2", Some(2)),
        ("TRANSFER_THREADS", "3", Some(3)),
        (&["--threads", "4"], Some(4)),
    );
    check(|s| s.nice, 0, ("nice = true", 10), ("TRANSFER_NICE", "19", 19), (&["--nice=5"], 5));
    check(|s| s.nice, 0, ("nice = 3", 3), ("TRANSFER_NICE", "false", 0), (&["--nice"], 10));
}

#[test]
fn checksum_options_resolve_in_order() {
    let md5 = Some(FileDigest::Md5);
    check(
        |s| s.checksum,
        md5,
        ("checksum = false", None),
        ("TRANSFER_CHECKSUM", "yes", md5),
        (&["--no-checksum"], None),
    );
    check(
        |s| s.checksum,
        md5,
        ("checksum_algorithm = \"sha256\"", Some(FileDigest::Sha256)),
        ("TRANSFER_CHECKSUM_ALGORITHM", "blake2b", Some(FileDigest::Blake2b)),
        (&["--checksum-algorithm", "md5"], md5),
    );
    check(
        |s| (s.checksum.is_some(), s.parallel_checksum),
        (true, false),
        ("parallel_checksum = true", (false, true)),
        ("TRANSFER_PARALLEL_CHECKSUM", "false", (true, false)),
        (&["--parallel-checksum"], (false, true)),
    );
    let both = |file: &str, words: &[&str]| {
        let settings = settings(file, words).unwrap();
        (settings.checksum.is_some(), settings.parallel_checksum)
    };
    assert_eq!(both("", &["--parallel-checksum", "--checksum"]), (true, false));
    assert_eq!(both("", &["--parallel-checksum", "--no-checksum"]), (false, true));
    assert_eq!(both("checksum = true", &["--parallel-checksum"]), (false, true));
    assert_eq!(both("parallel_checksum = true", &["--checksum"]), (true, false));
    assert_eq!(both("parallel_checksum = true", &["--no-parallel-checksum"]), (true, false));
    assert_eq!(both("checksum = false", &["--no-parallel-checksum"]), (false, false));
}

#[test]
fn network_options_resolve_in_order() {
    let ports = |first, last| PortRange { first, last };
    check(
        |s| s.ports,
        ports(4400, 4500),
        ("port = 4444", ports(4444, 4444)),
        ("TRANSFER_PORT", "0", ports(4400, 4500)),
        (&["--port", "5000"], ports(5000, 5000)),
    );
    check(
        |s| s.ports,
        ports(4400, 4500),
        ("port_range = \"5000-5009\"", ports(5000, 5009)),
        ("TRANSFER_PORT_RANGE", "6000-6009", ports(6000, 6009)),
        (&["--port-range", "7000"], ports(7000, 7000)),
    );
    // A higher source replaces both options of a lower one.
    assert_eq!(settings("port = 4444", &["--port-range", "5000-5009"]).unwrap().ports, ports(5000, 5009));
    assert_eq!(settings("port_range = \"5000-5009\"", &["--port", "4444"]).unwrap().ports, ports(4444, 4444));
    assert_eq!(settings("port_range = \"5000-5009\"", &["--port", "0"]).unwrap().ports, ports(5000, 5009));
    check(
        |s| s.firewall,
        FirewallChoice::Auto,
        ("firewall = \"none\"", FirewallChoice::None),
        ("TRANSFER_FIREWALL", "iptables", FirewallChoice::Iptables),
        (&["--firewall", "nftables"], FirewallChoice::Nftables),
    );
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    check(
        |s| s.source_address,
        None,
        ("source_address = \"10.0.0.1\"", address("10.0.0.1")),
        ("TRANSFER_SOURCE_ADDRESS", "fd77::1", address("fd77::1")),
        (&["--source-address", "10.0.0.2"], address("10.0.0.2")),
    );
    let target = crate::base::endpoint::Endpoint::parse("b:/y".as_ref()).unwrap();
    check(
        |s| s.address_of(&target, true),
        None,
        ("target_address = \"10.0.0.1\"", address("10.0.0.1")),
        ("TRANSFER_TARGET_ADDRESS", "b=10.0.0.2", address("10.0.0.2")),
        (&["--target-address", "c=10.0.0.3", "--target-address", "b=10.0.0.4"], address("10.0.0.4")),
    );
}

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
fn login_options_resolve_in_order() {
    check(
        |s| s.login.sudo,
        false,
        ("sudo = true", true),
        ("TRANSFER_SUDO", "false", false),
        (&["--sudo"], true),
    );
    let path = |path: &str| Some(PathBuf::from(path));
    check(
        |s| s.login.config.clone(),
        None,
        ("ssh_config = \"/a\"", path("/a")),
        ("TRANSFER_SSH_CONFIG", "/b", path("/b")),
        (&["--ssh-config", "/c"], path("/c")),
    );
    check(
        |s| s.login.options.clone(),
        vec![],
        ("ssh_option = [\"Port=1\", \"User=a\"]", vec!["Port=1".to_owned(), "User=a".to_owned()]),
        ("TRANSFER_SSH_OPTION", "Port=2", vec!["Port=2".to_owned()]),
        (&["--ssh-option", "Port=3"], vec!["Port=3".to_owned()]),
    );
    for word in ["Port", "=x", "ControlPath=/x", "batchmode no", "a\nb=c"] {
        assert!(word.parse::<crate::config::options::SshOption>().is_err(), "{word}");
    }
}

#[test]
fn limit_and_output_options_resolve_in_order() {
    let seconds = Duration::from_secs;
    check(
        |s| s.lease_time,
        seconds(30),
        ("lease_time = 60", seconds(60)),
        ("TRANSFER_LEASE_TIME", "2m", seconds(120)),
        (&["--lease-time", "5"], seconds(5)),
    );
    check(
        |s| s.idle_timeout,
        seconds(300),
        ("idle_timeout = \"10m\"", seconds(600)),
        ("TRANSFER_IDLE_TIMEOUT", "60", seconds(60)),
        (&["--idle-timeout", "5"], seconds(5)),
    );
    check(
        |s| s.max_duration,
        None,
        ("max_duration = \"8h\"", Some(seconds(28_800))),
        ("TRANSFER_MAX_DURATION", "60", Some(seconds(60))),
        (&["--max-duration", "24h"], Some(seconds(86_400))),
    );
    check(
        |s| s.progress,
        ProgressChoice::Auto,
        ("progress = \"bar\"", ProgressChoice::Bar),
        ("TRANSFER_PROGRESS", "none", ProgressChoice::None),
        (&["--progress", "plain"], ProgressChoice::Plain),
    );
    check(|s| s.json, false, ("json = true", true), ("TRANSFER_JSON", "false", false), (&["--json"], true));
    check(|s| s.verbose, false, ("verbose = true", true), ("TRANSFER_VERBOSE", "0", false), (&["-v"], true));
    assert!(settings("lease_time = 1", &[]).is_err());
    assert!(settings("idle_timeout = 0", &[]).is_err());
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

#[test]
fn example_has_the_defaults() {
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/transfer.conf.example")).unwrap();
    assert_eq!(settings(&example, &[]).unwrap(), settings("", &[]).unwrap());
    // Each commented line is a valid key.
    let keys: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("#:")).collect();
    assert_eq!(
        settings(&keys.join("\n").replace("port = 0\n", ""), &[]).unwrap(),
        settings("", &[]).unwrap()
    );
    // Each example is a valid key, too, and together they are complete.
    let is_key = |line: &&str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let examples: Vec<&str> =
        example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
    for key in &examples {
        settings(key, &[]).unwrap();
    }
    let mut names: Vec<&str> =
        keys.iter().chain(&examples).filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, known_keys());
}

/// Returns all keys that serde knows, sorted: without `profile`, which is not an option, and without
/// transferpy's name of a key.
fn known_keys() -> Vec<String> {
    let error = toml::from_str::<Options>("no_such_key = 1").unwrap_err();
    let listed = error.message().split('`').skip(3).step_by(2);
    let mut keys: Vec<String> =
        listed.filter(|key| !["profile", "stop_slave"].contains(key)).map(ToOwned::to_owned).collect();
    assert!(keys.len() > 40, "they were not found: {keys:?}");
    keys.sort_unstable();
    keys
}

#[test]
fn every_key_is_an_option() {
    let mut declared: Vec<String> =
        crate::cli::keys().iter().flat_map(|(_, keys)| keys).filter_map(|key| key.key.clone()).collect();
    declared.sort_unstable();
    assert_eq!(declared, known_keys());
}

/// Returns the limits that a text names, as in `2s-24h` or `From 1 to 1024`.
fn limits(text: &str) -> Option<(&str, &str)> {
    let is_limit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let ranges = text.split(' ').filter_map(|word| word.split_once('-'));
    let times = ranges.filter(|(_, last)| last.ends_with(['s', 'h']));
    let numbers = text.split("From ").skip(1).filter_map(|rest| {
        let (first, rest) = rest.split_once(" to ")?;
        Some((first, rest.trim_end_matches('.')))
    });
    times.chain(numbers).find(|(first, last)| is_limit(first) && is_limit(last))
}

#[test]
fn limits_in_texts_are_those_of_the_values() {
    let mut seen = 0;
    for option in crate::cli::keys().into_iter().flat_map(|(_, keys)| keys) {
        let Some(key) = &option.key else { continue };
        let Some((first, last)) = limits(&option.help).or_else(|| limits(&option.details)) else { continue };
        let is_accepted = |value: u64| settings(&format!("{key} = {value}"), &[]).is_ok();
        let number = |word: &str| {
            word.parse::<u64>()
                .unwrap_or_else(|_| word.parse::<jiff::SignedDuration>().unwrap().as_secs().unsigned_abs())
        };
        let (first, last) = (number(first), number(last));
        assert!(is_accepted(first) && is_accepted(last), "{key}: {first} to {last}");
        assert!(!is_accepted(last + 1), "{key}: {last} is not the highest");
        assert!(first == 0 || !is_accepted(first - 1), "{key}: {first} is not the lowest");
        seen += 1;
    }
    assert_eq!(seen, 7, "texts with limits");
}
