//! Renders pipelines as bash scripts: the only place that writes shell text for the data path.
//!
//! A script creates its named pipes in the agent's directory, runs the stages with `pipefail`, and reports on
//! descriptor 5 the exit status of each stage by name, then the digest. It exits with 0 if every stage did.

use super::stage::{Channel, Pipeline, Side, Stage};
use crate::host::agent::JobName;
use crate::host::command::Word;
use crate::host::wire::printable;

/// Returns the script of a job with a single program.
#[must_use]
pub(crate) fn single(job: JobName, directory: Word, name: &str, argv: Vec<Word>) -> Vec<u8> {
    let stages = vec![Stage::other(name, argv).with(Channel::Events)];
    script(&Pipeline { job, directory, called: None, gate: None, stages })
}

/// Returns the script of a pipeline.
#[must_use]
pub(crate) fn script(pipeline: &Pipeline) -> Vec<u8> {
    let mut text = Text::default();
    text.prepare(pipeline);
    let logs = pipeline.stages.iter().any(|stage| stage.log);
    if logs {
        text.start_logger(pipeline.job);
    }
    let waits = text.start_sides(pipeline);
    text.run_stages(pipeline);
    text.report(pipeline, &waits, logs);
    text.0
}

/// Returns the stages of a pipeline in one readable line.
#[must_use]
pub(crate) fn summary(pipeline: &Pipeline) -> String {
    let one = |argv: &[Word]| {
        let words: Vec<String> = argv
            .iter()
            .map(|word| match word {
                Word::Literal(_) => printable(&word.render()),
                Word::Home(name) => format!("$home/{name}"),
            })
            .collect();
        words.join(" ")
    };
    let stages: Vec<String> = pipeline
        .stages
        .iter()
        .map(|stage| match &stage.side {
            Some(side) => format!("{} [beside it: {}]", one(&stage.argv), one(&side.argv)),
            None => one(&stage.argv),
        })
        .collect();
    stages.join(" | ")
}

fn home(name: &str) -> String {
    String::from_utf8_lossy(&Word::Home(name.to_owned()).render()).into_owned()
}

/// Returns the file that a program beside a stage writes its output to.
fn output(side: &Side) -> String {
    home(&format!("{}.out", side.name))
}

#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn line(&mut self, text: &str) {
        self.0.extend(text.as_bytes());
        self.0.push(b'\n');
    }

    fn word(&mut self, word: &Word) {
        self.0.extend(word.render());
    }

    fn words(&mut self, argv: &[Word]) {
        for (index, word) in argv.iter().enumerate() {
            if index > 0 {
                self.0.push(b' ');
            }
            self.word(word);
        }
    }

    /// Sets the mode of the shell, enters the directory, and starts the program that reads standard error.
    fn prepare(&mut self, pipeline: &Pipeline) {
        let job = pipeline.job.name();
        let errors = home(&format!("{job}.errors"));
        // An archive must not be readable for accounts that cannot read the files in it.
        let umask = if pipeline.stages.iter().any(|stage| stage.into.is_some()) { "077" } else { "022" };
        self.line(&format!("set -o pipefail; export LC_ALL=C; umask {umask}"));
        // Early failures are reported as events, since nothing reads standard error yet.
        self.line(&format!(
            "die() {{ printf '!\\tstderr\\t{job}\\t%s\\n' \"${{said//[$'\\t\\n\\\\']/ }}\" >&5; \
             printf '!\\tstages\\t{job}\\tprepare=1\\n' >&5; exit 1; }}"
        ));
        self.line(&format!("rm -f -- {errors}; said=$(mkfifo -- {errors} 2>&1) || die"));
        self.bytes(b"said=$(cd -- ");
        self.word(&pipeline.directory);
        self.bytes(b" 2>&1) || die; cd -- ");
        self.word(&pipeline.directory);
        // Programs must see the real name of a directory that was given as a descriptor.
        self.line("; PWD=$(pwd -P)");
        self.bytes(format!("perl {} {job} ", home("complain.pl")).as_bytes());
        self.words(pipeline.called.as_slice());
        self.line(&format!(" <{errors} 6<&- & complaints=$!"));
        self.line(&format!("exec 2>{errors}"));
    }

    /// Starts the program that reads the log of a backup.
    fn start_logger(&mut self, job: JobName) {
        let job = job.name();
        // A backup keeps the files of all tables open; the usual limit of a login is 1024.
        self.line("ulimit -Sn \"$(ulimit -Hn)\"");
        self.line(&format!(
            "log={}; rm -f -- \"$log\"; said=$(mkfifo -- \"$log\" 2>&1) || die",
            home(&format!("{job}.log"))
        ));
        self.line(&format!("perl {} {job} <\"$log\" 6<&- & logger=$!", home("log.pl")));
    }

    /// Starts the programs beside the stages, each with a pipe. Returns the lines that wait for them.
    fn start_sides(&mut self, pipeline: &Pipeline) -> String {
        let mut waits = String::new();
        for (number, side) in pipeline.sides().enumerate() {
            let pipe = home(&side.name);
            self.line(&format!("rm -f -- {pipe}; said=$(mkfifo -- {pipe} 2>&1) || die"));
            self.words(&side.argv);
            self.bytes(format!(" <{pipe} >{}", output(side)).as_bytes());
            self.line(&format!("{} & side{number}=$!", Channel::None.close_others()));
            // A stage that was killed has perhaps never opened the pipe, and the side would wait for it forever:
            // the pipe is opened, for reading and writing, until the side has it as its standard input, or has ended.
            // bash knows which of its children run; another process may have the number of one that has ended.
            waits.push_str(&format!(
                "while [[ ! /proc/$side{number}/fd/0 -ef {pipe} && $'\\n'$(jobs -rp)$'\\n' == *$'\\n'$side{number}$'\\n'* ]]; \
                 do : 1<>{pipe}; sleep 0.05; done; wait \"$side{number}\"; status+=($?)\n"
            ));
        }
        waits
    }

    /// Runs the stages. The gated one reads when the gate opens, and the one before it tells the gate its end.
    fn run_stages(&mut self, pipeline: &Pipeline) {
        let gate = home(&format!("{}.gate", pipeline.job.name()));
        for (number, stage) in pipeline.stages.iter().enumerate() {
            if number > 0 {
                self.line(" |");
            }
            match pipeline.gate {
                Some(gated) if number == gated => {
                    self.bytes(format!("{{ read -r word <{gate} && [[ $word == go ]] && exec ").as_bytes());
                    self.stage(stage);
                    self.bytes(b"; exit 1; }");
                }
                Some(gated) if number + 1 == gated => {
                    self.bytes(b"{ ");
                    self.stage(stage);
                    // Opened for reading and writing, which never blocks on a FIFO.
                    self.bytes(
                        format!("; ended=$?; printf 'gone\\n' 1<>{gate}; exit \"$ended\"; }}").as_bytes(),
                    );
                }
                _ => self.stage(stage),
            }
        }
        self.line("");
    }

    /// Waits for all programs and reports the statuses, then the digest.
    fn report(&mut self, pipeline: &Pipeline, waits: &str, logs: bool) {
        let job = pipeline.job.name();
        self.line("status=(\"${PIPESTATUS[@]}\")");
        self.bytes(waits.as_bytes());
        self.line(if logs {
            "exec 2>&-; wait \"$complaints\" \"$logger\""
        } else {
            "exec 2>&-; wait \"$complaints\""
        });
        let names = pipeline.stages.iter().map(|stage| stage.name.to_string());
        let names = names.chain(pipeline.sides().map(|side| side.name.clone()));
        let format: String = names.map(|name| format!("\\t{name}=%s")).collect();
        self.line(&format!("printf '!\\tstages\\t{job}{format}\\n' \"${{status[@]}}\" >&5"));
        if let Some(side) = pipeline.sides().last() {
            let output = output(side);
            self.line(&format!(
                "read -r digest _ <{output} && printf '!\\tdigest\\t{job}\\t%s\\n' \"$digest\" >&5"
            ));
        }
        self.line("for one in \"${status[@]}\"; do ((one)) && exit 1; done; exit 0");
    }

    fn stage(&mut self, stage: &Stage) {
        self.words(&stage.argv);
        if stage.discard {
            self.bytes(b" >/dev/null");
        }
        if let Some(file) = &stage.into {
            self.bytes(b" >");
            self.word(file);
        }
        if stage.log {
            self.bytes(b" 2>\"$log\"");
        }
        self.bytes(stage.channel.close_others().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn argv(words: &[&str]) -> Vec<Word> {
        words.iter().map(Word::from).collect()
    }

    /// Runs a pipeline in bash like the agent, and returns its exit status and its events.
    fn run(pipeline: &Pipeline) -> (i32, String) {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("complain.pl"), include_str!("../host/sh/complain.pl")).unwrap();
        std::fs::write(home.path().join("pump.pl"), include_str!("../host/sh/pump.pl")).unwrap();
        let script = String::from_utf8(script(pipeline)).unwrap();
        let output = Command::new("bash")
            .args(["--norc", "-c", &format!("exec 5>&1\n{script}")])
            .env("home", home.path())
            .envs([("nr_splice", "275"), ("nr_tee", "276")])
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    fn pipeline(stages: Vec<Stage>) -> Pipeline {
        Pipeline { job: JobName::Sender, directory: Word::from("/"), called: None, gate: None, stages }
    }

    #[test]
    fn every_stage_reports_its_status_by_name() {
        let stages = vec![
            Stage::other("first", argv(&["sh", "-c", "echo it\\'s wrong >&2; exit 3"])),
            Stage::other("second", argv(&["sh", "-c", "cat >&2; exit 4"])),
            Stage::other("third", argv(&["true"])),
        ];
        let (status, events) = run(&pipeline(stages));
        assert_eq!(status, 1);
        assert!(events.contains("!\tstages\tsender\tfirst=3\tsecond=4\tthird=0\n"), "{events}");
        assert!(events.contains("!\tstderr\tsender\tit's wrong\n"), "{events}");
    }

    #[test]
    fn gated_stage_reads_after_the_gate_opens_and_ends_with_the_stage_before() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("complain.pl"), include_str!("../host/sh/complain.pl")).unwrap();
        let stages = vec![
            Stage::other("first", argv(&["sh", "-c", "echo unexpected; exit 3"])),
            Stage {
                side: Some(Side { name: "digest".into(), argv: argv(&["md5sum"]) }),
                ..Stage::other("second", argv(&["sh", "-c", "tee read \"$home/digest\""]))
            },
        ];
        let mut pipeline = pipeline(stages);
        (pipeline.gate, pipeline.directory) = (Some(1), Word::from(home.path().to_str().unwrap()));
        let script = String::from_utf8(script(&pipeline)).unwrap();
        let run = |first: &str| {
            let output = Command::new("bash")
                .args([
                    "--norc",
                    "-c",
                    &format!("mkfifo $home/sender.gate; exec 4<>$home/sender.gate 5>&1; {first}\n{script}"),
                ])
                .env("home", home.path())
                .output()
                .unwrap();
            std::fs::remove_file(home.path().join("sender.gate")).unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(run("").contains("first=3\tsecond=1\tdigest=0\n"));
        assert!(!home.path().join("read").exists());
        assert!(run("echo go >&4").contains("first=3\tsecond=0\tdigest=0\n"));
        assert_eq!(std::fs::read_to_string(home.path().join("read")).unwrap(), "unexpected\n");
    }

    #[test]
    fn side_ends_with_a_stage_that_never_opened_its_pipe() {
        let side = |argv| Some(Side { name: "digest".into(), argv });
        let dies = Stage::other("meter", argv(&["sh", "-c", "kill -KILL $$"]));
        let (_, events) = run(&pipeline(vec![Stage { side: side(argv(&["md5sum"])), ..dies }]));
        assert!(events.contains("meter=137\tdigest=0\n"), "{events}");

        let fills =
            Stage::other("meter", argv(&["sh", "-c", "exec head -c 1000000 /dev/zero >\"$home/digest\""]));
        let (_, events) = run(&pipeline(vec![Stage { side: side(argv(&["false"])), ..fills }]));
        assert!(events.contains("digest=1\n") && !events.contains("meter=0"), "{events}");
    }

    #[test]
    fn netcat_messages_of_success_are_dropped() {
        let output = "Connection to fd77::12 4400 port [tcp/*] succeeded!
(UNKNOWN) [10.77.0.12] 4400 (?) open
listening on [10.77.0.12] 4400 ...
connect to [10.77.0.12] from (UNKNOWN) [10.77.0.11] 43580
nc: connect to 10.77.0.12 port 4400 (tcp) failed: Connection refused
(UNKNOWN) [10.77.0.12] 4400 (?) : Connection refused
retrying local 10.77.0.12:4400 : Address already in use";
        let (_, events) =
            run(&pipeline(vec![Stage::other("netcat", argv(&["sh", "-c", "printf %s \"$0\" >&2", output]))]));
        let kept: Vec<&str> =
            events.lines().filter_map(|line| line.strip_prefix("!\tstderr\tsender\t")).collect();
        assert_eq!(kept, output.lines().skip(4).collect::<Vec<_>>());
    }

    #[test]
    fn missing_directory_fails_the_job() {
        let mut pipeline = pipeline(vec![Stage::other("first", argv(&["true"]))]);
        pipeline.directory = Word::from("/nonexistent\t\\");
        let (status, events) = run(&pipeline);
        assert_eq!(status, 1);
        assert!(events.contains("!\tstages\tsender\tprepare=1\n"), "{events}");
        assert!(events.contains("/nonexistent"), "{events}");
        assert!(events.lines().all(|line| line.matches('\t').count() == 3), "{events}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pump_counts_bytes_and_feeds_the_digest() {
        let mut meter = Stage::other("meter", vec![Word::from("perl"), Word::Home("pump.pl".into())])
            .with(Channel::Events);
        meter.argv.extend(argv(&["sender", "wire"]));
        meter.argv.push(Word::Home("digest".into()));
        meter.side = Some(Side { name: "digest".into(), argv: argv(&["md5sum"]) });
        let stages = vec![
            Stage::other("produce", argv(&["head", "-c", "3000000", "/dev/zero"])),
            meter,
            Stage::other("check", argv(&["sh", "-c", "test $(wc -c) = 3000000"])),
        ];
        let (status, events) = run(&pipeline(stages));
        assert_eq!(status, 0, "{events}");
        assert!(events.contains("!\tbytes\tsender\twire\t3000000\n"), "{events}");
        assert!(events.contains("!\tdigest\tsender\tc9fc2d3dd83ab67a129ac10b09c9ebbb\n"), "{events}");
        assert!(events.contains("check=0\tdigest=0\n"), "{events}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn closed_or_stalled_sink_is_dropped_and_the_others_go_on() {
        let sink = |name: &str, program: &str| {
            let mut words = vec![Word::from("perl"), Word::Home("pump.pl".into())];
            words.extend(argv(&["sender", name, "--sink", "1", "sh", "-c", program]));
            Stage::other(name, words).with(Channel::Events)
        };
        let mut last = sink("good", "test $(wc -c) = 5000000 || kill -9 $PPID");
        last.discard = true;
        let stages = vec![
            Stage::other("produce", argv(&["head", "-c", "5000000", "/dev/zero"])),
            sink("gone", "head -c 1000 >/dev/null"),
            sink("stalled", "exec sleep 1000"),
            last,
        ];
        let (_, events) = run(&pipeline(stages));
        assert!(events.contains("!\tdropped\tsender\tgone\tclosed\n"), "{events}");
        assert!(events.contains("!\tdropped\tsender\tstalled\tstalled\n"), "{events}");
        assert!(events.contains("good=0"), "{events}");
        assert!(!events.contains("dropped\tsender\tgood"), "{events}");
    }
}
