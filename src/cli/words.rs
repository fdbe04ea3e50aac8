//! Definition of the command line for clap, and its presentation: transferpy's spellings, pairs of options, help, errors.

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};

#[cfg(feature = "manual")]
use super::declared;
use super::replica::{self, NOT_FOR_REPLICAS};
use super::{AFTER_SHORT_HELP, Cli, SHORT_ABOUT, SHORT_USAGE};
use crate::base::printable::printable;

/// Options of transferpy. Their unambiguous prefixes keep their meaning, whatever options were added since.
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

/// Returns the current name of such an option.
fn today(option: &'static str) -> &'static str {
    match option {
        "stop-slave" => "stop-replication",
        "no-stop-slave" => "no-stop-replication",
        same => same,
    }
}

/// Returns the definition of the command line.
#[must_use]
pub(crate) fn command() -> clap::Command {
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
        // transferpy had no `--v` for one of a pair.
        let renamed = Some(option).filter(|option| today(option) != *option);
        command = command.mut_arg(id, |argument| argument.aliases(prefixes(option).chain(renamed)));
    }
    // These subcommands log in nowhere and read no configuration.
    let everywhere: Vec<clap::Arg> =
        command.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    for alone in ["history", "show"] {
        let hidden = everywhere.iter().map(|argument| argument.clone().global(false).hide(true));
        command = command.mut_subcommand(alone, |command| command.args(hidden));
    }
    in_pairs(command).mut_subcommand("replica", |replica| {
        let hidden = |command: clap::Command, id: &&str| command.mut_arg(*id, |argument| argument.hide(true));
        in_pairs(NOT_FOR_REPLICAS.iter().fold(replica, hidden))
            .mut_arg("replace", |replace| {
                replace.help("Replace a server that holds databases; the old one is brought back on any failure [default: off]")
            })
            // Prefixes of before --replicate-from-primary.
            .mut_arg("replace", |replace| replace.aliases(["r", "re", "rep", "repl"]))
            .mut_arg("keep_old", |keep| {
                keep.help("Keep the old data beside the new; as NAME.old-RUN, requires --replace [default: off]")
            })
            .mut_arg("unit", |unit| {
                unit.help("systemd unit of the servers, on all hosts [default: the only one that runs or is installed there]")
            })
            .mut_arg("prepare_memory", |memory| {
                memory.help(
                    "Memory for preparing the backup [default: the source's buffer pool, at most half of the available memory]",
                )
            })
    })
}

/// Sorts each `--no-…` behind its counterpart.
fn in_pairs(mut command: clap::Command) -> clap::Command {
    // In the order of the declaration; `mut_arg` moves an argument to the end.
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

/// Options that `transfer -h` shows.
const COMMON: [&str; 9] = [
    "dry_run",
    "transfer_type",
    "exclude",
    "rename",
    "replace",
    "stop_server",
    "parallel_checksum",
    "sudo",
    "verbose",
];

/// Options that `transfer replica -h` shows.
const COMMON_OF_REPLICAS: [&str; 12] = [
    "from",
    "replicate_from_primary",
    "account",
    "create_account",
    "verify_tables",
    "allow_clients",
    "dry_run",
    "replace",
    "keep_old",
    "sudo",
    "json",
    "verbose",
];

/// Layout of `-h`: one screen, without the tables of subcommands and arguments.
const SHORT_TEMPLATE: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n\nCommon options:\n{options}{after-help}";

/// Returns the definition for the help, which has the first paragraph of each declaration.
pub(super) fn shown() -> clap::Command {
    presented(|argument| argument.long_help(Resettable::Reset))
}

/// Returns the definition for man pages, which have all that is declared.
#[cfg(feature = "manual")]
pub(super) fn documented() -> clap::Command {
    presented(|argument| {
        let text = declared::paragraph(&argument);
        argument.long_help(text)
    })
}

/// Returns the definition for readers: a switch is shown without its value, which the text below explains once.
fn presented(with_text: fn(clap::Arg) -> clap::Arg) -> clap::Command {
    let plain = move |argument: clap::Arg| {
        let is_switch = argument.get_value_names().is_some_and(|names| *names == ["BOOL"]);
        let argument = with_text(argument);
        if is_switch {
            argument.num_args(0).require_equals(false).hide_possible_values(false)
        } else {
            argument
        }
    };
    command().mut_args(plain).mut_subcommands(move |command| command.mut_args(plain))
}

/// Returns the definition for `-h`: the common options in one list, each with the first clause of its text.
fn shown_in_short() -> clap::Command {
    let in_short = |command: clap::Command, common: &'static [&str], examples: &'static str| {
        let short = |argument: clap::Arg| {
            if !common.contains(&argument.get_id().as_str()) {
                return argument.hide(true);
            }
            let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let clause = text.split([';', '[']).next().unwrap_or_default().trim_end().to_owned();
            argument.help(clause).help_heading(Resettable::Reset)
        };
        command.mut_args(short).help_template(SHORT_TEMPLATE).after_help(examples)
    };
    in_short(shown(), &COMMON, AFTER_SHORT_HELP)
        .about(SHORT_ABOUT)
        .override_usage(SHORT_USAGE)
        .mut_subcommand("replica", |replica| {
            in_short(replica, &COMMON_OF_REPLICAS, replica::AFTER_SHORT_HELP)
        })
}

/// Makes an error of clap's readable: escaped, with suggestions that exist.
pub(super) fn readable(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    escape(&mut error);
    if error.kind() == ErrorKind::DisplayHelp {
        let is_long = |word: &OsString| {
            let word = word.as_encoded_bytes();
            let alone =
                ["help", "status", "clean", "history", "show"].iter().any(|alone| word == alone.as_bytes());
            // `--help`, also shortened.
            alone || (word.starts_with(b"--he") && b"--help".starts_with(word))
        };
        let is_short = !words.iter().any(is_long);
        let shown = if is_short { shown_in_short() } else { shown() };
        let help = shown.try_get_matches_from(words).err();
        return help.filter(|help| help.kind() == ErrorKind::DisplayHelp).unwrap_or(error);
    }
    // Prefixes are aliases for clap, but they are no suggestions; an ambiguous prefix suggests all of its options.
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

/// Escapes typed words: they may be file names that another user chose.
fn escape(error: &mut clap::Error) {
    let escaped = |text: &String| printable(text.as_bytes());
    let values: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(escaped(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(escaped).collect())))
            }
            // Their colours are lost: they cannot be told from what was typed.
            ContextValue::StyledStrs(texts) => {
                let texts = texts.iter().map(|text| escaped(&text.to_string()).into()).collect();
                Some((kind, ContextValue::StyledStrs(texts)))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in values {
        error.insert(kind, value);
    }
}
