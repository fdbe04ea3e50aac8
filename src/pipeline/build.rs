//! Plan → stages. Pure.
//!
//! Sender: tar → (meter, compress) → meter with digest → (encrypt) → netcat, or a chain of meters with one netcat beside
//! each. Receiver: netcat → (decrypt) → meter with digest → (decompress) → tar. The meters on both sides stand at the
//! same place of the stream, so their counts must agree.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stage::{Pipeline, Side, Stage};
use crate::host::command::Word;
use crate::plan::{Compression, Plan, StreamDigest, TargetPlan};
use crate::values::{Compressor, FileDigest};

/// The meter whose counts are compared.
pub const WIRE: &str = "wire";
/// The meter before the compression, if there is one.
pub const READ: &str = "read";
/// What `openssl enc` puts in front of the ciphertext: `Salted__` and the salt, in bytes.
pub const CIPHER_HEADER: u64 = 16;
/// tar's records: 128 blocks of 512 bytes, a pipe's capacity.
const BLOCKS: &str = "--blocking-factor=128";

/// The job on the source. `sinks` are the targets to be fed: number, address and port of each.
#[must_use]
pub fn sender(plan: &Plan, sinks: &[(usize, IpAddr, u16)]) -> Pipeline {
    let job = "sender";
    let mut tar =
        argv(&["tar", "--create", "--file=-", BLOCKS, "--format=posix", "--sparse", "--numeric-owner"]);
    // Names are taken as they are: a backslash in one is no escape.
    tar.push(Word::from("--no-unquote"));
    tar.extend(attributes(plan.source.root));
    if !plan.exclude.is_empty() {
        tar.push(Word::from("--anchored"));
        tar.extend(excluded(plan).into_iter().map(|path| Word::Literal([b"--exclude=", &path[..]].concat())));
    }
    tar.push(Word::from("--"));
    tar.push(entry(plan));
    let mut stages = vec![Stage::new("tar", tar)];
    if let Some(compression) = plan.compression {
        stages.push(meter(job, READ, None));
        let threads = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
        stages.push(compressor(compression, threads));
    }
    stages.push(meter(job, WIRE, plan.stream_digest));
    if plan.encrypt {
        stages.push(cipher("encrypt", &[]));
    }
    if let [(number, address, port)] = sinks {
        stages.push(Stage::new(
            &sink_name(*number),
            argv(&plan.source.netcat.connect(plan.source.address, *address, *port)),
        ));
    } else {
        let patience = plan.idle_timeout.as_secs().to_string();
        for (number, address, port) in sinks {
            let name = sink_name(*number);
            let mut words = pump(job, &name);
            words.extend(argv(&["--sink", &patience]));
            words.extend(argv(&plan.source.netcat.connect(plan.source.address, *address, *port)));
            stages.push(Stage::new(&name, words));
        }
        if let Some(last) = stages.last_mut() {
            last.discard = true;
        }
    }
    Pipeline { job, directory: Word::from(&plan.source.parent), gated: true, stages }
}

/// The job on a target, listening on `port`.
#[must_use]
pub fn receiver(plan: &Plan, target: &TargetPlan, port: u16) -> Pipeline {
    let job = "receiver";
    let mut stages = vec![Stage::new("netcat", argv(&target.netcat.listen(target.address, port)))];
    if plan.encrypt {
        stages.push(cipher("decrypt", &["-d"]));
    }
    stages.push(meter(job, WIRE, plan.stream_digest));
    stages.extend(plan.compression.map(decompressor));
    let mut tar =
        argv(&["tar", "--extract", "--file=-", BLOCKS, "--preserve-permissions", "--numeric-owner"]);
    tar.push(Word::from(if target.root { "--same-owner" } else { "--no-same-owner" }));
    tar.push(Word::from("--delay-directory-restore"));
    tar.extend(attributes(target.root));
    stages.push(Stage::new("tar", tar));
    Pipeline { job, directory: Word::from(&target.staging), gated: false, stages }
}

/// The name of the stage on the source that feeds the target of that number.
#[must_use]
pub fn sink_name(number: usize) -> String {
    format!("netcat{number}")
}

/// The job that lists and digests the source while it is copied.
#[must_use]
pub fn source_manifest(plan: &Plan) -> Vec<u8> {
    let workers = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
    manifest(plan, "manifest", &Word::from(&plan.source.parent), workers, Freshness::Old)
}

/// The job that lists and digests what arrived, from the disk where it was waited for.
#[must_use]
pub fn target_manifest(plan: &Plan, target: &TargetPlan) -> Vec<u8> {
    let freshness = if plan.fsync { Freshness::Synced } else { Freshness::Unsynced };
    manifest(plan, "verify", &Word::from(&target.staging), plan.threads.unwrap_or(target.cores), freshness)
}

/// The job that lists, in the guard's directory, what has changed on the source since the guard was started.
#[must_use]
pub fn changed(plan: &Plan) -> Vec<u8> {
    // The guard's tools were written when it was started, and never again.
    // find complains of what goes meanwhile; what it does not list explains nothing.
    let find = "find \"./$1\" -cnewer \"$home/pump.pl\" -print0 >\"$home/changed\" || :";
    let words = argv(&["bash", "--norc", "-p", "-c", find, "changed"]);
    let name = Word::from(&plan.source.name);
    single("changed", &plan.source.parent, "find", [words, vec![name]].concat())
}

/// The job that gives a copy to its owner, if it is to have another one.
#[must_use]
pub fn chown(plan: &Plan, target: &TargetPlan) -> Option<Vec<u8>> {
    let owner = &plan.chown.as_ref()?.0;
    let chown = "chown -hR -- \"$1\" \"./$2\" && { [[ $3 != sync ]] || sync -f -- .; }";
    let mut words = argv(&["bash", "--norc", "-p", "-c", chown, "chown", owner]);
    words.push(Word::from(&plan.source.name));
    words.push(Word::from(if plan.fsync { "sync" } else { "no-sync" }));
    Some(single("chown", &target.staging, "chown", words))
}

/// For the dry run: what is compared, and how durable it is then.
#[must_use]
pub fn describe_verification(plan: &Plan) -> String {
    let attributes =
        if owners_count(plan) { "names, types, sizes, modes, owners" } else { "names, types, sizes" };
    let mut checks = vec!["bytes on the wire".to_owned(), format!("{attributes} of all entries")];
    checks.extend(plan.stream_digest.map(|digest| format!("{digest} of the stream")));
    checks.extend(plan.file_digest.map(|digest| {
        let disks = if plan.fsync { "read from both disks" } else { "not waiting for the target's disk" };
        format!("{} of every file, {disks}", digest.name())
    }));
    if plan.fsync {
        checks.push("sync".into());
    }
    checks.join("; ")
}

/// What is known of the bytes that are to be listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// They were there before.
    Old,
    /// Written just now; to be synced, and read from the disk.
    Synced,
    /// Written just now, and not waited for.
    Unsynced,
}

fn manifest(plan: &Plan, job: &'static str, directory: &Word, workers: u32, freshness: Freshness) -> Vec<u8> {
    let workers = u64::from(if plan.threads.is_some() { workers } else { workers.clamp(1, 4) });
    // Few enough per process that all workers have some, many enough that starting them costs nothing.
    let batch = (plan.source.files / (workers * 8)).clamp(1, 256);
    let mut words = argv(&["bash", "--norc", "-p"]);
    words.push(Word::Home("manifest.sh".into()));
    words.extend([Word::from(job), directory.clone(), Word::from(&plan.source.name)]);
    words.push(Word::from(plan.file_digest.map_or("none", FileDigest::program)));
    words.extend([Word::from(&workers.to_string()), Word::from(&batch.to_string())]);
    words.push(Word::from(if owners_count(plan) { "owners" } else { "no-owners" }));
    words.push(Word::from(if freshness == Freshness::Synced { "sync" } else { "no-sync" }));
    words.push(Word::from(if plan.ignore_changed && freshness == Freshness::Old {
        "lenient"
    } else {
        "strict"
    }));
    // What was left out is not on the target, where nothing else may be overlooked.
    if freshness == Freshness::Old {
        words.extend(excluded(plan).into_iter().map(Word::Literal));
    }
    single(job, Path::new("/"), "manifest", words)
}

/// A job of one program.
fn single(job: &'static str, directory: &Path, name: &str, argv: Vec<Word>) -> Vec<u8> {
    let stages = vec![Stage::new(name, argv)];
    super::render::script(&Pipeline { job, directory: Word::from(directory), gated: false, stages })
}

/// Numbers of owners, and what a mode keeps, are only root's to give.
fn owners_count(plan: &Plan) -> bool {
    plan.source.root && plan.targets.iter().all(|target| target.root)
}

/// The patterns of whole paths that are left out.
fn excluded(plan: &Plan) -> Vec<Vec<u8>> {
    plan.exclude.iter().flat_map(|pattern| pattern.below(&plan.source.name)).collect()
}

fn argv<T: AsRef<OsStr>>(words: &[T]) -> Vec<Word> {
    words.iter().map(Word::from).collect()
}

/// `./NAME`: a name that begins with a dash is no option.
fn entry(plan: &Plan) -> Word {
    Word::Literal([b"./", plan.source.name.as_bytes()].concat())
}

/// Attributes of all kinds where we are root; without root the system gives and takes only the user's own. ACLs are
/// among them, as the kernel stores them: by number, where tar's own `--acls` goes by names that mean others elsewhere.
fn attributes(root: bool) -> Vec<Word> {
    if root {
        argv(&["--xattrs", "--xattrs-include=*"])
    } else {
        argv(&["--xattrs", "--xattrs-include=user.*", "--xattrs-include=system.posix_acl_*"])
    }
}

fn pump(job: &str, meter: &str) -> Vec<Word> {
    vec![Word::from("perl"), Word::Home("pump.pl".into()), Word::from(job), Word::from(meter)]
}

fn meter(job: &str, name: &str, digest: Option<StreamDigest>) -> Stage {
    let mut stage = Stage::new(name, pump(job, name));
    if let Some(digest) = digest {
        let program = match digest {
            StreamDigest::Sha256 => argv(&["openssl", "dgst", "-sha256", "-r"]),
            StreamDigest::Md5 => argv(&["md5sum"]),
        };
        let pipe = format!("{job}.digest");
        stage.argv.push(Word::Home(pipe.clone()));
        stage.side = Some(Side { name: pipe, argv: program });
    }
    stage
}

/// The key comes on descriptor 6. It is 256 random bits, so one round of the derivation is enough.
fn cipher(name: &str, direction: &[&str]) -> Stage {
    let mut words = argv(&["openssl", "enc", "-aes-256-ctr", "-bufsize", "64k", "-pbkdf2", "-iter", "1"]);
    words.extend(argv(&["-pass", "fd:6"]));
    words.extend(argv(direction));
    Stage::new(name, words)
}

fn compressor(Compression { program, level }: Compression, threads: u32) -> Stage {
    let level = format!("-{level}");
    let threads = threads.to_string();
    let words = match program {
        Compressor::Zstd => argv(&["zstd", "-q", &level, &format!("-T{threads}"), "-c"]),
        Compressor::Pigz => argv(&["pigz", &level, "-p", &threads, "-c"]),
        Compressor::Gzip | Compressor::Lz4 => argv(&[program.name(), &level, "-c"]),
    };
    Stage::new("compress", words)
}

fn decompressor(Compression { program, .. }: Compression) -> Stage {
    let quiet: &[&str] = if program == Compressor::Zstd { &["-q"] } else { &[] };
    Stage::new("decompress", argv(&[&[program.name()], quiet, &["-d", "-c"]].concat()))
}
