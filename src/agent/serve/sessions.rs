//! Logins that stay: each executes its statements in a thread of its own, beside everything else.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::outbox::Outbox;
use crate::agent::service::session::{Canceller, Session};
use crate::proto::Text;
use crate::proto::command::{Answer, Code, Failure, FromAgent};

/// Maximum number of sessions at a time.
const MOST: usize = 64;

/// Sessions of an agent.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<u32, Open>,
    next: u32,
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

impl Sessions {
    /// Adds a session and returns its number.
    pub(crate) fn add(&mut self, mut session: Session, outbox: Outbox) -> Result<u32, Failure> {
        if self.open.len() >= MOST {
            return Err(failure("too many sessions are open"));
        }
        self.next += 1;
        let canceller = session.canceller();
        let (orders, received) = mpsc::channel::<Order>();
        let started = thread::Builder::new().name("session".into()).spawn(move || {
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

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            let _ = open.canceller.cancel();
        }
    }
}

fn failure(text: &str) -> Failure {
    Failure { code: Code::Other, text: Text::new(text) }
}
