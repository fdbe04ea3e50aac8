//! Fake host for the tests of this folder: its systemd, its client and what others say about it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use tempfile::TempDir;

use crate::proto::HostBytes;
use crate::proto::server::{Login, Threads};

use super::client::Client;
use super::programs::Programs;
use super::{Service, SharedComponent, Surroundings};
use crate::base::statement::literal;

/// Unit of the fake server.
pub(super) const UNIT: &str = "mariadb.service";

/// systemctl whose state are files: `active`, `fails`, `hangs`, `result`, `environment`.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd @DIR@ || exit
fail() { printf 'Job failed.\nSee the journal.\n' >&2; exit 1; }
case "$1 $*" in
is-active*) [ -e active ] ;;
is-failed*) [ -e fails ] ;;
cat*) echo 'ExecStart=/usr/sbin/mariadbd $MYSQLD_OPTS' ;;
*' -p Result '*) cat result 2>/dev/null || echo success ;;
*' -p Environment '*) cat environment 2>/dev/null ;;
show*) ;;
stop*) [ ! -e hangs ] || exec sleep 60; [ ! -e fails ] || fail; rm -f active ;;
start*) echo start >>systemctl; [ ! -e fails ] || fail
  cp units/mariadb.service.d/transfer.conf started-with 2>/dev/null; : >active ;;
*) echo "$1" >>systemctl ;;
esac
"#;

/// Client of a server that replicates: `replication` has its connections, `statements` what was executed.
const REPLICATING: &str = r#"#!/bin/sh
cd @DIR@ || exit
text=$(cat)
head='<?xml version="1.0"?>

<resultset statement="x" xmlns:xsi="y">'
value() { printf '%s<row><field name="x">%s</field></row></resultset>\n' "$head" "$1"; }
status() {
  printf '%s' "$head"
  while read -r name io sql; do
    plain=$(printf %s "$name" | sed "s/^'//; s/'\$//; s/''/'/g")
    error=; [ "$plain" != stuck ] || error=stuck
    printf '<row><field name="%s">%s</field><field name="%s_IO_Running">%s</field>' "$1" "$plain" "$2" "$io"
    printf '<field name="%s_SQL_Running">%s</field>' "$2" "$sql"
    printf '<field name="Last_SQL_Error">%s</field></row>' "$error"
  done <replication
  printf '</resultset>\n'
}
unknown() { echo 'ERROR 1064 (42000) at line 1: You have an error' >&2; exit 1; }
turn() {
  while read -r name io sql; do
    case $text in
    *stuck*) ;;
    *" $name"*IO_THREAD* | *IO_THREAD*" $name"*) io=$1 ;;
    *" $name"*SQL_THREAD* | *SQL_THREAD*" $name"*) sql=$1 ;;
    *" $name"*) io=$1 sql=$1 ;;
    esac
    echo "$name $io $sql"
  done <replication >replication.new
  mv replication.new replication
}
case $text in
'SELECT 1') ;;
'SELECT @@version') if [ -e mysql ]; then value 8.0.36; else value 10.11.6-MariaDB; fi ;;
'SELECT @@innodb_fast_shutdown') value 2 ;;
'SHOW ALL SLAVES STATUS') if [ -e mysql ]; then unknown; else status Connection_name Slave; fi ;;
'SHOW REPLICA STATUS') status Channel_Name Replica ;;
*)
  printf '%s\n' "$text" >>statements
  case $text in
  START*) turn Yes ;;
  STOP*) turn No ;;
  esac
  ;;
esac
"#;

/// Client that stays open. Each line is a word: the answer that it gives.
pub(super) const SESSION: &str = r#"#!/bin/sh
begin() { printf '<?xml version="1.0"?>\n\n<resultset statement="x" xmlns:xsi="y">'; }
row() { printf '\n  <row>\n\t<field name="f">%s</field>\n  </row>\n' "$1"; }
end() { echo '</resultset>'; }
trap 'echo INT >>@DIR@/log; exit 1' INT
while read -r verb value rest; do
  case $verb in
  one) begin; row "$value"; end ;;
  many) begin
    awk -v n="$value" 'BEGIN {
      for (i = 1; i <= n; i++) printf "<row><field name=\"f\">%020dx%d</field></row>", 0, i }'
    end ;;
  wide) begin; row "$(printf '%0300000d' 0)"; end ;;
  fail) echo 'ERROR 1146 (42S02) at line 1: no such table' >&2; exit 1 ;;
  sleep) sleep 60 & wait ;;
  SELECT) value=${value#\'}; begin; row "${value%\';}"; end ;;
  esac
done
"#;

/// Fake host.
pub(super) struct Fake {
    directory: TempDir,
    shared: Mutex<Vec<PathBuf>>,
    served: Mutex<Vec<PathBuf>>,
    listener: Mutex<Option<UnixListener>>,
    others: Mutex<Vec<Child>>,
}

/// Returns a login through a socket.
pub(super) fn login(socket: &(impl AsRef<OsStr> + ?Sized)) -> Login {
    Login { socket: HostBytes::from(socket), defaults_file: HostBytes::default() }
}

impl Surroundings for Fake {
    fn is_served(&self, datadir: &Path, _: Option<&str>) -> io::Result<bool> {
        Ok(self.served.lock().unwrap().iter().any(|path| path == datadir))
    }

    fn shared_component(&self, path: &Path, _: &[u32]) -> io::Result<Option<SharedComponent>> {
        let is_shared = self.shared.lock().unwrap().iter().any(|shared| shared == path);
        let component = || SharedComponent { path: "/shared".into(), owner: "eve".into(), mode: 0o1777 };
        Ok(is_shared.then(component))
    }
}

impl Fake {
    /// Creates a host with a server that is stopped, and without a client.
    pub(super) fn new() -> Self {
        let fake = Self {
            directory: tempfile::tempdir().unwrap(),
            shared: Mutex::default(),
            served: Mutex::default(),
            listener: Mutex::default(),
            others: Mutex::default(),
        };
        fs::create_dir(fake.path("bin")).unwrap();
        fake.program("systemctl", SYSTEMCTL);
        fake
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn service(&self) -> Service<'_> {
        Service {
            surroundings: self,
            programs: Programs::new(self.path("bin")),
            units: self.path("units"),
            plugins: self.path("plugins"),
        }
    }

    /// Adds a program.
    pub(super) fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        // Not over a file that another test's child may still have open for writing.
        let new = self.path("new");
        let directory = self.directory.path().display().to_string();
        fs::write(&new, script.replace("@DIR@", &directory)).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Adds a client of a server with these connections.
    pub(super) fn replicating(&self, connections: &[(&str, Threads)]) {
        self.program("mariadb", REPLICATING);
        let word = |runs| if runs { "Yes" } else { "No" };
        let line = |(name, threads): &(&str, Threads)| {
            format!("{} {} {}\n", literal(name), word(threads.io), word(threads.sql))
        };
        fs::write(self.path("replication"), connections.iter().map(line).collect::<String>()).unwrap();
    }

    /// Makes the server one of MySQL.
    pub(super) fn is_mysql(&self) {
        fs::write(self.path("mysql"), "").unwrap();
    }

    /// Returns the login of the server, which listens.
    pub(super) fn login(&self) -> Login {
        let path = self.path("s.sock");
        self.listener.lock().unwrap().get_or_insert_with(|| UnixListener::bind(&path).unwrap());
        login(&path)
    }

    pub(super) fn client(&self) -> Client {
        self.service().client(&self.login(), None).unwrap()
    }

    /// Makes a path replaceable for others.
    pub(super) fn share(&self, path: &Path) {
        self.shared.lock().unwrap().push(path.to_owned());
    }

    /// Makes a server work on a data directory.
    pub(super) fn serve(&self, path: &Path) {
        self.served.lock().unwrap().push(path.to_owned());
    }

    /// Listens on a socket as another account.
    pub(super) fn listen_as(&self, account: u32, path: &Path) {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let mut child = Command::new("perl")
            .args(["-e", "$| = 1; listen(STDIN, 5) or die; print 1; sleep 60"])
            .uid(account)
            .stdin(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        self.others.lock().unwrap().push(child);
    }

    /// Returns the statements that changed something.
    pub(super) fn statements(&self) -> Vec<String> {
        self.lines("statements")
    }

    /// Returns the commands of systemctl that changed something, without stops.
    pub(super) fn systemctl(&self) -> Vec<String> {
        self.lines("systemctl")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for child in self.others.get_mut().unwrap() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
