//! Units of systemd: properties that are read. Where systemd does not run, there are none.

use std::ffi::OsStr;

use super::tool::{Tool, ToolError};

/// Names that packages give to the units of servers.
pub(crate) const SERVER_UNITS: [&str; 6] = [
    "mariadb.service",
    "mysql.service",
    "mysqld.service",
    "mariadb@*.service",
    "mysql@*.service",
    "mysqld@*.service",
];

/// Returns a property of a unit; empty where there is none.
pub(crate) fn property(unit: &str, name: &str) -> Result<String, ToolError> {
    let output = systemctl(["show", "-p", name, "--value", "--", unit])?;
    Ok(output.map(|text| text.trim_end_matches('\n').to_owned()).unwrap_or_default())
}

/// Returns whether a unit has a file.
pub(crate) fn exists(unit: &str) -> Result<bool, ToolError> {
    Ok(systemctl(["cat", "--", unit])?.is_some())
}

/// Returns the accounts that units of servers name, and that a unit names that is in question.
pub(crate) fn server_users(unit: &str) -> Result<Vec<String>, ToolError> {
    let units = std::iter::once(unit).filter(|unit| !unit.is_empty()).chain(SERVER_UNITS);
    let output = systemctl(["show", "-p", "User", "--value", "--"].into_iter().chain(units))?;
    let output = output.unwrap_or_default();
    let mut users: Vec<String> =
        output.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Returns the units of servers that are running, by the names that packages give them.
pub(crate) fn running_servers() -> Result<Vec<String>, ToolError> {
    let properties = ["show", "-p", "Id", "-p", "ActiveState", "-p", "SubState", "--"];
    Ok(running(&systemctl(properties.into_iter().chain(SERVER_UNITS))?.unwrap_or_default()))
}

/// Returns the running units of a list of properties, in which an empty line separates units.
fn running(output: &str) -> Vec<String> {
    let mut units = Vec::new();
    for block in output.split("\n\n") {
        let value = |name: &str| {
            block
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        if let (Some(id), Some("active"), Some("running")) =
            (value("Id"), value("ActiveState"), value("SubState"))
        {
            units.push(id.to_owned());
        }
    }
    units.dedup();
    units
}

/// Returns the output; `None` when the program is not installed or fails.
fn systemctl<T: AsRef<OsStr>>(args: impl IntoIterator<Item = T>) -> Result<Option<String>, ToolError> {
    match Tool::new("systemctl").args(args).run() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(_) | Err(ToolError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_units_are_listed() {
        let output = "Id=mariadb.service\nActiveState=active\nSubState=running\n\nId=mysql.service\n\
            ActiveState=inactive\nSubState=dead\n\nId=mariadb@a.service\nActiveState=active\nSubState=running\n";
        assert_eq!(running(output), ["mariadb.service", "mariadb@a.service"]);
        assert!(running("").is_empty());
    }

    #[test]
    fn host_without_systemd_has_no_units() {
        if std::path::Path::new("/run/systemd/system").exists() {
            return;
        }
        assert_eq!(property("mariadb.service", "User").unwrap(), "");
        assert!(!exists("mariadb.service").unwrap());
        assert!(running_servers().unwrap().is_empty());
    }
}
