//! Compromised hosts: whatever they print, the run ends with an error, in little memory, and the terminal
//! gets no control sequences.

use crate::support::local::impostor::{Act, converse};
use crate::support::local::processes::names;
use crate::support::local::runs::{LONG, Running};
use crate::support::local::sandbox::{Sandbox, Words};
use crate::support::output::Output;

/// For bash's `printf`: clears the screen, sets a title, queries the terminal, and writes from right to left.
const RUBBISH: &str = r"\e[2J\e]0;title\a\x9b5n\xe2\x80\xae\r\b\x7f";
/// Memory limit for the controller and each of its children.
const MOST_KIB: u32 = 96 * 1024;

/// Runs the program with a memory limit.
#[track_caller]
fn run(sandbox: &Sandbox, words: Words<'_>, code: i32) -> Output {
    let script = format!("ulimit -d {MOST_KIB}; exec \"$@\"");
    let ended = Running::start(sandbox.scripted(&script, words)).wait(LONG).expect_code(code);
    for output in [&ended.stdout, &ended.stderr] {
        let obeyed = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!output.contains(obeyed), "{:?}", output.chars().take(2000).collect::<String>());
        assert!(output.len() < 1 << 20, "{} bytes", output.len());
    }
    ended
}

/// In front of the shell that starts an agent: the shell of a hostile host.
fn hostile(sandbox: &Sandbox, script: &str) {
    sandbox.shim("sh", &format!("if [[ $3 == bootstrap ]]; then rubbish=$'{RUBBISH}'; {script}; exit; fi"));
}

/// As [`hostile`], with an agent that deviates from a real one.
fn impostor(sandbox: &Sandbox, act: Act) {
    hostile(sandbox, &sandbox.impostor(act));
}

/// A host with such answers counts as unreachable.
#[track_caller]
fn refused(script: &str, why: &str) {
    let Some(sandbox) = Sandbox::new() else { return };
    hostile(&sandbox, script);
    refused_in(&sandbox, why);
}

/// A host with such an agent counts as unreachable.
#[track_caller]
fn refused_agent(act: Act, why: &str) {
    let Some(sandbox) = Sandbox::new() else { return };
    impostor(&sandbox, act);
    refused_in(&sandbox, why);
}

#[track_caller]
fn refused_in(sandbox: &Sandbox, why: &str) {
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    for option in ["--progress=plain", "--verbose", "--json"] {
        run(sandbox, &[&source, &target, &option], 4).says(why);
    }
    run(sandbox, &[&"status", &"localhost"], 1).says(why);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn endless_greeting_is_refused() {
    refused(r#"exec yes "$rubbish""#, "the start-up files wrote more than 1 MiB");
}

#[test]
fn endless_line_is_refused() {
    refused("while printf %01000d 0; do :; done", "the host sent a line of more than 64 KiB");
}

#[test]
fn endless_empty_lines_are_refused() {
    refused("exec yes ''", "the start-up files wrote more than 1 MiB");
}

#[test]
fn endless_answer_is_refused() {
    refused_agent(Act::EndlessAnswers, "lost contact with the agent");
}

#[test]
fn endless_frame_is_refused() {
    refused_agent(Act::EndlessFrame, "lost contact with the agent");
}

#[test]
fn large_frames_do_not_fill_the_memory() {
    refused_agent(Act::LargeFrames, "lost contact with the agent");
}

#[test]
fn answer_to_another_command_is_refused() {
    refused_agent(Act::WrongAnswer, "the agent gave an unexpected answer");
}

#[test]
fn last_output_of_host_is_shortened_and_escaped() {
    refused(r#"printf '%s%050000d' "$rubbish" 0"#, r"(output: \x9b5n | 000");
    refused(
        r#"printf 'transfer-bootstrap failed %s%050000d' "$rubbish" 0"#,
        r"cannot start the agent: \x9b5n | 000",
    );
}

#[test]
fn output_like_that_of_the_bootstrap_script_is_refused() {
    let unexpected = "unexpected answer of the bootstrap script: ";
    refused(r#"printf 'transfer-bootstrap %s\n' "$rubbish""#, unexpected);
    refused("echo 'transfer-bootstrap send pdp11'; sleep 9", &format!("{unexpected}send pdp11"));
    // The second request of a host that has the program already.
    refused(
        r#"send="transfer-bootstrap send $(uname -m)"; printf '%s\n' "$send" "$send"; exec cat >/dev/null"#,
        unexpected,
    );
}

#[test]
fn findings_are_escaped_for_the_terminal() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    impostor(&sandbox, Act::HostileFacts);
    for option in ["--verbose", "--json"] {
        run(&sandbox, &[&source, &target, &option], 4).says("another run has quiesced").says("evil");
    }
}

#[test]
fn endless_agent_messages_are_bounded() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    impostor(&sandbox, Act::ManyEvents);
    for option in ["--verbose", "--json"] {
        let ended = run(&sandbox, &[&source, &target, &option, &"--lease-time=2"], 6);
        let ended = ended.says("lost contact with the agent of this run");
        assert!(ended.stderr.matches("NOT ROLLED BACK").count() <= 2 * 64, "{ended}");
    }
}

/// Agent of a hostile host, which the other tests start.
#[test]
#[ignore = "a program of other tests"]
fn hostile_agent() {
    converse();
}

#[test]
fn ssh_error_output_is_shortened() {
    let sandbox = Sandbox::own();
    sandbox.shim(
        "ssh",
        &format!(
            "rubbish=$'{RUBBISH}'; yes \"$rubbish\" | head -c 50000000 >&2; printf '%s%050000d' \"$rubbish\" 0 >&2; exit 255"
        ),
    );
    for option in ["--verbose", "--json"] {
        run(&sandbox, &[&"db1:/srv/data", &"/tmp", &option], 4).says("cannot connect with ssh: ");
    }
    run(&sandbox, &[&"status", &"db1"], 1).says("cannot connect with ssh: ");
}
