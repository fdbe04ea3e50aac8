//! Plan → stages. Pure.
//!
//! Sender: tar → (meter, compress) → meter with digest → (encrypt) → netcat, or a chain of meters with one netcat beside
//! each. Receiver: netcat → (decrypt) → meter with digest → (decompress) → tar. The meters on both sides stand at the
//! same place of the stream, so their counts must agree.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use super::stage::{Pipeline, Side, Stage};
use crate::host::command::Word;
use crate::plan::{Compression, Plan, StreamDigest, TargetPlan};

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
    tar.push(Word::from("--"));
    tar.push(entry(plan));
    let mut stages = vec![Stage::new("tar", tar)];
    if let Some(compress) = compressor(plan.compression, plan.source.cores) {
        stages.push(meter(job, READ, None));
        stages.push(compress);
    }
    stages.push(meter(job, WIRE, plan.stream_digest));
    if plan.encrypt {
        stages.push(cipher("encrypt", &[]));
    }
    if let [(number, address, port)] = sinks {
        stages.push(Stage::new(&sink_name(*number), argv(&plan.source.netcat.connect(*address, *port))));
    } else {
        let patience = plan.idle_timeout.as_secs().to_string();
        for (number, address, port) in sinks {
            let name = sink_name(*number);
            let mut words = pump(job, &name);
            words.extend(argv(&["--sink", &patience]));
            words.extend(argv(&plan.source.netcat.connect(*address, *port)));
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
    stages.extend(decompressor(plan.compression));
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
    manifest(plan, "manifest", &Word::from(&plan.source.parent), plan.source.cores.div_ceil(2), false)
}

/// The job that lists and digests what arrived, from the disk.
#[must_use]
pub fn target_manifest(plan: &Plan, target: &TargetPlan) -> Vec<u8> {
    manifest(plan, "verify", &Word::from(&target.staging), target.cores, true)
}

/// For the dry run.
#[must_use]
pub fn describe_verification(plan: &Plan) -> String {
    let mut checks =
        vec!["bytes on the wire".to_owned(), "names, types, sizes, modes, owners of all entries".to_owned()];
    checks.extend(plan.stream_digest.map(|digest| format!("{digest} of the stream")));
    if plan.compare_files {
        checks.push("md5 of every file, read from both disks".into());
    }
    format!("{}; sync", checks.join("; "))
}

fn manifest(plan: &Plan, job: &'static str, directory: &Word, workers: u32, fresh: bool) -> Vec<u8> {
    let workers = u64::from(workers.clamp(1, 4));
    // Few enough per process that all workers have some, many enough that starting them costs nothing.
    let batch = (plan.source.files / (workers * 8)).clamp(1, 256);
    let mut words = argv(&["bash", "--norc", "-p"]);
    words.push(Word::Home("manifest.sh".into()));
    words.extend([Word::from(job), directory.clone(), Word::from(&plan.source.name)]);
    words.push(Word::from(if plan.compare_files { "md5" } else { "none" }));
    words.extend([Word::from(&workers.to_string()), Word::from(&batch.to_string())]);
    // Numbers of owners, and what a mode keeps, are only root's to give.
    let root = plan.source.root && plan.targets.iter().all(|target| target.root);
    words.push(Word::from(if root { "owners" } else { "no-owners" }));
    if fresh {
        words.push(Word::from("fresh"));
    }
    let script = Pipeline {
        job,
        directory: Word::from("/"),
        gated: false,
        stages: vec![Stage::new("manifest", words)],
    };
    super::render::script(&script)
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

fn compressor(compression: Compression, cores: u32) -> Option<Stage> {
    let threads = cores.div_ceil(2).to_string();
    let words = match compression {
        Compression::None => return None,
        Compression::Zstd => argv(&["zstd", "-q", "-1", &format!("-T{threads}"), "-c"]),
        Compression::Pigz => argv(&["pigz", "-1", "-p", &threads, "-c"]),
        Compression::Gzip => argv(&["gzip", "-1", "-c"]),
    };
    Some(Stage::new("compress", words))
}

fn decompressor(compression: Compression) -> Option<Stage> {
    let words = match compression {
        Compression::None => return None,
        Compression::Zstd => argv(&["zstd", "-q", "-d", "-c"]),
        Compression::Pigz => argv(&["pigz", "-d", "-c"]),
        Compression::Gzip => argv(&["gzip", "-d", "-c"]),
    };
    Some(Stage::new("decompress", words))
}
