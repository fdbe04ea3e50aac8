//! Man pages and completions, generated from the definitions of the help by the build tool `transfer-manual`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::declared::{keys, sentence};
use super::words::{documented, shown};

/// Files that the program reads and writes, for the FILES section.
const FILES: [(&str, &str); 5] = [
    ("/etc/transfer/transfer.conf", "the configuration: transfer.conf(5)"),
    (
        "/var/lib/transfer-history/",
        "on this machine: the records of past runs (without root ~/.local/state/transfer-history/)",
    ),
    (
        "/var/lib/transfer/",
        "on the hosts: journals of live and orphaned runs, from which they are rolled back",
    ),
    ("/run/transfer/", "on the hosts: locks of ports and of final names"),
    (
        "TARGET/.transfer-RUN-targetN/",
        "on the targets: staging directory of a copy, until it is verified and published",
    ),
];

/// Writes `man/*.1`, `man/transfer.conf.5` and `completions/` below a directory.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = shown().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "transfer", &completions)?;
    }
    let mut command = documented().disable_help_subcommand(true);
    command.build();
    let all: Vec<&Command> = [&command].into_iter().chain(command.get_subcommands()).collect();
    let names: Vec<String> = all.iter().map(|command| name(command)).collect();
    for command in &all {
        page(command, &names, &man)?;
    }
    fs::write(man.join("transfer.conf.5"), configuration().to_roff())
}

/// Writes the man page of one command.
fn page(command: &Command, names: &[String], directory: &Path) -> io::Result<()> {
    let name = name(command);
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .date("")
        .source(format!("transfer {}", env!("CARGO_PKG_VERSION")))
        .manual("transfer");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    let mut head = Roff::new();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    head.control("SH", ["NAME"]).text([roman(format!("{name} - {}", summary(&about)))]);
    head.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().render_usage().to_string();
    for (place, line) in usage.trim_start_matches("Usage:").lines().enumerate() {
        if place > 0 {
            head.control("br", []);
        }
        head.text([bold(line.trim())]);
    }
    head.control("SH", ["DESCRIPTION"]).text([roman(sentence(&about))]);
    text.extend(head.to_roff().into_bytes());
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut tail = Roff::new();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    sections(&mut tail, &after);
    tail.control("SH", ["FILES"]);
    for (file, what) in FILES {
        tail.control("TP", []).text([italic(file)]).text([roman(what)]);
    }
    tail.control("SH", ["SEE ALSO"]);
    let mut pages: Vec<String> =
        names.iter().filter(|other| **other != name).map(|other| format!("{other}(1)")).collect();
    pages.extend(["transfer.conf(5)".into(), "ssh(1)".into(), "ssh_config(5)".into()]);
    tail.text([roman(format!(
        "{}; the runbooks in /usr/share/doc/transfer/docs/runbooks/",
        pages.join(", ")
    ))]);
    text.extend(tail.to_roff().into_bytes());
    fs::write(directory.join(format!("{name}.1")), text)
}

/// Returns the name of a command's page: `transfer`, `transfer-replica`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// Adds the paragraphs that follow the help, each below a title of its own.
fn sections(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        if let Some(codes) = paragraph.strip_prefix("Exit codes: ") {
            roff.control("SH", ["EXIT STATUS"]).text([roman(codes)]);
        } else if let Some(lines) = paragraph.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]).control("nf", []);
            for line in lines.lines() {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
        } else {
            roff.control("SH", ["NOTES"]).text([roman(paragraph)]);
        }
    }
}

/// Generates transfer.conf(5).
fn configuration() -> Roff {
    let mut roff = Roff::new();
    let source = format!("transfer {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["TRANSFER.CONF", "5", "", &source, "transfer"]);
    roff.control("SH", ["NAME"]).text([roman("transfer.conf - configuration of transfer")]);
    roff.control("SH", ["SYNOPSIS"]).text([italic("/etc/transfer/transfer.conf")]);
    roff.control("SH", ["DESCRIPTION"]).text([roman(
        "A file in TOML. Each key is an option of transfer(1) with _ for -, and takes the same values: numbers, \
         strings in double quotes, true or false for switches, and lists of strings for options that can be \
         repeated. An unknown key is an error. The command line overrides the environment (TRANSFER_ and the key \
         in capitals), the environment overrides a profile, and a profile overrides the rest of the file. The \
         file is optional; --config names another one.",
    )]);
    for (heading, keys) in keys() {
        roff.control("SH", [heading.to_uppercase().as_str()]);
        for key in keys {
            let name = key.key.clone().unwrap_or_default();
            roff.control("TP", []);
            match key.values.as_str() {
                "switch" => {
                    roff.text([bold(name), roman(" = "), italic("true"), roman(" or "), italic("false")])
                }
                values => roff.text([bold(name), roman(" = "), italic(values.replace('`', ""))]),
            };
            roff.text([roman(key.paragraph())]);
        }
    }
    roff.control("SH", ["PROFILES"]).text([roman(
        "A table [profile.NAME] contains keys that override those above it with --profile NAME (or \
         TRANSFER_PROFILE).",
    )]);
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in [
        "compress = \"zstd\"",
        "lease_time = \"2m\"",
        "ssh_option = [\"Port=2222\"]",
        "hook = { before_source = \"depool $HOSTNAME\", after_source = \"repool $HOSTNAME\" }",
        "[profile.wan]",
        "compress_level = 9",
    ] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        ("/etc/transfer/transfer.conf", "this file"),
        (
            "/etc/transferpy/transferpy.conf",
            "configuration of transferpy, read if the file above does not exist",
        ),
        ("/usr/share/doc/transfer/transfer.conf.example", "all keys with their defaults, commented"),
    ] {
        roff.control("TP", []).text([italic(file)]).text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]).text([roman("transfer(1), transfer-replica(1), ssh_config(5)")]);
    roff
}

/// Returns the first sentence, for the NAME section.
fn summary(about: &str) -> &str {
    about
        .split([':', ';'])
        .next()
        .and_then(|text| text.split(". ").next())
        .unwrap_or(about)
        .trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_key_is_in_its_page() {
        let directory = std::env::temp_dir().join(format!("transfer-manual-{}", std::process::id()));
        write(&directory).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap().replace('\\', "");
        let (page, configuration) = (read("man/transfer.1"), read("man/transfer.conf.5"));
        for argument in shown().get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(long) = argument.get_long() else { continue };
            let is_documented = page
                .split(|c: char| c.is_whitespace() || ",=[".contains(c))
                .any(|word| word.trim_start_matches("fB").split("fR").next() == Some(&format!("--{long}")));
            assert!(is_documented, "{long}: {page}");
        }
        for key in keys().iter().flat_map(|(_, keys)| keys).filter_map(|key| key.key.as_ref()) {
            assert!(configuration.contains(&format!("fB{key}fR")), "{key}: {configuration}");
        }
        for name in [
            "transfer-replica.1",
            "transfer-status.1",
            "transfer-clean.1",
            "transfer-history.1",
            "transfer-show.1",
        ] {
            assert!(read(&format!("man/{name}")).contains(".SH SYNOPSIS"), "{name}");
        }
        for name in ["transfer.bash", "_transfer", "transfer.fish"] {
            let text = read(&format!("completions/{name}"));
            assert!(text.contains("parallel-checksum") && text.contains("history"), "{name}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
