use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::agent::accounts::Login;

/// Process that holds a file open, and perhaps locked.
struct Holding(Child);

impl Holding {
    /// Starts a process that opens a file and waits until its input ends.
    fn start(file: &Path, mode: &str, is_locked: bool) -> Option<Self> {
        let script = r#"
            use Fcntl; $| = 1; my ($file, $mode, $lock) = @ARGV;
            open(my $open, $mode, $file) or die;
            if ($lock) { fcntl($open, F_SETLK, pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0)) or die }
            print "ready\n"; <STDIN>;"#;
        let mut child = Command::new("perl")
            .args(["-e", script])
            .arg(file)
            .args([mode, if is_locked { "1" } else { "" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        Some(Self(child)).filter(|_| line == "ready\n")
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn servers() -> Servers {
    Servers::new(Login::of_agent(None))
}

fn holders(path: &Path) -> Vec<Holder> {
    data_holders(Some(&path.canonicalize().unwrap())).unwrap()
}

#[test]
fn open_file_makes_a_holder_within_and_around() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir_all(data.join("shop")).unwrap();
    let file = OpenOptions::new().create(true).append(true).open(data.join("ibdata1")).unwrap();
    for (path, relation, datadir) in [
        (&data, Relation::Within, &data),
        (&data.join("shop"), Relation::Within, &data),
        (&directory.path().to_owned(), Relation::Around, &data),
    ] {
        let found = holders(path);
        assert_eq!(found.len(), 1, "{}", path.display());
        assert_eq!((found[0].relation, found[0].pid), (Some(relation), Some(std::process::id())));
        assert_eq!(&found[0].datadir, &datadir.canonicalize().unwrap());
        assert!(found[0].is_here && !found[0].is_locked);
    }
    assert!(servers().is_served(&data, None).unwrap());
    assert!(!servers().is_served(&data, Some("mariadb.service")).unwrap());
    assert!(!servers().is_served(&data.join("shop"), None).unwrap(), "only the directory itself is served");
    let near = servers().near(&data, &[Relation::Within]).unwrap();
    assert_eq!((near.servers.len(), near.others.len()), (1, 0));
    drop(file);
    assert!(holders(&data).is_empty());
    assert!(!servers().is_served(&data, None).unwrap());
    assert!(!servers().is_served(&data.join("missing"), None).unwrap());
}

#[test]
fn readers_other_names_and_removed_files_hold_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("ibdata1"), "").unwrap();
    fs::write(path("aria_log_control"), "").unwrap();
    let _reader = File::open(path("ibdata1")).unwrap();
    let _other = File::create(path("ibdata2")).unwrap();
    let _removed = OpenOptions::new().append(true).open(path("aria_log_control")).unwrap();
    fs::remove_file(path("aria_log_control")).unwrap();
    assert!(holders(directory.path()).is_empty());
}

#[test]
fn staged_data_is_no_server_around() {
    let directory = tempfile::tempdir().unwrap();
    let staged = directory.path().join(".transfer-run/copy");
    fs::create_dir_all(&staged).unwrap();
    let _file = File::create(staged.join("ibdata1")).unwrap();
    assert!(holders(directory.path()).is_empty());
    assert_eq!(holders(&staged).len(), 1);
}

#[test]
fn lock_names_the_process_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ibdata1");
    fs::write(&file, "").unwrap();
    let Some(holding) = Holding::start(&file, "+<", true) else { return };
    let found = holders(directory.path());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].pid, found[0].is_locked), (Some(holding.pid()), true));
    let all = data_holders(None).unwrap();
    assert!(all.iter().any(|holder| holder.pid == Some(holding.pid()) && holder.relation.is_none()));
    let serving = servers().serving().unwrap();
    assert!(serving.iter().all(|serving| serving.pid != holding.pid()), "it does not listen");
    drop(holding);
    assert!(holders(directory.path()).is_empty());
}

#[test]
fn other_mount_of_a_directory_is_recognized() {
    let directory = tempfile::tempdir().unwrap();
    let (data, bound) = (directory.path().join("data"), directory.path().join("bound/here"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&bound).unwrap();
    if !Command::new("mount").arg("--bind").args([&data, &bound]).status().unwrap().success() {
        return;
    }
    let file = File::create(data.join("ibdata1")).unwrap();
    let around = holders(bound.parent().unwrap());
    let within = holders(&bound);
    drop(file);
    assert!(Command::new("umount").arg(&bound).status().unwrap().success());
    assert_eq!(within[0].relation, Some(Relation::Within));
    assert_eq!(around[0].relation, Some(Relation::Around));
    assert_eq!(around[0].datadir, bound.canonicalize().unwrap());
}

#[test]
fn fifos_and_links_are_neither_opened_nor_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    assert!(Command::new("mkfifo").arg(path("ibdata1")).status().unwrap().success());
    std::os::unix::fs::symlink("ibdata1", path("aria_log_control")).unwrap();
    assert!(holders(directory.path()).is_empty());
}
