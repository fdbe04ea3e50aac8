//! Tasks of jobs about files: lists and digests, and the last steps of a copy.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Timespec, fstat};

use super::channel::Inbox;
use super::place::Directory;
use super::report::{Counter, Reports};
use super::{Context, End, thread};
use crate::agent::accounts::Accounts;
use crate::agent::files::archive::{ArchiveProgress, digest_archive};
use crate::agent::files::changed::{modified, write_changed};
use crate::agent::files::chown::{Ownership, change_owner};
use crate::agent::files::durable::Durability;
use crate::agent::files::list::list;
use crate::agent::files::list::progress::{ListEvent, Step};
use crate::agent::files::strip::strip;
use crate::agent::files::walk::Root;
use crate::agent::state::PROGRAM;
use crate::proto::Text;
use crate::proto::files::{ListTask, NewOwner, Tree};
use crate::proto::job::{JobReport, List, Meter};
use crate::proto::task::Task;

/// Name of the list of changed paths.
pub(in crate::agent) const CHANGED: &str = "changed";

/// Result of a task: an error is reported as a complaint.
type Outcome = Result<(), Text>;

/// Does a task about files. Returns the name of its stage, too.
pub(super) fn run(context: &Context<'_>, task: &Task, inbox: &mut Inbox) -> (&'static str, io::Result<End>) {
    let (name, work) = match prepare(context, task) {
        Ok(prepared) => prepared,
        Err(error) => return ("prepare", Err(error)),
    };
    let reports = context.reports.clone();
    let work = move || match work(&reports) {
        Ok(()) => 0,
        Err(text) => {
            reports.send(JobReport::Complaint(text));
            1
        }
    };
    (name, thread::attended(inbox, work))
}

type Work = Box<dyn FnOnce(&Reports) -> Outcome + Send>;

fn prepare(context: &Context<'_>, task: &Task) -> io::Result<(&'static str, Work)> {
    let home = context.directory.clone();
    let source = || context.source().map_err(io::Error::other)?.try_clone_to_owned();
    let staging = || context.staging().map_err(io::Error::other)?.try_clone_to_owned();
    let durability = |durable: bool| if durable { Durability::Synced } else { Durability::Hasty };
    Ok(match task.clone() {
        Task::ListSource(task) => {
            let source = source()?;
            (
                "manifest",
                Box::new(move |reports| write_lists(Root::Held(source.as_fd()), &task, home, reports)),
            )
        }
        Task::ListCopy(task) => {
            let copy = staging()?;
            (
                "manifest",
                Box::new(move |reports| write_lists(Root::Entry(copy.as_fd()), &task, home, reports)),
            )
        }
        Task::Changed(tree) => {
            let source = source()?;
            ("find", Box::new(move |_| list_changed(&source, &tree, home)))
        }
        Task::Strip { name, naming } => {
            let copy = staging()?;
            ("strip", Box::new(move |_| text(strip(copy.as_fd(), name.as_os_str(), naming)).map(drop)))
        }
        Task::DigestArchive { place, name, digest, durable } => {
            let directory = Directory::open(context, &place).map_err(io::Error::other)?;
            let durability = durability(durable);
            (
                "digest",
                Box::new(move |reports| {
                    let mut meter = (reports.counter(Meter::Digests), 0);
                    let mut report = |progress| reports.archive(progress, &mut meter);
                    let hex = text(digest_archive(
                        directory.as_fd(),
                        name.as_os_str(),
                        digest,
                        durability,
                        &mut report,
                    ))?;
                    reports.send(JobReport::Digest(hex));
                    Ok(())
                }),
            )
        }
        Task::ChangeOwner { name, owner, durable } => {
            let copy = staging()?;
            let durability = durability(durable);
            ("chown", Box::new(move |_| give(&copy, name.as_os_str(), &owner, durability)))
        }
        Task::Pipeline(_) | Task::Inspect(_) | Task::Hook(_) => {
            return Err(io::Error::other("the task is not one about files"));
        }
    })
}

/// Gives the copy to another owner.
fn give(copy: &OwnedFd, name: &OsStr, owner: &NewOwner, durability: Durability) -> Outcome {
    let owner = numbers(&Accounts::read(), owner)?;
    text(change_owner(copy.as_fd(), name, owner, durability))
}

/// Returns the numbers of an owner.
fn numbers(accounts: &Accounts, owner: &NewOwner) -> Result<Ownership, Text> {
    let NewOwner { user, group } = owner;
    let unknown = |kind: &str, name: &Text| Text::new(format!("{kind} {name} does not exist"));
    let user = match user.as_str() {
        "" => None,
        name => Some(match name.parse() {
            Ok(number) => number,
            Err(_) => text(accounts.user(name.as_ref()))?.ok_or_else(|| unknown("user", user))?.uid,
        }),
    };
    let group = match group.as_str() {
        "" => None,
        name => Some(match name.parse() {
            Ok(number) => number,
            Err(_) => text(accounts.group(name.as_ref()))?.ok_or_else(|| unknown("group", group))?.gid,
        }),
    };
    Ok(Ownership { user, group })
}

fn text<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, Text> {
    result.map_err(|error| Text::from(&error))
}

/// Writes the lists of a tree.
fn write_lists(root: Root<'_>, task: &ListTask, home: PathBuf, reports: &Reports) -> Outcome {
    let home = text(File::open(home))?;
    let lists = text(list(root, task, home.as_fd(), &|event| reports.list(event)))?;
    reports.send(JobReport::Manifest(List::Entries, lists.entries));
    if let Some(digests) = lists.digests {
        reports.send(JobReport::Manifest(List::Digests, digests));
    }
    Ok(())
}

/// Writes a list of the paths whose inodes changed since the run began.
fn list_changed(source: &OwnedFd, tree: &Tree, home: PathBuf) -> Outcome {
    let since: Timespec = {
        let program = text(File::open(home.join(PROGRAM)))?;
        modified(&text(fstat(&program))?)
    };
    let mut out = io::BufWriter::new(text(File::create(home.join(CHANGED)))?);
    text(write_changed(Root::Held(source.as_fd()), tree.name.as_os_str(), since, &mut out))?;
    text(out.flush())
}

impl Reports {
    /// Reports the progress of a list. A step without visible movement counts as waiting.
    fn list(&self, event: ListEvent) {
        match event {
            ListEvent::Complaint(text) => self.send(JobReport::Complaint(text)),
            ListEvent::Progress(progress) => {
                let waits = match progress.step {
                    Step::Syncing => Some("syncing the copy"),
                    Step::Sorting => Some("sorting the lists"),
                    Step::Listing | Step::Digesting => None,
                };
                self.send(JobReport::Waits(waits.map(Text::new)));
                self.send(JobReport::Bytes(Meter::Digests, progress.movement()));
            }
        }
    }

    /// Reports the progress of reading an archive. The meter has a counter and the bytes that it has counted.
    fn archive(&self, progress: ArchiveProgress, (counter, counted): &mut (Counter, u64)) {
        match progress {
            ArchiveProgress::Syncing => self.send(JobReport::Waits(Some(Text::new("syncing the archive")))),
            ArchiveProgress::Read(0) => self.send(JobReport::Waits(None)),
            ArchiveProgress::Read(bytes) => {
                counter.add(usize::try_from(bytes - *counted).unwrap_or_default());
                *counted = bytes;
            }
        }
    }
}
