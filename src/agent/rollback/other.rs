//! Journals of other versions of this program: the agent that wrote one is still beside it, and rolls it back.
//!
//! Every version can be started as `transfer-agent clean AGENT [start-servers] [forget-hooks]`. It rolls back the
//! journal of that agent, and prints a line for each lease: `undone TEXT`, `left TEXT`, `kept TEXT` or `forgotten TEXT`.
//! Nothing else here depends on another version.

use std::path::Path;
use std::time::Duration;

use super::{Hooks, MayStart, Policy};
use crate::agent::state::{self, PROGRAM};
use crate::agent::tool::Tool;
use crate::proto::Text;
use crate::proto::name::AgentName;
use crate::proto::status::{OtherUndo, RollbackEvent};

/// Word that lets a rollback start servers and run hooks.
const START_SERVERS: &str = "start-servers";
/// Word that lets a rollback forget hooks that have not run.
const FORGET_HOOKS: &str = "forget-hooks";
/// Time limit: the removal of a large copy may take long.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Lets the agent beside a journal roll it back. The caller has released the lock of the journal.
pub(super) fn roll_back(
    directory: &Path,
    agent: &AgentName,
    policy: Policy,
) -> Result<Vec<RollbackEvent>, Text> {
    // Nobody else can have put a program there.
    state::open_owned(directory).map_err(|error| Text::from(&error))?;
    let tool = Tool::new(directory.join(PROGRAM)).args(["clean", agent.as_str()]).limit(LIMIT);
    let output = tool.args(words(policy)).run().map_err(|error| Text::from(&error))?;
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let events: Vec<RollbackEvent> = lines.filter_map(|line| event(agent, line)).collect();
    if events.is_empty() && !output.status.success() {
        return Err(output.last_words());
    }
    Ok(events)
}

fn words(policy: Policy) -> impl Iterator<Item = &'static str> {
    let start = (policy.may_start == MayStart::All).then_some(START_SERVERS);
    let forget = (policy.hooks == Hooks::Forget).then_some(FORGET_HOOKS);
    start.into_iter().chain(forget)
}

/// Returns the limits of a rollback from its words.
pub(crate) fn policy(words: &[&[u8]]) -> Policy {
    let has = |word: &str| words.contains(&word.as_bytes());
    Policy {
        may_start: if has(START_SERVERS) { MayStart::All } else { MayStart::None },
        hooks: if has(FORGET_HOOKS) { Hooks::Forget } else { Hooks::Run },
        ..Policy::OTHERS
    }
}

/// Returns the line of an event for other versions; `None` if they need not know of it.
pub(crate) fn line(event: &RollbackEvent) -> Option<String> {
    Some(match event {
        RollbackEvent::Undone { undo, .. } => format!("undone {undo}"),
        RollbackEvent::Left { undo, reason, .. } if reason.is_empty() => format!("left {undo}"),
        RollbackEvent::Left { undo, reason, .. } => format!("left {undo} ({reason})"),
        RollbackEvent::Kept { path, .. } => format!("kept {path}"),
        RollbackEvent::Forgotten { hook, .. } => format!("forgotten {}", Text::new(&hook.command)),
        RollbackEvent::Failed { reason, .. } => format!("left journal ({reason})"),
        RollbackEvent::Live { .. } | RollbackEvent::Foreign(_) | RollbackEvent::Other { .. } => return None,
    })
}

fn event(agent: &AgentName, line: &[u8]) -> Option<RollbackEvent> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let result = match &line[..space] {
        b"undone" => OtherUndo::Undone,
        b"left" => OtherUndo::Left,
        b"kept" => OtherUndo::Kept,
        b"forgotten" => OtherUndo::Forgotten,
        _ => return None,
    };
    Some(RollbackEvent::Other { agent: agent.clone(), result, lease: Text::new(&line[space + 1..]) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn agent_of_another_version_rolls_back() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("r-target1");
        state::create(&directory).unwrap();
        let program = directory.join(PROGRAM);
        let script = "#!/bin/sh\necho \"undone $*\"\necho 'left port 4400'\necho rubbish\nexit 1\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let agent = AgentName::new("r-target1").unwrap();
        let policy = Policy { hooks: Hooks::Forget, may_start: MayStart::All, ..Policy::OTHERS };
        let other = |result, text: &str| RollbackEvent::Other {
            agent: agent.clone(),
            result,
            lease: Text::new(text),
        };
        let events = roll_back(&directory, &agent, policy).unwrap();
        let words = "clean r-target1 start-servers forget-hooks";
        assert_eq!(events, [other(OtherUndo::Undone, words), other(OtherUndo::Left, "port 4400")]);
        fs::write(&program, "#!/bin/sh\necho unknown >&2\nexit 1\n").unwrap();
        assert_eq!(roll_back(&directory, &agent, policy), Err(Text::new("unknown")));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(roll_back(&directory, &agent, policy).is_err(), "others can write there");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for may_start in [MayStart::All, MayStart::None] {
            for hooks in [Hooks::Run, Hooks::Forget] {
                let expected = Policy { may_start, hooks, ..Policy::OTHERS };
                let words: Vec<&[u8]> = words(expected).map(str::as_bytes).collect();
                assert_eq!(policy(&words), expected);
            }
        }
    }
}
