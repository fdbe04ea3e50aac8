//! Compromised hosts: whatever they print, the run ends with an error, in little memory, and the terminal
//! gets no control sequences.

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

/// In front of bash: after the first few, all shells behave like those of a hostile host.
fn hostile(sandbox: &Sandbox, honest: u32, script: &str) {
    let count = sandbox.dir("count");
    let count = count.display();
    sandbox.shim(
        "bash",
        &format!(
            "number=1; until mkdir '{count}'/$number 2>/dev/null; do ((number++)); done\n\
             if ((number > {honest})); then rubbish=$'{RUBBISH}'; {script}; exit; fi"
        ),
    );
}

/// A host with such answers counts as unreachable.
#[track_caller]
fn refused(script: &str, why: &str) {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    hostile(&sandbox, 0, script);
    for option in ["--progress=plain", "--verbose", "--json"] {
        run(&sandbox, &[&source, &target, &option], 4).says(why);
    }
    run(&sandbox, &[&"status", &"localhost"], 1).says(why);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn endless_greeting_is_refused() {
    refused(r#"exec yes "$rubbish""#, "the host sent more than 1 MiB");
}

#[test]
fn endless_line_is_refused() {
    refused("while printf %01000d 0; do :; done", "the host sent a line of more than 64 KiB");
}

#[test]
fn endless_answer_is_refused() {
    refused(r#"printf '\nbegin\n'; exec yes "owner"$'\t'"$rubbish""#, "the host sent more than");
}

#[test]
fn endless_empty_lines_are_refused() {
    refused(r"printf '\nbegin\n'; exec yes ''", "the host sent more than 65536 fields");
}

#[test]
fn last_output_of_host_is_shortened_and_escaped() {
    let long = r#"printf '\nbegin\n%s%050000d' "$rubbish" 0"#;
    refused(long, r"(last output: \x9b5n | 000");
    refused(r#"printf '%s%050000d' "$rubbish" 0"#, r"(output: \x9b5n | 000");
}

#[test]
fn findings_are_escaped_for_the_terminal() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let keys = "host netcat firewall_owned owner source_type source_real target_type target_busy tar";
    let script = format!(
        r#"printf '\nbegin\n'; for key in {keys}; do printf '%s\t%s\t%s\n' "$key" "$rubbish" "$rubbish"; done; echo end"#
    );
    hostile(&sandbox, 0, &script);
    for option in ["--verbose", "--json"] {
        run(&sandbox, &[&source, &target, &option], 4).says(r"is a \u{1b}[2J");
    }
}

#[test]
fn endless_agent_messages_are_bounded() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // The probes of both hosts and the question for a route; later shells are those of agents and of
    // questions to them.
    let script = r#"printf '\nbegin\n!\tready\n'
        for n in {1..3000}; do
            printf '!\tstderr\tjob%s\t%s\n!\tleft\tx\t%s\n!\tkept\t%s\n' "$n" "$rubbish" "$rubbish" "$rubbish"
            printf 'left\t%s\t%s\n' "$n" "$rubbish"
        done; echo end"#;
    hostile(&sandbox, 3, script);
    for option in ["--verbose", "--json"] {
        let ended = run(&sandbox, &[&source, &target, &option, &"--lease-time=2"], 6);
        let ended = ended.says("lost contact with the agent of this run");
        assert!(ended.stderr.matches("NOT ROLLED BACK").count() <= 2 * 64, "{ended}");
        std::fs::remove_dir_all(sandbox.path("count")).unwrap();
        sandbox.dir("count");
    }
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
