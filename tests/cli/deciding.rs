//! Files that decide what a run does are used only if no other account could have changed them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::support::local::holds::Point;
use crate::support::local::processes::names;
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::{Sandbox, Words};
use crate::support::output::Output;

/// Uid of an account that no sandbox has.
const EVE: u32 = 60_321;
/// Leaves a visible trace if it is used.
const CONFIGURATION: &str = "port = 4477\n";
/// An ssh configuration with hosts that cannot be reached.
const SSH: &str = "Host nowhere\n    HostName 127.0.0.1\n    Port 1\n";

/// Ways to name a file to the program.
#[derive(Clone, Copy, Debug)]
enum Named {
    Config,
    Variable,
    SshConfig,
}

impl Named {
    const ALL: [Self; 3] = [Self::Config, Self::Variable, Self::SshConfig];

    fn text(self) -> &'static str {
        match self {
            Self::Config | Self::Variable => CONFIGURATION,
            Self::SshConfig => SSH,
        }
    }

    /// Runs the program with a file named in this way.
    fn run(self, sandbox: &Sandbox, file: &Path) -> Output {
        let (source, target) = (sandbox.path("source"), sandbox.path("target"));
        let mut command = match self {
            Self::Config => sandbox.command(&[&source, &target, &"--dry-run", &"--config", &file]),
            Self::Variable => sandbox.command(&[&source, &target, &"--dry-run"]),
            Self::SshConfig => sandbox.command(&[&source, &target, &"--dry-run", &"--ssh-config", &file]),
        };
        if matches!(self, Self::Variable) {
            command.env("TRANSFER_CONFIG", file);
        }
        Running::start(command).wait(LONG)
    }

    /// Asserts that the file is used.
    #[track_caller]
    fn obeyed(self, sandbox: &Sandbox, file: &Path) {
        let ended = self.run(sandbox, file).expect_success();
        assert!(matches!(self, Self::SshConfig) || ended.stdout.contains("lock 4477"), "{self:?}: {ended}");
    }

    /// Asserts that the file is refused because of a component of its path, and that the fix is named.
    #[track_caller]
    fn refused(self, sandbox: &Sandbox, file: &Path, component: &Path, fix: &str) {
        let ended = self.run(sandbox, file).expect_code(2);
        let said = format!("{} is owned by ", component.display());
        assert!(ended.stderr.contains(&said), "{self:?}: {ended}");
        let fix = format!("{fix} {}", component.display());
        assert!(ended.stderr.contains(&fix), "{self:?}: {ended}");
        assert!(ended.stderr.contains(&file.display().to_string()), "{self:?}: {ended}");
    }
}

/// Returns sandboxes with a source and a target.
fn with_ends(sandbox: Sandbox) -> Sandbox {
    sandbox.source("source");
    sandbox.dir("target");
    sandbox
}

fn sandboxes() -> impl Iterator<Item = Sandbox> {
    Sandbox::new().into_iter().chain(Sandbox::root()).map(with_ends)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn uid(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

/// Creates a link that belongs to the sandbox's account.
fn link(sandbox: &Sandbox, to: &Path, name: &str) -> PathBuf {
    let path = sandbox.path(name);
    symlink(to, &path).unwrap();
    if let Ok(owner) = fs::metadata(sandbox.path("")).map(|found| std::os::unix::fs::MetadataExt::uid(&found))
    {
        let _ = lchown(&path, Some(owner), None);
    }
    path
}

#[test]
fn own_files_are_trusted_through_links() {
    for sandbox in sandboxes() {
        let sticky = sandbox.dir("sticky");
        set_mode(&sticky, 0o1777);
        for named in Named::ALL {
            let file = sandbox.file("sticky/file", named.text());
            let link = link(&sandbox, &file, "link");
            for mode in [0o644, 0o600] {
                set_mode(&file, mode);
                named.obeyed(&sandbox, &file);
                named.obeyed(&sandbox, &link);
            }
            fs::remove_file(&link).unwrap();
        }
    }
}

#[test]
fn files_of_root_are_trusted() {
    let Some(sandbox) = Sandbox::new().map(with_ends).filter(Sandbox::has_an_account) else { return };
    for named in Named::ALL {
        let file = sandbox.file("file", named.text());
        chown(&file, Some(0), Some(0)).unwrap();
        named.obeyed(&sandbox, &file);
    }
}

#[test]
fn paths_writable_by_others_are_refused() {
    for sandbox in sandboxes() {
        let directory = sandbox.dir("directory");
        for named in Named::ALL {
            let file = sandbox.file("directory/file", named.text());
            set_mode(&file, 0o666);
            named.refused(&sandbox, &file, &file, "chmod go-w");
            set_mode(&file, 0o644);
            set_mode(&directory, 0o777);
            named.refused(&sandbox, &file, &directory, "chmod go-w");
            set_mode(&directory, 0o755);
            named.obeyed(&sandbox, &file);
        }
    }
}

#[test]
fn paths_writable_by_shared_groups_are_refused() {
    for sandbox in sandboxes().filter(|sandbox| sandbox.has_an_account() || sandbox.is_root()) {
        let directory = sandbox.dir("directory");
        for named in Named::ALL {
            let file = sandbox.file("directory/file", named.text());
            chown(&file, None, Some(EVE)).unwrap();
            set_mode(&file, 0o664);
            named.refused(&sandbox, &file, &file, "chmod go-w");
            set_mode(&file, 0o644);
            chown(&directory, None, Some(EVE)).unwrap();
            set_mode(&directory, 0o775);
            named.refused(&sandbox, &file, &directory, "chmod go-w");
            set_mode(&directory, 0o755);
        }
    }
}

#[test]
fn paths_of_another_account_are_refused() {
    for sandbox in sandboxes().filter(|sandbox| sandbox.has_an_account() || sandbox.is_root()) {
        let directory = sandbox.dir("directory");
        set_mode(&directory, 0o1777);
        let uid = uid(&directory);
        let account = if uid == 0 { "root".to_owned() } else { uid.to_string() };
        for named in Named::ALL {
            let file = sandbox.file("directory/file", named.text());
            let link = link(&sandbox, &file, "link");
            named.obeyed(&sandbox, &link);
            for component in [&file, &directory] {
                chown(component, Some(EVE), None).unwrap();
                named.refused(&sandbox, &file, component, &format!("chown {account}"));
                named.refused(&sandbox, &link, component, &format!("chown {account}"));
                chown(component, Some(uid), None).unwrap();
            }
            lchown(&link, Some(EVE), None).unwrap();
            named.refused(&sandbox, &link, &link, &format!("chown -h {account}"));
            fs::remove_file(&link).unwrap();
        }
    }
}

#[test]
fn pipes_and_dev_null_work_as_configuration() {
    for sandbox in sandboxes() {
        let words: Words<'_> = &[&sandbox.path("source"), &sandbox.path("target"), &"--dry-run"];
        let script = r#"printf 'port = 4477\n' | "$@" --config /dev/stdin"#;
        let ended = Running::start(sandbox.scripted(script, words)).wait(LONG).expect_success();
        assert!(ended.stdout.contains("lock 4477"), "{ended}");
        let script = r#"exec bash -c '"$@" --config <(sleep 0.1; printf "port = 4477\n")' bash "$@""#;
        let ended = Running::start(sandbox.scripted(script, words)).wait(LONG).expect_success();
        assert!(ended.stdout.contains("lock 4477"), "{ended}");
        Named::Config.run(&sandbox, Path::new("/dev/null")).expect_success();
        let fifo = sandbox.path("fifo");
        sandbox.fifo(&fifo);
        Named::Config.run(&sandbox, &fifo).expect_code(2).says("not a regular file");
    }
}

#[test]
fn untrusted_history_directory_is_not_used() {
    let Some(sandbox) = Sandbox::new().map(with_ends) else { return };
    let state = sandbox.dir("state");
    set_mode(&state, 0o777);
    let ended = sandbox.run(&[&sandbox.path("source"), &sandbox.path("target")]).expect_success();
    ended.says("this run will not be recorded").says(&format!("{} is owned by", state.display()));
    assert!(!state.join("transfer-history").exists(), "made in a directory of others");
    sandbox.run(&[&"history"]).expect_code(1).says("chmod go-w");
    set_mode(&state, 0o755);
    sandbox.run(&[&"history"]).expect_success();
}

#[test]
fn record_of_another_account_is_not_shown() {
    let Some(sandbox) = Sandbox::new().map(with_ends).filter(Sandbox::has_an_account) else { return };
    sandbox.run(&[&sandbox.path("source"), &sandbox.path("target")]).expect_success();
    let record =
        fs::read_dir(sandbox.path("state/transfer-history")).unwrap().next().unwrap().unwrap().path();
    chown(&record, Some(EVE), None).unwrap();
    set_mode(&record, 0o644);
    sandbox.run(&[&"history"]).expect_success().says("1 records in");
}

#[test]
fn metrics_spare_files_of_other_accounts() {
    let Some(sandbox) = Sandbox::new().map(with_ends).filter(Sandbox::has_an_account) else { return };
    let shared = sandbox.dir("shared");
    set_mode(&shared, 0o777);
    let elsewhere = sandbox.dir("elsewhere");
    let kept = sandbox.file("elsewhere/kept.prom", "kept");
    let run = |file: &Path| {
        let (source, target) = (sandbox.path("source"), sandbox.path("target"));
        sandbox.run(&[&source, &target, &"--replace", &"--metrics", &file]).expect_success()
    };
    let ended = run(&shared.join("new.prom"));
    assert!(!ended.stderr.contains("(--metrics)"), "{ended}");
    symlink(&kept, shared.join("link.prom")).unwrap();
    run(&shared.join("link.prom")).says("(--metrics)");
    symlink(&elsewhere, shared.join("way")).unwrap();
    lchown(shared.join("way"), Some(EVE), None).unwrap();
    run(&shared.join("way/kept.prom")).says("(--metrics)");
    let foreign = sandbox.file("shared/foreign.prom", "foreign");
    chown(&foreign, Some(EVE), None).unwrap();
    run(&foreign).says("(--metrics)");
    assert_eq!(fs::read_to_string(&kept).unwrap() + &fs::read_to_string(&foreign).unwrap(), "keptforeign");
}

#[test]
fn controller_memory_is_not_readable_or_dumped() {
    for signal in [Signal::SIGSEGV, Signal::SIGABRT] {
        for sandbox in sandboxes() {
            let hold = sandbox.hold(Point::Archive);
            let words: Words<'_> = &[&sandbox.path("source"), &sandbox.path("target")];
            let cores = sandbox.path(format!("cores-{signal}"));
            fs::create_dir(&cores).unwrap();
            sandbox.own_it(&cores);
            let script = format!("ulimit -c unlimited 2>/dev/null; cd {} && exec \"$@\"", cores.display());
            let running = Running::start(sandbox.scripted(&script, words));
            hold.reached();
            let limits = fs::read_to_string(format!("/proc/{}/limits", running.pid())).unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(line.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{line}");
            // Files in /proc of a process that cannot be dumped belong to root.
            assert_eq!(uid(Path::new(&format!("/proc/{}/mem", running.pid()))), 0);
            // Rust's own handler for stack overflows ignores the first SIGSEGV and then uninstalls itself.
            wait_until("it has ended", LONG, || {
                running.signal(signal);
                fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap().contains(") Z ")
            });
            hold.open();
            let status = running.wait(LONG).status;
            assert!(!status.core_dumped(), "{status}");
            assert_eq!(status.signal(), Some(signal as i32));
            assert_eq!(names(&cores), Vec::<String>::new());
            sandbox.gets_clean(&[&sandbox.path("target")], LONG);
        }
    }
}
