//! Verdict on a stream, from the reports of sender and receiver. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use crate::base::printable::printable;
use crate::config::values::{AttributeKind, files};
use crate::error::Error;
use crate::host::agent::{Fault, Job};
use crate::mariadb::backup::log::{completed, last_words};
use crate::pipeline::messages::{cannot_read, listed, said};
use crate::plan::{Plan, TargetPlan};
use crate::proto::job::{FaultClass, Meter, Program};
use crate::shape::Producer;

/// Lowest exit status of a program that could not be started or was killed.
pub(super) const NOT_STARTED: i32 = 126;
/// Message for a job that was killed as a whole and has reported no stage.
pub(super) const KILLED_AS_A_WHOLE: &str = "its processes were killed from outside";
/// A higher exit status means that a signal ended the stage.
const KILLED: i32 = 128;
/// Exit status of a stage that SIGPIPE killed: a consequence of another stage's end.
pub(super) const BROKEN_PIPE: i32 = 141;
/// Exit status of GNU tar when files changed, shrank or disappeared while it read them.
const TAR_SAW_CHANGES: i32 = 1;
/// Exit status of a job that we stopped.
const STOPPED: i32 = 143;

/// Checks that a stream arrived unchanged. The error names the cause, and the first one if it led to others.
pub fn judge(plan: &Plan, target: &TargetPlan, sender: &Job, receiver: &Job) -> Result<(), Error> {
    let ends = Ends { plan, target, sender, receiver };
    let host = &target.endpoint.host;
    let origin = &plan.source.endpoint.host;
    let of_sender = ends.failure_of_sender(false);
    if of_sender.is_none() {
        ends.same_digest()?;
    }
    if let Some(text) = failure(receiver, |_, _| true, false) {
        return Err(ends.receiver_failed(&text, of_sender));
    }
    if let Some(text) = of_sender {
        return Err(Error::Failed(format!("{origin}: {text}")));
    }
    ends.same_bytes()?;
    if let Some(text) = failure(receiver, |_, _| true, true) {
        return Err(Error::Failed(format!("{host}: {text}")));
    }
    if let Some(text) = ends.failure_of_sender(true) {
        return Err(Error::Failed(format!("{origin}: {text}")));
    }
    lost(plan, target, sender, receiver)?;
    if plan.shape.producer == Producer::Backup && !completed(&sender.log) {
        return Err(Error::Failed(format!(
            "{origin}: the backup program did not report success{}",
            last_words(&sender.log)
        )));
    }
    if plan.stream_digest.is_some() && (sender.digest.is_none() || receiver.digest.is_none()) {
        let blind = if sender.digest.is_none() { origin } else { host };
        return Err(Error::Failed(format!(
            "{blind}: the digest of the stream could not be computed (disk full?)"
        )));
    }
    if receiver.exit != Some(0) {
        let status = receiver.exit.map_or_else(|| "unknown".into(), |status| status.to_string());
        return Err(Error::Failed(format!("{host}: the receiver ended with status {status}")));
    }
    Ok(())
}

/// Both ends of the stream to one target, with their jobs.
#[derive(Clone, Copy)]
struct Ends<'a> {
    plan: &'a Plan,
    target: &'a TargetPlan,
    sender: &'a Job,
    receiver: &'a Job,
}

impl Ends<'_> {
    /// Returns the bytes that were sent and received after the common point of the stream.
    fn wire_bytes(&self) -> [Option<&u64>; 2] {
        [self.sender, self.receiver].map(|job| job.meters.get(&Meter::Wire))
    }

    fn all_arrived(&self) -> bool {
        let [sent, received] = self.wire_bytes();
        sent.is_some() && sent == received
    }

    /// Describes the failure of the sender, as far as it matters for this target: sinks of other targets do not. A
    /// failure of our own sink shows in the data that arrived, unless it was killed.
    fn failure_of_sender(&self, pipes: bool) -> Option<String> {
        let counts = |stage: &Program, status: i32| match stage {
            // tar also uses this status for files that it could not read. With --ignore-changed, the digests of
            // all files and the times of those that differ will show it.
            Program::Tar if status == TAR_SAW_CHANGES => !self.plan.ignore_changed,
            Program::Sink(number) => *number == self.target.number && status > KILLED,
            _ => true,
        };
        failure(self.sender, counts, pipes)
    }

    /// Compares the digests of the stream, which also cover data that a killed stage after them never read.
    fn same_digest(&self) -> Result<(), Error> {
        let Self { plan, target, sender, receiver } = self;
        if let (Some(algorithm), Some(there), Some(here)) =
            (plan.stream_digest, &sender.digest, &receiver.digest)
        {
            if there != here && self.all_arrived() {
                return Err(Error::Verification(format!(
                    "{}: the stream was altered on its way from {}: its {algorithm} was {there} there and {here} \
                     here",
                    target.endpoint.host, plan.source.endpoint.host
                )));
            }
        }
        Ok(())
    }

    /// Compares the numbers of bytes that were sent and received.
    fn same_bytes(&self) -> Result<(), Error> {
        if self.all_arrived() {
            return Ok(());
        }
        let [sent, received] =
            self.wire_bytes().map(|bytes| bytes.map_or_else(|| "no".into(), u64::to_string));
        let (host, origin) = (&self.target.endpoint.host, &self.plan.source.endpoint.host);
        Err(Error::Verification(format!("{host}: {origin} sent {sent} bytes, but {received} bytes arrived")))
    }

    /// Returns the cause of a receiver's failure, which `text` describes. A failing sender makes its receivers fail; a
    /// failing receiver only causes broken pipes in the sender.
    fn receiver_failed(&self, text: &str, of_sender: Option<String>) -> Error {
        let Self { plan, target, sender, receiver } = self;
        let (host, origin) = (&target.endpoint.host, &plan.source.endpoint.host);
        match of_sender {
            // A sender without statuses was stopped because no receiver was left.
            Some(cause) if !(sender.stages.is_empty() && sender.exit == Some(STOPPED)) => {
                Error::Failed(format!("{origin}: {cause}"))
            }
            _ if sender.dropped.contains_key(&target.number) => {
                Error::Failed(format!("{host}: lost the connection from {origin}: {text}"))
            }
            _ if plan.shape.packed.is_some() && self.all_arrived() && decoder_failed(receiver) => {
                Error::Failed(format!(
                    "{host}: {} of {origin} is damaged or not in the expected format: {text}",
                    printable(plan.source.endpoint.path.as_os_str().as_bytes())
                ))
            }
            _ if refused_by_a_decoder(receiver) => Error::Verification(format!(
                "{host}: the stream was altered on its way from {origin}: {text}"
            )),
            _ => Error::Failed(format!("{host}: {text}")),
        }
    }
}

/// Fails when a program lost data although it exited with 0.
fn lost(plan: &Plan, target: &TargetPlan, sender: &Job, receiver: &Job) -> Result<(), Error> {
    if let Some(files) = cannot_read(sender) {
        let origin = &plan.source.endpoint.host;
        return Err(Error::Failed(format!("{origin}: cannot read all of the source: {files}")));
    }
    let host = &target.endpoint.host;
    if let Some(fault) = receiver.faults.get(&FaultClass::Skipped) {
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

/// Describes attributes that tar could not set and whose loss is not allowed.
fn lost_attributes(may_lose: &BTreeSet<AttributeKind>, receiver: &Job) -> Option<String> {
    let kinds = AttributeKind::ALL.into_iter().filter(|kind| !may_lose.contains(kind));
    let lost: Vec<(AttributeKind, &Fault)> =
        kinds.filter_map(|kind| Some((kind, receiver.faults.get(&FaultClass::Attributes(kind))?))).collect();
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

/// Returns the attributes that a target lacks, with the numbers of files: those that tar left out because of
/// the preflight, and those that it could not set.
pub(super) fn dropped(target: &TargetPlan, receiver: &Job) -> BTreeMap<AttributeKind, u64> {
    let mut dropped = target.drops.clone();
    for kind in AttributeKind::ALL {
        if let Some(fault) = receiver.faults.get(&FaultClass::Attributes(kind)) {
            *dropped.entry(kind).or_default() += fault.files;
        }
    }
    dropped
}

/// Describes the failure of a job, if there is one: failed stages with their statuses, and their messages.
/// Broken pipes count only if `pipes` is set.
fn failure(job: &Job, counts: impl Fn(&Program, i32) -> bool, pipes: bool) -> Option<String> {
    let failed: Vec<String> = job
        .stages
        .iter()
        .filter(|(stage, status)| {
            counts(stage, *status) && *status != 0 && (pipes || !broken_pipe(job, stage, *status))
        })
        .map(|(stage, status)| format!("{stage} ended with status {status}"))
        .collect();
    // A job that was killed as a whole has reported no stage.
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

/// Returns whether the first failed stage is a decoder that rejected the received data, unless the data was
/// only cut short. In this case the digest is incomplete and cannot be compared.
fn refused_by_a_decoder(receiver: &Job) -> bool {
    let failed = |(stage, status): &&(Program, i32)| *status != 0 && !broken_pipe(receiver, stage, *status);
    let ended = ["premature end", "unexpected end", "incomplete"];
    let cut_short = receiver.complaints.iter().any(|line| ended.iter().any(|words| line.contains(words)));
    receiver.stages.iter().find(failed).is_some_and(|(stage, status)| {
        matches!(stage, Program::Decrypt | Program::Decompress) && *status < NOT_STARTED && !cut_short
    })
}

/// Returns whether the decompressor rejected its input.
fn decoder_failed(receiver: &Job) -> bool {
    receiver
        .stages
        .iter()
        .any(|(stage, status)| *stage == Program::Decompress && (1..NOT_STARTED).contains(status))
}

/// Messages of openssl when its reader is gone: while it writes, and at its end.
const OPENSSL_CANNOT_WRITE: [&str; 2] = ["error writing output file", "file_ctrl:Broken pipe"];

/// Returns whether a stage ended because its reader had ended. openssl has its own exit status and messages
/// for this.
fn broken_pipe(job: &Job, stage: &Program, status: i32) -> bool {
    status == BROKEN_PIPE
        || matches!(stage, Program::Encrypt | Program::Decrypt)
            && job.complaints.iter().any(|line| OPENSSL_CANNOT_WRITE.iter().any(|words| line.contains(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of openssl 3.0 when its reader ends while it writes, and right before its end.
    #[test]
    fn decoder_without_a_reader_did_not_reject_its_input() {
        let receiver = |complaint: &str| Job {
            stages: vec![(Program::Decrypt, 1), (Program::Tar, 2)],
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
    fn lost_attributes_are_reported_unless_dropped() {
        let fault =
            |files, named: &[&str]| Fault { files, named: named.iter().map(ToString::to_string).collect() };
        let faults = [
            (FaultClass::Attributes(AttributeKind::Acls), fault(1, &["./d/a: Operation not supported"])),
            (
                FaultClass::Attributes(AttributeKind::Xattrs),
                fault(5, &["./b: No space left on device", "./c: x", "./d: x"]),
            ),
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
