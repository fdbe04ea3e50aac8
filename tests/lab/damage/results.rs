//! Results of the matrix, in a file that `scripts/damage.sh results` reads.

use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Runs a test and adds its result to the file that `DAMAGE_RESULTS` names: a line when it starts, and one when it
/// ends, which is missing when it took too long and was killed. `DAMAGE_VERSION` is the program under test.
pub(crate) fn record(name: &str, test: impl FnOnce()) {
    let Ok(path) = std::env::var("DAMAGE_RESULTS") else { return test() };
    let version = std::env::var("DAMAGE_VERSION").unwrap_or_default();
    let start = Instant::now();
    let write = |result: &str| {
        let line = format!("{name}\t{result}\t{:.1}\t{version}\n", start.elapsed().as_secs_f64());
        let file = File::options().create(true).append(true).open(&path);
        // In one write: several tests add their lines.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot write to {path}: {error}"));
    };
    write("start");
    let result = catch_unwind(AssertUnwindSafe(test));
    write(if result.is_ok() { "pass" } else { "fail" });
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}
