//! What was typed. Validated as far as one word can be, without effects and without defaults: those are `settings`'.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::endpoint::{Endpoint, HostName};
use crate::options::Options;
use crate::printable::printable;
use crate::values::{Compress, TableCheck, Time};

/// What holds for all options, at the end of the help.
const AFTER_HELP: &str = "\
Times: seconds, or with units as in 90s, 15m and 1h30m. Each option but --dry-run is also a key of the configuration \
file (_ for -) and a variable TRANSFER_NAME of the environment. A switch without a --no- of its own is turned off with \
=false.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 verification failed, 4 refused, nothing changed, 5 busy, 6 \
something could not be undone, 128+N interrupted by signal N.

Examples:
  transfer db1:/srv/sqldata db2:/srv            becomes db2:/srv/sqldata
  transfer db1:/srv/sqldata db2:/srv --dry-run  what that would do
  transfer replica db1 db2 --create-account     MariaDB on db2 becomes a replica of that on db1
  transfer status db1 db2                       which runs hold what there, live and dead
  transfer clean db1 db2                        undo what dead runs left there";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "transfer",
    version,
    about = "Copies SOURCE into each TARGET directory, from host to host: under its own name once it is verified, and \
with everything undone on any failure.",
    long_about = None,
    infer_long_args = true,
    subcommand_negates_reqs = true,
    override_usage = "transfer [OPTIONS] SOURCE TARGET...\n       transfer replica [OPTIONS] PRIMARY TARGET...\n       \
transfer status HOST...\n       transfer clean HOST...",
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// The source.
    #[arg(required = true, value_name = "SOURCE", value_parser = endpoint())]
    #[arg(help = "What to copy: [USER@]HOST:/PATH, or /PATH or localhost:/PATH of this machine")]
    pub source: Option<Endpoint>,
    /// The directories to copy it into, written like SOURCE
    #[arg(required = true, value_name = "TARGET", value_parser = endpoint())]
    pub targets: Vec<Endpoint>,
    /// Everything else that may be typed before or after them.
    #[command(flatten)]
    pub typed: Typed,
    /// Work other than a transfer.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Work other than a transfer.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Command {
    /// Make MariaDB servers replicas of a running one, from a hot copy of it
    #[command(infer_long_args = true, after_help = AFTER_REPLICA_HELP)]
    Replica(Replica),
    /// List the runs that hold something on the hosts, live and dead; changes nothing
    Status {
        /// The hosts to ask
        #[arg(required = true, value_name = "HOST", value_parser = host())]
        hosts: Vec<HostName>,
    },
    /// Undo what dead runs left on the hosts; live runs are not touched
    Clean {
        /// Start servers and replication again, too, that such a run had stopped, and run its hooks for afterwards
        #[arg(long)]
        start_servers: bool,
        /// The hosts to clean
        #[arg(required = true, value_name = "HOST", value_parser = host())]
        hosts: Vec<HostName>,
    },
}

/// `--max-lag`.
pub type MaxLag = Time<1, 86_400>;

/// Replicas that are to be made.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub struct Replica {
    /// The host of the server that they replicate from, [USER@]HOST; where that is itself a replica, from where it does
    #[arg(required = true, value_name = "PRIMARY", value_parser = host())]
    pub primary: HostName,
    /// The hosts whose servers become replicas
    #[arg(required = true, value_name = "TARGET", value_parser = host())]
    pub targets: Vec<HostName>,
    /// Copy the server of DONOR, a replica of PRIMARY, instead of PRIMARY itself
    #[arg(long, value_name = "DONOR", value_parser = host(), help_heading = "Replicas")]
    pub from: Option<HostName>,
    /// Replicate from where PRIMARY does, beside it [default, where PRIMARY is a replica, even a stopped one]
    #[arg(long, conflicts_with_all = ["from", "chain"], help_heading = "Replicas")]
    pub sibling: bool,
    /// Replicate from PRIMARY, though it is itself a replica [default: off]
    #[arg(long, conflicts_with = "from", help_heading = "Replicas")]
    pub chain: bool,
    /// Replicate by the account in FILE of this machine, an option file with user and password below [client] [default: the
    /// one by which the copied server itself replicates]
    #[arg(long, value_name = "FILE", help_heading = "Replicas")]
    pub account: Option<PathBuf>,
    /// Make an account for each replica: REPLICATION SLAVE from its address only, with a password that nobody is shown
    /// [default: off]
    #[arg(long, conflicts_with = "account", help_heading = "Replicas")]
    pub create_account: bool,
    /// What the replicas call the host that they replicate from [default: PRIMARY, or its address where that name does not
    /// lead to it]
    #[arg(long, value_name = "NAME", value_parser = server_host, help_heading = "Replicas")]
    pub primary_address: Option<String>,
    /// A replica has caught up when within TIME it applies all that its source had when asked: 1s-24h [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Replicas")]
    pub max_lag: Option<MaxLag>,
    /// Compare all tables with those of the server that was copied, at one GTID: by checksum or by rows [default: off;
    /// without CHECK by checksum]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "checksum", value_name = "CHECK",
        hide_possible_values = true, help_heading = "Replicas")]
    pub verify_tables: Option<TableCheck>,
    /// Replace servers that others are connected to over the network, write to or replicate from: they are cut off
    /// [default: off]
    #[arg(long, help_heading = "Replicas")]
    pub allow_clients: bool,
    /// What may be said of every run.
    #[command(flatten)]
    pub typed: Typed,
}

/// What is behind the help of `transfer replica`.
const AFTER_REPLICA_HELP: &str = "\
A server that holds databases is replaced with --replace only; it comes back as it was if anything fails, until the new one \
replicates and has caught up.

Examples:
  transfer replica db1 db2 --create-account   db2 becomes a replica of db1
  transfer replica db1 db2 --create-account --dry-run
  transfer replica db1 db2 db3 --from db4 --create-account
                                              copied from db4, a replica of db1; both replicate from db1";

/// What has no effect on replicas: it is decided by what they are.
const NOT_FOR_REPLICAS: [&str; 15] = [
    "transfer_type",
    "exclude",
    "ignore_changed",
    "prepare",
    "stop_server",
    "allow_running",
    "rename",
    "chown",
    "keep_staging",
    "skip_refused",
    "checksum",
    "no_checksum",
    "checksum_algorithm",
    "stop_replication",
    "no_stop_replication",
];

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

/// Every word of transferpy's options; their unambiguous prefixes have to mean what they meant, whatever is here now.
const OLD_OPTIONS: [&str; 14] = [
    "config",
    "port",
    "type",
    "compress",
    "no-compress",
    "encrypt",
    "no-encrypt",
    "checksum",
    "no-checksum",
    "parallel-checksum",
    "no-parallel-checksum",
    "stop-slave",
    "no-stop-slave",
    "verbose",
];

/// What such an option is called here.
fn today(option: &'static str) -> &'static str {
    match option {
        "stop-slave" => "stop-replication",
        "no-stop-slave" => "no-stop-replication",
        same => same,
    }
}

/// The definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    let prefixes = |option: &'static str| {
        (1..option.len())
            .map(move |length| &option[..length])
            .filter(move |prefix| OLD_OPTIONS.iter().filter(|other| other.starts_with(prefix)).count() == 1)
    };
    let mut command = Cli::command();
    let ids: Vec<(String, &'static str)> = command
        .get_arguments()
        .filter_map(|argument| {
            let option = OLD_OPTIONS.iter().find(|option| argument.get_long() == Some(today(option)))?;
            Some((argument.get_id().to_string(), *option))
        })
        .collect();
    for (id, option) in ids {
        // `--v` was never that of a pair.
        let renamed = Some(option).filter(|option| today(option) != *option);
        command = command.mut_arg(id, |argument| argument.aliases(prefixes(option).chain(renamed)));
    }
    in_pairs(command).mut_subcommand("replica", |replica| {
        let hidden = |command: clap::Command, id: &&str| command.mut_arg(*id, |argument| argument.hide(true));
        in_pairs(NOT_FOR_REPLICAS.iter().fold(replica, hidden))
            .mut_arg("replace", |replace| {
                replace.help("Replace a server that holds databases; it comes back unless the new one is good [default: off]")
            })
            .mut_arg("keep_old", |keep| {
                keep.help("Keep the old data directory beside the new one, as NAME.old-RUN [default: off]")
            })
            .mut_arg("unit", |unit| {
                unit.help("The unit of the servers, on all hosts [default: that of the only one that runs there, or is installed]")
            })
            .mut_arg("prepare_memory", |memory| {
                memory.help(
                    "Memory for making the copy ready [default: the source's buffer pool, up to half of what is available]",
                )
            })
    })
}

/// What turns something off stands behind what turns it on.
fn in_pairs(mut command: clap::Command) -> clap::Command {
    // In the order of their definition, which a change to one of them has lost.
    let longs: Vec<(String, String)> = Cli::command()
        .get_arguments()
        .filter_map(|argument| Some((argument.get_id().to_string(), argument.get_long()?.to_owned())))
        .collect();
    for (place, (id, long)) in longs.iter().enumerate() {
        let partner = long.strip_prefix("no-").and_then(|on| longs.iter().position(|(_, other)| other == on));
        let order = partner.map_or(2 * place, |on| 2 * on + 1);
        command = command.mut_arg(id, |argument| argument.display_order(order));
    }
    command
}

/// The same for the help: that switches take a word is told once, and not behind each.
fn to_be_shown() -> clap::Command {
    let shown = |argument: clap::Arg| {
        let is_switch = argument.get_value_names().is_some_and(|names| *names == ["BOOL"]);
        if is_switch {
            argument.num_args(0).require_equals(false).hide_possible_values(false)
        } else {
            argument
        }
    };
    command().mut_args(shown).mut_subcommand("replica", |replica| replica.mut_args(shown))
}

/// An error of clap's as people should see it.
fn readable(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    escape(&mut error);
    if error.kind() == ErrorKind::DisplayHelp {
        let shown = to_be_shown().try_get_matches_from(words).err();
        return shown.filter(|shown| shown.kind() == ErrorKind::DisplayHelp).unwrap_or(error);
    }
    // Prefixes are aliases to clap, and no words to be suggested; one of several options suggests all of them.
    let all = Cli::command();
    let of_replica = all.find_subcommand("replica").into_iter().flat_map(clap::Command::get_arguments);
    let mut options: Vec<String> = Vec::new();
    for argument in all.get_arguments().chain(of_replica).filter(|argument| !argument.is_hide_set()) {
        let option = argument.get_long().map(|long| format!("--{long}"));
        options.extend(option.filter(|option| !options.contains(option)));
    }
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) {
        let meant: Vec<String> =
            options.iter().filter(|option| option.starts_with(word.as_str())).cloned().collect();
        if !meant.is_empty() && error.kind() == ErrorKind::UnknownArgument {
            error.insert(ContextKind::SuggestedArg, ContextValue::Strings(meant));
            return error;
        }
    }
    if let Some(ContextValue::String(word)) = error.get(ContextKind::SuggestedArg) {
        if !options.contains(word) {
            error.remove(ContextKind::SuggestedArg);
        }
    }
    error
}

/// Words that were typed may be names of files, which others chose.
fn escape(error: &mut clap::Error) {
    let escaped = |text: &String| printable(text.as_bytes());
    let values: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(escaped(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(escaped).collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in values {
        error.insert(kind, value);
    }
}

impl Cli {
    /// Reads the command line.
    pub fn read<I, T>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString>,
    {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let matches: ArgMatches =
            command().try_get_matches_from(&words).map_err(|error| readable(error, &words))?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let conflict = |text: &str| Err(command().error(ErrorKind::ArgumentConflict, text));
        if cli.command.is_some() && cli.source.is_some() {
            return conflict("SOURCE and a subcommand cannot be in one command");
        }
        if let Some(Command::Replica(replica)) = &mut cli.command {
            let of_replica = matches.subcommand_matches("replica");
            let typed = |id: &&&str| {
                let said = |matches: &ArgMatches| matches.value_source(id) == Some(ValueSource::CommandLine);
                said(&matches) || of_replica.is_some_and(said)
            };
            if let Some(id) = NOT_FOR_REPLICAS.iter().find(typed) {
                let option = command().get_arguments().find(|argument| argument.get_id() == *id).cloned();
                let long = option.as_ref().and_then(clap::Arg::get_long).unwrap_or(id);
                return conflict(&format!("--{long} has no effect on replicas"));
            }
            // Options may stand before the subcommand as well as behind it.
            replica.typed = std::mem::take(&mut replica.typed).over(std::mem::take(&mut cli.typed));
            return Ok(cli);
        }
        if cli.command.is_some() && (cli.typed.dry_run || cli.typed.options.json == Some(true)) {
            return conflict("--dry-run and --json are for transfers, not for this subcommand");
        }
        Ok(cli)
    }
}

impl Cli {
    /// The options, wherever they stood.
    #[must_use]
    pub fn typed(&self) -> &Typed {
        match &self.command {
            Some(Command::Replica(replica)) => &replica.typed,
            _ => &self.typed,
        }
    }
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
    fn over(self, below: Self) -> Self {
        Self {
            dry_run: self.dry_run || below.dry_run,
            options: self.layer().over(below.layer()),
            config: self.config.or(below.config),
            profile: self.profile.or(below.profile),
            ..Self::default()
        }
    }
}

/// What a server calls another one's host: a name or an address.
fn server_host(word: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if word.is_empty() || word.starts_with('-') || !word.chars().all(good) {
        return Err("it is no name and no address of a host".into());
    }
    Ok(word.to_owned())
}

fn endpoint() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(|word: OsString| Endpoint::parse(&word))
}

fn host() -> impl TypedValueParser<Value = HostName> {
    OsStringValueParser::new().try_map(|word: OsString| HostName::parse(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Compressor, TransferType};

    fn options(words: &[&str]) -> Options {
        let words = ["transfer"].iter().chain(words).chain(&["a:/x", "b:/y"]);
        Cli::read(words).unwrap().typed.layer()
    }

    #[test]
    fn clap_accepts_the_definition() {
        command().debug_assert();
    }

    #[test]
    fn the_last_of_a_pair_wins() {
        assert_eq!(options(&["--compress", "--no-compress"]).compress, Some(Compress::No));
        assert_eq!(options(&["--no-compress", "--compress"]).compress, Some(Compress::Auto));
        assert_eq!(
            options(&["--no-compress", "--compress=lz4"]).compress,
            Some(Compress::With(Compressor::Lz4))
        );
        assert_eq!(options(&["--no-encrypt", "--encrypt"]).encrypt, Some(true));
        assert_eq!(options(&["--checksum", "--no-checksum"]).checksum, Some(false));
        assert_eq!(options(&["--no-fsync"]).fsync, Some(false));
        assert_eq!(options(&["--no-fsync", "--fsync"]).fsync, Some(true));
        assert_eq!(options(&[]), Options::default());
    }

    #[test]
    fn switches_can_be_turned_off_and_take_no_word_that_follows() {
        assert_eq!(options(&["--replace"]).replace, Some(true));
        assert_eq!(options(&["--replace=false"]).replace, Some(false));
        assert_eq!(options(&["-v", "--json"]).verbose, Some(true));
    }

    #[test]
    fn prefixes_that_the_old_tool_took_mean_the_same() {
        let cli = |words: &[&str]| {
            Cli::read(["transfer"].iter().chain(words).chain(&["a:/x", "b:/y"])).unwrap().typed
        };
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
    fn names_and_patterns_may_be_any_bytes() {
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
    fn options_may_stand_before_a_subcommand() {
        let cli = Cli::read(["transfer", "--config", "/x", "--sudo", "status", "db1"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Status { .. })));
        let cli = Cli::read(["transfer", "clean", "db1", "--ssh-option", "Port=22"]).unwrap();
        assert_eq!(cli.typed.options.ssh_option.unwrap().len(), 1);
        assert!(Cli::read(["transfer", "a:/x", "status", "db1"]).is_err());
        assert!(Cli::read(["transfer", "--dry-run", "status", "db1"]).is_err());
    }

    #[test]
    fn replicas_take_options_on_either_side_and_refuse_what_they_decide_themselves() {
        let read = |words: &[&str]| Cli::read(["transfer"].iter().chain(words));
        let cli =
            read(&["--no-fsync", "--nice=3", "replica", "db1", "db2", "db3", "--compress=lz4", "--nice=5"])
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
                assert!(error.contains(&format!("{option} has no effect on replicas")), "{error}");
            }
        }
        for words in [
            &["replica", "a", "b", "--chain", "--from", "c"][..],
            &["replica", "a", "b", "--chain", "--sibling"],
            &["replica", "a", "b", "--account", "f", "--create-account"],
            &["replica", "a", "b", "--max-lag", "0"],
            &["replica", "a", "b", "--primary-address", "x'y"],
            &["replica", "a"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
