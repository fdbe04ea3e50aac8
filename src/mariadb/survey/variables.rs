//! Global variables of a server.

use std::collections::BTreeMap;

use super::fields::{bytes, rows, shown};
use super::{LIMIT, fact};
use crate::host::conversation::AgentError;
use crate::mariadb::client::LoginError;
use crate::mariadb::sql::Server;
use crate::proto::HostBytes;
use crate::proto::server::ResultSet;

/// Variables that a run needs.
const NAMES: [&str; 18] = [
    "bind_address",
    "binlog_expire_logs_seconds",
    "datadir",
    "have_ssl",
    "innodb_buffer_pool_size",
    "innodb_data_home_dir",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "log_bin",
    "log_bin_basename",
    "log_slave_updates",
    "port",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "server_id",
    "skip_networking",
    "version",
    "wsrep_on",
];

/// Values of the variables.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// Names of all of them, as they are shown.
    pub(super) shown: BTreeMap<String, String>,
    /// Data directory.
    pub(super) datadir: HostBytes,
    /// Beginning of the paths of the binary log; empty without one.
    pub(super) binlog: HostBytes,
}

impl Variables {
    /// Asks a server for its variables.
    pub(super) async fn ask(server: &Server<'_>) -> Result<Result<Self, LoginError>, AgentError> {
        Ok(fact(server.query(LIMIT, &statement()).await)?.map(|sets| Self::read(&sets)))
    }

    /// Reads rows of names and values. Others than those that were asked for are ignored.
    fn read(sets: &[ResultSet]) -> Self {
        let mut variables = Self::default();
        for row in rows(sets) {
            let Some(name) = NAMES.into_iter().find(|name| name.as_bytes() == bytes(row, 0)) else {
                continue;
            };
            let value = bytes(row, 1);
            match name {
                "datadir" => variables.datadir = value.to_vec().into(),
                "log_bin_basename" => variables.binlog = value.to_vec().into(),
                _ => {}
            }
            variables.shown.insert(name.to_owned(), shown(value));
        }
        variables
    }
}

fn statement() -> String {
    format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('{}')", NAMES.join("', '"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::survey::fields::samples::{assert_harmless, hostile, row, set};

    #[test]
    fn known_variables_are_read() {
        assert!(statement().contains("('bind_address', 'binlog_expire_logs_seconds', "), "{}", statement());
        let rows = vec![
            row(["version", "10.11.6-MariaDB"]),
            vec![Some(HostBytes::from("datadir")), Some(b"/srv/\xff/".to_vec().into())],
            row(["log_bin_basename", "/srv/bin"]),
            vec![Some(HostBytes::from("port")), None],
            row(["other", "x"]),
        ];
        let variables = Variables::read(&[set(rows)]);
        assert_eq!(variables.datadir.as_bytes(), b"/srv/\xff/");
        assert_eq!(variables.binlog, HostBytes::from("/srv/bin"));
        let shown: Vec<String> =
            variables.shown.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            ["datadir=/srv/\\xff/", "log_bin_basename=/srv/bin", "port=", "version=10.11.6-MariaDB"]
        );
    }

    #[test]
    fn hostile_server_fills_nothing() {
        let names = NAMES.into_iter().cycle().take(5000).map(|name| row([name, &hostile()]));
        let others = (0..5000).map(|n| row([&format!("v{n}"), "x"]));
        let variables = Variables::read(&[set(names.chain(others).collect())]);
        assert_eq!(variables.shown.len(), NAMES.len());
        variables.shown.values().for_each(|value| assert_harmless(value));
    }
}
