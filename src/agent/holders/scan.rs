//! The search for processes that hold files of data directories.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Stat, statat};

use super::locks::{Locker, locker};
use super::{Holder, HoldersError, MOST_OF_AN_OWNER, MOST_TIMES};
use crate::agent::accounts::first_account;
use crate::agent::mounts::{self, Mount};
use crate::agent::proc::{Process, id, pids};
use crate::agent::trust::DATA_FILES;
use crate::proto::facts::server::Relation;
use crate::proto::files::FileId;

/// Returns the processes that work on data directories that a path is within, or around; on any without a path,
/// which must not have symbolic links. Those of system accounts come first.
pub(crate) fn data_holders(path: Option<&Path>) -> Result<Vec<Holder>, HoldersError> {
    let mut scan = Scan::new(path)?;
    for process in pids().map_err(HoldersError::Processes)?.into_iter().filter_map(Process::open) {
        scan.process(&process);
    }
    scan.lockers();
    Ok(scan.sorted())
}

struct Scan<'a> {
    path: Option<&'a Path>,
    /// The path and the directories above it, by identity.
    above: HashMap<FileId, PathBuf>,
    mounts: Vec<Mount>,
    namespace: Option<Vec<u8>>,
    found: HashMap<(FileId, Option<u32>), Holder>,
}

/// File of a data directory that a process has open for writing.
struct Open<'a> {
    process: &'a Process,
    name: &'a str,
    stat: Stat,
    mount: u64,
}

impl<'a> Scan<'a> {
    fn new(path: Option<&'a Path>) -> Result<Self, HoldersError> {
        let mut above = HashMap::new();
        for at in path.into_iter().flat_map(Path::ancestors) {
            if let Some(stat) = stat_of(at) {
                above.entry(id(&stat)).or_insert_with(|| at.to_owned());
            }
        }
        let namespace = std::fs::read_link("/proc/self/ns/mnt").ok();
        Ok(Self {
            path,
            above,
            mounts: mounts::own().map_err(HoldersError::Processes)?,
            namespace: namespace.map(|link| link.as_os_str().as_bytes().to_vec()),
            found: HashMap::new(),
        })
    }

    fn process(&mut self, process: &Process) {
        let mut seen: HashMap<(Vec<u8>, u64), usize> = HashMap::new();
        let mut mounts = None;
        process.each_descriptor(|number, link| {
            let Some((directory, name)) = data_file(link) else { return ControlFlow::Continue(()) };
            let Some(stat) = process.stat_descriptor(number) else { return ControlFlow::Continue(()) };
            let times = seen.entry((link.to_vec(), stat.st_ino)).or_default();
            *times += 1;
            if *times > MOST_TIMES {
                return ControlFlow::Continue(());
            }
            if seen.len() > MOST_OF_AN_OWNER {
                return ControlFlow::Break(());
            }
            self.descriptor(process, number, directory, (name, stat), &mut mounts);
            ControlFlow::Continue(())
        });
    }

    fn descriptor(
        &mut self,
        process: &Process,
        number: &CStr,
        directory: &Path,
        (name, stat): (&'static str, Stat),
        mounts: &mut Option<Vec<Mount>>,
    ) {
        let Some(descriptor) = process.descriptor(number).filter(|descriptor| descriptor.writes) else {
            return;
        };
        let open = Open { process, name, stat, mount: descriptor.mount };
        let theirs = mounts.get_or_insert_with(|| mounts::of(process));
        // Where the file has that name: as the link says, by another mount, or as the process sees it.
        let here: Vec<PathBuf> = std::iter::once(directory.to_owned())
            .chain(paths_here(&self.mounts, theirs, open.mount, directory))
            .filter(|directory| open.is_in(directory))
            .collect();
        let inside = || {
            let root = PathBuf::from(format!("/proc/{}/root", process.pid));
            Some(root.join(directory.strip_prefix("/").ok()?)).filter(|directory| open.is_in(directory))
        };
        let Some(any) = here.first().cloned().or_else(inside) else { return };
        let Some(path) = self.path else { return self.note(None, any, &open) };
        let above = stat_of(&any).and_then(|stat| self.above.get(&id(&stat)).cloned());
        if let Some(above) = above {
            return self.note(Some(Relation::Within), above, &open);
        }
        let around = here.into_iter().find(|directory| {
            // No server works where copies arrive.
            directory
                .strip_prefix(path)
                .is_ok_and(|below| !below.iter().any(|name| name.as_bytes().starts_with(b".transfer-")))
        });
        if let Some(around) = around {
            self.note(Some(Relation::Around), around, &open);
        }
    }

    fn note(&mut self, relation: Option<Relation>, datadir: PathBuf, open: &Open<'_>) {
        let uid = open.process.uid();
        let is_here = self.namespace.is_some() && open.process.link("ns/mnt") == self.namespace;
        let process = Some((open.process.pid, uid, is_here));
        self.add(relation, datadir, process, (open.name, open.stat.st_uid));
    }

    fn add(
        &mut self,
        relation: Option<Relation>,
        datadir: PathBuf,
        process: Option<(u32, Option<u32>, bool)>,
        (name, owner): (&str, u32),
    ) {
        let Some(stat) = stat_of(&datadir) else { return };
        let (pid, uid, is_here) =
            process.map_or((None, None, false), |(pid, uid, here)| (Some(pid), uid, here));
        let is_locked = locker(&datadir.join(name)).is_some_and(|locker| locker.pid == pid);
        let holder = self.found.entry((id(&stat), pid)).or_insert_with(|| Holder {
            relation,
            datadir,
            id: id(&stat),
            pid,
            uid: uid.unwrap_or(owner),
            owner,
            directory_owner: stat.st_uid,
            is_locked: false,
            is_here,
        });
        holder.is_locked |= is_locked;
    }

    /// Adds the holders of locks: they show also where the descriptors of a process cannot be seen.
    fn lockers(&mut self) {
        for (place, directory) in self.above.clone() {
            for name in DATA_FILES {
                let file = directory.join(name);
                let Some(Locker { pid }) = locker(&file) else { continue };
                let is_known = match pid {
                    Some(_) => self.found.contains_key(&(place, pid)),
                    None => self.found.keys().any(|(found, _)| *found == place),
                };
                let Some(stat) = statat(CWD, &file, AtFlags::SYMLINK_NOFOLLOW).ok().filter(|_| !is_known)
                else {
                    continue;
                };
                let process = pid.map(|pid| {
                    let process = Process::open(pid);
                    let is_here = process.as_ref().is_some_and(|process| {
                        self.namespace.is_some() && process.link("ns/mnt") == self.namespace
                    });
                    (pid, process.and_then(|process| process.uid()), is_here)
                });
                self.add(Some(Relation::Within), directory.clone(), process, (name, stat.st_uid));
            }
        }
    }

    fn sorted(self) -> Vec<Holder> {
        let first = first_account();
        let mut all: Vec<Holder> = self.found.into_values().collect();
        let ordinary = |holder: &Holder| u8::from(holder.owner >= first) + u8::from(holder.uid >= first);
        all.sort_by_key(|holder| (ordinary(holder), Reverse(holder.is_locked), holder.pid));
        let mut counts: HashMap<u32, usize> = HashMap::new();
        all.retain(|holder| {
            let count = counts.entry(holder.owner).or_default();
            *count += 1;
            *count <= MOST_OF_AN_OWNER
        });
        all
    }
}

impl Open<'_> {
    /// Returns whether a directory has the open file under its name.
    fn is_in(&self, directory: &Path) -> bool {
        statat(CWD, directory.join(self.name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| id(&stat) == id(&self.stat))
    }
}

fn stat_of(path: &Path) -> Option<Stat> {
    statat(CWD, path, AtFlags::empty()).ok()
}

/// Splits the link of a descriptor into the directory and the name, if it is a file of a data directory.
fn data_file(link: &[u8]) -> Option<(&Path, &'static str)> {
    let name = DATA_FILES
        .into_iter()
        .find(|name| link.strip_suffix(name.as_bytes()).is_some_and(|directory| directory.ends_with(b"/")))?;
    let directory = &link[..link.len() - name.len() - 1];
    let directory = if directory.is_empty() { b"/" } else { directory };
    directory.starts_with(b"/").then(|| (Path::new(OsStr::from_bytes(directory)), name))
}

/// Returns the paths by which a directory of another process, on its mount of that number, is reached here.
fn paths_here<'a>(
    ours: &'a [Mount],
    theirs: &[Mount],
    mount: u64,
    directory: &Path,
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let inner = theirs.iter().find(|theirs| theirs.id == mount).and_then(|theirs| {
        let below = directory.strip_prefix(&theirs.point).ok()?;
        Some((theirs.device.clone(), theirs.root.join(below)))
    });
    inner.into_iter().flat_map(move |(device, inner)| {
        ours.iter().filter_map(move |ours| {
            let below = inner.strip_prefix(&ours.root).ok().filter(|_| ours.device == device)?;
            Some(ours.point.join(below).components().collect())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, device: &str, root: &str, point: &str) -> Mount {
        Mount {
            id,
            device: device.into(),
            root: root.into(),
            point: point.into(),
            file_system: "ext4".into(),
        }
    }

    #[test]
    fn links_of_data_files_are_recognized() {
        assert_eq!(data_file(b"/srv/db/ibdata1"), Some((Path::new("/srv/db"), "ibdata1")));
        assert_eq!(data_file(b"/aria_log_control"), Some((Path::new("/"), "aria_log_control")));
        assert_eq!(data_file(b"/srv/\n/ibdata1"), Some((Path::new("/srv/\n"), "ibdata1")));
        for other in [&b"/srv/db/ibdata1 (deleted)"[..], b"/srv/db/xibdata1", b"ibdata1", b"pipe:[1]", b""] {
            assert_eq!(data_file(other), None);
        }
    }

    #[test]
    fn directories_of_containers_are_found_by_their_mounts() {
        let ours =
            [mount(1, "8:1", "/", "/"), mount(2, "8:2", "/", "/data"), mount(3, "8:2", "/db", "/bind")];
        let theirs = [mount(7, "8:2", "/db/one", "/var/lib/mysql"), mount(8, "0:9", "/", "/tmp")];
        let paths = |mount, directory: &str| {
            paths_here(&ours, &theirs, mount, Path::new(directory)).collect::<Vec<_>>()
        };
        assert_eq!(paths(7, "/var/lib/mysql"), [PathBuf::from("/data/db/one"), PathBuf::from("/bind/one")]);
        assert!(paths(8, "/tmp/x").is_empty());
        assert!(paths(9, "/var/lib/mysql").is_empty());
    }
}
