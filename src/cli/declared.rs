//! Texts, default and example of an option, as declared: the first paragraph of its doc comment is the line in
//! `--help`, the others are for man pages and documents.

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Args as _, Command, CommandFactory as _};

use super::Cli;
use crate::config::options::Options;

/// Beginning of the paragraph with an example.
const EXAMPLE: &str = "Example: ";

/// Option as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Name without dashes.
    pub(crate) long: String,
    /// Key in the configuration file, if it is one.
    pub(crate) key: Option<String>,
    /// Heading in `--help`.
    pub(crate) heading: String,
    /// Name with dashes, value and `--no-` form, each as typed.
    pub(crate) spellings: Vec<String>,
    /// Values of a key, in words.
    pub(crate) values: String,
    /// Line in `--help` without the default.
    pub(crate) help: String,
    /// Further sentences.
    pub(crate) details: String,
    /// Default, in words.
    pub(crate) default: Option<String>,
    /// Example of the value in a file, in TOML.
    pub(crate) example: Option<String>,
}

impl Declared {
    /// Returns the default in TOML; `None` if the key is absent by default.
    #[must_use]
    pub(crate) fn default_value(&self) -> Option<String> {
        let default = self.default.as_deref().filter(|_| self.example.is_none())?;
        Some(match default {
            "on" => "true".into(),
            "off" => "false".into(),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => number.into(),
            word => format!("\"{word}\""),
        })
    }

    /// Returns the help, the details and the default of a key as one paragraph without marks.
    #[cfg(feature = "manual")]
    #[must_use]
    pub(crate) fn paragraph(&self) -> String {
        let value = match (&self.example, &self.default) {
            (Some(example), None) => format!("Example: {example}."),
            (Some(example), Some(default)) => format!("Default: {default}. Example: {example}."),
            (None, _) => format!("Default: {}.", self.default_value().unwrap_or_default()),
        };
        joined([&sentence(&self.help), &self.details.replace('`', ""), &value])
    }

    fn of(option: &Arg, all: &[Arg]) -> Self {
        let long = option.get_long().unwrap_or_default().to_owned();
        let keys = Options::augment_args(Command::new("keys"));
        let is_key = keys.get_arguments().any(|key| key.get_id() == option.get_id());
        let no = format!("no-{long}");
        let no = all.iter().find(|other| other.get_long() == Some(&no));
        let text = Text::of(option);
        // Either one of a pair may name the default.
        let is_off = || no.and_then(|no| Text::of(no).default).map(|_| "off".to_owned());
        let value = value_name(option);
        let optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
        let shown = match value {
            Some(value) if optional => format!("--{long}[={value}]"),
            Some(value) => format!("--{long} {value}"),
            None => format!("--{long}"),
        };
        let short = option.get_short().map(|short| format!("-{short}"));
        let no_form = no.map(|_| format!("--no-{long}"));
        let choices = option.get_possible_values();
        // A file accepts aliases, too.
        let choices = choices.iter().flat_map(PossibleValue::get_name_and_aliases);
        let choices: Vec<String> = choices.map(|name| format!("`{name}`")).collect();
        let values = match value {
            None => "switch".into(),
            Some(_) if !choices.is_empty() => choices.join(", "),
            Some(value) if optional => format!("switch, or {value}"),
            Some(value) if matches!(option.get_action(), ArgAction::Append) => format!("list of {value}"),
            Some(value) => value.into(),
        };
        Self {
            key: is_key.then(|| long.replace('-', "_")),
            long,
            heading: option.get_help_heading().unwrap_or("General").to_owned(),
            spellings: short.into_iter().chain([shown]).chain(no_form).collect(),
            values,
            default: text.default_in_words().or_else(is_off),
            help: text.help,
            details: text.details,
            example: text.example,
        }
    }
}

/// Groups options by their headings, in the order of their declaration.
pub(super) fn grouped(options: Vec<Declared>) -> Vec<(String, Vec<Declared>)> {
    let mut groups: Vec<(String, Vec<Declared>)> = Vec::new();
    for option in options {
        match groups.iter_mut().find(|(heading, _)| *heading == option.heading) {
            Some((_, group)) => group.push(option),
            None => groups.push((option.heading.clone(), vec![option])),
        }
    }
    groups
}

/// Returns the keys of a configuration file by heading.
#[must_use]
pub(crate) fn keys() -> Vec<(String, Vec<Declared>)> {
    grouped(declared().into_iter().filter(|option| option.key.is_some()).collect())
}

/// Returns the options of a copy, in the order of their declaration.
#[must_use]
pub(super) fn declared() -> Vec<Declared> {
    of_command(&mut Cli::command())
}

/// Returns the options that only `transfer replica` has.
#[must_use]
pub(super) fn declared_of_replica() -> Vec<Declared> {
    let mut command = Cli::command();
    let of_copies = declared();
    let all = command.find_subcommand_mut("replica").map(of_command).unwrap_or_default();
    all.into_iter().filter(|option| !of_copies.iter().any(|other| other.long == option.long)).collect()
}

fn of_command(command: &mut Command) -> Vec<Declared> {
    command.build();
    let all: Vec<Arg> = command.get_arguments().cloned().collect();
    let is_option = |option: &&Arg| {
        option.get_long().is_some_and(|long| !["help", "version"].contains(&long) && !long.starts_with("no-"))
    };
    all.iter().filter(is_option).map(|option| Declared::of(option, &all)).collect()
}

/// Returns the name of the value; `None` for a switch.
fn value_name(option: &Arg) -> Option<&str> {
    let takes_value = option.get_num_args().is_some_and(|range| range.takes_values());
    let name = option.get_value_names().and_then(|names| names.first()).filter(|_| takes_value);
    name.map(clap::builder::Str::as_str).filter(|name| *name != "BOOL")
}

/// Texts of one option.
struct Text {
    help: String,
    /// `[default]`, `[default: …]` or `[default if …]`.
    default: Option<String>,
    details: String,
    example: Option<String>,
}

impl Text {
    fn of(option: &Arg) -> Self {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        // The line of `--help` may be another one in a subcommand.
        let long = option.get_long_help().map(ToString::to_string).unwrap_or_default();
        let (examples, details): (Vec<&str>, Vec<&str>) =
            long.split("\n\n").skip(1).partition(|paragraph| paragraph.starts_with(EXAMPLE));
        let example = examples.first().and_then(|example| example.strip_prefix(EXAMPLE));
        let (help, default) = match help.rfind(" [default") {
            Some(at) => (help[..at].to_owned(), Some(help[at + 1..].to_owned())),
            None => (help, None),
        };
        Self {
            help,
            default,
            details: details.join(" "),
            example: example.map(|example| example.trim_matches('`').to_owned()),
        }
    }

    /// Returns the default in words.
    fn default_in_words(&self) -> Option<String> {
        let text = self.default.as_ref()?.strip_prefix("[default")?.strip_suffix(']')?;
        Some(text.strip_prefix(": ").map_or_else(|| format!("on{text}"), ToOwned::to_owned))
    }
}

/// Returns the texts of an option as one paragraph for a man page.
#[cfg(feature = "manual")]
pub(super) fn paragraph(option: &Arg) -> String {
    let text = Text::of(option);
    joined([&sentence(&text.help), &text.details, text.default.as_deref().unwrap_or_default()])
        .replace('`', "")
}

/// Joins the parts that are not empty.
#[cfg(feature = "manual")]
fn joined(parts: [&str; 3]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Ends a text with a period.
pub(super) fn sentence(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('.') { "" } else { "." };
    format!("{text}{end}")
}
