//! What can stand against one target, one question each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;

use super::{Finding, Findings, NETCAT, Side, Weight, same_machine, shown};
use crate::endpoint::Endpoint;
use crate::firewall;
use crate::host::command::typable;
use crate::host::facts::{Facts, Shared, SourceFacts, TargetFacts};
use crate::host::wire::printable;
use crate::settings::{Replace, Settings};
use crate::shape::{Consumer, Shape, final_name};
use crate::values::{Compress, TransferType};

/// The owner that the probe tells where it could not look.
const UNKNOWN: &str = "unknown";
/// The longest name of a file, in bytes, on the file systems of Linux.
const LONGEST_NAME: usize = 255;
/// How many owners of other numbers are told, of users and of groups.
const MOST_NUMBERS: usize = 20;
/// What the file beside an archive has more than its name.
const DIGEST_SUFFIX: usize = ".sha256".len();
/// What `--keep-old` adds to a name: `.old-` and the name of the run.
const OLD_SUFFIX: usize = ".old-20261120-231502-9f3c1a".len();

impl Findings {
    /// The directory that the copy arrives in.
    pub(super) fn directory(&mut self, settings: &Settings, side: Side<'_>, of_target: &TargetFacts) {
        if let Some(shared) = of_target.shared.as_ref().filter(|_| !settings.allow_shared_path) {
            self.shared(shared);
        }
        let path = shown(&side.endpoint.path);
        match of_target.file_type.as_str() {
            "directory" if of_target.read_only => {
                self.refuse(
                    &format!("{path} is on a file system that is mounted read-only"),
                    "mount it writable",
                );
            }
            "directory" if !of_target.writable => self.refuse(
                &format!("user id {} may not write into {path}", side.facts.uid),
                "log in as a user who may",
            ),
            "directory" => {}
            "missing" | "" => self.refuse(
                &format!("{path} does not exist"),
                &format!("mkdir {}", typable(side.endpoint.path.as_os_str().as_bytes())),
            ),
            other => {
                self.refuse(&format!("{path} is a {other}"), "name a directory: the source arrives in it");
            }
        }
    }

    /// A target directory is only as safe as all that is above it.
    fn shared(&mut self, Shared { component, owner, mode }: &Shared) {
        const ALLOW: &str = "allow it with --allow-shared-path";
        if owner == UNKNOWN {
            let problem = format!("it cannot be seen which accounts can replace {component}");
            return self.refuse(&problem, &format!("choose another directory, or {ALLOW}"));
        }
        let word = typable(component.as_bytes());
        self.refuse(
            &format!("other accounts can replace {component} (owner {owner}, mode {mode})"),
            &format!("choose another directory, run: chown root {word}; chmod go-w {word}, or {ALLOW}"),
        );
    }

    /// The name that the copy gets.
    pub(super) fn name(
        &mut self,
        settings: &Settings,
        source: Side<'_>,
        endpoint: &Endpoint,
        of_target: &TargetFacts,
    ) {
        let Some(name) = final_name(settings, source.endpoint, Some(source.facts)) else {
            if let Some(other) = &of_target.holds {
                self.refuse_existing(
                    &format!("{} is not empty: there is {other}", shown(&endpoint.path)),
                    "empty it, name another directory, or say --as NAME for a copy of that name in it",
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
                    "the name {} has {} bytes, {longest} are possible",
                    printable(name.as_bytes()),
                    name.len()
                ),
                "give it another one with --as",
            );
        }
        if of_target.exists.is_some() {
            if replace == Replace::No {
                self.refuse_existing(
                    &format!(
                        "{final_path} exists already{}",
                        if suffix == DIGEST_SUFFIX { ", or its digest" } else { "" }
                    ),
                    if suffix == DIGEST_SUFFIX {
                        "move it away, or choose another directory or name (--as)"
                    } else {
                        "move it away, choose another directory or name (--as), or replace it (--replace)"
                    },
                );
            } else if of_target.mounted {
                self.refuse(
                    &format!("something is mounted at {final_path} or below it"),
                    "unmount it, or choose another directory or name (--as)",
                );
            }
        }
    }

    /// Source and target on one host must not be in each other.
    pub(super) fn overlap(
        &mut self,
        settings: &Settings,
        source: Side<'_>,
        side: Side<'_>,
        (of_source, of_target): (&SourceFacts, &TargetFacts),
    ) {
        if !same_machine(source, side) || of_target.real.as_os_str().is_empty() {
            return;
        }
        let path = shown(&side.endpoint.path);
        // By its path, which leads through mounts, or by its place, which bind mounts do not hide.
        let below = |inner: &Path, outer: &Path| !outer.as_os_str().is_empty() && inner.starts_with(outer);
        let inside = below(&of_target.real, &of_source.real) || below(&of_target.place, &of_source.place);
        if of_source.file_type == "directory" && inside {
            self.refuse(&format!("{path} is inside of the source"), "choose a directory outside of it");
        }
        let name = final_name(settings, source.endpoint, Some(source.facts)).unwrap_or_default();
        let final_path = of_target.real.join(&name);
        let holds_source = below(&of_source.real, &final_path)
            || !of_target.place.as_os_str().is_empty()
                && below(&of_source.place, &of_target.place.join(&name));
        let is_source = of_target.exists.as_ref() == Some(&of_source.inode) && !of_source.inode.is_empty();
        if settings.replace != Replace::No && (is_source || holds_source) {
            self.refuse(
                &format!("{} is the source, or holds it", shown(&final_path)),
                "choose another directory or name (--as)",
            );
        }
    }

    pub(super) fn space(
        &mut self,
        settings: &Settings,
        (source, side): (Side<'_>, Side<'_>),
        before: &[Side<'_>],
        (of_source, of_target): (&SourceFacts, &TargetFacts),
    ) {
        let shape = Shape::of(settings, source.facts);
        let (each, entries) = match (shape.consumer, of_source.archive) {
            (Consumer::Tree | Consumer::Backup, None) => (of_source.disk_bytes, of_source.entries),
            (_, Some(archive)) => (archive.bytes.unwrap_or(of_source.disk_bytes), 1),
            _ if settings.compress == Compress::No => (of_source.bytes.max(of_source.disk_bytes), 2),
            // How small it becomes is not known.
            _ => (0, 2),
        };
        let path = shown(&side.endpoint.path);
        let device = |other: &Side<'_>| other.facts.target.as_ref().map(|target| target.device.clone());
        let sharing = before
            .iter()
            .filter(|other| {
                same_machine(side, **other)
                    && !of_target.device.is_empty()
                    && device(other) == Some(of_target.device.clone())
            })
            .count() as u64;
        let (copies, verb) = match sharing {
            0 => ("the source".to_owned(), "takes"),
            n => (format!("{} copies on this file system", n + 1), "take"),
        };
        let needed = each.saturating_mul(sharing + 1);
        if of_target.free_bytes < needed {
            self.refuse(
                &format!(
                    "{path} has {} free ({} bytes), {copies} {verb} {} ({needed} bytes)",
                    HumanBytes(of_target.free_bytes),
                    of_target.free_bytes,
                    HumanBytes(needed),
                ),
                "free some space or choose another directory",
            );
        }
        let entries = entries.saturating_mul(sharing + 1);
        if of_target.free_inodes.is_some_and(|free| free < entries) {
            self.refuse(
                &format!("the file system of {path} has too few inodes free for {entries} files"),
                "choose another file system",
            );
        }
    }

    /// Names that are two on the source and one on the target.
    pub(super) fn case(&mut self, of_source: &SourceFacts, of_target: &TargetFacts, endpoint: &Endpoint) {
        if let (true, Some(twin)) = (of_target.folds_case, &of_source.twin) {
            self.refuse(
                &format!(
                    "the file system of {} does not tell {twin} from the same name in another case",
                    shown(&endpoint.path)
                ),
                "choose another file system, or rename it on the source",
            );
        }
    }

    /// An address on the data path was said that is another's.
    pub(super) fn foreign(&mut self, side: Side<'_>, option: &str) {
        if let Some(address) = side.foreign {
            self.refuse(
                &format!("{option} {address} is no address of it (it has {})", addresses(side.facts)),
                "give one that it has, or leave the option out",
            );
        }
    }

    /// The source has no way to any address of the target.
    pub(super) fn no_way(&mut self, source: Side<'_>, side: Side<'_>) {
        self.refuse(
            &format!(
                "no address of it is known by which the source can reach it (it has {})",
                addresses(side.facts)
            ),
            "name both hosts as SSH hosts with addresses of one family (IPv4 or IPv6), or say --target-address",
        );
        for end in [source, side] {
            let facts = end.facts;
            if !facts.netcats.is_empty() && facts.netcat(&[IpAddr::V6(Ipv6Addr::LOCALHOST)]).is_none() {
                self.list.push(Finding {
                    host: end.endpoint.host.to_string(),
                    weight: Weight::Refusal,
                    problem: "its only netcat is the traditional one, which has no IPv6".into(),
                    fix: format!("apt install {NETCAT}"),
                    kind: None,
                });
            }
        }
    }

    /// Layers of the firewall that nobody but their owner opens.
    pub(super) fn firewall(&mut self, settings: &Settings, facts: &Facts, peer: IpAddr) {
        let ports = match settings.ports {
            ports if ports.first == ports.last => format!("port {ports}"),
            ports => format!("the ports {ports}"),
        };
        for table in firewall::not_ours_to_open(facts, settings.firewall, peer) {
            self.refuse(
                &format!(
                    "its nftables table {table} filters what comes in, and only the program that owns it may change it"
                ),
                &format!("open {ports} for the source in that program and give --firewall none"),
            );
        }
    }

    /// Whose the copy will be.
    pub(super) fn owners(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        let (there, here) = (source.facts, side.facts);
        if settings.chown.is_none() {
            // Without root on both sides the copy belongs to the account.
            let are_kept = Shape::of(settings, there).compares_files();
            if are_kept && there.uid == 0 && here.uid == 0 {
                self.numbers("user", &there.users, &here.users, source);
                self.numbers("group", &there.groups, &here.groups, source);
            }
            return;
        }
        if here.uid != 0 {
            self.refuse("only root may give files away (--chown)", "log in as root, or with --sudo");
        }
        for unknown in here.target.iter().flat_map(|target| &target.unknown_owners) {
            self.refuse(&format!("there is no {unknown} for --chown"), "create it, or say its number");
        }
    }

    pub(super) fn numbers(
        &mut self,
        kind: &str,
        there: &BTreeMap<String, u32>,
        here: &BTreeMap<String, u32>,
        source: Side<'_>,
    ) {
        let differing = there.iter().filter_map(|(name, number)| {
            let other = here.get(name).filter(|other| *other != number)?;
            Some((name, number, other))
        });
        let more = differing.clone().count().saturating_sub(MOST_NUMBERS);
        for (name, number, other) in differing.take(MOST_NUMBERS) {
            let holder = here.iter().find(|(_, of)| *of == number).map_or("nobody", |(holder, _)| holder);
            self.warn(
                &format!(
                    "files of the {kind} {name}, {number} on {}, will be those of {number}, {holder}: {name} is {other} \
                     here",
                    source.endpoint.host
                ),
                "give the copy its owner with --chown USER:GROUP",
            );
        }
        if more > 0 {
            self.warn(
                &format!("so it is with {more} more of that kind ({kind})"),
                "give the copy its owner with --chown USER:GROUP",
            );
        }
    }
}

fn addresses(facts: &Facts) -> String {
    let all: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
