//! The program that is taken for the agent: it does what its arguments say, and reports each action when it is
//! done.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statx, syncfs, unlinkat};
use transfer::proto::journal::{Header, Record, Undo, VERSION, encode};

/// Name of the agent's program.
pub(crate) const NAME: &str = "transfer-agent";

/// Returns the actions, when this program has the name of the agent.
pub(crate) fn actions() -> Option<Vec<String>> {
    let program = std::env::current_exe().ok()?;
    (program.file_name()? == NAME).then(|| std::env::args().skip(2).collect())
}

pub(crate) fn run(actions: &[String]) -> ExitCode {
    for (at, action) in actions.iter().enumerate() {
        let words: Vec<&str> = action.split(' ').collect();
        let has_worked = match words[..] {
            ["job"] => {
                let job = Command::new("/proc/self/exe").arg("job").args(&actions[at + 1..]).status();
                let success = job.is_ok_and(|status| status.success());
                return if success { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            ["start", program, ref args @ ..] => {
                Command::new(program).args(args).status().is_ok_and(|status| status.success())
            }
            _ => act(&words),
        };
        println!("{} {}", words[0], if has_worked { "done" } else { "failed" });
    }
    ExitCode::SUCCESS
}

fn act(words: &[&str]) -> bool {
    match *words {
        ["rename", from, to] => renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok(),
        ["exchange", one, other] => renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok(),
        ["unlink", name] => unlinkat(CWD, name, AtFlags::empty()).is_ok(),
        ["create", name] => File::create(name).is_ok(),
        ["syncfs", name] => File::open(name).is_ok_and(|file| syncfs(file).is_ok()),
        ["statx", name] => statx(CWD, name, AtFlags::empty(), StatxFlags::BASIC_STATS).is_ok(),
        ["size", name] => statx(CWD, name, AtFlags::empty(), StatxFlags::BASIC_STATS).is_ok_and(|found| {
            println!("{}", found.stx_size);
            true
        }),
        ["write", name, text] => fs::write(name, text).is_ok(),
        ["lease", kind] => append(&Record::Lease(undo(kind))),
        ["close", kind] => append(&Record::Closed(undo(kind))),
        ["tick", name] => tick(name),
        _ => panic!("unknown action {words:?}"),
    }
}

fn undo(kind: &str) -> Undo {
    match kind {
        "port" => Undo::Port(4400),
        "job" => Undo::Job { lock: "sender.job".into() },
        _ => panic!("unknown lease {kind}"),
    }
}

/// Writes and syncs a record as the agent does it.
fn append(record: &Record) -> bool {
    let path = Path::new("journal.bin");
    let mut bytes = Vec::new();
    if !path.exists() {
        let header = Header {
            version: VERSION,
            program: "1".into(),
            boot: "2".into(),
            role: "target".into(),
            controller: "ctl".into(),
            started: 0,
            path: "/data".into(),
        };
        bytes = encode(&Record::Header(header)).unwrap();
    }
    bytes.extend(encode(record).unwrap());
    let file = File::options().create(true).append(true).open(path);
    file.is_ok_and(|mut file| file.write_all(&bytes).is_ok() && file.sync_data().is_ok())
}

/// Starts a thread that makes a file longer, again and again.
fn tick(name: &str) -> bool {
    let Ok(mut file) = File::create(name) else { return false };
    std::thread::spawn(move || {
        while file.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    true
}
