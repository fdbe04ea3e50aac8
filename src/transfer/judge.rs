//! Whether a stream arrived as it left, from what both jobs told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use crate::backup::log::{completed, last_words};
use crate::error::Error;
use crate::host::agent::{Fault, Job};
use crate::host::wire::printable;
use crate::pipeline::build::{WIRE, sink_name};
use crate::plan::{Plan, TargetPlan};
use crate::shape::Producer;
use crate::values::{AttributeKind, files};

/// From here on a status says that a program could not be started, or was killed.
pub(super) const NOT_STARTED: i32 = 126;
/// What is said of a job that was killed as a whole, and has told of no stage.
pub(super) const KILLED_AS_A_WHOLE: &str = "its processes were ended from outside";
/// A status beyond this is that of a stage that a signal ended.
const KILLED: i32 = 128;
/// The status of a stage that was killed by SIGPIPE: a consequence of another's end.
pub(super) const BROKEN_PIPE: i32 = 141;
/// GNU tar's status when files changed, shrank or went while it read them.
const TAR_SAW_CHANGES: i32 = 1;
/// The status of a job that we stopped ourselves.
const STOPPED: i32 = 143;

/// The class of faults that are files which could not be read.
const UNREADABLE: &str = "read";
/// The class of faults that are files of a stream which were not written.
const SKIPPED: &str = "skipped";

/// An error that names the cause, the first one if one led to others.
pub fn judge(plan: &Plan, target: &TargetPlan, sender: &Job, receiver: &Job) -> Result<(), Error> {
    let host = &target.endpoint.host;
    let origin = &plan.source.endpoint.host;
    let (sent, received) = (sender.meters.get(WIRE), receiver.meters.get(WIRE));
    let all_arrived = sent.is_some() && sent == received;
    // Sinks are other targets' business; of our own, a failure shows in what arrived, unless it was killed.
    let sink = sink_name(target.number);
    let own = |stage: &str, status: i32| match stage {
        // Something changed under its eyes, it says, and be it that it could not be read. The digests of all files, and the times
        // of those that differ, will show it.
        "tar" if status == TAR_SAW_CHANGES => !plan.ignore_changed,
        stage => !stage.starts_with("netcat") || stage == sink && status > KILLED,
    };
    let of_sender = failure(sender, own, false);
    if let (Some(algorithm), Some(there), Some(here)) = (plan.stream_digest, &sender.digest, &receiver.digest)
    {
        // A digest is also taken of what a stage behind it did not take, because it was killed.
        if there != here && all_arrived && of_sender.is_none() {
            return Err(Error::Verification(format!(
                "{host}: the stream was altered on its way from {origin}: its {algorithm} there is {there}, here {here}"
            )));
        }
    }
    if let Some(text) = failure(receiver, |_, _| true, false) {
        let dropped = sender.dropped.contains_key(&sink);
        // A sender that fails makes its receivers fail, and the other way round by broken pipes only. One without
        // statuses was ended because nobody received any more.
        return Err(match of_sender {
            Some(cause) if !(sender.stages.is_empty() && sender.exit == Some(STOPPED)) => {
                Error::Failed(format!("{origin}: {cause}"))
            }
            _ if dropped => Error::Failed(format!("{host}: {origin} lost its connection to it: {text}")),
            _ if plan.shape.packed.is_some() && all_arrived && decoder_failed(receiver) => {
                Error::Failed(format!(
                    "{host}: {} of {origin} is damaged, or not what it seems: {text}",
                    printable(plan.source.endpoint.path.as_os_str().as_bytes())
                ))
            }
            _ if refused_by_a_decoder(receiver) => Error::Verification(format!(
                "{host}: the stream was altered on its way from {origin}: {text}"
            )),
            _ => Error::Failed(format!("{host}: {text}")),
        });
    }
    if let Some(text) = of_sender {
        return Err(Error::Failed(format!("{origin}: {text}")));
    }
    if !all_arrived {
        return Err(Error::Verification(format!(
            "{host}: {} bytes left {origin}, {} bytes arrived",
            sent.map_or_else(|| "no".into(), u64::to_string),
            received.map_or_else(|| "no".into(), u64::to_string)
        )));
    }
    if let Some(text) = failure(receiver, |_, _| true, true) {
        return Err(Error::Failed(format!("{host}: {text}")));
    }
    if let Some(text) = failure(sender, own, true) {
        return Err(Error::Failed(format!("{origin}: {text}")));
    }
    lost(plan, target, sender, receiver)?;
    if plan.shape.producer == Producer::Backup && !completed(&sender.log) {
        return Err(Error::Failed(format!(
            "{origin}: the backup does not say that it is complete{}",
            last_words(&sender.log)
        )));
    }
    if plan.stream_digest.is_some() && (sender.digest.is_none() || receiver.digest.is_none()) {
        let blind = if sender.digest.is_none() { origin } else { host };
        return Err(Error::Failed(format!(
            "{blind}: the digest of the stream could not be taken (is its disk full?)"
        )));
    }
    if receiver.exit != Some(0) {
        return Err(Error::Failed(format!("{host}: the receiver ended with status {:?}", receiver.exit)));
    }
    Ok(())
}

/// An error when a program lost something and ended well all the same.
fn lost(plan: &Plan, target: &TargetPlan, sender: &Job, receiver: &Job) -> Result<(), Error> {
    if let Some(files) = cannot_read(sender) {
        let origin = &plan.source.endpoint.host;
        return Err(Error::Failed(format!("{origin}: not all of the source could be read: {files}")));
    }
    let host = &target.endpoint.host;
    if let Some(fault) = receiver.faults.get(SKIPPED) {
        let skipped = listed(fault, "; ");
        return Err(Error::Verification(format!(
            "{host}: {} did not write all files of the backup: {skipped}",
            target.extractor
        )));
    }
    match lost_attributes(&target.may_lose, receiver) {
        Some(text) => Err(Error::Failed(format!("{host}: {text}"))),
        None => Ok(()),
    }
}

/// Attributes that tar could not set, other than those that may be lost.
fn lost_attributes(may_lose: &BTreeSet<AttributeKind>, receiver: &Job) -> Option<String> {
    let kinds = AttributeKind::ALL.into_iter().filter(|kind| !may_lose.contains(kind));
    let lost: Vec<(AttributeKind, &Fault)> =
        kinds.filter_map(|kind| Some((kind, receiver.faults.get(kind.name())?))).collect();
    if lost.is_empty() {
        return None;
    }
    let names: Vec<&str> = lost.iter().map(|(kind, _)| kind.name()).collect();
    let texts: Vec<String> = lost
        .iter()
        .map(|(kind, fault)| format!("{} of {} ({})", kind.plural(), files(fault.files), listed(fault, ", ")))
        .collect();
    Some(format!(
        "tar cannot set {}; choose another file system, or allow the loss with --drop-attributes={}",
        texts.join(" and "),
        names.join(",")
    ))
}

/// Files that a job could not read, and why, if there are any.
pub(super) fn cannot_read(job: &Job) -> Option<String> {
    Some(listed(job.faults.get(UNREADABLE)?, "; "))
}

/// Attributes that a target did not get, with the numbers of their files: those that the preflight has found and tar was told to
/// leave out, and those that tar could not set.
pub(super) fn dropped(target: &TargetPlan, receiver: &Job) -> BTreeMap<AttributeKind, u64> {
    let mut dropped = target.drops.clone();
    for kind in AttributeKind::ALL {
        if let Some(fault) = receiver.faults.get(kind.name()) {
            *dropped.entry(kind).or_default() += fault.files;
        }
    }
    dropped
}

/// The first files of a fault, and how many more there are.
fn listed(fault: &Fault, separator: &str) -> String {
    let named = fault.named.join(separator);
    match fault.files.saturating_sub(fault.named.len() as u64) {
        0 => named,
        more => format!("{named}{separator}{more} more"),
    }
}

/// What failed in a job, if anything: the stages with their statuses, and what they said. Broken pipes count only where
/// `pipes` says so.
fn failure(job: &Job, counts: impl Fn(&str, i32) -> bool, pipes: bool) -> Option<String> {
    let failed: Vec<String> = job
        .stages
        .iter()
        .filter(|(stage, status)| {
            counts(stage, *status) && *status != 0 && (pipes || !broken_pipe(job, stage, *status))
        })
        .map(|(stage, status)| format!("{stage} ended with status {status}"))
        .collect();
    // A job that was killed as a whole has told of no stage.
    if failed.is_empty() && !(job.stages.is_empty() && job.exit.is_some()) {
        return None;
    }
    let mut text = match failed.as_slice() {
        [] => KILLED_AS_A_WHOLE.to_owned(),
        failed => failed.join(", "),
    };
    text.push_str(&last_words(&job.log));
    text.push_str(&said(job));
    Some(text)
}

/// The first stage that failed is one that cannot make sense of what arrived, which was not merely cut short. The digest
/// never saw the rest, so there is none to compare.
fn refused_by_a_decoder(receiver: &Job) -> bool {
    let failed = |(stage, status): &&(String, i32)| *status != 0 && !broken_pipe(receiver, stage, *status);
    let ended = ["premature end", "unexpected end", "incomplete"];
    let cut_short = receiver.complaints.iter().any(|line| ended.iter().any(|words| line.contains(words)));
    receiver.stages.iter().find(failed).is_some_and(|(stage, status)| {
        matches!(stage.as_str(), "decrypt" | "decompress") && *status < NOT_STARTED && !cut_short
    })
}

/// A decoder could not make sense of what it got.
fn decoder_failed(receiver: &Job) -> bool {
    receiver.stages.iter().any(|(stage, status)| stage == "decompress" && (1..NOT_STARTED).contains(status))
}

/// What openssl says when its reader has gone: while it writes, and at its end.
const OPENSSL_CANNOT_WRITE: [&str; 2] = ["error writing output file", "file_ctrl:Broken pipe"];

/// A stage that ended because its reader had ended. openssl has a status and words of its own for it.
fn broken_pipe(job: &Job, stage: &str, status: i32) -> bool {
    status == BROKEN_PIPE
        || matches!(stage, "encrypt" | "decrypt")
            && job.complaints.iter().any(|line| OPENSSL_CANNOT_WRITE.iter().any(|words| line.contains(words)))
}

/// What a job's stages said on standard error, as the tail of a message.
pub(super) fn said(job: &Job) -> String {
    let mut text = String::new();
    if !job.complaints.is_empty() {
        text = format!(": {}", job.complaints.join("; "));
    }
    // All that GNU tar says of a short write.
    if job.complaints.iter().any(|line| line.contains("Wrote only")) {
        text.push_str(" (No space left on device?)");
    }
    if job.silenced > 0 {
        text.push_str(&format!(" (and {} lines more)", job.silenced));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As seen of openssl 3.0, when its reader goes while it writes, and when it goes right before its end.
    #[test]
    fn a_decoder_whose_reader_has_gone_has_refused_nothing() {
        let receiver = |complaint: &str| Job {
            stages: vec![("decrypt".into(), 1), ("tar".into(), 2)],
            complaints: vec!["no space left".into(), "bad decrypt".into(), complaint.into()],
            ..Job::default()
        };
        for gone in [
            "error writing output file",
            "40B7:error:80000020:system library:file_ctrl:Broken pipe:../x.c:327:",
        ] {
            assert!(!refused_by_a_decoder(&receiver(gone)), "{gone}");
        }
        assert!(refused_by_a_decoder(&receiver("bad magic number")));
    }

    #[test]
    fn lost_attributes_are_named_and_counted_unless_they_may_be_lost() {
        let fault =
            |files, named: &[&str]| Fault { files, named: named.iter().map(ToString::to_string).collect() };
        let faults = [
            ("acls".to_owned(), fault(1, &["./d/a: Operation not supported"])),
            ("xattrs".to_owned(), fault(5, &["./b: No space left on device", "./c: x", "./d: x"])),
        ];
        let receiver = Job { faults: faults.into(), ..Job::default() };
        let lost = |kinds: &[AttributeKind]| lost_attributes(&kinds.iter().copied().collect(), &receiver);
        assert_eq!(
            lost(&[]).unwrap(),
            "tar cannot set extended attributes of 5 files (./b: No space left on device, ./c: x, ./d: x, 2 more) and \
             ACLs of 1 file (./d/a: Operation not supported); choose another file system, or allow the loss with \
             --drop-attributes=xattrs,acls"
        );
        assert!(
            lost(&[AttributeKind::Xattrs]).unwrap().starts_with("tar cannot set ACLs of 1 file (./d/a: ")
        );
        assert_eq!(lost(&[AttributeKind::Acls, AttributeKind::Xattrs]), None);
        assert_eq!(lost_attributes(&BTreeSet::new(), &Job::default()), None);
    }
}
