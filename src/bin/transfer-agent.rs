//! `transfer-agent`: the program that works on a host. The controller brings it along and starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    transfer::agent::main()
}
