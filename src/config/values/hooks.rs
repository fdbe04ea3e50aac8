//! Commands of the user that run before and after a run.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Command that runs on one end of a run, before or after everything else there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Phase of the run.
    pub phase: Phase,
    /// End of the run.
    pub end: HookEnd,
    /// Command for bash.
    pub command: String,
}

/// Phase of a run in which a hook is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before anything is changed on that end
    Before,
    /// After everything else is rolled back
    After,
}

/// End of a run on which a hook is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// On the source
    Source,
    /// On each target
    Target,
    /// On the controller
    Controller,
}

impl HookEnd {
    /// Word in the name of a phase.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Controller => "controller",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Before => "before",
            Phase::After => "after",
        };
        write!(f, "{phase}-{}", self.end.name())
    }
}

impl Hook {
    fn new(name: &str, command: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{name}': expected before-source, before-target, before-controller, after-source, \
                 after-target or after-controller"
            )
        };
        let (phase, end) = name.split_once(['-', '_']).ok_or_else(wrong)?;
        let phase = match phase {
            "before" => Phase::Before,
            "after" => Phase::After,
            _ => return Err(wrong()),
        };
        let ends = [HookEnd::Source, HookEnd::Target, HookEnd::Controller];
        let end = ends.into_iter().find(|known| known.name() == end).ok_or_else(wrong)?;
        if command.trim().is_empty() || command.contains('\0') {
            return Err(format!("{name}: the command is missing"));
        }
        Ok(Self { phase, end, command: command.to_owned() })
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, command) = word.split_once('=').ok_or("expected PHASE=COMMAND")?;
        Self::new(name, command)
    }
}

/// Deserializes a table of phases with one command or a list of them; or one word, as on the command line.
pub(crate) fn from_hooks<'de, D>(deserializer: D) -> Result<Option<Vec<Hook>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Commands {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Hooks {
        Word(String),
        Table(BTreeMap<String, Commands>),
    }
    let custom = serde::de::Error::custom::<String>;
    match Hooks::deserialize(deserializer) {
        Ok(Hooks::Word(word)) => word.parse().map(|hook| Some(vec![hook])).map_err(custom),
        Ok(Hooks::Table(table)) => {
            let mut hooks = Vec::new();
            for (name, commands) in table {
                let commands = match commands {
                    Commands::One(command) => vec![command],
                    Commands::Many(commands) => commands,
                };
                for command in commands {
                    hooks.push(Hook::new(&name, &command).map_err(custom)?);
                }
            }
            Ok(Some(hooks))
        }
        Err(_) => Err(custom("expected a table of phases and their commands".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_have_a_phase_an_end_and_a_command() {
        let hook: Hook = "before-source=depool a=b".parse().unwrap();
        assert_eq!((hook.phase, hook.end), (Phase::Before, HookEnd::Source));
        assert_eq!(hook.command, "depool a=b");
        assert_eq!(hook.to_string(), "before-source");
        for word in ["", "before-source", "before-source=", "before=x", "during-source=x", "after-all=x"] {
            assert!(word.parse::<Hook>().is_err(), "{word}");
        }
    }
}
