//! Writes the man pages and the completions of `transfer` into a directory: `transfer-manual DIRECTORY`. Writes
//! the generated parts of the documents of a checkout: `transfer-manual --documents CHECKOUT`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (directory, written) = match words.as_slice() {
        [option, checkout] if option == "--documents" => {
            (Path::new(checkout), documents(Path::new(checkout)))
        }
        [directory] => (Path::new(directory), transfer::cli::manual::write(Path::new(directory))),
        _ => {
            let _ = writeln!(io::stderr(), "usage: transfer-manual DIRECTORY | --documents CHECKOUT");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "transfer-manual: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn documents(checkout: &Path) -> io::Result<()> {
    for (path, text) in transfer::cli::documents::generated(checkout)? {
        std::fs::write(path, text)?;
    }
    Ok(())
}
