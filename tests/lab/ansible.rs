//! The Ansible module and the role of `contrib/ansible`, with Debian's ansible-core on the controller.

use std::process::Command;
use std::time::Duration;

use crate::support::commands::Invocation;
use crate::support::copies::{assert_same, make_random};
use crate::support::every_kind::make_every_kind;
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::hosts::{Host, Lab};
use crate::support::scenes::SOON;
use crate::support::scratch::Scratch;
use crate::support::trees::names;
use crate::support::waiting::eventually;

const CONTRIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/ansible");
/// Limit for a run to end when its play is gone: less than any timeout of its own.
const AT_ONCE: Duration = Duration::from_secs(30);

/// A controller that runs plays, in a directory of the test, which is `dir` in the plays.
struct Stage {
    lab: Lab,
    ctl: Host,
    scratch: Scratch,
}

impl Stage {
    fn set() -> Option<Self> {
        let lab = Lab::get()?;
        let ctl = lab.host("ctl");
        let scratch = lab.scratch(&["ctl", "db1", "db2", "db3"]);
        lab.transfer(&["--version"]).expect_success();
        let tar = Command::new("tar").args(["-C", CONTRIB, "-c", "."]).output().expect("no tar");
        let home = scratch.join("contrib");
        ctl.command(&["sh", "-c", r#"mkdir "$1" && tar -C "$1" -x"#, "sh", &home])
            .stdin(tar.stdout)
            .run()
            .expect_success();
        let inventory = "[controllers]\nctl ansible_connection=local\n[distant]\nafar ansible_host=ctl\n[sites]\ndb1\ndb2\n[all:vars]\n\
             ansible_python_interpreter=/usr/bin/python3\n";
        ctl.put(inventory, &scratch.join("inventory"), 0o644);
        Some(Self { lab, ctl, scratch })
    }

    /// Returns the path of an entry of the directory.
    fn join(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    /// Returns a command of Ansible that writes nothing outside of the directory.
    fn ansible(&self, args: &[&str]) -> Invocation {
        self.ctl
            .command(args)
            .env("ANSIBLE_HOME", &self.join("home"))
            .env("TMPDIR", self.scratch.path())
            .env("ANSIBLE_REMOTE_TEMP", &self.join("tmp"))
            .env("ANSIBLE_ASYNC_DIR", &self.join("async"))
            .env("ANSIBLE_LIBRARY", &self.join("contrib/library"))
            .env("ANSIBLE_ROLES_PATH", &self.join("contrib/roles"))
            .env("ANSIBLE_NOCOLOR", "1")
            // Starts fewer processes.
            .env("ANSIBLE_PIPELINING", "1")
            // Connections end with their play.
            .env("ANSIBLE_SSH_ARGS", "-o ControlMaster=no")
    }

    /// Returns a play of these tasks; `what` has the keywords of the play.
    fn play(&self, what: &str, tasks: &str, args: &[&str]) -> Invocation {
        let play = self.join("play.yml");
        // A killed module leaves files in the directory for temporary files, which is removed with that of
        // the test.
        let home = format!("  environment: {{TMPDIR: '{}'}}", self.scratch.path());
        self.ctl.put(format!("- gather_facts: false\n{what}\n{home}\n  tasks:\n{tasks}"), &play, 0o644);
        self.playbook(&play, args)
    }

    fn playbook(&self, play: &str, args: &[&str]) -> Invocation {
        let (inventory, dir) = (self.join("inventory"), format!("dir={}", self.scratch.path()));
        self.ansible(&[&["ansible-playbook", "-i", &inventory, "-e", &dir, play][..], args].concat())
    }

    /// Runs tasks on the controller.
    #[track_caller]
    fn tasks(&self, tasks: &str) {
        self.play("  hosts: controllers", tasks, &[]).run().expect_success();
    }
}

#[test]
fn play_is_idempotent_and_supports_check_mode() {
    let Some(stage) = Stage::set() else { return };
    let [db1, db2] = ["db1", "db2"].map(|name| stage.lab.host(name));
    let (source, copy) = (stage.join("data"), stage.join("in/data"));
    make_every_kind(&db1, &source);
    db2.run(&["mkdir", &stage.join("in")]).expect_success();
    stage.tasks(
        r#"
    - transfer: &copy
        source: db1:{{ dir }}/data
        targets: db2:{{ dir }}/in
        options: {lease_time: 30, chown: null, nice: 5, encrypt: false, ignore_changed: false, ssh_option: {Port: 22}}
      check_mode: true
      diff: true
      register: asked
    - ansible.builtin.command: ssh db2 ls -A {{ dir }}/in
      register: listing
    - transfer: *copy
      register: first
    - ansible.builtin.command: &look ssh db2 stat -c %i-%Z {{ dir }}/in/data
      register: before
    - transfer: *copy
      register: second
    - transfer: *copy
      check_mode: true
      diff: true
      register: third
    - ansible.builtin.command: *look
      register: after
    - ansible.builtin.assert:
        that:
          - asked is changed and asked.exit_code == 0 and asked.transferred == ['db2:' + dir + '/in']
          - asked.plan.hosts | map(attribute='host') | list == ['db2', 'db1']
          - "'no-encrypt' in (asked.command | join(' ')) and 'openssl enc' not in asked.diff.prepared"
          - "'rename ' in asked.diff.prepared and 'rm -rf ' in asked.diff.prepared"
          - listing.stdout == ''
          - first is changed and first.exit_name == 'done' and first.present == []
          - first.report.targets[0]['copy'].files_compared.files > 0
          - second is not changed and second.exit_code == 0 and second.transferred == []
          - second.present == ['db2:' + dir + '/in'] and before.stdout == after.stdout
          - third is not changed and third.plan is none and third.diff is not defined
    - transfer:
        source: db1:{{ dir }}/data
        targets: ['db2:{{ dir }}/in']
        options: {replace: true}
      register: replaced
    - ansible.builtin.command: *look
      register: after
    - ansible.builtin.assert:
        that: replaced is changed and replaced.present == [] and before.stdout != after.stdout
"#,
    );
    assert_same((&db1, &source), (&db2, &copy));
}

#[test]
fn play_copies_only_to_hosts_without_the_copy() {
    let Some(stage) = Stage::set() else { return };
    stage
        .lab
        .host("db1")
        .sh(&format!("mkdir '{0}'; head -c 1M /dev/urandom >'{0}/file'", stage.join("data")));
    // Full of the first copy: there is no space for another one, and none is needed.
    let full = stage.scratch.small_disk(&stage.lab.host("db2"), "in", 1 << 20);
    stage.lab.host("db2").sh(&format!("mkdir '{full}/data'; head -c 900K /dev/urandom >'{full}/data/file'"));
    stage.lab.host("db3").run(&["mkdir", &stage.join("in")]).expect_success();
    stage.tasks(
        r"
    - transfer: &copy
        source: db1:{{ dir }}/data
        targets: ['db[2-3]:{{ dir }}/in']
      check_mode: true
      register: asked
    - transfer: *copy
      register: first
    - ansible.builtin.command: ssh db1 mv {{ dir }}/data {{ dir }}/gone
    - transfer: *copy
      register: second
    - vars:
        two: 'db2:{{ dir }}/in'
        three: 'db3:{{ dir }}/in'
      ansible.builtin.assert:
        that:
          - asked is changed and asked.transferred == [three] and asked.present == [two]
          - asked.plan.hosts | map(attribute='host') | list == ['db3', 'db1']
          - first is changed and first.transferred == [three] and first.present == [two]
          - second is not changed and second.present == [two, three]
",
    );
    assert_eq!(names(&stage.lab.host("db3"), &stage.join("in/data")), ["file"]);
}

/// Reports that cannot be provoked quickly in the lab.
const STAND_IN: &str = r#"#!/bin/sh
case $* in
*--dry-run*) exec transfer "$@" ;;
*killed*) kill -KILL $$ ;;
*different*)
    printf '%s' '{"version":2,"event":"report","exit":3,"error":null,"run":"20261122-024951-313bc1","findings":[],' \
        '"leftovers":[],"targets":[{"host":"db2","path":"/srv","status":"failed","exit":3,"error":"file differs"}]}'
    exit 3
    ;;
esac
"#;

#[test]
fn module_names_every_exit_code() {
    let Some(stage) = Stage::set() else { return };
    let [db1, db2] = ["db1", "db2"].map(|name| stage.lab.host(name));
    for name in ["data", "killed", "different"] {
        db1.run(&["mkdir", &stage.join(name)]).expect_success();
    }
    db2.run(&["mkdir", &stage.join("in")]).expect_success();
    stage.ctl.put(STAND_IN, &stage.join("stand-in"), 0o755);
    stage.tasks(
        r#"
    - vars:
        targets: ['db2:{{ dir }}/in']
      block:
        - {ignore_errors: true, register: failed, transfer: {source: 'db1:{{ dir }}/data', targets: '{{ targets }}',
           options: {hook: {before-source: 'exit 7'}}}}
        - {ignore_errors: true, register: usage, transfer: {source: 'db1:{{ dir }}/data', targets: '{{ targets }}',
           options: {bogus: [1, true]}}}
        - {ignore_errors: true, register: different, transfer: {source: 'db1:{{ dir }}/different',
           targets: '{{ targets }}', executable: '{{ dir }}/stand-in'}}
        - {ignore_errors: true, register: refused, transfer: {source: 'db1:{{ dir }}/nothing', targets: '{{ targets }}'}}
        - {ignore_errors: true, register: asked, check_mode: true, transfer: {source: 'db1:{{ dir }}/nothing',
           targets: '{{ targets }}'}}
        - {ignore_errors: true, register: left, transfer: {source: 'db1:{{ dir }}/data', targets: '{{ targets }}',
           options: {hook: ['after-source=test -e {{ dir }}/mended']}}}
        - {ignore_errors: true, register: killed, transfer: {source: 'db1:{{ dir }}/killed', targets: '{{ targets }}',
           executable: '{{ dir }}/stand-in'}}
        - {ignore_errors: true, register: nobody, transfer: {source: 'nohost:/srv', targets: '{{ targets }}'}}
        - {ignore_errors: true, register: missing, transfer: {source: /srv, targets: '{{ targets }}', executable: no}}
        - {ignore_errors: true, register: reserved, transfer: {source: /srv, targets: '{{ targets }}',
           options: {dry_run: true}}}
        - ansible.builtin.assert:
            that:
              - failed is failed and failed.exit_code == 1 and failed.exit_name == 'failed' and failed is not changed
              - "'exit 7' in failed.msg or 'before-source' in failed.msg"
              - usage is failed and usage.exit_code == 2 and usage.exit_name == 'usage' and '--bogus' in usage.msg
              - different is failed and different.exit_code == 3 and different.exit_name == 'verification_failed'
              - "different.msg == 'db2:/srv: file differs'"
              - refused is failed and refused.exit_code == 4 and refused.exit_name == 'refused'
              - "'db1: ' + dir + '/nothing does not exist; check the path' in refused.msg.splitlines()"
              - refused.report.exit == 4 and asked is failed and asked.exit_code == 4 and asked.plan is none
              - left is failed and left is changed and left.exit_code == 6 and left.exit_name == 'leftovers'
              - left.transferred == targets and left.clean_command == 'transfer clean --start-servers db1'
              - killed is failed and killed.exit_code == 137 and killed.exit_name == 'killed'
              - nobody is failed and nobody.exit_code == 4 and 'ssh -o BatchMode=yes nohost true' in nobody.msg
              - missing is failed and missing.exit_code is none and 'install the package' in missing.msg
              - reserved is failed and 'check mode' in reserved.msg
        - ansible.builtin.command: ssh db1 touch {{ dir }}/mended
        - ansible.builtin.command: "{{ left.clean_command }}"
"#,
    );
}

#[test]
fn play_waits_for_busy_name() {
    let Some(stage) = Stage::set() else { return };
    let [db1, db2] = ["db1", "db2"].map(|name| stage.lab.host(name));
    make_random(&db1, &stage.join("data"), MORE_THAN_BUFFERS);
    let place = stage.join("in");
    db2.run(&["mkdir", &place]).expect_success();
    let args = [format!("db1:{}", stage.join("data")), format!("db2:{place}")];
    let held = Held::start(&stage.lab, &[&args[0], &args[1]], &db2, &place);
    let tasks = r"
    - transfer:
        source: db1:{{ dir }}/data
        targets: ['db2:{{ dir }}/in']
        executable: '{{ dir }}/counted'
      register: copy
      until: copy.exit_code != 5
      retries: 60
      delay: 1
    - ansible.builtin.assert:
        that: copy is not changed and copy.attempts > 1 and copy.exit_name == 'done'
";
    // Ansible reports a retry only at the end.
    let counted = format!("#!/bin/sh\necho \"$@\" >>'{}'\nexec transfer \"$@\"\n", stage.join("tries"));
    stage.ctl.put(counted, &stage.join("counted"), 0o755);
    let mut play = stage.play("  hosts: controllers", tasks, &[]).spawn();
    // The first play has a dry run and a busy one; the second one starts a run.
    let tries = format!("[[ $(wc -l <'{}') -gt 2 ]]", stage.join("tries"));
    let again = eventually(SOON, || stage.ctl.run(&["bash", "-c", &tries]).status.success());
    assert!(again && play.is_running(), "there is no second try: {}", play.wait());
    held.go().expect_success();
    play.wait().expect_success();
}

#[test]
fn run_ends_with_its_play_or_async_task() {
    let Some(stage) = Stage::set() else { return };
    let [db1, db2] = ["db1", "db2"].map(|name| stage.lab.host(name));
    db1.run(&["mkdir", &stage.join("data"), &stage.join("begun")]).expect_success();
    db2.run(&["mkdir", &stage.join("in")]).expect_success();
    let tasks = r"
    - transfer:
        source: db1:{{ dir }}/data
        targets: ['db2:{{ dir }}/in']
        options:
          lease_time: 1h
          hook: {before-source: 'touch {{ dir }}/begun/{{ way }}; until [ -e {{ dir }}/go ]; do sleep 0.1; done'}
      async: '{{ background | int }}'
      poll: 1
";
    let runs = |host: &Host| host.run(&["pgrep", "-f", &stage.join("data")]).status.success();
    // A lost terminal, a pipe without a reader, a timeout of Ansible's, and a process that outlives its play.
    for (way, pipelining, background) in
        [("terminal", "0", 0), ("pipe", "1", 0), ("time", "1", 600), ("background", "1", 600)]
    {
        let vars = format!("way={way} background={background}");
        let begun = stage.join(&format!("begun/{way}"));
        let play = stage
            .play("  hosts: distant", tasks, &["-e", &vars])
            .env("ANSIBLE_PIPELINING", pipelining)
            .in_script(&format!("echo $$ >'{}'; exec \"$0\" \"$@\"", stage.join("pid")))
            .spawn();
        let has_begun = eventually(SOON, || db1.run(&["test", "-e", &begun]).status.success());
        assert!(has_begun && runs(&stage.ctl), "it does not begin: {}", play.wait());
        // Including its workers and its ssh.
        stage.ctl.sh(&format!(
            "all() {{ for pid in $(pgrep -P $1); do all $pid; done; echo $1; }}
             kill -KILL $(all $(cat '{}'))",
            stage.join("pid")
        ));
        drop(play);
        if way == "time" {
            let module =
                format!("kill -KILL $(ps -o ppid= -p $(pgrep -f '^transfer .*{}'))", stage.join("data"));
            stage.ctl.sh(&module);
        }
        if way == "background" {
            db1.run(&["touch", &stage.join("go")]).expect_success();
            let copied = eventually(SOON, || names(&db2, &stage.join("in")) == ["data"] && !runs(&stage.ctl));
            assert!(copied, "it does not go on in the background");
            continue;
        }
        let ended =
            eventually(AT_ONCE, || !runs(&stage.ctl) && !db1.run(&["pgrep", "-f", &begun]).status.success());
        assert!(ended, "{way}: the run continues");
        assert!(names(&db2, &stage.join("in")).is_empty());
    }
}

const ROLE: &str = r#"
- hosts: controllers
  gather_facts: false
  roles:
    - role: transfer
      vars:
        transfer_install: false
        transfer_config_file: "{{ dir }}/etc/transfer.conf"
        transfer_config:
          exclude: ["*.err", "/\"odd\" \\ grün"]
          lease_time: 20s
          compress_level: 2
          parallel_checksum: true
          hook: {after_controller: ["true", "touch '{{ dir }}/hook'"]}
          profile: {wan: {compress: zstd}}
        transfer_runs:
          - source: db1:{{ dir }}/one
            targets: ["db{2,3}:{{ dir }}"]
          - source: db1:{{ dir }}/two
            targets: ["db2:{{ dir }}"]
            options: {profile: wan}
        transfer_async: 600
        transfer_poll: 1
"#;

#[test]
fn role_configures_validates_and_transfers() {
    let Some(stage) = Stage::set() else { return };
    let [db1, db2, db3] = ["db1", "db2", "db3"].map(|name| stage.lab.host(name));
    db1.sh(&format!("cd '{}'; mkdir one two; touch one/file one/x.err two/file", stage.scratch.path()));
    let play = stage.join("role.yml");
    stage.ctl.put(ROLE, &play, 0o644);
    let changes = |args: &[&str]| {
        let output = stage.playbook(&play, args).run().expect_success();
        let changed = output.stdout.split("changed=").nth(1).expect("a recap").split(' ').next();
        changed.expect("a number").parse::<u32>().expect("a number")
    };
    assert_eq!(changes(&["--check"]), 2);
    assert!(names(&db2, &stage.join("")).is_empty());
    assert_eq!(changes(&[]), 3);
    assert_eq!(names(&db2, &stage.join("")), ["one", "two"]);
    assert_eq!(names(&db3, &stage.join("one")), ["file"]);
    stage.ctl.run(&["test", "-e", &stage.join("hook")]).expect_success();
    assert_eq!(changes(&[]), 0);

    let conf = stage.join("etc/transfer.conf");
    let before = stage.ctl.sh(&format!("cat '{conf}'"));
    let wrong = r#"{"transfer_config": {"bogus": 1}, "transfer_runs": []}"#;
    let output = stage.playbook(&play, &["-e", wrong]).run().expect_code(2);
    assert!(output.stdout.contains("bogus"), "{output}");
    assert_eq!(stage.ctl.sh(&format!("cat '{conf}'")), before);
}

#[test]
fn play_drives_many_controllers() {
    let Some(stage) = Stage::set() else { return };
    let hosts = ["db1", "db2"].map(|name| stage.lab.host(name));
    for host in &hosts {
        host.sh(&format!("cd '{}'; mkdir data in; hostname >data/name", stage.scratch.path()));
    }
    stage.ctl.sh(&format!(
        "for host in db1 db2; do
             for file in transfer transfer-agent; do
                 ssh $host 'cat >{0}/'$file'; chmod 755 {0}/'$file </usr/local/bin/$file
             done
         done",
        stage.scratch.path()
    ));
    let tasks = r#"
    - transfer:
        source: "{{ dir }}/data"
        targets: ["{{ dir }}/in"]
        executable: "{{ dir }}/transfer"
      register: copy
    - ansible.builtin.assert:
        that: copy is changed and copy.transferred == ['localhost:' + dir + '/in']
"#;
    stage.play("  hosts: sites", tasks, &[]).run().expect_success();
    for host in &hosts {
        assert_same((host, &stage.join("data")), (host, &stage.join("in/data")));
    }
}

#[test]
fn module_documentation_and_options_are_complete() {
    let Some(stage) = Stage::set() else { return };
    let shown = stage.ansible(&["ansible-doc", "-t", "module", "transfer"]).run().expect_success();
    for word in ["EXAMPLES:", "RETURN VALUES:", "clean_command"] {
        assert!(shown.stdout.contains(word), "no {word} in {shown}");
    }
    let files = stage.ctl.sh(&format!("ls '{0}'/*.yml", stage.join("contrib/plays")));
    let args = ["ansible-playbook", "--syntax-check", "-i", &stage.join("inventory")].map(ToOwned::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(files.lines()).collect();
    stage.ansible(&args).run().expect_success();

    let help = stage.lab.transfer(&["--help"]).expect_success().stdout;
    let mut pairs: Vec<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--no-"))
        .filter(|rest| !rest.is_empty())
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let pairs: Vec<String> = pairs.iter().map(|name| format!("'{name}'")).collect();
    let module = std::fs::read_to_string(format!("{CONTRIB}/library/transfer.py")).expect("the module");
    let line = format!("PAIRS = ({})\n", pairs.join(", "));
    assert!(module.contains(&line), "the module has not: {line}");
}
