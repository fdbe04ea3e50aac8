//! Conversations with the agent as it is shipped, on this machine, without SSH.

use std::fs;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use transfer::proto::command::{
    Answer, Begin, Code, Command as Order, Ending, Event, Failure, FromAgent, ToAgent,
};
use transfer::proto::facts::Transfer;
use transfer::proto::facts::path::{SourceQuery, TargetQuery};
use transfer::proto::files::{
    Changes, DigestKind, FileId, Freshness, ListTask, Naming, OwnerColumn, PublishTask, Replace, StagingTask,
    Tree,
};
use transfer::proto::hello::{Hello, MAGIC, PROTOCOL, Welcome};
use transfer::proto::job::{JobName, JobReport, List};
use transfer::proto::name::AgentName;
use transfer::proto::status::{Condition, RollbackEvent, StatusEntry};
use transfer::proto::task::{Invocation, Pipeline, Place, Stage, Task};
use transfer::proto::vault::{Exchange, Side};
use transfer::proto::{HostBytes, Text, frame};

/// Account of the agents if the tests run as root: another one, so that their journals are in the sandbox.
const NOBODY: u32 = 65534;
/// Maximum time for something that takes a moment.
const SOON: Duration = Duration::from_secs(30);

/// Home directory of the agents, and directories for data.
struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Self { directory };
        fs::set_permissions(sandbox.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "run", "source", "target"] {
            fs::create_dir(sandbox.path(name)).unwrap();
        }
        fs::write(sandbox.path("source/data"), "0123456789").unwrap();
        // Other accounts may not reach the directory of the build.
        fs::copy(env!("CARGO_BIN_EXE_transfer-agent"), sandbox.path("transfer-agent")).unwrap();
        if is_root() {
            for name in ["home", "run", "source", "source/data", "target"] {
                chown(sandbox.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bytes(&self, name: &str) -> HostBytes {
        HostBytes::from(&self.path(name))
    }

    /// Names in the directory of journals.
    fn journals(&self) -> Vec<String> {
        names(&self.path("home/.local/state/transfer"))
    }

    fn target(&self) -> Vec<String> {
        names(&self.path("target"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn eventually(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Controller's side of a conversation.
struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: u64,
    events: Vec<Event>,
}

impl Agent {
    /// Starts an agent and exchanges the first messages.
    fn start(sandbox: &Sandbox) -> Self {
        let mut command = Command::new(sandbox.path("transfer-agent"));
        command
            .arg("serve")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", sandbox.path("home"))
            .env("XDG_RUNTIME_DIR", sandbox.path("run"))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = vec![0; MAGIC.len() + 2];
        output.read_exact(&mut first).unwrap();
        assert_eq!(first, [b"\n", MAGIC, b"\n"].concat());
        let hello: Hello = frame::read(&mut output).unwrap().unwrap();
        assert_eq!(hello.protocol, PROTOCOL);
        let exchange = Exchange::new().unwrap();
        frame::write(&mut input, &Welcome { key: exchange.public() }).unwrap();
        exchange.agree(Side::Controller, hello.key).unwrap();
        Self { child, input: Some(input), output, next: 0, events: Vec::new() }
    }

    /// Sends a command and returns its answer. Events are kept.
    fn call(&mut self, command: Order) -> Result<Answer, Failure> {
        self.next += 1;
        let call = ToAgent::Call { id: self.next, command };
        frame::write(self.input.as_mut().unwrap(), &call).unwrap();
        loop {
            match self.read().expect("the agent has ended") {
                FromAgent::Event(event) => self.events.push(event),
                FromAgent::Reply { id, result } => {
                    assert_eq!(id, self.next);
                    return result;
                }
            }
        }
    }

    #[track_caller]
    fn done(&mut self, command: Order) {
        assert_eq!(self.call(command), Ok(Answer::Done));
    }

    fn read(&mut self) -> Option<FromAgent> {
        frame::read(&mut self.output).unwrap()
    }

    /// Begins a run on the target.
    fn begin(&mut self, name: &str, lease_seconds: u64) {
        self.done(Order::Begin(Begin {
            agent: AgentName::new(name).unwrap(),
            role: Text::new("target"),
            lease_seconds,
            nice: 0,
            controller: Text::new("this test"),
            path: "/srv/data".into(),
        }));
    }

    /// Locks the final name, makes the staging directory and a file in it.
    fn stage(&mut self, sandbox: &Sandbox, name: &str) {
        let naming = Naming::Rename(Replace::No);
        self.done(Order::TakeName {
            directory: sandbox.bytes("target"),
            name: "data".into(),
            naming,
            seen: None,
        });
        self.done(Order::MakeStaging(StagingTask {
            path: sandbox.bytes(&format!("target/.transfer-{name}")),
            keep: false,
            naming,
            inner: HostBytes::default(),
        }));
        self.start_job(JobName::Receiver, in_staging("printf copied >data"));
        self.until(|event| matches!(event, Event::Job(JobName::Receiver, JobReport::Exit(0))));
    }

    #[track_caller]
    fn start_job(&mut self, job: JobName, task: Task) {
        self.done(Order::StartJob { job, task, key: None });
    }

    /// Reads events until one satisfies the condition.
    #[track_caller]
    fn until(&mut self, condition: impl Fn(&Event) -> bool) -> Event {
        if let Some(at) = self.events.iter().position(&condition) {
            return self.events.remove(at);
        }
        while let Some(message) = self.read() {
            match message {
                FromAgent::Event(event) if condition(&event) => return event,
                FromAgent::Event(event) => self.events.push(event),
                FromAgent::Reply { .. } => panic!("unexpected reply: {message:?}"),
            }
        }
        panic!("the agent has ended: {:?}", self.events);
    }

    /// Releases the agent and returns all of its last events.
    fn release(mut self) -> Vec<Event> {
        frame::write(self.input.as_mut().unwrap(), &ToAgent::Release).unwrap();
        self.last_events()
    }

    fn last_events(mut self) -> Vec<Event> {
        while let Some(message) = self.read() {
            let FromAgent::Event(event) = message else { panic!("unexpected reply: {message:?}") };
            self.events.push(event);
        }
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.events.last(), Some(&Event::Bye));
        std::mem::take(&mut self.events)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Pipeline of one program in the staging directory.
fn in_staging(script: &str) -> Task {
    Task::Pipeline(Pipeline {
        place: Place::Staging(HostBytes::default()),
        called: None,
        gate: None,
        rate: None,
        into: None,
        stages: vec![Stage::other("sh", Invocation::new("sh", ["-c", script]))],
    })
}

const NAME: &str = "20261130-120000-abcdef-target1";

fn published(sandbox: &Sandbox) -> Order {
    let _ = sandbox;
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
    agent.done(published(&sandbox));
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
fn silence_for_the_lease_time_rolls_back() {
    let sandbox = Sandbox::new();
    let mut agent = Agent::start(&sandbox);
    agent.begin(NAME, 1);
    let events = agent.last_events();
    assert!(events.contains(&Event::Ending(Ending::Silence)), "{events:?}");
    assert!(sandbox.journals().is_empty());
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
    first.done(published(&sandbox));
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
