//! The list of modules in `docs/architecture.md` agrees with the code: the modules, dependencies that point
//! down the list only, no cycle inside a room, and the interfaces to the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the modules in the order of the document's table, with the number of their row.
fn listed() -> Vec<(String, usize)> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module |")).skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    let rows = rows.enumerate();
    let listed: Vec<(String, usize)> =
        rows.flat_map(|(row, cell)| names(cell).into_iter().map(move |name| (name, row))).collect();
    assert!(listed.len() > 10, "the table was not found: {listed:?}");
    listed
}

/// Returns the row of the module, or of the nearest room that it is in.
fn row(listed: &[(String, usize)], module: &str) -> Option<usize> {
    let is_in =
        |room: &str| module == room || module.strip_prefix(room).is_some_and(|rest| rest.starts_with("::"));
    let rooms = listed.iter().filter(|(room, _)| is_in(room));
    rooms.max_by_key(|(room, _)| room.len()).map(|(_, row)| *row)
}

/// A source file: its module, its path below `src/`, and its text without comments.
struct Source {
    module: String,
    path: String,
    text: String,
}

impl Source {
    /// Returns the text without unit tests.
    fn shipped(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap()
    }

    /// Whether the whole file is unit tests.
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
    }

    /// Returns the top-level module.
    fn top(&self) -> &str {
        self.module.split("::").next().unwrap()
    }

    /// Returns the paths that the text names after a prefix such as `crate::`, without the prefix.
    fn paths_after(&self, prefix: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let text = self.shipped();
        for (at, _) in text.match_indices(prefix) {
            // Not the end of a longer word or path.
            if !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c)) {
                found.extend(paths(&text[at + prefix.len()..]));
            }
        }
        found
    }

    /// Returns the modules that the file uses, other than itself.
    fn uses(&self, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let own: Vec<&str> = self.module.split("::").collect();
        let above =
            |levels: usize| own[..own.len().saturating_sub(levels)].iter().map(|name| format!("{name}::"));
        let of_main = self.module == "main" || self.top() == "bin";
        let mut paths: Vec<String> = Vec::new();
        // `main` is another crate, which uses the library.
        paths.extend(self.paths_after(if of_main { "transfer::" } else { "crate::" }));
        for (levels, prefix) in [(0, "self::"), (1, "super::"), (2, "super::super::")] {
            let room: String = above(levels).collect();
            paths.extend(self.paths_after(prefix).into_iter().map(|path| format!("{room}{path}")));
        }
        // A module names its children without a prefix.
        let children = modules.iter().filter(|name| {
            let child = name.strip_prefix(&format!("{}::", self.module));
            child.is_some_and(|child| {
                !child.contains("::") && !self.paths_after(&format!("{child}::")).is_empty()
            })
        });
        paths.extend(children.cloned());
        // The longest beginning of a path that is a module; the rest is an item in it.
        let module = |path: &String| {
            modules
                .iter()
                .filter(|name| {
                    path.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                })
                .max_by_key(|name| name.len())
                .cloned()
        };
        paths.iter().filter_map(module).filter(|used| *used != self.module).collect()
    }
}

/// Returns the paths of an import: `a::{b, c::{d, e}}` names `a::b`, `a::c::d` and `a::c::e`.
fn paths(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let word: String = text.chars().take_while(|c| is_word(*c)).collect();
    let Some(list) = text[word.len()..].strip_prefix('{').filter(|_| word.is_empty() || word.ends_with("::"))
    else {
        return vec![word.trim_end_matches(':').to_owned()];
    };
    let (mut depth, mut element, mut found) = (0, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut element));
                continue;
            }
            _ => {}
        }
        element.push(c);
    }
    found.push(element);
    let inner = found.iter().map(|element| element.trim()).filter(|element| !element.is_empty());
    inner.flat_map(paths).map(|path| format!("{word}{path}")).collect()
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
        let module = path_below.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        Source { module, path: path_below, text: code }
    };
    files.iter().map(source).collect()
}

/// Returns the modules.
fn modules() -> BTreeSet<String> {
    sources().into_iter().filter(|source| !source.is_test()).map(|source| source.module).collect()
}

/// Returns the dependencies between modules. `lib` is left out.
fn dependencies() -> BTreeSet<(String, String)> {
    let modules = modules();
    let mut found = BTreeSet::new();
    for source in sources().iter().filter(|source| source.module != "lib" && !source.is_test()) {
        found.extend(source.uses(&modules).into_iter().map(|used| (source.module.clone(), used)));
    }
    assert!(found.len() > 200, "they were not found: {found:?}");
    found
}

#[test]
fn dependencies_are_found_in_any_spelling() {
    let text = "use crate::{run::{a, b}, host::{self, c::d}, plan};\nuse super::wire::x;\nlet x = crate::verify::y; \
        child::z(); pub(crate) z; $crate::w; other::crate::v";
    let source = Source { module: "host::own".into(), path: "host/own.rs".into(), text: text.into() };
    let modules = [
        "run",
        "run::a",
        "host",
        "host::c",
        "host::own",
        "host::own::child",
        "host::wire",
        "plan",
        "verify",
        "w",
    ];
    let found = source.uses(&modules.map(ToOwned::to_owned).into());
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["host", "host::c", "host::own::child", "host::wire", "plan", "run", "run::a", "verify"]
    );
}

#[test]
fn module_list_matches_the_modules() {
    let listed = listed();
    let modules = modules();
    let unknown: Vec<&String> =
        listed.iter().map(|(name, _)| name).filter(|name| !modules.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/architecture.md lists modules that do not exist: {unknown:?}");
    let once: BTreeSet<&String> = listed.iter().map(|(name, _)| name).collect();
    assert_eq!(listed.len(), once.len(), "one is listed twice: {listed:?}");
    let is_of_the_library = |module: &&String| *module != "lib" && !module.starts_with("bin::");
    let missing: Vec<&String> =
        modules.iter().filter(is_of_the_library).filter(|module| row(&listed, module).is_none()).collect();
    assert!(missing.is_empty(), "docs/architecture.md does not list: {missing:?}");
}

#[test]
fn dependencies_point_only_down_the_list() {
    let listed = listed();
    let is_wrong = |(user, used): &(String, String)| match (row(&listed, user), row(&listed, used)) {
        (Some(user_row), Some(used_row)) => user_row > used_row,
        (None, _) => !user.starts_with("bin::"),
        (_, None) => true,
    };
    let wrong: Vec<String> = dependencies()
        .into_iter()
        .filter(is_wrong)
        .map(|(user, used)| format!("{user} uses {used}, which is not below it"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Modules of one room may use each other in one direction. A module and its own children are one subject.
#[test]
fn no_room_has_a_cycle() {
    let mut edges: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (user, used) in dependencies() {
        let (user, used): (Vec<&str>, Vec<&str>) = (user.split("::").collect(), used.split("::").collect());
        let common = user.iter().zip(&used).take_while(|(one, other)| one == other).count();
        // Both are below the common room, in different children of it.
        if common > 0 && user.len() > common && used.len() > common {
            let room = user[..common].join("::");
            edges.entry((room, user[common].to_owned())).or_default().insert(used[common].to_owned());
        }
    }
    assert!(edges.len() > 20, "{edges:?}");
    // What has no way out is taken away, until only cycles are left.
    loop {
        let users: BTreeSet<(String, String)> = edges.keys().cloned().collect();
        for ((room, _), used) in &mut edges {
            used.retain(|used| users.contains(&(room.clone(), used.clone())));
        }
        let before = edges.len();
        edges.retain(|_, used| !used.is_empty());
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "cycles: {edges:#?}");
}

/// Work emits progress; no other module knows or shows it.
#[test]
fn only_work_reports_progress() {
    let is_of = |module: &str, room: &str| module.split("::").next() == Some(room);
    let users =
        dependencies().into_iter().filter(|(user, used)| is_of(used, "progress") && !is_of(user, "progress"));
    let users: BTreeSet<String> =
        users.map(|(user, _)| user.split("::").next().unwrap().to_owned()).collect();
    assert_eq!(users, BTreeSet::from(["engine", "mariadb", "run"].map(ToOwned::to_owned)));
}

/// "One door to the hosts. Only `host/` starts processes or speaks SSH." The agent starts them on its own host.
#[test]
fn only_host_starts_processes_or_speaks_ssh() {
    for source in sources().iter().filter(|source| source.top() != "host") {
        for word in ["tokio::process", "openssh"] {
            assert!(!source.text.contains(word), "src/{} mentions {word}", source.path);
        }
    }
    for source in sources().iter().filter(|source| !["host", "agent"].contains(&source.top())) {
        for word in ["process::Command", "process::{", "fork("] {
            assert!(!source.shipped().contains(word), "src/{} starts processes: {word}", source.path);
        }
    }
}

/// `println!` panics when the terminal is gone, which would be in the middle of a run.
#[test]
fn no_print_macro_can_panic() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        for word in ["println!", "print!(", "dbg!", "eprint"] {
            assert!(!source.shipped().contains(word), "src/{} prints with {word}", source.path);
        }
    }
}

/// Modules that may write to the outputs: report and plan at the end, progress, the message after a second
/// signal, and the agent, whose output is a conversation.
#[test]
fn only_renderers_use_the_outputs() {
    let users: BTreeSet<String> = sources()
        .iter()
        .filter(|source| source.shipped().contains("io::stdout") || source.shipped().contains("io::stderr"))
        .map(|source| source.top().to_owned())
        .collect();
    let allowed = BTreeSet::from(["agent", "base", "bin", "main", "progress", "run"].map(ToOwned::to_owned));
    assert!(users.is_subset(&allowed), "{users:?}");
}
