//! Logins that stay: each executes its statements in a thread of its own, beside everything else.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::outbox::Outbox;
use crate::agent::service::session::{Canceller, Session};
use crate::proto::Text;
use crate::proto::command::{Answer, Code, Failure, FromAgent};

/// Maximum number of sessions at a time.
const MOST: usize = 64;
/// Time for all sessions to end: a bit more than a client gets that does not react.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Sessions of an agent.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: BTreeMap<u32, Open>,
    next: u32,
    /// Each thread has a clone, which it drops at its end.
    running: Sender<()>,
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Open {
    orders: Sender<Order>,
    canceller: Canceller,
}

/// Statements to execute; `None` for the rest of an answer.
struct Order {
    id: u64,
    statements: Option<Opened>,
}

/// Statements that were decrypted.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Statements.
    pub(crate) text: Zeroizing<Vec<u8>>,
    /// Maximum time for the answer.
    pub(crate) limit: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        let (running, ended) = mpsc::channel();
        Self { open: BTreeMap::new(), next: 0, running, ended }
    }
}

impl Sessions {
    /// Adds a session and returns its number.
    pub(crate) fn add(&mut self, mut session: Session, outbox: Outbox) -> Result<u32, Failure> {
        if self.open.len() >= MOST {
            return Err(failure("too many sessions are open"));
        }
        self.next += 1;
        let canceller = session.canceller();
        let (orders, received) = mpsc::channel::<Order>();
        let running = self.running.clone();
        let started = thread::Builder::new().name("session".into()).spawn(move || {
            let _running = running;
            for Order { id, statements } in received {
                let answer = match statements {
                    Some(Opened { text, limit }) => session.execute(&text, limit),
                    None => session.more(Duration::from_secs(60)),
                };
                let answer = answer.map_err(|error| error.failure());
                outbox.send(FromAgent::Reply { id, result: Ok(Answer::Sql(answer)) });
            }
            session.close();
        });
        started.map_err(|error| failure(&format!("cannot start a thread: {error}")))?;
        self.open.insert(self.next, Open { orders, canceller });
        Ok(self.next)
    }

    /// Passes statements to a session, which answers them later.
    pub(crate) fn execute(
        &mut self,
        id: u64,
        session: u32,
        statements: Option<Opened>,
    ) -> Result<(), Failure> {
        let open = self.open.get(&session).ok_or_else(|| failure("there is no such session"))?;
        open.orders.send(Order { id, statements }).map_err(|_| failure("the session is over"))
    }

    /// Ends a session, whatever it executes.
    pub(crate) fn close(&mut self, session: u32) {
        if let Some(open) = self.open.remove(&session) {
            // Without the channel the thread closes the session.
            let _ = open.canceller.cancel();
        }
    }

    /// Ends all sessions and waits until their clients have ended: their locks would block a server, and so
    /// would a statement that goes on after the agent has ended.
    pub(crate) fn close_all(self) {
        let Self { open, running, ended, .. } = self;
        for open in open.into_values() {
            let _ = open.canceller.cancel();
        }
        drop(running);
        // Nothing is sent: this returns when the last thread has dropped its end.
        let _ = ended.recv_timeout(END_LIMIT);
    }
}

fn failure(text: &str) -> Failure {
    Failure { code: Code::Other, text: Text::new(text) }
}
