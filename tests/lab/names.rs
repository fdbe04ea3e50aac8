//! The final name: what is under it at every moment of a publication, who may write to it, what stays of a run that fails,
//! and what a run makes of changes under its eyes.
//!
//! Programs of a host are replaced for a while, so all of these tests are in a module `alone`.

mod alone {
    use crate::fixtures::{
        Held, MORE_THAN_BUFFERS, OLD, SOON, Wrapper, assert_same, being_read, is_old, make_random, names,
    };
    use crate::harness::{Host, Lab, Output, Running, Scratch, eventually};
    use crate::processes;

    /// db1 has a tree `data`, db2 a directory `in` with an older one of that name.
    struct Scene {
        lab: Lab,
        db1: Host,
        db2: Host,
        scratch: Scratch,
    }

    impl Scene {
        fn set() -> Option<Self> {
            let lab = Lab::get()?;
            let (db1, db2) = (lab.host("db1"), lab.host("db2"));
            let scratch = lab.scratch(&["db1", "db2"]);
            let scene = Self { lab, db1, db2, scratch };
            scene.db1.sh(&format!(
                "mkdir -p {0}/dir; echo new >{0}/file; head -c 100000 /dev/urandom >{0}/dir/more",
                scene.at("data")
            ));
            scene.reset();
            Some(scene)
        }

        /// The same with a source that does not fit into the buffers between the hosts, and nothing on the target.
        fn set_large() -> Option<Self> {
            let scene = Self::set()?;
            make_random(&scene.db1, &scene.at("data/large"), MORE_THAN_BUFFERS);
            scene.db2.sh(&format!("rm -r {}/*", scene.at("in")));
            Some(scene)
        }

        fn at(&self, name: &str) -> String {
            self.scratch.join(name)
        }

        /// The target as it was in the beginning.
        fn reset(&self) {
            let (directory, gate) = (self.at("in"), self.at("gate"));
            self.db2.sh(&format!("rm -rf {directory} {gate}; mkdir {gate}; set -- {directory}/data; {OLD}"));
        }

        fn args(&self, options: &[&str]) -> Vec<String> {
            let ends = [format!("db1:{}", self.at("data")), format!("db2:{}", self.at("in"))];
            ends.into_iter().chain(options.iter().map(ToString::to_string)).collect()
        }

        fn spawn(&self, options: &[&str]) -> Running {
            let args = self.args(options);
            self.lab.transfer_spawn(&args.iter().map(String::as_str).collect::<Vec<_>>())
        }

        fn transfer(&self, options: &[&str]) -> Output {
            self.spawn(options).wait()
        }

        /// Starts a run, into the empty directory, that stands still in mid-stream.
        fn held(&self, options: &[&str]) -> Held {
            let args = self.args(options);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let held = Held::start(&self.lab, &args, &self.db2, &self.at("in"));
            held.port();
            held
        }

        /// What is in the target directory.
        fn names(&self) -> Vec<String> {
            names(&self.db2, &self.at("in"))
        }

        /// Whether a tree of the target is the older one, of which every file counts.
        fn is_old(&self, path: &str) -> bool {
            is_old(&self.db2, &self.at(path), &self.at("gate/old"))
        }

        /// Nothing but the older tree is in the target directory.
        #[track_caller]
        fn expect_untouched(&self) {
            assert_eq!(self.names(), ["data"]);
            assert!(self.is_old("in/data"), "the old one is not what it was");
            self.expect_no_runs();
        }

        #[track_caller]
        fn expect_no_runs(&self) {
            let status = self.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
            assert_eq!(status, "db1: no runs\ndb2: no runs\n");
            self.db2.sh("[[ ! -e /run/transfer && ! -e /var/lib/transfer ]]");
        }

        /// Waits until nobody is at work any more.
        #[track_caller]
        fn await_undone(&self) {
            for (host, name) in [(&self.db1, "db1"), (&self.db2, "db2")] {
                let undone = || host.run(&["test", "!", "-e", "/var/lib/transfer"]).status.success();
                assert!(eventually(SOON, undone), "not undone on {name}");
            }
        }

        #[track_caller]
        fn expect_copied(&self, path: &str) {
            self.db2.sh(&format!("mv {} {}", self.at(path), self.at("data")));
            assert_same((&self.db1, &self.at("data")), (&self.db2, &self.at("data")));
            self.db2.sh(&format!("mv {} {}", self.at("data"), self.at(path)));
        }
    }

    /// A step of a publication at which a run is held, once, and then everything that the test does to it happens.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Moment {
        BeforeTheExchange,
        AfterTheExchange,
        WhileTheOldOneIsRemoved,
        AfterTheRecord,
        AfterTheFirstRename,
        AfterTheExchangeThatKeeps,
    }

    const MOMENTS: [Moment; 6] = [
        Moment::BeforeTheExchange,
        Moment::AfterTheExchange,
        Moment::WhileTheOldOneIsRemoved,
        Moment::AfterTheRecord,
        Moment::AfterTheFirstRename,
        Moment::AfterTheExchangeThatKeeps,
    ];

    impl Moment {
        fn keeps(self) -> bool {
            matches!(self, Self::AfterTheRecord | Self::AfterTheFirstRename | Self::AfterTheExchangeThatKeeps)
        }

        fn options(self) -> &'static [&'static str] {
            if self.keeps() { &["--replace", "--keep-old"] } else { &["--replace"] }
        }

        /// The copy has its name by then.
        fn is_published(self) -> bool {
            !matches!(self, Self::BeforeTheExchange | Self::AfterTheRecord | Self::AfterTheFirstRename)
        }

        /// The program that is held there, when, and whether before it does its work.
        fn hold(self) -> (&'static str, &'static str, bool) {
            let exchange = "${4-} == 2 && ${6-} == */in/data";
            let first = "${4-} == 1 && ${6-} == */in/data.old-*";
            match self {
                Self::BeforeTheExchange => ("perl", exchange, true),
                Self::AfterTheExchange | Self::AfterTheExchangeThatKeeps => ("perl", exchange, false),
                Self::WhileTheOldOneIsRemoved => ("rm", "$* == *--one-file-system*", true),
                Self::AfterTheRecord => ("perl", first, true),
                Self::AfterTheFirstRename => ("perl", first, false),
            }
        }

        /// Puts the program that holds a run at this moment in place, for the next run only.
        fn arm(self, scene: &Scene) -> Wrapper {
            let gate = scene.at("gate");
            let (program, condition, before) = self.hold();
            // What is removed is not whole any more by then.
            let begun = if program == "rm" { "$real -f \"${@: -1}/one\"" } else { ":" };
            let hold = format!("mv {gate}/armed {gate}/held; until [[ -e {gate}/go ]]; do sleep 0.02; done");
            let script = if before {
                format!("{begun}; {hold}")
            } else {
                format!("\"$real\" \"$@\"; status=$?; {hold}; exit $status")
            };
            scene.db2.sh(&format!("touch {gate}/armed"));
            Wrapper::new(
                &scene.db2,
                program,
                &format!("if [[ -e {gate}/armed && {condition} ]]; then {script}; fi"),
            )
        }
    }

    /// Who goes at the moment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Death {
        Controller,
        /// What it had begun is done nevertheless, before the sentinel acts.
        Guard,
        /// And what it had begun.
        GuardAndEffects,
        /// And the sentinel: the controller is left.
        Keepers,
        /// And the controller: nobody is left.
        All,
        Host,
    }

    /// The processes of a run that may write to its journal, the guard and its effects, or that wait for it, the
    /// sentinel: in all cases those that have it open, in one of two ways.
    const KEEPERS: &str = r#"
        keepers() {
            local pid
            for pid in $(of 9 "$home/journal"); do
                if [[ $(awk '/^flags/ { print $2 }' "/proc/$pid/fdinfo/9") == *[$1] ]]; then echo "$pid"; fi
            done
        }
        end() { kill -STOP $1 || :; kill -KILL $1 || :; }
    "#;

    impl Death {
        fn strike(self, scene: &Scene, run: &Running) {
            let end = |whom: &str| {
                processes::sh(&scene.db2, &format!("{KEEPERS} found=$({whom}); end \"${{found:?}}\""));
            };
            match self {
                Self::Controller => run.signal("KILL"),
                Self::Guard => end("guard"),
                Self::GuardAndEffects => end("keepers 1"),
                Self::Keepers => end("keepers 01"),
                Self::All => {
                    run.signal("STOP");
                    end("keepers 01");
                    run.signal("KILL");
                }
                Self::Host => scene.db2.crash(),
            }
        }

        /// What was begun is done.
        fn leaves_effects(self) -> bool {
            matches!(self, Self::Controller | Self::Guard)
        }
    }

    fn dies_at_every_moment(death: Death) {
        let Some(scene) = Scene::set() else { return };
        for moment in MOMENTS {
            println!("{death:?} dies {moment:?}");
            scene.reset();
            let wrapper = moment.arm(&scene);
            let run = scene.spawn(moment.options());
            let held = || scene.db2.run(&["test", "-e", &scene.at("gate/held")]).status.success();
            assert!(eventually(SOON, held), "the moment does not come");
            // Not one moment without the whole of one of them.
            if moment.is_published() {
                scene.expect_copied("in/data");
            } else {
                assert!(scene.is_old("in/data"), "{moment:?}");
            }
            death.strike(&scene, &run);
            scene.db2.run(&["touch", &scene.at("gate/go")]);
            match death {
                Death::Controller => drop(run),
                Death::Guard | Death::GuardAndEffects | Death::Keepers => {
                    let output = run.wait();
                    // What was told before is not taken back.
                    let code = i32::from(moment != Moment::WhileTheOldOneIsRemoved);
                    output.expect_code(code);
                }
                Death::All | Death::Host => {
                    drop(run);
                    if death == Death::Host {
                        scene.db2.boot();
                    }
                    let status = scene.lab.transfer(&["status", "db2"]).expect_success().stdout;
                    assert!(status.contains("db2: dead "), "{status}");
                    scene.lab.transfer(&["clean", "db2"]).expect_success();
                }
            }
            scene.await_undone();
            let all = scene.names();
            if moment.is_published() || death.leaves_effects() {
                scene.expect_copied("in/data");
                let old: Vec<_> = all.iter().filter(|name| name.starts_with("data.old-20")).collect();
                assert_eq!((all.len(), old.len()), (1 + old.len(), usize::from(moment.keeps())), "{all:?}");
                if let [old] = *old {
                    assert!(scene.is_old(&format!("in/{old}")));
                }
            } else {
                assert_eq!(all, ["data"]);
                assert!(scene.is_old("in/data"));
            }
            scene.expect_no_runs();
            drop(wrapper);
            scene.transfer(moment.options()).expect_success();
            scene.expect_copied("in/data");
            scene.expect_no_runs();
        }
    }

    #[test]
    fn a_controller_that_dies_at_any_moment_of_a_replacement_leaves_the_old_or_the_new_one() {
        dies_at_every_moment(Death::Controller);
    }

    #[test]
    fn a_guard_that_dies_at_any_moment_of_a_replacement_leaves_the_old_or_the_new_one() {
        dies_at_every_moment(Death::Guard);
    }

    #[test]
    fn a_guard_that_dies_with_its_effects_at_any_moment_of_a_replacement_leaves_the_old_or_the_new_one() {
        dies_at_every_moment(Death::GuardAndEffects);
    }

    #[test]
    fn a_guard_that_dies_with_its_sentinel_at_any_moment_of_a_replacement_leaves_the_old_or_the_new_one() {
        dies_at_every_moment(Death::Keepers);
    }

    #[test]
    fn all_that_die_at_any_moment_of_a_replacement_leave_the_old_or_the_new_one_and_the_rest_is_cleaned() {
        dies_at_every_moment(Death::All);
    }

    #[test]
    fn a_host_that_crashes_at_any_moment_of_a_replacement_has_the_old_or_the_new_one_and_the_rest_is_cleaned()
    {
        dies_at_every_moment(Death::Host);
    }

    impl Scene {
        /// A command that mounts a directory, with a file that is precious, into the older tree.
        fn mount(&self, at: &str) -> String {
            let (precious, at) = (self.at("precious"), self.at(at));
            format!("mkdir -p {precious}; echo precious >{precious}/file; mount --bind {precious} {at}")
        }

        #[track_caller]
        fn expect_precious(&self) {
            assert_eq!(self.db2.sh(&format!("cat {}", self.at("precious/file"))), "precious\n");
        }

        fn unmount(&self, at: &str) {
            self.db2.sh(&format!("umount {}", self.at(at)));
        }
    }

    #[test]
    fn what_is_mounted_at_or_below_the_old_one_refuses_the_run() {
        let Some(scene) = Scene::set() else { return };
        for at in ["in/data", "in/data/sub"] {
            scene.db2.sh(&scene.mount(at));
            for options in [&["--replace"][..], &["--replace", "--keep-old"]] {
                let output = scene.transfer(options).expect_code(4);
                assert!(output.stderr.contains("something is mounted at "), "{output}");
            }
            scene.expect_precious();
            scene.unmount(at);
            scene.expect_untouched();
        }
    }

    #[test]
    fn what_is_mounted_into_the_old_one_meanwhile_fails_the_publication_and_is_left_alone() {
        let Some(scene) = Scene::set() else { return };
        for at in ["in/data", "in/data/sub"] {
            let script = format!("[[ $* == *--extract* ]] && {{ {}; }}", scene.mount(at));
            let _tar = Wrapper::new(&scene.db2, "tar", &script);
            for options in [&["--replace"][..], &["--replace", "--keep-old"]] {
                let output = scene.transfer(options).expect_code(1);
                // What is mounted at the name itself is another directory than the old one.
                let told =
                    if at == "in/data" { "is left as it is" } else { "something is mounted at or below " };
                assert!(output.stderr.contains(told), "{output}");
                scene.expect_precious();
                scene.unmount(at);
                scene.expect_untouched();
            }
        }
    }

    #[test]
    fn what_is_mounted_into_the_old_one_at_the_last_moment_is_left_behind_and_not_emptied() {
        let Some(scene) = Scene::set() else { return };
        let script =
            format!("[[ ${{4-}} == 2 && ${{6-}} == */in/data ]] && {{ {}; }}", scene.mount("in/data/sub"));
        let wrapper = Wrapper::new(&scene.db2, "perl", &script);
        let output = scene.transfer(&["--replace"]).expect_code(6);
        assert!(output.stderr.contains("LEFT BEHIND: could not be undone: staging "), "{output}");
        drop(wrapper);
        scene.expect_precious();
        scene.expect_copied("in/data");
        scene.lab.transfer(&["clean", "db2"]).expect_code(6);
        scene.expect_precious();
        scene.db2.sh(&format!("umount {}/.transfer-*/data/sub", scene.at("in")));
        scene.lab.transfer(&["clean", "db2"]).expect_success();
        assert_eq!(scene.names(), ["data"]);
        scene.expect_no_runs();
    }

    #[test]
    fn a_link_to_where_something_is_mounted_is_replaced_like_any_other() {
        let Some(scene) = Scene::set() else { return };
        for (options, count) in [(&["--replace"][..], 1), (&["--replace", "--keep-old"], 2)] {
            scene.db2.sh(&format!("rm -r {0}; ln -s / {0}", scene.at("in/data")));
            scene.transfer(options).expect_success();
            scene.expect_copied("in/data");
            assert_eq!(scene.names().len(), count);
        }
    }

    #[test]
    fn the_source_is_seen_through_a_bind_mount_and_is_neither_replaced_nor_copied_into_itself() {
        let Some(scene) = Scene::set() else { return };
        let (source, other) = (scene.at("data/dir"), scene.at("other"));
        scene.db1.sh(&format!("mkdir {other}; mount --bind {} {other}", scene.scratch.path()));
        let from = format!("db1:{source}");
        let holder = ["--replace", "--as", "data"];
        let output = scene.lab.transfer(&[&[from.as_str(), &format!("db1:{other}")], &holder[..]].concat());
        assert!(output.expect_code(4).stderr.contains("is the source, or holds it"));
        let inside = scene.lab.transfer(&[&from, &format!("db1:{other}/data/dir")]).expect_code(4);
        assert!(inside.stderr.contains("is inside of the source"), "{inside}");
        scene.db1.sh(&format!("test -s {source}/more"));
    }

    #[test]
    fn a_name_that_somebody_writes_to_is_busy_by_whatever_path_and_free_when_he_is_killed() {
        let Some(scene) = Scene::set_large() else { return };
        let (directory, link, bind) = (scene.at("in"), scene.at("link"), scene.at("bind"));
        scene.db2.sh(&format!("ln -s {directory} {link}; mkdir {bind}; mount --bind {directory} {bind}"));
        let held = scene.held(&[]);
        let run = processes::guard(&scene.db2).replace("-target1", "");
        let source = format!("db1:{}", scene.at("data"));
        for path in [&directory, &link, &bind] {
            for options in [&[][..], &["--replace"]] {
                let target = format!("db2:{path}");
                let all = [&[source.as_str(), target.as_str()][..], options].concat();
                let output = scene.lab.transfer(&all).expect_code(5);
                let writer = format!(
                    "another run writes to {path}/data: run {run} of ctl (pid {}), since 20",
                    held.transfer.pid()
                );
                assert!(output.stderr.contains(&writer), "no '{writer}': {output}");
            }
        }
        // Another name is nobody's.
        scene.transfer(&["--as", "other"]).expect_success();
        held.transfer.signal("KILL");
        scene.await_undone();
        assert_eq!(scene.names(), ["other"]);
        scene.transfer(&[]).expect_success();
        scene.expect_copied("in/data");
        scene.expect_no_runs();
    }

    #[test]
    fn a_name_that_was_made_since_the_preflight_is_not_copied_for() {
        let Some(scene) = Scene::set_large() else { return };
        // Between the preflight and the lock of the name.
        let script = format!("[[ $* == '-w 1 10' ]] && mkdir -p {}", scene.at("in/data"));
        let _flock = Wrapper::new(&scene.db2, "flock", &script);
        let output = scene.transfer(&[]).expect_code(5);
        assert!(output.stderr.contains("was made by somebody else since the preflight"), "{output}");
        assert_eq!(scene.names(), ["data"]);
        scene.expect_no_runs();
    }

    #[test]
    fn an_old_one_that_is_another_since_the_preflight_is_not_copied_for() {
        let Some(scene) = Scene::set() else { return };
        // Between the preflight and the lock of the name.
        let data = scene.at("in/data");
        let script = format!(
            "[[ $* == '-w 1 10' ]] && cp -a {data} {data}.new && rm -r {data} && mv {data}.new {data}"
        );
        let flock = Wrapper::new(&scene.db2, "flock", &script);
        let output = scene.transfer(&["--replace"]).expect_code(5);
        assert!(output.stderr.contains("was made by somebody else since the preflight"), "{output}");
        assert!(!output.stderr.contains("copying"), "{output}");
        scene.expect_untouched();
        drop(flock);
        scene.transfer(&["--replace"]).expect_success();
        scene.expect_copied("in/data");
    }

    impl Scene {
        /// What has arrived is kept, where the output says, and nothing else; it goes.
        #[track_caller]
        fn expect_kept(&self, said: &str) {
            self.await_undone();
            let all = self.names();
            assert!(all.len() == 1 && all[0].starts_with(".transfer-"), "{all:?}");
            let path = format!("{}/{}", self.at("in"), all[0]);
            assert!(said.contains(&path), "no {path} in {said}");
            self.db2.sh(&format!("test -e {path}/data; rm -r {path}"));
            self.expect_no_runs();
        }
    }

    #[test]
    fn what_has_arrived_before_a_failure_is_kept_where_the_report_says() {
        let Some(scene) = Scene::set_large() else { return };
        let keep = "--keep-staging";
        // A disk that somebody else fills meanwhile.
        scene.db2.sh(&format!("mount -t tmpfs -o size=64M lab {}", scene.at("in")));
        let script = format!("[[ $* == *--extract* ]] && head -c 40M /dev/zero >{}/filler", scene.at("in"));
        let wrapper = Wrapper::new(&scene.db2, "tar", &script);
        for json in [false, true] {
            let options = if json { &[keep, "--json"][..] } else { &[keep] };
            let output = scene.transfer(options).expect_code(1);
            scene.db2.sh(&format!("rm {}/filler", scene.at("in")));
            if json {
                assert!(output.stdout.contains("\"kept_staging\":[\"/"), "{output}");
                scene.expect_kept(&output.stdout);
            } else {
                assert!(output.stderr.contains("what has arrived is kept (--keep-staging): "), "{output}");
                scene.expect_kept(&output.stderr);
            }
        }
        drop(wrapper);
        scene.unmount("in");
        // A source that is killed.
        let held = scene.held(&[keep]);
        being_read(&scene.db1, scene.scratch.path());
        scene.db1.sh("pkill -KILL -x tar");
        let output = held.go().expect_code(1);
        scene.expect_kept(&output.stderr);
    }

    #[test]
    fn what_has_arrived_before_a_signal_is_kept() {
        let Some(scene) = Scene::set_large() else { return };
        let half = "[[ $* == *--extract* ]] && { { head -c 20M; sleep 100; } | \"$real\" \"$@\"; exit; }";
        let _tar = Wrapper::new(&scene.db2, "tar", half);
        for signal in ["INT", "TERM", "KILL"] {
            let run = scene.spawn(&["--keep-staging"]);
            let arrived = format!("test -s {}/.transfer-*/data/large", scene.at("in"));
            let arrives = || scene.db2.run(&["bash", "-c", &arrived]).status.success();
            assert!(eventually(SOON, arrives), "nothing arrives");
            let path = format!("{}/.transfer-{}", scene.at("in"), processes::guard(&scene.db2));
            run.signal(signal);
            if signal == "KILL" {
                drop(run);
                scene.expect_kept(&path);
            } else {
                scene.expect_kept(&run.wait().expect_code(if signal == "INT" { 130 } else { 143 }).stderr);
            }
        }
    }

    #[test]
    fn a_run_that_begins_nothing_keeps_nothing() {
        let Some(scene) = Scene::set() else { return };
        scene.transfer(&["--keep-staging"]).expect_code(4);
        scene.expect_untouched();
        // A file system that cannot do what is needed, at each of the steps that try it.
        for (flag, options) in
            [(1, &["--keep-staging", "--as", "x"][..]), (2, &["--keep-staging", "--replace", "--keep-old"])]
        {
            let script =
                format!("[[ ${{4-}} == {flag} && ${{6-}} == */.exchange ]] && {{ echo no; exit 1; }}");
            let _perl = Wrapper::new(&scene.db2, "perl", &script);
            let output = scene.transfer(options).expect_code(1);
            assert!(output.stderr.contains("this file system cannot "), "{output}");
            scene.expect_untouched();
        }
        // Only who replaces needs the second one.
        let _perl = Wrapper::new(&scene.db2, "perl", "[[ ${4-} == 2 ]] && { echo no; exit 1; }");
        scene.transfer(&["--as", "x"]).expect_success();
        assert_eq!(scene.names(), ["data", "x"]);
    }

    #[test]
    fn what_has_arrived_is_kept_where_the_last_step_of_a_replacement_fails() {
        let Some(scene) = Scene::set() else { return };
        let fails = "[[ ${4-} == 2 && ${6-} == */in/data ]] && { echo no; exit 1; }";
        let _perl = Wrapper::new(&scene.db2, "perl", fails);
        let output = scene.transfer(&["--replace", "--keep-old", "--keep-staging"]).expect_code(1);
        assert!(scene.is_old("in/data"));
        let kept = scene.names().remove(0);
        scene.expect_copied(&format!("in/{kept}/data"));
        assert!(output.stderr.contains(&kept), "{output}");
        scene.db2.sh(&format!("rm -r {}/{kept}", scene.at("in")));
        scene.expect_untouched();
    }

    #[test]
    fn the_longest_time_ends_a_run_in_the_stream_and_in_the_verification() {
        let Some(scene) = Scene::set_large() else { return };
        let held = scene.held(&["--max-duration", "4"]);
        let output = held.transfer.wait().expect_code(1);
        assert!(output.stderr.contains("not done within 4 s (--max-duration)"), "{output}");
        assert_eq!(scene.names(), Vec::<String>::new());
        scene.expect_no_runs();
        let _md5sum = Wrapper::new(&scene.db2, "md5sum", "[[ $PWD == *.transfer-* ]] && sleep 100");
        let output = scene.transfer(&["--max-duration", "8"]).expect_code(1);
        assert!(output.stderr.contains("verifying"), "{output}");
        assert!(output.stderr.contains("not done within 8 s (--max-duration)"), "{output}");
        assert_eq!(scene.names(), Vec::<String>::new());
        scene.expect_no_runs();
    }

    #[test]
    fn without_fsync_a_copy_is_the_same_and_replaces_as_well() {
        let Some(scene) = Scene::set() else { return };
        scene.transfer(&["--replace", "--no-fsync"]).expect_success();
        assert_eq!(scene.names(), ["data"]);
        scene.expect_copied("in/data");
        scene.expect_no_runs();
    }

    /// What happens to the source while tar is in the middle of the large file, and what is told of it.
    const CHANGES: [(&str, &str); 4] = [
        ("echo more >>data/large", "data/large"),
        ("truncate -s 1M data/large", "data/large"),
        ("rm data/large", "data/large"),
        ("mkdir data/late; echo new >data/late/file", "data/late"),
    ];

    #[test]
    fn what_changes_while_tar_reads_it_is_told_and_fails_the_run_unless_it_is_ignored() {
        let Some(scene) = Scene::set_large() else { return };
        let make = format!("cp --reflink=auto {0}.whole {0}", scene.at("data/large"));
        // More than one of them, so that tar is in the middle of it whatever came before.
        scene.db1.sh(&format!(
            "mv {0} {1}; rm -r {2}",
            scene.at("data/large"),
            scene.at("large"),
            scene.at("data/dir")
        ));
        let make = make.replace(&format!("{}.whole", scene.at("data/large")), &scene.at("large"));
        for (change, told) in CHANGES {
            let directory = scene.scratch.path();
            let done = scene.at("changed");
            let pack = format!(
                "[[ $* == *--create* ]] && {{ set -o pipefail; cd {directory}
                \"$real\" \"$@\" | {{ head -c 30000000; {change}; touch {done}; exec cat; }}; exit; }}"
            );
            let _tar = Wrapper::new(&scene.db1, "tar", &pack);
            // Listed after that.
            let list = format!("[[ $* == *%p//f//* ]] && until [[ -e {done} ]]; do sleep 0.05; done");
            let _find = Wrapper::new(&scene.db1, "find", &list);
            for ignored in [true, false] {
                println!("{change}, ignored: {ignored}");
                scene.db1.sh(&format!("rm -rf {done} {}/data/late; {make}", scene.scratch.path()));
                let output = scene.transfer(&["--no-encrypt", &format!("--ignore-changed={ignored}")]);
                if ignored {
                    let output = output.expect_success();
                    assert!(output.stdout.contains("changed while it was copied"), "{change}: {output}");
                    assert!(output.stdout.contains(told), "{change}: {output}");
                    scene.db2.sh(&format!("test -s {0}/file; rm -r {0}", scene.at("in/data")));
                } else {
                    assert!(matches!(output.status.code(), Some(1 | 3)), "{change}: {output}");
                    // By tar, which names the directory that one came to, or by the comparison.
                    assert!(output.stderr.contains("data"), "{change}: {output}");
                }
                assert_eq!(scene.names(), Vec::<String>::new(), "{change}");
                scene.expect_no_runs();
            }
        }
    }

    #[test]
    fn damage_on_the_target_is_no_change_on_the_source() {
        let Some(scene) = Scene::set_large() else { return };
        let flip = r#"file=data/large; time=$(stat -c %y $file)
            byte=$(dd if=$file bs=1 skip=1000000 count=1 status=none | od -An -tu1)
            printf "\\$(printf %03o $((byte ^ 1)))" | dd of=$file bs=1 seek=1000000 conv=notrunc status=none
            touch -d "$time" $file"#;
        let script =
            format!("[[ $* == *--extract* ]] && {{ $real \"$@\"; status=$?; {flip}\nexit $status; }}");
        let _tar = Wrapper::new(&scene.db2, "tar", &script);
        // Something else has changed, too.
        let change = format!("[[ $* == *--create* ]] && {{ sleep 0.1; echo >>{}; }}", scene.at("data/file"));
        let _change = Wrapper::new(&scene.db1, "tar", &change);
        let output = scene.transfer(&["--ignore-changed"]).expect_code(3);
        assert!(output.stderr.contains("data/large (other contents)"), "{output}");
        assert_eq!(scene.names(), Vec::<String>::new());
        scene.expect_no_runs();
    }
}
