//! A pipeline and its stages.

use crate::host::command::Word;

/// A job of the agent: stages from left to right, each one's output the next one's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// The job's name in the agent's protocol.
    pub job: &'static str,
    /// Where it runs.
    pub directory: Word,
    /// The name of that directory in what its programs say, where they call it `.`.
    pub called: Option<Word>,
    /// The stage of this number, from 0, waits for the agent's `open_gate`; all others are started and connected by then. It ends
    /// when the one before it has ended without that.
    pub gate: Option<usize>,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// One program of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// By which its exit status is reported.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<Word>,
    /// What reads the duplicate that this stage writes.
    pub side: Option<Side>,
    /// The output is thrown away: everything went to the sides.
    pub discard: bool,
    /// The file that the output becomes, relative to the pipeline's directory.
    pub into: Option<Word>,
    /// What it says on standard error is its log, which is watched.
    pub log: bool,
    /// The descriptor of the agent's that it gets; the others are closed.
    pub channel: Channel,
}

/// A descriptor of the agent's that a program needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// None.
    #[default]
    None,
    /// Events go to descriptor 5.
    Events,
    /// The key of the run comes on descriptor 6.
    Key,
}

impl Channel {
    /// Closes the others, behind a command.
    #[must_use]
    pub fn close_others(self) -> &'static str {
        match self {
            Self::None => " 5>&- 6<&-",
            Self::Events => " 6<&-",
            Self::Key => " 5>&-",
        }
    }
}

/// A program beside the pipeline, fed through a named pipe in the agent's directory; its first word of output is the
/// stream's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// By which its exit status is reported, and the name of its pipe.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<Word>,
}

impl Stage {
    /// A stage without a side.
    #[must_use]
    pub fn new(name: &str, argv: Vec<Word>) -> Self {
        Self {
            name: name.to_owned(),
            argv,
            side: None,
            discard: false,
            into: None,
            log: false,
            channel: Channel::None,
        }
    }

    /// The same with a descriptor of the agent's.
    #[must_use]
    pub fn with(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }
}
