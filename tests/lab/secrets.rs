//! Secrets of a run that no account of a host may see.

use crate::support::changes::Wrapper;
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

const TRACE: &str = r#"[[ ${SSH_CONNECTION-} ]] && grep -q 'TracerPid:.0$' /proc/$$/status &&
    exec strace -f -qq --seccomp-bpf -e trace=execve -e signal=none -v -s 1000000 -o "$log.$$" $real "$@""#;

#[test]
fn exclusive_no_program_is_started_with_the_key() {
    let Some(lab) = Lab::get() else { return };
    let hosts = ["db1", "db2"].map(|name| lab.host(name));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    let log = scratch.join("log");
    make_random(&hosts[0], &source, 1);
    let wrappers = hosts.each_ref().map(|host| Wrapper::new(host, "bash", &format!("log={log}\n{TRACE}")));
    for name in ["db1", "db2"] {
        // A real leak would be found.
        let decoy = format!("exec bash -c 'env DECOY={DECOY} true; true'");
        lab.host("ctl").run(&["ssh", name, &decoy]).expect_success();
    }
    lab.transfer(&[&format!("db1:{source}"), &format!("db2:{}", scratch.path())]).expect_success();
    drop(wrappers);
    for host in hosts {
        for program in ["openssl", "nc", "tar", "md5sum"] {
            host.sh(&format!("grep -q 'execve(\"[a-z/]*/{program}\"' {log}.*"));
        }
        assert_eq!(
            host.sh(&format!("cat {log}.* | grep -oE '[0-9a-fA-F]{{64,}}' | sort -u")),
            format!("{DECOY}\n")
        );
    }
}
