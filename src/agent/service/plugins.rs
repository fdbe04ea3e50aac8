//! Plugins that a client may load for a login. A server chooses the plugin, and one for clear text would hand
//! the password over; so a client finds those only that the administrator has permitted.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::proto::Text;

use super::Service;

/// Directory in which there can be no plugin.
const NO_PLUGINS: &str = "/dev/null/none";
/// Plugins that prove a password and never pass it on.
const CHALLENGES: [&str; 2] = ["client_ed25519", "parsec"];

/// Kind of plugins that a login may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugins {
    /// All permitted ones: the listener was checked.
    Any,
    /// Only permitted ones that pass no password on: anyone may answer.
    Challenge,
}

impl Service<'_> {
    /// Returns the directory of the plugins that a client may load.
    pub(crate) fn plugin_directory(&self, plugins: Plugins) -> PathBuf {
        if self.may_load(plugins) { self.plugins.clone() } else { NO_PLUGINS.into() }
    }

    fn may_load(&self, plugins: Plugins) -> bool {
        let Ok(entries) = fs::read_dir(&self.plugins) else { return false };
        let is_trusted = |path: &Path| matches!(self.surroundings.shared_component(path, &[]), Ok(None));
        let is_permitted = |path: &Path| {
            plugins == Plugins::Any
                || path.extension().is_some_and(|extension| extension == "so")
                    && path.file_stem().is_some_and(|stem| CHALLENGES.iter().any(|name| stem == *name))
        };
        is_trusted(&self.plugins)
            && entries.into_iter().all(|entry| {
                entry.is_ok_and(|entry| is_trusted(&entry.path()) && is_permitted(&entry.path()))
            })
    }

    /// Returns the additional arguments of a backup program, which logs in by itself. That of MariaDB takes
    /// the plugins of clients from there and loads no others during a backup; that of MySQL has clear text
    /// turned off.
    pub(crate) fn backup_arguments(&self, program: &Path) -> Vec<OsString> {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("mariadb-backup" | "mariabackup") => {
                vec![plugin_option(&self.plugin_directory(Plugins::Any))]
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the message of a client; where a plugin is missing, with the way to permit it in `directory`.
pub(super) fn explain(directory: &Path, plugins: Plugins, message: &str) -> Text {
    let Some(name) = missing_plugin(message) else { return Text::from(message) };
    if plugins == Plugins::Challenge && !CHALLENGES.contains(&name) {
        return Text::from(&format!(
            "the server asks for the password itself (by the plugin {name}), which never goes over the \
             network; use an account with ed25519 or mysql_native_password"
        ));
    }
    let file = plugin_file(name).unwrap_or_else(|| format!("PATH/{name}.so"));
    let directory = directory.display();
    Text::from(&format!(
        "the client's plugin {name}.so is not permitted for logins; to permit it on that host: \
         mkdir -p {directory} && ln -s {file} {directory}/"
    ))
}

/// Returns the option that names a directory of plugins.
pub(super) fn plugin_option(directory: &Path) -> OsString {
    let mut option = OsString::from("--plugin-dir=");
    option.push(directory);
    option
}

/// Returns the name of the plugin that a client has not found.
fn missing_plugin(message: &str) -> Option<&str> {
    ["Plugin ", "plugin "].iter().flat_map(|word| message.split(word).skip(1)).find_map(|rest| {
        let rest = rest.strip_prefix('\'').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let rest = rest.strip_prefix('\'').unwrap_or(rest);
        let is_missing =
            [" could not be loaded", " cannot be loaded"].iter().any(|end| rest.starts_with(end));
        (is_missing && !name.is_empty()).then_some(name)
    })
}

/// Returns where packages have put a plugin of clients.
fn plugin_file(name: &str) -> Option<String> {
    let below = |directory: &Path, part: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let entries = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(part));
        entries.map(|entry| entry.path()).collect()
    };
    let mut roots: Vec<PathBuf> = Vec::new();
    for directory in below(Path::new("/usr/lib"), "") {
        roots.extend(below(&directory, "libmariadb"));
        roots.push(directory.join("mysql"));
    }
    roots.extend(["/usr/lib/mysql", "/usr/lib64/mysql"].map(PathBuf::from));
    let files = roots.iter().map(|root| root.join("plugin").join(format!("{name}.so")));
    files.into_iter().find(|file| file.is_file()).map(|file| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::Fake;

    #[test]
    fn plugins_are_permitted_by_their_directory() {
        let fake = Fake::new();
        let service = fake.service();
        assert_eq!(service.plugin_directory(Plugins::Any), Path::new(NO_PLUGINS));
        fs::create_dir(fake.path("plugins")).unwrap();
        assert_eq!(service.plugin_directory(Plugins::Challenge), fake.path("plugins"));
        fs::write(fake.path("plugins/parsec.so"), "").unwrap();
        assert_eq!(service.plugin_directory(Plugins::Challenge), fake.path("plugins"));
        fs::write(fake.path("plugins/dialog.so"), "").unwrap();
        assert_eq!(service.plugin_directory(Plugins::Challenge), Path::new(NO_PLUGINS));
        assert_eq!(service.plugin_directory(Plugins::Any), fake.path("plugins"));
        fake.share(&fake.path("plugins/dialog.so"));
        assert_eq!(service.plugin_directory(Plugins::Any), Path::new(NO_PLUGINS));
    }

    #[test]
    fn backup_of_mariadb_alone_gets_the_directory() {
        let fake = Fake::new();
        let of = |program: &str| fake.service().backup_arguments(Path::new(program));
        assert_eq!(of("/usr/bin/mariabackup"), ["--plugin-dir=/dev/null/none"]);
        assert!(of("/usr/bin/xtrabackup").is_empty());
    }

    #[test]
    fn missing_plugins_are_explained() {
        let of = |plugins, text: &str| explain(Path::new("/etc/p"), plugins, text).to_string();
        let maria =
            "ERROR 2059 (HY000): Authentication plugin 'no_such_one' cannot be loaded: /dev/null/none/x.so";
        let text = of(Plugins::Any, maria);
        assert!(text.starts_with("the client's plugin no_such_one.so is not permitted"), "{text}");
        assert!(text.contains("ln -s PATH/no_such_one.so"), "{text}");
        let mysql = "ERROR 1 (HY000): Plugin caching_sha2_password could not be loaded: no";
        assert!(
            of(Plugins::Challenge, mysql)
                .contains("asks for the password itself (by the plugin caching_sha2")
        );
        assert!(of(Plugins::Challenge, "plugin 'parsec' cannot be loaded").contains("not permitted"));
        assert_eq!(of(Plugins::Any, "Access denied; plugin x"), "Access denied; plugin x");
    }
}
