//! Login shells and the output of their start-up files; options and configurations of ssh.

use super::*;
use crate::support::changes::Changed;
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::hosts::Host;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

#[test]
fn exclusive_noisy_login_shells_work() {
    let Some(scene) = Scene::with_file(1) else { return };
    let Scene { lab, db1, db2, scratch, .. } = &scene;
    let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
    db2.sh(&format!("mkdir -m 1777 '{}'", scratch.join("public")));
    let public = scratch.join("public");
    // The last line has no newline, and one line looks like ours.
    let noise = r"printf 'Welcome!\n\033[1m\nbegin here\nend\nno newline at the end'; printf 'to nobody' >&2";
    for shell in ["/bin/sh", "/bin/bash", "/usr/bin/fish", "/bin/tcsh"] {
        let set = format!(
            r#"for account in root dba; do
                home=$(getent passwd $account | cut -d : -f 6)
                usermod -s {shell} $account 2>/dev/null
                install -d -o $account $home/.config/fish
                mkdir -p $home/.before
                for file in .bashrc .profile .tcshrc; do
                    [[ ! -e $home/$file ]] || cp -a $home/$file $home/.before/
                    cat >$home/$file <<'END'
{noise}
END
                done
                cp $home/.profile $home/.config/fish/config.fish
                sed -i "s/ >&2//" $home/.tcshrc
            done"#
        );
        let back = "for account in root dba; do
                home=$(getent passwd $account | cut -d : -f 6)
                usermod -s /bin/bash $account
                cd $home && rm -rf .bashrc .profile .tcshrc .config && cp -a .before/. . && rm -r .before
            done";
        let _shells = [db1, db2].map(|host| Changed::new(host, &set, back));
        let heard = scene.lab.host("ctl").run(&["ssh", "-n", "dba@db2", "true"]).stdout;
        // A shell that reads only from a terminal.
        assert_eq!(heard.contains("no newline at the end"), shell != "/bin/sh", "{shell}: {heard}");
        for (user, options) in [("", &[][..]), ("dba@", &[]), ("dba@", &["--sudo"])] {
            let ends = [format!("{user}db1:{}", scene.source), format!("{user}db2:{public}")];
            let args = [&ends.each_ref().map(String::as_str)[..], options].concat();
            let output = lab.transfer(&args);
            assert!(output.status.success(), "{shell} {user} {options:?}: {output}");
            let contents = |host: &Host, path: &str| host.sh(&format!("md5sum <'{path}'"));
            let copy = format!("{public}/source");
            assert_eq!(contents(db1, &scene.source), contents(db2, &copy));
            let owner = if user.is_empty() || !options.is_empty() { "root" } else { "dba" };
            assert_eq!(db2.sh(&format!("stat -c %U '{copy}'; rm '{copy}'")).trim(), owner);
            let hosts = ["db1", "db2"].map(|host| format!("{user}{host}"));
            let status = [&["status"], &hosts.each_ref().map(String::as_str)[..], options].concat();
            let status = lab.transfer(&status).expect_success().stdout;
            assert_eq!(status, format!("{user}db1: no runs\n{user}db2: no runs\n"), "{shell}");
        }
    }
}

/// Starts a second sshd on db2, at port 2222, and blocks the first one. A crash ends it, too.
fn moved_ssh(scene: &Scene) -> [Changed; 2] {
    let stop = "kill $(cat /run/sshd-2222.pid) || true";
    [
        Changed::new(&scene.db2, "/usr/sbin/sshd -p 2222 -o PidFile=/run/sshd-2222.pid", stop),
        Changed::new(
            &scene.db2,
            "nft 'add table inet moved; add chain inet moved in { type filter hook input priority 10; };
            add rule inet moved in tcp dport 22 reject with tcp reset'",
            "nft list table inet moved >/dev/null 2>&1 && nft delete table inet moved; true",
        ),
    ]
}

#[test]
fn exclusive_alias_of_ssh_configuration_is_reached() {
    let Some(scene) = Scene::with_file(1) else { return };
    let _moved = moved_ssh(&scene);
    let (config, included) = (scene.scratch.join("ssh config"), scene.scratch.join("included"));
    scene.lab.host("ctl").put(
        format!("Include {included}\nHost *\n  ServerAliveInterval 5\n"),
        &config,
        0o644,
    );
    let alias = "Host far-away\n  HostName 10.77.0.12\n  Port 2222\n  HostKeyAlias db2\n";
    scene.lab.host("ctl").put(alias, &included, 0o644);
    let option = format!("--ssh-config={config}");

    let ends = ["db1", "far-away"];
    let output = scene.transfer_between(ends, &[]).expect_code(4);
    assert!(output.stderr.contains("far-away: cannot connect with ssh"), "{output}");
    assert!(output.stderr.contains("try: ssh -o BatchMode=yes far-away true"), "{output}");
    scene.transfer_between(ends, &[&option]).expect_success();
    scene.take_copy();
    let status = scene.lab.transfer(&[&option, "status", "far-away"]).expect_success();
    assert_eq!(status.stdout, "far-away: no runs\n");
    let clean = scene.lab.transfer(&["clean", "far-away", &option]).expect_success();
    assert_eq!(clean.stdout, "far-away: nothing to roll back\n");
    // The advice must be the command that was tested.
    let output = scene.transfer_between(["db1", "nowhere"], &[&option]).expect_code(4);
    assert!(
        output.stderr.contains(&format!("try: ssh -o BatchMode=yes -F '{config}' nowhere true")),
        "{output}"
    );
}

#[test]
fn exclusive_ssh_options_reach_logins_and_suggestions() {
    let Some(scene) = Scene::with_file(MORE_THAN_BUFFERS) else { return };
    let moved = moved_ssh(&scene);
    let config = scene.scratch.join("ssh config");
    scene.lab.host("ctl").put("Host far-away\n  HostName db2\n", &config, 0o644);
    scene.lab.host("ctl").sh(&format!("head -c {MORE_THAN_BUFFERS}M /dev/urandom >'{}'", scene.source));
    let login = [
        format!("--ssh-config={config}"),
        "--ssh-option=Port=2222".into(),
        "--ssh-option=HostKeyAlias=db2".into(),
    ];
    let login = login.each_ref().map(String::as_str);
    let target = format!("far-away:{}", scene.scratch.path());

    // From the controller itself, without ssh.
    let args = [&[scene.source.as_str(), &target, "--lease-time=2"], &login[..]].concat();
    let mut held = Held::start(&scene.lab, &args, &scene.db2, scene.scratch.path());
    held.port();
    let sessions = scene.db2.sh("ss -Htn state established '( sport = :2222 )'");
    assert!(sessions.contains("10.77.0.12:2222"), "{sessions}");
    scene.db2.crash();
    assert!(eventually(2 * SOON, || !held.transfer.is_running()));
    let output = held.transfer.wait().expect_code(6);
    let advice = format!(
        "transfer '--ssh-config={config}' --ssh-option=Port=2222 --ssh-option=HostKeyAlias=db2 clean far-away"
    );
    assert!(output.stderr.ends_with(&format!("to roll back: {advice}\n")), "{output}");

    scene.db2.boot();
    drop(moved);
    let _moved = moved_ssh(&scene);
    let status = scene.lab.transfer(&[&["status", "far-away"], &login[..]].concat()).expect_success();
    assert!(status.stdout.contains(&format!("; to clean up: {advice}\n")), "{status}");
    // By a shell, as advised.
    let clean = scene.lab.host("ctl").run(&["bash", "-c", &advice]).expect_success();
    assert!(clean.stdout.contains("far-away: rolled back: staging directory "), "{clean}");
    assert!(scene.arrived().is_empty());
}
