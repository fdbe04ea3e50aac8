//! Order of the layers for each option.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use super::*;
use crate::cli::Cli;
use crate::config::values::Compressor;

/// Settings from a command line, an environment and a file with this text.
pub(super) fn all(
    file: &str,
    environment: &[(&str, &str)],
    words: &[&str],
) -> Result<Settings, SettingsError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    at(on_disk.path(), Path::new("/nonexistent"), environment, words)
}

pub(super) fn at(
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

pub(super) fn settings(file: &str, words: &[&str]) -> Result<Settings, SettingsError> {
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
    let (blake3, md5) = (Some(DigestAlgorithm::Blake3), Some(DigestAlgorithm::Md5));
    check(
        |s| s.checksum,
        blake3,
        ("checksum = false", None),
        ("TRANSFER_CHECKSUM", "yes", blake3),
        (&["--no-checksum"], None),
    );
    check(
        |s| s.checksum,
        blake3,
        ("checksum_algorithm = \"sha256\"", Some(DigestAlgorithm::Sha256)),
        ("TRANSFER_CHECKSUM_ALGORITHM", "blake2b", Some(DigestAlgorithm::Blake2b)),
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
