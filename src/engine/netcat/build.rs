//! Builds the stages of the data path from the plan. Pure.
//!
//! Sender: producer (such as tar) → (meter, compress) → meter with digest → (encrypt) → netcat, or with
//! several targets a chain of meters with one netcat beside each. Receiver: netcat → (decrypt) → meter with
//! digest → (decompress) → consumer (such as tar). The meters with digest are at the same point of the
//! stream, so their counts must agree.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use crate::config::values::{AttributeKind, Compressor, Pattern};
use crate::host::agent::{JobName, Meter, Program};
use crate::host::command::Word;
use crate::mariadb;
use crate::pipeline::places::{SOURCE, argv, arrival, source_directory};
use crate::pipeline::stage::{Channel, Pipeline, Side, Stage};
use crate::plan::{Compression, Plan, StreamDigest, TargetPlan};
use crate::shape::{Consumer, Producer};

/// Size in bytes of the header of `openssl enc`: `Salted__` and the salt.
pub(crate) const CIPHER_HEADER: u64 = 16;
/// Bash command that writes the single file that the agent holds open, and fails if the file changes.
const READ_HELD: &str = r#"file=/proc/self/fd/12; seen=$(stat -L -c '%i %s %z' "$file") && cat <"$file" &&
    [[ $(stat -L -c '%i %s %z' "$file") == "$seen" ]] && exit
    echo "$1 changed while it was read, or cannot be read" >&2; exit 1"#;
/// Record size of tar: 128 blocks of 512 bytes, the capacity of a pipe.
const BLOCKS: &str = "--blocking-factor=128";

/// End of the stream to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sink {
    /// Number of the target.
    pub(crate) number: usize,
    /// Address and port on which it listens.
    pub(crate) address: SocketAddr,
}

/// Returns the job on the source.
#[must_use]
pub(crate) fn sender(plan: &Plan, sinks: &[Sink]) -> Pipeline {
    let job = JobName::Sender;
    let mut stages = vec![producer(plan)];
    if let Some(compression) = plan.compression {
        stages.push(meter(job, Meter::Read, None));
        let threads = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
        stages.push(compressor(compression, threads));
    }
    stages.push(meter(job, Meter::Wire, plan.stream_digest));
    if plan.encrypt {
        stages.push(cipher(Program::Encrypt, &[]));
    }
    let connect = |Sink { address, .. }: &Sink| {
        argv(&plan.source.netcat.connect(plan.source.address, address.ip(), address.port()))
    };
    if let [sink] = sinks {
        stages.push(Stage::new(Program::Sink(sink.number), connect(sink)));
    } else {
        let patience = plan.idle_timeout.as_secs().to_string();
        for sink in sinks {
            let mut words = pump(job, Meter::Sink(sink.number));
            words.extend(argv(&["--sink", &patience]));
            words.extend(connect(sink));
            stages.push(Stage::new(Program::Sink(sink.number), words).with(Channel::Events));
        }
        if let Some(last) = stages.last_mut() {
            last.discard = true;
        }
    }
    let directory = match plan.shape.producer {
        Producer::Tree if plan.source.is_directory => Word::from(SOURCE),
        // tar can read the attributes of a single file only by its name. If another file has that name by
        // then, the digests will differ.
        Producer::Tree => Word::from(&plan.source.parent),
        _ => source_directory(plan),
    };
    let called = (directory == Word::from(SOURCE)).then(|| Word::from(&plan.source.name));
    Pipeline { job, directory, called, gate: Some(0), stages }
}

/// Returns the job on a target, which listens on `port`.
#[must_use]
pub(crate) fn receiver(plan: &Plan, target: &TargetPlan, port: u16) -> Pipeline {
    let job = JobName::Receiver;
    // The gate is after netcat: no other stage reads data of an unexpected peer.
    let mut stages = vec![Stage::new(Program::Netcat, argv(&target.netcat.listen(target.address, port)))];
    if plan.encrypt {
        stages.push(cipher(Program::Decrypt, &["-d"]));
    }
    let mut wire = meter(job, Meter::Wire, plan.stream_digest);
    if plan.shape.consumer == Consumer::File {
        // Written as it was sent: an archive stays compressed.
        wire.into =
            target.final_path.file_name().map(|name| Word::Literal([b"./", name.as_bytes()].concat()));
        stages.push(wire);
    } else {
        stages.push(wire);
        stages.extend(plan.compression.map(|compression| decompressor(compression.program.name())));
        stages.extend(plan.shape.packed.map(|format| decompressor(format.program().0)));
        stages.push(consumer(plan, target));
    }
    Pipeline { job, directory: arrival(plan), called: None, gate: Some(1), stages }
}

/// Returns the first stage of the sender.
fn producer(plan: &Plan) -> Stage {
    match (plan.shape.producer, &plan.backup) {
        (Producer::Backup, Some(backup)) => mariadb::jobs::backup(plan, backup),
        (Producer::File, _) => {
            let words = argv(&["bash", "--norc", "-p", "-c", READ_HELD, "read"]);
            Stage::other("read", [words, vec![entry(plan)]].concat())
        }
        _ => {
            let mut tar = argv(&[
                "tar",
                "--create",
                "--file=-",
                BLOCKS,
                "--format=posix",
                "--sparse",
                "--numeric-owner",
            ]);
            // Without this a backslash in a name would be an escape.
            tar.push(Word::from("--no-unquote"));
            tar.extend(attributes(plan.source.root, &BTreeMap::new()));
            if !plan.exclude.is_empty() {
                tar.push(Word::from("--anchored"));
                let paths = plan.exclude.iter().flat_map(Pattern::within);
                tar.extend(paths.map(|path| Word::Literal([b"--exclude=", &path[..]].concat())));
            }
            if plan.source.is_directory {
                tar.push(renamed(plan));
                tar.extend(argv(&["--", "."]));
            } else {
                tar.push(Word::from("--"));
                tar.push(entry(plan));
            }
            Stage::new(Program::Tar, tar)
        }
    }
}

/// Returns the last stage of the receiver, if it is a program.
fn consumer(plan: &Plan, target: &TargetPlan) -> Stage {
    if plan.shape.consumer == Consumer::Backup {
        return mariadb::jobs::extract(plan, target);
    }
    let mut tar =
        argv(&["tar", "--extract", "--file=-", BLOCKS, "--preserve-permissions", "--numeric-owner"]);
    tar.push(Word::from(if target.root { "--same-owner" } else { "--no-same-owner" }));
    tar.push(Word::from("--delay-directory-restore"));
    if plan.shape.consumer == Consumer::Tree {
        // The staging directory is ours: an archive member `.` must not change its mode.
        tar.push(Word::from("--no-overwrite-dir"));
    }
    tar.extend(attributes(target.root, &target.drops));
    Stage::new(Program::Tar, tar)
}

/// Returns `./NAME`, so that a name with a leading dash is not an option.
fn entry(plan: &Plan) -> Word {
    Word::Literal([b"./", plan.source.name.as_bytes()].concat())
}

/// Returns the option of tar that prefixes all names with the source's name, since tar runs inside the
/// directory that the agent holds. Targets of symbolic links are not changed.
fn renamed(plan: &Plan) -> Word {
    let mut option = br"--transform=flags=rh;s,^\.,./".to_vec();
    for &byte in plan.source.name.as_bytes() {
        if b"\\&,".contains(&byte) {
            option.push(b'\\');
        }
        option.push(byte);
    }
    option.push(b',');
    Word::Literal(option)
}

/// Returns the options of tar for extended attributes: all kinds as root, otherwise only those that a user
/// can read and set. ACLs are copied as the kernel stores them, with numeric IDs: tar's `--acls` would use
/// names, which can mean other accounts on the target. `without` lists the kinds to leave out.
fn attributes(root: bool, without: &BTreeMap<AttributeKind, u64>) -> Vec<Word> {
    let mut words = argv(&["--xattrs"]);
    let included: &[(AttributeKind, &str)] = match (root, without.contains_key(&AttributeKind::Xattrs)) {
        (true, false) => &[(AttributeKind::Xattrs, "*")],
        (true, true) => &[
            (AttributeKind::Acls, "system.posix_acl_*"),
            (AttributeKind::Capabilities, "security.capability"),
        ],
        (false, _) => &[(AttributeKind::Xattrs, "user.*"), (AttributeKind::Acls, "system.posix_acl_*")],
    };
    let included = included.iter().filter(|(kind, _)| !without.contains_key(kind));
    words.extend(included.map(|(_, pattern)| Word::from(&format!("--xattrs-include={pattern}"))));
    if words.len() == 1 {
        return Vec::new();
    }
    // Kinds that the pattern `*` would include.
    let excluded =
        [(AttributeKind::Acls, "system.posix_acl_*"), (AttributeKind::Capabilities, "security.capability")];
    let excluded = excluded.into_iter().filter(|(kind, _)| without.contains_key(kind));
    words.extend(excluded.map(|(_, pattern)| Word::from(&format!("--xattrs-exclude={pattern}"))));
    words
}

fn pump(job: JobName, meter: Meter) -> Vec<Word> {
    vec![
        Word::from("perl"),
        Word::Home("pump.pl".into()),
        Word::from(job.name()),
        Word::from(&meter.to_string()),
    ]
}

fn meter(job: JobName, meter: Meter, digest: Option<StreamDigest>) -> Stage {
    let mut stage = Stage::other(&meter.to_string(), pump(job, meter)).with(Channel::Events);
    if let Some(digest) = digest {
        let program = match digest {
            StreamDigest::Sha256 => argv(&["openssl", "dgst", "-sha256", "-r"]),
            StreamDigest::Md5 => argv(&["md5sum"]),
        };
        let pipe = format!("{}.digest", job.name());
        stage.argv.push(Word::Home(pipe.clone()));
        stage.side = Some(Side { name: pipe, argv: program });
    }
    stage
}

/// Returns a stage of openssl, which reads the key from descriptor 6. The key is 256 random bits, so a single
/// round of key derivation is enough.
fn cipher(name: Program, direction: &[&str]) -> Stage {
    let mut words = argv(&["openssl", "enc", "-aes-256-ctr", "-bufsize", "64k", "-pbkdf2", "-iter", "1"]);
    words.extend(argv(&["-pass", "fd:6"]));
    words.extend(argv(direction));
    Stage::new(name, words).with(Channel::Key)
}

fn compressor(Compression { program, level }: Compression, threads: u32) -> Stage {
    let level = format!("-{level}");
    let threads = threads.to_string();
    let words = match program {
        Compressor::Zstd => argv(&["zstd", "-q", &level, &format!("-T{threads}"), "-c"]),
        Compressor::Pigz => argv(&["pigz", &level, "-p", &threads, "-c"]),
        Compressor::Gzip | Compressor::Lz4 => argv(&[program.name(), &level, "-c"]),
    };
    Stage::new(Program::Compress, words)
}

fn decompressor(program: &str) -> Stage {
    let quiet: &[&str] = if program == "zstd" { &["-q"] } else { &[] };
    Stage::new(Program::Decompress, argv(&[&[program], quiet, &["-d", "-c"]].concat()))
}
