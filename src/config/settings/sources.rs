//! Sources of options besides the command line: our configuration file (TOML), transferpy's (INI), a profile
//! in the file, and the environment. Every error names its place, and in a file the line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, FileFormat};
use serde::Deserialize as _;

use super::SettingsError;
use crate::base::printable::printable;
use crate::base::trust::{self, Readers};
use crate::config::options::Options;

/// Prefix of environment variables.
const PREFIX: &str = "TRANSFER_";
/// Prefixes of variables that belong to tests and to hooks.
const NOT_OURS: [&str; 2] = ["TRANSFER_LAB", "TRANSFER_HOOK_"];
/// Section that only transferpy's file has.
const OLD_SECTION: &str = "DEFAULT";

/// Places of options.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Default path of our configuration.
    pub own: PathBuf,
    /// Path of transferpy's configuration, read if ours does not exist.
    pub old: PathBuf,
    /// Environment variables that begin with `TRANSFER_`.
    pub environment: Vec<(String, OsString)>,
}

impl Sources {
    /// Sources of this machine and process.
    #[must_use]
    pub fn real() -> Self {
        let ours = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        let is_ours =
            |name: &str| name.starts_with(PREFIX) && !NOT_OURS.iter().any(|not| name.starts_with(not));
        Self {
            own: "/etc/transfer/transfer.conf".into(),
            old: "/etc/transferpy/transferpy.conf".into(),
            environment: std::env::vars_os().filter_map(ours).filter(|(name, _)| is_ours(name)).collect(),
        }
    }

    /// Returns the environment over the profile over the file. `file` and `profile` come from the command
    /// line.
    pub(super) fn layers(
        &self,
        file: Option<&Path>,
        profile: Option<&str>,
    ) -> Result<Options, SettingsError> {
        let given = |name: &str| self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let file = file.map(Path::to_owned).or_else(|| given("TRANSFER_CONFIG").map(PathBuf::from));
        let profile = match profile {
            Some(profile) => Some(profile.to_owned()),
            None => given("TRANSFER_PROFILE").map(|profile| profile.to_string_lossy().into_owned()),
        };
        // A file that exists but cannot be read is an error.
        let is_there = |path: &&PathBuf| path.try_exists().unwrap_or(true);
        let file = file.or_else(|| [&self.own, &self.old].into_iter().find(is_there).cloned());
        let mut below = match &file {
            Some(path) => read(path)?,
            None => Options::default(),
        };
        let mut profiles = std::mem::take(&mut below.profile);
        if let Some(name) = profile {
            let variant = profiles.remove(&name).ok_or_else(|| {
                let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
                let place = match &file {
                    Some(path) if known.is_empty() => format!("{} has no profiles", path.display()),
                    Some(path) => format!("{} has {}", path.display(), known.join(", ")),
                    None => "there is no configuration file".into(),
                };
                SettingsError::Profile {
                    name: printable(name.as_bytes()),
                    place: printable(place.as_bytes()),
                }
            })?;
            below = variant.over(below);
        }
        Ok(self.variables()?.over(below))
    }

    fn variables(&self) -> Result<Options, SettingsError> {
        let mut all = Config::builder();
        for (name, value) in &self.environment {
            if matches!(name.as_str(), "TRANSFER_CONFIG" | "TRANSFER_PROFILE") {
                continue;
            }
            let wrong = |text: String| SettingsError::Variable {
                name: name.clone(),
                text: printable(text.as_bytes()),
            };
            let value = value.to_str().ok_or_else(|| wrong("not UTF-8".into()))?;
            let key = name[PREFIX.len()..].to_ascii_lowercase();
            if key == "profile" {
                return Err(wrong("no such option".into()));
            }
            one(&key, value).map_err(wrong)?;
            all = all.set_override(&key, value).map_err(|error| wrong(error.to_string()))?;
        }
        let all = all.build().and_then(Config::try_deserialize);
        all.map_err(|error| SettingsError::Variable {
            name: format!("{PREFIX}…"),
            text: printable(error.to_string().as_bytes()),
        })
    }
}

/// Parses one key alone, so that an error can be attributed to it.
fn one(key: &str, value: &str) -> Result<Options, String> {
    let alone = Config::builder()
        .set_override(key, value)
        .and_then(config::ConfigBuilder::<config::builder::DefaultState>::build);
    alone.and_then(Config::try_deserialize).map_err(|error| {
        let text = error.to_string();
        if text.contains("unknown field") { "no such option".into() } else { text }
    })
}

/// Checks an SSH configuration file, which may name commands. ssh checks only the user's own file.
pub(super) fn check_ssh(path: &Path) -> Result<(), SettingsError> {
    // ssh's word for no file.
    if path == Path::new("none") {
        return Ok(());
    }
    trust::check(path).map_err(|error| SettingsError::Ssh { path: path.to_owned(), text: error.with_fix() })
}

/// Reads a file of either format.
fn read(path: &Path) -> Result<Options, SettingsError> {
    let wrong =
        |text: String| SettingsError::File { path: path.to_owned(), text: printable(text.as_bytes()) };
    let text = trust::read(path, Readers::Any).map_err(|error| wrong(error.with_fix()))?;
    if text.lines().any(|line| line.trim() == format!("[{OLD_SECTION}]")) {
        return read_old(&text).map_err(wrong);
    }
    let file = toml::Deserializer::parse(&text).and_then(Options::deserialize).map_err(|error| {
        let message = error.message();
        // The list of all keys would fill the screen.
        let message = message.split(", expected one of").next().unwrap_or(message);
        let message = message.replace("unknown field", "unknown key");
        wrong(match error.span() {
            Some(span) => {
                let line = text[..span.start].matches('\n').count();
                format!(
                    "line {} ({}): {message}",
                    line + 1,
                    text.lines().nth(line).unwrap_or_default().trim()
                )
            }
            None => message,
        })
    })?;
    match file.profile.iter().find(|(_, profile)| !profile.profile.is_empty()) {
        Some((name, _)) => Err(wrong(format!("[profile.{name}]: profiles cannot be nested"))),
        None => Ok(file),
    }
}

/// Parses transferpy's INI: one section, `transfer_type` for `type`, and Python's words for true and false.
fn read_old(text: &str) -> Result<Options, String> {
    const KEYS: [&str; 8] = [
        "port",
        "transfer_type",
        "compress",
        "encrypt",
        "checksum",
        "parallel_checksum",
        "stop_slave",
        "verbose",
    ];
    let file = Config::builder()
        .add_source(config::File::from_str(text, FileFormat::Ini))
        .build()
        .map_err(|error| error.to_string())?;
    let section = file.get_table(OLD_SECTION).map_err(|error| error.to_string())?;
    let mut all = Config::builder();
    for (key, value) in section {
        let value = value.to_string();
        let line = |line: &str| line.split(['=', ':']).next().is_some_and(|word| word.trim() == key);
        let place = match text.lines().position(line) {
            Some(line) => format!("line {} ({key})", line + 1),
            None => key.clone(),
        };
        if !KEYS.contains(&key.as_str()) {
            return Err(format!("{place}: unknown key"));
        }
        let ours = if key == "transfer_type" { "type" } else { &key };
        one(ours, &value).map_err(|error| format!("{place}: {error}"))?;
        all = all.set_override(ours, value).map_err(|error| error.to_string())?;
    }
    all.build().and_then(Config::try_deserialize).map_err(|error| error.to_string())
}
