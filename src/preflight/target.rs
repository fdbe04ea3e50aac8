//! Checks of one target.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;

use super::{Copying, Finding, Findings, Requirements, Side, Weight, counted, same_machine, shown};
use crate::base::printable::printable;
use crate::config::settings::{Replace, Settings};
use crate::config::values::{Compress, TransferType, files};
use crate::firewall;
use crate::host::command::typable;
use crate::host::facts::{Existing, Facts, PathTrust, PathType};
use crate::proto::facts::path::SharedComponent;
use crate::shape::{Consumer, Shape, final_name};

/// Longest file name in bytes on Linux file systems (`NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// Most id mismatches that are reported one by one, for users and for groups.
const MOST_MISMATCHES: usize = 20;
/// Length of the suffix of the digest file beside an archive.
const DIGEST_SUFFIX: usize = ".sha256".len();
/// Length of the suffix that `--keep-old` adds to a name: `.old-` and the run id.
const OLD_SUFFIX: usize = ".old-20261120-231502-9f3c1a".len();

impl Findings {
    /// Checks the directory that receives the copy.
    pub(super) fn directory(&mut self, copying: Copying<'_>) {
        let Copying { settings, target: side, of_target, .. } = copying;
        if !settings.allow_shared_path {
            self.trust(&of_target.trust);
        }
        let path = shown(&side.endpoint.path);
        match of_target.path_type {
            PathType::Directory if of_target.read_only => {
                self.refuse(
                    &format!("{path} is on a read-only file system"),
                    "remount it read-write, or choose another directory",
                );
            }
            PathType::Directory if !of_target.writable => self.refuse(
                &format!("uid {} cannot write to {path}", side.facts.uid),
                "log in as a user who can",
            ),
            PathType::Directory => {}
            PathType::Missing => self.refuse(
                &format!("{path} does not exist"),
                &format!("mkdir {}", typable(side.endpoint.path.as_os_str().as_bytes())),
            ),
            other => {
                self.refuse(&format!("{path} is a {other}"), "give a directory: the copy is created in it");
            }
        }
    }

    /// Refuses a path with a component that other accounts can replace: they could redirect the copy.
    fn trust(&mut self, trust: &PathTrust) {
        const ALLOW: &str = "allow it with --allow-shared-path";
        match trust {
            PathTrust::Trusted => {}
            PathTrust::Unknown(reason) => self.refuse(
                &format!("cannot determine which accounts can replace the path: {reason}"),
                &format!("choose another directory, or {ALLOW}"),
            ),
            PathTrust::Shared(SharedComponent { path, owner, mode }) => {
                let word = typable(path.as_bytes());
                self.refuse(
                    &format!("other accounts can replace {path} (owner {owner}, mode {mode:o})"),
                    &format!(
                        "choose another directory, run: chown root {word}; chmod go-w {word}, or {ALLOW}"
                    ),
                );
            }
        }
    }

    /// Checks the final name of the copy.
    pub(super) fn name(&mut self, copying: Copying<'_>) {
        let Copying { settings, source, target: Side { endpoint, .. }, of_target, .. } = copying;
        let Some(name) = final_name(settings, source.endpoint, Some(source.facts)) else {
            if let Some(other) = &of_target.holds {
                self.refuse_existing(
                    &format!("{} is not empty: it contains {other}", shown(&endpoint.path)),
                    "empty it, choose another directory, or give --as NAME to create the copy inside it",
                );
            }
            return;
        };
        let final_path = shown(&endpoint.path.join(&name));
        let replace =
            if settings.transfer_type == TransferType::Compress { Replace::No } else { settings.replace };
        let suffix = match (settings.transfer_type, replace) {
            (TransferType::Compress, _) => DIGEST_SUFFIX,
            (_, Replace::Keep) => OLD_SUFFIX,
            _ => 0,
        };
        let longest = LONGEST_NAME - suffix;
        if name.len() > longest {
            self.refuse(
                &format!(
                    "the name {} has {} bytes, the limit is {longest}",
                    printable(name.as_bytes()),
                    name.len()
                ),
                "choose a shorter one with --as",
            );
        }
        if of_target.existing != Existing::Nothing {
            if replace == Replace::No {
                self.refuse_existing(
                    &format!(
                        "{final_path}{} already exists",
                        if suffix == DIGEST_SUFFIX { " or its digest file" } else { "" }
                    ),
                    if suffix == DIGEST_SUFFIX {
                        "move it away, or choose another directory or name (--as)"
                    } else {
                        "move it away, choose another directory or name (--as), or replace it (--replace)"
                    },
                );
            } else if of_target.mounted {
                self.refuse(
                    &format!("a file system is mounted at or below {final_path}"),
                    "unmount it, or choose another directory or name (--as)",
                );
            }
        }
    }

    /// Refuses a source and a target on one host where one contains the other.
    pub(super) fn overlap(&mut self, copying: Copying<'_>) {
        let Copying { settings, source, target: side, of_source, of_target } = copying;
        if !same_machine(source, side) || of_target.real.as_os_str().is_empty() {
            return;
        }
        let path = shown(&side.endpoint.path);
        // Compare paths, which cross mount points, and places, which bind mounts do not hide.
        let below = |inner: &Path, outer: &Path| !outer.as_os_str().is_empty() && inner.starts_with(outer);
        let inside = below(&of_target.real, &of_source.real) || below(&of_target.place, &of_source.place);
        if of_source.path_type == PathType::Directory && inside {
            self.refuse(&format!("{path} is inside the source"), "choose a directory outside it");
        }
        let name = final_name(settings, source.endpoint, Some(source.facts)).unwrap_or_default();
        let final_path = of_target.real.join(&name);
        let holds_source = below(&of_source.real, &final_path)
            || !of_target.place.as_os_str().is_empty()
                && below(&of_source.place, &of_target.place.join(&name));
        let is_source = of_source.id.is_some_and(|id| of_target.existing == Existing::Entry(id));
        if settings.replace != Replace::No && (is_source || holds_source) {
            self.refuse(
                &format!("{} is or contains the source", shown(&final_path)),
                "choose another directory or name (--as)",
            );
        }
    }

    /// Refuses a file system with too little space, counting accepted targets that share it.
    pub(super) fn space(&mut self, copying: Copying<'_>, before: &[Side<'_>]) {
        let Copying { settings, source, target: side, of_source, of_target } = copying;
        let shape = Shape::of(settings, source.facts);
        let (each, entries) = match (shape.consumer, of_source.archive) {
            (Consumer::Tree | Consumer::Backup, None) => (of_source.disk_bytes, of_source.entries),
            (_, Some(archive)) => (archive.bytes.unwrap_or(of_source.disk_bytes), 1),
            _ if settings.compress == Compress::No => (of_source.bytes.max(of_source.disk_bytes), 2),
            // The compressed size is not known in advance.
            _ => (0, 2),
        };
        let path = shown(&side.endpoint.path);
        let device =
            |other: &Side<'_>| other.facts.target.as_ref().and_then(|target| target.id).map(|id| id.device);
        let sharing = before
            .iter()
            .filter(|other| {
                let own = of_target.id.map(|id| id.device);
                same_machine(side, **other) && own.is_some() && device(other) == own
            })
            .count() as u64;
        let (copies, verb) = match sharing {
            0 => ("the source".to_owned(), "needs"),
            n => (format!("{} copies on this file system", n + 1), "need"),
        };
        let needed = each.saturating_mul(sharing + 1);
        if of_target.free_bytes < needed {
            self.refuse(
                &format!(
                    "{path} has {} free ({}), {copies} {verb} {} ({})",
                    HumanBytes(of_target.free_bytes),
                    counted(of_target.free_bytes, "byte"),
                    HumanBytes(needed),
                    counted(needed, "byte"),
                ),
                "free some space, or choose another directory",
            );
        }
        let entries = entries.saturating_mul(sharing + 1);
        if of_target.free_inodes.is_some_and(|free| free < entries) {
            self.refuse(
                &format!("the file system of {path} has too few free inodes for {}", files(entries)),
                "choose another file system",
            );
        }
    }

    /// Refuses a case-insensitive target for names that differ only in case.
    pub(super) fn case(&mut self, copying: Copying<'_>) {
        let Copying { target: Side { endpoint, .. }, of_source, of_target, .. } = copying;
        if let (true, Some(twin)) = (of_target.folds_case, &of_source.twin) {
            self.refuse(
                &format!(
                    "the file system of {} is case-insensitive, and another name differs from {twin} only in \
                     case",
                    shown(&endpoint.path)
                ),
                "choose another file system, or rename one of them on the source",
            );
        }
    }

    /// Refuses a data-path address that is not an address of the host.
    pub(super) fn foreign(&mut self, side: Side<'_>, option: &str) {
        if let Some(address) = side.foreign {
            self.refuse(
                &format!(
                    "{option} {address} is not an address of this host (it has {})",
                    addresses(side.facts)
                ),
                "give one of its addresses, or omit the option",
            );
        }
    }

    /// Reports that the source cannot reach any known address of the target.
    pub(super) fn no_route(&mut self, requirements: &Requirements, source: Side<'_>, side: Side<'_>) {
        self.refuse(
            &format!(
                "the source cannot reach any known address of this host (it has {})",
                addresses(side.facts)
            ),
            "give both hosts as SSH hosts with addresses of the same family (IPv4 or IPv6), or give \
             --target-address",
        );
        let Some(package) = requirements.netcat else { return };
        for end in [source, side] {
            let facts = end.facts;
            if !facts.netcats.is_empty() && facts.netcat(&[IpAddr::V6(Ipv6Addr::LOCALHOST)]).is_none() {
                self.list.push(Finding {
                    host: end.endpoint.host.to_string(),
                    weight: Weight::Refusal,
                    problem: "the only netcat is the traditional one, which does not support IPv6".into(),
                    fix: format!("apt install {package}"),
                    kind: None,
                });
            }
        }
    }

    /// Refuses nftables tables with an owner: only the owning process can change them.
    pub(super) fn firewall(&mut self, settings: &Settings, facts: &Facts, peer: IpAddr) {
        let ports = match settings.ports {
            ports if ports.first == ports.last => format!("port {ports}"),
            ports => format!("ports {ports}"),
        };
        for table in firewall::not_ours_to_open(facts, settings.firewall, peer) {
            self.refuse(
                &format!(
                    "nftables table {table} filters incoming connections and can be changed only by the \
                     program that owns it"
                ),
                &format!("open {ports} for the source in that program, and use --firewall none"),
            );
        }
    }

    /// Checks the owners that the copy will have.
    pub(super) fn owners(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        let (there, here) = (source.facts, side.facts);
        if settings.chown.is_none() {
            // Without root on both sides, the copy belongs to the login account.
            let are_kept = Shape::of(settings, there).compares_files();
            if are_kept && there.uid == 0 && here.uid == 0 {
                self.ids("user", &there.users, &here.users, source);
                self.ids("group", &there.groups, &here.groups, source);
            }
            return;
        }
        if here.uid != 0 {
            self.refuse("--chown requires root", "log in as root, or use --sudo");
        }
        for unknown in here.target.iter().flat_map(|target| &target.unknown_owners) {
            self.refuse(&format!("{unknown} does not exist (--chown)"), "create it, or give its numeric id");
        }
    }

    /// Warns of names that have another id on this host.
    fn ids(
        &mut self,
        kind: &str,
        there: &BTreeMap<String, u32>,
        here: &BTreeMap<String, u32>,
        source: Side<'_>,
    ) {
        let id = if kind == "user" { "uid" } else { "gid" };
        let differing = there.iter().filter_map(|(name, number)| {
            let other = here.get(name).filter(|other| *other != number)?;
            Some((name, number, other))
        });
        let more = differing.clone().count().saturating_sub(MOST_MISMATCHES) as u64;
        for (name, number, other) in differing.take(MOST_MISMATCHES) {
            let holder = here
                .iter()
                .find(|(_, of)| *of == number)
                .map_or_else(|| format!("no such {kind}"), |(holder, _)| holder.clone());
            self.warn(
                &format!(
                    "{id} mismatch: {name} is {number} on {} but {other} here; the copy would belong to \
                     {id} {number} ({holder})",
                    source.endpoint.host
                ),
                "set the owner with --chown USER:GROUP",
            );
        }
        if more > 0 {
            self.warn(
                &format!("{id} mismatch: the same applies to {}", counted(more, &format!("more {kind}"))),
                "set the owner with --chown USER:GROUP",
            );
        }
    }
}

fn addresses(facts: &Facts) -> String {
    let all: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
