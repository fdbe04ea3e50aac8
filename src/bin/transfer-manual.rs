//! Writes the man pages and the completions of `transfer` into a directory: `transfer-manual DIRECTORY`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(directory), None) = (words.next().map(PathBuf::from), words.next()) else {
        let _ = writeln!(std::io::stderr(), "usage: transfer-manual DIRECTORY");
        return ExitCode::from(2);
    };
    match transfer::cli::manual::write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "transfer-manual: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
