//! Way to the agent of a run by another connection, when its own was cut.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

use super::link::{self, Channel, Holder, Link};
use super::{Host, HostError};
use crate::base::endpoint::HostName;
use crate::config::settings::Login;
use crate::proto::attach::{Attach, Attached, Challenge};
use crate::proto::command::{Answer, Command, FromAgent, ToAgent};
use crate::proto::frame;
use crate::proto::name::AgentName;
use crate::proto::vault::Vault;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Time without contact that is not worth a message.
const QUIET: Duration = Duration::from_secs(1);

/// Way to the agent of a run.
#[derive(Debug)]
pub(super) struct WayBack {
    /// Host of the agent.
    pub(super) host: HostName,
    /// Login on it.
    pub(super) login: Login,
    /// Lease time: the agent waits as long.
    pub(super) lease: Duration,
    /// The agent.
    pub(super) agent: AgentName,
}

/// Error of an attempt.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    /// The host cannot be reached, or starts no agent.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The channel broke.
    #[error(transparent)]
    Channel(#[from] io::Error),
    /// There is no such agent any more, or it does not go on.
    #[error("the agent of the run has ended")]
    Ended,
}

impl AttachError {
    fn may_pass(&self) -> bool {
        match self {
            // The lease time limits how long that is tried.
            Self::Host(_) | Self::Channel(_) => true,
            Self::Ended => false,
        }
    }
}

impl WayBack {
    /// Tries to reach the agent until the lease time has passed. Returns the channel and the number of the last
    /// command that has arrived there; `None` if the agent has ended.
    pub(super) async fn find(&self, vault: &Vault, arrived: u64) -> Option<(Channel, u64)> {
        let (host, lease) = (&self.host, self.lease.as_secs());
        tracing::debug!("{host}: the connection has ended");
        let mut search = pin!(timeout(self.lease, self.search(vault, arrived)));
        if let Ok(found) = timeout(QUIET, &mut search).await {
            return found.ok()?;
        }
        tracing::warn!(
            "{host}: no contact; unless it comes back within {lease} s of the last heartbeat (--lease-time), the \
             host rolls the run back"
        );
        let found = search.await.ok()?;
        if found.is_some() {
            tracing::warn!("{host}: in contact again");
        }
        found
    }

    async fn search(&self, vault: &Vault, arrived: u64) -> Option<(Channel, u64)> {
        loop {
            match self.attach(vault, arrived).await {
                Ok(found) => return Some(found),
                Err(error) => {
                    tracing::debug!("{}: {error}", self.host);
                    if !error.may_pass() {
                        return None;
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn attach(&self, vault: &Vault, arrived: u64) -> Result<(Channel, u64), AttachError> {
        let host = Host::connect(&self.host, &self.login, self.lease).await?;
        let Link { channel, .. } = host.start_agent().await?;
        let Channel { mut input, mut output, holder } = channel;
        let order = ToAgent::Call { id: 1, command: Command::Attach { agent: self.agent.clone() } };
        send(&mut input, &order).await?;
        let reply = next(&mut output).await?;
        let FromAgent::Reply { id: 1, result: Ok(Answer::Done) } = reply else {
            return Err(AttachError::Ended);
        };
        let Challenge(challenge) = next(&mut output).await?;
        let proof = vault.seal(&challenge).map_err(io::Error::other)?;
        send(&mut input, &Attach { proof, arrived }).await?;
        let attached = next(&mut output).await?;
        let Attached::Resumed { call } = attached else { return Err(AttachError::Ended) };
        let holder = match holder {
            Holder::Process(process) | Holder::Host(process, _) => Holder::Host(process, Box::new(host)),
        };
        Ok((Channel { input, output, holder }, call))
    }
}

async fn next<T: serde::de::DeserializeOwned>(output: &mut super::Output) -> io::Result<T> {
    let (message, _) = link::read(output).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(message)
}

async fn send<T: serde::Serialize>(input: &mut super::Input, message: &T) -> io::Result<()> {
    input.write_all(&frame::encode(message).map_err(io::Error::other)?).await?;
    input.flush().await
}
