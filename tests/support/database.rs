//! Database servers of this machine, each with a directory of its own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time for a server to start.
const LIMIT: Duration = Duration::from_secs(60);
/// Options that make servers small.
const SMALL: [&str; 3] =
    ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--skip-name-resolve"];

/// Server that runs until it is dropped. Its root has no password.
pub(crate) struct Database {
    directory: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Database {
    /// Starts servers with these numbers; `None` if no server is installed here. Root's servers run as
    /// `account`.
    pub(crate) fn all<const N: usize>(account: u32, numbers: [u32; N]) -> Option<[Self; N]> {
        Command::new("mariadbd").arg("--version").stdout(Stdio::null()).status().ok()?;
        let directories = numbers.map(|_| directory(account));
        let data = directories[0].path().join("data");
        let installed = of_account("mariadb-install-db", account)
            .args(SMALL)
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", directories[0].path().display()))
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        for directory in &directories[1..] {
            let copied = Command::new("cp").arg("-a").args([&data, directory.path()]).status();
            assert!(copied.unwrap().success());
        }
        let mut directories = directories.into_iter();
        Some(numbers.map(|number| Self::start(directories.next().unwrap(), account, number)))
    }

    fn start(directory: tempfile::TempDir, account: u32, number: u32) -> Self {
        // Free until another process of this machine takes it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut database = Self { directory, port, server: None };
        let options = database.options();
        fs::write(&options, "[client]\nuser=root\n").unwrap();
        fs::set_permissions(&options, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&options, Some(account), Some(account)).unwrap();
        let path = |option: &str, name: &str| format!("--{option}={}", database.path(name).display());
        // A server removes the temporary files of others from a common directory.
        let server = of_account("mariadbd", account)
            .args(SMALL)
            .args(["--log-bin=bin", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0"])
            .args([
                path("datadir", "data"),
                path("socket", "s.sock"),
                path("pid-file", "pid"),
                path("tmpdir", ""),
            ])
            .args([path("log-error", "log"), format!("--port={port}"), format!("--server-id={number}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        database.server = Some(server.unwrap());
        let start = Instant::now();
        while UnixStream::connect(database.socket()).is_err() {
            let log = || fs::read_to_string(database.path("log")).unwrap_or_default();
            assert!(start.elapsed() < LIMIT, "{}", log());
            thread::sleep(Duration::from_millis(50));
        }
        database
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s.sock")
    }

    /// File of options for logins as root.
    pub(crate) fn options(&self) -> PathBuf {
        self.path("my.cnf")
    }

    /// Port on 127.0.0.1.
    #[allow(dead_code, reason = "not for every test program")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn directory(account: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(account), Some(account)).unwrap();
    directory
}

fn of_account(program: impl AsRef<Path>, account: u32) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir("/").uid(account).gid(account).arg("--no-defaults");
    if account == 0 {
        command.arg("--user=root");
    }
    command
}
