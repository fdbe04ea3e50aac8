//! Ordinary accounts on both hosts that pose as one of our peers on the port. Since a process name such as
//! `pid=221,` forges the first pid in a line of `ss`, sockets have to be identified by inode.
//!
//! A script delays netcat, so that eve is first.

use crate::assertions::code_is_one_of;
use crate::support::attackers::MARKER;
use crate::support::attackers::eve::{Attack, Eve, HOME};
use crate::support::changes::{Wrapper, call_nc};
use crate::support::copies::make_random;
use crate::support::hosts::Host;
use crate::support::output::Output;
use crate::support::scenes::{SOON, Scene};
use crate::support::trees::names;
use crate::support::waiting::eventually;

/// Common part of her programs: finds the pid of one of our jobs, and takes a name that points to it.
const SHARED: &str = r#"
        use strict; use warnings; use IO::Socket::INET; use Socket;
        $| = 1; $SIG{CHLD} = 'IGNORE'; $SIG{PIPE} = 'IGNORE';
        sub nap { select undef, undef, undef, shift }
        # The pid of a job of ours, by its command line.
        sub job {
            while (1) {
                for my $file (glob '/proc/[0-9]*/cmdline') {
                    open(my $in, '<', $file) or next;
                    local $/;
                    my $words = <$in> // '';
                    return $1 if $words =~ m{^transfer-agent\0job\0} && $file =~ m{/(\d+)/};
                }
                nap(0.005);
            }
        }
        sub pose { open(my $name, '>', '/proc/self/comm') or die; syswrite $name, "pid=$_[0],"; close $name }
        # Ports of a range on which another process listens.
        sub heard {
            my ($first, $last) = @_;
            my @ports;
            open(my $in, '<', '/proc/net/tcp') or die;
            while (<$in>) {
                my @field = split;
                my $port = hex((split /:/, $field[1] // '')[1] // 0);
                push @ports, $port if ($field[3] // '') eq '0A' && $port >= $first && $port <= $last && $field[7] ne '4242';
            }
            return @ports;
        }
        print "ready\n";
    "#;

/// On the source: connects before our sender, takes a forged name, and sends a file. Arguments: address,
/// first and last port, file, number of connections.
const FIRST: &str = r#"
        my ($address, $first, $last, $file, $times) = @ARGV;
        my $pid = job();
        while ($times > 0) {
            for my $port ($first .. $last) {
                my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 1) or next;
                $times--;
                print "connected\n";
                next if fork;
                pose($pid);
                open(my $in, '<', $file) or die;
                while (read($in, my $bytes, 65536)) { $socket->syswrite($bytes) or last }
                nap(30);
                exit;
            }
            nap(0.002);
            $pid = job();
        }
        nap(60);
    "#;

/// On the target: listens on the port before our receiver, takes a forged name, and keeps what it receives.
/// Arguments: address, first and last port, output file.
const POSES: &str = r#"
        my ($address, $first, $last, $file) = @ARGV;
        my $pid = job();
        pose($pid);
        my @all;
        for my $port ($first .. $last) {
            push @all, IO::Socket::INET->new(LocalAddr => $address, LocalPort => $port, Listen => 5, ReuseAddr => 1) || next;
        }
        print "listens\n" if @all;
        for my $listener (@all) {
            next if fork;
            my $peer = $listener->accept or exit;
            open(my $out, '>>', $file) or die;
            while (sysread($peer, my $bytes, 65536)) { syswrite $out, $bytes }
            exit;
        }
        nap(60);
    "#;

/// On the target: connects to each receiver, listens on the same port again, takes a forged name, and relays.
/// Arguments: the receiver's address, first and last port, file for a duplicate, her own address.
const RELAYS: &str = r#"
        my ($address, $first, $last, $file, $own) = @ARGV;
        my %seen;
        while (1) {
            for my $port (heard($first, $last)) {
                next if $seen{$port}++ > 3;
                my $pid = job();
                nap(0.1);
                my $inner = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 1) or next;
                my $listener;
                for (1 .. 200) {
                    $listener = IO::Socket::INET->new(LocalAddr => $own, LocalPort => $port, Listen => 5, ReuseAddr => 1) and last;
                    nap(0.002);
                }
                print $listener ? "bound $port\n" : "not bound $port: $!\n";
                next if !$listener || fork;
                pose($pid);
                my $peer = $listener->accept or exit;
                close $listener;
                open(my $out, '>>', $file) or die;
                while (sysread($peer, my $bytes, 65536)) { syswrite $out, $bytes; $inner->syswrite($bytes) or last }
                shutdown($inner, 1);
                nap(5);
                exit;
            }
            nap(0.005);
        }
    "#;

/// Runs a copy on ports of this test only, with plain data, so that the origin of the bytes can be seen.
const PLAIN: [&str; 3] = ["--no-encrypt", "--no-compress", "--keep-staging"];

fn start(eve: &Eve, program: &str, args: &[&str]) -> Attack {
    let mut attack = eve.perl(&format!("{SHARED}{program}"), args);
    attack.program.wait_for("ready", SOON);
    attack
}

/// Creates a tar of hers with the source's name.
#[track_caller]
fn tar_of_hers(eve: &Eve) -> String {
    let file = format!("{HOME}/planted.tar");
    eve.sh("cd && rm -rf source && mkdir source && echo mine >source/planted && tar -b 4096 -cf planted.tar ./source", &[]);
    file
}

/// Delays our netcat, so that she is first.
fn late(host: &Host, which: &str, seconds: &str) -> Wrapper {
    Wrapper::new(host, "nc", &format!("[[ $* == *' {which} '* ]] && sleep {seconds}"))
}

/// Asserts that the target has the right data or none, and nothing of hers, not even in a kept staging
/// directory.
#[track_caller]
fn right_or_none(scene: &Scene, host: &Host, output: &Output) {
    let planted = host.sh(&format!("find '{}' -name planted", scene.scratch.path()));
    assert!(planted.is_empty(), "her bytes were unpacked:\n{planted}{output}");
    code_is_one_of(output, &[0, 5]);
    if output.status.success() {
        host.sh(&format!("grep -qx {MARKER} '{}'", scene.at("in/source/marked")));
    }
}

#[test]
fn exclusive_fake_sender_is_not_accepted() {
    let Some(scene) = Scene::with_source(4) else { return };
    let eve = Eve::on(&scene.db1);
    let file = tar_of_hers(&eve);
    let _late = late(&scene.db1, "-N", "0.5");
    for encrypt in [&["--no-encrypt"][..], &[]] {
        let mut attack = start(&eve, FIRST, &["10.77.0.12", "4610", "4619", &file, "1"]);
        let output = scene.transfer(&[&PLAIN[1..], encrypt, &["--port-range=4610-4619"]].concat());
        attack.program.wait_for("connected", SOON);
        right_or_none(&scene, &scene.db2, &output);
        scene.db2.sh(&format!("rm -rf '{}'", scene.at("in/source")));
    }
}

#[test]
fn exclusive_persistent_fake_sender_is_never_accepted() {
    let Some(scene) = Scene::with_source(4) else { return };
    let eve = Eve::on(&scene.db1);
    let file = tar_of_hers(&eve);
    let _late = late(&scene.db1, "-N", "0.3");
    let mut attack = start(&eve, FIRST, &["10.77.0.12", "4620", "4620", &file, "1000"]);
    let output = scene.transfer(&[&PLAIN[..], &["--port=4620"]].concat());
    attack.program.wait_for("connected", SOON);
    right_or_none(&scene, &scene.db2, &output);
}

#[test]
fn exclusive_fake_sender_reaches_none_of_several_targets() {
    let Some(scene) = Scene::with_source(4) else { return };
    let db3 = scene.lab.host("db3");
    let there = scene.lab.scratch(&["db3"]);
    let eve = Eve::on(&scene.db1);
    let file = tar_of_hers(&eve);
    let _late = late(&scene.db1, "-N", "0.5");
    let mut attack = start(&eve, FIRST, &["10.77.0.13", "4630", "4639", &file, "1"]);
    let ends = [
        format!("db1:{}", scene.at("source")),
        format!("db2:{}", scene.at("in")),
        format!("db3:{}", there.path()),
    ];
    let args = [&ends.each_ref().map(String::as_str)[..], &PLAIN, &["--port-range=4630-4639"]].concat();
    let output = scene.lab.transfer_spawn(&args).end_within(SOON);
    attack.program.wait_for("connected", SOON);
    right_or_none(&scene, &scene.db2, &output);
    let planted = db3.sh(&format!("find '{}' -name planted", there.path()));
    assert!(planted.is_empty(), "her bytes were unpacked on db3: {output}");
}

#[test]
fn exclusive_queued_connections_change_nothing() {
    let Some(scene) = Scene::with_source(0) else { return };
    make_random(&scene.db1, &scene.at("source/file"), 16);
    let eve = Eve::on(&scene.db1);
    let file = tar_of_hers(&eve);
    // Our sender is first; the decoder is delayed, so that her connection comes while the port is still open.
    let _tar = Wrapper::new(&scene.db1, "tar", "[[ $* == *--create* ]] && sleep 1");
    let mut attack = start(&eve, FIRST, &["10.77.0.12", "4640", "4649", &file, "20"]);
    let output = scene.transfer(&[&PLAIN[..], &["--port-range=4640-4649"]].concat());
    attack.program.wait_for("connected", SOON);
    right_or_none(&scene, &scene.db2, &output);
}

/// Asserts that none of the data passed through her program.
#[track_caller]
fn nothing_came_by(scene: &Scene, caught: &str, output: &Output) {
    let size = scene.db2.sh(&format!("stat -c %s '{caught}' 2>/dev/null || echo 0"));
    let marked = scene.db2.run(&["grep", "-qa", MARKER, caught]).status.success();
    assert!(!marked, "eve has read what was sent, {} bytes: {output}", size.trim());
    assert_eq!(size, "0\n", "eve was on the wire, with code {:?}: {output}", output.status.code());
    code_is_one_of(output, &[0, 5]);
}

#[test]
fn exclusive_fake_receiver_gets_nothing() {
    let Some(scene) = Scene::with_source(4) else { return };
    let eve = Eve::on(&scene.db2);
    let _late = late(&scene.db2, "-l", "0.5");
    for encrypt in [&["--no-encrypt"][..], &[]] {
        let caught = format!("{HOME}/caught.{}", encrypt.len());
        scene.db2.run(&["rm", "-f", &caught]);
        let mut attack = start(&eve, POSES, &["10.77.0.12", "4650", "4650", &caught]);
        let args = [&["--no-compress", "--port-range=4650-4659", "--replace"], encrypt].concat();
        let output = scene.transfer(&args);
        attack.program.wait_for("listens", SOON);
        nothing_came_by(&scene, &caught, &output);
    }
}

/// Size of the header that openssl writes in front of the ciphertext.
const CIPHER_HEADER: u64 = 16;

/// Makes her relay between our sender and the receiver of a netcat, which listens on `own` again.
#[track_caller]
fn relayed(netcat: &str, own: &str, encrypt: &[&str], ports: (u16, u16)) {
    let Some(scene) = Scene::with_source(4) else { return };
    let eve = Eve::on(&scene.db2);
    let caught = format!("{HOME}/relayed.{}", ports.0);
    scene.db2.run(&["rm", "-f", &caught]);
    let _late = late(&scene.db1, "-N", "0.7");
    let _nc = call_nc(&scene.db2, netcat);
    let (first, last) = (ports.0.to_string(), ports.1.to_string());
    let mut attack = start(&eve, RELAYS, &["10.77.0.12", &first, &last, &caught, own]);
    let range = format!("--port-range={first}-{last}");
    let output = scene.transfer(&[encrypt, &["--no-compress", &range]].concat());
    // She was connected; OpenBSD's netcat, which keeps its listener, allows no more than that.
    attack.program.wait_for("bound ", SOON);
    if encrypt.contains(&"--no-encrypt") {
        nothing_came_by(&scene, &caught, &output);
    } else {
        // openssl writes its header, which has no data, before the gate opens.
        let size = scene.db2.sh(&format!("stat -c %s '{caught}' 2>/dev/null || echo 0"));
        let size: u64 = size.trim().parse().expect("a size");
        assert!(size % CIPHER_HEADER == 0 && size <= 10 * CIPHER_HEADER, "{size} bytes: {output}");
        code_is_one_of(&output, &[0, 5]);
    }
    assert!(names(&scene.db2, &scene.at("in")).len() <= 1);
}

#[test]
fn exclusive_relay_before_traditional_netcat_gets_nothing() {
    relayed("nc.traditional", "10.77.0.12", &["--no-encrypt"], (4660, 4673));
}

#[test]
fn exclusive_relay_before_ncat_gets_nothing() {
    relayed("ncat", "10.77.0.12", &["--no-encrypt"], (4680, 4693));
}

#[test]
fn exclusive_relay_on_wildcard_address_gets_no_ciphertext() {
    relayed("ncat", "0.0.0.0", &[], (4700, 4709));
}

#[test]
fn exclusive_relay_before_openbsd_netcat_gets_nothing() {
    relayed("nc.openbsd", "10.77.0.12", &["--no-encrypt"], (4760, 4773));
}

#[test]
fn exclusive_attacker_programs_end_with_the_test() {
    let Some(scene) = Scene::new() else { return };
    let eve = Eve::on(&scene.db1);
    drop(eve.bash("sleep 1000 & sleep 1000", &[]));
    assert!(eventually(SOON, || !scene.db1.run(&["pgrep", "-u", "eve"]).status.success()));
}
