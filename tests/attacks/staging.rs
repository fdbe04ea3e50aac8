//! A hostile source: its stream can open the directory in which it is unpacked, but not a path to it.

use crate::assertions::code_is_one_of;
use crate::support::attackers::eve::Eve;
use crate::support::changes::Wrapper;
use crate::support::commands::Running;
use crate::support::hosts::Host;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

/// Creates `hostile.tar` in the directory `$1`: its top directory is open to all accounts, and has a program
/// with root's rights. Padding after its end flushes the end out of all buffers.
const MAKE: &str = r#"
    mkdir -p "$1/evil/source"; cd "$1"
    cp /usr/bin/bash evil/rootly; chmod 04755 evil/rootly
    cp /usr/bin/cat evil/capable; setcap cap_dac_override+ep evil/capable; cp evil/rootly evil/source/inner
    chmod 04755 evil/source/inner
    chmod 0777 evil evil/source; setfacl -m u:4242:rwx evil; setfacl -d -m u:4242:rwx evil
    echo planted >evil/source/marked; head -c 4M /dev/urandom >evil/source/file
    tar -C evil --create --file=hostile.tar --blocking-factor=128 --format=posix --xattrs --xattrs-include='*' --no-recursion \
        ./ ./rootly ./capable ./source ./source/inner ./source/marked ./source/file
    gzip -1 -k hostile.tar; head -c 1M /dev/zero >>hostile.tar"#;

/// Lists a staging directory as an ordinary account, and runs its programs to become root. Prints each
/// success. `$1` is the parent directory.
const EXPLOIT: &str = r#"
    for staging in "$1"/.transfer-* "$1"/.transfer-*/* "$1"/.transfer-*/*/*; do
        [[ -d $staging ]] && ls -A "$staging" >/dev/null 2>&1 && echo "listed $staging"
        for program in "$staging"/rootly "$staging"/inner; do
            [[ -x $program ]] && "$program" -p -c 'echo "as $EUID by $0"' "$program" 2>/dev/null
        done
        [[ -x $staging/capable ]] && "$staging/capable" /etc/shadow >/dev/null 2>&1 && echo "read /etc/shadow"
    done
    :"#;

/// Lists the programs with special rights in a staging directory. `$1` is the parent directory.
const PRIVILEGED: &str = r#"find "$1" -mindepth 1 -perm /6000 -print; getcap -r "$1""#;

#[track_caller]
fn gains_nothing(eve: &Eve, scene: &Scene, when: &str) {
    let gained = eve.sh(EXPLOIT, &[&scene.at("in")]);
    assert!(gained.is_empty(), "{when}, eve of the target:\n{gained}");
}

#[track_caller]
fn make(host: &Host, directory: &str) {
    host.run(&["bash", "-ec", MAKE, "make", directory]).expect_success();
}

/// Asserts that the leftovers of a failed run are closed to all accounts but root, and have no special
/// rights.
#[track_caller]
fn left_is_harmless(eve: &Eve, scene: &Scene) {
    let left = scene.db2.sh(&format!("find '{}' -name '.transfer-*'", scene.at("in")));
    assert!(!left.is_empty(), "--keep-staging left nothing");
    gains_nothing(eve, scene, "after the run");
    let privileged =
        scene.db2.run(&["bash", "-c", PRIVILEGED, "find", &scene.at("in")]).expect_success().stdout;
    assert!(privileged.is_empty(), "left with rights of its own:\n{privileged}");
}

#[test]
fn hostile_archive_exposes_no_kept_staging() {
    let Some(scene) = Scene::with_source(1) else { return };
    let eve = Eve::on(&scene.db2);
    make(&scene.db1, scene.scratch.path());
    // Damaged at its very end: everything is unpacked before the run fails.
    scene.db1.sh(&format!("cd '{}'; head -c -8 hostile.tar.gz >damaged.tar.gz", scene.scratch.path()));
    let ends = [format!("db1:{}", scene.at("damaged.tar.gz")), format!("db2:{}", scene.at("in"))];
    let args = [&ends[0], &ends[1], "--type=decompress", "--as=unpacked", "--keep-staging"];
    let output = scene.lab.transfer(&args);
    code_is_one_of(&output, &[1, 3]);
    left_is_harmless(&eve, &scene);
}

/// db1 sends the hostile tar instead of its own data, and keeps the stream open until a file `go` exists.
struct Hostile {
    scene: Scene,
    eve: Eve,
    _tar: Wrapper,
}

impl Hostile {
    /// `stream` is a bash command that writes the tar.
    fn sends(stream: &str) -> Option<Self> {
        let scene = Scene::with_source(1)?;
        let eve = Eve::on(&scene.db2);
        make(&scene.db1, scene.scratch.path());
        let script = format!(
            "if [[ $* == *--create* && $(pwd -P)/ == {0}/* ]]; then cd {0}; {stream}; \
             for ((i = 0; i < 3000; i++)); do [[ -e {0}/go ]] && break; sleep 0.02; done; exit 0; fi",
            scene.scratch.path()
        );
        let tar = Wrapper::new(&scene.db1, "tar", &script);
        Some(Self { scene, eve, _tar: tar })
    }

    /// Waits until the last member is on the target's disk, which it reaches while the stream is still open.
    #[track_caller]
    fn unpacked(&self, run: &mut Running) {
        let size = 4 << 20;
        let look = format!("find '{}' -name file -size {size}c | grep -q .", self.scene.at("in"));
        let there = eventually(SOON, || {
            self.scene.db2.run(&["bash", "-c", &look]).status.success() || !run.is_running()
        });
        let found = self.scene.db2.sh(&format!("find '{}' -printf '%P %m %s\\n'", self.scene.at("in")));
        assert!(there && run.is_running(), "the stream was not held:\n{found}");
    }

    fn go(&self) {
        self.scene.db1.run(&["touch", &self.scene.at("go")]).expect_success();
    }

    #[track_caller]
    fn opens_nothing(self, options: &[&str]) {
        let mut run = self.scene.spawn(&[&["--keep-staging"], options].concat());
        self.unpacked(&mut run);
        // The decoder reaches the end of the archive a moment after its last member.
        for _ in 0..20 {
            gains_nothing(&self.eve, &self.scene, "while the stream is open");
        }
        self.go();
        code_is_one_of(&run.wait(), &[1, 3]);
        left_is_harmless(&self.eve, &self.scene);
    }
}

#[test]
fn exclusive_archive_root_member_exposes_nothing() {
    let Some(hostile) = Hostile::sends("cat hostile.tar") else { return };
    hostile.opens_nothing(&["--no-compress"]);
}

#[test]
fn exclusive_permissive_acl_exposes_nothing() {
    let stream = "chmod 0700 evil; setfacl -m u:4242:rwx,o::rwx evil; $real -C evil --create --file=- --blocking-factor=128 \
        --format=posix --xattrs --xattrs-include='*' --no-recursion ./ ./rootly ./capable ./source ./source/file; head -c 1M /dev/zero";
    let Some(hostile) = Hostile::sends(stream) else { return };
    hostile.opens_nothing(&["--no-compress"]);
}

#[test]
fn exclusive_world_writable_tree_exposes_nothing() {
    let stream = "$real -C evil --create --file=- --blocking-factor=128 --format=posix --xattrs \
        --xattrs-include='*' --no-recursion ./source ./source/inner ./source/marked ./source/file; head -c 1M /dev/zero";
    let Some(hostile) = Hostile::sends(stream) else { return };
    hostile.opens_nothing(&["--no-compress", "--no-encrypt"]);
}

#[test]
fn exclusive_interrupted_run_exposes_nothing() {
    let Some(hostile) = Hostile::sends("cat hostile.tar") else { return };
    let mut run = hostile.scene.spawn(&["--keep-staging", "--no-compress"]);
    hostile.unpacked(&mut run);
    run.signal("TERM");
    code_is_one_of(&run.wait(), &[143]);
    hostile.go();
    left_is_harmless(&hostile.eve, &hostile.scene);
}
