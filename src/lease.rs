//! Effects on a host, each with its undo in the guard's journal: port, firewall rules, staging, processes.
//!
//! There is no undo here: the guard has it. [`release`] is the only end of a set of guards.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};

use crate::endpoint::HostName;
use crate::error::Error;
use crate::host::guard::{Guard, GuardError, Released};
use crate::host::scripts::Script;
use crate::host::wire::printable;
use crate::host::{Host, HostError};
use crate::plan::TargetPlan;
use crate::run_id::GuardId;

/// How long, beyond the lease time, a guard that was lost or its sentinel is given to undo everything.
const SETTLE: Duration = Duration::from_secs(15);
/// Between two tries to log in again.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// An end of a run: its guard and the connection to its host.
#[derive(Debug)]
pub struct End {
    /// The guard.
    pub guard: Guard,
    /// The connection.
    pub host: Arc<Host>,
}

/// Locks the first port of a range that is free.
pub async fn port(guard: &Guard, (first, last): (u16, u16)) -> Result<u16, Error> {
    let reply = guard.call("lease_port", &[first.to_string().as_bytes(), last.to_string().as_bytes()]).await;
    let reply = reply.map_err(|error| match error {
        GuardError::Failed { host, code, .. } if code == "busy" => Error::Busy(if first == last {
            format!("{host}: port {first} is taken; choose another --port, or 0 for any")
        } else {
            format!("{host}: no port of {first}-{last} is free; see: transfer status {host}")
        }),
        other => other.into(),
    })?;
    let text = reply.first().map(|field| printable(field)).unwrap_or_default();
    text.parse()
        .map_err(|_| Error::Failed(format!("{}: the guard leased no port but {text:?}", guard.host())))
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

/// Makes the staging directory.
pub async fn staging(guard: &Guard, path: &Path) -> Result<(), GuardError> {
    guard.call("make_staging", &[path.as_os_str().as_bytes()]).await.map(drop)
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
}

/// Undoes everything that a guard holds, and makes sure of it: a guard that went without a word is asked for over
/// the connection, or over a new one. `silence` is as in [`Host::connect`].
pub async fn release(end: End, silence: Duration) -> Release {
    let End { guard, host } = end;
    let name = guard.host().to_owned();
    let id = guard.id().clone();
    // A large staging directory may take its time; the user is told, and may leave with a second signal.
    let told = guard.release(Duration::from_secs(24 * 3600)).await;
    let published = guard.published();
    drop(guard);
    let leftovers = match told {
        Released::Told(left) => left
            .into_iter()
            .map(|what| Leftover { host: name.clone(), what: format!("could not be undone: {what}") })
            .collect(),
        Released::Lost => settle(&host, host.name(), &id, silence).await,
    };
    Release { leftovers, published }
}

async fn settle(host: &Host, name: &HostName, id: &GuardId, silence: Duration) -> Vec<Leftover> {
    // Where only our side of the connection broke, the guard waits for the whole lease time.
    let patience = silence + SETTLE;
    let seconds = patience.as_secs().to_string();
    let script = Script::admin(&["settle", id.as_str(), &seconds]);
    let limit = patience + SETTLE;
    let mut answer = within(limit, host.ask("clean-up", &script)).await;
    if let Err(first) = &answer {
        // As long as the guard itself waits for us, the way to it may come back.
        let logins = ConstantBuilder::default().with_delay(LOGIN_PAUSE).without_max_times();
        let login = (|| Host::connect(name, silence)).retry(logins);
        answer = match tokio::time::timeout(patience, login).await {
            Ok(Ok(again)) => {
                let answer = within(limit, again.ask("clean-up", &script)).await;
                again.close().await;
                answer
            }
            Ok(Err(error)) => Err(format!("{first}; then {error}")),
            Err(_) => Err(format!("{first}; then no login within {} s", patience.as_secs())),
        };
    }
    match answer {
        Ok(messages) => messages
            .iter()
            .filter_map(|message| match message.first().map(Vec::as_slice) {
                Some(b"left") => Some(format!("could not be undone: {}", words(&message[1..]))),
                Some(b"held") => {
                    Some("is still held, or being undone, by the run's guard or sentinel".to_owned())
                }
                _ => None,
            })
            .map(|what| Leftover { host: name.to_string(), what })
            .collect(),
        Err(error) => vec![Leftover {
            host: name.to_string(),
            what: format!("cannot be asked whether it has undone everything ({error})"),
        }],
    }
}

async fn within<T>(limit: Duration, ask: impl Future<Output = Result<T, HostError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, ask).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

fn words(fields: &[Vec<u8>]) -> String {
    fields.iter().map(|field| printable(field)).collect::<Vec<_>>().join(" ")
}
