//! Trees on hosts: every property of their entries that a copy has to keep.

use super::hosts::Host;

/// Prints one line for each entry of a tree: name, kind, mode and owner by number, time in nanoseconds, which
/// names are hard links of one file, contents, and all extended attributes, including ACLs. Sockets are left
/// out. `$1` is its path.
const LIST: &str = r#"
    cd -- "${1%/*}"
    declare -A first
    find "./${1##*/}" -type s -o -print0 | sort -z | while IFS= read -r -d '' path; do
        IFS=: read -r inode mode owner time size links device < <(stat -c '%i:%f:%u,%g:%.9Y:%s:%h:%t,%T' -- "$path")
        facts="$mode $owner $time"
        [[ -d $path && ! -L $path ]] || facts+=" size=$size links=$links device=$device same=${first[$inode]:=$path}"
        if [[ -L $path ]]; then
            facts+=" to=$(readlink -n -- "$path" | md5sum)"
        elif [[ -f $path ]]; then
            facts+=" contents=$(md5sum <"$path")"
        fi
        attributes=$(getfattr -h -d -m - -e hex --absolute-names -- "$path" | sed '/^#/d' | sort | tr '\n' ' ')
        printf '%q\n' "$path $facts $attributes"
    done
"#;

/// Runs a bash script with one argument, which has to succeed, and returns its standard output.
#[track_caller]
pub(super) fn sh(host: &Host, script: &str, argument: &str) -> String {
    let script = format!("set -euo pipefail; export LC_ALL=C\n{script}");
    host.command(&["bash", argument]).in_script(&script).run().expect_success().stdout
}

/// Lists a tree, one line per entry.
#[track_caller]
pub(crate) fn list(host: &Host, path: &str) -> Vec<String> {
    sh(host, LIST, path).lines().map(ToOwned::to_owned).collect()
}

/// Returns the names in a directory, including hidden ones.
#[track_caller]
pub(crate) fn names(host: &Host, path: &str) -> Vec<String> {
    sh(host, r#"ls -A -- "$1""#, path).lines().map(ToOwned::to_owned).collect()
}
