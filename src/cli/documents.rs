//! Parts of documents that are generated from the declarations of options: tables of options and of keys, and
//! the example of a configuration. `make generated` writes them; a test compares them with what is committed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::declared::{self, Declared, declared, declared_of_replica, grouped, sentence};

/// Maximum width of a line in the example of a configuration.
const WIDTH: usize = 110;

/// Text above the keys of the example.
const ABOVE: &str = "\
# transfer.conf: the defaults of transfer, in TOML. Path: /etc/transfer/transfer.conf. To use another file,
# give --config FILE or set the variable TRANSFER_CONFIG.
#
# The command line overrides the environment (TRANSFER_PORT=4444 and so on), which overrides a profile, which
# overrides the rest of this file, which overrides the built-in defaults. The values below are the built-in
# defaults. Every key is a command-line option, with _ for -. An unknown key is an error.
#
# To change a value, remove the \"#:\" from its line and edit it. A key without a default value has an example
# after a single \"#\".
#
# A time is a number of seconds, or a text like \"90s\", \"15m\" or \"8h\".
";

/// Text below the keys of the example.
const BELOW: &str = "
# Profiles by name, selected with --profile NAME or the variable TRANSFER_PROFILE. Each may contain any key
# from above.
# [profile.wan]
# compress = \"zstd\"
# compress_level = 6
# idle_timeout = \"30m\"
";

/// Renders one part of a document.
type Part = fn() -> String;

/// Documents with generated parts, and the names of these.
const DOCUMENTS: [(&str, &[(&str, Part)]); 2] = [
    ("docs/reference.md", &[("options", options), ("options of replicas", options_of_replicas)]),
    ("docs/configuration.md", &[("keys", keys)]),
];

/// Returns each document below the root of the repository as it should be.
///
/// # Errors
/// When a document cannot be read, or lacks the marks of a generated part.
pub fn generated(root: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut all = vec![(root.join("transfer.conf.example"), example())];
    for (name, parts) in DOCUMENTS {
        let path = root.join(name);
        let mut text = fs::read_to_string(&path)?;
        for (part, render) in parts {
            text = replaced(&text, part, &render())
                .ok_or_else(|| io::Error::other(format!("{name} has no part '{part}'")))?;
        }
        all.push((path, text));
    }
    Ok(all)
}

/// Replaces what is between the marks of a part.
fn replaced(text: &str, part: &str, new: &str) -> Option<String> {
    let (above, rest) = text.split_once(&format!("<!-- generated: {part} -->\n"))?;
    let (_, below) = rest.split_once("<!-- end -->\n")?;
    Some(format!("{above}<!-- generated: {part} -->\n\n{new}\n<!-- end -->\n{below}"))
}

/// Renders a table for each heading.
fn options() -> String {
    let tables = grouped(declared()).into_iter();
    tables
        .map(|(heading, options)| format!("**{heading}**\n\n{}", table(&options)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn options_of_replicas() -> String {
    table(&declared_of_replica())
}

fn table(options: &[Declared]) -> String {
    let row = |option: &Declared| {
        let names: Vec<String> = option.spellings.iter().map(|name| format!("`{name}`")).collect();
        let default = option.default.as_deref().unwrap_or("none");
        format!("| {} | {default} | {} |\n", names.join(", "), text(option))
    };
    let rows: String = options.iter().map(row).collect();
    format!("| option | default | meaning |\n|---|---|---|\n{rows}")
}

/// Renders the table of all keys of a configuration file.
fn keys() -> String {
    let row = |option: Declared| {
        let key = option.key.as_ref()?;
        let default = match option.default_value() {
            Some(value) => format!("`{value}`"),
            None => option.default.unwrap_or_else(|| "none".into()),
        };
        Some(format!("| `{key}` | {} | {default} | {} |\n", option.values, marked(&option.help)))
    };
    let rows: String = declared().into_iter().filter_map(row).collect();
    format!("| key | values | default | meaning |\n|---|---|---|---|\n{rows}")
}

/// Joins the help and the details.
fn text(option: &Declared) -> String {
    format!("{} {}", sentence(&marked(&option.help)), option.details).trim_end().to_owned()
}

/// Marks the options in a line of the help as code.
fn marked(help: &str) -> String {
    let word = |word: &str| {
        let name = word.trim_end_matches([',', ';', '.', ')']);
        if name.starts_with("--") { format!("`{name}`{}", &word[name.len()..]) } else { word.to_owned() }
    };
    help.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Renders the example of a configuration.
fn example() -> String {
    let mut text = ABOVE.to_owned();
    for (heading, options) in declared::keys() {
        text += &format!("\n{}\n", rule(&heading));
        for option in options {
            let key = option.key.as_deref().unwrap_or_default();
            let (default, line) = match (option.default_value(), &option.example, &option.default) {
                (Some(value), ..) => (String::new(), format!("#:{key} = {value}")),
                (None, Some(example), Some(default)) => {
                    (format!(" Default: {default}."), format!("# {key} = {example}"))
                }
                (None, example, _) => {
                    (String::new(), format!("# {key} = {}", example.as_deref().unwrap_or_default()))
                }
            };
            let about = format!("{} {}", sentence(&option.help), option.details.replace('`', ""));
            text += &format!("\n{}{line}\n", wrapped(&format!("{}{default}", about.trim_end())));
        }
    }
    text + &format!("\n{}\n", rule("Profiles")) + BELOW
}

/// Renders a heading as a line of full width.
fn rule(heading: &str) -> String {
    format!("# {:->width$}", format!(" {}", heading.to_lowercase()), width = WIDTH - 2)
}

/// Breaks a text into lines of comments.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_documents_are_as_generated() {
        for (path, text) in generated(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let committed = fs::read_to_string(&path).unwrap();
            assert!(committed == text, "{} differs: run make generated", path.display());
        }
    }

    #[test]
    fn every_key_has_a_default_or_an_example() {
        for option in declared().iter().filter(|option| option.key.is_some()) {
            let has_value = option.default_value().is_some() || option.example.is_some();
            assert!(has_value, "{option:?}");
        }
    }

    #[test]
    fn only_the_marked_part_is_replaced() {
        let text = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n";
        let new = "a\n<!-- generated: x -->\n\nnew\n\n<!-- end -->\nb\n";
        assert_eq!(replaced(text, "x", "new\n").as_deref(), Some(new));
        assert_eq!(replaced(text, "y", "new\n"), None);
        assert_eq!(replaced(new, "x", "new\n").as_deref(), Some(new));
    }
}
