//! Agent of a hostile host: it passes on what a real agent and the controller say, and adds to it. The program is
//! that of the tests itself, started with the name of the one test that calls [`converse`].

use std::io::{self, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use transfer::proto::command::{Answer, Command as Order, Event, FromAgent, ToAgent};
use transfer::proto::hello::{Hello, MAGIC, Welcome};
use transfer::proto::job::{JobName, JobReport};
use transfer::proto::journal::Undo;
use transfer::proto::name::AgentName;
use transfer::proto::status::RollbackEvent;
use transfer::proto::{HostBytes, Text, frame};

use crate::support::local::sandbox::{AGENT, Sandbox};

/// Variable with the act of the program.
const ACT: &str = "IMPOSTOR_ACT";
/// Clears the screen, sets a title, asks the terminal, and writes from right to left.
const RUBBISH: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}5n\u{202e}\r\u{8}\u{7f}evil";
/// Printable text of the same length, which is replaced by it: a text is made printable when it is made.
const MARK: &str = "%rubbish-rubbish-rubbishevil";
/// Number of events of a flood.
const MANY: usize = 3000;

/// Way in which an agent deviates from a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Answers to commands that were not sent, instead of all others.
    EndlessAnswers,
    /// A frame of 4 GiB.
    EndlessFrame,
    /// Many events of 1 MiB, then the end.
    LargeFrames,
    /// `Done`, whatever was asked.
    WrongAnswer,
    /// Control characters in all texts of facts.
    HostileFacts,
    /// Many reports after the begin of a run, then the end; many leftovers when it is settled.
    ManyEvents,
}

impl Act {
    const ALL: [Self; 6] = [
        Self::EndlessAnswers,
        Self::EndlessFrame,
        Self::LargeFrames,
        Self::WrongAnswer,
        Self::HostileFacts,
        Self::ManyEvents,
    ];
}

impl Sandbox {
    /// Returns the script that becomes such an agent.
    pub(crate) fn impostor(&self, act: Act) -> String {
        let tests = std::env::current_exe().unwrap();
        let tests = self.reachable(&tests, "tests");
        let agent = self.reachable(AGENT.as_ref(), "agent/transfer-agent");
        format!(
            "export {ACT}={act:?} AGENT='{}'; exec '{}' --exact hostile::hostile_agent --ignored --nocapture",
            agent.display(),
            tests.display()
        )
    }
}

/// Converses with a controller on standard input and output.
pub(crate) fn converse() {
    let Some(act) =
        std::env::var(ACT).ok().and_then(|name| Act::ALL.into_iter().find(|act| format!("{act:?}") == name))
    else {
        return;
    };
    let program = std::env::var_os("AGENT").expect("a program");
    let real = Command::new(program).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut real = real.expect("an agent");
    let (mut to_agent, mut from_agent) =
        (real.stdin.take().expect("piped"), real.stdout.take().expect("piped"));
    let mut magic = vec![0; MAGIC.len() + 2];
    from_agent.read_exact(&mut magic).expect("an agent begins");
    let hello: Hello = frame::read(&mut from_agent).expect("a frame").expect("a message");
    put(&magic);
    put(&frame::encode(&hello).expect("short"));
    let begun = Mutex::new(None::<AgentName>);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut input = io::stdin();
            let welcome: Welcome = frame::read(&mut input).expect("a frame").expect("a message");
            frame::write(&mut to_agent, &welcome).expect("an agent");
            while let Ok(Some(message)) = frame::read::<ToAgent>(&mut input) {
                if let ToAgent::Call { id, command } = &message {
                    if deviates(act, *id, command, &begun) {
                        continue;
                    }
                }
                if frame::write(&mut to_agent, &message).is_err() {
                    break;
                }
            }
            // Closes its input: it ends.
            drop(to_agent);
        });
        while let Ok(Some(message)) = frame::read::<FromAgent>(&mut from_agent) {
            put(&answer(act, message));
        }
        real.wait().expect("the agent ends");
        std::process::exit(0);
    });
}

/// Answers a command in place of the agent. Returns whether it has.
fn deviates(act: Act, id: u64, command: &Order, begun: &Mutex<Option<AgentName>>) -> bool {
    match (act, command) {
        (Act::EndlessAnswers, _) => loop {
            put(&reply(id + 1000, Answer::Done));
        },
        (Act::EndlessFrame, _) => {
            put(&[0xff; 4]);
            loop {
                put(RUBBISH.as_bytes());
            }
        }
        (Act::LargeFrames, _) => {
            let path = HostBytes::from(vec![0x1b; frame::MAX_FRAME - 100]);
            let agent = AgentName::new("r-source").expect("a name");
            let event = FromAgent::Event(Event::Rollback(RollbackEvent::Kept { agent, path }));
            let event = frame::encode(&event).expect("short enough");
            (0..200).for_each(|_| put(&event));
            std::process::exit(0);
        }
        (Act::WrongAnswer, _) => {
            put(&reply(id, Answer::Stopped(7)));
            true
        }
        (Act::ManyEvents, Order::Begin(begin)) => {
            *begun.lock().expect("no panics") = Some(begin.agent.clone());
            put(&reply(id, Answer::Done));
            flood(&begin.agent);
            std::process::exit(0);
        }
        (Act::ManyEvents, Order::Settle { agent, .. }) => {
            flood(agent);
            put(&reply(id, Answer::Done));
            true
        }
        _ => false,
    }
}

fn flood(agent: &AgentName) {
    for _ in 0..MANY {
        let path = HostBytes::from(RUBBISH);
        let undo = Undo::Replaced { path: path.clone() };
        let complaint = JobReport::Complaint(Text::new(MARK));
        for event in [
            Event::Job(JobName::Sender, complaint.clone()),
            Event::Job(JobName::Receiver, complaint),
            Event::Rollback(RollbackEvent::Left { agent: agent.clone(), undo, reason: Text::new(MARK) }),
            Event::Rollback(RollbackEvent::Kept { agent: agent.clone(), path }),
        ] {
            put(&hostile(&FromAgent::Event(event)));
        }
    }
}

/// Returns the frame of a message of the real agent, as this one sends it.
fn answer(act: Act, mut message: FromAgent) -> Vec<u8> {
    if let (Act::HostileFacts, FromAgent::Reply { result: Ok(answer), .. }) = (act, &mut message) {
        match answer {
            Answer::Host(facts) => {
                let text = || Text::new(MARK);
                (facts.machine, facts.boot, facts.machine_id, facts.tar) = (text(), text(), text(), text());
                facts.owned_tables = vec![text()];
                for netcat in &mut facts.netcats {
                    (netcat.program, netcat.help) = (text(), text());
                }
            }
            Answer::Source(facts) => {
                facts.real = HostBytes::from(RUBBISH);
                facts.quiesced = Some(Text::new(MARK));
                facts.owners.users = [(Text::new(MARK), 1)].into();
            }
            Answer::Target(facts) => {
                if let Some(directory) = &mut facts.directory {
                    directory.real = HostBytes::from(RUBBISH);
                    directory.busy = Some(Text::new(MARK));
                }
            }
            _ => {}
        }
    }
    hostile(&message)
}

/// Returns the frame of a message, with control characters in place of the mark.
fn hostile(message: &FromAgent) -> Vec<u8> {
    assert_eq!(MARK.len(), RUBBISH.len());
    let mut frame = frame::encode(message).expect("short enough");
    let mark = MARK.as_bytes();
    for at in 0..=frame.len().saturating_sub(mark.len()) {
        if frame[at..].starts_with(mark) {
            frame[at..at + mark.len()].copy_from_slice(RUBBISH.as_bytes());
        }
    }
    frame
}

fn reply(id: u64, answer: Answer) -> Vec<u8> {
    frame::encode(&FromAgent::Reply { id, result: Ok(answer) }).expect("short")
}

/// Writes bytes; ends the program when the controller is gone.
fn put(bytes: &[u8]) {
    let mut output = io::stdout().lock();
    if output.write_all(bytes).and_then(|()| output.flush()).is_err() {
        std::process::exit(0);
    }
}
