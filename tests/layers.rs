//! The list of modules in `docs/architecture.md` agrees with the code: the modules, dependencies that point
//! down the list only, and the interfaces to the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the modules in the order of the document's table, including those that share a line.
fn listed() -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module |")).skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    let listed: Vec<String> = rows.flat_map(names).collect();
    assert!(listed.len() > 10, "the table was not found: {listed:?}");
    listed
}

/// A source file: its top-level module, its path below `src/`, and its text without comments.
struct Source {
    module: String,
    path: String,
    text: String,
}

impl Source {
    /// Returns the text without unit tests.
    fn shipped(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap()
    }

    /// Returns the top-level modules that the text names after a prefix.
    fn names_after(&self, prefix: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.text.match_indices(prefix) {
            // Not the end of a longer word.
            if self.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &self.text[at + prefix.len()..];
            let list = match rest.strip_prefix('{') {
                Some(list) => outer_names(list),
                None => vec![first_word(rest)],
            };
            found.extend(list.into_iter().filter(|name| !name.is_empty() && name != "self"));
        }
        found
    }
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Returns the first words of the elements of `a::b, c::{d, e}, f}…`, up to the closing brace.
fn outer_names(list: &str) -> Vec<String> {
    let (mut depth, mut element, mut names) = (0, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_word(&std::mem::take(&mut element))),
            _ => {}
        }
        if depth == 0 && c != ',' {
            element.push(c);
        }
    }
    names.push(first_word(&element));
    names
}

fn sources() -> Vec<Source> {
    let root = Path::new(ROOT).join("src");
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    assert!(files.len() > 20, "{files:?}");
    let source = |path: &PathBuf| {
        let path_below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let code =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let module = path_below.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Source { module, path: path_below, text: code }
    };
    files.iter().map(source).collect()
}

/// Returns the dependencies between top-level modules, with a file of each. `lib` is left out.
fn dependencies() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        // `main` is another crate, which uses the library.
        let prefix = if source.module == "main" { "transfer::" } else { "crate::" };
        for name in source.names_after(prefix) {
            if name != source.module {
                found.insert((source.module.clone(), name), source.path.clone());
            }
        }
    }
    found
}

#[test]
fn dependencies_are_found_in_any_spelling() {
    let text = "use crate::{run::{a, b}, host::{self, c::d}, plan};\nlet x = crate::verify::y; pub(crate) z; $crate::w";
    let source = Source { module: "lease".into(), path: "lease.rs".into(), text: text.into() };
    let found: Vec<String> = source.names_after("crate::").into_iter().collect();
    assert_eq!(found, ["host", "plan", "run", "verify"]);
}

#[test]
fn module_list_matches_the_modules() {
    let library = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let declared = library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let mut declared: BTreeSet<String> = declared.map(|name| name.trim_end_matches(';').to_owned()).collect();
    declared.insert("main".to_owned());
    let listed = listed();
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), once.len(), "one is listed twice: {listed:?}");
    assert_eq!(declared, once, "src/lib.rs on the left, docs/architecture.md on the right");
}

#[test]
fn dependencies_point_only_down_the_list() {
    let listed = listed();
    let rank = |module: &str| listed.iter().position(|name| name == module);
    let dependencies = dependencies();
    assert!(dependencies.len() > 40, "they were not found: {dependencies:?}");
    let wrong: Vec<String> = dependencies
        .iter()
        .filter(|((user, used), _)| rank(user).is_none() || rank(used).is_none() || rank(user) >= rank(used))
        .map(|((user, used), path)| format!("src/{path}: {user} uses {used}, which is not below it"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Work emits progress; no other module knows or shows it.
#[test]
fn only_run_and_transfer_report_progress() {
    let users: BTreeSet<String> =
        dependencies().into_keys().filter(|(_, used)| used == "progress").map(|(user, _)| user).collect();
    assert_eq!(users, BTreeSet::from(["run".to_owned(), "transfer".to_owned()]));
}

/// "One door to the hosts. Only `host/` starts processes or speaks SSH."
#[test]
fn only_host_starts_processes_or_speaks_ssh() {
    for source in sources().iter().filter(|source| source.module != "host") {
        for word in ["tokio::process", "openssh"] {
            assert!(!source.text.contains(word), "src/{} mentions {word}", source.path);
        }
        for word in ["process::Command", "process::{", "fork("] {
            assert!(!source.shipped().contains(word), "src/{} starts processes: {word}", source.path);
        }
    }
}

/// `println!` panics when the terminal is gone, which would be in the middle of a run.
#[test]
fn no_print_macro_can_panic() {
    for source in &sources() {
        for word in ["println!", "print!(", "dbg!", "eprint"] {
            assert!(!source.shipped().contains(word), "src/{} prints with {word}", source.path);
        }
    }
}

/// Modules that may write to the outputs: report and plan at the end, progress, and the message after a
/// second signal.
#[test]
fn only_renderers_use_the_outputs() {
    let users: BTreeSet<String> = sources()
        .iter()
        .filter(|source| source.shipped().contains("io::stdout") || source.shipped().contains("io::stderr"))
        .map(|source| source.module.clone())
        .collect();
    let allowed = BTreeSet::from(
        ["bin", "log", "main", "progress", "run", "signals", "terminal"].map(ToOwned::to_owned),
    );
    assert!(users.is_subset(&allowed), "{users:?}");
}
