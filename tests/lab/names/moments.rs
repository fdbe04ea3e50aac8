//! The final name at every moment of a publication, whichever process dies.

use crate::support::changes::Wrapper;
use crate::support::commands::Running;
use crate::support::processes;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

/// A step of a publication at which a run is held once, before the test acts.
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

    /// Whether the copy is published by then.
    fn is_published(self) -> bool {
        !matches!(self, Self::BeforeTheExchange | Self::AfterTheRecord | Self::AfterTheFirstRename)
    }

    /// The program that is held, the condition, and whether it is held before its work.
    fn hold(self) -> (&'static str, &'static str, bool) {
        let exchange = "${4-} == 2 && ${6-} == */fd/14/data";
        let first = "${4-} == 1 && ${6-} == */fd/14/data.old-*";
        match self {
            Self::BeforeTheExchange => ("perl", exchange, true),
            Self::AfterTheExchange | Self::AfterTheExchangeThatKeeps => ("perl", exchange, false),
            Self::WhileTheOldOneIsRemoved => ("rm", "$* == *--one-file-system*", true),
            Self::AfterTheRecord => ("perl", first, true),
            Self::AfterTheFirstRename => ("perl", first, false),
        }
    }

    /// Puts a script that holds the run at this moment in front of the program, for the next run only.
    fn arm(self, scene: &Scene) -> Wrapper {
        let gate = scene.at("gate");
        let (program, condition, before) = self.hold();
        // A tree that is being removed is not complete any more.
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

/// Processes that die at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Controller,
    /// A change in progress completes before the watchdog acts.
    Agent,
    /// The agent and its change in progress.
    AgentAndEffects,
    /// Agent, change in progress and watchdog: the controller is left.
    Keepers,
    /// Every process, including the controller.
    All,
    Host,
}

/// Processes of a run that have its journal open: the agent and its changes, which may write to it, and the
/// watchdog, which waits for it.
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
            Self::Agent => end("agent"),
            Self::AgentAndEffects => end("keepers 1"),
            Self::Keepers => end("keepers 01"),
            Self::All => {
                run.signal("STOP");
                end("keepers 01");
                run.signal("KILL");
            }
            Self::Host => scene.db2.crash(),
        }
    }

    /// Whether the change in progress completes.
    fn leaves_effects(self) -> bool {
        matches!(self, Self::Controller | Self::Agent)
    }
}

fn dies_at_every_moment(death: Death) {
    let Some(scene) = Scene::replacement() else { return };
    for moment in MOMENTS {
        println!("{death:?} dies {moment:?}");
        scene.reset();
        let wrapper = moment.arm(&scene);
        let run = scene.spawn(moment.options());
        let held = || scene.db2.run(&["test", "-e", &scene.at("gate/held")]).status.success();
        assert!(eventually(SOON, held), "the moment does not come");
        // At every moment, one of them is complete.
        if moment.is_published() {
            scene.expect_copied("in/data");
        } else {
            assert!(scene.is_old("in/data"), "{moment:?}");
        }
        death.strike(&scene, &run);
        scene.db2.run(&["touch", &scene.at("gate/go")]);
        match death {
            Death::Controller => drop(run),
            Death::Agent | Death::AgentAndEffects | Death::Keepers => {
                let output = run.wait();
                // A success that was reported is not taken back.
                let code = i32::from(moment != Moment::WhileTheOldOneIsRemoved);
                output.expect_code(code);
            }
            Death::All | Death::Host => {
                drop(run);
                if death == Death::Host {
                    scene.db2.boot();
                }
                let status = scene.lab.transfer(&["status", "db2"]).expect_success().stdout;
                assert!(status.contains("db2: orphaned "), "{status}");
                scene.lab.transfer(&["clean", "db2"]).expect_success();
            }
        }
        scene.await_rollback();
        let all = scene.arrived();
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
fn exclusive_killed_controller_leaves_old_or_new_data() {
    dies_at_every_moment(Death::Controller);
}

#[test]
fn exclusive_killed_agent_leaves_old_or_new_data() {
    dies_at_every_moment(Death::Agent);
}

#[test]
fn exclusive_killed_agent_and_effects_leave_old_or_new_data() {
    dies_at_every_moment(Death::AgentAndEffects);
}

#[test]
fn exclusive_killed_agent_and_watchdog_leave_old_or_new_data() {
    dies_at_every_moment(Death::Keepers);
}

#[test]
fn exclusive_killing_all_leaves_old_or_new_data() {
    dies_at_every_moment(Death::All);
}

#[test]
fn exclusive_crashed_host_has_old_or_new_data() {
    dies_at_every_moment(Death::Host);
}
