//! Changes of the source during a run.

use nix::libc;

use crate::support::changes::Wrapper;
use crate::support::holder::{Point, Role};
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

/// Commands that change the source while tar reads the large file, and what is reported.
const CHANGES: [(&str, &str); 4] = [
    ("echo more >>data/large", "data/large"),
    ("truncate -s 1M data/large", "data/large"),
    ("rm data/large", "data/large"),
    ("mkdir data/late; echo new >data/late/file", "data/late"),
];

#[test]
fn exclusive_changes_during_read_fail_unless_ignored() {
    let Some(scene) = Scene::large() else { return };
    let make = format!("cp --reflink=auto {0}.whole {0}", scene.at("data/large"));
    // Several of them, so that tar is in the middle of them at any time.
    scene.db1.sh(&format!(
        "mv {0} {1}; rm -r {2}",
        scene.at("data/large"),
        scene.at("large"),
        scene.at("data/dir")
    ));
    let make = make.replace(&format!("{}.whole", scene.at("data/large")), &scene.at("large"));
    for (change, reported) in CHANGES {
        let directory = scene.scratch.path();
        let done = scene.at("changed");
        let pack = format!(
            "[[ $* == *--create* ]] && {{ set -o pipefail
            \"$real\" \"$@\" | {{ cd {directory}; head -c 30000000; {change}; touch {done}; exec cat; }}; exit; }}"
        );
        let _tar = Wrapper::new(&scene.db1, "tar", &pack);
        for ignored in [true, false] {
            println!("{change}, ignored: {ignored}");
            scene.db1.sh(&format!("rm -rf {done} {}/data/late; {make}", scene.scratch.path()));
            // Listed after the change.
            let lists = Point::Before(&[libc::SYS_getdents64], |call| call.descriptor(0).ends_with("data"));
            let holder = roots::hold(&scene.db1, &[Role::Job], lists);
            let mut run = scene.spawn(&["--no-encrypt", &format!("--ignore-changed={ignored}")]);
            holder.await_held(SOON, || run.is_running());
            let is_changed = || scene.db1.run(&["test", "-e", &done]).status.success() || !run.is_running();
            assert!(eventually(SOON, is_changed), "{change}: it was not made");
            holder.open();
            let output = run.end_within(SOON);
            if ignored {
                let output = output.expect_success();
                assert!(output.stdout.contains("changed during the copy"), "{change}: {output}");
                assert!(output.stdout.contains(reported), "{change}: {output}");
                scene.db2.sh(&format!("test -s {0}/file; rm -r {0}", scene.at("in/data")));
            } else {
                assert!(matches!(output.status.code(), Some(1 | 3)), "{change}: {output}");
                // Reported by tar, which names the directory of the new entry, or by the comparison.
                assert!(output.stderr.contains("data"), "{change}: {output}");
            }
            assert_eq!(scene.arrived(), Vec::<String>::new(), "{change}");
            scene.expect_no_runs();
        }
    }
}

#[test]
fn exclusive_target_damage_is_no_source_change() {
    let Some(scene) = Scene::large() else { return };
    let flip = r#"file=data/large; time=$(stat -c %y $file)
        byte=$(dd if=$file bs=1 skip=1000000 count=1 status=none | od -An -tu1)
        printf "\\$(printf %03o $((byte ^ 1)))" | dd of=$file bs=1 seek=1000000 conv=notrunc status=none
        touch -d "$time" $file"#;
    let script = format!("[[ $* == *--extract* ]] && {{ $real \"$@\"; status=$?; {flip}\nexit $status; }}");
    let _tar = Wrapper::new(&scene.db2, "tar", &script);
    // Something else has changed, too.
    let change = format!("[[ $* == *--create* ]] && {{ sleep 0.1; echo >>{}; }}", scene.at("data/file"));
    let _change = Wrapper::new(&scene.db1, "tar", &change);
    let output = scene.transfer(&["--ignore-changed"]).expect_code(3);
    assert!(output.stderr.contains("data/large (different contents)"), "{output}");
    assert_eq!(scene.arrived(), Vec::<String>::new());
    scene.expect_no_runs();
}
