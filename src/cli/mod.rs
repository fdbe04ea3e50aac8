//! Command line as typed. Each argument is validated by itself, without side effects and without defaults: those are
//! `settings`'.

#[cfg(any(test, feature = "manual"))]
mod declared;
#[cfg(any(test, feature = "manual"))]
pub mod documents;
mod fleet;
#[cfg(feature = "manual")]
pub mod manual;
mod replica;
mod words;

use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _, Parser, Subcommand};

pub(crate) use crate::config::typed::Typed;
#[cfg(test)]
pub(crate) use declared::keys;
pub(crate) use replica::Replica;
pub(crate) use words::command;

use crate::base::endpoint::{Endpoint, EndpointError, HostName};
use crate::config::values::Whole;
use fleet::FleetError;
use replica::NOT_FOR_REPLICAS;
use words::readable;

/// Text below `--help`, for all options.
const AFTER_HELP: &str = "\
Times are seconds, or have units: 90s, 15m, 1h30m. Each option except --dry-run, --config and --profile can also be set in \
the configuration file (with _ for -) and in the environment (TRANSFER_NAME). A switch without a --no- form is turned off with \
=false. A word may name several hosts: 'db[1-20]:/srv', 'db{1,3,7}:/srv'.

Exit codes: 0 done, 1 failed, 2 usage or configuration error, 3 verification failed, 4 refused before anything was changed, \
5 busy, 6 not everything was rolled back, 128+N interrupted by signal N.

Examples:
  transfer db1:/srv/sqldata db2:/srv            copy to db2:/srv/sqldata
  transfer db1:/srv/sqldata db2:/srv --dry-run  show what that would change
  transfer replica db1 db2 --create-account     db2 becomes a replica of db1";

/// Description in `-h`.
const SHORT_ABOUT: &str = "Copy SOURCE into each TARGET directory; roll back all changes on failure";

/// Usage in `-h`.
const SHORT_USAGE: &str = "transfer [OPTIONS] SOURCE TARGET...   each [USER@]HOST:/PATH, or /PATH
       transfer replica [OPTIONS] PRIMARY TARGET...
       transfer status HOST...   list what runs have changed on hosts
       transfer clean HOST...    roll back runs that were killed or crashed
       transfer history          list the runs of this machine
       transfer show RUN         show the report of one of them";

/// Text below `-h`.
const AFTER_SHORT_HELP: &str = "\
All options and exit codes: transfer --help, transfer COMMAND --help

Examples:
  transfer db1:/srv/sqldata db2:/srv            copy to db2:/srv/sqldata
  transfer db1:/srv/sqldata db2:/srv --dry-run  show what that would change
  transfer replica db1 db2 --create-account     db2 becomes a replica of db1";

/// Arguments of the program.
#[derive(Debug, Parser)]
#[command(
    name = "transfer",
    version,
    about = "Copy SOURCE into each TARGET directory, between hosts. The copy gets its name when it is verified; on any \
failure all changes are rolled back.",
    long_about = None,
    infer_long_args = true,
    subcommand_negates_reqs = true,
    override_usage = "transfer [OPTIONS] SOURCE TARGET...\n       transfer replica [OPTIONS] PRIMARY TARGET...\n       \
transfer status HOST...\n       transfer clean HOST...\n       transfer history\n       transfer show RUN",
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// File or directory to copy.
    #[arg(required = true, value_name = "SOURCE", value_parser = endpoint())]
    #[arg(help = "File or directory to copy: [USER@]HOST:/PATH, or /PATH on this machine")]
    pub source: Option<Endpoint>,
    /// Directories to copy it into, written like SOURCE
    #[arg(required = true, value_name = "TARGET", value_parser = endpoints())]
    pub targets: Vec<Fleet<Endpoint>>,
    /// Options, before or after the arguments.
    #[command(flatten)]
    pub typed: Typed,
    /// Subcommand, instead of SOURCE and TARGET.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Command {
    /// Turn MariaDB servers into replicas of a running server, from a hot backup of it
    #[command(infer_long_args = true, after_help = replica::AFTER_HELP)]
    Replica(Replica),
    /// List the runs that have changes in place on hosts, live and orphaned; changes nothing
    #[command(after_help = "Exit codes: 0 all hosts answered; 1 a host could not be asked; 2 usage error.")]
    Status {
        /// Hosts to ask
        #[arg(required = true, value_name = "HOST", value_parser = hosts())]
        hosts: Vec<Fleet<HostName>>,
    },
    /// Roll back what orphaned runs have changed on hosts; live runs are not touched
    #[command(
        after_help = "Exit codes: 0 nothing of orphaned runs remains; 1 a host could not be asked; 2 usage error; 6 something could \
                      not be rolled back and is listed with the remedy."
    )]
    Clean {
        /// Also restart servers and replication that such a run had stopped, and run its after-hooks
        #[arg(long)]
        start_servers: bool,
        /// Forget after-hooks that have not run or have failed, because their work was done by hand
        #[arg(long, conflicts_with = "start_servers")]
        forget_hooks: bool,
        /// Hosts to clean
        #[arg(required = true, value_name = "HOST", value_parser = hosts())]
        hosts: Vec<Fleet<HostName>>,
    },
    /// List the runs that this account started on this machine, newest last
    #[command(
        after_help = "Exit codes: 0 listed, even if there are none; 1 the records cannot be read; 2 usage error."
    )]
    History {
        /// Show the last N runs [default: 20]
        #[arg(long, value_name = "N", default_value = "20", hide_default_value = true)]
        last: Last,
        /// Print each record as a JSON line
        #[arg(long)]
        json: bool,
    },
    /// Show the command and the report of one of these runs
    #[command(
        after_help = "Exit codes: 0 shown, however the run ended; 1 the records cannot be read; 2 no run or several runs have \
                      that name."
    )]
    Show {
        /// Name of the run, or the beginning of it
        #[arg(value_name = "RUN")]
        run: String,
        /// Print the record as a JSON line
        #[arg(long)]
        json: bool,
    },
}

/// `--last`.
pub(crate) type Last = Whole<1, 1_000_000>;

/// Hosts or endpoints that one word names, in the notation of `ClusterShell`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet<T>(pub Vec<T>);

/// Returns all that the words name, in their order.
#[must_use]
pub fn all<T: Clone>(words: &[Fleet<T>]) -> Vec<T> {
    words.iter().flat_map(|word| word.0.iter().cloned()).collect()
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
            return conflict("SOURCE cannot be used with a subcommand");
        }
        if let Some(Command::Replica(replica)) = &mut cli.command {
            let of_replica = matches.subcommand_matches("replica");
            let typed = |id: &&&str| {
                let given = |matches: &ArgMatches| matches.value_source(id) == Some(ValueSource::CommandLine);
                given(&matches) || of_replica.is_some_and(given)
            };
            if let Some(id) = NOT_FOR_REPLICAS.iter().find(typed) {
                let option = command().get_arguments().find(|argument| argument.get_id() == *id).cloned();
                let long = option.as_ref().and_then(clap::Arg::get_long).unwrap_or(id);
                return conflict(&format!("--{long} cannot be used with replica"));
            }
            // Options may stand before and after the subcommand.
            replica.typed = std::mem::take(&mut replica.typed).over(std::mem::take(&mut cli.typed));
            return Ok(cli);
        }
        if let Some(Command::History { json, .. } | Command::Show { json, .. }) = &mut cli.command {
            *json |= std::mem::take(&mut cli.typed.options.json) == Some(true);
        }
        if cli.command.is_some() && (cli.typed.dry_run || cli.typed.options.json == Some(true)) {
            return conflict("--dry-run and --json cannot be used with this subcommand");
        }
        Ok(cli)
    }
}

impl Cli {
    /// Returns the options, wherever they were typed.
    #[must_use]
    pub fn typed(&self) -> &Typed {
        match &self.command {
            Some(Command::Replica(replica)) => &replica.typed,
            _ => &self.typed,
        }
    }
}

/// Error of a word that names no host or endpoint.
#[derive(Debug, thiserror::Error)]
enum WordError {
    #[error("names several hosts; only TARGET may")]
    Several,
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

fn each<T>(word: &OsStr, parse: fn(&OsStr) -> Result<T, EndpointError>) -> Result<Fleet<T>, WordError> {
    let words = fleet::expand(word)?;
    Ok(Fleet(words.iter().map(|word| parse(word)).collect::<Result<_, _>>()?))
}

/// Parses one endpoint and refuses several.
fn endpoint() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(|word: OsString| one(&word, Endpoint::parse))
}

fn endpoints() -> impl TypedValueParser<Value = Fleet<Endpoint>> {
    OsStringValueParser::new().try_map(|word: OsString| each(&word, Endpoint::parse))
}

fn one<T>(word: &OsStr, parse: fn(&OsStr) -> Result<T, EndpointError>) -> Result<T, WordError> {
    match fleet::expand(word)?.as_slice() {
        [word] => Ok(parse(word)?),
        _ => Err(WordError::Several),
    }
}

fn hosts() -> impl TypedValueParser<Value = Fleet<HostName>> {
    OsStringValueParser::new().try_map(|word: OsString| each(&word, HostName::parse))
}

fn host() -> impl TypedValueParser<Value = HostName> {
    OsStringValueParser::new().try_map(|word: OsString| one(&word, HostName::parse))
}

#[cfg(test)]
mod tests;
