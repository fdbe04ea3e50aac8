//! The ways to a host and through it: accounts, login shells, sudo, options of ssh, addresses; the old command line; names
//! of any bytes; and what stands against a run on real hosts.

use crate::fixtures::{assert_same, make_random, names};
use crate::harness::Lab;

/// Names that a shell, a terminal or a tool could take for something else, as bash reads them.
const ODD: [&str; 7] = [
    r"'two  blanks '",
    r#"$'it\'s "quoted"'"#,
    r"'$(touch pwned)'",
    r"'`touch pwned`;&|'",
    r"$'new\nline\n'",
    r"-rf",
    r"$'\xff\xfe\x01'",
];

/// Nothing on these hosts was run that is only a name.
#[track_caller]
fn assert_nothing_was_run(lab: &Lab) {
    for host in ["ctl", "db1", "db2"] {
        let pwned = lab.host(host).sh("find / -xdev -name pwned; find /srv /run /tmp -name pwned");
        assert_eq!(pwned, "", "a name was run on {host}");
    }
}

/// What `find` tells of everything below a directory, which is named for bash, but not of its owners.
#[track_caller]
fn listing(lab: &Lab, host: &str, directory: &str) -> String {
    lab.host(host).sh(&format!(
        "cd -- {directory}; find . -printf '%p %y %m %s %T@\\0' | sort -z | tr '\\0\\n' '\\n~' | cat -v"
    ))
}

#[test]
fn names_of_any_bytes_are_left_out_given_and_owned() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    // Each name for the source, its directory, the target and the copy, and each is left out and kept once.
    for (number, odd) in ODD.iter().enumerate() {
        let other = ODD[(number + 1) % ODD.len()];
        let base = format!("'{}'/{number}", scratch.path());
        let (source, target) = (format!("{base}/{odd}/{odd}"), format!("{base}/{odd}"));
        let all = ODD.map(|name| format!("./{name}")).join(" ");
        db1.sh(&format!(
            "mkdir -p -- {source}; cd -- {source}
            for name in {all}; do echo out >\"$name\"; echo kept >\"$name.kept\"; mkdir \"$name.d\"; cp \"$name\" \"$name.d\"; done
            cp -a . {base}/expected; cd {base}/expected
            for name in {all}; do rm \"$name\" \"$name.d/$name\"; done"
        ));
        // Times of directories changed with what was taken out of them.
        db1.sh(&format!("cd {base}/expected; find . -type d -print0 | while IFS= read -r -d '' d; do touch -r {source}/\"$d\" \"$d\"; done"));
        db2.sh(&format!("mkdir -p -- {target}"));
        let excludes: String = ODD.map(|name| format!(" --exclude={name}")).concat();
        let output = lab
            .program(&["--chown=mysql:mysql"])
            .words(&format!("{excludes} --as={other} -- db1:{source} db2:{target}"))
            .run()
            .expect_success();
        assert!(!output.stderr.contains("WARN"), "{odd}: {output}");
        let copy = format!("{target}/{other}");
        assert_eq!(
            listing(&lab, "db2", &copy),
            listing(&lab, "db1", &format!("{base}/expected")),
            "{odd}: {output}"
        );
        assert_eq!(
            db2.sh(&format!("cd -- {copy}; find . -printf '%U:%G\\n' | sort -u")),
            "121:122\n",
            "{odd}: {output}"
        );
    }
    assert_nothing_was_run(&lab);
}

#[test]
fn owners_that_can_be_no_names_are_a_usage_error_and_nothing_is_run() {
    let Some(lab) = Lab::get() else { return };
    for odd in ODD {
        let run = lab.program(&["db1:/etc/hostname", "db2:/srv"]).words(&format!("--chown={odd}")).run();
        assert_eq!(run.status.code(), Some(2), "{odd}: {run}");
        let told = ["--chown", "invalid UTF-8"].iter().any(|text| run.stderr.contains(text));
        assert!(told, "{odd}: {run}");
    }
    assert_nothing_was_run(&lab);
}

#[test]
fn an_account_of_other_numbers_is_told_with_both_and_chown_gives_the_copy_to_the_right_one() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    db1.sh(&format!("mkdir '{source}'; echo x >'{source}/table'; chown -R mysql:mysql '{source}'"));
    let args = [format!("db1:{source}"), format!("db2:{}", scratch.path())];
    let transfer =
        |options: &[&str]| lab.transfer(&[&args.each_ref().map(String::as_str)[..], options].concat());
    let owners = || db2.sh(&format!("cd '{source}'; stat -c %u:%g . table | sort -u; rm -r '{source}'"));

    let output = transfer(&[]).expect_success();
    for (kind, there, here) in [("user", 111, 121), ("group", 112, 122)] {
        let told = format!("db2: files of the {kind} mysql, {there} on db1, will be those of {there}, ");
        assert!(output.stderr.contains(&told), "{output}");
        let fix = format!(": mysql is {here} here; give the copy its owner with --chown USER:GROUP");
        assert!(output.stderr.contains(&fix), "{output}");
    }
    assert_eq!(owners(), "111:112\n");

    for (owner, numbers) in
        [("mysql:mysql", "121:122"), ("mysql", "121:112"), (":mysql", "111:122"), ("7:8", "7:8")]
    {
        let output = transfer(&["--chown", owner]).expect_success();
        assert!(!output.stderr.contains("WARN"), "{output}");
        assert_eq!(owners(), format!("{numbers}\n"), "--chown {owner}");
    }

    let output = transfer(&["--chown", "nosuch:nobodys"]).expect_code(4);
    for unknown in ["user nosuch", "group nobodys"] {
        let told = format!("db2: there is no {unknown} for --chown; create it, or say its number");
        assert!(output.stderr.contains(&told), "{output}");
    }
    let output = lab
        .transfer(&[&format!("db1:{source}/table"), &format!("dba@db2:{}", scratch.path()), "--chown=mysql"])
        .expect_code(4);
    let told = "dba@db2: only root may give files away (--chown); log in as root, or with --sudo";
    assert!(output.stderr.contains(told), "{output}");
    assert!(names(&db2, scratch.path()).is_empty());
}

#[test]
fn file_systems_that_are_read_only_or_too_small_are_refused() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 2);
    let sealed = scratch.small_disk(&db2, "sealed", 8 << 20);
    let small = scratch.small_disk(&db2, "small", 1 << 20);
    let bound = scratch.join("bound");
    db2.sh(&format!(
        "mount -o remount,ro '{sealed}'; mkdir '{bound}'; mount --bind '{bound}' '{bound}'; mount -o remount,ro,bind '{bound}'"
    ));
    for (directory, told) in [
        (&sealed, "is on a file system that is mounted read-only; mount it writable"),
        (&bound, "is on a file system that is mounted read-only; mount it writable"),
        (
            &small,
            "has 1.00 MiB free (1048576 bytes), the source takes 2.00 MiB (2097152 bytes); free some space",
        ),
    ] {
        let output = lab.transfer(&[&format!("db1:{source}"), &format!("db2:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db2: {directory} {told}")), "{output}");
        assert!(names(&db2, directory).is_empty());
    }
}

#[test]
fn bind_mounts_do_not_hide_that_the_source_and_the_target_are_in_each_other() {
    let Some(lab) = Lab::get() else { return };
    let db1 = lab.host("db1");
    let scratch = lab.scratch(&["db1"]);
    let source = scratch.join("source");
    let [whole, below, above, beside] = ["whole", "below", "above", "beside"].map(|name| scratch.join(name));
    db1.sh(&format!(
        "cd '{}'; mkdir -p source/sub/deep whole below above beside other; echo x >source/file
        mount --bind source whole; mount --bind source/sub below; mount --bind . above; mount --bind other beside",
        scratch.path()
    ));
    let from = format!("db1:{source}");
    for directory in [&whole, &below, &format!("{below}/deep"), &format!("{above}/source/sub")] {
        let output = lab.transfer(&[&from, &format!("db1:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db1: {directory} is inside of the source")), "{output}");
        // And the other way round.
        let output =
            lab.transfer(&[&format!("db1:{above}/source"), &format!("db1:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db1: {directory} is inside of the source")), "{output}");
    }
    let output = lab.transfer(&[&from, &format!("db1:{above}")]).expect_code(4);
    assert!(output.stderr.contains(&format!("db1: {above}/source exists already")), "{output}");
    for inner in [&source, &format!("{source}/sub"), &format!("{source}/file"), &below] {
        let output = lab
            .transfer(&[&format!("db1:{inner}"), &format!("db1:{above}"), "--replace", "--as=source"])
            .expect_code(4);
        assert!(
            output.stderr.contains(&format!("db1: {above}/source is the source, or holds it")),
            "{output}"
        );
    }
    let output = lab
        .transfer(&[&from, &format!("db1:{beside}"), &format!("db1:{}", scratch.join("other"))])
        .expect_code(4);
    assert!(output.stderr.contains(&format!("{beside} is named twice as a target")), "{output}");

    // One that leads elsewhere is a directory like any other.
    lab.transfer(&[&from, &format!("db1:{beside}")]).expect_success();
    assert_same((&db1, &source), (&db1, &format!("{beside}/source")));
}

/// What belongs to a whole host: accounts, packages, addresses, rules, files in `/etc`.
mod alone {
    use std::time::{Duration, Instant};

    use super::{assert_same, make_random, names};
    use crate::fixtures::{Changed, Held, MORE_THAN_BUFFERS, SOON, Wrapper, being_read, make_every_kind};
    use crate::harness::{Host, Lab, Output, Scratch, eventually};

    /// What is found before the program tries to connect is told within this.
    const AT_ONCE: Duration = Duration::from_secs(10);

    /// Nothing but ssh, and what belongs to it, comes in.
    const CLOSE: &str = "nft 'add table inet closed; add chain inet closed in { type filter hook input priority 0; policy drop; };
        add rule inet closed in ct state established,related accept; add rule inet closed in meta l4proto ipv6-icmp accept;
        add rule inet closed in tcp dport { 22, 2222 } accept'";

    fn closed(host: &Host) -> Changed {
        Changed::new(host, CLOSE, "nft delete table inet closed")
    }

    /// Lets the account `dba` become root, by what a line of sudoers says.
    fn sudoers(host: &Host, commands: &str) -> Changed {
        let file = "/etc/sudoers.d/lab";
        let write = format!("echo 'dba ALL=(root) {commands}' >{file}; chmod 0440 {file}; visudo -cq");
        Changed::new(host, &write, &format!("rm -f {file}"))
    }

    /// db1 has a source, db2 a directory for it.
    struct Scene {
        lab: Lab,
        ctl: Host,
        db1: Host,
        db2: Host,
        scratch: Scratch,
        source: String,
    }

    impl Scene {
        fn new(mib: u32) -> Option<Self> {
            let lab = Lab::get()?;
            let (ctl, db1, db2) = (lab.host("ctl"), lab.host("db1"), lab.host("db2"));
            let scratch = lab.scratch(&["ctl", "db1", "db2", "db3"]);
            let source = scratch.join("source");
            make_random(&db1, &source, mib);
            Some(Self { lab, ctl, db1, db2, scratch, source })
        }

        fn args(&self, [from, to]: [&str; 2], options: &[&str]) -> Vec<String> {
            let ends = [format!("{from}:{}", self.source), format!("{to}:{}", self.scratch.path())];
            ends.into_iter().chain(options.iter().map(ToString::to_string)).collect()
        }

        fn transfer(&self, ends: [&str; 2], options: &[&str]) -> Output {
            let args = self.args(ends, options);
            self.lab.transfer(&args.iter().map(String::as_str).collect::<Vec<_>>())
        }

        #[track_caller]
        fn held(&self, ends: [&str; 2], options: &[&str]) -> Held {
            let args = self.args(ends, options);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Held::start(&self.lab, &args, &self.db2, self.scratch.path())
        }

        /// The copy is what it should be, and is taken away.
        #[track_caller]
        fn take_copy(&self) {
            assert_same((&self.db1, &self.source), (&self.db2, &self.source));
            self.db2.run(&["rm", "-r", &self.source]).expect_success();
        }
    }

    // ------------------------------------------------------------------------------------------------------- accounts

    #[test]
    fn with_sudo_an_account_without_privileges_does_what_root_does() {
        let Some(scene) = Scene::new(1) else { return };
        let Scene { lab, db1, db2, scratch, .. } = &scene;
        let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
        let _closed = closed(db2);
        let tree = scratch.join("tree");
        make_every_kind(db1, &tree);
        make_random(db1, &format!("{tree}/large"), MORE_THAN_BUFFERS);
        // Nobody but root may look into it, or write to the target.
        db1.sh(&format!("chmod 0700 '{tree}'"));
        let args = [&format!("dba@db1:{tree}"), &format!("dba@db2:{}", scratch.path()), "--sudo"];
        let held = Held::start(lab, &args, db2, scratch.path());
        let port = held.port();
        let hole = format!("ip saddr 10.77.0.11 tcp dport {port} accept");
        assert!(db2.sh("nft list ruleset").contains(&hole), "no hole: {}", db2.sh("nft list ruleset"));
        for host in [db1, db2] {
            assert_eq!(names(host, "/var/lib/transfer").len(), 1);
            assert!(!host.run(&["test", "-e", "/home/dba/.local/state/transfer"]).status.success());
        }
        let status = lab.transfer(&["--sudo", "status", "dba@db1", "dba@db2"]).expect_success().stdout;
        assert!(
            status.contains("dba@db1: live ") && status.contains(&format!("  holds port {port}\n")),
            "{status}"
        );
        // What dba has there is something else.
        assert_eq!(lab.transfer(&["status", "dba@db2"]).expect_success().stdout, "dba@db2: no runs\n");
        let clean = lab.transfer(&["--sudo", "clean", "dba@db2"]).expect_success().stdout;
        assert!(clean.contains("was not touched; see: transfer --sudo status dba@db2\n"), "{clean}");

        held.go().expect_success();
        assert_same((db1, &tree), (db2, &tree));
        assert!(!db2.sh("nft list ruleset").contains("4400"));
        let status = lab.transfer(&["--sudo", "status", "dba@db1", "dba@db2"]).expect_success().stdout;
        assert_eq!(status, "dba@db1: no runs\ndba@db2: no runs\n");
    }

    #[test]
    fn with_sudo_everything_is_undone_however_the_run_ends() {
        let Some(scene) = Scene::new(MORE_THAN_BUFFERS) else { return };
        let Scene { db1, db2, scratch, .. } = &scene;
        let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
        let _closed = closed(db2);
        let rules = db2.sh("nft list ruleset");
        for signal in ["INT", "TERM", "HUP", "KILL"] {
            let mut held = scene.held(["dba@db1", "dba@db2"], &["--sudo"]);
            held.port();
            held.transfer.signal(signal);
            held.transfer.wait_end(SOON);
            let undone = || {
                let gone = |host: &Host| {
                    let left = "ps -C tar,zstd,openssl,nc -o args=; ls -d /var/lib/transfer /run/transfer";
                    !host.run(&["bash", "-c", left]).stdout.contains(|c: char| c.is_ascii_graphic())
                };
                gone(db1)
                    && gone(db2)
                    && names(db2, scratch.path()).is_empty()
                    && db2.sh("nft list ruleset") == rules
            };
            assert!(eventually(SOON, undone), "after {signal}");
        }
    }

    #[test]
    fn with_sudo_this_machine_is_a_host_like_any_other() {
        let Some(scene) = Scene::new(1) else { return };
        let Scene { lab, ctl, db2, scratch, .. } = &scene;
        let _target = sudoers(db2, "NOPASSWD: ALL");
        let source = scratch.join("closed");
        ctl.sh(&format!("umask 077; head -c 1M /dev/urandom >'{source}'; chown 111:112 '{source}'"));
        let target = format!("dba@db2:{}", scratch.path());
        let as_dba = || lab.program(&[&source, &target, "--sudo"]).user("dba").run();
        let output = as_dba().expect_code(4);
        let told = "localhost: probe: sudo starts no root shell (it said: sudo: a password is required)";
        assert!(output.stderr.contains(told), "{output}");
        let _own = sudoers(ctl, "NOPASSWD: ALL");
        as_dba().expect_success();
        assert_same((ctl, &source), (db2, &source));
        let status = lab.program(&["status", "localhost", "--sudo"]).user("dba").run().expect_success();
        assert_eq!(status.stdout, "localhost: no runs\n");
    }

    #[test]
    fn with_sudo_what_a_crash_left_of_root_is_seen_and_removed() {
        let Some(scene) = Scene::new(MORE_THAN_BUFFERS) else { return };
        let Scene { lab, db2, scratch, .. } = &scene;
        let _root = [&scene.db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
        let held = scene.held(["dba@db1", "dba@db2"], &["--sudo"]);
        held.port();
        db2.crash();
        held.transfer.signal("KILL");
        db2.boot();
        let left = names(db2, scratch.path());
        assert!(left.len() == 1 && left[0].starts_with(".transfer-"), "{left:?}");
        let status = lab.transfer(&["status", "dba@db2", "--sudo"]).expect_success().stdout;
        assert!(status.contains("dba@db2: dead "), "{status}");
        assert!(
            status.contains("from before a reboot; remove it: transfer --sudo clean dba@db2\n"),
            "{status}"
        );
        assert_eq!(lab.transfer(&["clean", "dba@db2"]).expect_success().stdout, "dba@db2: nothing to undo\n");
        let clean = lab.transfer(&["--sudo", "clean", "dba@db2"]).expect_success().stdout;
        assert!(clean.contains("dba@db2: undone: staging "), "{clean}");
        assert!(names(db2, scratch.path()).is_empty());
    }

    #[test]
    fn sudo_that_refuses_or_is_missing_is_told_with_what_to_do() {
        let Some(scene) = Scene::new(1) else { return };
        let _source = sudoers(&scene.db1, "NOPASSWD: ALL");
        let fix = "install it where it is missing and let the account use it without a password \
                   (ACCOUNT ALL=(root) NOPASSWD: ALL in a file in /etc/sudoers.d), or log in as root";
        let refused = |said: &str| {
            let output = scene.transfer(["dba@db1", "dba@db2"], &["--sudo"]).expect_code(4);
            let told = format!("dba@db2: probe: sudo starts no root shell (it said: {said}); {fix}");
            assert!(output.stderr.contains(&told), "{output}");
            assert!(output.stderr.contains("refused, nothing was changed"), "{output}");
        };
        refused("sudo: a password is required");
        {
            let _target = sudoers(&scene.db2, "ALL");
            refused("sudo: a password is required");
        }
        {
            let _target = sudoers(&scene.db2, "NOPASSWD: /usr/bin/true");
            refused("sudo: a password is required");
        }
        {
            let _target = Changed::without(&scene.db2, &["sudo"]);
            refused("sh: 1: sudo: not found");
            let output = scene.lab.transfer(&["--sudo", "status", "dba@db2"]).expect_code(1);
            assert!(output.stdout.contains("dba@db2: status: sudo starts no root shell"), "{output}");
        }
        {
            let noise =
                "cp -a /home/dba/.bashrc /home/dba/.before; printf 'printf Welcome' >/home/dba/.bashrc";
            let _noise = Changed::new(&scene.db2, noise, "mv /home/dba/.before /home/dba/.bashrc");
            refused("sudo: a password is required");
        }
        // Who may run bash as root needs nothing else.
        let _target = sudoers(&scene.db2, "NOPASSWD: /usr/bin/bash");
        scene.transfer(["dba@db1", "dba@db2"], &["--sudo"]).expect_success();
        scene.take_copy();
    }

    #[test]
    fn every_login_shell_will_do_whatever_its_start_up_files_print() {
        let Some(scene) = Scene::new(1) else { return };
        let Scene { lab, db1, db2, scratch, .. } = &scene;
        let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
        db2.sh(&format!("mkdir -m 1777 '{}'", scratch.join("public")));
        let public = scratch.join("public");
        // The last line has no end, and another one is ours.
        let noise =
            r"printf 'Welcome!\n\033[1m\nbegin here\nend\nno newline at the end'; printf 'to nobody' >&2";
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
            let heard = scene.ctl.run(&["ssh", "-n", "dba@db2", "true"]).stdout;
            // A shell that reads nothing unless somebody types.
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

    // ------------------------------------------------------------------------------------------------------------ ssh

    /// A second sshd on db2, at port 2222; the first one cannot be reached. Ends with a crash, too.
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
    fn a_host_that_only_an_ssh_configuration_knows_is_reached_by_it() {
        let Some(scene) = Scene::new(1) else { return };
        let _moved = moved_ssh(&scene);
        let (config, included) = (scene.scratch.join("ssh config"), scene.scratch.join("included"));
        scene.ctl.put(format!("Include {included}\nHost *\n  ServerAliveInterval 5\n"), &config, 0o644);
        let alias = "Host far-away\n  HostName 10.77.0.12\n  Port 2222\n  HostKeyAlias db2\n";
        scene.ctl.put(alias, &included, 0o644);
        let option = format!("--ssh-config={config}");

        let ends = ["db1", "far-away"];
        let output = scene.transfer(ends, &[]).expect_code(4);
        assert!(output.stderr.contains("far-away: cannot connect with ssh"), "{output}");
        assert!(output.stderr.contains("try: ssh far-away true"), "{output}");
        scene.transfer(ends, &[&option]).expect_success();
        scene.take_copy();
        let status = scene.lab.transfer(&[&option, "status", "far-away"]).expect_success();
        assert_eq!(status.stdout, "far-away: no runs\n");
        let clean = scene.lab.transfer(&["clean", "far-away", &option]).expect_success();
        assert_eq!(clean.stdout, "far-away: nothing to undo\n");
        // What is to be tried is what was tried.
        let output = scene.transfer(["db1", "nowhere"], &[&option]).expect_code(4);
        assert!(output.stderr.contains(&format!("try: ssh -F '{config}' nowhere true")), "{output}");
    }

    #[test]
    fn options_of_ssh_reach_every_login_and_the_advice_that_is_given() {
        let Some(scene) = Scene::new(MORE_THAN_BUFFERS) else { return };
        let moved = moved_ssh(&scene);
        let config = scene.scratch.join("ssh config");
        scene.ctl.put("Host far-away\n  HostName db2\n", &config, 0o644);
        scene.ctl.sh(&format!("head -c {MORE_THAN_BUFFERS}M /dev/urandom >'{}'", scene.source));
        let login = [
            format!("--ssh-config={config}"),
            "--ssh-option=Port=2222".into(),
            "--ssh-option=HostKeyAlias=db2".into(),
        ];
        let login = login.each_ref().map(String::as_str);
        let target = format!("far-away:{}", scene.scratch.path());

        // From this machine, whose login needs no ssh.
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
        assert!(output.stderr.ends_with(&format!("to remove what is left: {advice}\n")), "{output}");

        scene.db2.boot();
        drop(moved);
        let _moved = moved_ssh(&scene);
        let status = scene.lab.transfer(&[&["status", "far-away"], &login[..]].concat()).expect_success();
        assert!(status.stdout.contains(&format!("; remove it: {advice}\n")), "{status}");
        // As it was advised, by a shell.
        let clean = scene.ctl.run(&["bash", "-c", &advice]).expect_success();
        assert!(clean.stdout.contains("far-away: undone: staging "), "{clean}");
        assert!(names(&scene.db2, scene.scratch.path()).is_empty());
    }

    // ------------------------------------------------------------------------------------------------------ addresses

    /// The hosts of numbers 11, 12 and 13 have addresses in another network, too.
    fn second_addresses(lab: &Lab) -> [Changed; 3] {
        [("db1", 11), ("db2", 12), ("db3", 13)].map(|(name, number)| {
            let each = |verb: &str, nodad: &str| {
                format!(
                    "ip address {verb} 10.88.0.{number}/24 dev e0; ip address {verb} fd88::{number}/64 dev e0 {nodad}"
                )
            };
            Changed::new(&lab.host(name), &each("add", "nodad"), &each("del", ""))
        })
    }

    #[test]
    fn data_goes_between_the_addresses_that_were_said_and_the_hole_is_for_them() {
        let Some(scene) = Scene::new(MORE_THAN_BUFFERS) else { return };
        let db3 = scene.lab.host("db3");
        let _addresses = second_addresses(&scene.lab);
        let _closed = [closed(&scene.db2), closed(&db3)];
        let third = format!("db3:{}", scene.scratch.path());
        for (ip, from, to, third_address) in [
            ("ip", "10.88.0.11", "10.88.0.12", "10.88.0.13"),
            // One that no route tells.
            ("ip", "10.77.0.11", "10.88.0.12", "10.88.0.13"),
            ("ip6", "fd88::11", "fd88::12", "fd88::13"),
        ] {
            let held = scene.held(
                ["db1", "db2"],
                &[
                    &third,
                    "--json",
                    &format!("--source-address={from}"),
                    &format!("--target-address=db2={to}"),
                    &format!("--target-address=db3={third_address}"),
                ],
            );
            let port = held.port();
            for (host, address) in [(&scene.db2, to), (&db3, third_address)] {
                let connections =
                    host.sh("ss -Htn state established '( sport >= :4400 and sport <= :4500 )'");
                let connections = connections.replace(['[', ']'], "");
                let expected = format!("{address}:{port}");
                assert!(
                    connections.contains(&expected) && connections.contains(&format!(" {from}:")),
                    "{connections}"
                );
                let rules = host.sh("nft list ruleset");
                assert!(rules.contains(&format!("{ip} saddr {from} tcp dport {port} accept")), "{rules}");
            }
            let output = held.go().expect_success();
            for address in [to, third_address] {
                assert!(output.stdout.contains(&format!(r#""address":"{address}""#)), "{output}");
            }
            assert_eq!(
                output.stdout.matches(&format!(r#""source_address":"{from}""#)).count(),
                2,
                "{output}"
            );
            scene.take_copy();
            db3.run(&["rm", &scene.source]).expect_success();
        }
    }

    #[test]
    fn every_netcat_sends_from_the_address_that_was_said() {
        let Some(scene) = Scene::new(1) else { return };
        let _addresses = second_addresses(&scene.lab);
        let _closed = closed(&scene.db2);
        for netcat in ["nc.openbsd", "nc.traditional", "ncat"] {
            let _netcat = Wrapper::new(&scene.db1, "nc", &format!("exec {netcat} \"$@\""));
            let said = ["--source-address=10.88.0.11", "--target-address=10.88.0.12"];
            scene.transfer(["db1", "db2"], &said).expect_success();
            scene.take_copy();
            // Without a target's address it is the one by which ssh reached it.
            scene.transfer(["db1", "db2"], &said[..1]).expect_success();
            scene.take_copy();
        }
    }

    #[test]
    fn an_address_that_a_host_does_not_have_is_refused_at_once_with_the_option_and_those_that_it_has() {
        let Some(scene) = Scene::new(1) else { return };
        for (option, host) in [("--source-address", "db1"), ("--target-address", "db2")] {
            for foreign in ["10.77.0.99", "192.0.2.1", "fd77::99"] {
                let began = Instant::now();
                let output = scene.transfer(["db1", "db2"], &[option, foreign]).expect_code(4);
                let told = format!("{host}: {option} {foreign} is no address of it (it has 10.77.0.1");
                assert!(output.stderr.contains(&told), "{output}");
                assert!(
                    output.stderr.contains("); give one that it has, or leave the option out"),
                    "{output}"
                );
                assert!(began.elapsed() < AT_ONCE, "took {:?}: {output}", began.elapsed());
            }
        }
        // Families that do not go together.
        let both = ["--source-address=fd77::11", "--target-address=10.77.0.12"];
        let output = scene.transfer(["db1", "db2"], &both).expect_code(4);
        assert!(
            output.stderr.contains("db2: no address of it is known by which the source can reach it"),
            "{output}"
        );
        assert!(names(&scene.db2, scene.scratch.path()).is_empty());
        scene.transfer(["db1", "db2"], &["--target-address=db2=fd77::12"]).expect_success();
        scene.take_copy();
    }

    // ----------------------------------------------------------------------------------------------- the old command line

    #[test]
    fn the_old_configuration_counts_where_there_is_none_of_ours() {
        let Some(scene) = Scene::new(1) else { return };
        let told = |options: &[&str]| {
            scene.transfer(["db1", "db2"], &[&["--dry-run"], options].concat()).expect_success()
        };
        let (old, ours) = ("/etc/transferpy/transferpy.conf", "/etc/transfer/transfer.conf");
        let _old = Changed::new(
            &scene.ctl,
            &format!(
                "mkdir /etc/transferpy; printf '[DEFAULT]\\nport = 4444\\ncompress = False\\nencrypt = no\\n' >{old}"
            ),
            "rm -r /etc/transferpy",
        );
        let output = told(&[]);
        assert!(output.stdout.contains(" 4444") && !output.stdout.contains("zstd"), "{output}");
        assert!(!output.stdout.contains("openssl enc"), "{output}");
        assert!(told(&["--port=4446"]).stdout.contains(" 4446"));
        {
            let _ours = Changed::new(
                &scene.ctl,
                &format!("mkdir /etc/transfer; echo 'port = 4445' >{ours}"),
                "rm -r /etc/transfer",
            );
            let output = told(&[]);
            assert!(output.stdout.contains(" 4445") && output.stdout.contains("zstd"), "{output}");
            assert!(output.stdout.contains("openssl enc"), "{output}");
            let output = told(&["--config", old]);
            assert!(output.stdout.contains(" 4444") && !output.stdout.contains("zstd"), "{output}");
        }
        let _wrong = Changed::new(&scene.ctl, &format!("echo 'ports = 1' >>{old}"), "true");
        let output = scene.transfer(["db1", "db2"], &[]).expect_code(2);
        assert!(output.stderr.contains(&format!("{old}: line 5 (ports): unknown key")), "{output}");
    }

    #[test]
    fn ports_that_transferpy_has_locked_are_left_to_it() {
        let Some(scene) = Scene::new(1) else { return };
        let lock = "/tmp/trnsfr_db2_4400.lock";
        let port = |options: &[&str]| scene.transfer(["db1", "db2"], &[&["--json"], options].concat());
        let _lock = Changed::new(&scene.db2, &format!("mkdir {lock}"), &format!("rmdir {lock}"));
        let output = port(&[]).expect_success();
        assert!(output.stdout.contains(r#""port":4401"#), "{output}");
        scene.take_copy();
        let output = port(&["--port=4400"]).expect_code(5);
        assert!(
            output.stderr.contains("db2: port 4400 is taken; choose another --port, or 0 for any"),
            "{output}"
        );
        assert_eq!(names(&scene.db2, "/tmp").iter().filter(|name| name.starts_with("trnsfr")).count(), 1);
    }

    // --------------------------------------------------------------------------------------------------- standing back

    #[test]
    fn our_programs_stand_back_and_use_as_many_processors_as_was_said_on_both_ends() {
        let Some(scene) = Scene::new(MORE_THAN_BUFFERS) else { return };
        let log = scene.scratch.join("xargs.log");
        let _xargs = [&scene.db1, &scene.db2]
            .map(|host| Wrapper::new(host, "xargs", &format!("echo \"$(nice) $*\" >>'{log}'")));
        let held = scene.held(["db1", "db2"], &["--nice=7", "--threads=1", "--compress=zstd"]);
        being_read(&scene.db1, scene.scratch.path());
        let ours = |host: &Host| -> Vec<(String, String)> {
            let all = host.sh("ps -ww -eo ni=,args=");
            let ours = all.lines().filter_map(|line| line.trim().split_once(' ')).filter(|(_, args)| {
                ["tar --", "zstd ", "openssl ", "nc ", "perl "]
                    .iter()
                    .any(|program| args.starts_with(program))
            });
            ours.map(|(nice, args)| (nice.to_owned(), args.to_owned())).collect()
        };
        // A host that a test has booted may stand back as a whole.
        let usual = |host: &Host| -> u8 { host.sh("ps -o ni= -p 1").trim().parse().expect("a number") };
        let back = |host: &Host| (usual(host) + 7).min(19).to_string();
        for (host, needed) in [
            (&scene.db1, ["tar --create", "zstd -q -1 -T1 -c", "openssl enc", "nc -n -N"]),
            (&scene.db2, ["tar --extract", "zstd -q -d -c", "openssl enc", "nc -n -d -l"]),
        ] {
            let running = ours(host);
            for program in needed {
                assert!(
                    running.iter().any(|(_, args)| args.starts_with(program)),
                    "no {program}: {running:?}"
                );
            }
            assert!(running.iter().all(|(nice, _)| *nice == back(host)), "{running:?}");
            // The guard itself has to be in time.
            let guards = host.sh("ps -ww -eo ni=,args= | grep -E ' bash --norc -p -s$'");
            assert!(
                guards.lines().all(|line| line.trim().starts_with(&format!("{} ", usual(host)))),
                "{guards}"
            );
            let disks = host.sh("for pid in $(pgrep -x 'tar|openssl'); do ionice -p $pid; done | sort -u");
            assert_eq!(disks, "best-effort: prio 7\n");
        }
        held.go().expect_success();
        scene.take_copy();
        for host in [&scene.db1, &scene.db2] {
            let calls = host.sh(&format!("cat '{log}'"));
            assert!(
                !calls.is_empty()
                    && calls
                        .lines()
                        .all(|line| line.starts_with(&format!("{} ", back(host))) && line.contains("-P 1 ")),
                "{calls}"
            );
        }
        // And not unless it was said.
        let held = scene.held(["db1", "db2"], &["--compress=zstd"]);
        being_read(&scene.db1, scene.scratch.path());
        assert!(
            [&scene.db1, &scene.db2]
                .iter()
                .all(|host| ours(host).iter().all(|(nice, _)| *nice == usual(host).to_string()))
        );
        held.go().expect_success();
    }

    // ------------------------------------------------------------------------------------------------------- preflight

    #[test]
    fn everything_that_stands_against_a_run_is_told_in_one_refusal_with_its_fixes() {
        let Some(scene) = Scene::new(2) else { return };
        let db3 = scene.lab.host("db3");
        let link = scene.scratch.join("link");
        scene.db1.run(&["ln", "-s", &scene.source, &link]).expect_success();
        scene.db2.put("mine", &link, 0o600);
        let small = scene.scratch.small_disk(&db3, "small", 64 << 10);
        db3.sh(&format!("mount -o remount,ro '{small}'"));
        let _missing =
            [Changed::without(&scene.db1, &["openssl"]), Changed::without(&scene.db2, &["zstd", "ss"])];
        let output = scene
            .lab
            .transfer(&[
                &format!("db1:{link}"),
                &format!("db2:{}", scene.scratch.path()),
                &format!("db3:{small}"),
                &format!("db3:{}", scene.scratch.join("nowhere")),
                "nosuchhost:/srv",
                "--compress=zstd",
                "--chown=nosuch",
            ])
            .expect_code(4);
        let told = [
            "db1: programs are missing: openssl; apt install openssl".to_owned(),
            format!("db1: {link} is a symbolic link; name what it points to: {}", scene.source),
            "db2: programs are missing: ss, zstd; apt install iproute2 zstd".to_owned(),
            format!("db2: {link} exists already; move it away"),
            "db2: there is no user nosuch for --chown".to_owned(),
            format!("db3: {small} is on a file system that is mounted read-only"),
            "db3: there is no user nosuch for --chown".to_owned(),
            format!("db3: {0} does not exist; mkdir {0}", scene.scratch.join("nowhere")),
            "nosuchhost: cannot connect with ssh".to_owned(),
        ];
        for text in &told {
            assert!(output.stderr.contains(text), "no '{text}': {output}");
        }
        assert_eq!(output.stderr.matches("refused, nothing was changed").count(), 1, "{output}");
        assert_eq!(
            output.stderr.lines().filter(|line| line.starts_with("  ")).count(),
            told.len(),
            "{output}"
        );
        assert_eq!(names(&scene.db2, scene.scratch.path()), ["link"]);
        assert!(names(&db3, &small).is_empty());
        for host in [&scene.db1, &scene.db2, &db3] {
            assert!(!host.run(&["test", "-e", "/var/lib/transfer"]).status.success());
        }
    }
}
