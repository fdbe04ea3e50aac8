//! Options change the transport, never the result.

use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::assert_same;

/// Returns both settings of both checks with these options.
#[track_caller]
fn all_checks(options: [&str; 2]) {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for (checksum, files) in [("--checksum", true), ("--no-checksum", false)] {
        for (parallel, stream) in [("--parallel-checksum", true), ("--no-parallel-checksum", false)] {
            let target = sandbox.dir(format!("target{checksum}{parallel}"));
            let ended = sandbox
                .run(&[&source, &target, &options[0], &options[1], &checksum, &parallel])
                .expect_success();
            assert_same(&source, &target.join("source"));
            assert_eq!(
                ended.stdout.contains("BLAKE3 of 2 files (read back from both disks)"),
                files,
                "{ended}"
            );
            // An explicit check of the files replaces that of the stream, which encryption always has.
            let stream = stream && !files || options[1] == "--encrypt";
            assert_eq!(ended.stdout.contains("SHA-256 of the stream"), stream, "{ended}");
            sandbox.is_clean(&[&target]);
        }
    }
}

#[test]
fn compressed_encrypted_stream_preserves_bytes() {
    all_checks(["--compress", "--encrypt"]);
}

#[test]
fn compressed_stream_preserves_bytes() {
    all_checks(["--compress", "--no-encrypt"]);
}

#[test]
fn encrypted_stream_preserves_bytes() {
    all_checks(["--no-compress", "--encrypt"]);
}

#[test]
fn plain_stream_preserves_bytes() {
    all_checks(["--no-compress", "--no-encrypt"]);
}

#[test]
fn only_compression_shrinks_the_stream() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.file("zeros", vec![0; 4 << 20]);
    let (small, large) = (sandbox.dir("small"), sandbox.dir("large"));
    sandbox
        .run(&[&source, &small])
        .expect_success()
        .says("4.00 MiB in 1 entries")
        .says(" B (zstd level 1, encrypted)");
    sandbox
        .run(&[&source, &large, &"--no-compress"])
        .expect_success()
        .says("sent: 4.06 MiB (not compressed, encrypted)");
    assert_same(&small.join("zeros"), &large.join("zeros"));
}

#[test]
fn compressor_falls_back_to_pigz_and_gzip() {
    for (hidden, taken) in [(&["zstd"][..], "pigz -1 "), (&["zstd", "pigz"], "gzip -1 ")] {
        let Some(mut sandbox) = Sandbox::new() else { return };
        sandbox.without(hidden);
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        sandbox.run(&[&source, &target, &"--dry-run"]).expect_success().says(taken);
        sandbox.run(&[&source, &target]).expect_success();
        assert_same(&source, &target.join("source"));
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn missing_openssl_keeps_the_digest_of_the_stream() {
    let Some(mut sandbox) = Sandbox::new() else { return };
    sandbox.without(&["openssl"]);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target]).expect_code(4).says("not installed: openssl; apt install openssl");
    let plain = ["--no-encrypt", "--parallel-checksum"];
    sandbox.run(&[&source, &target, &plain[0], &plain[1]]).expect_success().says("SHA-256 of the stream");
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn requested_port_is_used() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(crate::support::local::holds::Point::Connect);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let port = Sandbox::port();
    let running = sandbox.spawn(&[&source, &target, &"--port", &port.to_string()]);
    hold.reached();
    assert!(crate::support::local::processes::is_listening(port));
    hold.open();
    running.wait(crate::support::local::runs::LONG).expect_success().says("done");
    assert!(!crate::support::local::processes::is_listening(port));
    sandbox.is_clean(&[&target]);
}
