//! Damage between two disks, and the checks that detect it: on the wire, on the target's disk, a truncated
//! stream, unexpected peers on the port.

use crate::networks::NETCATS;
use crate::support::changes::{Wrapper, call_nc};
use crate::support::commands::Running;
use crate::support::copies::{assert_same, make_random};
use crate::support::hosts::Host;
use crate::support::scenes::{SOON, Scene};
use crate::support::snapshots::Snapshot;

/// Filters the input of the sender's netcat; the exit status is netcat's.
fn filter(source: &Host, filter: &str) -> Wrapper {
    let script =
        format!("[[ $* == *' -N '* ]] && {{ {filter} | $real \"$@\"; exit \"${{PIPESTATUS[1]}}\"; }}");
    Wrapper::new(source, "nc", &script)
}

/// Flips one bit of the byte at an offset in the sender's stream.
fn flip(source: &Host, offset: u64) -> Wrapper {
    let perl = format!(
        "perl -e 'my $at = {offset}; while (my $n = sysread(STDIN, my $b, 65536)) {{ \
         substr($b, $at, 1) ^= chr(1) if $at >= 0 && $at < $n; $at -= $n; \
         while (length $b) {{ my $w = syswrite(STDOUT, $b) or exit 1; substr($b, 0, $w, q()) }} }}'"
    );
    filter(source, &perl)
}

/// Runs a command in the staging directory when the receiver's tar has ended.
fn after_tar(target: &Host, command: &str) -> Wrapper {
    let script =
        format!("[[ $* == *--extract* ]] && {{ $real \"$@\"; status=$?; {command}\nexit $status; }}");
    Wrapper::new(target, "tar", &script)
}

/// A scene with a tree on db1, and the directory of the test as its target.
fn scene() -> Option<Scene> {
    let mut scene = Scene::new()?;
    scene.target = scene.scratch.path().to_owned();
    scene.db1.run(&["mkdir", &scene.source]).expect_success();
    make_random(&scene.db1, &format!("{}/file", scene.source), 12);
    Some(scene)
}

impl Scene {
    /// Asserts that a transfer fails with a code and a text, and leaves nothing.
    #[track_caller]
    fn fails(&self, options: &[&str], code: i32, text: &str) {
        let output = self.transfer(options).expect_code(code);
        assert!(output.stderr.contains(text), "no '{text}': {output}");
        assert!(self.arrived().is_empty(), "{output}");
    }
}

/// Options without any digest: only names, sizes and the number of bytes are checked.
const BARE: [&str; 4] = ["--no-compress", "--no-encrypt", "--no-checksum", "--no-parallel-checksum"];
/// Offset in the contents of the file, whether compressed or not.
const IN_THE_MIDDLE: u64 = 5 << 20;

#[test]
fn exclusive_stream_digest_detects_bit_flipped_on_wire() {
    let Some(scene) = scene() else { return };
    let _flip = flip(&scene.db1, IN_THE_MIDDLE);
    scene.fails(&["--no-compress"], 3, "the stream was altered on its way from db1: its sha256");
    let only_stream = ["--no-compress", "--no-encrypt", "--parallel-checksum"];
    scene.fails(&only_stream, 3, "the stream was altered on its way from db1: its sha256");
}

#[test]
fn exclusive_bit_flipped_before_decoders_publishes_nothing() {
    let Some(scene) = scene() else { return };
    // The cipher's salt, the first block of the compressed data, and one of many.
    for offset in [8, 1000, IN_THE_MIDDLE] {
        let _flip = flip(&scene.db1, offset);
        for options in [&[][..], &["--no-encrypt", "--parallel-checksum"]] {
            let output = scene.transfer(options).expect_code(3);
            // The source is not at fault.
            let blamed = output.stderr.contains("FAILED: db2: the stream was altered on its way from db1");
            assert!(blamed, "byte {offset}: {output}");
            assert!(scene.arrived().is_empty(), "byte {offset}: {output}");
        }
    }
}

#[test]
fn exclusive_file_digest_detects_bit_flipped_on_wire() {
    let Some(scene) = scene() else { return };
    let _flip = flip(&scene.db1, IN_THE_MIDDLE);
    scene.fails(&["--no-compress", "--no-encrypt", "--checksum"], 3, "source/file (different contents)");

    // As documented: such a copy is not detected.
    scene.transfer(&BARE).expect_success();
    let compare = format!("md5sum '{}/file'", scene.source);
    assert_ne!(scene.db1.sh(&compare), scene.db2.sh(&compare));
}

#[test]
fn exclusive_file_digest_detects_bit_flipped_on_disk() {
    let Some(scene) = scene() else { return };
    let _flip = after_tar(
        &scene.db2,
        r#"file=source/file; time=$(stat -c %y $file)
        byte=$(dd if=$file bs=1 skip=1000000 count=1 status=none | od -An -tu1)
        printf "\\$(printf %03o $((byte ^ 1)))" | dd of=$file bs=1 seek=1000000 conv=notrunc status=none
        touch -d "$time" $file"#,
    );
    scene.fails(&[], 3, "source/file (different contents)");
    scene.fails(&BARE[..2], 3, "source/file (different contents)");

    // As documented: the digest of the stream covers only the network.
    let output = scene.transfer(&["--parallel-checksum"]).expect_success();
    assert!(output.stdout.contains("SHA-256 of the stream") && !output.stdout.contains("MD5"), "{output}");
}

#[test]
fn exclusive_missing_and_extra_entries_are_named() {
    let Some(scene) = scene() else { return };
    let _tar = after_tar(&scene.db2, "mv source/file $'source/an\\nother'");
    scene.fails(
        &BARE,
        3,
        "2 entries differ: source/an\\nother is only on the target, source/file is missing on the target",
    );
    let _tar = after_tar(&scene.db2, "truncate -s 1000 source/file");
    scene.fails(&BARE, 3, "source/file (12582912 bytes on the source, 1000 on the target)");
}

#[test]
fn exclusive_truncated_stream_publishes_nothing() {
    let Some(scene) = scene() else { return };
    // tar does not notice missing padding after its end mark.
    for (options, kept) in
        [(&BARE[..], "-c -1024"), (&BARE[..], "-c 5M"), (&BARE[..], "-c 0"), (&[][..], "-c 5M")]
    {
        let _cut = filter(&scene.db1, &format!("{{ head {kept}; cat >/dev/null; }}"));
        let output = scene.transfer(options);
        assert!([Some(1), Some(3)].contains(&output.status.code()), "head {kept}: {output}");
        assert!(scene.arrived().is_empty(), "head {kept}: {output}");
    }
    // A netcat that ends early, with status 0.
    let _gone =
        Wrapper::new(&scene.db1, "nc", "[[ $* == *' -N '* ]] && { head -c 5M | $real \"$@\"; exit 0; }");
    for options in [&BARE[..], &[][..]] {
        let output = scene.transfer(options);
        assert!([Some(1), Some(3)].contains(&output.status.code()), "{output}");
        assert!(scene.arrived().is_empty(), "{output}");
    }
}

/// Connects to each port of db2 from `$1` to `$2` as soon as it is open, and runs `$3`.
const UNEXPECTED_PEER: &str = r#"
    for ((port = $1; port <= $2; port++)); do
        until exec 3<>"/dev/tcp/10.77.0.12/$port"; do :; done 2>/dev/null
        echo "connected to $port"
        eval "$3"
    done"#;

fn unexpected_peers(host: &Host, first: u16, last: u16, then: &str) -> Running {
    host.spawn(&[
        "bash",
        "--norc",
        "-c",
        UNEXPECTED_PEER,
        "bash",
        &first.to_string(),
        &last.to_string(),
        then,
    ])
}

/// Asserts that an unexpected peer only causes another attempt on another port, and that the copy is ours.
fn unexpected_peer_costs_another_try(then: &str) {
    // Without any digest, with that of the stream only, and with all defaults; and with a single port, also
    // for those netcats that stop listening after a connection.
    let ways =
        [&BARE[..], &["--no-encrypt", "--parallel-checksum"], &[]].map(|options| (NETCATS[0], options));
    let only = NETCATS.map(|netcat| (netcat, &["--port=4400"][..]));
    for (netcat, options) in ways.into_iter().chain(only) {
        let Some(scene) = scene() else { return };
        let _receiver = call_nc(&scene.db2, netcat);
        let mut peer = unexpected_peers(&scene.db1, 4400, 4400, then);
        let output = scene.transfer(options);
        peer.wait_for("connected to 4400", SOON);
        output.expect_success();
        assert_same((&scene.db1, &scene.source), (&scene.db2, &scene.source));
    }
}

#[test]
fn exclusive_closing_unexpected_peer_costs_one_retry() {
    unexpected_peer_costs_another_try("exec 3>&-");
}

#[test]
fn exclusive_sending_unexpected_peer_costs_one_retry() {
    unexpected_peer_costs_another_try("head -c 100000 /dev/urandom >&3; exec 3>&-");
}

#[test]
fn exclusive_lingering_unexpected_peer_costs_one_retry() {
    unexpected_peer_costs_another_try("cat <&3 >/dev/null");
}

#[test]
fn exclusive_data_of_unexpected_peer_is_not_unpacked() {
    let Some(scene) = scene() else { return };
    let path = scene.scratch.path();
    let archives = format!(
        "mkdir {path}/good {path}/evil; echo 1 >{path}/good/ours; echo 2 >{path}/evil/theirs
         for name in good evil; do tar -C {path}/$name -czf {path}/$name.tar.gz .; done"
    );
    scene.db1.sh(&archives);
    // A peer with valid data: without our compression and encryption it would be read.
    let mut peer =
        unexpected_peers(&scene.db1, 4400, 4400, &format!("cat {path}/evil.tar.gz >&3; exec 3>&-"));
    let (source, target) = (format!("db1:{path}/good.tar.gz"), format!("db2:{path}"));
    let order = ["--type=decompress", &source, &target, "--as=unpacked", "--no-encrypt", "--no-compress"];
    let output = scene.lab.transfer(&order);
    peer.wait_for("connected to 4400", SOON);
    output.expect_success();
    assert_eq!(scene.db2.sh(&format!("ls {path}/unpacked")), "ours\n");
}

#[test]
fn exclusive_unexpected_peers_on_every_port_exit_as_busy() {
    let Some(scene) = scene() else { return };
    let before = Snapshot::of(&scene.db2, &[scene.scratch.path()]);
    let _peers = unexpected_peers(&scene.db1, 4400, 4500, "exec 3>&-");
    scene.fails(&BARE, 5, "db2: ");
    assert_eq!(before.remaining(&scene.db2, SOON), Vec::<String>::new());
}
