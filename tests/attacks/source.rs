//! A source of an ordinary account, which replaces it after the check.

use crate::assertions::says;
use crate::support::attackers::eve::Eve;
use crate::support::copies::is_old;
use crate::support::held::{Held, MORE_THAN_BUFFERS, being_read};
use crate::support::output::Output;
use crate::support::scenes::{SOON, Scene};

/// Commands that replace `source`, in a directory of hers. The original is then `was`.
const REPLACEMENTS: [(&str, &str); 5] = [
    ("a link to a directory of root's", "ln -s /etc/ssl source"),
    ("a link to what was there", "ln -s was source"),
    ("another directory", "mkdir source; echo other >source/marked; head -c 1M /dev/zero >source/file"),
    ("a FIFO", "mkfifo source"),
    ("a file", "echo other >source"),
];

/// A scene whose source is `hers/source`, of which she owns everything.
fn hers(mib: u32) -> Option<Scene> {
    let scene = Scene::with_source(mib)?;
    Eve::on(&scene.db1);
    scene.db1.sh(&format!(
        "cd '{}'; mkdir hers; cp -a source hers/; cp source/file hers/single; tar -czf hers/packed.gz ./source; chown -R eve hers",
        scene.scratch.path()
    ));
    Some(scene)
}

/// Runs a copy during which eve replaces `name` between the preflight and the start.
#[track_caller]
fn replaced(scene: &Scene, name: &str, replacement: &str, options: &[&str]) -> Output {
    // Restored, for the next round.
    scene.db1.sh(&format!(
        "cd '{}/hers'; if [[ -e was || -L was ]]; then rm -rf '{name}'; mv was '{name}'; fi",
        scene.scratch.path()
    ));
    let script = format!("cd '{}/hers' && mv '{name}' was && {replacement}", scene.scratch.path());
    scene.db1.put(script, &scene.at("replace"), 0o755);
    let hook = format!(
        "before-source=setpriv --reuid eve --regid eve --init-groups -- bash {}",
        scene.at("replace")
    );
    let ends = [format!("db1:{}", scene.at(&format!("hers/{name}"))), format!("db2:{}", scene.at("in"))];
    let args = [&ends.each_ref().map(String::as_str)[..], &["--hook", &hook, "--idle-timeout=10"], options];
    scene.lab.transfer_spawn(&args.concat()).end_within(SOON)
}

/// Asserts that the run failed for that reason, and published nothing.
#[track_caller]
fn is_noticed(scene: &Scene, what: &str, name: &str, output: Output) {
    let arrived = scene.arrived();
    assert!(arrived.is_empty(), "{what}: published {arrived:?}: {output}");
    let output = output.expect_code(1);
    let path = scene.at(&format!("hers/{name}"));
    let named = output.stderr.lines().any(|line| line.contains(&path) && line.contains("preflight"));
    assert!(named, "{what}: no line tells that {path} is not what it was at the preflight: {output}");
}

#[test]
fn replaced_directory_is_noticed() {
    let Some(scene) = hers(1) else { return };
    for (what, replacement) in REPLACEMENTS {
        let output = replaced(&scene, "source", replacement, &[]);
        is_noticed(&scene, what, "source", output);
    }
}

#[test]
fn replaced_file_is_noticed() {
    let Some(scene) = hers(1) else { return };
    for (what, replacement) in [
        ("a link to a file of root's", "ln -s /etc/shadow single"),
        ("another file", "cp was single"),
        ("a directory", "mkdir single"),
        ("a FIFO", "mkfifo single"),
    ] {
        let output = replaced(&scene, "single", replacement, &["--no-checksum"]);
        is_noticed(&scene, what, "single", output);
    }
}

#[test]
fn replaced_archive_source_is_noticed() {
    let Some(scene) = hers(1) else { return };
    for (what, replacement) in REPLACEMENTS {
        let output = replaced(&scene, "source", replacement, &["--type=compress"]);
        is_noticed(&scene, what, "source", output);
    }
}

#[test]
fn replaced_archive_is_noticed() {
    let Some(scene) = hers(1) else { return };
    for (what, replacement) in [
        ("a link to another archive", "tar -czf other ./source; ln -s other packed.gz"),
        ("another archive", "tar -czf packed.gz ./source"),
        ("a FIFO", "mkfifo packed.gz"),
    ] {
        let output = replaced(&scene, "packed.gz", replacement, &["--type=decompress"]);
        is_noticed(&scene, what, "packed.gz", output);
    }
}

#[test]
fn replaced_source_replaces_no_data() {
    let Some(scene) = hers(1) else { return };
    for (what, replacement) in REPLACEMENTS {
        scene.db2.sh(&format!(
            "set -- {}; rm -rf $1; mkdir -p $1/sub; echo 1 >$1/one; echo old >$1/file; echo 2 >$1/sub/two",
            scene.at("in/source")
        ));
        let output = replaced(&scene, "source", replacement, &["--replace"]);
        assert!(
            is_old(&scene.db2, &scene.at("in/source"), &scene.at("fresh")),
            "{what}: the old data is gone: {output}"
        );
        output.expect_code(1);
    }
}

#[test]
fn source_replaced_during_read_is_noticed() {
    let Some(scene) = hers(MORE_THAN_BUFFERS) else { return };
    let eve = Eve::on(&scene.db1);
    let ends = [format!("db1:{}", scene.at("hers/source")), format!("db2:{}", scene.at("in"))];
    // Moving a directory changes its `..`, which is a change that may be ignored.
    for (options, cause) in
        [(&["--ignore-changed"][..], "was replaced during the copy"), (&[], "file changed as we read it")]
    {
        let args = [&ends.each_ref().map(String::as_str)[..], options].concat();
        let held = Held::start(&scene.lab, &args, &scene.db2, &scene.at("in"));
        being_read(&scene.db1, &scene.at("hers"));
        eve.sh(
            "cd \"$1\" && mv source was && mkdir source && echo other >source/marked && \
             head -c $(stat -c %s was/file) /dev/zero >source/file",
            &[&scene.at("hers")],
        );
        let output = held.go().expect_code(1);
        says(&output, cause);
        assert!(scene.arrived().is_empty(), "{output}");
        eve.sh("cd \"$1\" && rm -r source && mv was source", &[&scene.at("hers")]);
    }
}
