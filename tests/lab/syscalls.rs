//! System calls of a run on a host: their order, and which data was on the disk at which time.
//!
//! A model of a disk reads a trace. It keeps only what was synced by name: data of a file with the file,
//! entries of a directory with the directory, everything with the file system. Real disks keep more.

use std::collections::HashMap;
use std::time::Duration;

use transfer::proto::HostBytes;
use transfer::proto::command::FromAgent;
use transfer::proto::frame;
use transfer::proto::journal::{Layer, Record, Undo, decode};

use crate::support::hosts::Host;
use crate::support::waiting::eventually;

/// Traced system calls: those that change a disk, wait for one, or start a program.
const CALLS: &str = "openat,fadvise64,chdir,fchdir,execve,write,pwrite64,sendfile,copy_file_range,ftruncate,fallocate,mkdir,mkdirat,mknodat,\
    link,linkat,symlink,symlinkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,chown,fchown,\
    lchown,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,fsync,fdatasync,syncfs,sync,sync_file_range";
/// System calls that create or remove an entry of a directory.
const ENTRIES: [&str; 10] =
    ["mkdir", "mkdirat", "mknodat", "unlink", "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat"];
/// End of the path of a journal.
const JOURNAL: &str = "/journal.bin";
/// System call by which the agent changes a mode. The C library, and so tar, makes another one.
const AGENTS_CHMOD: &str = "fchmodat";
/// Size of the length of a message.
const LENGTH: usize = 4;
const SOON: Duration = Duration::from_secs(20);

/// Traces the logins of a host until it is dropped.
pub(crate) struct Tracer {
    host: Host,
    /// File with the trace.
    file: String,
    /// Process of strace.
    pid: String,
}

/// Follows sshd: with the calls `$1`, into the file `$2`. Prints the pid of strace.
const FOLLOW: &str = r#"
    sshd=$(systemctl show -p MainPID --value ssh)
    setsid strace -f -y -s 4096 -e "$1" -o "$2" -p "$sshd" >/dev/null 2>&1 </dev/null &
    until grep -q "^TracerPid:.$!$" "/proc/$sshd/status"; do sleep 0.01; done
    echo $!"#;

impl Tracer {
    /// `file` is for the trace, on the host.
    #[track_caller]
    pub(crate) fn start(host: &Host, file: &str) -> Self {
        let pid = host.run(&["bash", "-ec", FOLLOW, "follow", CALLS, file]).expect_success().stdout;
        Self { host: host.clone(), file: file.to_owned(), pid: pid.trim().to_owned() }
    }

    /// Returns the calls of all logins.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<Call> {
        // The agent and its watchdog may end after the run.
        let agents = "transfer-agent serve|/proc/self/exe watchdog";
        let ended = || !self.host.run(&["pgrep", "-f", agents]).status.success();
        assert!(eventually(SOON, ended), "the agent does not end");
        parse(&self.host.sh(&format!(
            "kill {0}; while [[ -e /proc/{0} ]]; do sleep 0.01; done; cat '{1}'",
            self.pid, self.file
        )))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.host.run(&["kill", &self.pid]);
    }
}

/// One successful system call, with the lines of the trace at which it began and ended. Calls that depend on
/// those of another process come after them.
#[derive(Clone, Debug)]
pub(crate) struct Call {
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

    /// Returns the bytes that it writes, if it writes to a journal.
    fn record(&self) -> Option<Vec<u8>> {
        let is_it = self.name == "write" && self.paths.first().is_some_and(|path| path.ends_with(JOURNAL));
        is_it.then(|| unescaped(self.args.split_once('"').map_or("", |(_, text)| text)))
    }

    /// Whether the agent reports by it that it has carried out a command.
    fn is_word(&self) -> bool {
        let Some((_, text)) = self.args.split_once('"') else { return false };
        let is_output = self.name == "write"
            && ["1<pipe:", "1<socket:", "1<UNIX"].iter().any(|kind| self.args.starts_with(kind));
        let body = || unescaped(text).into_iter().skip(LENGTH).collect::<Vec<_>>();
        is_output && matches!(frame::decode(&body()), Ok(FromAgent::Reply { result: Ok(_), .. }))
    }

    /// Whether it starts a job.
    fn starts_job(&self) -> bool {
        self.name == "execve" && self.args.contains(r#"["transfer-agent", "job""#)
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

/// Returns the bytes of a text as strace shows them, up to its end.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next().filter(|byte| *byte != b'"') {
        bytes.push(match (byte, rest.peek()) {
            (b'\\', Some(b'0'..=b'7')) => {
                let mut value = 0u8;
                for _ in 0..3 {
                    let Some(digit) = rest.next_if(|digit| (b'0'..=b'7').contains(digit)) else { break };
                    value = value.wrapping_mul(8).wrapping_add(digit - b'0');
                }
                value
            }
            (b'\\', _) => match rest.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'r') => b'\r',
                Some(b'v') => 0x0b,
                Some(b'f') => 0x0c,
                other => other.unwrap_or_default(),
            },
            _ => byte,
        });
    }
    bytes
}

/// Parses the output of strace.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut directories: HashMap<String, String> = HashMap::new();
    // Pinned entries, by the number of the descriptor.
    let mut pinned: HashMap<String, String> = HashMap::new();
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
        if name == "openat" {
            if let Some((number, path)) = result.split_once('<').filter(|_| args.contains("O_PATH")) {
                pinned.insert(number.to_owned(), path.trim_end_matches('>').to_owned());
            }
            continue;
        }
        let mut paths = paths(name, &args, directories.get(pid).map_or("", String::as_str));
        for path in &mut paths {
            let pin = path.strip_prefix("/proc/self/fd/").and_then(|number| pinned.get(number));
            *path = pin.unwrap_or(path).clone();
        }
        if matches!(name, "chdir" | "fchdir") {
            directories.insert(pid.to_owned(), paths.first().cloned().unwrap_or_default());
        }
        calls.push(Call { name: name.to_owned(), args, paths, began, ended: at });
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

impl Pending {
    /// Whether the agent has changed a mode.
    fn is_mode(&self) -> bool {
        self.what.split('(').next() == Some(AGENTS_CHMOD)
    }
}

/// The model's disk, and the violations so far.
struct Disk<'a> {
    expected: &'a Expected,
    /// Directory of the agents' journals, and the name of this one.
    state: String,
    agent: String,
    pending: Vec<Pending>,
    changes: usize,
    /// Bytes of the journal.
    journal: Vec<u8>,
    /// Leases in it.
    leases: Vec<Undo>,
    /// Number of jobs that were started.
    jobs: usize,
    journal_is_gone: bool,
    is_placed: bool,
    /// Kinds of effects that were seen.
    seen: Vec<&'static str>,
    violations: Vec<String>,
}

/// Returns the violations of the order, and the kinds of effects that were seen.
pub(crate) fn violations(calls: &[Call], expected: &Expected) -> (Vec<String>, Vec<&'static str>) {
    let Some(header) = calls.iter().find(|call| call.record().is_some()) else {
        return (vec!["no agent has written a journal".into()], Vec::new());
    };
    let home = parent(&header.paths[0]);
    let state = parent(home).to_owned();
    let agent =
        home.strip_prefix(&format!("{state}/.new-")).expect("an agent begins under another name").to_owned();
    let mut disk = Disk {
        expected,
        state,
        agent,
        pending: Vec::new(),
        changes: 0,
        journal: Vec::new(),
        leases: Vec::new(),
        jobs: 0,
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

fn lease(record: Record) -> Option<Undo> {
    match record {
        Record::Lease(undo) => Some(undo),
        _ => None,
    }
}

fn is(path: &HostBytes, other: &str) -> bool {
    path.as_bytes() == other.as_bytes()
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

    /// Returns the path of the copy before it is published.
    fn copy(&self) -> Option<String> {
        let (_, name) = self.expected.target.as_ref()?;
        Some(format!("{}/copy/{name}", self.staging()?))
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
        let needs = self.needs(call);
        let is_word = call.is_word();
        for (effect, is_recorded) in &needs {
            self.seen.push(effect);
            if !is_recorded {
                self.violations.push(format!("{effect} without a record: {}", call.describe()));
            }
        }
        // Before the journal begins, nothing needs it.
        if is_word && !self.journal.is_empty() || !needs.is_empty() {
            self.require(call, "the journal", |disk, change| !disk.is_of_target(&change.path));
        }
        self.demand_of_the_copy(call, is_word);
    }

    /// Returns the effects of a call that need a record, and whether there is one.
    fn needs(&mut self, call: &Call) -> Vec<(&'static str, bool)> {
        let leases = &self.leases;
        let mut needs = Vec::new();
        let mut need = |effect, is_it: &dyn Fn(&Undo) -> bool| needs.push((effect, leases.iter().any(is_it)));
        if let Some(staging) = &self.staging() {
            if call.is(&["mkdir", "mkdirat"]) && call.paths == [staging.clone()] {
                need("staging", &|undo| matches!(undo, Undo::Staging { path, .. } if is(path, staging)));
            }
            if let [from, to] = &call.paths[..]
                && call.is_rename()
                && is_below(from, staging)
                && to.contains(".old-")
            {
                need("aside", &|undo| matches!(undo, Undo::Unpublished { path, .. } if is(path, to)));
            }
        }
        if call.name == "execve" && call.args.contains(r#"["nft", "-f""#) {
            need("rule", &|undo| matches!(undo, Undo::Rules { layer: Layer::Nftables, .. }));
        }
        if let (Some(copy), Some(destination)) = (self.copy(), self.destination())
            && call.name == AGENTS_CHMOD
            && call.paths == [copy]
        {
            need("mode", &|undo| matches!(undo, Undo::Mode { path, .. } if is(path, &destination)));
        }
        if call.starts_job() {
            self.jobs += 1;
            let leased = self.leases.iter().filter(|undo| matches!(undo, Undo::Job { .. })).count();
            needs.push(("job", leased >= self.jobs));
        }
        needs
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
                let is_loosened = |change: &Pending| change.path == *from && change.is_mode();
                self.require(call, "the copy", |_, change| {
                    is_below(&change.path, from) && !is_loosened(change)
                });
            }
        }
        // The page cache is dropped.
        if call.name == "fadvise64" && call.args.contains("POSIX_FADV_DONTNEED") && call.touches(&staging) {
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
                // The journal has the mode, until it ends.
                let is_restored = change.path == destination && change.is_mode();
                change.path == directory || is_below(&change.path, &destination) && !is_restored
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
            if let Some(bytes) = call.record() {
                if self.journal.is_empty() {
                    self.pend(parent(path), call);
                }
                self.journal.extend(bytes);
                let records = decode(&self.journal).map_or_else(|_| Vec::new(), |decoded| decoded.records);
                self.leases = records.into_iter().filter_map(lease).collect();
                self.pend(path, call);
            } else if is_entry && (is_below(&self.state, path) || *path == new) && !self.journal_is_gone {
                self.pend(parent(path), call);
            } else if self.is_of_target(path) && !call.is(&["execve", "chdir", "fchdir", "fadvise64"]) {
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
