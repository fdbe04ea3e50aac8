//! The scripts that run on hosts, as files beside this one. Each is sent on a shell's standard input; nothing is
//! installed on a host.

use super::command::quote;
use super::wire::Field;

const COMMON: &str = include_str!("sh/common.sh");
const JOURNAL: &str = include_str!("sh/journal.sh");
const GUARD: &str = include_str!("sh/guard.sh");
const FACTS: &str = include_str!("sh/facts.sh");
const ROUTES: &str = include_str!("sh/routes.sh");
const TWINS: &str = include_str!("sh/twins.sh");
const ADMIN: &str = include_str!("sh/admin.sh");

/// What the guard puts into its directory for its jobs.
const TOOLS: [(&str, &str); 4] = [
    ("pump.pl", include_str!("sh/pump.pl")),
    ("drop.pl", include_str!("sh/drop.pl")),
    ("complain.pl", include_str!("sh/complain.pl")),
    ("manifest.sh", include_str!("sh/manifest.sh")),
];

/// A script with its arguments, ready for the standard input of `bash -s`.
#[derive(Debug)]
pub struct Script(Vec<u8>);

impl Script {
    /// Asks for all facts of a source: its path, its name, and patterns of what is left out.
    #[must_use]
    pub fn source_facts(path: &[u8], name: &[u8], exclude: &[Field]) -> Self {
        let arguments: Vec<Field> = [b"source", path, name].map(<[u8]>::to_vec).to_vec();
        Self::new(&[COMMON, FACTS], &[&arguments, exclude].concat())
    }

    /// Asks for all facts of a target: its directory, the name that the copy gets, and its owner or nothing.
    #[must_use]
    pub fn target_facts(path: &[u8], name: &[u8], owner: &[u8]) -> Self {
        Self::new(&[COMMON, FACTS], &[b"target", path, name, owner].map(<[u8]>::to_vec))
    }

    /// Asks for a name below a directory that differs from another one only in case.
    #[must_use]
    pub fn twins(directory: &[u8], name: &[u8], exclude: &[Field]) -> Self {
        Self::new(&[COMMON, TWINS], &[&[directory, name].map(<[u8]>::to_vec), exclude].concat())
    }

    /// Asks from which address the host reaches others.
    #[must_use]
    pub fn routes(addresses: &[String]) -> Self {
        Self::new(&[COMMON, ROUTES], &addresses.iter().map(|a| a.clone().into_bytes()).collect::<Vec<_>>())
    }

    /// `status`, `clean` or `settle`, with its arguments.
    #[must_use]
    pub fn admin(arguments: &[&str]) -> Self {
        Self::new(
            &[COMMON, JOURNAL, ADMIN],
            &arguments.iter().map(|a| a.as_bytes().to_vec()).collect::<Vec<_>>(),
        )
    }

    /// Prints a file of a guard's directory.
    #[must_use]
    pub fn print(guard: &str, file: &str) -> Self {
        let print = "main() { find_directories; cat -- \"$state/$1/$2\"; }\n";
        Self::new(&[COMMON, print], &[guard.into(), file.into()])
    }

    /// The guard; what follows on the same input is its protocol.
    #[must_use]
    pub fn guard(arguments: &[Field]) -> Self {
        let mut tools = b"\ntools=(".to_vec();
        for (name, source) in TOOLS {
            tools.extend(name.as_bytes());
            tools.push(b' ');
            tools.extend(quote(source.as_bytes()));
            tools.push(b' ');
        }
        tools.extend(b")\n");
        Self(call(&[COMMON.as_bytes(), &tools, JOURNAL.as_bytes(), GUARD.as_bytes()], arguments))
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A script that ends with its `main`, whatever else may come on its input.
    fn new(parts: &[&str], arguments: &[Field]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut text = call(&parts, arguments);
        text.extend(b"exit\n");
        Self(text)
    }
}

/// The parts one behind the other, and the call of `main`. What a login shell's start-up files print comes before the
/// line `begin` and is not ours.
fn call(parts: &[&[u8]], arguments: &[Field]) -> Vec<u8> {
    let mut text = parts.concat();
    text.extend(b"echo begin\nmain");
    for argument in arguments {
        text.push(b' ');
        text.extend(quote(argument));
    }
    text.push(b'\n');
    text
}
