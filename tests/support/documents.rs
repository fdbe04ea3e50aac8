//! Commands and outputs that documents show: code blocks, and inline code.
//!
//! The info string of a code block may have attributes: `sh on=db2 exit=4` is a command for that host (by
//! default the controller) with that exit code, `sh elsewhere=PATH` one that only the script PATH of the
//! repository runs, and any language with `file=PATH` a file that the reader writes. A comment `<!-- test
//! on=db1` is a command that the reader does not see.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One step of a reader.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Type a command on a host, and expect an exit code.
    Type { host: String, exit: i32, script: String },
    /// Write a file on a host, with a mode.
    Write { host: String, path: String, mode: String, text: String },
    /// A command that this script runs.
    Elsewhere { path: String, script: String },
    /// Output that is only shown.
    Show,
}

/// A parsed document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Steps, each with its line number.
    pub(crate) steps: Vec<(usize, Step)>,
    /// Inline code.
    pub(crate) inline: Vec<String>,
}

/// Returns the documents for users, as paths in the repository.
pub(crate) fn all() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    let mut directories = vec![PathBuf::from("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if Path::new(ROOT).join(&path).is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

/// Parses a document; errors in its code blocks have the line number.
pub(crate) fn read(path: &str) -> Result<Document, String> {
    let text =
        fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    parse(&text).map_err(|error| format!("{path}: {error}"))
}

fn parse(text: &str) -> Result<Document, String> {
    let mut document = Document::default();
    let mut block: Option<(usize, String, String)> = None;
    let mut comment = String::new();
    let mut comment_line = 0;
    for (event, range) in Parser::new(text).into_offset_iter() {
        let line = text[..range.start].matches('\n').count() + 1;
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                return Err(format!("line {line}: an indented block: write a fenced one"));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                block = Some((line, info.to_string(), String::new()));
            }
            Event::Text(more) => {
                if let Some((_, _, text)) = &mut block {
                    text.push_str(&more);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                let (line, info, text) = block.take().unwrap_or_default();
                document
                    .steps
                    .push((line, step(&info, text).map_err(|error| format!("line {line}: {error}"))?));
            }
            Event::Code(code) => document.inline.push(code.to_string()),
            Event::Start(Tag::HtmlBlock) => (comment, comment_line) = (String::new(), line),
            Event::Html(more) => comment.push_str(&more),
            Event::End(TagEnd::HtmlBlock) => {
                if let Some(rest) = comment.trim().strip_prefix("<!-- test") {
                    let script = rest.strip_suffix("-->").and_then(|rest| rest.split_once('\n'));
                    let Some((attributes, script)) = script else {
                        return Err(format!(
                            "line {comment_line}: a hidden test has its lines below <!-- test, and --> alone"
                        ));
                    };
                    let step = step(&format!("sh {attributes}"), script.to_owned());
                    document
                        .steps
                        .push((comment_line, step.map_err(|error| format!("line {comment_line}: {error}"))?));
                }
            }
            Event::InlineHtml(more) if more.starts_with("<!-- test") => {
                return Err(format!("line {line}: a hidden test is a paragraph of its own"));
            }
            _ => {}
        }
    }
    Ok(document)
}

fn step(info: &str, text: String) -> Result<Step, String> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    let (mut host, mut exit, mut mode) = ("ctl".to_owned(), 0, "0644".to_owned());
    let (mut file, mut elsewhere) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("on", name)) => host = name.into(),
            Some(("exit", code)) => exit = code.parse().map_err(|_| format!("{word} is no exit code"))?,
            Some(("mode", bits)) => mode = bits.into(),
            Some(("file", path)) => file = Some(path.to_owned()),
            Some(("elsewhere", path)) => elsewhere = Some(path.to_owned()),
            _ => return Err(format!("a block cannot have {word}")),
        }
    }
    Ok(match (language, file, elsewhere) {
        (_, Some(path), None) => Step::Write { host, path, mode, text },
        ("sh", None, None) => Step::Type { host, exit, script: text },
        ("sh", None, Some(path)) => Step::Elsewhere { path, script: text },
        ("text" | "json" | "ini" | "toml" | "yaml" | "sql", None, None) => Step::Show,
        _ => {
            return Err(format!(
                "a block is sh, or has a file, or is shown (text, json, ini, toml, yaml, sql), not '{info}'"
            ));
        }
    })
}

#[test]
fn blocks_are_parsed_with_attributes() {
    let text = "# T\n\nSay `a b`.\n\n```sh on=db2 exit=4\nx\ny\n```\n\n<!-- test\nz\n-->\n\n<!-- other -->\n\n\
                ```ini file=/etc/x mode=0600\nk=v\n```\n\n1. in a list\n   ```sh elsewhere=s.sh\n   w\n   ```\n";
    let document = parse(text).unwrap();
    let typed =
        |host: &str, exit, script: &str| Step::Type { host: host.into(), exit, script: script.into() };
    assert_eq!(document.inline, ["a b"]);
    assert_eq!(
        document.steps,
        [
            (5, typed("db2", 4, "x\ny\n")),
            (10, typed("ctl", 0, "z\n")),
            (
                16,
                Step::Write {
                    host: "ctl".into(),
                    path: "/etc/x".into(),
                    mode: "0600".into(),
                    text: "k=v\n".into()
                }
            ),
            (21, Step::Elsewhere { path: "s.sh".into(), script: "w\n".into() }),
        ]
    );
    assert!(parse("```sh of=1\n```\n").is_err());
    assert!(parse("```\nx\n```\n").is_err());
    assert!(parse("    x\n").is_err());
    assert!(parse("<!-- test x -->\n").is_err());
    assert!(parse("text <!-- test\nx\n--> text\n").is_err());
}
