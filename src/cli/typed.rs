//! The options of every run, as they were typed.

use std::path::PathBuf;

use crate::options::Options;
use crate::values::Compress;

/// The options that were typed, and those that only can be typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub struct Typed {
    /// Print what would be done on each host and how it would be undone; change nothing [default: off]
    #[arg(long)]
    pub dry_run: bool,
    /// Those that can be said elsewhere, too.
    #[command(flatten)]
    pub options: Options,
    /// Do not compress
    #[arg(long, overrides_with = "compress", help_heading = "On the way")]
    pub no_compress: bool,
    /// Do not encrypt
    #[arg(long, overrides_with = "encrypt", help_heading = "On the way")]
    pub no_encrypt: bool,
    /// Do not compare files
    #[arg(long, overrides_with = "checksum", help_heading = "Checks")]
    pub no_checksum: bool,
    /// Take no digest of the stream, unless it is encrypted [default]
    #[arg(long, overrides_with = "parallel_checksum", help_heading = "Checks")]
    pub no_parallel_checksum: bool,
    /// Stop no replication [default]
    #[arg(long, overrides_with = "stop_replication", help_heading = "Databases")]
    pub no_stop_replication: bool,
    /// Wait until the copy is on the disks [default]
    #[arg(long, overrides_with = "no_fsync", help_heading = "What becomes of it")]
    pub fsync: bool,
    /// Do not wait for that: a power cut soon afterwards may lose the copy
    #[arg(long, overrides_with = "fsync", help_heading = "What becomes of it")]
    pub no_fsync: bool,
    /// Configuration file [default: /etc/transfer/transfer.conf, or else that of transferpy]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Take the variant [profile.NAME] of the configuration file [default: none]
    #[arg(long, value_name = "NAME", global = true, help_heading = "Configuration")]
    pub profile: Option<String>,
}

impl Typed {
    /// The options, with what `--no-…` says of them. Of a pair the last one was left.
    #[must_use]
    pub fn layer(&self) -> Options {
        let off = |no: bool, said: Option<bool>| if no { Some(false) } else { said };
        let said = self.options.clone();
        Options {
            compress: if self.no_compress { Some(Compress::No) } else { said.compress },
            encrypt: off(self.no_encrypt, said.encrypt),
            checksum: off(self.no_checksum, said.checksum),
            parallel_checksum: off(self.no_parallel_checksum, said.parallel_checksum),
            stop_replication: off(self.no_stop_replication, said.stop_replication),
            fsync: off(self.no_fsync, self.fsync.then_some(true).or(said.fsync)),
            ..said
        }
    }

    /// These over others.
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            dry_run: self.dry_run || below.dry_run,
            options: self.layer().over(below.layer()),
            config: self.config.or(below.config),
            profile: self.profile.or(below.profile),
            ..Self::default()
        }
    }
}
