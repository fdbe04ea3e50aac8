//! Scripts that run on hosts. Each is sent to a shell's standard input; nothing is installed on a host.

use super::command::quote;
use super::wire::Field;

const COMMON: &str = include_str!("sh/common.sh");
const TRUST: &str = include_str!("sh/trust.sh");
/// Functions for scripts that deal with servers.
const SERVER: &str =
    concat!(include_str!("sh/holders.sh"), include_str!("sh/logins.sh"), include_str!("sh/server.sh"));
const JOURNAL: &str = include_str!("sh/journal.sh");
const PUBLISH: &str = include_str!("sh/publish.sh");
const REST: &str = include_str!("sh/rest.sh");
const AGENT: &str = include_str!("sh/guard.sh");
const INSTALLED: &str = include_str!("sh/installed.sh");
const JOB: &str = include_str!("sh/job.sh");
const FOLLOW: &str = include_str!("sh/follow.sh");
const TABLES: &str = include_str!("sh/tables.sh");
const FACTS: &str = include_str!("sh/facts.sh");
const ROUTES: &str = include_str!("sh/routes.sh");
const TWINS: &str = include_str!("sh/twins.sh");
const ATTRIBUTES: &str = include_str!("sh/attributes.sh");
const ADMIN: &str = include_str!("sh/admin.sh");

/// Files that the agent writes into its directory for its jobs.
const TOOLS: [(&str, &str); 9] = [
    ("pump.pl", include_str!("sh/pump.pl")),
    ("hash.pl", include_str!("sh/hash.pl")),
    ("drop.pl", include_str!("sh/drop.pl")),
    ("complain.pl", include_str!("sh/complain.pl")),
    ("sockets.pl", include_str!("sh/sockets.pl")),
    ("log.pl", include_str!("sh/log.pl")),
    ("inspect.sh", include_str!("sh/inspect.sh")),
    (
        "login.sh",
        concat!(
            include_str!("sh/common.sh"),
            include_str!("sh/trust.sh"),
            include_str!("sh/logins.sh"),
            include_str!("sh/login.sh")
        ),
    ),
    ("manifest.sh", include_str!("sh/manifest.sh")),
];

/// Connection of a host to a server, to be tested.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    /// Name of the server's host.
    pub name: &'a str,
    /// Address of it; may be empty.
    pub address: &'a str,
    /// Port of the server.
    pub port: u16,
    /// Whether TLS is required.
    pub ssl: bool,
    /// Account to log in with; may be empty.
    pub user: &'a str,
    /// Password of that account.
    pub password: &'a str,
}

/// A script with its arguments, ready for the standard input of `bash -s`.
#[derive(Debug)]
pub struct Script(Vec<u8>);

impl Script {
    /// Queries the facts of a source. `kind` is the type of transfer, `defaults` an option file for logins to
    /// servers (may be empty), `exclude` the patterns to leave out.
    #[must_use]
    pub fn source_facts(kind: &[u8], path: &[u8], name: &[u8], defaults: &[u8], exclude: &[Field]) -> Self {
        let arguments: Vec<Field> = [b"source", kind, path, name, defaults].map(<[u8]>::to_vec).to_vec();
        Self::new(&[COMMON, TRUST, SERVER, INSTALLED, FACTS], &[&arguments, exclude].concat())
    }

    /// Queries the facts of a target. `kind` is the type of transfer, `path` the directory, `name` the name
    /// of the copy, `owner` its owner, `defaults` an option file for logins to servers. The last three may be
    /// empty.
    #[must_use]
    pub fn target_facts(kind: &[u8], path: &[u8], name: &[u8], owner: &[u8], defaults: &[u8]) -> Self {
        let arguments = [b"target", kind, path, name, owner, defaults].map(<[u8]>::to_vec);
        Self::new(&[COMMON, TRUST, SERVER, INSTALLED, FACTS], &arguments)
    }

    /// Queries the facts of a host and its server. `role` is `primary`, `donor` or `target`; the unit and the
    /// option file for logins may be empty.
    #[must_use]
    pub fn server_facts(role: &str, unit: &str, defaults: &str) -> Self {
        let arguments = ["server", role, unit, defaults].map(|word| word.as_bytes().to_vec());
        Self::new(&[COMMON, TRUST, SERVER, INSTALLED, FACTS], &arguments)
    }

    /// Queries the account with which a server replicates over the connection of this name.
    #[must_use]
    pub fn account(datadir: &[u8], connection: &str) -> Self {
        let main = "main() { account \"$@\"; say end; }\n";
        Self::new(&[COMMON, TRUST, SERVER, INSTALLED, main], &[datadir.to_vec(), connection.into()])
    }

    /// Checks whether a server can be reached from a host (see `follow.sh`).
    #[must_use]
    pub fn reach(server: &Reach<'_>) -> Self {
        let Reach { name, address, port, ssl, user, password } = *server;
        let ssl = if ssl { "1" } else { "0" };
        let arguments = ["reach", name, address, &port.to_string(), ssl, user, password];
        Self::new(&[COMMON, TRUST, SERVER, JOB, FOLLOW], &arguments.map(|word| word.as_bytes().to_vec()))
    }

    /// Returns a job of `follow.sh`.
    #[must_use]
    pub fn follow(arguments: &[Field]) -> Self {
        Self::job(FOLLOW, arguments)
    }

    /// Returns a job of `tables.sh`.
    #[must_use]
    pub fn tables(arguments: &[Field]) -> Self {
        Self::job(TABLES, arguments)
    }

    fn job(main: &str, arguments: &[Field]) -> Self {
        // COMMON clears the environment, but the agent's `home` is still needed.
        let parts = ["guards_home=$home\n", COMMON, "home=$guards_home\n", TRUST, SERVER, JOB, main]
            .map(str::as_bytes);
        Self(call(&parts, arguments))
    }

    /// Queries a name below a directory that differs from another one only in case.
    #[must_use]
    pub fn twins(directory: &[u8], name: &[u8], exclude: &[Field]) -> Self {
        Self::new(&[COMMON, TWINS], &[&[directory, name].map(<[u8]>::to_vec), exclude].concat())
    }

    /// Queries the extended attributes of the files below a directory; `which` as described in
    /// `attributes.sh`.
    #[must_use]
    pub fn attributes(which: &str, directory: &[u8], name: &[u8], exclude: &[Field]) -> Self {
        let arguments = [which.as_bytes(), directory, name].map(<[u8]>::to_vec);
        Self::new(&[COMMON, ATTRIBUTES], &[&arguments, exclude].concat())
    }

    /// Queries the local addresses from which the host reaches others.
    #[must_use]
    pub fn routes(addresses: &[String]) -> Self {
        Self::new(&[COMMON, ROUTES], &addresses.iter().map(|a| a.clone().into_bytes()).collect::<Vec<_>>())
    }

    /// Runs `status`, `clean` or `settle` with its arguments.
    #[must_use]
    pub fn admin(arguments: &[&str]) -> Self {
        Self::new(
            &[COMMON, TRUST, SERVER, JOURNAL, ADMIN],
            &arguments.iter().map(|a| a.as_bytes().to_vec()).collect::<Vec<_>>(),
        )
    }

    /// Prints a list from an agent's directory as records ended by NUL, followed by the record `end` if it
    /// was complete.
    #[must_use]
    pub fn print(agent: &str, file: &str) -> Self {
        let print = "main() { find_directories; cat -- \"$state/$1/$2\" && printf 'end\\0'; }\n";
        Self::new(&[COMMON, print], &[agent.into(), file.into()])
    }

    /// Returns the script of the agent; its protocol follows on the same input.
    #[must_use]
    pub fn agent(arguments: &[Field]) -> Self {
        let mut tools = b"\ntools=(".to_vec();
        for (name, source) in TOOLS {
            tools.extend(name.as_bytes());
            tools.push(b' ');
            tools.extend(quote(source.as_bytes()));
            tools.push(b' ');
        }
        tools.extend(b")\n");
        let definitions = [
            COMMON.as_bytes(),
            &tools,
            TRUST.as_bytes(),
            SERVER.as_bytes(),
            JOURNAL.as_bytes(),
            PUBLISH.as_bytes(),
            REST.as_bytes(),
            AGENT.as_bytes(),
        ];
        Self(call(&[&read_at_once(&definitions.concat())], arguments))
    }

    /// Returns the text of the script.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns a script that exits after `main`, whatever follows on its input.
    fn new(parts: &[&str], arguments: &[Field]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut text = call(&[&read_at_once(&parts.concat())], arguments);
        text.extend(b"exit\n");
        Self(text)
    }
}

/// Puts a line in front of definitions that reads them in blocks: bash itself reads its input byte by byte,
/// which takes longer than most scripts. Exactly the definitions are read, since the call, and the agent's
/// commands, follow on the same input. Without perl, bash reads them as ever, and the preflight reports that
/// perl is missing.
///
/// The call must not be among them: bash crashes when a command of `eval` replaces the input that bash reads.
fn read_at_once(definitions: &[u8]) -> Vec<u8> {
    // Only a whole text is evaluated.
    let reader = "my ($left, $all) = ($ARGV[0], q()); \
                  while ($left && (my $read = sysread(STDIN, $all, $left, length $all))) { $left -= $read } \
                  print $left ? q(exit 1) : $all";
    let length = definitions.len();
    let line = format!("eval \"$(env -i \"PATH=$PATH\" perl -e '{reader}' {length} 2>/dev/null)\"\n");
    [line.as_bytes(), definitions].concat()
}

/// Concatenates the parts and adds the call of `main`. The line `begin` separates its output from that of the
/// login shell's start-up files, which may lack a newline at the end.
fn call(parts: &[&[u8]], arguments: &[Field]) -> Vec<u8> {
    let mut text = parts.concat();
    text.extend(b"printf '\\nbegin\\n'\nmain");
    for argument in arguments {
        text.push(b' ');
        text.extend(quote(argument));
    }
    text.push(b'\n');
    text
}

#[cfg(test)]
mod server_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Runs a script on this machine and returns its output after `begin`.
    fn run(script: &Script) -> String {
        let mut bash = Command::new("bash")
            .args(["--norc", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap();
        output.split_once("begin\n").unwrap().1.to_owned()
    }

    /// Tables as printed by nft; those of nft 1.1 can persist without their owner.
    const RULESET: &str = r#"
table inet firewalld { # progname firewalld
	flags owner,persist

	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state invalid drop
	}

	chain filter_IN_public {
		tcp dport 22 accept comment "type filter hook input"
	}
}
table inet site {
	comment "flags owner"
	set flags {
		type ipv4_addr
		flags interval
		comment "owner"
	}

	chain input {
		comment "flags owner"
		type filter hook input priority -5; policy drop;
	}

	chain early {
		type filter hook ingress device "e0" priority filter; policy accept;
	}

	chain raw {
		type filter hook prerouting priority raw; policy drop;
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}

	chain late {
		type nat hook input priority 100; policy accept;
	}

	chain out {
		type route hook output priority filter; policy accept;
	}
}
table ip6 filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
}
table bridge lab {
	chain input {
		type filter hook input priority 0; policy drop;
	}
}
"#;

    #[test]
    fn only_chains_that_filter_incoming_ip_packets_are_opened() {
        let main = format!("nft() {{ cat <<'END'\n{RULESET}END\n}}\nmain() {{ input_chains; }}\n");
        assert_eq!(
            run(&Script::new(&[COMMON, &main], &[])),
            "inet firewalld owned filter_INPUT\ninet site free input\nip filter free INPUT\nip6 filter free INPUT\n"
        );
    }

    #[test]
    fn unreadable_ruleset_is_an_error() {
        let main = "nft() { return 1; }\nmain() { input_chains || echo \"status $?\"; }\n";
        assert_eq!(run(&Script::new(&[COMMON, main], &[])), "status 1\n");
    }
}
