//! Options of every run, as typed.

use std::path::PathBuf;

use crate::config::options::Options;
use crate::config::values::Compress;

/// Options of the command line: those that a configuration file may hold, too, and those that it may not.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Typed {
    /// Show changes and their rollback, change nothing [default: off]
    #[arg(long)]
    pub dry_run: bool,
    /// Options that a configuration file and the environment may set, too.
    #[command(flatten)]
    pub options: Options,
    /// Do not compress
    #[arg(long, overrides_with = "compress", help_heading = "Compression and encryption")]
    pub no_compress: bool,
    /// Do not encrypt
    #[arg(long, overrides_with = "encrypt", help_heading = "Compression and encryption")]
    pub no_encrypt: bool,
    /// Do not compare files
    #[arg(long, overrides_with = "checksum", help_heading = "Verification")]
    pub no_checksum: bool,
    /// Take no digest of the stream, unless it is encrypted [default]
    #[arg(long, overrides_with = "parallel_checksum", help_heading = "Verification")]
    pub no_parallel_checksum: bool,
    /// Leave replication running [default]
    #[arg(long, overrides_with = "stop_replication", help_heading = "Databases")]
    pub no_stop_replication: bool,
    /// Do not wait for stable storage; a power failure soon after the run may lose the copy
    #[arg(long, overrides_with = "fsync", help_heading = "Destination")]
    pub no_fsync: bool,
    /// Configuration file [default: /etc/transfer/transfer.conf, otherwise transferpy's]
    ///
    /// The default one may be absent.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Use the section [profile.NAME] of the configuration file [default: none]
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,
}

impl Typed {
    /// Returns the options with each `--no-…` applied. Of a pair, clap has kept the last one.
    #[must_use]
    pub(crate) fn layer(&self) -> Options {
        let off = |no: bool, given: Option<bool>| if no { Some(false) } else { given };
        let given = self.options.clone();
        Options {
            compress: if self.no_compress { Some(Compress::No) } else { given.compress },
            encrypt: off(self.no_encrypt, given.encrypt),
            checksum: off(self.no_checksum, given.checksum),
            parallel_checksum: off(self.no_parallel_checksum, given.parallel_checksum),
            stop_replication: off(self.no_stop_replication, given.stop_replication),
            fsync: off(self.no_fsync, given.fsync),
            ..given
        }
    }

    /// Puts these options over others.
    pub(crate) fn over(self, below: Self) -> Self {
        Self {
            dry_run: self.dry_run || below.dry_run,
            options: self.layer().over(below.layer()),
            config: self.config.or(below.config),
            profile: self.profile.or(below.profile),
            ..Self::default()
        }
    }
}
