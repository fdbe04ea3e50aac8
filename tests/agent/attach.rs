//! Connections that are cut, and controllers that come back by another one.

use std::time::{Duration, Instant};

use transfer::proto::attach::{Attach, Attached, Challenge};
use transfer::proto::command::{Answer, Command as Order, Ending, Event};
use transfer::proto::job::{JobName, JobReport};

use super::controller::{Agent, Cut, Sandbox, eventually, in_staging};
use super::{NAME, publish};

/// Lease time in seconds. The end of input is a cut after a sixth of it.
const LEASE: u64 = 6;

/// A run whose connection is cut while a job runs that lasts longer.
fn cut(sandbox: &Sandbox) -> Cut {
    let mut agent = Agent::start(sandbox);
    agent.begin(NAME, LEASE);
    agent.stage(sandbox, NAME);
    agent.start_job(JobName::Verify, in_staging("sleep 4; printf later >data"));
    agent.ping();
    std::thread::sleep(Duration::from_millis(3200));
    agent.cut()
}

#[test]
fn cut_run_goes_on_by_another_connection() {
    let sandbox = Sandbox::new();
    let cut = cut(&sandbox);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(sandbox.journals(), [NAME], "the run goes on without a connection");
    let mut agent = cut.attach(&sandbox);
    // It has ended, or ends now: its end is reported once, and only now.
    agent.until(|event| matches!(event, Event::Job(JobName::Verify, JobReport::Exit(0))));
    agent.done(publish());
    agent.end();
    agent.until(|event| *event == Event::Bye);
    assert!(eventually(|| sandbox.journals().is_empty()));
    assert_eq!(std::fs::read_to_string(sandbox.path("target/data")).unwrap(), "later");
    assert_eq!(sandbox.target(), ["data"]);
}

#[test]
fn controller_that_does_not_come_back_is_waited_for_only_for_the_lease_time() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let _cut = cut(&sandbox);
    assert!(eventually(|| sandbox.journals().is_empty()));
    assert!(start.elapsed() > Duration::from_secs(LEASE), "{:?}", start.elapsed());
    assert!(sandbox.target().is_empty());
}

#[test]
fn other_controller_of_the_same_account_is_refused() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    let mut other = Agent::start(&sandbox);
    assert_eq!(other.call(attach()), Ok(Answer::Done));
    let Challenge(challenge) = other.read_other();
    // With the keys of its own conversation.
    other.write_other(&Attach { proof: other.seal_bytes(&challenge), arrived: 0 });
    assert!(other.is_over(), "it is let in");
    agent.stage(&sandbox, NAME);
    let events = agent.release();
    assert!(events.contains(&Event::Ending(Ending::Released)), "{events:?}");
}

#[test]
fn run_that_has_ended_is_not_attached_to() {
    let sandbox = Sandbox::new();
    let mut other = Agent::start(&sandbox);
    assert!(other.call(attach()).is_err());
    assert!(other.is_over());
    assert!(sandbox.journals().is_empty());
}

fn attach() -> Order {
    Order::Attach { agent: transfer::proto::name::AgentName::new(NAME).unwrap() }
}

impl Cut {
    /// Comes back by another agent.
    fn attach(self, sandbox: &Sandbox) -> Agent {
        let mut agent = Agent::start(sandbox);
        assert_eq!(agent.call(attach()), Ok(Answer::Done));
        let Challenge(challenge) = agent.read_other();
        let (mut agent, arrived) = self.resume(agent);
        agent.write_other(&Attach { proof: agent.seal_bytes(&challenge), arrived });
        let attached: Attached = agent.read_other();
        assert_eq!(attached, Attached::Resumed { call: agent.calls() });
        agent
    }
}
