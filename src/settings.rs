//! What was meant: the command line over the configuration file over the defaults, with nothing left open.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::{FirewallChoice, Options, TransferType, pair};

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_FILE: &str = "/etc/transfer/transfer.conf";

/// How a run is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub struct Settings {
    /// Which ports may be listened on.
    pub port: PortChoice,
    /// Compress on the way.
    pub compress: bool,
    /// Encrypt on the way.
    pub encrypt: bool,
    /// Compare every file, disk against disk.
    pub checksum: bool,
    /// Compare a digest of the stream even where it is not encrypted.
    pub parallel_checksum: bool,
    /// Which layers of the firewall may be opened.
    pub firewall: FirewallChoice,
    /// Leave out targets that are refused.
    pub skip_refused: bool,
    /// Print the plan, change nothing.
    pub dry_run: bool,
    /// Tell every step.
    pub verbose: bool,
    /// Silence after which a guard undoes everything.
    pub lease_time: Duration,
    /// Standstill after which a transfer has failed.
    pub idle_timeout: Duration,
}

/// Which port the target listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// The first free one of the range 4400 to 4500.
    Auto,
    /// This one or none.
    Fixed(u16),
}

impl PortChoice {
    /// First and last port that may be taken.
    #[must_use]
    pub fn range(self) -> (u16, u16) {
        match self {
            Self::Auto => (4400, 4500),
            Self::Fixed(port) => (port, port),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, cannot be read or holds something wrong.
    #[error("configuration file {}: {text}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        text: String,
    },
    /// A type that this version cannot transfer.
    #[error("--type {0} is not in this version: only --type file is")]
    Type(&'static str),
}

/// The configuration file: the same words as the options, `-` written as `_`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    port: Option<u16>,
    #[serde(rename = "type")]
    transfer_type: Option<TransferType>,
    compress: Option<bool>,
    encrypt: Option<bool>,
    checksum: Option<bool>,
    parallel_checksum: Option<bool>,
    firewall: Option<FirewallChoice>,
    skip_refused: Option<bool>,
    verbose: Option<bool>,
    lease_time: Option<u64>,
    idle_timeout: Option<u64>,
}

impl Settings {
    /// Reads the file that the options name, or the default one if there is one, and puts the options over it.
    pub fn load(options: Options) -> Result<Self, SettingsError> {
        let file = match &options.config {
            Some(path) => File::read(path)?,
            // One that is there and cannot be read is an error.
            None if Path::new(DEFAULT_FILE).try_exists().unwrap_or(true) => {
                File::read(Path::new(DEFAULT_FILE))?
            }
            None => File::default(),
        };
        Self::merge(options, file)
    }

    fn merge(options: Options, file: File) -> Result<Self, SettingsError> {
        // Without `..`, so that an option cannot be forgotten.
        let Options {
            port,
            transfer_type,
            compress,
            no_compress,
            encrypt,
            no_encrypt,
            checksum,
            no_checksum,
            parallel_checksum,
            no_parallel_checksum,
            firewall,
            skip_refused,
            dry_run,
            lease_time,
            idle_timeout,
            config: _,
            verbose,
        } = options;
        match transfer_type.or(file.transfer_type).unwrap_or(TransferType::File) {
            TransferType::File => {}
            TransferType::Xtrabackup => return Err(SettingsError::Type("xtrabackup")),
            TransferType::Decompress => return Err(SettingsError::Type("decompress")),
        }
        let checks = Checks { files: true, stream: false }
            .overlaid(file.checksum, file.parallel_checksum)
            .overlaid(pair(checksum, no_checksum), pair(parallel_checksum, no_parallel_checksum));
        Ok(Self {
            port: match port.or(file.port).unwrap_or(0) {
                0 => PortChoice::Auto,
                port => PortChoice::Fixed(port),
            },
            compress: pair(compress, no_compress).or(file.compress).unwrap_or(true),
            encrypt: pair(encrypt, no_encrypt).or(file.encrypt).unwrap_or(true),
            checksum: checks.files,
            parallel_checksum: checks.stream,
            firewall: firewall.or(file.firewall).unwrap_or(FirewallChoice::Auto),
            skip_refused: skip_refused || file.skip_refused.unwrap_or(false),
            dry_run,
            verbose: verbose || file.verbose.unwrap_or(false),
            lease_time: Duration::from_secs(lease_time.or(file.lease_time).unwrap_or(30)),
            idle_timeout: Duration::from_secs(idle_timeout.or(file.idle_timeout).unwrap_or(300)),
        })
    }
}

/// The two checks hang together; the layer that names one of them decides.
#[derive(Clone, Copy)]
struct Checks {
    files: bool,
    stream: bool,
}

impl Checks {
    /// transferpy's rule: the stream's check alone turns the files' off, and is ignored beside an explicit one.
    fn overlaid(self, files: Option<bool>, stream: Option<bool>) -> Self {
        Self {
            files: files.unwrap_or(self.files && stream != Some(true)),
            stream: files != Some(true) && stream.unwrap_or(self.stream),
        }
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, SettingsError> {
        let wrong = |text: String| SettingsError::File { path: path.to_owned(), text };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: Self = config::Config::builder()
            .add_source(config::File::from_str(&text, config::FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| wrong(error.to_string()))?;
        if !file.lease_time.is_none_or(|seconds| (2..=86_400).contains(&seconds)) {
            return Err(wrong("lease_time must be 2 to 86400 seconds".into()));
        }
        if !file.idle_timeout.is_none_or(|seconds| (1..=604_800).contains(&seconds)) {
            return Err(wrong("idle_timeout must be 1 to 604800 seconds".into()));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;
    use std::io::Write as _;

    /// The settings of a command line over a file with this text.
    fn settings(file: &str, arguments: &[&str]) -> Result<Settings, SettingsError> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let path = on_disk.path().to_str().unwrap();
        let words =
            ["transfer", "a:/x", "b:/y", "--config", path].into_iter().chain(arguments.iter().copied());
        Settings::load(Cli::try_parse_from(words).unwrap().options)
    }

    /// One option: its value by default, from the file, and from the command line over that file.
    fn check<T: PartialEq + std::fmt::Debug>(
        get: impl Fn(&Settings) -> T,
        default: T,
        (file, in_file): (&str, T),
        (arguments, typed): (&[&str], T),
    ) {
        assert_eq!(get(&settings("", &[]).unwrap()), default);
        assert_eq!(get(&settings(file, &[]).unwrap()), in_file, "{file}");
        assert_eq!(get(&settings(file, arguments).unwrap()), typed, "{file} {arguments:?}");
    }

    #[test]
    fn port() {
        check(
            |s| s.port,
            PortChoice::Auto,
            ("port = 4444", PortChoice::Fixed(4444)),
            (&["--port", "0"], PortChoice::Auto),
        );
    }

    #[test]
    fn compress() {
        check(|s| s.compress, true, ("compress = false", false), (&["--compress"], true));
    }

    #[test]
    fn encrypt() {
        check(|s| s.encrypt, true, ("encrypt = false", false), (&["--no-encrypt", "--encrypt"], true));
    }

    #[test]
    fn checksum() {
        check(|s| s.checksum, true, ("checksum = false", false), (&["--checksum"], true));
    }

    #[test]
    fn parallel_checksum() {
        check(
            |s| (s.checksum, s.parallel_checksum),
            (true, false),
            ("parallel_checksum = true", (false, true)),
            (&["--no-parallel-checksum"], (false, false)),
        );
        let both = |file: &str, arguments: &[&str]| {
            let settings = settings(file, arguments).unwrap();
            (settings.checksum, settings.parallel_checksum)
        };
        assert_eq!(both("", &["--parallel-checksum"]), (false, true));
        assert_eq!(both("", &["--parallel-checksum", "--checksum"]), (true, false));
        assert_eq!(both("", &["--parallel-checksum", "--no-checksum"]), (false, true));
        assert_eq!(both("checksum = true", &["--parallel-checksum"]), (false, true));
        assert_eq!(both("parallel_checksum = true", &["--checksum"]), (true, false));
    }

    #[test]
    fn firewall() {
        check(
            |s| s.firewall,
            FirewallChoice::Auto,
            ("firewall = \"none\"", FirewallChoice::None),
            (&["--firewall", "nftables"], FirewallChoice::Nftables),
        );
    }

    #[test]
    fn skip_refused_and_verbose() {
        check(|s| s.skip_refused, false, ("skip_refused = true", true), (&["--skip-refused"], true));
        check(|s| s.verbose, false, ("verbose = true", true), (&["-v"], true));
        check(|s| s.dry_run, false, ("", false), (&["--dry-run"], true));
    }

    #[test]
    fn times_are_seconds() {
        let seconds = Duration::from_secs;
        check(
            |s| s.lease_time,
            seconds(30),
            ("lease_time = 60", seconds(60)),
            (&["--lease-time", "5"], seconds(5)),
        );
        check(
            |s| s.idle_timeout,
            seconds(300),
            ("idle_timeout = 60", seconds(60)),
            (&["--idle-timeout", "5"], seconds(5)),
        );
        assert!(settings("lease_time = 1", &[]).is_err());
        assert!(settings("idle_timeout = 0", &[]).is_err());
    }

    #[test]
    fn types_of_later_versions_are_refused() {
        let error = settings("", &["--type", "xtrabackup"]).unwrap_err();
        assert_eq!(error.to_string(), "--type xtrabackup is not in this version: only --type file is");
        assert!(settings("type = \"decompress\"", &[]).is_err());
        assert!(settings("type = \"decompress\"", &["--type", "file"]).is_ok());
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_the_file() {
        let error = settings("encrpyt = true", &[]).unwrap_err().to_string();
        assert!(error.starts_with("configuration file /") && error.contains("encrpyt"), "{error}");
        let error = settings("port = \"many\"", &[]).unwrap_err().to_string();
        assert!(error.contains("port"), "{error}");
        let error = settings("port = [", &[]).unwrap_err().to_string();
        assert!(error.contains("line 1") || error.contains("1 |"), "{error}");
        assert!(File::read(Path::new("/nonexistent/transfer.conf")).is_err());
    }

    #[test]
    fn the_example_is_the_defaults() {
        let example =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/transfer.conf.example")).unwrap();
        assert_eq!(settings(&example, &[]).unwrap(), settings("", &[]).unwrap());
        // Each line that is commented out is a key that the file may hold.
        let all: String =
            example.lines().filter_map(|line| line.strip_prefix("#:")).collect::<Vec<_>>().join("\n");
        assert_eq!(settings(&all, &[]).unwrap(), settings("", &[]).unwrap());
        assert_eq!(all.lines().count(), 11, "every key is in the example");
    }
}
