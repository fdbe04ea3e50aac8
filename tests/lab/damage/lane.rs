//! Hosts for one cell at a time: a lab of its own, which is used again as long as cells leave it unchanged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::variants::WITH_OLD;
use crate::support::firewall::FIREWALL;
use crate::support::hosts::{Host, Lab};
use crate::support::snapshots::Snapshot;
use crate::support::trees;

pub(crate) const HOSTS: [&str; 4] = ["ctl", "db1", "db2", "db3"];
/// Directory of the data on db1 and on the controller.
pub(crate) const DATA: &str = "/srv/damage/data";
/// Directory in which a wrapped program and the test meet. In memory, and gone after a crash.
pub(crate) const GATE: &str = "/run/damage";
/// Directories that are compared besides those of every snapshot.
const DIRECTORIES: [&str; 2] = ["/srv/damage", "/home/dba"];
/// Default of `DAMAGE_LANES`: the number of lanes.
const LANES: usize = 6;

/// Prepares the disk of a host, once.
const FURNISH: &str = r#"
    mkdir -p /srv/damage/data/sub; cd /srv/damage
    # Empty; a server of MariaDB would have it locked.
    : >data/ibdata1
    # In the order of their directory, so that what is read last is known.
    for name in one two three; do head -c 1200000 /dev/urandom >data/$name; done
    echo small >data/sub/small; ln -s sub/small data/link; touch -d 2020-02-02 data/sub/small
    mkdir -p in old small template/data/sub; echo old >template/data/one; echo older >template/data/sub/two
    cp -a template/data old/
    echo 'dba ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/damage
    install -d -o dba -g dba /home/dba/.local /home/dba/.local/state
    mkdir served; cp -a data served/; tar --format=posix -cf archive data
    # What is taken for a server: a program that has locked its file.
    install -m 0755 /dev/stdin serve <<'SERVER'
#!/usr/bin/perl
use Fcntl;
open(my $data, '+<', '/srv/damage/served/data/ibdata1') or exit 1;
my $lock = pack('s s x4 q q l x4', F_WRLCK, 0, 0, 0, 0);
fcntl($data, F_SETLK, $lock) or exit 1;
sleep;
SERVER
    printf '[Service]\nExecStart=/srv/damage/serve\n' >/etc/systemd/system/damage-db.service
    # What is taken for a replica that is copied while it runs.
    install -m 0755 /dev/stdin listen <<'LISTENER'
#!/usr/bin/perl
use IO::Socket::UNIX;
unlink '/run/damage-replica.sock';
my $socket = IO::Socket::UNIX->new(Local => '/run/damage-replica.sock', Listen => 128) or exit 1;
while (1) { $socket->accept }
LISTENER
    printf '[Service]\nExecStart=/srv/damage/listen\n' >/etc/systemd/system/damage-replica.service
    rm /usr/bin/mariadb /usr/bin/mariadb-backup
    install -m 0755 /dev/stdin /usr/bin/mariadb <<'CLIENT'
#!/bin/bash
# Who has just started replicates.
[[ -e /run/damage-replication ]] || echo Yes Yes >/run/damage-replication
set_to() { echo "$@" >/run/damage-replication.$$; mv /run/damage-replication.$$ /run/damage-replication; }
begin() { printf '<?xml version="1.0"?>\n\n<resultset statement="x" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'; }
row() { echo '  <row>'; while (($#)); do printf '\t<field name="%s">%s</field>\n' "$1" "$2"; shift 2; done; echo '  </row>'; }
end() { echo '</resultset>'; }
variable() { row Variable_name "$1" Value "$2"; }
while read -r statement; do
  case $statement in
    'SHOW GLOBAL VARIABLES'*)
      begin; variable datadir /srv/damage/data/; variable version 10.11.6-MariaDB
      variable innodb_buffer_pool_size 134217728; end ;;
    'SHOW ALL SLAVES STATUS'*)
      read -r io sql </run/damage-replication
      begin; row Connection_name main Slave_IO_Running $io Slave_SQL_Running $sql; end ;;
    'SELECT @@version'*) begin; row @@version 10.11.6-MariaDB; end ;;
    'SELECT 1'*) begin; row 1 1; end ;;
    # The end of an answer in a session.
    "SELECT '"*) word=${statement#*\'}; begin; row word "${word%%\'*}"; end ;;
    'STOP SLAVE'*) set_to No No ;;
    'START SLAVE'*) set_to Yes Yes ;;
  esac
done
CLIENT
    install -m 0755 /dev/stdin /usr/bin/mariadb-backup <<'BACKUP'
#!/bin/bash
[[ $1 != --version ]] || { echo 'mariadb-backup based on MariaDB server 10.11.6-MariaDB'; exit; }
read -r io sql </run/damage-replication
[[ $io$sql == NoNo ]] || { echo 'FATAL ERROR: it replicates' >&2; exit 1; }
# In the order of their directory, as tar reads them.
cd /srv/damage/data && mbstream -c $(find . -type f -printf '%P\n') && cd /srv/damage && mbstream -c xtrabackup_checkpoints &&
  echo '[00] 2026-01-01 00:00:00 completed OK!' >&2
BACKUP
    echo 'backup_type = full-backuped' >xtrabackup_checkpoints
"#;

/// Prepares a target after each boot: a small file system, and another firewall.
const RAISE: &str = r"
    mountpoint -q /srv/damage/small || mount -t tmpfs -o size=9m,nr_inodes=64,mode=755 lab /srv/damage/small
    mkdir -p /srv/damage/small/in
    iptables-legacy-restore <<'RULES'
*filter
:INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p icmp -j ACCEPT
COMMIT
RULES
";

/// Hosts of one cell, reserved for it.
pub(crate) struct Lane {
    pub(crate) lab: Lab,
    baselines: Vec<Snapshot>,
    /// Lists of the data and of the older tree before any run.
    pub(crate) lists: Lists,
    home: PathBuf,
    _lock: File,
}

/// Trees, entry by entry.
pub(crate) struct Lists {
    /// Data on the controller and on db1.
    data: [Vec<String>; 2],
    pub(crate) old: Vec<String>,
}

impl Lane {
    /// Reserves a free lane; creates it again if its last cell has not given it back.
    pub(crate) fn take(main: &Lab) -> Self {
        let home = std::env::var("DAMAGE_HOME").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
        let all = Path::new(&home).join(format!("damage-{}", main.id()));
        fs::create_dir_all(&all).expect("no directory for the state of lanes");
        let (number, lock) = free(&all);
        let lab = Lab::named(&format!("{}l{number}", main.id()));
        let home = all.join(number.to_string());
        // The lab may have been removed by hand.
        if !home.join("good").exists() || !lab.host("ctl").run(&["true"]).status.success() {
            make(&lab, &home);
        }
        fs::remove_file(home.join("good")).expect("the state of the lane cannot be written");
        let read = |name: &str| fs::read_to_string(home.join(name)).expect("the state of the lane");
        let lines = |name: &str| read(name).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        let lists = Lists { data: [lines("data-ctl"), lines("data-db1")], old: lines("old") };
        let baselines = HOSTS.iter().map(|name| Snapshot::read(&read(name), &DIRECTORIES)).collect();
        Self { lab, baselines, lists, home, _lock: lock }
    }

    /// Marks the lane as unchanged.
    pub(crate) fn give_back(self) {
        File::create(self.home.join("good")).expect("the state of the lane cannot be written");
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.lab.host(name)
    }

    /// Returns the list of the data on a host.
    pub(crate) fn data_of(&self, host: &str) -> &[String] {
        &self.lists.data[usize::from(host != "ctl")]
    }

    /// Returns the differences of some hosts from their first state, each with the name of the host.
    pub(crate) fn differences(&self, hosts: &[&str]) -> Vec<String> {
        let look = |name: &str| -> Vec<String> {
            let index = HOSTS.iter().position(|host| *host == name).expect("a host of the lane");
            let lines = self.baselines[index].remaining(&self.host(name), Duration::ZERO);
            let mut lines: Vec<String> = lines.iter().map(|line| format!("{name}: {line:.300}")).collect();
            let state = self.host(name).sh("cat /run/damage-replication 2>/dev/null || :");
            if !["", "Yes Yes"].contains(&state.trim()) {
                lines.push(format!("{name}: its replication is {state}"));
            }
            lines
        };
        thread::scope(|scope| {
            let lookers: Vec<_> = hosts.iter().map(|name| scope.spawn(move || look(name))).collect();
            lookers.into_iter().flat_map(|looker| looker.join().expect("a snapshot failed")).collect()
        })
    }

    /// Boots a host, and restores what a boot removes.
    pub(crate) fn boot(&self, name: &str) {
        let host = self.host(name);
        host.boot();
        raise(&host, name);
    }
}

/// Reserves the first free lane.
fn free(all: &Path) -> (usize, File) {
    let lanes = std::env::var("DAMAGE_LANES").ok().and_then(|lanes| lanes.parse().ok()).unwrap_or(LANES);
    loop {
        for number in 0..lanes {
            let lock = File::create(all.join(format!("{number}.lock"))).expect("no lock for a lane");
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return (number, lock),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => panic!("a lane cannot be locked: {error}"),
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Restores what a boot removes.
fn raise(host: &Host, name: &str) {
    host.sh("mkdir -p /run/damage");
    if name == "db1" {
        host.sh("systemctl start damage-db damage-replica");
    }
    if name.starts_with("db") && name != "db1" {
        host.sh(RAISE);
        host.sh(FIREWALL);
    }
}

fn make(lab: &Lab, home: &Path) {
    lab.remake(&HOSTS);
    for name in HOSTS {
        let host = lab.host(name);
        host.sh(FURNISH);
        raise(&host, name);
    }
    // Installs the program on the controller; its first use leaves traces.
    lab.transfer(&["status", "db1", "db2", "db3"]).expect_success();
    fs::create_dir_all(home).expect("no directory for the state of a lane");
    let write = |name: &str, text: String| fs::write(home.join(name), text).expect("the state of a lane");
    write("data-ctl", trees::list(&lab.host("ctl"), DATA).join("\n"));
    write("data-db1", trees::list(&lab.host("db1"), DATA).join("\n"));
    write("old", trees::list(&lab.host("db2"), &format!("{WITH_OLD}/data")).join("\n"));
    for name in HOSTS {
        // sshd needs a moment to notice that a connection is gone.
        let mut text = Snapshot::text(&lab.host(name), &DIRECTORIES);
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(100));
            let again = Snapshot::text(&lab.host(name), &DIRECTORIES);
            if again == text {
                break;
            }
            text = again;
        }
        write(name, text);
    }
    File::create(home.join("good")).expect("the state of a lane");
}
