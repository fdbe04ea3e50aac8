//! Commands of the agent in words, for `--verbose`.

use crate::host::wire::{LONGEST_TEXT, short};

/// No argument is secret.
const ALL: usize = usize::MAX;

/// Describes a command in words, followed by the command with the arguments that are not secret.
#[must_use]
pub(super) fn describe(action: &str, arguments: &[&[u8]]) -> String {
    // Number of arguments from the left that may be shown: keys and hashes of passwords may not.
    let (words, shown) = match action {
        "accept" => ("commit the new data", ALL),
        "accepted_peer" => ("look for the connection on the port", ALL),
        "check_source" => ("check that the source is still the same", ALL),
        "conclude" => ("pass the result of the run to hooks", ALL),
        "drop_old" => ("remove the replaced data at the end", ALL),
        "fill" => ("publish the entries one by one", ALL),
        "give_up_account" => ("drop the replication account", 3),
        "hold_source" => ("open the source", ALL),
        "keep_account" => ("keep the replication account", 3),
        "lease_hook" => ("register a hook", ALL),
        "lease_port" => ("lock a free port", ALL),
        "local_address" => ("find the address of the source on the data path", ALL),
        "make_account" => ("create the replication account", 4),
        "make_staging" => ("create the staging directory", ALL),
        "note_replication" => ("record the state of replication", ALL),
        "open_rule" => ("open the firewall for the source", ALL),
        "open_gate" => ("let the stream through", ALL),
        "publish" => ("publish the copy under its final name", ALL),
        "put_on_trial" => ("put the new data in place, provisionally", ALL),
        "restart" => ("start stopped servers and replication again", ALL),
        "start_job" => ("start processes", 1),
        "start_server" => ("start the server", ALL),
        "stop_job" => ("end processes", ALL),
        "stop_replication" => ("stop replication", ALL),
        "stop_server" => ("stop the server", ALL),
        "take_target" => ("lock the final name", ALL),
        "undo_rules" => ("close the firewall", ALL),
        _ => ("run a command", 0),
    };
    let arguments = arguments.iter().take(shown).map(|argument| short(argument, LONGEST_TEXT));
    let command: Vec<String> = std::iter::once(action.to_owned()).chain(arguments).collect();
    format!("{words} ({})", command.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_agent_has_words() {
        let script = include_str!("../sh/guard.sh");
        let obey = script.split("obey() {").nth(1).and_then(|text| text.split("\n}").next()).expect("obey");
        let labels =
            obey.lines().filter_map(|line| line.split_once(") ")).flat_map(|(labels, _)| labels.split('|'));
        let actions = labels.map(str::trim).filter(|label| !["ping", "release", "*"].contains(label));
        assert!(actions.clone().count() > 20, "{obey}");
        let known = |action: &&str| !describe(action, &[]).starts_with("run a command");
        let unknown: Vec<&str> = actions.filter(|action| !known(action)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    fn secrets_are_not_shown() {
        let account: [&[u8]; 5] = [b"/run/s.sock", b"", b"replica-1", b"10.0.0.2", b"*HASH"];
        assert_eq!(
            describe("make_account", &account),
            "create the replication account (make_account /run/s.sock  replica-1 10.0.0.2)"
        );
        let job: [&[u8]; 3] = [b"sender", b"script", b"key"];
        assert_eq!(describe("start_job", &job), "start processes (start_job sender)");
        assert_eq!(describe("unknown", &[b"secret"]), "run a command (unknown)");
    }
}
