//! What may go wrong with the bytes between two disks, and who notices: damage on the wire, on the target's disk, a
//! stream that is cut short, strangers on the port.

use crate::networks::NETCATS;
use crate::support::changes::{Wrapper, call_nc};
use crate::support::commands::Running;
use crate::support::copies::{assert_same, make_random};
use crate::support::hosts::Host;
use crate::support::scenes::{SOON, Scene};
use crate::support::snapshots::Snapshot;

/// The sender's netcat, with its input sent through a filter; the exit status is netcat's.
fn filter(source: &Host, filter: &str) -> Wrapper {
    let script =
        format!("[[ $* == *' -N '* ]] && {{ {filter} | $real \"$@\"; exit \"${{PIPESTATUS[1]}}\"; }}");
    Wrapper::new(source, "nc", &script)
}

/// The sender's netcat, with one bit of the byte at an offset turned over.
fn flip(source: &Host, offset: u64) -> Wrapper {
    let perl = format!(
        "perl -e 'my $at = {offset}; while (my $n = sysread(STDIN, my $b, 65536)) {{ \
         substr($b, $at, 1) ^= chr(1) if $at >= 0 && $at < $n; $at -= $n; \
         while (length $b) {{ my $w = syswrite(STDOUT, $b) or exit 1; substr($b, 0, $w, q()) }} }}'"
    );
    filter(source, &perl)
}

/// The tar that unpacks, with a command that it runs in the staging directory when it is done.
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
    /// The transfer has to fail with a code, a text has to be in its message, and nothing may be left of it.
    #[track_caller]
    fn fails(&self, options: &[&str], code: i32, text: &str) {
        let output = self.transfer(options).expect_code(code);
        assert!(output.stderr.contains(text), "no '{text}': {output}");
        assert!(self.arrived().is_empty(), "{output}");
    }
}

/// Nothing is checked but names, sizes and the number of bytes.
const BARE: [&str; 4] = ["--no-compress", "--no-encrypt", "--no-checksum", "--no-parallel-checksum"];
/// In the contents of the file, whether they are compressed or not.
const IN_THE_MIDDLE: u64 = 5 << 20;

#[test]
fn exclusive_a_bit_that_flips_on_the_wire_is_seen_by_the_digest_of_the_stream() {
    let Some(scene) = scene() else { return };
    let _flip = flip(&scene.db1, IN_THE_MIDDLE);
    scene.fails(&["--no-compress"], 3, "the stream was altered on its way from db1: its sha256");
    let only_stream = ["--no-compress", "--no-encrypt", "--parallel-checksum"];
    scene.fails(&only_stream, 3, "the stream was altered on its way from db1: its sha256");
}

#[test]
fn exclusive_a_bit_that_flips_on_the_wire_never_reaches_the_target_even_if_a_decoder_stops_at_it() {
    let Some(scene) = scene() else { return };
    // The cipher's salt, the first block of the compressed data, and one of many.
    for offset in [8, 1000, IN_THE_MIDDLE] {
        let _flip = flip(&scene.db1, offset);
        for options in [&[][..], &["--no-encrypt", "--parallel-checksum"]] {
            let output = scene.transfer(options).expect_code(3);
            // The source has done nothing wrong.
            let blamed = output.stderr.contains("FAILED: db2: the stream was altered on its way from db1");
            assert!(blamed, "byte {offset}: {output}");
            assert!(scene.arrived().is_empty(), "byte {offset}: {output}");
        }
    }
}

#[test]
fn exclusive_without_a_digest_of_the_stream_a_flipped_bit_is_seen_by_the_digest_of_its_file_or_not_at_all() {
    let Some(scene) = scene() else { return };
    let _flip = flip(&scene.db1, IN_THE_MIDDLE);
    scene.fails(&["--no-compress", "--no-encrypt", "--checksum"], 3, "source/file (other contents)");

    // What this costs is documented: such a copy is taken for good.
    scene.transfer(&BARE).expect_success();
    let compare = format!("md5sum '{}/file'", scene.source);
    assert_ne!(scene.db1.sh(&compare), scene.db2.sh(&compare));
}

#[test]
fn exclusive_a_bit_that_flips_on_the_target_s_disk_is_seen_by_the_digest_of_its_file() {
    let Some(scene) = scene() else { return };
    let _flip = after_tar(
        &scene.db2,
        r#"file=source/file; time=$(stat -c %y $file)
        byte=$(dd if=$file bs=1 skip=1000000 count=1 status=none | od -An -tu1)
        printf "\\$(printf %03o $((byte ^ 1)))" | dd of=$file bs=1 seek=1000000 conv=notrunc status=none
        touch -d "$time" $file"#,
    );
    scene.fails(&[], 3, "source/file (other contents)");
    scene.fails(&BARE[..2], 3, "source/file (other contents)");

    // The digest of the stream sees the network and nothing else; that is documented, too.
    let output = scene.transfer(&["--parallel-checksum"]).expect_success();
    assert!(output.stdout.contains("sha256 of the stream") && !output.stdout.contains("md5"), "{output}");
}

#[test]
fn exclusive_entries_that_are_missing_or_too_many_on_the_target_are_named_without_any_digest() {
    let Some(scene) = scene() else { return };
    let _tar = after_tar(&scene.db2, "mv source/file $'source/an\\nother'");
    scene.fails(
        &BARE,
        3,
        "2 entries differ: source/an\\nother is on the target only, source/file is not on the target",
    );
    let _tar = after_tar(&scene.db2, "truncate -s 1000 source/file");
    scene.fails(&BARE, 3, "source/file (12582912 bytes on the source, 1000 on the target)");
}

#[test]
fn exclusive_a_stream_that_is_cut_short_publishes_nothing_even_if_all_programs_are_content() {
    let Some(scene) = scene() else { return };
    // What tar writes behind its end mark, it does not miss.
    for (options, kept) in
        [(&BARE[..], "-c -1024"), (&BARE[..], "-c 5M"), (&BARE[..], "-c 0"), (&[][..], "-c 5M")]
    {
        let _cut = filter(&scene.db1, &format!("{{ head {kept}; cat >/dev/null; }}"));
        let output = scene.transfer(options);
        assert!([Some(1), Some(3)].contains(&output.status.code()), "head {kept}: {output}");
        assert!(scene.arrived().is_empty(), "head {kept}: {output}");
    }
    // The same with a netcat that ends too early and is content.
    let _gone =
        Wrapper::new(&scene.db1, "nc", "[[ $* == *' -N '* ]] && { head -c 5M | $real \"$@\"; exit 0; }");
    for options in [&BARE[..], &[][..]] {
        let output = scene.transfer(options);
        assert!([Some(1), Some(3)].contains(&output.status.code()), "{output}");
        assert!(scene.arrived().is_empty(), "{output}");
    }
}

/// Connects to each of some ports of db2, `$1` to `$2`, as soon as somebody listens there, and does `$3`.
const STRANGER: &str = r#"
    for ((port = $1; port <= $2; port++)); do
        until exec 3<>"/dev/tcp/10.77.0.12/$port"; do :; done 2>/dev/null
        echo "connected to $port"
        eval "$3"
    done"#;

fn strangers(host: &Host, first: u16, last: u16, then: &str) -> Running {
    host.spawn(&["bash", "--norc", "-c", STRANGER, "bash", &first.to_string(), &last.to_string(), then])
}

/// Another try on another port, and a copy of our own data.
fn a_stranger_costs_another_try(then: &str) {
    // Where nothing is taken beside the stream, its digest, and all that is done by default; and on the only port that may
    // be had, also with those netcats that listen no more once they have a visitor.
    let ways =
        [&BARE[..], &["--no-encrypt", "--parallel-checksum"], &[]].map(|options| (NETCATS[0], options));
    let only = NETCATS.map(|netcat| (netcat, &["--port=4400"][..]));
    for (netcat, options) in ways.into_iter().chain(only) {
        let Some(scene) = scene() else { return };
        let _receiver = call_nc(&scene.db2, netcat);
        let mut stranger = strangers(&scene.db1, 4400, 4400, then);
        let output = scene.transfer(options);
        stranger.wait_for("connected to 4400", SOON);
        output.expect_success();
        assert_same((&scene.db1, &scene.source), (&scene.db2, &scene.source));
    }
}

#[test]
fn exclusive_a_stranger_who_comes_first_and_leaves_costs_another_try_and_nothing_else() {
    a_stranger_costs_another_try("exec 3>&-");
}

#[test]
fn exclusive_a_stranger_who_comes_first_and_talks_costs_another_try_and_nothing_else() {
    a_stranger_costs_another_try("head -c 100000 /dev/urandom >&3; exec 3>&-");
}

#[test]
fn exclusive_a_stranger_who_comes_first_and_stays_costs_another_try_and_nothing_else() {
    a_stranger_costs_another_try("cat <&3 >/dev/null");
}

#[test]
fn exclusive_what_a_stranger_sends_is_not_unpacked() {
    let Some(scene) = scene() else { return };
    let path = scene.scratch.path();
    let archives = format!(
        "mkdir {path}/good {path}/evil; echo 1 >{path}/good/ours; echo 2 >{path}/evil/theirs
         for name in good evil; do tar -C {path}/$name -czf {path}/$name.tar.gz .; done"
    );
    scene.db1.sh(&archives);
    // Who talks our language: without compression and encryption of ours it is read as it is.
    let mut stranger = strangers(&scene.db1, 4400, 4400, &format!("cat {path}/evil.tar.gz >&3; exec 3>&-"));
    let (source, target) = (format!("db1:{path}/good.tar.gz"), format!("db2:{path}"));
    let order = ["--type=decompress", &source, &target, "--as=unpacked", "--no-encrypt", "--no-compress"];
    let output = scene.lab.transfer(&order);
    stranger.wait_for("connected to 4400", SOON);
    output.expect_success();
    assert_eq!(scene.db2.sh(&format!("ls {path}/unpacked")), "ours\n");
}

#[test]
fn exclusive_strangers_on_every_port_end_the_run_as_busy() {
    let Some(scene) = scene() else { return };
    let before = Snapshot::of(&scene.db2, &[scene.scratch.path()]);
    let _strangers = strangers(&scene.db1, 4400, 4500, "exec 3>&-");
    scene.fails(&BARE, 5, "db2: ");
    assert_eq!(before.remaining(&scene.db2, SOON), Vec::<String>::new());
}
