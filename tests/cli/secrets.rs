//! The key of a run is in no argument, no environment and no file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::ByteSlice as _;
use sha2::{Digest as _, Sha256};

use crate::support::local::holds::Point;
use crate::support::local::processes::staging;
use crate::support::local::runs::{LONG, Running};
use crate::support::local::sandbox::{AGENT, Sandbox};

/// Digest of the agent, by which hosts recognize it.
static DIGEST: LazyLock<String> = LazyLock::new(|| {
    Sha256::digest(fs::read(AGENT).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
});

/// A word of 64 hexadecimal digits, the format of keys.
fn key_in(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    let word = words.find(|word| *word != DIGEST.as_bytes())?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// Returns which of the sandbox's processes show a key, and how many of them encrypt.
fn look_at_processes(sandbox: &Sandbox) -> (Vec<String>, usize) {
    let processes = sandbox.processes();
    let ciphers =
        processes.iter().filter(|process| process.command.contains("-aes-256-ctr -bufsize")).count();
    let shows = processes.into_iter().filter(|process| {
        key_in(process.command.as_bytes()).or_else(|| key_in(&process.environment)).is_some()
    });
    (shows.map(|process| format!("{process:?}")).collect(), ciphers)
}

#[test]
fn key_is_in_no_argument_environment_or_file() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // No digest of a file is as long as a key.
    let running = sandbox.spawn(&[&source, &target, &"--verbose", &"--checksum-algorithm", &"md5"]);
    let over = AtomicBool::new(false);
    let (mut seen, mut ciphers) = (Vec::new(), 0);
    let ended = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut seen, mut ciphers) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                let (shows, now) = look_at_processes(&sandbox);
                seen.extend(shows);
                ciphers = now.max(ciphers);
            }
            (seen, ciphers)
        });
        hold.reached();
        let (shows, now) = look_at_processes(&sandbox);
        seen.extend(shows);
        ciphers = now.max(ciphers);
        for journal in sandbox.journals() {
            for file in fs::read_dir(journal.parent().unwrap()).unwrap().flatten() {
                if file.file_type().unwrap().is_file() && file.file_name() != "transfer-agent" {
                    let key = key_in(&fs::read(file.path()).unwrap());
                    // `.count` has the digest of a list.
                    let is_digest = file.path().extension().is_some_and(|extension| extension == "count");
                    assert!(key.is_none() || is_digest, "{}", file.path().display());
                }
            }
        }
        hold.open();
        let ended = running.wait(LONG);
        over.store(true, Ordering::Relaxed);
        let (shows, now) = watcher.join().unwrap();
        seen.extend(shows);
        ciphers = now.max(ciphers);
        ended
    });
    assert_eq!(seen, Vec::<String>::new());
    assert!(ciphers >= 2, "both ends cipher, and {ciphers} were seen");
    assert_eq!(key_in(ended.stderr.as_bytes()), None, "{ended}");
    ended.expect_success();
    sandbox.is_clean(&[&target]);
}

/// In front of openssl on the source: keeps the key in a file.
const KEEP_KEY: &str = r#"if [[ " $* " == *' enc '* && " $* " != *' -d '* && $* =~ fd:([0-9]+) ]]; then
        number=${BASH_REMATCH[1]}
        IFS= read -r key <&"$number"
        printf '%s' "$key" >"${0%/*}/../key"
        eval "exec $number< <(printf '%s\n' \"\$key\")"
    fi"#;

/// As sudo may log it.
#[test]
fn key_is_not_readable_in_input_and_output_of_agents() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.shim("openssl", KEEP_KEY);
    let logs = sandbox.dir("logs");
    sandbox.shim(
        "sh",
        &format!(
            "if [[ $3 == bootstrap ]]; then \"$real\" \"$@\" < <(tee '{0}'/$$.in) > >(tee '{0}'/$$.out); exit; fi",
            logs.display()
        ),
    );
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target, &"--verbose"]).expect_success();
    let key = fs::read(sandbox.path("key")).unwrap();
    assert_eq!(key_in(&key).map(String::into_bytes), Some(key.clone()), "or the test shows nothing");
    let digits = std::str::from_utf8(&key).unwrap();
    let raw: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap()).collect();
    let logs: Vec<_> = fs::read_dir(logs).unwrap().flatten().collect();
    assert!(logs.len() >= 4, "{logs:?}");
    for log in logs {
        let bytes = fs::read(log.path()).unwrap();
        assert!(!bytes.is_empty(), "{log:?}");
        for secret in [&key, &raw] {
            assert_eq!(bytes.find(secret), None, "{log:?}");
        }
    }
    sandbox.is_clean(&[&target]);
}

/// Variables of the caller's environment that could change programs on the hosts do not reach them, and
/// variables with names that the agent uses do not affect it.
#[test]
fn caller_environment_does_not_reach_hosts() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let mut command = sandbox.command(&[&source, &target]);
    for name in
        ["key", "message", "script", "home", "tools", "guard", "words", "TAR_OPTIONS", "GZIP", "PERL5OPT"]
    {
        command.env(name, "-x");
    }
    command.env("SHELLOPTS", "braceexpand:errexit:hashall:noglob").env("BASH_FUNC_kill%%", "() { false; }");
    // As for an administrator who is logged in by ssh.
    command.env("SSH_CONNECTION", "203.0.113.7 50000 203.0.113.8 22");
    let running = Running::start(command);
    hold.reached();
    let (shows, ciphers) = look_at_processes(&sandbox);
    assert_eq!(shows, Vec::<String>::new());
    assert!(ciphers >= 2, "both ends cipher, and {ciphers} were seen");
    hold.open();
    running.wait(LONG).expect_success();
    sandbox.is_clean(&[&target]);
}

#[test]
fn directories_of_a_run_are_private() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    let journals = sandbox.journals();
    let agents = journals.iter().map(|journal| journal.parent().unwrap().to_owned());
    for directory in agents.chain(staging(&target)).chain([sandbox.state(), sandbox.runtime()]) {
        let mode = fs::metadata(&directory).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{}", directory.display());
    }
    hold.open();
    running.wait(LONG).expect_success();
    // The state directory may stay, and the copy has the mode of the source.
    assert_eq!(fs::metadata(target.join("source")).unwrap().permissions().mode() & 0o7777, 0o755);
}
