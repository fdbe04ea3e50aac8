//! The final name at every moment of a publication, whichever process dies.

use nix::libc;
use transfer::proto::journal::Undo;

use crate::support::commands::Running;
use crate::support::holder::{Call, Point, Role};
use crate::support::processes;
use crate::support::roots;
use crate::support::scenes::Scene;

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

    /// Point at which the agent is held.
    fn point(self) -> Point {
        match self {
            Self::BeforeTheExchange => Point::Before(RENAME, exchanges),
            Self::AfterTheExchange | Self::AfterTheExchangeThatKeeps => Point::After(RENAME, exchanges),
            // A tree that is being removed is not complete any more.
            Self::WhileTheOldOneIsRemoved => {
                Point::After(&[libc::SYS_unlinkat], |call| call.descriptor(0).ends_with("copy/data"))
            }
            Self::AfterTheRecord => Point::After(&[libc::SYS_fdatasync, libc::SYS_fsync], |call| {
                matches!(call.lease(0), Some(Undo::Unpublished { .. }))
            }),
            Self::AfterTheFirstRename => {
                Point::After(RENAME, |call| call.text(3).to_string_lossy().starts_with("data.old-"))
            }
        }
    }
}

pub(super) const EXCHANGE: u64 = libc::RENAME_EXCHANGE as u64;
pub(super) const RENAME: &[i64] = &[libc::SYS_renameat2];

/// Whether a call gives the copy the name of the old data, and this the name that the copy had.
pub(super) fn exchanges(call: &Call) -> bool {
    call.flags(4) == EXCHANGE && call.text(3) == "data"
}

/// Processes that die at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Controller,
    Agent,
    /// The agent and its programs that make a change.
    AgentAndEffects,
    /// Agent, change in progress and watchdog: the controller is left.
    Keepers,
    /// Every process, including the controller.
    All,
    Host,
}

/// Processes of a run that have its journal open: the agent, its programs that make a change, and the watchdog,
/// which waits for it.
const KEEPERS: &str = r#"
    keepers() { with "$home/journal.bin"; }
    effects() { local pid; for pid in $(keepers); do if [[ $pid != $(watchdog) ]]; then echo "$pid"; fi; done; }
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
            Self::AgentAndEffects => end("effects"),
            Self::Keepers => end("keepers"),
            Self::All => {
                run.signal("STOP");
                end("keepers");
                run.signal("KILL");
            }
            Self::Host => scene.db2.crash(),
        }
    }

    /// Whether the change in progress completes. The agent renames by itself.
    fn leaves_effects(self) -> bool {
        self == Self::Controller
    }
}

fn dies_at_every_moment(death: Death) {
    let Some(scene) = Scene::replacement() else { return };
    for moment in MOMENTS {
        println!("{death:?} dies {moment:?}");
        scene.reset();
        let holder = roots::hold(&scene.db2, &[Role::Serve], moment.point());
        let mut run = scene.spawn(moment.options());
        holder.expect_held(&mut run);
        // At every moment, one of them is complete.
        if moment.is_published() {
            scene.expect_copied("in/data");
        } else {
            assert!(scene.is_old("in/data"), "{moment:?}");
        }
        death.strike(&scene, &run);
        holder.open();
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
