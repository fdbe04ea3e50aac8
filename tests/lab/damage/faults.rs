//! What may go wrong: what is done at a moment, how it is mended after the run's end, and how the run has to end.

use std::thread;
use std::time::Duration;

use super::cell::Scene;
use super::lane::DATA;
use super::moments::{End, Moment};
use super::variants::Variant;
use crate::processes;

type Deed = Box<dyn Fn(&mut Scene) + Send + Sync>;

/// One of them. Its name is the one in a cell's.
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) strike: Deed,
    /// After the run's end: what was broken is whole again.
    pub(crate) mend: Deed,
    at: fn(&Moment) -> bool,
    by: fn(&Variant) -> bool,
    /// The exit codes that are right, and what the message must say where the code is not 0.
    pub(crate) codes: &'static [i32],
    pub(crate) says: &'static [&'static str],
    /// A program that it must name, besides.
    pub(crate) names: Option<&'static str>,
    /// From this moment on it may come too late to do any harm.
    pub(crate) late: &'static str,
    /// The hosts undo everything by themselves, after the lease time.
    pub(crate) vanishes: bool,
    /// Hosts on which nobody is left to undo anything.
    pub(crate) wrecks: fn(&Scene) -> Vec<&'static str>,
    /// How long the run may take to end, if more than anything that waits for nothing.
    pub(crate) patience: Duration,
}

/// Within which a run has ended that waits for no timeout.
const SOON: Duration = Duration::from_secs(30);
/// The same of one that waits until it gives up a host: keepalives, and logins that are tried again.
const GIVEN_UP: Duration = Duration::from_secs(75);

fn fault(name: &str, strike: impl Fn(&mut Scene) + Send + Sync + 'static) -> Fault {
    Fault {
        name: name.to_owned(),
        strike: Box::new(strike),
        mend: Box::new(|_| {}),
        at: |_| true,
        by: |variant| variant.name != "small",
        codes: &[1],
        says: &[],
        names: None,
        late: "publishing",
        vanishes: false,
        wrecks: |_| Vec::new(),
        patience: SOON,
    }
}

impl Fault {
    /// Only at these moments.
    fn at(self, at: fn(&Moment) -> bool) -> Self {
        Self { at, ..self }
    }

    /// Only in these variants.
    fn by(self, by: fn(&Variant) -> bool) -> Self {
        Self { by, ..self }
    }

    fn ends(self, codes: &'static [i32], says: &'static [&'static str]) -> Self {
        Self { codes, says, ..self }
    }

    /// It concerns the source, which has done its part then.
    fn of_source(self) -> Self {
        Self { late: "closing", ..self }
    }

    fn mend(self, mend: impl Fn(&mut Scene) + Send + Sync + 'static) -> Self {
        Self { mend: Box::new(mend), ..self }
    }

    fn vanishes(self) -> Self {
        Self { vanishes: true, ..self }
    }

    fn wrecks(self, wrecks: fn(&Scene) -> Vec<&'static str>) -> Self {
        Self { wrecks, ..self }
    }

    fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether there is such a cell.
    pub(crate) fn happens(&self, moment: &Moment, variant: &Variant) -> bool {
        (self.at)(moment) && (self.by)(variant) && variant.differs_at(moment)
    }
}

/// There is an agent on every host.
fn has_agent(moment: &Moment) -> bool {
    moment.is_from("target")
}

/// What is undone is no other thing in another variant: one, or those with something to undo on several hosts or by others.
fn plain(variant: &Variant) -> bool {
    variant.name == "plain"
}

fn few(variant: &Variant) -> bool {
    ["plain", "two-targets", "keep-old", "cold", "hot", "fill"].contains(&variant.name)
}

/// The source has something to undo.
fn cold(variant: &Variant) -> bool {
    ["plain", "cold", "hot"].contains(&variant.name)
}

/// All of them.
pub(crate) fn faults() -> Vec<Fault> {
    [
        signals(),
        deaths(),
        stages(),
        crashes(),
        networks(),
        disks(),
        sources(),
        wires(),
        ports(),
        tools(),
        hosts(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn signals() -> Vec<Fault> {
    vec![
        fault("sigint", |scene| scene.run().signal("INT")).by(few).ends(&[130], &["interrupted by SIGINT"]),
        fault("sigterm", |scene| scene.run().signal("TERM"))
            .by(plain)
            .ends(&[143], &["interrupted by SIGTERM"]),
        fault("sighup", |scene| scene.run().signal("HUP")).by(plain).ends(&[129], &["interrupted by SIGHUP"]),
        fault("sigkill", |scene| scene.run().signal("KILL")).ends(&[-9], &[]).vanishes(),
    ]
}

/// Kills some of what keeps a run on a host, without a moment in which one could act for the other. A sudo that stands behind
/// one of them stops when it does, and has to be woken up.
fn end(scene: &Scene, end: End, whom: &str) {
    let script = format!(
        "found=$({whom}); behind=$(for pid in ${{found:?}}; do parent $pid; done)
         kill -STOP $found || :; kill -KILL $found || :; kill -CONT $behind || :"
    );
    processes::sh(&scene.host(end), &script);
}

fn deaths() -> Vec<Fault> {
    // The agent last: the kernel wakes a stopped watchdog when its parent goes, and it would begin to act.
    const ALL: &str = "watchdog; agent";
    vec![
        fault("master-of-target", |scene| scene.kill_master("db2"))
            .by(plain)
            .at(|moment| moment.is_from("probing"))
            .ends(&[1, 4], &["db2"]),
        fault("master-of-source", |scene| scene.kill_master("db1"))
            .at(|moment| moment.is_from("probing"))
            .by(cold)
            .of_source()
            .ends(&[1, 4], &["db1"]),
        fault("session-of-target", |scene| scene.kill_session("db2"))
            .by(few)
            .at(|moment| moment.is_from("probing"))
            .ends(&[1, 4], &["db2"]),
        fault("session-of-source", |scene| scene.kill_session("db1"))
            .at(|moment| moment.is_from("probing"))
            .by(cold)
            .of_source()
            .ends(&[1, 4], &["db1"]),
        fault("agent-of-target", |scene| end(scene, End::Target, "agent"))
            .at(has_agent)
            .ends(&[1], &["db2: lost the agent of this run"]),
        fault("agent-of-source", |scene| end(scene, End::Source, "agent"))
            .at(|moment| has_agent(moment) && moment.name != "releasing")
            .of_source()
            .ends(&[1], &["lost the agent of this run"]),
        fault("keepers-of-target", |scene| end(scene, End::Target, ALL))
            .by(few)
            .at(has_agent)
            .ends(&[1], &["db2: lost the agent of this run"]),
        fault("keepers-of-source", |scene| end(scene, End::Source, ALL))
            .by(cold)
            .at(|moment| has_agent(moment) && moment.name != "releasing")
            .of_source()
            .ends(&[1], &["lost the agent of this run"]),
        fault("agent-and-controller", |scene| {
            scene.run().signal("STOP");
            end(scene, End::Target, "agent");
            scene.run().signal("KILL");
        })
        .by(few)
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes(),
        fault("everybody-at-source", |scene| {
            scene.run().signal("STOP");
            end(scene, End::Source, ALL);
            scene.run().signal("KILL");
        })
        .by(Variant::makes_rest)
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes()
        .wrecks(|_| vec!["db1"]),
        fault("everybody", |scene| {
            scene.run().signal("STOP");
            end(scene, End::Target, ALL);
            scene.run().signal("KILL");
        })
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes()
        .wrecks(|_| vec!["db2"]),
    ]
}

/// A stage of a pipeline: job, program, a word of its arguments, and its name in messages.
const STAGES: [(End, &str, &str, &str, &str); 13] = [
    (End::Source, "sender", "tar", "--create", "tar"),
    (End::Source, "sender", "perl", "sender read", "read"),
    (End::Source, "sender", "zstd", "-c", "compress"),
    (End::Source, "sender", "perl", "sender wire", "wire"),
    (End::Source, "sender", "openssl", "dgst", "digest"),
    (End::Source, "sender", "openssl", "enc", "encrypt"),
    (End::Source, "sender", "nc", "-N", "netcat"),
    (End::Target, "receiver", "nc", "-l", "netcat"),
    (End::Target, "receiver", "openssl", "enc", "decrypt"),
    (End::Target, "receiver", "openssl", "dgst", "digest"),
    (End::Target, "receiver", "perl", "receiver wire", "wire"),
    (End::Target, "receiver", "zstd", "-c", "decompress"),
    (End::Target, "receiver", "tar", "--extract", "tar"),
];

fn stages() -> Vec<Fault> {
    let stage = |(host, job, program, word, name): (End, &'static str, &'static str, &'static str, &str)| {
        fault(&format!("stage-{job}-{name}"), move |scene| {
            end(scene, host, &format!("process {job} {program} '{word}'"));
        })
        .at(|moment| moment.is_from("first") && !moment.is_from("closing"))
        .by(|variant| ["plain", "two-targets"].contains(&variant.name))
        .ends(&[1], &["db2"])
    };
    let mut faults: Vec<Fault> = STAGES.map(stage).into();
    for (host, job) in [(End::Source, "sender"), (End::Target, "receiver")] {
        let kill = move |scene: &mut Scene| end(scene, host, &format!("process {job} bash -c"));
        faults.push(
            fault(&format!("shell-of-{job}"), kill)
                .at(|moment| moment.is_from("listening") && !moment.is_from("restarting"))
                .by(few)
                // Before the connection it costs another try.
                .ends(&[0, 1], &["its processes were ended from outside"]),
        );
    }
    faults
}

fn crashes() -> Vec<Fault> {
    vec![
        fault("crash-of-controller", |scene| scene.crash("ctl"))
            .mend(|scene| {
                scene.boot("ctl");
                // Who has nothing to say to a host that is gone does not notice it.
                scene.end_sessions();
            })
            .by(few)
            .ends(&[-9], &[])
            .vanishes(),
        fault("crash-of-source", |scene| scene.crash("db1"))
            .mend(|scene| scene.boot("db1"))
            .by(few)
            .of_source()
            .ends(&[1, 4, 6], &["db1"])
            // When the target is held at its last step, the source has nothing any more.
            .wrecks(|scene| {
                let holds = has_agent(scene.moment()) && scene.moment().name != "releasing";
                if holds { vec!["db1"] } else { Vec::new() }
            })
            .patience(GIVEN_UP),
        fault("crash-of-target", |scene| scene.crash("db2"))
            .mend(|scene| scene.boot("db2"))
            .ends(&[1, 4, 6], &["db2"])
            .wrecks(|scene| if has_agent(scene.moment()) { vec!["db2"] } else { Vec::new() })
            .patience(GIVEN_UP),
    ]
}

/// Shorter than the lease time and the idle timeout, also with what TCP waits until it tries once more: each time twice as
/// long as before.
const BLINK: Duration = Duration::from_millis(700);

fn blink(scene: &mut Scene, a: &'static str, b: &'static str) {
    scene.cut(a, b);
    // What is held goes on while the network is down.
    scene.let_go();
    thread::sleep(BLINK);
    scene.heal();
}

fn networks() -> Vec<Fault> {
    let long = |name: &str, a: &'static str, b: &'static str| {
        fault(name, move |scene| scene.cut(a, b)).mend(Scene::heal).patience(GIVEN_UP)
    };
    vec![
        fault("blink-to-target", |scene| blink(scene, "ctl", "db2")).by(plain).ends(&[0], &[]),
        fault("blink-to-source", |scene| blink(scene, "ctl", "db1")).by(plain).ends(&[0], &[]),
        fault("blink-between", |scene| blink(scene, "db1", "db2")).by(plain).ends(&[0], &[]),
        long("cut-to-target", "ctl", "db2").by(few).ends(&[1, 4, 6], &["db2"]).vanishes(),
        long("cut-to-source", "ctl", "db1").by(cold).of_source().ends(&[1, 4, 6], &["db1"]).vanishes(),
        long("cut-between", "db1", "db2").by(plain).of_source().ends(&[0, 1], &["db2"]),
        fault("sshd-of-target", |scene| scene.stop_sshd("db2"))
            .mend(|scene| scene.start_sshd("db2"))
            .by(plain)
            .ends(&[0, 4], &["db2"]),
        fault("sshd-of-source", |scene| scene.stop_sshd("db1"))
            .mend(|scene| scene.start_sshd("db1"))
            .by(plain)
            .ends(&[0, 4], &["db1"]),
    ]
}

fn disks() -> Vec<Fault> {
    let small: fn(&Variant) -> bool = |variant| variant.name == "small";
    vec![
        fault("disk-full", |scene| {
            scene.sh(End::Target, "! head -c 20M /dev/zero >/srv/damage/small/filler");
        })
        .mend(|scene| drop(scene.sh(End::Target, "rm /srv/damage/small/filler")))
        .at(has_agent)
        .by(small)
        .ends(&[0, 1], &["db2", "No space left on device"]),
        fault("disk-without-inodes", |scene| {
            let fill = "mkdir /srv/damage/small/filler; cd /srv/damage/small/filler; for n in {1..200}; do : >$n || break; done";
            scene.sh(End::Target, fill);
        })
        .mend(|scene| drop(scene.sh(End::Target, "rm -r /srv/damage/small/filler")))
        .at(has_agent)
        .by(small)
        .ends(&[0, 1], &["db2", "No space left on device"]),
        fault("directory-locked", |scene| {
            scene.sh(End::Target, &format!("chattr +i {}", scene.variant().directory));
        })
        .mend(|scene| drop(scene.sh(End::Target, &format!("chattr -i {}", scene.variant().directory))))
        .by(|variant| few(variant) && variant.name != "two-targets")
        .ends(&[1, 4, 6], &["db2"]),
        fault("directory-read-only", |scene| {
            scene.sh(End::Target, "mount -o remount,ro /srv/damage/small");
        })
        .mend(|scene| drop(scene.sh(End::Target, "mount -o remount,rw /srv/damage/small")))
        // Not while files there are open to be written to.
        .at(|moment| has_agent(moment) && (!moment.is_from("first") || moment.is_from("syncing")))
        .by(small)
        .ends(&[1, 4, 6], &["db2"]),
        fault("directory-removed", |scene| {
            scene.sh(End::Target, "rm -r /srv/damage/in");
        })
        .mend(|scene| drop(scene.sh(End::Target, "mkdir /srv/damage/in")))
        // Later it is the good copy that goes with it.
        .at(|moment| !moment.is_from("published"))
        .by(plain)
        .ends(&[1, 3, 4, 6], &["db2"]),
        fault("run-full", |scene| {
            let fill = r#"
                used=$(df --output=iused /run | tail -n 1)
                mount -o remount,nr_inodes="${used// /}" /run"#;
            scene.sh(End::Target, fill);
        })
        .mend(|scene| drop(scene.sh(End::Target, "mount -o remount,nr_inodes=800k /run")))
        .by(plain)
        .ends(&[0, 1, 4], &["db2"]),
    ]
}

/// The file that tar reads last.
const LAST: &str = "$(cd /srv/damage/data && ls -U | grep -E 'one|two|three' | tail -n 1)";

fn sources() -> Vec<Fault> {
    /// With what it was before, its time included.
    fn change(name: &str, how: &str) -> Fault {
        let script =
            format!("cd {DATA}; mkdir ../kept; cp -a {LAST} ../kept/; touch -r . ../kept/time; {how}");
        let back = format!(
            "cd {DATA}; for name in one two three; do [[ ! -e ../kept/$name ]] || mv ../kept/$name $name; done
             touch -r ../kept/time .; rm -r ../kept"
        );
        fault(name, move |scene| scene.alter_source(&script))
            .mend(move |scene| drop(scene.sh(End::Source, &back)))
            .at(|moment| ["first", "middle"].contains(&moment.name))
            .by(|variant| ["plain", "parallel", "two-targets", "local-source"].contains(&variant.name))
    }
    vec![
        change("source-truncated", &format!("truncate -s 100000 {LAST}")).ends(&[0, 1, 3], &[]),
        change("source-grown", &format!("head -c 300000 /dev/urandom >>{LAST}")).ends(&[0, 1, 3], &[]),
        change("source-vanished", &format!("rm {LAST}")).ends(&[0, 1, 3], &[]),
        change("source-unreadable", &format!("chmod 0 {LAST}"))
            .by(|variant| variant.name == "reader")
            .ends(&[1], &["db1", "Permission denied"]),
    ]
}

/// What happens to the stream between the source's netcat and the target's: bash's word for a filter of perl's.
fn wires() -> Vec<Fault> {
    let damage = |name: &str, how: &'static str, codes: &'static [i32]| {
        fault(name, move |scene| scene.damage_wire(how))
            .mend(|scene| scene.mend_tool(End::Source, "nc"))
            .at(|moment| moment.name == "sender")
            .by(|variant| ["plain", "parallel", "two-targets"].contains(&variant.name))
            .ends(codes, &["db2"])
    };
    let mut faults = Vec::new();
    for (place, at) in [("first", "100"), ("middle", "1800000"), ("last", "-100")] {
        for (kind, change) in [
            ("flipped", "substr($all, $at, 1) ^= chr(1)"),
            ("dropped", "substr($all, $at, 64) = q()"),
            ("repeated", "substr($all, $at, 0) = substr($all, $at, 64)"),
            ("cut", "substr($all, $at) = q()"),
        ] {
            let script: &'static str = Box::leak(format!("my $at = {at}; {change}").into_boxed_str());
            // What is of the right length got here, and is not what was sent.
            let codes: &[i32] = if kind == "flipped" { &[3] } else { &[1, 3] };
            faults.push(damage(&format!("wire-{kind}-{place}"), script, codes));
        }
    }
    faults
}

fn ports() -> Vec<Fault> {
    let strangers = [
        ("stranger-silent", "sleep 20"),
        ("stranger-talking", "head -c 1000000 /dev/urandom >&3; sleep 20"),
        ("stranger-leaving", "exec 3>&-"),
    ];
    let mut faults = Vec::new();
    for (name, then) in strangers {
        let stranger =
            || fault(name, move |scene| scene.send_stranger(then)).at(|moment| moment.name == "listening");
        faults.push(
            stranger()
                .by(|variant| ["plain", "two-targets", "local-source"].contains(&variant.name))
                .ends(&[0], &[]),
        );
        faults.push(stranger().by(Variant::has_one_port).ends(&[0, 5], &["db2"]));
    }
    let taken = || fault("port-taken", Scene::take_port).at(|moment| ["port", "rule"].contains(&moment.name));
    faults.push(taken().by(|variant| variant.name != "small" && !variant.has_one_port()).ends(&[0], &[]));
    // Who listens on all addresses may let us listen on one of them.
    faults.push(taken().by(Variant::has_one_port).ends(&[0, 5], &["db2"]));
    faults.push(
        fault("xtables-locked", |scene| {
            scene.spawn(End::Target, &["flock", "/run/xtables.lock", "sleep", "30"]);
        })
        .at(|moment| ["target", "rule", "closing", "verifying"].contains(&moment.name))
        .by(plain)
        .ends(&[0, 1], &["db2", "xtables"])
        .patience(GIVEN_UP),
    );
    faults
}

/// Programs that fail from a moment on, with 1 or as if they were gone.
fn tools() -> Vec<Fault> {
    /// Those that nothing succeeds without; the agent knows where it found its own.
    const NEEDED: [&str; 9] = ["tar", "zstd", "openssl", "nc", "perl", "find", "sort", "md5sum", "mkfifo"];
    const OTHERS: [&str; 12] = [
        "sync",
        "nft",
        "iptables-legacy",
        "mkdir",
        "rmdir",
        "rm",
        "mv",
        "stat",
        "awk",
        "flock",
        "sha256sum",
        "cat",
    ];
    let broken = |end: End, host: &'static str, tool: &'static str, status: &'static str| {
        let name = if status == "127" { "missing" } else { "failing" };
        fault(&format!("{name}-{tool}-{host}"), move |scene| scene.break_tool(end, tool, status))
            .mend(move |scene| scene.mend_tool(end, tool))
            .by(plain)
    };
    let mut faults = Vec::new();
    for status in ["1", "127"] {
        for (end, host) in [(End::Source, "source"), (End::Target, "target")] {
            for tool in NEEDED {
                // What cannot be told from a stranger's visit is one, after ten tries.
                let silent = host == "target" && status == "1" || tool == "perl";
                let codes: &[i32] = if silent { &[1, 3, 5] } else { &[1, 3] };
                let early = broken(end, host, tool, status).at(|moment| moment.name == "target");
                // What programs say comes through perl.
                let names = Some(tool).filter(|tool| *tool != "perl");
                faults.push(Fault { names, ..early.ends(codes, &[]) });
            }
            let tools = OTHERS.iter().filter(|tool| host == "target" || **tool == "sync");
            for tool in NEEDED.iter().chain(tools) {
                let late = broken(end, host, tool, status).at(|moment| moment.name == "last");
                faults.push(late.ends(&[0, 1, 3, 6], &["db"]));
            }
        }
        for tool in OTHERS {
            let early = broken(End::Target, "target", tool, status).at(|moment| moment.name == "target");
            // The comparison would be of what is in the memory.
            let codes: &[i32] = if tool == "sync" { &[1, 3, 6] } else { &[0, 1, 3, 6] };
            faults.push(early.ends(codes, &["db2"]));
        }
    }
    faults
}

/// Hosts that are not what they seem, before anything begins.
fn hosts() -> Vec<Fault> {
    let odd = |name: &str, script: &'static str, back: &'static str| {
        fault(name, move |scene| {
            for end in [End::Source, End::Target] {
                scene.sh(end, script);
            }
        })
        .mend(move |scene| {
            for end in [End::Source, End::Target] {
                scene.sh(end, back);
            }
        })
        .at(|moment| moment.name == "connecting")
        .by(|variant| ["plain", "sudo"].contains(&variant.name))
        .ends(&[0], &[])
    };
    let jump =
        |name: &str, by: &'static str| fault(name, move |scene| scene.jump(by)).by(plain).ends(&[0], &[]);
    vec![
        jump("clock-forward", "+2d"),
        jump("clock-backward", "-2d"),
        odd(
            "banner",
            "echo 'Authorised \\e[31muse only' >/etc/issue.net
             echo 'Banner /etc/issue.net' >/etc/ssh/sshd_config.d/banner.conf; systemctl reload ssh",
            "rm /etc/ssh/sshd_config.d/banner.conf; systemctl reload ssh",
        ),
        odd(
            "startup-files",
            "for home in /root /home/dba; do
                 for file in .bashrc .profile; do cp -a $home/$file /etc/damage-${home##*/}$file; done
                 echo 'printf \"! ready\\n= 1 ok\\nWelcome\"' | tee $home/.profile >$home/.bashrc
             done",
            "for home in /root /home/dba; do
                 for file in .bashrc .profile; do mv -T /etc/damage-${home##*/}$file $home/$file; done
             done",
        ),
        odd("shell-fish", "chsh -s /usr/bin/fish root; chsh -s /usr/bin/fish dba", SHELLS),
        odd("shell-tcsh", "chsh -s /usr/bin/tcsh root; chsh -s /usr/bin/tcsh dba", SHELLS),
        odd("shell-dash", "chsh -s /bin/dash root; chsh -s /bin/dash dba", SHELLS),
    ]
}

const SHELLS: &str = "chsh -s /bin/bash root; chsh -s /bin/bash dba; rm -rf /home/dba/.config /home/dba/.cache /home/dba/.local/share";
