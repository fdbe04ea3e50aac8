//! Target directories that other accounts can change: whoever can rename a directory above the staging
//! directory decides where root's decoder writes. The preflight refuses them; with `--allow-shared-path`, the
//! run is protected in other ways.

use crate::assertions::{code_is_one_of, says};
use crate::support::attackers::MARKER;
use crate::support::attackers::eve::Eve;
use crate::support::copies::assert_same;
use crate::support::output::Output;
use crate::support::scenes::{SOON, Scene};

/// Option that allows such a target.
const ALLOW: &str = "--allow-shared-path";

/// Commands that create directories in the test's own directory on the target, the target directory, and the
/// component at fault.
const SHARED: [(&str, &str, &str); 8] = [
    ("mkdir owned; chown eve owned", "owned", "owned"),
    ("mkdir -p above/middle/target; chown eve above", "above/middle/target", "above"),
    ("mkdir -p below/hers/target; chown eve below/hers", "below/hers/target", "below/hers"),
    ("mkdir -m 0777 everybody", "everybody", "everybody"),
    ("mkdir group; chgrp eve group; chmod 0775 group", "group", "group"),
    ("mkdir acl; setfacl -m u:eve:rwx acl", "acl", "acl"),
    ("mkdir real; ln -s real link; chown -h eve link", "link", "link"),
    ("mkdir -m 1777 sticky; mkdir sticky/hers; chown eve sticky/hers", "sticky/hers", "sticky/hers"),
];

fn made(number_of_mib: u32) -> Option<Scene> {
    let scene = Scene::with_source(number_of_mib)?;
    let _eve = Eve::on(&scene.db2);
    let make: String = SHARED.iter().map(|(make, _, _)| format!("{make}\n")).collect();
    scene.db2.sh(&format!("cd '{}'\n{make}", scene.scratch.path()));
    Some(scene)
}

fn copy(scene: &Scene, directories: &[String], options: &[&str]) -> Output {
    let source = format!("db1:{}", scene.at("source"));
    let targets: Vec<String> = directories.iter().map(|directory| format!("db2:{directory}")).collect();
    let ends = std::iter::once(&source).chain(&targets).map(String::as_str);
    scene.lab.transfer_spawn(&ends.chain(options.iter().copied()).collect::<Vec<_>>()).end_within(SOON)
}

#[test]
fn shared_path_refusal_names_component_owner_and_fix() {
    let Some(scene) = made(1) else { return };
    let targets = SHARED.map(|(_, target, _)| scene.at(target));
    let output = copy(&scene, &targets, &[]).expect_code(4);
    for (_, target, component) in SHARED {
        let component = scene.at(component);
        let line = output.stderr.lines().find(|line| {
            line.contains(&format!("{component} ")) && line.contains(ALLOW) && line.contains("db2")
        });
        let line = line.unwrap_or_else(|| panic!("{target}: {component} is not named: {output}"));
        let owner =
            if target == "everybody" || target == "group" || target == "acl" { "root" } else { "eve" };
        assert!(line.contains(owner), "{target}: '{line}' does not tell that it is {owner}'s");
    }
    assert_eq!(scene.db2.sh(&format!("find '{}' -name marked", scene.scratch.path())), "");
}

#[test]
fn every_transfer_type_refuses_shared_target_path() {
    let Some(scene) = made(1) else { return };
    let archive = scene.at("packed.tar.gz");
    scene.db1.sh(&format!("tar -C '{}' -czf '{archive}' .", scene.at("source")));
    let source = format!("db1:{}", scene.at("source"));
    let (archive, target) = (format!("db1:{archive}"), format!("db2:{}", scene.at("above/middle/target")));
    let own = format!("dba@db2:{}", scene.at("everybody"));
    for args in [
        &[&archive, &target, "--type=decompress"][..],
        &[&archive, &target, "--type=decompress", "--as=unpacked"],
        &[&source, &target, "--type=compress"],
        &[&source, &target, "--replace"],
        &[&source, &own],
    ] {
        let output = scene.lab.transfer_spawn(args).end_within(SOON).expect_code(4);
        says(&output, ALLOW);
    }
    assert_eq!(scene.db2.sh(&format!("find '{}' -name 'marked*'", scene.scratch.path())), "");
}

#[test]
fn allowed_shared_paths_work() {
    let Some(scene) = made(1) else { return };
    for target in ["owned", "acl"] {
        let target = scene.at(target);
        copy(&scene, std::slice::from_ref(&target), &[ALLOW]).expect_success();
        assert_same((&scene.db1, &scene.at("source")), (&scene.db2, &format!("{target}/source")));
    }
}

#[test]
fn sticky_and_private_directories_are_allowed() {
    let Some(scene) = Scene::with_source(1) else { return };
    let eve = Eve::on(&scene.db2);
    scene.db2.sh(&format!(
        "cd '{}'; mkdir -m 1777 sticky; mkdir sticky/target; mkdir private; chown mysql:mysql private",
        scene.scratch.path()
    ));
    copy(&scene, &[scene.at("sticky/target")], &[]).expect_success();
    assert_same((&scene.db1, &scene.at("source")), (&scene.db2, &scene.at("sticky/target/source")));
    // Not of eve's: an account without privileges may receive in its own directory.
    scene.db2.sh(&format!("mkdir '{0}'; chown dba '{0}'", scene.at("dba")));
    let own = format!("dba@db2:{}", scene.at("dba"));
    scene
        .lab
        .transfer_spawn(&[&format!("db1:{}", scene.at("source")), &own])
        .end_within(SOON)
        .expect_success();
    drop(eve);
}

/// Moves a staging directory of root's away as soon as it exists, and puts a link in its place. Arguments:
/// the directory that she can change, and the target of the link.
const SWAP: &str = r#"
    my ($directory, $elsewhere) = @ARGV;
    print "ready\n"; $| = 1;
    while (1) {
        for my $staging (glob "$directory/.transfer-*") {
            next if -l $staging;
            rename $staging, "$directory/moved" and symlink $elsewhere, $staging;
        }
        select undef, undef, undef, 0.001;
    }"#;

/// Runs a copy while eve swaps the staging directory in `directory`. Nothing may get into `private`, which is
/// root's.
#[track_caller]
fn swapped(scene: &Scene, directory: &str, args: &[&str]) -> Output {
    let eve = Eve::on(&scene.db2);
    let private = scene.at("private");
    // Files that were written there may have been published already, so the directory itself is checked.
    let look = format!("stat -c '%a %U %z' '{private}'");
    let before = scene.db2.sh(&format!("rm -rf '{private}'; mkdir '{private}'; {look}"));
    let mut attack = eve.perl(SWAP, &[directory, &private]);
    attack.program.wait_for("ready", SOON);
    let output = scene.lab.transfer_spawn(args).end_within(SOON);
    drop(attack);
    let written = scene.db2.sh(&format!("find '{private}' -mindepth 1"));
    assert!(written.is_empty(), "root wrote outside, for eve:\n{written}{output}");
    assert_eq!(scene.db2.sh(&look), before, "root changed a directory outside, for eve: {output}");
    scene.db2.sh(&format!("cd '{directory}'; rm -rf moved source data file marked .transfer-* source.tar*"));
    output
}

#[test]
fn swapped_staging_directory_redirects_nothing() {
    let Some(scene) = made(1) else { return };
    let directory = scene.at("owned");
    let ends = [format!("db1:{}", scene.at("source")), format!("db2:{directory}")];
    let ends = ends.each_ref().map(String::as_str);
    swapped(&scene, &directory, &ends).expect_code(4);
    let output = swapped(&scene, &directory, &[&ends[..], &[ALLOW]].concat());
    // Nor can a staging directory be removed that she has moved away.
    code_is_one_of(&output, &[1, 6]);
    says(&output, &directory);
}

#[test]
fn swapped_staging_directory_redirects_no_archive() {
    let Some(scene) = made(1) else { return };
    let (directory, archive) = (scene.at("owned"), scene.at("packed.tar.gz"));
    scene.db1.sh(&format!("tar -C '{}' -czf '{archive}' .", scene.at("source")));
    let (packed, source) = (format!("db1:{archive}"), format!("db1:{}", scene.at("source")));
    let target = format!("db2:{directory}");
    for args in [[&packed, &target, "--type=decompress"], [&source, &target, "--type=compress"]] {
        swapped(&scene, &directory, &args).expect_code(4);
    }
    for args in
        [&[&packed, &target, "--type=decompress", ALLOW][..], &[&source, &target, "--type=compress", ALLOW]]
    {
        code_is_one_of(&swapped(&scene, &directory, args), &[1, 6]);
    }
    let outside = scene.db2.sh(&format!("grep -rls {MARKER} '{}' || :", scene.at("private")));
    assert_eq!(outside, "");
}
