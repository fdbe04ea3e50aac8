//! Pipelines and their stages.

use crate::host::agent::{JobName, Program};
use crate::host::command::Word;

/// A job of the agent: stages connected by pipes, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pipeline {
    /// Name of the job in the agent's protocol.
    pub job: JobName,
    /// Working directory.
    pub directory: Word,
    /// Name to show for the working directory in messages of programs that call it `.`.
    pub called: Option<Word>,
    /// Index of the stage that waits for the agent's `open_gate`, while all others are started and connected.
    /// The stage also ends if the one before it ends first.
    pub gate: Option<usize>,
    /// Stages in order.
    pub stages: Vec<Stage>,
}

impl Pipeline {
    /// Returns the programs beside the stages, in order.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &Side> {
        self.stages.iter().filter_map(|stage| stage.side.as_ref())
    }
}

/// One program of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Name under which the exit status is reported.
    pub name: Program,
    /// Program and arguments.
    pub argv: Vec<Word>,
    /// Program that reads a duplicate of the stream from this stage.
    pub side: Option<Side>,
    /// The output is discarded, because the sinks already have it.
    pub discard: bool,
    /// File for the output, relative to the pipeline's directory.
    pub into: Option<Word>,
    /// Standard error is a log that is watched.
    pub log: bool,
    /// Descriptor of the agent that stays open for this stage.
    pub channel: Channel,
}

/// Descriptor of the agent that a program needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Channel {
    /// No descriptor.
    #[default]
    None,
    /// Descriptor 5, to which events are written.
    Events,
    /// Descriptor 6, from which the run's key is read.
    Key,
}

impl Channel {
    /// Returns the redirections that close the other descriptors of a command.
    #[must_use]
    pub(crate) fn close_others(self) -> &'static str {
        match self {
            Self::None => " 5>&- 6<&-",
            Self::Events => " 6<&-",
            Self::Key => " 5>&-",
        }
    }
}

/// Program beside the pipeline that reads from a named pipe in the agent's directory. The first word of its
/// output is the digest of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Name under which the exit status is reported; also the name of the pipe.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<Word>,
}

impl Stage {
    /// Returns a stage whose status has no meaning of its own.
    #[must_use]
    pub(crate) fn other(name: &str, argv: Vec<Word>) -> Self {
        Self::new(Program::Other(name.to_owned()), argv)
    }

    /// Returns a stage without a side.
    #[must_use]
    pub(crate) fn new(name: Program, argv: Vec<Word>) -> Self {
        Self { name, argv, side: None, discard: false, into: None, log: false, channel: Channel::None }
    }

    /// Returns the stage with a descriptor of the agent.
    #[must_use]
    pub(crate) fn with(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }
}
