//! Servers on hosts of the lab that were as they came with the package, and are so again afterwards.

use std::time::Duration;

use crate::fixtures::Changed;
use crate::harness::{Host, Lab, Output, Scratch, eventually};
use crate::impostor::Eve;

/// Enough for a server to start.
const SERVED: Duration = Duration::from_secs(60);
/// The socket of a host's own server.
pub(crate) const SOCKET: &str = "/run/mysqld/mysqld.sock";
/// What root's own file of options says, and what no impostor may hear.
pub(crate) const SECRET: &str = "secret-of-root";

/// What the package brought is kept as the tests of the lab keep it. After a test that was killed it is put back first.
const KEEP: &str = "[[ -d /var/lib/mysql.package ]] || cp -a /var/lib/mysql /var/lib/mysql.package
    used=; [[ ! -e /run/attacks-used ]] || used=yes; touch /run/attacks-used; [[ $used ]] || exit 0";
const PUT_BACK: &str = "
    systemctl stop mariadb.socket mariadb 'mariadb@*' 2>/dev/null || :; pkill -KILL -x mariadbd || :
    systemctl reset-failed mariadb 'mariadb@*' 2>/dev/null || :
    rm -rf /var/lib/mysql /etc/mysql/mariadb.conf.d/99-lab.cnf; cp -a --sparse=always /var/lib/mysql.package /var/lib/mysql";

/// Some hosts, whose servers this test has for itself. None of them runs.
pub(crate) struct Stand {
    pub(crate) lab: Lab,
    pub(crate) scratch: Scratch,
    hosts: Vec<Host>,
}

impl Stand {
    #[track_caller]
    pub(crate) fn on(names: &[&str]) -> Option<Self> {
        let lab = Lab::get()?;
        let scratch = lab.scratch(names);
        let hosts: Vec<Host> = names.iter().map(|name| lab.host(name)).collect();
        for host in &hosts {
            host.sh(&format!("{KEEP}\n{PUT_BACK}"));
        }
        Some(Self { lab, scratch, hosts })
    }

    /// Hosts whose servers are not looked at.
    #[track_caller]
    pub(crate) fn without_servers(names: &[&str]) -> Option<Self> {
        let lab = Lab::get()?;
        let scratch = lab.scratch(names);
        Some(Self { lab, scratch, hosts: Vec::new() })
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.lab.host(name)
    }

    pub(crate) fn eve(&self, name: &str) -> Eve {
        Eve::on(&self.host(name), &self.scratch)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    pub(crate) fn transfer(&self, arguments: &[&str]) -> Output {
        self.lab.transfer(arguments)
    }

    /// Starts the server of a host, by its unit.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, more: &str) -> Host {
        let host = self.host(name);
        self.configure(name, more);
        host.sh("systemctl restart mariadb");
        host
    }

    /// A file of options for the server of a host, as a primary and as a replica.
    pub(crate) fn configure(&self, name: &str, more: &str) {
        let id = &name[2..];
        let text = format!(
            "[mysqld]\nserver_id={id}\nlog_bin=mysql-bin\nlog_slave_updates=1\nbind-address=0.0.0.0\nread_only=1\n\
             skip-name-resolve\ninnodb_log_file_size=16M\n{more}\n"
        );
        self.host(name).put(text, "/etc/mysql/mariadb.conf.d/99-lab.cnf", 0o644);
    }

    /// Root's file of options on a host, with a password that no server asks for.
    #[track_caller]
    pub(crate) fn secret(&self, name: &str) -> Changed {
        Changed::new(
            &self.host(name),
            &format!("(umask 077; printf '[client]\\npassword={SECRET}\\n' >/root/.my.cnf)"),
            "rm -f /root/.my.cnf",
        )
    }

    /// A directory on a host.
    #[track_caller]
    pub(crate) fn directory(&self, name: &str, path: &str) -> String {
        let path = self.at(path);
        self.host(name).sh(&format!("mkdir -p {path}"));
        path
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.run(&["bash", "-c", &format!("{PUT_BACK}; rm -f /run/attacks-used")]);
        }
    }
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

/// Whether a host's own server answers.
pub(crate) fn answers(host: &Host) -> bool {
    answers_at(host, SOCKET)
}

/// Whether a server answers there.
pub(crate) fn answers_at(host: &Host, socket: &str) -> bool {
    let socket = format!("--socket={socket}");
    eventually(SERVED, || host.run(&["mariadb", &socket, "-e", "SELECT 1"]).status.success())
}

/// The main process of a unit.
#[track_caller]
pub(crate) fn main_pid(host: &Host, unit: &str) -> String {
    host.sh(&format!("systemctl show -p MainPID --value {unit}")).trim().to_owned()
}
