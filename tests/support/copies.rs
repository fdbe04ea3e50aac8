//! Data to copy, data to replace, and the comparison of source and copy.

use super::hosts::Host;
use super::trees::{list, sh};

/// Creates the older tree that a copy replaces. `$1` is its path.
pub(crate) const OLD: &str = "mkdir -p $1/sub; echo 1 >$1/one; echo old >$1/file; echo 2 >$1/sub/two";

/// Whether a tree is exactly the older one; `fresh` is a path at which another one can be created.
pub(crate) fn is_old(host: &Host, path: &str, fresh: &str) -> bool {
    let script = format!("set -e; rm -rf $1; {OLD}; diff -r $1 $2; find $2 | wc -l | grep -qx 5; rm -r $1");
    host.run(&["bash", "-c", &script, "old", fresh, path]).status.success()
}

/// Creates a file of random bytes.
#[track_caller]
pub(crate) fn make_random(host: &Host, path: &str, mib: u32) {
    sh(host, &format!(r#"head -c {mib}M /dev/urandom >"$1""#), path);
}

/// Asserts that two paths are the same tree, with at least one entry.
#[track_caller]
pub(crate) fn assert_same(source: (&Host, &str), copy: (&Host, &str)) {
    let (source, copy) = (list(source.0, source.1), list(copy.0, copy.1));
    let without = |these: &[String], those: &[String], sign: char| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let differences = [without(&source, &copy, '-'), without(&copy, &source, '+')].concat();
    assert!(!source.is_empty() && differences.is_empty(), "not the same:\n{}", differences.concat());
}
