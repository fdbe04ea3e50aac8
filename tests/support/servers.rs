//! MariaDB servers on hosts of the lab. After each test they are as the package has installed them.

use std::time::Duration;

use super::changes::Changed;
use super::hosts::Host;

/// Limit for a server to start, and for a replica to catch up.
pub(crate) const SERVED: Duration = Duration::from_secs(60);
/// Socket of a host's own server.
pub(crate) const SOCKET: &str = "/run/mysqld/mysqld.sock";

/// Keeps a copy of the package's data.
const KEEP: &str = "[[ -d /var/lib/mysql.package ]] || cp -a /var/lib/mysql /var/lib/mysql.package";
/// Stops all servers, and restores the package's data and configuration. By a copy: what is on the root file
/// system that hosts share cannot be exchanged.
pub(crate) const PUT_BACK: &str = "
    systemctl stop mariadb.socket mariadb 'mariadb@*' 2>/dev/null || :; pkill -KILL -x mariadbd || :
    systemctl reset-failed mariadb 'mariadb@*' 2>/dev/null || :
    rm -rf /var/lib/mysql /etc/mysql/mariadb.conf.d/99-lab.cnf; cp -a --sparse=always /var/lib/mysql.package /var/lib/mysql";

/// Stops the servers of a host, and restores the data of the package.
#[track_caller]
pub(crate) fn put_back(host: &Host) {
    host.sh(&format!("{KEEP}\n{PUT_BACK}"));
}

/// Hosts whose servers a test may change until this is dropped. At first, no server runs there.
pub(crate) struct Reserved(Vec<Host>);

impl Reserved {
    #[track_caller]
    pub(crate) fn new(hosts: Vec<Host>) -> Self {
        // Also before a test: another test may have been killed.
        hosts.iter().for_each(put_back);
        Self(hosts)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        for host in &self.0 {
            host.run(&["bash", "-c", PUT_BACK]);
        }
    }
}

/// Writes an option file for the server of a host, with which it can be a primary and a replica.
pub(crate) fn configure(host: &Host, id: u8, more: &str) {
    let text = format!(
        "[mysqld]\nserver_id={id}\nlog_bin=mysql-bin\nlog_slave_updates=1\nbind-address=0.0.0.0\n\
         skip-name-resolve\ninnodb_log_file_size=16M\n{more}\n"
    );
    host.put(text, "/etc/mysql/mariadb.conf.d/99-lab.cnf", 0o644);
}

/// Starts another server on a host, as an instance of the package's unit, with its undo log elsewhere.
#[track_caller]
pub(crate) fn second(host: &Host) -> Changed {
    Changed::new(
            host,
            "mkdir -p /srv/two && chown mysql: /srv/two
             printf '[mariadbd.two]\\ndatadir=/srv/two\\nsocket=/run/mysqld/two.sock\\nport=3307\\npid-file=/run/mysqld/two.pid\\n\
             innodb_undo_directory=/srv/two/undo\\n' >/etc/mysql/mariadb.conf.d/98-two.cnf
             mkdir -p /srv/two/undo; chown mysql: /srv/two/undo
             mariadb-install-db --user=mysql --datadir=/srv/two --skip-test-db >/dev/null 2>&1
             systemctl start mariadb@two
             mariadb --socket=/run/mysqld/two.sock -e 'CREATE DATABASE second; CREATE TABLE second.t (a INT); INSERT INTO second.t VALUES (2)'",
            "systemctl stop mariadb@two; rm -rf /srv/two /etc/mysql/mariadb.conf.d/98-two.cnf",
        )
}

/// Runs statements on a host's server.
#[track_caller]
pub(crate) fn sql(host: &Host, statements: &str) -> String {
    host.command(&["mariadb", "--batch", "--skip-column-names"])
        .stdin(statements)
        .run()
        .expect_success()
        .stdout
}
