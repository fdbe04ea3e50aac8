//! The definition of the command line as clap takes it and as people see it: old words, pairs, help and errors.

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use super::replica::NOT_FOR_REPLICAS;
use crate::printable::printable;

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
    // They log in on no host, and read no configuration.
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
#[must_use]
pub fn shown() -> clap::Command {
    let plain = |argument: clap::Arg| {
        let is_switch = argument.get_value_names().is_some_and(|names| *names == ["BOOL"]);
        if is_switch {
            argument.num_args(0).require_equals(false).hide_possible_values(false)
        } else {
            argument
        }
    };
    command().mut_args(plain).mut_subcommand("replica", |replica| replica.mut_args(plain))
}

/// An error of clap's as people should see it.
pub(super) fn readable(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    escape(&mut error);
    if error.kind() == ErrorKind::DisplayHelp {
        let help = shown().try_get_matches_from(words).err();
        return help.filter(|help| help.kind() == ErrorKind::DisplayHelp).unwrap_or(error);
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
