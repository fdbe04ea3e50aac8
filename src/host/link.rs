//! Start of an agent and the first messages of a conversation.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bootstrap::{self, Image};
use super::lines::{MAX_LINE, read_line};
use super::{Host, HostError, Input, Output, Process, Shell};
use crate::base::printable::{LONGEST_TEXT, message};
use crate::proto::frame;
use crate::proto::hello::{Hello, MAGIC, PROTOCOL, Welcome};
use crate::proto::vault::{Exchange, Side, Vault};

/// Action in messages.
const ACTION: &str = "start of the agent";
/// Time limit for all of it: 2 MB need a minute at 35 kB/s.
const LIMIT: Duration = Duration::from_secs(180);
/// Beginning of a line of the bootstrap script.
const SCRIPT: &[u8] = b"transfer-bootstrap ";
/// Maximum number of bytes that start-up files may write.
const MOST_NOISE: usize = 1 << 20;

/// Conversation with an agent that has begun.
pub(crate) struct Link {
    /// Channel to the agent.
    pub(crate) channel: Channel,
    /// Keys for secrets.
    pub(crate) vault: Vault,
}

/// Channel to an agent.
pub(crate) struct Channel {
    /// Frames to the agent.
    pub(crate) input: Input,
    /// Frames from the agent.
    pub(crate) output: Output,
    /// Dropping this ends local processes only; the agent ends when its input is closed.
    pub(crate) holder: Holder,
}

/// Processes of a channel.
#[expect(dead_code, reason = "held because dropping it ends the processes")]
pub(crate) enum Holder {
    /// The process at the other end of the channel.
    Process(Process),
    /// The same, with the connection to its host.
    Host(Process, Box<Host>),
}

impl Host {
    /// Starts an agent, which changes nothing on the host before it is told to.
    pub(crate) async fn start_agent(&self) -> Result<Link, HostError> {
        tokio::time::timeout(LIMIT, self.begin_agent())
            .await
            .unwrap_or_else(|_| Err(self.silent(ACTION, LIMIT)))
    }

    async fn begin_agent(&self) -> Result<Link, HostError> {
        let broken = |source| self.broken(ACTION, source);
        let images = bootstrap::images().await.map_err(|error| broken(io::Error::other(error)))?;
        let Shell { mut stdin, mut stdout, process } = self.bootstrap(&images).await?;
        let mut said = Vec::new();
        let (mut noise, mut is_sent) = (0, false);
        loop {
            let line = read_line(&mut stdout).await.map_err(broken)?;
            let Some(line) = line else { return Err(self.no_shell(ACTION, &said)) };
            noise += line.len() + 1;
            if noise > MOST_NOISE {
                return Err(broken(io::Error::other("the start-up files wrote more than 1 MiB")));
            }
            if line == MAGIC {
                break;
            }
            let Some(words) = line.strip_prefix(SCRIPT) else {
                if !line.is_empty() {
                    said = line;
                }
                continue;
            };
            let words = message(words, LONGEST_TEXT);
            match words.split_once(' ') {
                Some(("send", machine)) if !is_sent => {
                    let image = images.iter().find(|image| image.machine == machine);
                    // If the script has ended, its last line says why.
                    let _ = send(&mut stdin, image.ok_or_else(|| self.unexpected(&words))?).await;
                    is_sent = true;
                }
                Some(("failed", text)) => {
                    let (host, text) = (self.name.to_string(), text.to_owned());
                    return Err(HostError::Refused { host, text });
                }
                _ => return Err(self.unexpected(&words)),
            }
        }
        let vault = greet(&mut stdin, &mut stdout, self.silence).await.map_err(broken)?;
        let channel = Channel { input: stdin, output: stdout, holder: Holder::Process(process) };
        Ok(Link { channel, vault })
    }

    fn unexpected(&self, words: &str) -> HostError {
        self.broken(ACTION, io::Error::other(format!("unexpected answer of the bootstrap script: {words}")))
    }
}

async fn send(input: &mut Input, image: &Image) -> io::Result<()> {
    input.write_all(&image.bytes).await?;
    input.flush().await
}

/// Exchanges keys.
pub(super) async fn greet(input: &mut Input, output: &mut Output, silence: Duration) -> io::Result<Vault> {
    let (hello, _): (Hello, _) = read(output).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if hello.protocol != PROTOCOL {
        return Err(io::Error::other(format!(
            "the agent is version {} (protocol {}), expected protocol {PROTOCOL}",
            hello.program, hello.protocol
        )));
    }
    let exchange = Exchange::new().map_err(io::Error::other)?;
    let welcome = Welcome { key: exchange.public(), lease_seconds: silence.as_secs() };
    let welcome = frame::encode(&welcome).map_err(io::Error::other)?;
    input.write_all(&welcome).await?;
    input.flush().await?;
    exchange.agree(Side::Controller, hello.key).map_err(io::Error::other)
}

/// Reads a message of an agent and returns it with its length; `None` at the end of its output. What is no message is
/// [`io::ErrorKind::InvalidData`].
pub(crate) async fn read<T: serde::de::DeserializeOwned>(
    output: &mut Output,
) -> io::Result<Option<(T, usize)>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut header = [0; frame::HEADER];
    match output.read(&mut header[..1]).await? {
        0 => return Ok(None),
        _ => output.read_exact(&mut header[1..]).await?,
    };
    let length = frame::length(header).map_err(invalid)?;
    // Memory grows with what arrives, and not with what a header announces.
    let mut body = Vec::with_capacity(length.min(MAX_LINE));
    (&mut *output).take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = frame::decode(&body).map_err(invalid)?;
    Ok(Some((message, length)))
}
