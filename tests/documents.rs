//! Tests that documents name exist, and commands that they show are valid. The lab runs the commands
//! (`tests/lab/databases/documents.rs`).

use std::fs;
use std::path::Path;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

#[path = "support"]
mod support {
    pub(crate) mod documents;
}

use support::documents::{self, ROOT, Step};

/// Returns words in backquotes of the form `file::test`; `file` is below `tests/`.
fn named(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"));
    quoted.map(|(file, test)| (file.to_owned(), test.to_owned())).collect()
}

#[test]
fn guarantees_name_existing_tests() {
    let named = named("docs/guarantees.md");
    assert!(named.len() > 30, "they were not found: {named:?}");
    let faults = module(&Path::new(ROOT).join("tests/lab/damage/faults"));
    for (file, test) in named.into_iter().filter(|(_, test)| !["TEST", "FAULT"].contains(&test.as_str())) {
        if file == "damage" {
            assert!(faults.contains(&format!("\"{test}\"")), "the matrix has no fault {test}");
            continue;
        }
        let text = module(&Path::new(ROOT).join("tests").join(&file));
        // Attributes, and arguments of a property test, may be in between.
        let is_test = text.contains(&format!("fn {test}("))
            && text
                .split("#[test]")
                .skip(1)
                .any(|behind| behind.split('(').next().unwrap().ends_with(&format!("fn {test}")));
        assert!(is_test, "{file} has no test {test}");
    }
}

/// Returns the text of a module and its submodules.
fn module(path: &Path) -> String {
    let file = path.with_extension("rs");
    let mut text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else {
                text.push_str(&fs::read_to_string(entry).unwrap());
            }
        }
    }
    text
}

/// A script that is named as running commands outside of the lab does run them.
#[test]
fn commands_marked_elsewhere_are_run() {
    for path in documents::all() {
        for (line, step) in documents::read(&path).unwrap().steps {
            let Step::Elsewhere { path: script, script: commands } = step else { continue };
            let runs = fs::read_to_string(Path::new(ROOT).join(&script))
                .unwrap_or_else(|error| panic!("{path}, line {line}: {script}: {error}"));
            for command in commands.lines().map(|line| line.split(" #").next().unwrap_or_default().trim()) {
                let is_run = |line: &str| [command, &format!("section {command}")].contains(&line.trim());
                assert!(runs.lines().any(is_run), "{path}, line {line}: {script} does not run '{command}'");
            }
        }
    }
}

/// Inline code has placeholders, so it is not run, but only parsed.
#[test]
fn inline_commands_parse() {
    let mut seen = 0;
    for path in documents::all() {
        for code in documents::read(&path).unwrap().inline {
            // Of a pipe, or of several commands, only the first one.
            let first = code.split(['|', '&', ';', '>']).next().unwrap_or_default().trim();
            if !first.starts_with("transfer ") || first.contains('…') {
                continue;
            }
            let words = shlex::split(first).unwrap_or_else(|| panic!("{path}: {code}"));
            // A list of hosts may be left open.
            let words = words.iter().map(|word| word.trim_end_matches("...").to_owned());
            if let Err(error) = transfer::cli::Cli::read(words) {
                use clap::error::ErrorKind::{
                    DisplayHelp, DisplayVersion, MissingRequiredArgument, MissingSubcommand,
                };
                let is_short = matches!(
                    error.kind(),
                    DisplayHelp | DisplayVersion | MissingRequiredArgument | MissingSubcommand
                );
                assert!(is_short, "{path}: {code}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "they were not found");
}

/// Placeholders have to be filled in before publication.
#[test]
fn documents_have_no_placeholders() {
    for path in documents::all() {
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap();
        for gap in ["@TRANSFER@", "@HAND@", "@RSYNC@", "@SCP@", "TODO", "FIXME"] {
            assert!(!text.contains(gap), "{path}: {gap}");
        }
    }
}

/// The host of a command and the name of a file are visible to readers, not only in the info string of a code
/// block.
#[test]
fn code_blocks_show_host_and_file() {
    for path in documents::all() {
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in
            lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("```"))
        {
            let said = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
            let head = lines[number + 1..].iter().take(2).copied().collect::<Vec<_>>().join("\n");
            let host = said("on=").filter(|host| *host != "ctl");
            for word in [host, said("file="), said("mode=")].into_iter().flatten() {
                assert!(
                    head.contains(word),
                    "{path}, line {}: '{word}' is to be told in a comment",
                    number + 1
                );
            }
        }
    }
}

/// Documents beside those for users.
const OTHERS: [&str; 3] = ["CHANGELOG.md", "CONTRIBUTING.md", "tests/lab/README.md"];

/// Links and the anchors of headings of one document.
fn links_and_anchors(path: &Path) -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut links, mut anchors, mut heading) = (Vec::new(), Vec::new(), None);
    for event in Parser::new(&text) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.to_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(more) | Event::Code(more) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&more);
                }
            }
            Event::End(TagEnd::Heading(_)) => anchors.extend(heading.take().map(|text| anchor(&text))),
            _ => {}
        }
    }
    (links, anchors)
}

/// Anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut seen = 0;
    for path in documents::all().into_iter().chain(OTHERS.map(ToOwned::to_owned)) {
        let document = Path::new(ROOT).join(&path);
        for link in links_and_anchors(&document).0.iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{path}: {link} leads to no file");
            if !heading.is_empty() {
                let anchors = links_and_anchors(&file).1;
                assert!(anchors.iter().any(|anchor| anchor == heading), "{path}: {link}: {anchors:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} links were found");
}

#[test]
fn index_names_every_document() {
    let index = Path::new(ROOT).join("docs/index.md");
    let links = links_and_anchors(&index).0;
    for path in documents::all() {
        let Some(name) = path.strip_prefix("docs/").filter(|name| *name != "index.md") else { continue };
        assert!(links.iter().any(|link| link == name), "docs/index.md does not name {path}");
    }
}
