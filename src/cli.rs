//! What was typed. Validated as far as one word can be, without effects and without defaults: those are `settings`'.

mod replica;
mod typed;
mod words;

use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _, Parser, Subcommand};

pub use replica::{MaxLag, Replica};
pub use typed::Typed;
pub use words::{command, shown};

use crate::endpoint::{Endpoint, EndpointError, HostName};
use crate::fleet::{self, FleetError};
use crate::values::Whole;
use replica::NOT_FOR_REPLICAS;
use words::readable;

/// What holds for all options, at the end of the help.
const AFTER_HELP: &str = "\
Times: seconds, or with units as in 90s, 15m and 1h30m. Each option but --dry-run, --config and --profile is also a key of the configuration \
file (_ for -) and a variable TRANSFER_NAME of the environment. A switch without a --no- of its own is turned off with \
=false. Several hosts in one word: 'db[1-20]:/srv', 'db{1,3,7}:/srv'.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 verification failed, 4 refused, nothing changed, 5 busy, 6 \
something could not be undone, 128+N interrupted by signal N.

Examples:
  transfer db1:/srv/sqldata db2:/srv            becomes db2:/srv/sqldata
  transfer db1:/srv/sqldata db2:/srv --dry-run  what that would do
  transfer replica db1 db2 --create-account     MariaDB on db2 becomes a replica of that on db1
  transfer status db1 db2                       which runs hold what there, live and dead
  transfer clean db1 db2                        undo what dead runs left there
  transfer history                              what was run from this machine";

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
transfer status HOST...\n       transfer clean HOST...\n       transfer history\n       transfer show RUN",
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// The source.
    #[arg(required = true, value_name = "SOURCE", value_parser = endpoint())]
    #[arg(help = "What to copy: [USER@]HOST:/PATH, or /PATH or localhost:/PATH of this machine")]
    pub source: Option<Endpoint>,
    /// The directories to copy it into, written like SOURCE
    #[arg(required = true, value_name = "TARGET", value_parser = endpoints())]
    pub targets: Vec<Fleet<Endpoint>>,
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
    #[command(infer_long_args = true, after_help = replica::AFTER_HELP)]
    Replica(Replica),
    /// List the runs that hold something on the hosts, live and dead; changes nothing
    #[command(
        after_help = "Exit codes: 0 all hosts were asked, whatever they hold; 1 one could not be asked; 2 usage."
    )]
    Status {
        /// The hosts to ask
        #[arg(required = true, value_name = "HOST", value_parser = hosts())]
        hosts: Vec<Fleet<HostName>>,
    },
    /// Undo what dead runs left on the hosts; live runs are not touched
    #[command(
        after_help = "Exit codes: 0 nothing of dead runs is left; 1 a host could not be asked; 2 usage; 6 something is left, and is \
                      listed with what to do."
    )]
    Clean {
        /// Start servers and replication again, too, that such a run had stopped, and run its hooks for afterwards
        #[arg(long)]
        start_servers: bool,
        /// Forget hooks for afterwards that have not run, or have failed: what they were to do is done
        #[arg(long, conflicts_with = "start_servers")]
        forget_hooks: bool,
        /// The hosts to clean
        #[arg(required = true, value_name = "HOST", value_parser = hosts())]
        hosts: Vec<Fleet<HostName>>,
    },
    /// List what was run from this machine by this account, the newest last
    #[command(
        after_help = "Exit codes: 0 the runs are listed, also where there are none; 1 the records cannot be read; 2 usage."
    )]
    History {
        /// The last N runs [default: 20]
        #[arg(long, value_name = "N", default_value = "20", hide_default_value = true)]
        last: Last,
        /// Each record as a JSON line, without the table
        #[arg(long)]
        json: bool,
    },
    /// Show one of these runs: what was typed, and its report
    #[command(
        after_help = "Exit codes: 0 the run is shown, however it ended; 1 the records cannot be read; 2 there is no such run, or \
                      there are several."
    )]
    Show {
        /// Its name, or the beginning of it
        #[arg(value_name = "RUN")]
        run: String,
        /// Its record as a JSON line
        #[arg(long)]
        json: bool,
    },
}

/// `--last`.
pub type Last = Whole<1, 1_000_000>;

/// What one word names: one or several, as `ClusterShell` writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet<T>(pub Vec<T>);

/// All that some words name, in their order.
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
        if let Some(Command::History { json, .. } | Command::Show { json, .. }) = &mut cli.command {
            *json |= std::mem::take(&mut cli.typed.options.json) == Some(true);
        }
        if cli.command.is_some() && (cli.typed.dry_run || cli.typed.options.json == Some(true)) {
            return conflict("--dry-run and --json have no effect on this subcommand");
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

/// Why a word names nothing.
#[derive(Debug, thiserror::Error)]
enum WordError {
    #[error("it names several hosts: only targets may be several")]
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

/// One end, where several make no sense.
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
