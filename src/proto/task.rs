//! Tasks of jobs, as data: which programs and stages a job runs, and what an agent hands to it.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::HostBytes;
use super::files::{DigestKind, ListTask, Naming, NewOwner, Tree};
use super::job::{Meter, Program};
use super::secret::Secret;
use super::server::Login;

/// Task of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Runs a pipeline.
    Pipeline(Pipeline),
    /// Reads the metadata of the backup in this directory.
    Inspect(Place),
    /// Runs a command of the user before the copy.
    Hook(BeforeHook),
    /// Writes the lists of the held source.
    ListSource(ListTask),
    /// Writes the lists of the copy in the staging directory.
    ListCopy(ListTask),
    /// Writes a list of the paths of the held source that have changed since the run began.
    Changed(Tree),
    /// Removes the top directory of an unpacked archive, if it is the only entry.
    Strip {
        /// Name of the copy.
        name: HostBytes,
        /// How the copy gets its name.
        naming: Naming,
    },
    /// Reads an archive back from the disk and writes a digest file beside it.
    DigestArchive {
        /// Directory of the archive.
        place: Place,
        /// Name of the archive.
        name: HostBytes,
        /// Digest.
        digest: DigestKind,
        /// The archive and the digest file are synced.
        durable: bool,
    },
    /// Changes the owner of the copy.
    ChangeOwner {
        /// Name of the copy.
        name: HostBytes,
        /// New owner.
        owner: NewOwner,
        /// The change is synced.
        durable: bool,
    },
}

/// Directory in which a job works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Root directory.
    Root,
    /// Held source, a directory.
    Source,
    /// Held staging directory; or the directory of this name in it, unless the name is empty.
    Staging(HostBytes),
    /// Directory with this path.
    Path(HostBytes),
}

/// Stages connected by pipes, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Working directory.
    pub place: Place,
    /// Name to show for the working directory in messages of programs that call it `.`.
    pub called: Option<HostBytes>,
    /// Position of the stage that starts when the gate opens, while all others are started and connected. It ends
    /// without having run if the stage before it ends first.
    pub gate: Option<usize>,
    /// Bytes per second at which limited meters begin.
    pub rate: Option<NonZeroU64>,
    /// File in the working directory for the output of the last stage, which is discarded otherwise.
    pub into: Option<HostBytes>,
    /// Stages.
    pub stages: Vec<Stage>,
}

/// Stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Name under which the exit status is reported.
    pub name: Program,
    /// Work of the stage.
    pub run: Run,
}

/// Work of a stage: a program, or a thread of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// Program between two pipes.
    Program(Invocation),
    /// Counts the bytes that pass.
    Meter {
        /// Name of the counter.
        meter: Meter,
        /// Digest of the stream at this point.
        digest: Option<DigestKind>,
        /// The rate of the pipeline applies here.
        limited: bool,
    },
    /// Passes the stream on, and duplicates it into a program that is dropped when it stalls or ends.
    Sink {
        /// Number of the target.
        number: usize,
        /// Program that gets the duplicate.
        program: Invocation,
        /// Time in seconds after which a program that takes nothing has stalled.
        patience: u32,
    },
    /// Writes the contents of the held source, a file, and fails if they change.
    Read {
        /// Name for messages.
        name: HostBytes,
    },
}

/// Program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Name or path, searched for in the `PATH` of the login.
    pub program: HostBytes,
    /// Arguments.
    pub args: Vec<Word>,
    /// Use of standard error.
    pub stderr: Stderr,
    /// The program may change files below the staging directory only.
    pub confined: bool,
    /// Login that the program makes by itself, checked right before the program starts.
    pub login: Option<Login>,
}

/// Argument of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Bytes as they are.
    Literal(HostBytes),
    /// Path of the file of this name in the run's directory.
    RunFile(String),
    /// Path of the held source. The program inherits its descriptor.
    Source,
    /// Path of the held staging directory. The program inherits its descriptor.
    Staging,
    /// The key, as `fd:NUMBER` for `openssl -pass`. The program inherits a pipe that contains it.
    Key,
}

/// Use of a program's standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stderr {
    /// Complaints: the first lines are reported.
    Complaints,
    /// Log, which is watched: the last lines are reported.
    Log,
}

/// Hook that runs before the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeHook {
    /// Command.
    pub command: String,
    /// End of the run: `source`, `target` or `controller`.
    pub end: String,
    /// Name of the run.
    pub run: String,
    /// Source as typed.
    pub source: String,
    /// Targets as typed.
    pub targets: String,
}

/// First message of an agent to a job. The held descriptors come with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Directory of the run.
    pub directory: HostBytes,
    /// Niceness of the job; 0 leaves the priorities of its processes as they are.
    pub nice: u8,
    /// Task.
    pub task: Task,
    /// Key of the stream.
    pub key: Option<Secret>,
    /// Held descriptors, in their order.
    pub held: Vec<Held>,
}

/// Descriptor that an agent holds and passes to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Source.
    Source,
    /// Staging directory.
    Staging,
}

/// Further message of an agent to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Opens the gate.
    OpenGate,
    /// Sets the rate of limited meters, in bytes per second; `None` for no limit.
    Rate(Option<NonZeroU64>),
}

impl Invocation {
    /// Creates an unconfined program that complains on standard error.
    #[must_use]
    pub fn new<T: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = T>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(|arg| Word::Literal(arg.as_ref().into())).collect(),
            stderr: Stderr::Complaints,
            confined: false,
            login: None,
        }
    }
}

impl Pipeline {
    /// Returns whether the standard error of a program is a log.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.stages.iter().any(|stage| match &stage.run {
            Run::Program(program) | Run::Sink { program, .. } => program.stderr == Stderr::Log,
            Run::Meter { .. } | Run::Read { .. } => false,
        })
    }
}

impl Stage {
    /// Creates a stage of a program whose status has no meaning of its own.
    #[must_use]
    pub fn other(name: &str, program: Invocation) -> Self {
        Self { name: Program::Other(name.to_owned()), run: Run::Program(program) }
    }
}
