//! Effects on a host, each with its undo in the guard's journal: port, firewall rules, staging, processes.
//!
//! There is no undo here: the guard has it. [`release`] is the only end of a set of guards.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};

use crate::error::{Error, chain};
use crate::host::guard::{Guard, GuardError, Released};
use crate::host::scripts::Script;
use crate::host::wire::{Field, LONGEST_PATH, LONGEST_TEXT, printable, short};
use crate::host::{Host, HostError};
use crate::plan::{Plan, TargetPlan};
use crate::run_id::GuardId;

/// How long, beyond the lease time, a guard that was lost or its sentinel is given to undo everything.
const SETTLE: Duration = Duration::from_secs(15);
/// How long an undo may take: the user is told that it goes on, and may leave with a second signal.
const UNDO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Between two questions whether everything is undone.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Of what a host could not undo, no more is told.
const MOST_LEFT: usize = 64;

/// An end of a run: its guard and the connection to its host.
#[derive(Debug)]
pub struct End {
    /// The guard.
    pub guard: Guard,
    /// The connection.
    pub host: Arc<Host>,
}

/// Locks the first port of a range that is free.
pub async fn port(end: &End, (first, last): (u16, u16)) -> Result<u16, Error> {
    let guard = &end.guard;
    let reply = guard.call("lease_port", &[first.to_string().as_bytes(), last.to_string().as_bytes()]).await;
    let reply = reply.map_err(|error| match error {
        GuardError::Failed { host, code, .. } if code == "busy" => Error::Busy(if first == last {
            format!("{host}: port {first} is taken; choose another --port, or 0 for any")
        } else {
            format!("{host}: no port of {first}-{last} is free; see: {}", end.host.look_after("status"))
        }),
        other => other.into(),
    })?;
    leased(&reply, (first, last))
        .map_err(|text| Error::Failed(format!("{}: the guard leased no port but {text:?}", guard.host())))
}

/// The port of a guard's reply, which is one of the range; otherwise what it replied.
pub fn leased(reply: &[Field], (first, last): (u16, u16)) -> Result<u16, String> {
    let text = reply.first().map(|field| short(field, LONGEST_TEXT)).unwrap_or_default();
    text.parse().ok().filter(|port| (first..=last).contains(port)).ok_or(text)
}

/// Opens every layer of the target's firewall for the source and that port.
pub async fn firewall(guard: &Guard, target: &TargetPlan, port: u16) -> Result<(), GuardError> {
    for layer in &target.layers {
        let peer = target.peer.to_string();
        guard
            .call(
                "open_rule",
                &[layer.name().as_bytes(), family(target), peer.as_bytes(), port.to_string().as_bytes()],
            )
            .await?;
    }
    Ok(())
}

/// Closes them again, for another port.
pub async fn close_firewall(guard: &Guard, target: &TargetPlan, port: u16) -> Result<(), GuardError> {
    for layer in &target.layers {
        guard
            .call("undo_rules", &[layer.name().as_bytes(), family(target), port.to_string().as_bytes()])
            .await?;
    }
    Ok(())
}

/// Takes the final name, so that no other run writes to it, and makes the staging directory.
pub async fn staging(plan: &Plan, end: &End, target: &TargetPlan) -> Result<(), Error> {
    let (directory, name) = (&target.endpoint.path, target.final_path.file_name().unwrap_or_default());
    let how = plan.replace.word();
    let old = target.old.as_deref().unwrap_or_default().as_bytes();
    let arguments = [directory.as_os_str().as_bytes(), name.as_bytes(), how, old];
    end.guard.call("take_target", &arguments).await.map_err(|error| match error {
        GuardError::Failed { code, text, .. } if code == "busy" => busy(&end.host, &target.final_path, &text),
        GuardError::Failed { host, code, .. } if code == "exists" => Error::Busy(format!(
            "{host}: {} was made by somebody else since the preflight and is left as it is",
            printable(target.final_path.as_os_str().as_bytes())
        )),
        other => other.into(),
    })?;
    let kind: &[u8] = if plan.keep_staging { b"kept_staging" } else { b"staging" };
    end.guard.call("make_staging", &[target.staging.as_os_str().as_bytes(), kind, how]).await?;
    Ok(())
}

/// Somebody else writes to a name; `who` is what the host tells of him.
#[must_use]
pub fn busy(host: &Host, path: &Path, who: &str) -> Error {
    Error::Busy(format!(
        "{}: another run writes to {}: {}; see: {}",
        host.name(),
        printable(path.as_os_str().as_bytes()),
        if who.is_empty() { "one that has just begun" } else { who },
        host.look_after("status")
    ))
}

/// Starts a job: a script in processes of its own. The key, if there is one, reaches it on a pipe.
pub async fn job(guard: &Guard, name: &str, script: &[u8], key: &str) -> Result<(), GuardError> {
    guard.forget(name);
    guard.call("start_job", &[name.as_bytes(), script, key.as_bytes()]).await.map(drop)
}

fn family(target: &TargetPlan) -> &'static [u8] {
    if target.peer.is_ipv4() { b"4" } else { b"6" }
}

/// Something that is still on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The host.
    pub host: String,
    /// What it is.
    pub what: String,
}

/// The end of a guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// What it could not undo, or what is not known to be undone.
    pub leftovers: Vec<Leftover>,
    /// The copy has its final name.
    pub published: bool,
    /// What has arrived and was to be kept, as paths on the host.
    pub kept: Vec<String>,
}

/// Undoes everything that a guard holds, and makes sure of it: a guard that went without a word is asked for over
/// the connection, or over a new one. `silence` is as in [`Host::connect`].
pub async fn release(end: End, silence: Duration) -> Release {
    let End { guard, host } = end;
    let name = guard.host().to_owned();
    let id = guard.id().clone();
    let told = guard.release(UNDO_LIMIT).await;
    let (published, kept) = (guard.published(), guard.kept());
    drop(guard);
    let leftovers = match told {
        Released::Told(left) => left
            .into_iter()
            .map(|what| Leftover { host: name.clone(), what: format!("could not be undone: {what}") })
            .collect(),
        Released::Lost => settle(&host, &id, silence).await,
    };
    Release { leftovers, published, kept }
}

/// Makes sure that a guard of which nothing is heard any more has undone everything; returns what it has not. `silence` is
/// as in [`Host::connect`].
pub async fn settle(host: &Host, id: &GuardId, silence: Duration) -> Vec<Leftover> {
    // Where only our side of the connection broke, the guard waits for the whole lease time before it begins.
    let patience = silence + SETTLE;
    let began = Instant::now();
    let name = host.name().to_string();
    let mut answer = ask_to_settle(host, id, patience).await;
    if let Err(first) = &answer {
        // As long as the guard itself waits for us, the way to it may come back.
        let logins = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times();
        let again = || async {
            let host = host.connect_again(silence).await?;
            let answer = ask_to_settle(&host, id, patience).await;
            host.close().await;
            answer
        };
        let again = again.retry(logins).when(HostError::may_pass);
        answer = match tokio::time::timeout(patience, again).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(second)) => {
                return vec![unknown(&name, &format!("{}; then {}", chain(first), chain(&second)))];
            }
            Err(_) => {
                let text = format!("{}; then no answer within {} s", chain(first), patience.as_secs());
                return vec![unknown(&name, &text)];
            }
        };
    }
    match answer {
        Ok(messages) => settled(&messages, began.elapsed(), &host.look_after("status"))
            .into_iter()
            .map(|what| Leftover { host: name.clone(), what })
            .collect(),
        Err(error) => vec![unknown(&name, &chain(&error))],
    }
}

/// What a host that was asked to settle a guard's leases still has of them; `status` shows more.
#[must_use]
pub fn settled(messages: &[Vec<Field>], took: Duration, status: &str) -> Vec<String> {
    let left = |message: &Vec<Field>| match message.first().map(Vec::as_slice) {
        Some(b"left") => {
            let what = short(&message[1..].join(&b' '), LONGEST_PATH);
            Some(format!("could not be undone: {what}"))
        }
        Some(b"held") => Some(format!(
            "is still held, or being undone, by the run's guard or sentinel after {} s; see: {status}",
            took.as_secs()
        )),
        _ => None,
    };
    messages.iter().filter_map(left).take(MOST_LEFT).collect()
}

fn unknown(host: &str, error: &str) -> Leftover {
    Leftover {
        host: host.to_owned(),
        what: format!("cannot be asked whether it has undone everything ({error})"),
    }
}

/// Asks a host until nothing of a guard is left, or its lock is held by nobody who begins within `patience`. Whoever holds
/// the journal after that is at work: a large staging directory may take its time, as in [`release`].
async fn ask_to_settle(host: &Host, id: &GuardId, patience: Duration) -> Result<Vec<Vec<Field>>, HostError> {
    let seconds = patience.as_secs().to_string();
    let script = Script::admin(&["settle", id.as_str(), &seconds]);
    let end = Instant::now() + UNDO_LIMIT;
    loop {
        let answer = host.ask("clean-up", &script).await?;
        let held = answer.iter().any(|message| message.first().is_some_and(|word| word == b"held"));
        if !held || Instant::now() > end {
            return Ok(answer);
        }
        // It has waited itself; one that has not is not asked without a pause.
        tokio::time::sleep(ASK_PAUSE).await;
    }
}
