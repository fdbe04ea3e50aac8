//! Conversations with the agent as it is shipped, on this machine, without SSH.

mod attach;
mod controller;
mod sessions;
#[path = "../support"]
mod support {
    pub(crate) mod database;
}

use std::fs;

use transfer::proto::command::{Answer, Code, Command as Order, Ending, EndingSignal, Event};
use transfer::proto::facts::Transfer;
use transfer::proto::facts::path::{SourceQuery, TargetQuery};
use transfer::proto::files::{
    Changes, DigestKind, FileId, Freshness, ListTask, Naming, OwnerColumn, PublishTask, Replace, Tree,
};
use transfer::proto::job::{JobName, JobReport, List};
use transfer::proto::status::{Condition, RollbackEvent, StatusEntry};
use transfer::proto::task::{BeforeHook, Task};
use transfer::proto::{HostBytes, Text};

use controller::{Agent, Sandbox, eventually, in_staging};

const NAME: &str = "20261130-120000-abcdef-target1";

fn publish() -> Order {
    Order::Publish(PublishTask {
        staged: "data".into(),
        name: "data".into(),
        replace: Replace::No,
        aside: HostBytes::default(),
        durable: true,
        seen: None,
    })
}

#[test]
fn published_copy_stays_and_everything_else_goes() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    assert_eq!(sandbox.journals(), [NAME]);
    agent.done(publish());
    agent.until(|event| matches!(event, Event::Published { old: None }));
    let events = agent.release();
    assert_eq!(fs::read_to_string(sandbox.path("target/data")).unwrap(), "copied");
    assert_eq!(sandbox.target(), ["data"]);
    assert!(sandbox.journals().is_empty(), "{:?}", sandbox.journals());
    assert!(events.contains(&Event::Ending(Ending::Released)));
    let left = events.iter().filter(|event| matches!(event, Event::Rollback(RollbackEvent::Left { .. })));
    assert_eq!(left.count(), 0, "{events:?}");
}

#[test]
fn end_of_input_rolls_back() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    agent.input = None;
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Closed)), "{events:?}");
    assert!(sandbox.target().is_empty() && sandbox.journals().is_empty());
}

#[test]
fn signal_rolls_back() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    let pid = rustix::process::Pid::from_child(&agent.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Signal(EndingSignal::Terminate))), "{events:?}");
    assert!(sandbox.target().is_empty() && sandbox.journals().is_empty());
}

#[test]
fn silence_for_the_lease_time_rolls_back() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 1);
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Silence)), "{events:?}");
    assert!(sandbox.journals().is_empty());
}

#[test]
fn agent_without_a_run_ends_in_silence() {
    let sandbox = Sandbox::new();
    let agent = Agent::start_for(&sandbox, 1);
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Silence)), "{events:?}");
}

#[test]
fn watchdog_rolls_back_for_a_killed_agent() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    agent.start_job(JobName::Receiver, in_staging("sleep 1000"));
    agent.kill();
    assert!(eventually(|| sandbox.target().is_empty() && sandbox.journals().is_empty()));
}

#[test]
fn program_of_a_run_goes_with_its_journal() {
    let sandbox = Sandbox::new();
    let state = sandbox.path("home/.local/state/transfer");
    let own = sandbox.path("home/.local/state/transfer/.agent-x");
    let script =
        "umask 077; mkdir -p \"$1\" && mv \"$2\" \"$1/\" && if [ \"$3\" ]; then chown -R \"$3\" \"$4\"; fi";
    let owner = if controller::is_root() { controller::NOBODY.to_string() } else { String::new() };
    let mut prepare = std::process::Command::new("sh");
    prepare.args(["-c", script, "sh"]).args([&own, &sandbox.path("transfer-agent")]).arg(owner);
    assert!(prepare.arg(sandbox.path("home")).status().unwrap().success());
    let mut agent = Agent::start_from(&sandbox, "home/.local/state/transfer/.agent-x/transfer-agent");
    assert!(!state.exists(), "it goes as soon as the agent runs");
    agent.begin(NAME, 60);
    assert_eq!(controller::names(&state), [NAME]);
    agent.kill();
    assert!(eventually(|| sandbox.journals().is_empty()));
}

#[test]
fn running_job_ends_with_its_run() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    agent.start_job(JobName::Receiver, in_staging("echo $$ >pid; exec sleep 1000"));
    let file = sandbox.path(&format!("target/.transfer-{NAME}/copy/pid"));
    assert!(eventually(|| fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))));
    let pid = fs::read_to_string(&file).unwrap();
    agent.release();
    // A process that has ended may wait to be reaped.
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

/// Blocked and ignored signals are inherited: a program would not end, and a hook would not be interrupted.
#[test]
fn programs_and_the_watchdog_block_and_ignore_no_signal() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    agent.start_job(JobName::Receiver, in_staging("grep -E '^Sig(Blk|Ign)' /proc/self/status >data"));
    agent.until(|event| matches!(event, Event::Job(JobName::Receiver, JobReport::Exit(0))));
    let path = sandbox.path(&format!("target/.transfer-{NAME}/copy/data"));
    let mut statuses = vec![fs::read_to_string(path).unwrap()];
    let said = sandbox.path("target/hook");
    let hook = BeforeHook {
        command: format!("grep -E '^Sig(Blk|Ign)' /proc/self/status >{}", said.display()),
        end: "target".into(),
        run: String::new(),
        source: String::new(),
        targets: String::new(),
    };
    agent.start_job(JobName::Hook, Task::Hook(hook));
    agent.until(|event| matches!(event, Event::Job(JobName::Hook, JobReport::Exit(0))));
    statuses.push(fs::read_to_string(said).unwrap());
    let children = format!("/proc/{0}/task/{0}/children", agent.child.id());
    for child in fs::read_to_string(children).unwrap().split_whitespace() {
        let is_watchdog = fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).any(|word| word == b"watchdog"));
        // A job that is ending may still be here; it has been read above.
        if !is_watchdog {
            continue;
        }
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        statuses.push(status.lines().filter(|line| line.starts_with("SigBlk:")).collect());
    }
    assert!(statuses.len() > 2, "there is no watchdog");
    for line in statuses.iter().flat_map(|status| status.lines()) {
        let mask = u64::from_str_radix(line.split_whitespace().next_back().unwrap(), 16).unwrap();
        // SIGHUP, SIGINT, SIGPIPE and SIGTERM.
        assert_eq!(mask & 0x5003, 0, "{line}");
    }
    agent.release();
}

#[test]
fn final_name_has_one_run_at_a_time() {
    let sandbox = Sandbox::new();
    let (mut first, mut second) = (Agent::start(&sandbox), Agent::start(&sandbox));
    first.begin(NAME, 60);
    first.stage(&sandbox, NAME);
    second.begin("20261130-120001-abcdef-target1", 60);
    let take = || Order::TakeName {
        directory: sandbox.bytes("target"),
        name: "data".into(),
        naming: Naming::Rename(Replace::No),
        seen: None,
    };
    let failure = second.call(take()).unwrap_err();
    assert_eq!(failure.code, Code::Busy);
    assert!(
        failure.text.as_str().starts_with("run 20261130-120000-abcdef of this test, since "),
        "{failure:?}"
    );
    first.done(publish());
    first.release();
    assert_eq!(second.call(take()).unwrap_err().code, Code::Exists);
    second.release();
    assert_eq!(sandbox.target(), ["data"]);
}

#[test]
fn source_is_listed_by_name_and_digest() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    let query = SourceQuery { transfer: Transfer::Files, path: sandbox.bytes("source"), exclude: Vec::new() };
    let Ok(Answer::Source(facts)) = agent.call(Order::SourceFacts(query)) else { panic!() };
    assert_eq!((facts.size.files, facts.size.bytes), (1, 10));
    let id: FileId = facts.id.unwrap();
    agent.begin("20261130-120000-abcdef-source", 60);
    agent.done(Order::HoldSource { path: sandbox.bytes("source"), id });
    agent.start_job(
        JobName::Manifest,
        Task::ListSource(ListTask {
            tree: Tree { name: "source".into(), exclude: Vec::new() },
            digest: Some(DigestKind::Blake3),
            workers: 2,
            owners: OwnerColumn::Absent,
            freshness: Freshness::Old,
            changes: Changes::Strict,
        }),
    );
    agent.until(|event| matches!(event, Event::Job(JobName::Manifest, JobReport::Exit(0))));
    let list = Order::ReadList { list: Some(List::Digests), offset: 0 };
    let Ok(Answer::List { bytes, is_last: true }) = agent.call(list) else { panic!() };
    let digest = blake3::hash(b"0123456789").to_hex();
    assert_eq!(bytes.to_string(), format!("./source/data//{digest}\\u{{0}}"));
    fs::rename(sandbox.path("source"), sandbox.path("other")).unwrap();
    assert!(agent.call(Order::CheckSource).unwrap_err().text.as_str().contains("replaced"));
    agent.release();
}

#[test]
fn target_facts_name_what_is_there() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    let query = TargetQuery {
        transfer: Transfer::Files,
        directory: sandbox.bytes("target"),
        name: "data".into(),
        user: Text::default(),
        group: Text::default(),
    };
    let Ok(Answer::Target(facts)) = agent.call(Order::TargetFacts(query)) else { panic!() };
    let directory = facts.directory.unwrap();
    assert!(directory.writable && directory.busy.is_none() && directory.free_bytes > 0);
    let Ok(Answer::Host(host)) = agent.call(Order::HostFacts(Transfer::Files)) else { panic!() };
    assert!(host.tools.contains(&Text::new("tar")) && host.cores > 0);
    assert!(agent.call(Order::OpenGate { job: JobName::Sender }).is_err(), "no run has begun");
    agent.release();
    assert!(sandbox.journals().is_empty());
}

#[test]
fn orphaned_run_is_listed_and_cleaned() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 60);
    agent.stage(&sandbox, NAME);
    let status = |sandbox: &Sandbox| {
        let mut other = Agent::start(sandbox);
        other.done(Order::Status);
        let events = other.release();
        events.into_iter().find_map(|event| match event {
            Event::Status(StatusEntry::Run(run)) => Some((run.agent.to_string(), run.condition)),
            _ => None,
        })
    };
    assert_eq!(status(&sandbox), Some((NAME.to_owned(), Condition::Live)));
    // The watchdog leaves a run that its agent has tried to roll back.
    fs::write(sandbox.path(&format!("home/.local/state/transfer/{NAME}/tried")), "").unwrap();
    agent.kill();
    assert!(eventually(|| status(&sandbox) == Some((NAME.to_owned(), Condition::Orphaned))));
    let mut other = Agent::start(&sandbox);
    other.done(Order::Clean { start_servers: false, forget_hooks: false });
    let events = other.release();
    let undone = events.iter().filter(|event| matches!(event, Event::Rollback(RollbackEvent::Undone { .. })));
    assert!(undone.count() >= 3, "{events:?}");
    assert!(sandbox.target().is_empty() && sandbox.journals().is_empty());
}

#[test]
fn agent_without_a_controller_leaves_nothing() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.input = None;
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Closed)));
    assert!(sandbox.journals().is_empty());
}
