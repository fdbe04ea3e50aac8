//! Configuration and locks of transferpy.

use crate::support::changes::Changed;
use crate::support::scenes::Scene;
use crate::support::trees::names;

#[test]
fn exclusive_transferpy_configuration_is_the_fallback() {
    let Some(scene) = Scene::with_file(1) else { return };
    let reported = |options: &[&str]| {
        scene.transfer_between(["db1", "db2"], &[&["--dry-run"], options].concat()).expect_success()
    };
    let (old, ours) = ("/etc/transferpy/transferpy.conf", "/etc/transfer/transfer.conf");
    let _old = Changed::new(
        &scene.lab.host("ctl"),
        &format!(
            "mkdir /etc/transferpy; printf '[DEFAULT]\\nport = 4444\\ncompress = False\\nencrypt = no\\n' >{old}"
        ),
        "rm -r /etc/transferpy",
    );
    let output = reported(&[]);
    assert!(output.stdout.contains(" 4444") && !output.stdout.contains("zstd"), "{output}");
    assert!(!output.stdout.contains("openssl enc"), "{output}");
    assert!(reported(&["--port=4446"]).stdout.contains(" 4446"));
    {
        let _ours = Changed::new(
            &scene.lab.host("ctl"),
            &format!("mkdir /etc/transfer; echo 'port = 4445' >{ours}"),
            "rm -r /etc/transfer",
        );
        let output = reported(&[]);
        assert!(output.stdout.contains(" 4445") && output.stdout.contains("zstd"), "{output}");
        assert!(output.stdout.contains("openssl enc"), "{output}");
        let output = reported(&["--config", old]);
        assert!(output.stdout.contains(" 4444") && !output.stdout.contains("zstd"), "{output}");
    }
    let _wrong = Changed::new(&scene.lab.host("ctl"), &format!("echo 'ports = 1' >>{old}"), "true");
    let output = scene.transfer_between(["db1", "db2"], &[]).expect_code(2);
    assert!(output.stderr.contains(&format!("{old}: line 5 (ports): unknown key")), "{output}");
}

#[test]
fn exclusive_ports_locked_by_transferpy_are_not_used() {
    let Some(scene) = Scene::with_file(1) else { return };
    let lock = "/tmp/trnsfr_db2_4400.lock";
    let port = |options: &[&str]| scene.transfer_between(["db1", "db2"], &[&["--json"], options].concat());
    let _lock = Changed::new(&scene.db2, &format!("mkdir {lock}"), &format!("rmdir {lock}"));
    let output = port(&[]).expect_success();
    assert!(output.stdout.contains(r#""port":4401"#), "{output}");
    scene.take_copy();
    let output = port(&["--port=4400"]).expect_code(5);
    assert!(
        output.stderr.contains("db2: port 4400 is taken (locked by transferpy: /tmp/trnsfr_"),
        "{output}"
    );
    assert_eq!(names(&scene.db2, "/tmp").iter().filter(|name| name.starts_with("trnsfr")).count(), 1);
}
