//! System calls of a run on a host: their order, and which data was on the disk at which time.
//!
//! A model of a disk reads a trace. It keeps only what was synced by name: data of a file with the file,
//! entries of a directory with the directory, everything with the file system. Real disks keep more.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::changes::Wrapper;
use crate::support::hosts::Host;
use crate::support::waiting::eventually;

/// Traced system calls: those that change a disk, wait for one, or start a program.
const CALLS: &str = "chdir,fchdir,execve,write,pwrite64,sendfile,copy_file_range,ftruncate,fallocate,mkdir,mkdirat,mknodat,\
    link,linkat,symlink,symlinkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,chown,fchown,\
    lchown,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,fsync,fdatasync,syncfs,sync,sync_file_range";
/// System calls that create or remove an entry of a directory.
const ENTRIES: [&str; 10] =
    ["mkdir", "mkdirat", "mknodat", "unlink", "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat"];
const SOON: Duration = Duration::from_secs(20);

/// Traces the agents of a host until it is dropped: shells that are started like agents are started by
/// strace.
pub(crate) struct Tracer {
    host: Host,
    directory: String,
    _bash: Wrapper,
}

impl Tracer {
    /// `directory` is for the traces, on the host; it does not have to exist.
    #[track_caller]
    pub(crate) fn start(host: &Host, directory: &str) -> Self {
        host.sh(&format!("rm -rf '{directory}'; mkdir -m 1777 '{directory}'"));
        // The filter lets all other calls pass at their usual speed.
        let strace = format!("strace -f --seccomp-bpf -y -s 1000 -e '{CALLS}' -o '{directory}'/$$");
        let bash = Wrapper::new(
            host,
            "bash",
            &format!("[[ $* == '--norc -p -s' ]] && exec {strace} -- $real \"$@\""),
        );
        Self { host: host.clone(), directory: directory.to_owned(), _bash: bash }
    }

    /// Returns the calls of the only agent.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<Call> {
        let ended = || !self.host.run(&["pgrep", "-x", "strace"]).status.success();
        assert!(eventually(SOON, ended), "strace does not end");
        let of_agent = format!("grep -l '/journal>, \"transfer-journal' '{}'/*", self.directory);
        parse(&self.host.sh(&format!("set -- $({of_agent}); [[ $# == 1 ]]; cat \"$1\"")))
    }
}

/// One successful system call, with the lines of the trace at which it began and ended. Calls that depend on
/// those of another process come after them.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pid: String,
    name: String,
    args: String,
    /// Files that it names, as absolute paths.
    paths: Vec<String>,
    began: usize,
    ended: usize,
}

impl Call {
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync" | "syncfs" | "sync")
    }

    /// Text for messages.
    pub(crate) fn describe(&self) -> String {
        format!("{}({:.300})", self.name, self.args)
    }

    /// Whether it names a path at or below another one.
    pub(crate) fn touches(&self, path: &str) -> bool {
        self.paths.iter().any(|own| is_below(own, path))
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    fn is_rename(&self) -> bool {
        self.is(&["rename", "renameat", "renameat2"])
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Parses the output of strace.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut directories: HashMap<String, String> = HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (began, text) = if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, (at, begin));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((began, begin)) = unfinished.remove(pid) else { continue };
            (began, format!("{begin}{}", rest.split_once(" resumed>").expect("a call that goes on").1))
        } else {
            (at, rest.to_owned())
        };
        let (Some((name, behind)), Some((_, result))) = (text.split_once('('), text.rsplit_once(" = "))
        else {
            continue;
        };
        if result.starts_with(['-', '?']) {
            continue;
        }
        let args = behind.rsplit_once(" = ").map_or(behind, |(args, _)| args).trim_end();
        let args = args.strip_suffix(')').unwrap_or(args).to_owned();
        let paths = paths(name, &args, directories.get(pid).map_or("", String::as_str));
        if matches!(name, "chdir" | "fchdir") {
            directories.insert(pid.to_owned(), paths.first().cloned().unwrap_or_default());
        }
        calls.push(Call { pid: pid.to_owned(), name: name.to_owned(), args, paths, began, ended: at });
    }
    calls
}

/// Returns the paths in the arguments of a call: of descriptors, and of strings, which are relative to the
/// preceding descriptor or to the working directory of the process.
fn paths(name: &str, args: &str, directory: &str) -> Vec<String> {
    let mut paths = Vec::new();
    // For calls whose strings are data, or the arguments of a program.
    let only_descriptor = matches!(name, "write" | "pwrite64" | "execve");
    let mut base: Option<String> = None;
    let mut rest = args;
    while let Some(at) = rest.find(['<', '"']) {
        let (closing, is_path) = if rest[at..].starts_with('<') { ('>', true) } else { ('"', false) };
        let mut escaped = false;
        let inside = &rest[at + 1..];
        let end = inside.find(|c: char| {
            let ends = c == closing && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { break };
        let word = &inside[..end];
        rest = &inside[end + 1..];
        if is_path {
            paths.extend(base.take());
            base = word.starts_with('/').then(|| word.to_owned());
        } else if !only_descriptor {
            let from = base.take().unwrap_or_else(|| directory.to_owned());
            let word = word.strip_prefix("./").unwrap_or(word);
            paths.push(if word.starts_with('/') { word.to_owned() } else { format!("{from}/{word}") });
        }
        if only_descriptor && is_path {
            break;
        }
    }
    paths.extend(base);
    paths
}

/// Expected behaviour of the agent of a run on one host.
pub(crate) struct Expected {
    /// The target directory and the name of the copy; `None` on the source.
    pub(crate) target: Option<(String, String)>,
    /// `--no-fsync`, without an old copy that is removed: the copy is not synced.
    pub(crate) hasty: bool,
}

/// A change that may not be on the disk yet.
struct Pending {
    id: usize,
    /// The file that was changed, or the directory of the entry.
    path: String,
    /// Text for messages.
    what: String,
}

/// The model's disk, and the violations so far.
struct Disk<'a> {
    expected: &'a Expected,
    /// Directory of the agents' journals, and the name of this one.
    state: String,
    agent: String,
    /// The agent's process.
    pid: String,
    pending: Vec<Pending>,
    changes: usize,
    records: String,
    journal_is_gone: bool,
    is_placed: bool,
    /// Kinds of effects that were seen.
    seen: Vec<&'static str>,
    violations: Vec<String>,
}

/// Returns the violations of the order, and the kinds of effects that were seen.
pub(crate) fn violations(calls: &[Call], expected: &Expected) -> (Vec<String>, Vec<&'static str>) {
    let Some(header) =
        calls.iter().find(|call| call.name == "write" && call.args.contains("\"transfer-journal\\t1"))
    else {
        return (vec!["no agent has written a journal".into()], Vec::new());
    };
    let home = parent(&header.paths[0]);
    let state = parent(home).to_owned();
    let agent =
        home.strip_prefix(&format!("{state}/.new-")).expect("an agent begins under another name").to_owned();
    let calls = &through_descriptors(calls, expected, &agent);
    let mut disk = Disk {
        expected,
        state,
        agent,
        pid: header.pid.clone(),
        pending: Vec::new(),
        changes: 0,
        records: String::new(),
        journal_is_gone: false,
        is_placed: false,
        seen: Vec::new(),
        violations: Vec::new(),
    };
    // Each call has two times: its requirements have to be on the disk when it begins, its changes and syncs
    // count when it has ended, and a sync covers only changes that had ended when it began.
    let mut moments: Vec<(usize, bool, &Call)> =
        calls.iter().flat_map(|call| [(call.began, false, call), (call.ended, true, call)]).collect();
    moments.sort_by_key(|(at, is_end, _)| (*at, *is_end));
    let mut waits: HashMap<usize, Vec<usize>> = HashMap::new();
    for (_, is_end, call) in moments {
        match (is_end, call.is_sync()) {
            (false, true) => {
                let covered = disk.pending.iter().filter(|change| disk.covers(call, change));
                waits.insert(call.began, covered.map(|change| change.id).collect());
            }
            (true, true) => disk.pending.retain(|change| !waits[&call.began].contains(&change.id)),
            (false, false) => disk.demand(call),
            (true, false) => disk.change(call),
        }
    }
    (disk.violations, disk.seen)
}

/// Replaces the paths of directories that the agent reaches by descriptors.
fn through_descriptors(calls: &[Call], expected: &Expected, agent: &str) -> Vec<Call> {
    let mut calls = calls.to_vec();
    let Some((directory, _)) = &expected.target else { return calls };
    let staging = format!("{directory}/.transfer-{agent}");
    let held = [(13, format!("{staging}/copy")), (14, directory.clone()), (15, staging)];
    let held = held.map(|(number, path)| (format!("/proc/self/fd/{number}"), path));
    for path in calls.iter_mut().flat_map(|call| &mut call.paths) {
        if let Some((name, real)) = held.iter().find(|(name, _)| is_below(path, name)) {
            *path = format!("{real}{}", &path[name.len()..]);
        }
    }
    calls
}

impl Disk<'_> {
    fn home(&self) -> String {
        format!("{}/{}", self.state, self.agent)
    }

    /// Whether a path is in the target directory.
    fn is_of_target(&self, path: &str) -> bool {
        self.expected.target.as_ref().is_some_and(|(directory, _)| is_below(path, directory))
    }

    fn staging(&self) -> Option<String> {
        let (directory, _) = self.expected.target.as_ref()?;
        Some(format!("{directory}/.transfer-{}", self.agent))
    }

    fn destination(&self) -> Option<String> {
        self.expected.target.as_ref().map(|(directory, name)| format!("{directory}/{name}"))
    }

    /// Whether a sync covers a change.
    fn covers(&self, call: &Call, change: &Pending) -> bool {
        let path = call.paths.first().map_or("", String::as_str);
        match call.name.as_str() {
            "sync" => true,
            "syncfs" => self.is_of_target(path) == self.is_of_target(&change.path),
            _ => path == change.path,
        }
    }

    /// Checks the requirements of a call.
    fn demand(&mut self, call: &Call) {
        let home = self.home();
        let staging = self.staging();
        let mut needs: Vec<(&'static str, String)> = Vec::new();
        let mut is_word = false;
        if let Some(staging) = &staging {
            if call.is(&["mkdir"]) && call.paths == [staging.clone()] {
                needs.push(("staging", format!("tree\\tstaging\\t{staging}\\t")));
            }
            if let [_, to] = &call.paths[..]
                && call.is_rename()
                && to.contains(".old-")
                && !is_below(to, &self.state)
            {
                needs.push(("aside", format!("disk\\taside\\t{to}\\t")));
            }
        }
        if call.name == "execve" && call.args.contains("[\"nft\", \"-f\"") {
            needs.push(("rule", "boot\\trule\\tnftables\\t".into()));
        }
        if call.name == "execve"
            && let Some((_, job)) = call.args.rsplit_once("\"transfer-")
            && let Some((job, _)) = job.split_once("\"]")
            && job.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            needs.push(("job", format!("boot\\tjob\\t{home}/{job}.job\\t")));
        }
        if let Some(destination) = self.destination()
            && call.name == "fchmodat"
            && call.paths
                == [self.staging().unwrap_or_default() + "/copy" + &destination[parent(&destination).len()..]]
        {
            needs.push(("mode", format!("disk\\tmode\\t{destination}\\t")));
        }
        if call.pid == self.pid && call.name == "write" {
            let said = call.args.split_once(", \"").map_or("", |(_, said)| said);
            is_word = said.starts_with("!\\tready") || said.starts_with("=\\t") && said.contains("\\tok");
        }
        for (effect, record) in &needs {
            self.seen.push(effect);
            if !self.records.contains(&format!("lease\\t{record}")) {
                self.violations.push(format!("{effect} without a record: {}", call.describe()));
            }
        }
        if is_word || !needs.is_empty() {
            self.require(call, "the journal", |disk, change| !disk.is_of_target(&change.path));
        }
        self.demand_of_the_copy(call, is_word);
    }

    /// Checks the requirements of a call on the disk of the target.
    fn demand_of_the_copy(&mut self, call: &Call, is_word: bool) {
        let (Some(staging), Some(destination)) = (self.staging(), self.destination()) else { return };
        let directory = parent(&destination).to_owned();
        let hasty = self.expected.hasty;
        if let [from, to] = &call.paths[..]
            && call.is_rename()
            && is_below(to, &directory)
            && !is_below(to, &staging)
        {
            if *to == destination {
                self.seen.push("name");
            }
            if !hasty {
                // The mode that allows a directory to be moved is temporary.
                let is_loosened =
                    |change: &Pending| change.path == *from && change.what.starts_with("fchmodat(");
                self.require(call, "the copy", |_, change| {
                    is_below(&change.path, from) && !is_loosened(change)
                });
            }
        }
        if call.name == "execve" && call.args.contains("/drop.pl\"") {
            self.seen.push("reading");
            self.require(call, "what is to be read back", |_, change| is_below(&change.path, &staging));
        }
        let removes = call.is(&["unlink", "unlinkat", "rmdir"]);
        if removes && self.is_placed && call.touches(&staging) {
            self.seen.push("removal");
        }
        if self.is_placed && !hasty && (is_word || removes && call.touches(&staging)) && !self.journal_is_gone
        {
            // Removals in the staging directory concern only that directory, until it is removed itself.
            self.require(call, "the name", |_, change| {
                change.path == directory || is_below(&change.path, &destination)
            });
        }
        if call.is_rename() && call.paths.first().is_some_and(|path| *path == self.home()) {
            self.seen.push("end");
            if !(hasty && self.is_placed) {
                self.require(call, "what was undone", |disk, change| disk.is_of_target(&change.path));
            }
        }
    }

    fn require(&mut self, call: &Call, whose: &str, which: impl Fn(&Self, &Pending) -> bool) {
        if let Some(change) = self.pending.iter().find(|change| which(self, change)) {
            let violation =
                format!("{whose} is not on the disk ({}) before {}", change.what, call.describe());
            self.violations.push(violation);
        }
    }

    fn pend(&mut self, path: &str, call: &Call) {
        self.changes += 1;
        self.pending.push(Pending { id: self.changes, path: path.to_owned(), what: call.describe() });
    }

    /// Records the changes of a call.
    fn change(&mut self, call: &Call) {
        let new = format!("{}/.new-{}", self.state, self.agent);
        if call.is_rename() {
            self.rename(call);
            return;
        }
        for path in &call.paths {
            let is_entry = call.is(&ENTRIES);
            if path.starts_with("/proc/self/fd/") {
                // tar changes the directory that is its standard input.
                if let (Some(staging), Some((_, name))) = (self.staging(), &self.expected.target) {
                    self.pend(&format!("{staging}/copy/{name}"), call);
                }
            } else if call.name == "write" && path.ends_with("/journal") && is_below(path, &self.state) {
                if self.records.is_empty() {
                    self.pend(parent(path), call);
                }
                self.records.push_str(&call.args);
                self.pend(path, call);
            } else if is_entry && (is_below(&self.state, path) || *path == new) && !self.journal_is_gone {
                self.pend(parent(path), call);
            } else if self.is_of_target(path) && !call.is(&["execve", "chdir", "fchdir"]) {
                self.pend(if is_entry { parent(path) } else { path }, call);
                if call.name == "rmdir" || call.args.contains("AT_REMOVEDIR") {
                    // Its contents are gone with it.
                    self.pending.retain(|change| !is_below(&change.path, path));
                }
            }
        }
    }

    fn rename(&mut self, call: &Call) {
        let [from, to] = &call.paths[..] else { return };
        if *from == self.home() {
            self.journal_is_gone = true;
            return;
        }
        if !is_below(from, &self.state) && !self.is_of_target(from) {
            return;
        }
        self.is_placed |= self.destination().as_ref() == Some(to);
        let exchange = call.args.contains("RENAME_EXCHANGE");
        for change in &mut self.pending {
            let moved = |a: &str, b: &str| {
                is_below(&change.path, a).then(|| format!("{b}{}", &change.path[a.len()..]))
            };
            let path = moved(from, to).or_else(|| moved(to, from).filter(|_| exchange));
            change.path = path.unwrap_or_else(|| change.path.clone());
        }
        self.pend(parent(from), call);
        self.pend(parent(to), call);
    }
}
