//! Tests of the discovery of servers and of the choice of sockets for logins. The scripts run here, without a
//! server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{COMMON, SERVER, Script, TRUST};

/// A process that reports when it is ready, and is killed when it is dropped.
struct Process(Child);

impl Process {
    /// Runs a perl script and waits until it is ready.
    fn perl(script: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new("perl")
            .args([
                "-MFcntl",
                "-MSocket",
                "-e",
                &format!("$| = 1; {script}; print qq(ready\\n); sleep 60"),
                "--",
            ])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs `main` with the functions about servers, and returns its output.
fn run(main: &str, arguments: &[&str]) -> String {
    let main = format!("main() {{ {main}\n}}\n");
    let words: Vec<_> = arguments.iter().map(|word| word.as_bytes().to_vec()).collect();
    let script = Script::new(&[COMMON, TRUST, SERVER, &main], &words);
    let mut bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap();
    output.split_once("begin\n").unwrap().1.to_owned()
}

/// Returns a perl script that opens its first argument in a mode and locks it.
fn lock(mode: &str, kind: &str) -> String {
    format!(
        "open($f, q({mode}), $ARGV[0]) or die; $l = pack(q(s s x4 q q l x4), {kind}, 0, 0, 0, 0); \
         fcntl($f, F_SETLK, $l) or die"
    )
}

#[test]
fn locked_or_writable_file_marks_directory_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ibdata1");
    std::fs::write(&file, "").unwrap();
    let served = || run("is_served \"$1\" && echo yes || echo no", &[directory.path().to_str().unwrap()]);
    assert_eq!(served(), "no\n");
    for (script, expected) in [
        (lock("+<", "F_WRLCK"), "yes\n"),
        ("open($f, q(+<), $ARGV[0]) or die".to_owned(), "yes\n"),
        (lock("<", "F_RDLCK"), "no\n"),
        // Neither the name nor the working directory of a process shows that it serves.
        ("$0 = q(mysqld); $ARGV[0] =~ s{/[^/]*$}{}; chdir $ARGV[0] or die".to_owned(), "no\n"),
    ] {
        let _holder = Process::perl(&script, &[&file]);
        assert_eq!(served(), expected, "{script}");
    }
    assert_eq!(served(), "no\n");
}

#[test]
fn classifies_paths_around_and_within_data() {
    let directory = tempfile::tempdir().unwrap();
    let above = directory.path().canonicalize().unwrap();
    let data = above.join("a b\n/data");
    std::fs::create_dir_all(data.join("shop")).unwrap();
    std::fs::create_dir_all(above.join(".transfer-x")).unwrap();
    for file in [data.join("aria_log_control"), above.join(".transfer-x/ibdata1")] {
        std::fs::write(&file, "").unwrap();
    }
    let holder = Process::perl(&lock("+<", "F_WRLCK"), &[&data.join("aria_log_control")]);
    let _staging = Process::perl(&lock("+<", "F_WRLCK"), &[&above.join(".transfer-x/ibdata1")]);
    let reported = |path: &Path| {
        run(
            "data_holders \"$1\" | while IFS= read -r line; do split \"$line\"; say \"${words[0]}\" \"${words[1]}\" \
             \"${words[3]}\" \"${words[7]}\"; done",
            &[path.to_str().unwrap()],
        )
    };
    let line = |relation: &str| {
        let shown = data.to_str().unwrap().replace('\n', "\\n");
        format!("{relation}\t{shown}\t{}\tlocked\n", holder.id())
    };
    assert_eq!(reported(&above), line("around"));
    assert_eq!(reported(&data), line("within"));
    assert_eq!(reported(&data.join("shop")), line("within"));
    assert_eq!(reported(Path::new("/proc")), "");
}

#[test]
fn forged_socket_name_matches_no_other_socket() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let socket = directory.path().join("s");
    let listen =
        "socket($s, AF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un($ARGV[0])) or die; listen $s, 9";
    let server = Process::perl(listen, &[&socket]);
    let held = std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
    let inode = held
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .find_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(ToOwned::to_owned))
        .unwrap();
    let evil = directory.path().join("evil");
    let _evil = Process::perl(listen, &[&evil]);
    // A relative name, because socket names are limited; the forged row in it has the path of the other
    // socket.
    let row = format!("x\n0: 00000002 00000000 00010000 0001 01 {inode} {}", evil.display());
    let forge = format!(
        "chdir $ARGV[1] or die; ($d) = $ARGV[0] =~ m{{^(.*)/}}s; $p = q(); \
         for (split m{{/}}, $d) {{ $p .= $_; mkdir $p; $p .= q(/) }} {listen}"
    );
    let _forged = Process::perl(&forge, &[Path::new(&row), directory.path()]);
    let chosen = run("socket_of '' \"$1\"; printf '%s' \"$REPLY\"", &[&server.id()]);
    assert_eq!(chosen, socket.to_str().unwrap());
}

#[test]
fn socket_on_shared_path_gets_no_login() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let listen =
        "socket($s, AF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un($ARGV[0])) or die; listen $s, 9";
    let (good, bad) = (directory.path().join("s"), open.join("s"));
    let _servers = [Process::perl(listen, &[&good]), Process::perl(listen, &[&bad])];
    let verdict = |socket: &Path| {
        run("vouch \"$1\" && echo yes || printf '%s\\n' \"$REPLY\"", &[socket.to_str().unwrap()])
    };
    assert_eq!(verdict(&good), "yes\n");
    assert_eq!(verdict(&bad), "yes\n");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&open, everybody).unwrap();
    let reported = verdict(&bad);
    assert!(
        reported.starts_with(&format!("no login to {}: others than its server", bad.display())),
        "{reported}"
    );
    let reported = verdict(&directory.path().join("none"));
    assert!(reported.contains("cannot connect to the server through"), "{reported}");
}
