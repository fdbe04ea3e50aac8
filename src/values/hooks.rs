//! Commands of the user's, before and after the work.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A command that runs on an end of a run, before or after all else there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub phase: Phase,
    /// Where.
    pub end: HookEnd,
    /// A command of bash.
    pub command: String,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before anything is changed there
    Before,
    /// When everything else is undone
    After,
}

/// Where a hook runs.
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
    /// As it stands in its phase's name.
    #[must_use]
    pub fn name(self) -> &'static str {
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
                "'{name}' is none of before-source, before-target, before-controller, after-source, after-target and \
                 after-controller"
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
            return Err(format!("{name}: there is no command"));
        }
        Ok(Self { phase, end, command: command.to_owned() })
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, command) = word.split_once('=').ok_or("it is no PHASE=COMMAND")?;
        Self::new(name, command)
    }
}

/// For serde: a table of phases, each with a command or a list of them; or one word, as on the command line.
pub fn from_hooks<'de, D>(deserializer: D) -> Result<Option<Vec<Hook>>, D::Error>
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
        Err(_) => Err(custom("it is no table of phases with their commands".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_a_phase_an_end_and_a_command() {
        let hook: Hook = "before-source=depool a=b".parse().unwrap();
        assert_eq!((hook.phase, hook.end), (Phase::Before, HookEnd::Source));
        assert_eq!(hook.command, "depool a=b");
        assert_eq!(hook.to_string(), "before-source");
        for word in ["", "before-source", "before-source=", "before=x", "during-source=x", "after-all=x"] {
            assert!(word.parse::<Hook>().is_err(), "{word}");
        }
    }
}
