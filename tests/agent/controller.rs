//! Controller's side of a conversation, and the directories of its agent.

use std::fs;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use transfer::proto::command::{Answer, Begin, Command as Order, Event, Failure, FromAgent, ToAgent};
use transfer::proto::files::{Naming, Replace, StagingTask};
use transfer::proto::hello::{Hello, MAGIC, PROTOCOL, Welcome};
use transfer::proto::job::{JobName, JobReport};
use transfer::proto::name::AgentName;
use transfer::proto::task::{Invocation, Pipeline, Place, Stage, Task};
use transfer::proto::vault::{Exchange, Sealed, Side, Vault};
use transfer::proto::{HostBytes, Text, frame};

/// Account of the agents if the tests run as root: another one, so that their journals are in the sandbox.
pub(crate) const NOBODY: u32 = 65534;
/// Maximum time for something that takes a moment.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Home directory of the agents, and directories for data.
pub(crate) struct Sandbox {
    pub(crate) directory: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Self { directory };
        fs::set_permissions(sandbox.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "run", "source", "target"] {
            fs::create_dir(sandbox.path(name)).unwrap();
        }
        fs::write(sandbox.path("source/data"), "0123456789").unwrap();
        // Other accounts may not reach the directory of the build.
        let agent = std::env::var("TRANSFER_AGENT_PROGRAM");
        let agent = agent.as_deref().unwrap_or(env!("CARGO_BIN_EXE_transfer-agent"));
        fs::copy(agent, sandbox.path("transfer-agent")).unwrap();
        if is_root() {
            for name in ["home", "run", "source", "source/data", "target"] {
                chown(sandbox.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn bytes(&self, name: &str) -> HostBytes {
        HostBytes::from(&self.path(name))
    }

    /// Names in the directory of journals.
    pub(crate) fn journals(&self) -> Vec<String> {
        names(&self.path("home/.local/state/transfer"))
    }

    pub(crate) fn target(&self) -> Vec<String> {
        names(&self.path("target"))
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
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
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    vault: Vault,
    next: u64,
    /// Number of messages that have arrived.
    arrived: u64,
    pub(crate) events: Vec<Event>,
}

/// Conversation whose connection was cut.
pub(crate) struct Cut {
    /// The agent, which goes on.
    _child: Child,
    vault: Vault,
    next: u64,
    arrived: u64,
    events: Vec<Event>,
}

impl Cut {
    /// Continues the conversation over the connection of another agent. Returns the number of messages that have
    /// arrived, too.
    pub(crate) fn resume(self, other: Agent) -> (Agent, u64) {
        let Self { vault, next, arrived, events, .. } = self;
        (Agent { vault, next, arrived, events, ..other }, arrived)
    }
}

impl Agent {
    /// Starts an agent and exchanges the first messages.
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::start_from(sandbox, "transfer-agent")
    }

    /// As [`Agent::start`], with a lease time that counts until a run begins.
    pub(crate) fn start_for(sandbox: &Sandbox, lease_seconds: u64) -> Self {
        Self::start_with(sandbox, "transfer-agent", lease_seconds)
    }

    /// As [`Agent::start`], from a file in the sandbox.
    pub(crate) fn start_from(sandbox: &Sandbox, program: &str) -> Self {
        Self::start_with(sandbox, program, 60)
    }

    fn start_with(sandbox: &Sandbox, program: &str, lease_seconds: u64) -> Self {
        let mut command = Command::new(sandbox.path(program));
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
        frame::write(&mut input, &Welcome { key: exchange.public(), lease_seconds }).unwrap();
        let vault = exchange.agree(Side::Controller, hello.key).unwrap();
        Self { child, input: Some(input), output, vault, next: 0, arrived: 0, events: Vec::new() }
    }

    /// Encrypts a secret for the agent.
    pub(crate) fn seal(&self, secret: &str) -> Sealed {
        self.vault.seal(secret.as_bytes()).unwrap()
    }

    /// Encrypts bytes for the agent.
    pub(crate) fn seal_bytes(&self, bytes: &[u8]) -> Sealed {
        self.vault.seal(bytes).unwrap()
    }

    /// Sends a command.
    pub(crate) fn post(&mut self, command: Order) {
        self.next += 1;
        let call = ToAgent::Call { id: self.next, command };
        frame::write(self.input.as_mut().unwrap(), &call).unwrap();
    }

    /// Sends a command and returns its answer. Events are kept.
    pub(crate) fn call(&mut self, command: Order) -> Result<Answer, Failure> {
        self.post(command);
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
    pub(crate) fn done(&mut self, command: Order) {
        assert_eq!(self.call(command), Ok(Answer::Done));
    }

    pub(crate) fn read(&mut self) -> Option<FromAgent> {
        self.arrived += 1;
        frame::read(&mut self.output).unwrap()
    }

    /// Reads a message of another type.
    pub(crate) fn read_other<T: serde::de::DeserializeOwned>(&mut self) -> T {
        frame::read(&mut self.output).unwrap().expect("the agent has ended")
    }

    /// Writes a message of another type.
    pub(crate) fn write_other<T: serde::Serialize>(&mut self, message: &T) {
        frame::write(self.input.as_mut().unwrap(), message).unwrap();
    }

    /// Whether nothing follows.
    pub(crate) fn is_over(&mut self) -> bool {
        frame::read::<FromAgent>(&mut self.output).unwrap().is_none()
    }

    /// Sends a heartbeat.
    pub(crate) fn ping(&mut self) {
        let arrived = self.arrived;
        self.write_other(&ToAgent::Ping { arrived });
    }

    /// Number of commands that were sent.
    pub(crate) fn calls(&self) -> u64 {
        self.next
    }

    /// Closes the connection.
    pub(crate) fn cut(self) -> Cut {
        let Self { child, vault, next, arrived, events, .. } = self;
        Cut { _child: child, vault, next, arrived, events }
    }

    /// Begins a run on the target.
    pub(crate) fn begin(&mut self, name: &str, lease_seconds: u64) {
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
    pub(crate) fn stage(&mut self, sandbox: &Sandbox, name: &str) {
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
    pub(crate) fn start_job(&mut self, job: JobName, task: Task) {
        self.done(Order::StartJob { job, task, key: None });
    }

    /// Reads events until one satisfies the condition.
    #[track_caller]
    pub(crate) fn until(&mut self, condition: impl Fn(&Event) -> bool) -> Event {
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
    pub(crate) fn release(mut self) -> Vec<Event> {
        self.end();
        self.last_events()
    }

    /// Orders the agent to end.
    pub(crate) fn end(&mut self) {
        frame::write(self.input.as_mut().unwrap(), &ToAgent::Release).unwrap();
    }

    pub(crate) fn last_events(mut self) -> Vec<Event> {
        while let Some(message) = self.read() {
            let FromAgent::Event(event) = message else { panic!("unexpected reply: {message:?}") };
            self.events.push(event);
        }
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.events.last(), Some(&Event::Bye));
        std::mem::take(&mut self.events)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Pipeline of one program in the staging directory.
pub(crate) fn in_staging(script: &str) -> Task {
    Task::Pipeline(Pipeline {
        place: Place::Staging(HostBytes::default()),
        called: None,
        gate: None,
        rate: None,
        into: None,
        stages: vec![Stage::other("sh", Invocation::new("sh", ["-c", script]))],
    })
}
