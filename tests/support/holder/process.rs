//! Processes as `/proc` shows them.

use std::fs;

use nix::unistd::Pid;

/// Name of the agent's program.
const AGENT: &str = "transfer-agent";

/// Kind of agent, by the first argument of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Serve,
    Watchdog,
    Job,
}

impl Role {
    /// All kinds.
    pub(crate) const ALL: &[Self] = &[Self::Serve, Self::Watchdog, Self::Job];
}

/// Program of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Name under which it was started, up to 15 characters; that of a script, not of its interpreter.
    pub(crate) name: String,
    /// Name of its file: of a script, that of the interpreter.
    pub(crate) file: String,
    /// Arguments, with the name of the program: of a script, with interpreter and script.
    pub(crate) args: Vec<String>,
}

impl Program {
    /// Returns the program that a process has just become.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let file = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let file = file.file_name()?.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
        let args = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let args = args.strip_suffix(b"\0").unwrap_or(&args).split(|&byte| byte == 0);
        Some(Self { name, file, args: args.map(|arg| String::from_utf8_lossy(arg).into_owned()).collect() })
    }

    /// Returns the kind of agent that it is.
    pub(super) fn role(&self) -> Option<Role> {
        match self.args.get(1)?.as_str() {
            _ if self.file != AGENT => None,
            "serve" => Some(Role::Serve),
            "watchdog" => Some(Role::Watchdog),
            "job" => Some(Role::Job),
            _ => None,
        }
    }
}

/// Numbers that `/proc/PID/status` gives for a thread.
pub(crate) struct Status {
    pub(crate) process: Pid,
    pub(crate) parent: Pid,
    tracer: Pid,
    /// Number in each of its namespaces, the innermost last.
    pub(crate) namespaces: Vec<u32>,
}

impl Status {
    pub(crate) fn of(thread: Pid) -> Option<Self> {
        let text = fs::read(format!("/proc/{thread}/status")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = |name: &str| Some(Pid::from_raw(field(name)?.trim().parse().ok()?));
        Some(Self {
            process: number("Tgid")?,
            parent: number("PPid")?,
            tracer: number("TracerPid")?,
            namespaces: field("NSpid")?.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        })
    }
}

/// Returns the thread that traces a process, if there is one.
pub(crate) fn tracer_of(pid: Pid) -> Option<Pid> {
    Status::of(pid).map(|status| status.tracer).filter(|tracer| tracer.as_raw() != 0)
}
