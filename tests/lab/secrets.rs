//! Secrets of a run that no account of a host may see.

use crate::support::copies::make_random;
use crate::support::held::{Held, MORE_THAN_BUFFERS, being_read};
use crate::support::hosts::{Host, Lab};
use crate::support::scenes::SOON;
use crate::support::waiting::eventually;

/// 64 hexadecimal digits, the format of a key, in a place where a key must not be.
const DECOY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Prints all words of that format in arguments and environments of a host's processes.
const LOOK: &str = "for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do cat $file 2>/dev/null; done |
    grep -aoE '[0-9a-fA-F]{64,}' | sort -u";

#[test]
fn no_running_process_exposes_the_key() {
    let Some(lab) = Lab::get() else { return };
    let hosts = ["ctl", "db1", "db2"].map(|name| lab.host(name));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&hosts[1], &source, MORE_THAN_BUFFERS);
    let args = [&format!("db1:{source}"), &format!("db2:{}", scratch.path())];
    let held = Held::start(&lab, &args.map(String::as_str), &hosts[2], scratch.path());
    being_read(&hosts[1], scratch.path());
    for host in &hosts {
        // A real leak would be found.
        let _decoy = host.command(&["sleep", "1000"]).env("DECOY", DECOY).spawn();
        let look = |host: &Host| host.run(&["sh", "-c", LOOK]).expect_success().stdout;
        assert!(eventually(SOON, || look(host).contains(DECOY)));
        assert_eq!(look(host), format!("{DECOY}\n"));
    }
    held.go().expect_success();
}

/// Traces the programs of all logins, with their arguments and environments, into the file `$1`. Prints its pid.
const TRACE: &str = r#"
    sshd=$(systemctl show -p MainPID --value ssh)
    setsid strace -f -qq -e trace=execve -e signal=none -v -s 1000000 -o "$1" -p "$sshd" >/dev/null 2>&1 </dev/null &
    tracer=$!
    until grep -q "^TracerPid:.$tracer$" "/proc/$sshd/status"; do sleep 0.01; done
    echo $tracer"#;

#[test]
fn exclusive_no_program_is_started_with_the_key() {
    let Some(lab) = Lab::get() else { return };
    let hosts = ["db1", "db2"].map(|name| lab.host(name));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    let log = scratch.join("log");
    make_random(&hosts[0], &source, 1);
    let trace = |host: &Host| host.run(&["bash", "-ec", TRACE, "trace", &log]).expect_success().stdout;
    let tracers = hosts.each_ref().map(trace);
    for name in ["db1", "db2"] {
        // A real leak would be found.
        let decoy = format!("exec bash -c 'env DECOY={DECOY} true; true'");
        lab.host("ctl").run(&["ssh", name, &decoy]).expect_success();
    }
    lab.transfer(&[&format!("db1:{source}"), &format!("db2:{}", scratch.path())]).expect_success();
    for (host, tracer) in hosts.iter().zip(tracers) {
        host.sh(&format!("kill {0}; while [[ -e /proc/{0} ]]; do sleep 0.01; done", tracer.trim()));
        for program in ["openssl", "nc", "tar"] {
            host.sh(&format!("grep -q 'execve(\"[a-z/]*/{program}\"' {log}"));
        }
        // The digest of the agent's file is one of the words of its bootstrap.
        let words = host.sh(&format!("grep -oE '[0-9a-zA-Z_]*:?[0-9a-fA-F]{{64,}}' {log} | sort -u"));
        let words: Vec<&str> = words.lines().filter(|word| !word.contains(':')).collect();
        assert_eq!(words, [DECOY]);
    }
}
