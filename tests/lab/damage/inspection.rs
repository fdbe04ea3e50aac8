//! Tests of the judge: everything that a run could leave is planted, and must be found.

use std::time::{Duration, Instant};

use super::experiment::Experiment;
use super::moments::MOMENTS;
use super::state::is_open;
use super::variants::VARIANTS;
use crate::support::hosts::Lab;

/// A change of a host by one script, which another one reverts.
pub(crate) struct Plant {
    pub(crate) name: &'static str,
    host: &'static str,
    script: &'static str,
    remove: &'static str,
    /// Text in the line that reports it.
    found: &'static str,
    /// Whether it has to be gone at once: a pipeline, a port, a firewall rule.
    open: bool,
}

const fn plant(
    name: &'static str,
    host: &'static str,
    script: &'static str,
    remove: &'static str,
    found: &'static str,
) -> Plant {
    Plant { name, host, script, remove, found, open: false }
}

const fn open(plant: Plant) -> Plant {
    Plant { open: true, ..plant }
}

/// One plant of each kind.
pub(crate) const PLANTS: [Plant; 26] = [
    plant(
        "process",
        "db2",
        "setsid sleep 9753 >/dev/null 2>&1 &",
        "pkill -f 'sleep 9753'",
        "db2: + process: sleep",
    ),
    open(plant(
        "stage",
        "db1",
        "setsid tail -f /dev/null 2>&1 | setsid openssl enc -aes-256-ctr -pass pass:x -pbkdf2 >/dev/null 2>&1 &",
        "pkill tail; pkill openssl || :",
        "db1: + process: openssl",
    )),
    open(plant(
        "job",
        "db1",
        "setsid perl -e '$0 = q(transfer-agent job); sleep' >/dev/null 2>&1 & sleep 0.2",
        "pkill -f '^transfer-agent job'",
        "db1: + process:",
    )),
    open(plant(
        "listener",
        "db2",
        "setsid nc -l 4444 </dev/null >/dev/null 2>&1 & sleep 0.2",
        "pkill nc",
        "db2: + listening: tcp 0.0.0.0:4444",
    )),
    open(plant(
        "nftables",
        "db2",
        "nft insert rule inet closed input tcp dport 4400 accept",
        "nft -a list chain inet closed input | sed -n 's/.*dport 4400.*handle //p' | xargs nft delete rule inet closed input handle",
        "db2: + nft: inet closed chain input: tcp dport 4400",
    )),
    open(plant(
        "iptables-legacy",
        "db2",
        "iptables-legacy -I INPUT -p tcp --dport 4400 -j ACCEPT",
        "iptables-legacy -D INPUT 1",
        "db2: + iptables-legacy: filter -A INPUT",
    )),
    open(plant(
        "ip6tables-legacy",
        "db2",
        "ip6tables-legacy -I INPUT -p tcp --dport 4400 -j ACCEPT",
        "ip6tables-legacy -D INPUT 1",
        "db2: + ip6tables-legacy: filter -A INPUT",
    )),
    open(plant(
        "iptables-nft",
        "db2",
        "iptables-nft -I INPUT -p tcp --dport 4400 -j ACCEPT",
        "iptables-nft -D INPUT 1; nft delete table ip filter",
        "db2: + iptables-nft: filter -A INPUT",
    )),
    plant(
        "port-lock",
        "db2",
        "mkdir /run/transfer; touch /run/transfer/port.4400",
        "rm -r /run/transfer",
        "db2: + file: /run/transfer/port.4400",
    ),
    plant(
        "name-lock",
        "db2",
        "mkdir /run/transfer; touch /run/transfer/target.1.2.x",
        "rm -r /run/transfer",
        "db2: + file: /run/transfer/target.1.2.x",
    ),
    plant(
        "journal",
        "db1",
        "mkdir -p /var/lib/transfer/x; touch /var/lib/transfer/x/journal",
        "rm -r /var/lib/transfer",
        "db1: + file: /var/lib/transfer/x/journal",
    ),
    plant(
        "journal-of-user",
        "db1",
        "mkdir /home/dba/.local/state/transfer",
        "rmdir /home/dba/.local/state/transfer",
        "db1: + file: /home/dba/.local/state/transfer d",
    ),
    plant(
        "temporary-file",
        "ctl",
        "touch /tmp/transfer-x",
        "rm /tmp/transfer-x",
        "ctl: + file: /tmp/transfer-x",
    ),
    plant(
        "staging",
        "db2",
        "mkdir /srv/damage/in/.transfer-x",
        "rmdir /srv/damage/in/.transfer-x",
        "db2: + file: /srv/damage/in/.transfer-x d",
    ),
    plant(
        "old-one-kept",
        "db2",
        "mkdir /srv/damage/old/data.old-20200101",
        "rmdir /srv/damage/old/data.old-20200101",
        "db2: + file: /srv/damage/old/data.old-20200101",
    ),
    plant(
        "mode-of-directory",
        "db2",
        "chmod 0700 /srv/damage/in",
        "chmod 0755 /srv/damage/in",
        "db2: + file: /srv/damage/in d 700",
    ),
    plant(
        "owner-of-file",
        "db2",
        "chown 7 /srv/damage/old/data/one",
        "chown 0 /srv/damage/old/data/one",
        "db2: + file: /srv/damage/old/data/one f 644 7:0",
    ),
    plant(
        "contents-of-target",
        "db2",
        "echo more >>/srv/damage/old/data/one",
        "rm -r /srv/damage/old/data; cp -a /srv/damage/template/data /srv/damage/old/",
        "db2: + file: /srv/damage/old/data/one",
    ),
    plant(
        "contents-of-source",
        "db1",
        "cd /srv/damage/data; cp -p one ../one; perl -e 'open(my $f, \"+<\", \"one\"); print $f chr(1 ^ ord getc ${\\ do { open(my $g, \"<\", \"one\"); $g }})'; touch -r ../one one",
        "cd /srv/damage/data; touch -r . ../time; mv ../one one; touch -r ../time .; rm ../time",
        "the source is not what it was",
    ),
    plant(
        "attribute-of-source",
        "db1",
        "setfattr -n user.x -v y /srv/damage/data/one",
        "setfattr -x user.x /srv/damage/data/one",
        "the source is not what it was",
    ),
    plant(
        "mount",
        "db2",
        "mount -t tmpfs lab /srv/damage/in",
        "umount /srv/damage/in",
        "db2: + mount: /srv/damage/in tmpfs",
    ),
    plant(
        "unit",
        "db1",
        "systemd-run --quiet --unit=planted sleep 9753",
        "systemctl stop planted",
        "db1: + unit: planted.service",
    ),
    plant(
        "unit-that-stopped",
        "db1",
        "systemctl stop ssh",
        "systemctl start ssh",
        "db1: - unit: ssh.service",
    ),
    plant(
        "server-that-stopped",
        "db1",
        "systemctl stop damage-db",
        "systemctl start damage-db",
        "db1: - unit: damage-db.service",
    ),
    plant(
        "replication-that-stopped",
        "db1",
        "echo No Yes >/run/damage-replication",
        "rm /run/damage-replication",
        "db1: its replication is No Yes",
    ),
    plant(
        "socket",
        "ctl",
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"/run/transfer-ssh/x-y\", Listen => 1)'",
        "rm /run/transfer-ssh/x-y",
        "/run/transfer-ssh/x-y",
    ),
];

impl Plant {
    /// Fails when the plant is not found, or anything else is.
    pub(crate) fn run(&self) {
        let Some(main) = Lab::get() else { return };
        let experiment = Experiment::new(&main, &MOMENTS[0], &VARIANTS[0]);
        assert_eq!(experiment.leftovers(), Vec::<String>::new(), "before anything was planted");
        experiment.on(self.host, self.script);
        let lines = experiment.leftovers();
        let line = lines.iter().find(|line| line.contains(self.found));
        let line = line.unwrap_or_else(|| panic!("not found, but {lines:#?}"));
        assert_eq!(is_open(line), self.open, "{line}");
        experiment.on(self.host, self.remove);
        let end = Instant::now() + Duration::from_secs(5);
        while !experiment.leftovers().is_empty() {
            assert!(Instant::now() < end, "still found: {:#?}", experiment.leftovers());
        }
        experiment.give_back();
    }
}
