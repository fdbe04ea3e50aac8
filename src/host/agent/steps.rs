//! Commands of the agent in words, for `--verbose`.

use crate::host::wire::{LONGEST_TEXT, short};

/// Describes a command in words, followed by the command with the arguments that are not secret.
#[must_use]
pub(super) fn describe(action: &str, arguments: &[&[u8]]) -> String {
    // Number of arguments from the left that may be shown: keys and hashes of passwords may not.
    let (words, shown) = match action {
        "accept" => ("commit the new data", 9),
        "accepted_peer" => ("look for the connection on the port", 9),
        "check_listening" => ("check that the receiver listens", 9),
        "check_source" => ("check that the source is still the same", 9),
        "conclude" => ("pass the result of the run to hooks", 9),
        "drop_old" => ("remove the replaced data at the end", 9),
        "fill" => ("publish the entries one by one", 9),
        "give_up_account" => ("drop the replication account", 3),
        "hold_source" => ("open the source", 9),
        "keep_account" => ("keep the replication account", 3),
        "lease_hook" => ("register a hook", 9),
        "lease_port" => ("lock a free port", 9),
        "local_address" => ("find the address of the source on the data path", 9),
        "make_account" => ("create the replication account", 4),
        "make_staging" => ("create the staging directory", 9),
        "note_replication" => ("record the state of replication", 9),
        "open_gate" => ("let the stream through", 9),
        "publish" => ("publish the copy under its final name", 9),
        "put_on_trial" => ("put the new data in place, provisionally", 9),
        "restart" => ("start stopped servers and replication again", 9),
        "start_job" => ("start processes", 1),
        "start_server" => ("start the server", 9),
        "stop_job" => ("end processes", 9),
        "stop_replication" => ("stop replication", 9),
        "stop_server" => ("stop the server", 9),
        "take_target" => ("lock the final name", 9),
        "undo_rules" => ("close the firewall", 9),
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
