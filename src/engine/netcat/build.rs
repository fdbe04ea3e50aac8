//! Builds the stages of the data path from the plan. Pure.
//!
//! Sender: producer (such as tar) → (meter, compress) → meter with digest → (encrypt) → netcat, or with
//! several targets a chain of sinks with one netcat beside each. Receiver: netcat → (decrypt) → meter with
//! digest → (decompress) → consumer (such as tar). The meters with digest are at the same point of the
//! stream, so their counts must agree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;

use crate::config::values::{AttributeKind, Compressor, DigestAlgorithm, Pattern};
use crate::mariadb;
use crate::pipeline::places::arrival;
use crate::plan::{Compression, Plan, TargetPlan};
use crate::proto::HostBytes;
use crate::proto::job::{Meter, Program};
use crate::proto::task::{Invocation, Pipeline, Place, Run, Stage, Word};
use crate::shape::{Consumer, Producer};

/// Size in bytes of the header of `openssl enc`: `Salted__` and the salt.
pub(crate) const CIPHER_HEADER: u64 = 16;
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
    let mut stages = vec![producer(plan)];
    if let Some(compression) = plan.compression {
        stages.push(meter(Meter::Read, None));
        let threads = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
        stages.push(compressor(compression, threads));
    }
    stages.push(meter(Meter::Wire, plan.stream_digest));
    if plan.encrypt {
        stages.push(cipher(Program::Encrypt, &[]));
    }
    let connect = |Sink { address, .. }: &Sink| {
        invocation(&plan.source.netcat.connect(plan.source.address, address.ip(), address.port()))
    };
    if let [sink] = sinks {
        stages.push(Stage { name: Program::Sink(sink.number), run: Run::Program(connect(sink)) });
    } else {
        let patience = u32::try_from(plan.idle_timeout.as_secs()).unwrap_or(u32::MAX);
        stages.extend(sinks.iter().map(|sink| Stage {
            name: Program::Sink(sink.number),
            run: Run::Sink { number: sink.number, program: connect(sink), patience },
        }));
    }
    let place = match plan.shape.producer {
        Producer::Tree if plan.source.is_directory => Place::Source,
        // tar can read the attributes of a single file only by its name. If another file has that name by
        // then, the digests will differ.
        Producer::Tree => Place::Path(HostBytes::from(&plan.source.parent)),
        Producer::Backup | Producer::File => Place::Root,
    };
    let called = (place == Place::Source).then(|| HostBytes::from(&plan.source.name));
    Pipeline { place, called, gate: Some(0), rate: None, into: None, stages }
}

/// Returns the job on a target, which listens on `port`.
#[must_use]
pub(crate) fn receiver(plan: &Plan, target: &TargetPlan, port: u16) -> Pipeline {
    // The gate is after netcat: no other stage reads data of an unexpected peer.
    let listen = invocation(&target.netcat.listen(target.address, port));
    let mut stages = vec![Stage { name: Program::Netcat, run: Run::Program(listen) }];
    if plan.encrypt {
        stages.push(cipher(Program::Decrypt, &["-d"]));
    }
    stages.push(meter(Meter::Wire, plan.stream_digest));
    let mut into = None;
    if plan.shape.consumer == Consumer::File {
        // Written as it was sent: an archive stays compressed.
        into = target.final_path.file_name().map(HostBytes::from);
    } else {
        stages.extend(plan.compression.map(|compression| decompressor(compression.program.name())));
        stages.extend(plan.shape.packed.map(|format| decompressor(format.program().0)));
        stages.push(consumer(plan, target));
    }
    Pipeline { place: arrival(plan), called: None, gate: Some(1), rate: None, into, stages }
}

/// Returns the first stage of the sender.
fn producer(plan: &Plan) -> Stage {
    match (plan.shape.producer, &plan.backup) {
        (Producer::Backup, Some(backup)) => mariadb::jobs::backup(plan, backup),
        (Producer::File, _) => {
            let name = HostBytes::from(&plan.source.name);
            Stage { name: Program::Other("read".into()), run: Run::Read { name } }
        }
        _ => {
            let mut tar = Invocation::new(
                "tar",
                ["--create", "--file=-", BLOCKS, "--format=posix", "--sparse", "--numeric-owner"],
            );
            // Without this a backslash in a name would be an escape.
            add(&mut tar, ["--no-unquote"]);
            tar.args.extend(attributes(plan.source.root, &BTreeMap::new()));
            if !plan.exclude.is_empty() {
                add(&mut tar, ["--anchored"]);
                let paths = plan.exclude.iter().flat_map(Pattern::within);
                tar.args.extend(paths.map(|path| literal([b"--exclude=", &path[..]].concat())));
            }
            if plan.source.is_directory {
                tar.args.push(renamed(plan));
                add(&mut tar, ["--", "."]);
            } else {
                add(&mut tar, ["--"]);
                tar.args.push(entry(plan));
            }
            Stage { name: Program::Tar, run: Run::Program(tar) }
        }
    }
}

/// Returns the last stage of the receiver, if it is a program.
fn consumer(plan: &Plan, target: &TargetPlan) -> Stage {
    if plan.shape.consumer == Consumer::Backup {
        return mariadb::jobs::extract(plan, target);
    }
    let mut tar = Invocation::new(
        "tar",
        ["--extract", "--file=-", BLOCKS, "--preserve-permissions", "--numeric-owner"],
    );
    tar.confined = true;
    add(
        &mut tar,
        [if target.root { "--same-owner" } else { "--no-same-owner" }, "--delay-directory-restore"],
    );
    if plan.shape.consumer == Consumer::Tree {
        // The staging directory is ours: an archive member `.` must not change its mode.
        add(&mut tar, ["--no-overwrite-dir"]);
    }
    tar.args.extend(attributes(target.root, &target.drops));
    Stage { name: Program::Tar, run: Run::Program(tar) }
}

/// Returns `./NAME`, so that a name with a leading dash is not an option.
fn entry(plan: &Plan) -> Word {
    literal([b"./", plan.source.name.as_encoded_bytes()].concat())
}

/// Returns the option of tar that prefixes all names with the source's name, since tar runs inside the
/// directory that the agent holds. Targets of symbolic links are not changed.
fn renamed(plan: &Plan) -> Word {
    let mut option = br"--transform=flags=rh;s,^\.,./".to_vec();
    for &byte in plan.source.name.as_encoded_bytes() {
        if b"\\&,".contains(&byte) {
            option.push(b'\\');
        }
        option.push(byte);
    }
    option.push(b',');
    literal(option)
}

/// Returns the options of tar for extended attributes: all kinds as root, otherwise only those that a user
/// can read and set. ACLs are copied as the kernel stores them, with numeric IDs: tar's `--acls` would use
/// names, which can mean other accounts on the target. `without` lists the kinds to leave out.
fn attributes(root: bool, without: &BTreeMap<AttributeKind, u64>) -> Vec<Word> {
    let mut words = vec![literal("--xattrs")];
    let included: &[(AttributeKind, &str)] = match (root, without.contains_key(&AttributeKind::Xattrs)) {
        (true, false) => &[(AttributeKind::Xattrs, "*")],
        (true, true) => &[
            (AttributeKind::Acls, "system.posix_acl_*"),
            (AttributeKind::Capabilities, "security.capability"),
        ],
        (false, _) => &[(AttributeKind::Xattrs, "user.*"), (AttributeKind::Acls, "system.posix_acl_*")],
    };
    let included = included.iter().filter(|(kind, _)| !without.contains_key(kind));
    words.extend(included.map(|(_, pattern)| literal(format!("--xattrs-include={pattern}"))));
    if words.len() == 1 {
        return Vec::new();
    }
    // Kinds that the pattern `*` would include.
    let excluded =
        [(AttributeKind::Acls, "system.posix_acl_*"), (AttributeKind::Capabilities, "security.capability")];
    let excluded = excluded.into_iter().filter(|(kind, _)| without.contains_key(kind));
    words.extend(excluded.map(|(_, pattern)| literal(format!("--xattrs-exclude={pattern}"))));
    words
}

fn meter(meter: Meter, digest: Option<DigestAlgorithm>) -> Stage {
    let digest = digest.map(DigestAlgorithm::kind);
    Stage { name: Program::Other(meter.to_string()), run: Run::Meter { meter, digest, limited: false } }
}

/// Returns a stage of openssl. The key is 256 random bits, so a single round of key derivation is enough.
fn cipher(name: Program, direction: &[&str]) -> Stage {
    let words = ["enc", "-aes-256-ctr", "-bufsize", "64k", "-pbkdf2", "-iter", "1", "-pass"];
    let mut program = Invocation::new("openssl", words);
    program.args.push(Word::Key);
    add(&mut program, direction);
    program.confined = name == Program::Decrypt;
    Stage { name, run: Run::Program(program) }
}

fn compressor(Compression { program, level }: Compression, threads: u32) -> Stage {
    let level = format!("-{level}");
    let threads = threads.to_string();
    let words = match program {
        Compressor::Zstd => vec!["-q".to_owned(), level, format!("-T{threads}"), "-c".to_owned()],
        Compressor::Pigz => vec![level, "-p".to_owned(), threads, "-c".to_owned()],
        Compressor::Gzip | Compressor::Lz4 => vec![level, "-c".to_owned()],
    };
    Stage { name: Program::Compress, run: Run::Program(Invocation::new(program.name(), words)) }
}

fn decompressor(program: &str) -> Stage {
    let quiet: &[&str] = if program == "zstd" { &["-q"] } else { &[] };
    let mut program = Invocation::new(program, [quiet, &["-d", "-c"]].concat());
    program.confined = true;
    Stage { name: Program::Decompress, run: Run::Program(program) }
}

/// Returns the invocation of a command line.
fn invocation(words: &[String]) -> Invocation {
    let (program, args) = words.split_first().map_or(("", words), |(program, args)| (program.as_str(), args));
    Invocation::new(program, args)
}

fn add<T: AsRef<OsStr>>(program: &mut Invocation, words: impl IntoIterator<Item = T>) {
    program.args.extend(words.into_iter().map(|word| Word::Literal(HostBytes::from(word.as_ref()))));
}

fn literal(bytes: impl Into<Vec<u8>>) -> Word {
    Word::Literal(bytes.into().into())
}
