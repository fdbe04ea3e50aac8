//! Tests of tasks, within this process.

use std::fs::{self, File};
use std::net::Shutdown;
use std::thread;

use super::pipes::pipe;
use super::*;
use crate::proto::files::DigestKind;
use crate::proto::job::{Dropped, Meter};
use crate::proto::task::{Control, Invocation, Pipeline, Run, Stage, Stderr, Word};
use crate::proto::{HostBytes, frame};

struct NoLogins;

impl Checks for NoLogins {
    fn login(&self, login: &Login, program: &OsStr) -> Result<Vec<OsString>, Text> {
        if login.socket.is_empty() {
            return Err(Text::new("the socket is not a server's"));
        }
        Ok(vec![format!("--checked={}", program.display()).into()])
    }
}

/// Directory of a run, with a source and a staging directory.
struct Scene {
    home: tempfile::TempDir,
    agent: UnixStream,
    job: Option<UnixStream>,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("staging/in")).unwrap();
        fs::create_dir(home.path().join("source")).unwrap();
        let (agent, job) = UnixStream::pair().unwrap();
        Self { home, agent, job: Some(job) }
    }

    fn control(&self, control: Control) {
        frame::write(&mut &self.agent, &control).unwrap();
    }

    fn perform(&mut self, task: &Task) -> Vec<JobReport> {
        self.perform_until(task, |_| false)
    }

    /// Performs a task, and closes the channel at the first report of a kind, as an agent does that dies.
    fn perform_until(&mut self, task: &Task, is_last: fn(&JobReport) -> bool) -> Vec<JobReport> {
        let (input, output) = pipe().unwrap();
        let agent = self.agent.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let mut input = File::from(input);
            let read = || frame::read(&mut input).unwrap();
            let end = |report: &JobReport| {
                if is_last(report) {
                    agent.shutdown(Shutdown::Both).unwrap();
                }
            };
            std::iter::from_fn(read).inspect(end).collect()
        });
        let open = |name: &str| File::open(self.home.path().join(name)).unwrap().into();
        let order = Order {
            directory: self.home.path().as_os_str().into(),
            nice: 0,
            task: Task::Inspect(Place::Root),
            key: Some(Secret::new(b"0123456789".to_vec())),
            held: vec![Held::Source, Held::Staging],
        };
        let reports = Reports::start(File::from(output)).unwrap();
        let held = vec![open("source"), open("staging")];
        let context = Context::new(&order, held, reports, &NoLogins);
        let mut inbox = Inbox::new(self.job.take().unwrap(), None).unwrap();
        let end = perform(&context, task, &mut inbox);
        conclude(&context.reports, end);
        drop(context);
        reading.join().unwrap()
    }

    fn pipeline(&mut self, pipeline: Pipeline) -> Vec<JobReport> {
        self.perform(&Task::Pipeline(pipeline))
    }
}

fn run(stages: Vec<Stage>) -> Vec<JobReport> {
    Scene::new().pipeline(pipeline(stages))
}

fn pipeline(stages: Vec<Stage>) -> Pipeline {
    Pipeline { place: Place::Root, called: None, gate: None, rate: None, into: None, stages }
}

fn program(program: &str, args: &[&str]) -> Invocation {
    Invocation::new(program, args)
}

fn sh(name: &str, script: &str) -> Stage {
    Stage::other(name, program("sh", &["-c", script]))
}

fn meter(digest: Option<DigestKind>) -> Stage {
    let run = Run::Meter { meter: Meter::Wire, digest, limited: false };
    Stage { name: Program::Other("wire".into()), run }
}

fn statuses(reports: &[JobReport]) -> String {
    let stages = reports.iter().find_map(|report| match report {
        JobReport::Stages(stages) => Some(stages),
        _ => None,
    });
    let one = |(name, status): &(Program, i32)| format!("{name}={status}");
    stages.map(|stages| stages.iter().map(one).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn complaints(reports: &[JobReport]) -> Vec<&str> {
    reports
        .iter()
        .filter_map(|report| match report {
            JobReport::Complaint(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn every_stage_reports_its_status_by_name() {
    let reports = run(vec![
        sh("first", "echo it\\'s wrong >&2; exit 3"),
        sh("second", "cat >&2; kill -KILL $$"),
        Stage::other("third", program("/no/such/program", &[])),
    ]);
    assert_eq!(statuses(&reports), "first=3 second=137 third=127");
    let mut said = complaints(&reports);
    said.sort_unstable();
    assert_eq!(said, ["/no/such/program is not installed", "it's wrong"]);
    assert_eq!(reports.last(), Some(&JobReport::Exit(1)));
    assert_eq!(run(vec![sh("first", "exit 0")]).last(), Some(&JobReport::Exit(0)));
}

#[test]
fn closed_pipe_ends_programs_and_meters() {
    let reports = run(vec![Stage::other("yes", program("yes", &[])), meter(None), sh("head", "head -c 9")]);
    assert_eq!(statuses(&reports), "yes=141 wire=141 head=0");
}

#[test]
fn meter_counts_bytes_and_feeds_the_digest() {
    let reports = run(vec![
        Stage::other("produce", program("head", &["-c", "3000000", "/dev/zero"])),
        meter(Some(DigestKind::Md5)),
        sh("check", "test $(wc -c) = 3000000"),
    ]);
    assert_eq!(statuses(&reports), "produce=0 wire=0 check=0");
    assert!(reports.contains(&JobReport::Bytes(Meter::Wire, 3_000_000)), "{reports:?}");
    assert!(reports.contains(&JobReport::Digest("c9fc2d3dd83ab67a129ac10b09c9ebbb".into())), "{reports:?}");
    assert_eq!(reports.last(), Some(&JobReport::Exit(0)));
}

#[test]
fn gated_stage_reads_after_the_gate_opens_and_ends_with_the_stage_before() {
    let stages =
        || vec![sh("first", "echo unexpected; exit 3"), meter(Some(DigestKind::Md5)), sh("last", "cat >&2")];
    let gated = || Pipeline { gate: Some(1), ..pipeline(stages()) };
    let reports = Scene::new().pipeline(gated());
    assert_eq!(statuses(&reports), "first=3 wire=1 last=0");
    assert!(complaints(&reports).is_empty(), "{reports:?}");
    assert!(!reports.iter().any(|report| matches!(report, JobReport::Bytes(..) | JobReport::Digest(_))));

    let mut scene = Scene::new();
    scene.control(Control::OpenGate);
    let reports = scene.pipeline(gated());
    assert_eq!(statuses(&reports), "first=3 wire=0 last=0");
    assert_eq!(complaints(&reports), ["unexpected"]);
}

#[test]
fn closed_or_stalled_sink_is_dropped_and_the_others_go_on() {
    let sink = |number, script| {
        let run = Run::Sink { number, program: program("sh", &["-c", script]), patience: 1 };
        Stage { name: Program::Sink(number), run }
    };
    let reports = run(vec![
        Stage::other("produce", program("head", &["-c", "5000000", "/dev/zero"])),
        sink(0, "head -c 1000 >/dev/null"),
        sink(1, "exec sleep 1000"),
        sink(2, "test $(wc -c) = 5000000 && echo complete >&2"),
        sink(3, "cat >/dev/null; exec sleep 1000"),
    ]);
    for dropped in [(0, Dropped::Closed), (1, Dropped::Stalled), (3, Dropped::Stalled)] {
        assert!(reports.contains(&JobReport::Dropped(dropped.0, dropped.1)), "{reports:?}");
    }
    assert!(!reports.iter().any(|report| matches!(report, JobReport::Dropped(2, _))), "{reports:?}");
    assert_eq!(complaints(&reports), ["complete"]);
    assert!(reports.contains(&JobReport::Bytes(Meter::Sink(3), 5_000_000)), "{reports:?}");
    assert_eq!(statuses(&reports), "produce=0 netcat0=0 netcat1=0 netcat2=0 netcat3=0");
}

#[test]
fn sink_that_ends_without_input_is_dropped() {
    let run = Run::Sink { number: 7, program: program("false", &[]), patience: 60 };
    let gated = vec![sh("first", "cat /dev/zero"), Stage { name: Program::Sink(7), run }];
    let task = Task::Pipeline(Pipeline { gate: Some(0), ..pipeline(gated) });
    let reports = Scene::new().perform_until(&task, |report| matches!(report, JobReport::Dropped(..)));
    assert!(reports.contains(&JobReport::Dropped(7, Dropped::Closed)), "{reports:?}");
    assert_eq!((statuses(&reports).as_str(), reports.last()), ("", Some(&JobReport::Exit(STOPPED))));
}

/// Returns the descriptors that whoever started the tests has left open for all programs.
fn inheritable() -> Vec<String> {
    let numbers =
        fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| entry.unwrap().file_name().into_string());
    let closes_on_exec = |number: &String| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("02000000");
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 != 0
    };
    numbers
        .map(Result::unwrap)
        .filter(|number| number.parse::<u32>().unwrap() > 2 && !closes_on_exec(number))
        .collect()
}

#[test]
fn programs_have_the_descriptors_that_they_need_and_no_others() {
    let list = "exec >&2; for fd in /proc/$$/fd/*; do printf %s \"$0 ${fd##*/} \"; readlink $fd || echo; done
        echo \"$0 = $*\"";
    let inherited = inheritable();
    let with = |name: &str, words: &[Word]| {
        let mut invocation = program("sh", &["-c", list, name]);
        invocation.args.extend_from_slice(words);
        Stage::other(name, invocation)
    };
    let mut scene = Scene::new();
    let reports = scene.pipeline(pipeline(vec![
        with("none", &[]),
        with("key", &[Word::Key]),
        meter(Some(DigestKind::Md5)),
        with("held", &[Word::Source, Word::Staging, Word::RunFile("backup".into())]),
    ]));
    assert_eq!(statuses(&reports), "none=0 key=0 wire=0 held=0");
    let said = complaints(&reports);
    let of = |name: &str| -> Vec<Vec<&str>> {
        let lines = said.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let lines = lines.filter(|words| words[0] == name).map(|words| words[1..].to_vec());
        // The shell had the directory open for a moment.
        let is_own = |words: &Vec<&str>| words.len() > 1 && !inherited.contains(&words[0].to_owned());
        lines.filter(|words| words == &["="] || is_own(words)).collect()
    };
    // The last line has the arguments.
    assert_eq!(of("none").iter().map(|words| words[0]).collect::<Vec<_>>(), ["0", "1", "2", "="]);
    let more = |name: &str| {
        let all = of(name).into_iter();
        all.filter(|words| !["0", "1", "2"].contains(&words[0])).collect::<Vec<_>>()
    };
    let key = more("key");
    assert_eq!(key.len(), 2, "{said:?}");
    assert!(key[0][1].starts_with("pipe:"), "{said:?}");
    assert_eq!(key[1][1], format!("fd:{}", key[0][0]));
    let mut held = more("held");
    held.sort_by_key(|words| words[0].parse().unwrap_or(i32::MAX));
    assert_eq!(held.len(), 3, "{said:?}");
    let home = scene.home.path();
    for (at, name) in ["source", "staging"].into_iter().enumerate() {
        assert_eq!(held[at][1], home.join(name).to_str().unwrap());
        assert_eq!(held[2][at + 1], format!("/proc/self/fd/{}", held[at][0]));
    }
    assert_eq!(held[2][3], home.join("backup").to_str().unwrap());
}

#[test]
fn key_encrypts_and_decrypts() {
    let openssl = |name, direction: &[&str]| {
        let args = ["enc", "-aes-256-ctr", "-pbkdf2", "-iter", "1", "-pass"];
        let mut invocation = program("openssl", &args);
        invocation.args.push(Word::Key);
        invocation.args.extend(direction.iter().map(|word| Word::Literal(HostBytes::from(word))));
        Stage { name, run: Run::Program(invocation) }
    };
    let stages = vec![
        sh("first", "echo secret"),
        openssl(Program::Encrypt, &[]),
        openssl(Program::Decrypt, &["-d"]),
        sh("last", "cat >&2"),
    ];
    let reports = run(stages);
    assert_eq!(complaints(&reports), ["secret"]);
}

#[test]
fn directories_are_reached_by_descriptors_and_have_their_real_names() {
    let mut scene = Scene::new();
    let real = scene.home.path().join("staging/in");
    let check = sh("check", "echo $PWD >&2; pwd -P >&2; /bin/pwd >&2");
    let at = |name: &str| Pipeline { place: Place::Staging(name.into()), ..pipeline(vec![check.clone()]) };
    let reports = scene.pipeline(at("in"));
    assert_eq!(complaints(&reports), [real.to_str().unwrap()]);
    assert_eq!(statuses(&reports), "check=0");
    for name in ["..", "in/x", "link", "gone"] {
        let mut scene = Scene::new();
        std::os::unix::fs::symlink("/", scene.home.path().join("staging/link")).unwrap();
        let reports = scene.pipeline(at(name));
        assert_eq!(statuses(&reports), "prepare=1", "{name}");
        assert!(complaints(&reports)[0].starts_with(&format!("cannot open {name}: ")), "{reports:?}");
        assert_eq!(reports.last(), Some(&JobReport::Exit(1)));
    }
}

#[test]
fn confined_program_writes_below_staging_only() {
    let mut scene = Scene::new();
    let mut invocation = program("sh", &["-c", "cat >file && ! echo x 2>/dev/null >../../outside"]);
    invocation.confined = true;
    let stages = vec![sh("first", "echo data"), Stage::other("confined", invocation)];
    let reports = scene.pipeline(Pipeline { place: Place::Staging("in".into()), ..pipeline(stages) });
    if reports.contains(&JobReport::Unconfined(Program::Other("confined".into()))) {
        return;
    }
    assert_eq!(statuses(&reports), "first=0 confined=0");
    assert_eq!(fs::read_to_string(scene.home.path().join("staging/in/file")).unwrap(), "data\n");
}

#[test]
fn confined_tar_restores_what_it_does_unconfined() {
    let mut scene = Scene::new();
    let source = scene.home.path().join("source");
    fs::create_dir(source.join("d")).unwrap();
    fs::write(source.join("a"), "data").unwrap();
    fs::hard_link(source.join("a"), source.join("d/hard")).unwrap();
    std::os::unix::fs::symlink("/etc", source.join("link")).unwrap();
    let mut extract = program("tar", &["--extract", "--file=-", "--preserve-permissions"]);
    extract.confined = true;
    let stages = vec![
        Stage::other("create", program("tar", &["-C", source.to_str().unwrap(), "-cf", "-", "."])),
        Stage { name: Program::Tar, run: Run::Program(extract) },
    ];
    let reports = scene.pipeline(Pipeline { place: Place::Staging("in".into()), ..pipeline(stages) });
    assert_eq!(
        (statuses(&reports).as_str(), complaints(&reports).len()),
        ("create=0 tar=0", 0),
        "{reports:?}"
    );
    assert_eq!(fs::read(scene.home.path().join("staging/in/d/hard")).unwrap(), b"data");
}

#[test]
fn log_is_watched_and_reported_also_when_the_job_is_stopped() {
    let mut invocation =
        program("sh", &["-c", "echo working >&2; trap '' TERM; echo Waiting for lock >&2; exec sleep 1000"]);
    invocation.stderr = Stderr::Log;
    let task = Task::Pipeline(pipeline(vec![Stage::other("backup", invocation)]));
    let reports = Scene::new().perform_until(&task, |report| matches!(report, JobReport::Waits(_)));
    let reports: Vec<&JobReport> =
        reports.iter().filter(|report| !matches!(report, JobReport::Bytes(Meter::Log, 25))).collect();
    let expected = [
        &JobReport::Waits(Some(Text::new("Waiting for lock"))),
        &JobReport::Log(Text::new("working")),
        &JobReport::Log(Text::new("Waiting for lock")),
        &JobReport::Exit(STOPPED),
    ];
    assert_eq!(reports, expected);
}

#[test]
fn held_source_is_read() {
    let mut scene = Scene::new();
    let path = scene.home.path().join("source");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "contents").unwrap();
    let read = Stage { name: Program::Other("read".into()), run: Run::Read { name: "data".into() } };
    let reports = scene.pipeline(pipeline(vec![read, sh("last", "cat >&2")]));
    assert_eq!((statuses(&reports).as_str(), complaints(&reports)), ("read=0 last=0", vec!["contents"]));
}

#[test]
fn login_is_checked_before_its_program_starts() {
    let with = |socket: &str| {
        let login = Login { socket: socket.into(), defaults_file: "".into() };
        let mut invocation = program("echo", &["backup"]);
        invocation.login = Some(login);
        run(vec![Stage::other("backup", invocation), sh("last", "cat >&2")])
    };
    let reports = with("/run/socket");
    assert_eq!(complaints(&reports), ["backup --checked=echo"]);
    let reports = with("");
    assert_eq!(statuses(&reports), "backup=126 last=0");
    assert_eq!(complaints(&reports), ["cannot start echo: the socket is not a server's"]);
}

#[test]
fn backup_is_inspected() {
    let mut scene = Scene::new();
    let inspect = || Task::Inspect(Place::Staging("in".into()));
    let reports = scene.perform(&inspect());
    assert_eq!((statuses(&reports).as_str(), reports.last()), ("inspect=1", Some(&JobReport::Exit(1))));
    let mut scene = Scene::new();
    fs::write(scene.home.path().join("staging/in/xtrabackup_checkpoints"), "backup_type = full-backuped\n")
        .unwrap();
    let reports = scene.perform(&inspect());
    assert!(matches!(&reports[0], JobReport::Backup(facts) if facts.state.as_str() == "full-backuped"));
    assert_eq!(reports.last(), Some(&JobReport::Exit(0)));
}
