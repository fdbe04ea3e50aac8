//! Tests of lock files.

use std::os::unix::fs::symlink;

use rustix::process::geteuid;

use super::*;

struct Host {
    scratch: tempfile::TempDir,
    directories: Directories,
}

fn host() -> Host {
    let scratch = tempfile::tempdir().unwrap();
    let directories = Directories::at(scratch.path().join("state"), scratch.path().join("run"));
    Host { scratch, directories }
}

impl Host {
    fn take(&self, name: &str) -> Result<Lock, LockError> {
        Lock::take(&self.directories, name, Wait::No)
    }
}

/// Makes a file older than a stale lock file.
fn age(path: &Path) {
    let old = SystemTime::now() - STALE - Duration::from_secs(2);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

#[test]
fn held_lock_names_its_run() {
    let host = host();
    let mut lock = host.take("port.1").unwrap();
    let agent = AgentName::new("20261120-231502-9f3c1a-target1").unwrap();
    lock.sign(&agent, &Text::new("a longer controller")).unwrap();
    lock.sign(&agent, &Text::new("ctl (pid 7)")).unwrap();
    let Err(LockError::Held { holder: text }) = host.take("port.1") else { panic!() };
    assert!(text.as_str().starts_with("run 20261120-231502-9f3c1a of ctl (pid 7), since 20"), "{text}");
    assert!(text.as_str().ends_with(" UTC"));
    assert_eq!(holder(&host.directories, "port.1"), Some(text));
    assert_eq!(holder(&host.directories, "port.2"), None);
    lock.remove();
    assert!(!host.directories.runtime().join("port.1").exists());
    host.take("port.1").unwrap();
    assert_eq!(holder(&host.directories, "port.1"), None);
}

#[test]
fn lock_of_a_removed_file_is_not_taken() {
    let host = host();
    let lock = host.take("port.1").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Lock::take(&host.directories, "port.1", PATIENCE).unwrap());
        lock.remove();
        let second = waiting.join().unwrap();
        assert!(flock::is_at(&second.file, &second.path));
    });
}

#[test]
fn free_leaves_the_lock_of_another_run() {
    let host = host();
    let lock = host.take("server.1").unwrap();
    free(lock.path());
    assert!(lock.path().exists());
    let path = lock.path().to_owned();
    drop(lock);
    free(&path);
    assert!(!path.exists());
    free(&path);
    free(Path::new("/nonexistent/server.1"));
}

#[test]
fn locks_are_taken_in_own_directories_only() {
    let host = host();
    let other = host.scratch.path().join("other");
    fs::create_dir(&other).unwrap();
    symlink(&other, host.directories.runtime()).unwrap();
    assert!(matches!(host.take("port.1"), Err(LockError::Runtime(_))));
    fs::remove_file(host.directories.runtime()).unwrap();
    fs::create_dir(host.directories.runtime()).unwrap();
    symlink(other.join("file"), host.directories.runtime().join("port.1")).unwrap();
    assert!(matches!(host.take("port.1"), Err(LockError::Open { .. })));
    if geteuid().is_root() {
        std::os::unix::fs::chown(host.directories.runtime(), Some(65534), None).unwrap();
        assert!(matches!(host.take("port.2"), Err(LockError::Runtime(StateError::Owner { uid: 65534, .. }))));
        assert_eq!(holder(&host.directories, "port.1"), None);
    }
}

#[test]
fn stale_locks_are_removed_if_no_process_holds_them() {
    let host = host();
    let [held, stale, fresh] = ["port.1", "target.a.2.b", "server.a.3"].map(|name| host.take(name).unwrap());
    let others = host.directories.runtime().join("others");
    fs::write(&others, "").unwrap();
    [held.path(), stale.path(), &others].into_iter().for_each(age);
    let (stale_path, fresh_path) = (stale.path().to_owned(), fresh.path().to_owned());
    drop((stale, fresh));
    remove_stale(&host.directories);
    assert!(held.path().exists() && others.exists() && fresh_path.exists() && !stale_path.exists());
}

#[test]
fn names_of_locks_are_those_of_the_shell_version() {
    let directory = FileId { device: 0xfd01, inode: 42 };
    assert_eq!(name_lock(directory, &"mysql".into()), "target.fd01.42.430005175c4c7810");
    assert_eq!(server_lock(directory), "server.fd01.42");
    let host = host();
    let name = Lock::of_name(&host.directories, directory, &"mysql".into(), Wait::No).unwrap();
    let server = Lock::of_server(&host.directories, directory, Wait::No).unwrap();
    assert!(name.path().ends_with(name_lock(directory, &"mysql".into())) && server.path().exists());
}
