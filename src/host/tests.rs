//! An agent in a thread, for tests of other modules.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::BufReader;

use super::conversation::{Conversation, Listener};
use super::link::{self, Channel, Holder, Link};
use super::{Input, Output, Process};
use crate::agent::serve;
use crate::proto::command::Event;
use crate::proto::hello::MAGIC;

struct Deaf;

impl Listener for Deaf {
    fn hear(&self, _: Event) {}
    fn contact(&self, _: bool) {}
    fn lose(&self) {}
}

/// Starts an agent of this process, which begins no run.
pub(crate) async fn converse() -> Conversation {
    let (own, input) = UnixStream::pair().unwrap();
    let output = input.try_clone().unwrap();
    thread::spawn(move || serve::converse(input, output).unwrap());
    own.set_nonblocking(true).unwrap();
    let (reader, writer) = tokio::net::UnixStream::from_std(own).unwrap().into_split();
    let mut input: Input = Box::new(writer);
    let mut output: Output = BufReader::new(Box::new(reader));
    let mut first = vec![0; MAGIC.len() + 2];
    tokio::io::AsyncReadExt::read_exact(&mut output, &mut first).await.unwrap();
    let vault = link::greet(&mut input, &mut output, Duration::from_secs(60)).await.unwrap();
    let process = Process::Local(tokio::process::Command::new("true").spawn().unwrap());
    let channel = Channel { input, output, holder: Holder::Process(process) };
    let link = Link { channel, vault };
    Conversation::new("here".into(), link, Duration::from_secs(60), Arc::new(Deaf))
}
