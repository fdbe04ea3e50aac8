//! What the tests of transfers share: a tree with every kind of entry, all that can be known about a tree, a transfer
//! that stands still in the middle of its stream, and programs that are not what they seem.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{Host, Lab, Output, Running, eventually};

/// How long anything may take that is no wait of the program's own.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// When a test is killed, as `.config/nextest.toml` says.
const LONGEST_TEST: Duration = Duration::from_secs(180);

/// A stream of this many MiB does not fit into the buffers between two hosts: it stands still when its receiver does.
pub(crate) const MORE_THAN_BUFFERS: u32 = 48;

/// Makes a tree with every kind of entry. `$1` is its path.
const EVERY_KIND: &str = r#"
    mkdir -- "$1"; cd -- "$1"
    : >empty; mkdir empty-dir
    echo plain >plain
    for name in ' ' 'two  blanks ' $'new\nline' $'\n' $'tab\tbell\a' "it's" '"quoted"' '$(touch pwned)' '`touch pwned`' \
        -rf --checkpoint-action=exec=false '*' '?[a-z]' '~' '!!' '#' ';' '&' '|' '\' '\n' '%s%n' @list .hidden ... \
        'grün' $'latin\xe9' $'\xff\xfe\x01' "$(printf 'x%.0s' {1..255})"; do
        printf '%q' "$name" >"./$name"
    done
    deep=deep; for n in {1..12}; do deep+=/$(printf 'd%.0s' {1..100}); done
    mkdir -p "$deep"; echo deep >"$deep/file"

    ln -s plain link; ln -s /nowhere//at/all dangling; ln -s $'odd\n\xff' odd-link; ln -s . loop
    ln -s "$(printf 'l%.0s' {1..500})" long-link
    ln plain hard-1; ln plain empty-dir/hard-2; ln -P link hard-link-to-a-link
    mkfifo fifo; mknod char c 1 3; mknod block b 7 250
    perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1) or die'

    head -c 3000000 /dev/urandom >random
    truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
    truncate -s 5000001 hole
    head -c 8M /dev/urandom >punched; fallocate --punch-hole --offset 1M --length 5M punched
    head -c 3M /dev/zero >zeros

    for mode in 4755 2755 6711 0000 0444 0222; do echo "$mode" >"mode-$mode"; chmod "$mode" "mode-$mode"; done
    mkdir -m 2775 setgid-dir; mkdir -m 1777 sticky-dir; mkdir -m 0500 read-only-dir; mkdir -m 0000 closed-dir
    echo inside | tee setgid-dir/file read-only-dir/file >closed-dir/file
    chown 111:112 random; chown -h 131:4711 link; chown 4711:4712 setgid-dir empty; chmod 2775 setgid-dir
    chown 65534:65534 fifo char

    setfattr -n user.text -v value plain; setfattr -n user.bytes -v 0x000aff3d plain; setfattr -n user.none plain
    setfattr -n trusted.mine -v 1 plain; setfattr -h -n trusted.link -v 1 dangling; setfattr -n user.dir -v 1 empty-dir
    setfattr -n trusted.device -v 1 char
    setcap cap_net_raw+ep mode-4755
    setfacl -m u:111:rw,u:4711:r,g:112:rwx plain; setfacl -m u:111:rwx empty-dir
    setfacl -d -m u:4711:rwx,g::- empty-dir; setfacl -m u:7:rx .

    touch -d '2001-02-03 04:05:06.123456789Z' plain; touch -d '1969-12-31 12:00:00.25Z' empty; touch -d '2100-01-01Z' hole
    touch -h -d '2002-02-02 02:02:02.000000001Z' dangling; touch -d '2003-03-03 03:03:03.3Z' fifo char
    touch -d '2004-04-04 04:04:04.4Z' deep "$deep" read-only-dir closed-dir; touch -d '2005-05-05 05:05:05.5Z' empty-dir .
"#;

/// A host that lets nobody in but ssh: a hole is needed, and one that stays is seen. The table is `inet closed`.
pub(crate) const FIREWALL: &str = "nft -f - <<'RULES'
    add table inet closed
    delete table inet closed
    table inet closed {
        chain input {
            type filter hook input priority 0; policy drop;
            ct state established,related accept
            iif lo accept
            tcp dport 22 accept
            meta l4proto { icmp, ipv6-icmp } accept
        }
    }
RULES";

/// Makes the older tree that a copy replaces. `$1` is its path.
pub(crate) const OLD: &str = "mkdir -p $1/sub; echo 1 >$1/one; echo old >$1/file; echo 2 >$1/sub/two";

/// Whether a tree is the older one, of which every file counts; `fresh` is a path at which another one can be made.
pub(crate) fn is_old(host: &Host, path: &str, fresh: &str) -> bool {
    let script = format!("set -e; rm -rf $1; {OLD}; diff -r $1 $2; find $2 | wc -l | grep -qx 5; rm -r $1");
    host.run(&["bash", "-c", &script, "old", fresh, path]).status.success()
}

/// One line for each entry of a tree: name, kind, mode and owner by number, time in nanoseconds, which names are one
/// file, contents, and all extended attributes; ACLs are some. Sockets are left out. `$1` is its path.
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

/// Stops the receiver of the next transfer into a directory, `$1`, before its stream begins, and prints its pid.
const HOLD: &str = r#"
    while sleep 0.005; do
        for staging in "$1"/.transfer-*/copy; do
            [[ -d $staging ]] || continue
            for cwd in /proc/[0-9]*/cwd; do
                [[ $cwd -ef $staging ]] && read -r name <"${cwd%cwd}comm" && [[ $name == tar ]] || continue
                pid=${cwd//[!0-9]/}
                kill -STOP "$pid" && echo "$pid" && exit
            done
        done
    done
"#;

/// Prints the port on which a transfer into a directory, `$1`, has accepted its sender.
const ACCEPTED: &str = r#"
    ss -Htnp state established | while read -r _ _ own _ users; do
        [[ $users =~ pid=([0-9]+) && $(readlink "/proc/${BASH_REMATCH[1]}/cwd") == "$1"/.transfer-* ]] || continue
        echo "${own##*:}"
        break
    done
"#;

/// Prints the file in a directory, `$1`, that a tar which was started there has open.
const BEING_READ: &str = r#"
    for cwd in /proc/[0-9]*/cwd; do
        [[ $(readlink "$cwd")/ == "$1"/* ]] && read -r name <"${cwd%cwd}comm" && [[ $name == tar ]] || continue
        find "${cwd%cwd}fd" -lname "$1/*" -printf '%l\n' | while IFS= read -r file; do if [[ -f $file ]]; then echo "$file"; fi; done
    done
"#;

/// Runs a bash script with one argument, which has to succeed, and returns what it printed.
#[track_caller]
fn sh(host: &Host, script: &str, argument: &str) -> String {
    let script = format!("set -euo pipefail; export LC_ALL=C\n{script}");
    host.run(&["bash", "--norc", "-c", &script, "bash", argument]).expect_success().stdout
}

/// Makes a tree with every kind of entry.
#[track_caller]
pub(crate) fn make_every_kind(host: &Host, path: &str) {
    sh(host, EVERY_KIND, path);
}

/// Makes a file of random bytes.
#[track_caller]
pub(crate) fn make_random(host: &Host, path: &str, mib: u32) {
    sh(host, &format!(r#"head -c {mib}M /dev/urandom >"$1""#), path);
}

/// All that a copy has to keep of a tree, one line per entry.
#[track_caller]
pub(crate) fn list(host: &Host, path: &str) -> Vec<String> {
    sh(host, LIST, path).lines().map(ToOwned::to_owned).collect()
}

/// The names in a directory, hidden ones too.
#[track_caller]
pub(crate) fn names(host: &Host, path: &str) -> Vec<String> {
    sh(host, r#"ls -A -- "$1""#, path).lines().map(ToOwned::to_owned).collect()
}

/// Bytes that a file takes on its disk.
#[track_caller]
pub(crate) fn allocated(host: &Host, path: &str) -> u64 {
    sh(host, r#"du --block-size=1 -- "$1" | cut -f 1"#, path).trim().parse().expect("a number")
}

/// Asserts that a path on one host and a path on another are the same tree, of at least one entry.
#[track_caller]
pub(crate) fn assert_same(source: (&Host, &str), copy: (&Host, &str)) {
    let (source, copy) = (list(source.0, source.1), list(copy.0, copy.1));
    let without = |these: &[String], those: &[String], sign: char| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let differences = [without(&source, &copy, '-'), without(&copy, &source, '+')].concat();
    assert!(!source.is_empty() && differences.is_empty(), "not the same:\n{}", differences.concat());
}

/// A transfer whose stream stands still, because the tar that unpacks it on one of the targets is stopped.
pub(crate) struct Held {
    /// The transfer.
    pub(crate) transfer: Running,
    target: Host,
    directory: String,
    receiver: String,
}

impl Held {
    /// Starts a transfer, of more than [`MORE_THAN_BUFFERS`], and stops its receiver in a directory of a target.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, args: &[&str], target: &Host, directory: &str) -> Self {
        let mut holder = target.spawn(&["bash", "--norc", "-c", HOLD, "bash", directory]);
        let mut transfer = lab.transfer_spawn(args);
        let held = eventually(SOON, || !holder.is_running() || !transfer.is_running());
        if !held || holder.is_running() {
            transfer.signal("TERM");
            panic!("no receiver was seen: {}", transfer.wait());
        }
        let receiver = holder.wait().expect_success().stdout.trim().to_owned();
        Self { transfer, target: target.clone(), directory: directory.to_owned(), receiver }
    }

    /// Waits until the sender is connected; returns the port.
    #[track_caller]
    pub(crate) fn port(&self) -> u16 {
        let mut port = None;
        eventually(SOON, || {
            port = sh(&self.target, ACCEPTED, &self.directory).trim().parse().ok();
            port.is_some()
        });
        port.expect("the sender does not connect")
    }

    /// Lets the stream flow and waits for the end.
    #[track_caller]
    pub(crate) fn go(self) -> Output {
        self.target.run(&["/bin/kill", "-s", "CONT", &self.receiver]).expect_success();
        self.transfer.wait()
    }
}

/// Waits until the source's tar is in the middle of a file; returns its path. `directory` is where what is copied is.
#[track_caller]
pub(crate) fn being_read(source: &Host, directory: &str) -> String {
    let mut path = String::new();
    eventually(SOON, || {
        sh(source, BEING_READ, directory).trim().clone_into(&mut path);
        !path.is_empty()
    });
    assert!(!path.is_empty(), "nothing is being read");
    path
}

/// A program of a host that stands in front of the real one, `$real` in its script, until this is dropped, or, since a
/// test may be killed, for as long as a test may take. The whole host sees it: only for exclusive tests.
pub(crate) struct Wrapper {
    host: Host,
    path: String,
}

impl Wrapper {
    /// Puts a bash script in front of a program; behind its end, the real program takes over.
    pub(crate) fn new(host: &Host, program: &str, script: &str) -> Self {
        let path = format!("/usr/local/bin/{program}");
        let wrapper = Self { host: host.clone(), path };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let text = format!(
            "#!/bin/bash\nreal=/usr/bin/{program}\n((EPOCHSECONDS > {})) && exec $real \"$@\"\n{script}\nexec $real \"$@\"\n",
            now + LONGEST_TEST.as_secs()
        );
        host.put(text, &wrapper.path, 0o755);
        wrapper
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        self.host.run(&["rm", "-f", &self.path]);
    }
}

/// A host that was changed by a script, until this is dropped and another one has changed it back.
pub(crate) struct Changed {
    host: Host,
    back: String,
}

impl Changed {
    #[track_caller]
    pub(crate) fn new(host: &Host, script: &str, back: &str) -> Self {
        // Made before the script runs: one that fails halfway is undone, too.
        let changed = Self { host: host.clone(), back: back.to_owned() };
        host.sh(script);
        changed
    }

    /// A host without these programs.
    #[track_caller]
    pub(crate) fn without(host: &Host, programs: &[&str]) -> Self {
        let each = |script: &str| format!("cd /usr/bin; for p in {}; do {script}; done", programs.join(" "));
        Self::new(host, &each("mv -T $p hidden.$p"), &each("mv -nT hidden.$p $p"))
    }

    /// A host that has lost one of the addresses of its only link; ssh reaches it by the other one.
    #[track_caller]
    pub(crate) fn without_address(host: &Host, address: &str) -> Self {
        // No wait until an IPv6 address has proved to be the only one.
        let nodad = if address.contains(':') { "nodad" } else { "" };
        let back = format!("ip address add {address} dev e0 {nodad}");
        Self::new(host, &format!("ip address del {address} dev e0"), &back)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let output = self.host.run(&["bash", "-c", &self.back]);
        if !output.status.success() {
            eprintln!("a host stays changed: {output}");
        }
    }
}

/// What each netcat of a lab host is called, whatever it calls `nc`.
pub(crate) const NETCATS: [&str; 3] = ["nc.openbsd", "nc.traditional", "ncat"];

/// Makes one of its netcats what a host calls `nc`.
pub(crate) fn call_nc(host: &Host, netcat: &str) -> Wrapper {
    Wrapper::new(host, "nc", &format!("exec {netcat} \"$@\""))
}
