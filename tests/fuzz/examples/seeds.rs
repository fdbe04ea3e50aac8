//! Writes the seeds that consist of messages: `cargo run --example seeds`, in the directory of this crate.

use std::time::Duration;

use serde::Serialize;
use transfer::proto::command::{Answer, Code, Command, Ending, Event, Failure, FromAgent, ToAgent};
use transfer::proto::facts::path::{
    DirectoryFacts, Existing, Owners, PathTrust, PathType, SharedComponent, SourceFacts, TargetFacts, UnknownOwner,
};
use transfer::proto::facts::{HostFacts, HookShell, NetcatHelp, Transfer, TreeSize};
use transfer::proto::files::FileId;
use transfer::proto::hello::{Hello, PROTOCOL, PublicKey};
use transfer::proto::job::{Dropped, FaultClass, JobName, JobReport, List, Manifest, Meter, Program};
use transfer::proto::journal::{Family, Header, Hook, Layer, Record, Undo, VERSION, encode};
use transfer::proto::name::AgentName;
use transfer::proto::sockets::{Connection, PortSocket};
use transfer::proto::status::{Condition, Foreign, ForeignJournal, RollbackEvent, RunStatus, StatusEntry};
use transfer::proto::{HostBytes, Text, frame};

fn main() {
    write("admin/status", &frames(&status()));
    write("admin/clean", &frames(&rollback()));
    write("settle/left", &frames(&rollback()));
    write("agent/good", &frames(&good()));
    write("agent/failed", &frames(&failed()));
    for way in 0..4 {
        let facts = frames(&[source_host(), source(), host("nc"), target()]);
        write(&format!("facts/both{way}"), &[&[way][..], &facts].concat());
    }
    write("facts/missing", &[&[0][..], &frames(&[source_host(), missing(), host(""), nowhere()])].concat());
    write("routes/routes", &frames(&sockets()));
    write("wire/events", &frames(&good().map(|(_, message)| message)));
    write("wire/commands", &frames(&commands()));
    let hello = Hello { protocol: PROTOCOL, program: Text::new("0.1.0"), key: PublicKey([7; 32]) };
    write("wire/hello", &frames(&[hello]));
    write("wire/journal", &journal());
}

fn write(seed: &str, bytes: &[u8]) {
    let path = format!("{}/seeds/{seed}", env!("CARGO_MANIFEST_DIR"));
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn frames<T: Serialize>(messages: &[T]) -> Vec<u8> {
    messages.iter().flat_map(|message| frame::encode(message).expect("a short message")).collect()
}

fn agent() -> AgentName {
    AgentName::new("20260101-000000-000000-target1").expect("a name")
}

fn header() -> Header {
    Header {
        version: VERSION,
        program: Text::new("0.1.0"),
        boot: Text::new("b-1"),
        role: Text::new("target"),
        controller: Text::new("ctl (pid 7)"),
        started: 1_700_000_000,
        path: "/srv/data".into(),
    }
}

fn undos() -> Vec<Undo> {
    vec![
        Undo::Name { lock: "/run/transfer/name-1-2-data".into() },
        Undo::Staging { path: "/srv/.transfer-x".into(), keep: false },
        Undo::Port(4400),
        Undo::Rules { layer: Layer::Nftables, family: Family::V4, tag: "transfer-x".into() },
        Undo::Job { lock: "receiver.job".into() },
        Undo::Mode { path: "/srv/data".into(), inode: 7, mode: 0o555 },
        Undo::Replaced { path: "/srv/data.old-x".into() },
        Undo::Hook(hook()),
    ]
}

fn hook() -> Hook {
    Hook {
        end: "target".into(),
        number: 1,
        command: "test -e /srv/ready".into(),
        source: "db1:/srv/data".into(),
        targets: "db2:/srv".into(),
    }
}

fn foreign() -> ForeignJournal {
    ForeignJournal {
        directory: "/var/lib/transfer/x".into(),
        condition: Condition::Orphaned,
        reason: Foreign::Shell { leases: vec![Text::new("port 4400")] },
        has_agent: false,
    }
}

fn status() -> Vec<StatusEntry> {
    let run = RunStatus { agent: agent(), condition: Condition::Orphaned, is_rebooted: true, header: header() };
    let leases = undos().into_iter().map(StatusEntry::Lease);
    [StatusEntry::Run(run)].into_iter().chain(leases).chain([StatusEntry::Foreign(foreign())]).collect()
}

fn rollback() -> Vec<RollbackEvent> {
    let agent = agent();
    let mut events: Vec<RollbackEvent> =
        undos().into_iter().map(|undo| RollbackEvent::Undone { agent: agent.clone(), undo }).collect();
    events.extend(undos().into_iter().map(|undo| RollbackEvent::Left {
        agent: agent.clone(),
        undo,
        reason: Text::new("exit status 1"),
    }));
    events.extend([
        RollbackEvent::Kept { agent: agent.clone(), path: "/srv/.transfer-x".into() },
        RollbackEvent::Forgotten { agent: agent.clone(), hook: hook() },
        RollbackEvent::Failed { agent: agent.clone(), reason: Text::new("no space left on device") },
        RollbackEvent::Live { agent },
        RollbackEvent::Foreign(foreign()),
    ]);
    events
}

/// Reports of a copy that succeeds: of the source (false) and of the target (true).
fn good() -> [(bool, FromAgent); 12] {
    let digest = "0123456789abcdef".repeat(4);
    let manifest = Manifest { records: 3, bytes: 2 << 20, digest: digest.clone() };
    let sender = |report| (false, FromAgent::Event(Event::Job(JobName::Sender, report)));
    let receiver = |report| (true, FromAgent::Event(Event::Job(JobName::Receiver, report)));
    let stages = |programs: &[Program]| JobReport::Stages(programs.iter().map(|name| (name.clone(), 0)).collect());
    [
        (true, FromAgent::Reply { id: 1, result: Ok(Answer::Done) }),
        sender(JobReport::Bytes(Meter::Read, 2 << 20)),
        sender(stages(&[Program::Tar, Program::Compress, Program::Encrypt, Program::Sink(1)])),
        sender(JobReport::Digest(digest.clone())),
        sender(JobReport::Manifest(List::Entries, manifest.clone())),
        sender(JobReport::Exit(0)),
        receiver(JobReport::Bytes(Meter::Wire, 2 << 20)),
        receiver(stages(&[Program::Netcat, Program::Decrypt, Program::Decompress, Program::Tar])),
        receiver(JobReport::Digest(digest)),
        receiver(JobReport::Manifest(List::Entries, manifest)),
        receiver(JobReport::Exit(0)),
        (true, FromAgent::Event(Event::Bye)),
    ]
}

fn failed() -> [(bool, FromAgent); 14] {
    let sender = |report| (false, FromAgent::Event(Event::Job(JobName::Sender, report)));
    let receiver = |report| (true, FromAgent::Event(Event::Job(JobName::Receiver, report)));
    let failure = Failure { code: Code::Sync, text: Text::new("cannot sync /srv: Input/output error") };
    let left = RollbackEvent::Left { agent: agent(), undo: Undo::Port(4400), reason: Text::new("busy") };
    [
        (true, FromAgent::Reply { id: 1, result: Err(failure) }),
        sender(JobReport::Complaint(Text::new("tar: ./a: Cannot open: Permission denied"))),
        sender(JobReport::Fault(FaultClass::Unreadable, 3, Some(Text::new("./a: Permission denied")))),
        sender(JobReport::Silenced(7)),
        sender(JobReport::Dropped(1, Dropped::Stalled)),
        sender(JobReport::Stages(vec![(Program::Tar, 2), (Program::Other("pump".into()), 141)])),
        sender(JobReport::Exit(1)),
        receiver(JobReport::Stuck(Text::new("no connection"))),
        receiver(JobReport::Waits(Some(Text::new("syncing the copy")))),
        receiver(JobReport::Log(Text::new("completed OK!"))),
        receiver(JobReport::Unconfined(Program::Tar)),
        receiver(JobReport::Exit(137)),
        (true, FromAgent::Event(Event::Rollback(left))),
        (true, FromAgent::Event(Event::Ending(Ending::Silence))),
    ]
}

fn host(netcat: &str) -> Answer {
    let netcats = (!netcat.is_empty())
        .then(|| NetcatHelp { program: Text::new(netcat), help: Text::new("OpenBSD netcat (Debian patchlevel 1)") });
    Answer::Host(Box::new(HostFacts {
        machine: Text::new("x86_64"),
        boot: Text::new("b-1"),
        machine_id: Text::new("m-1"),
        uid: 0,
        ssh: Some(([10, 0, 0, 9].into(), [10, 0, 0, 2].into())),
        cores: 8,
        memory: 1 << 33,
        hook_shell: HookShell::Bash,
        tools: ["tar", "zstd", "pigz", "openssl", "gzip", "lz4"].into_iter().map(Text::new).collect(),
        tar: Text::new("tar (GNU tar) 1.34"),
        netcats: netcats.into_iter().collect(),
        addresses: vec![[10, 0, 0, 2].into()],
        firewall: vec![(Layer::Nftables, Family::V4), (Layer::IptablesLegacy, Family::V6)],
        owned_tables: vec![Text::new("inet site")],
        backup_tools: Vec::new(),
        clock: Duration::from_secs(1_700_000_000),
    }))
}

fn source_host() -> Answer {
    host("nc")
}

fn owners() -> Owners {
    Owners { users: [(Text::new("mysql"), 111)].into(), groups: [(Text::new("mysql"), 112)].into() }
}

fn source() -> Answer {
    Answer::Source(Box::new(SourceFacts {
        path_type: PathType::Directory,
        readable: true,
        real: "/srv/data".into(),
        place: Some("/8:1/srv/data".into()),
        id: Some(FileId { device: 8, inode: 7 }),
        quiesced: Some(Text::new("20260101-000000-000000 by ctl (pid 7)")),
        archive: None,
        size: TreeSize { entries: 3, files: 2, bytes: 2 << 20, disk_bytes: 2 << 20 },
        owners: owners(),
        servers: Vec::new(),
        other_servers: Vec::new(),
    }))
}

fn missing() -> Answer {
    Answer::Source(Box::new(SourceFacts {
        path_type: PathType::Missing,
        readable: false,
        real: HostBytes::default(),
        place: None,
        id: None,
        quiesced: None,
        archive: None,
        size: TreeSize::default(),
        owners: Owners::default(),
        servers: Vec::new(),
        other_servers: Vec::new(),
    }))
}

fn target() -> Answer {
    let shared = SharedComponent { path: "/srv".into(), owner: Text::new("eve"), mode: 0o777 };
    let directory = DirectoryFacts {
        id: FileId { device: 8, inode: 9 },
        real: "/srv".into(),
        place: Some("/8:1/srv".into()),
        trust: PathTrust::Shared(shared),
        owner: Text::new("root"),
        writable: true,
        read_only: false,
        file_system: Text::new("ext4"),
        folds_case: true,
        lacks: Default::default(),
        free_bytes: 1 << 40,
        free_inodes: Some(1_000_000),
        holds: Some("file".into()),
        existing: Existing::Entry(FileId { device: 8, inode: 11 }),
        mounted: true,
        busy: Some(Text::new("20260101-000000-000000 by ctl (pid 7)")),
        owners: owners(),
        unknown_owners: vec![UnknownOwner::User(Text::new("mysql"))],
        servers: Vec::new(),
        other_servers: Vec::new(),
    };
    Answer::Target(Box::new(TargetFacts { path_type: PathType::Directory, directory: Some(directory) }))
}

fn nowhere() -> Answer {
    Answer::Target(Box::new(TargetFacts { path_type: PathType::Missing, directory: None }))
}

fn sockets() -> Vec<Answer> {
    let [peer, target] = ["10.0.0.1:50000", "10.0.0.2:4400"].map(|socket| socket.parse().expect("a socket"));
    vec![
        Answer::Sockets(vec![PortSocket::Listening, PortSocket::Ours(peer), PortSocket::Other(target)]),
        Answer::Sockets(vec![PortSocket::Ours(peer), PortSocket::Listener(target)]),
        Answer::Connections(vec![Connection { own: peer, peer: target }]),
        Answer::Connections(Vec::new()),
    ]
}

fn commands() -> Vec<ToAgent> {
    let call = |id, command| ToAgent::Call { id, command };
    vec![
        ToAgent::Ping { arrived: 3 },
        call(1, Command::HostFacts(Transfer::Files)),
        call(2, Command::Routes(vec![[10, 0, 0, 1].into()])),
        call(3, Command::LeasePort { first: 4400, last: 4500 }),
        call(4, Command::Settle { agent: agent(), seconds: 7 }),
        call(5, Command::ReadList { list: Some(List::Digests), offset: 512 << 10 }),
        ToAgent::Release,
    ]
}

fn journal() -> Vec<u8> {
    let leases = undos().into_iter().map(Record::Lease);
    let closed = Record::Closed(Undo::Port(4400));
    let records = [Record::Header(header())].into_iter().chain(leases).chain([closed]);
    records.flat_map(|record| encode(&record).expect("a short record")).collect()
}
