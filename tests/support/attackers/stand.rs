//! Servers that are attacked.

use super::eve::Eve;
use crate::support::changes::Changed;
use crate::support::hosts::{Host, Lab};
use crate::support::output::Output;
use crate::support::scratch::Scratch;
use crate::support::servers::{Reserved, SERVED, SOCKET, configure};
use crate::support::waiting::eventually;

/// A password in an option file of root's, which no impostor may receive.
pub(crate) const SECRET: &str = "secret-of-root";

/// Hosts whose servers a test may change. At first, none of the servers runs.
pub(crate) struct Stand {
    // First: servers may use the directory of the test.
    _servers: Reserved,
    pub(crate) lab: Lab,
    pub(crate) scratch: Scratch,
}

impl Stand {
    #[track_caller]
    pub(crate) fn on(names: &[&str]) -> Option<Self> {
        let lab = Lab::get()?;
        let scratch = lab.scratch(names);
        let servers = Reserved::new(names.iter().map(|name| lab.host(name)).collect());
        Some(Self { _servers: servers, lab, scratch })
    }

    /// Hosts whose servers the test does not use.
    #[track_caller]
    pub(crate) fn without_servers(names: &[&str]) -> Option<Self> {
        let lab = Lab::get()?;
        let scratch = lab.scratch(names);
        Some(Self { _servers: Reserved::new(Vec::new()), lab, scratch })
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.lab.host(name)
    }

    pub(crate) fn eve(&self, name: &str) -> Eve {
        Eve::within(&self.host(name), &self.scratch)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    pub(crate) fn transfer(&self, arguments: &[&str]) -> Output {
        self.lab.transfer(arguments)
    }

    /// Configures and starts the server of a host.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, more: &str) -> Host {
        let host = self.host(name);
        self.configure(name, more);
        host.sh("systemctl restart mariadb");
        host
    }

    /// Writes an option file for the server of a host, with which it can be a primary and a replica.
    pub(crate) fn configure(&self, name: &str, more: &str) {
        let id = name[2..].parse().expect("a number");
        configure(&self.host(name), id, &format!("read_only=1\n{more}"));
    }

    /// Writes an option file of root's on a host, with a password that no server asks for.
    #[track_caller]
    pub(crate) fn secret(&self, name: &str) -> Changed {
        Changed::new(
            &self.host(name),
            &format!("(umask 077; printf '[client]\\npassword={SECRET}\\n' >/root/.my.cnf)"),
            "rm -f /root/.my.cnf",
        )
    }

    /// Creates a directory on a host.
    #[track_caller]
    pub(crate) fn directory(&self, name: &str, path: &str) -> String {
        let path = self.at(path);
        self.host(name).sh(&format!("mkdir -p {path}"));
        path
    }
}

/// Whether a host's own server answers.
pub(crate) fn answers(host: &Host) -> bool {
    answers_at(host, SOCKET)
}

/// Whether a server answers on a socket.
pub(crate) fn answers_at(host: &Host, socket: &str) -> bool {
    let socket = format!("--socket={socket}");
    eventually(SERVED, || host.run(&["mariadb", &socket, "-e", "SELECT 1"]).status.success())
}

/// Returns the main process of a unit.
#[track_caller]
pub(crate) fn main_pid(host: &Host, unit: &str) -> String {
    host.sh(&format!("systemctl show -p MainPID --value {unit}")).trim().to_owned()
}
