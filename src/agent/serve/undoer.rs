//! The undos of all kinds of changes but processes and locks, which the replay undoes itself.

use std::fmt::Display;
use std::os::fd::AsFd as _;

use super::surroundings::SERVICE;
use crate::agent::files::durable;
use crate::agent::files::staging::StagingDirectory;
use crate::agent::files::undo::{Owner, UndoError, Undone as FilesUndone};
use crate::agent::rollback::{self, Context, Undoer, Undone};
use crate::agent::service::hooks::{self, HookEnd};
use crate::agent::service::programs::Programs;
use crate::agent::service::restore::{Circumstances, MayStart, Restorer};
use crate::agent::service::roll_back::Held;
use crate::agent::{firewall, state, tool};
use crate::proto::Text;
use crate::proto::journal::{Hook, Undo};
use crate::proto::name::AgentName;

/// Undoes changes on this host.
pub(crate) struct HostUndoer<'a> {
    /// The staging directory that this agent holds open.
    staging: Option<&'a StagingDirectory>,
    /// Undos of servers depend on those before them in the same journal.
    restorer: Option<(AgentName, Restorer<'a>)>,
}

impl<'a> HostUndoer<'a> {
    /// Creates it for an agent, with the staging directory that the agent holds open.
    pub(crate) fn new(staging: Option<&'a StagingDirectory>) -> Self {
        Self { staging, restorer: None }
    }

    fn restorer(&mut self, context: &Context<'_>) -> &mut Restorer<'a> {
        let is_other = self.restorer.as_ref().is_none_or(|(agent, _)| agent != context.agent);
        if is_other {
            self.restorer = None;
        }
        let held = held(self.staging);
        let (_, restorer) = self.restorer.get_or_insert_with(|| {
            let restorer = Restorer::new(&SERVICE, circumstances(context));
            let restorer = match held {
                Some(held) => restorer.with_held(held),
                None => restorer,
            };
            (context.agent.clone(), restorer)
        });
        restorer
    }
}

impl Undoer for HostUndoer<'_> {
    fn undo(&mut self, context: &Context<'_>, undo: &Undo) -> Undone {
        let owner = Owner { agent: context.agent.as_str(), durability: durability(context) };
        if let Undo::Hook(hook) = undo {
            return run_hook(context, hook);
        }
        let _holding = match tool::hold(context.lock) {
            Ok(holding) => holding,
            Err(error) => return Undone::Left(Text::from(&error)),
        };
        match undo {
            Undo::Rules { layer, family, tag } => {
                done(firewall::close(*layer, *family, tag, context.attempt.patience()))
            }
            Undo::Unpublished { path, inode } | Undo::RolledBack { path, inode } => {
                files(owner.copy_aside(path, *inode))
            }
            Undo::Filled { directory, staged } => match state::open_owned(context.directory) {
                Ok(home) => files(owner.filled(home.as_fd(), directory, staged)),
                Err(error) => Undone::Left(Text::from(&error)),
            },
            Undo::Mode { path, inode, mode } => files(owner.mode(path, *inode, *mode)),
            Undo::Staging { path, keep } => {
                let held = self.staging.filter(|staging| staging.path() == *path);
                files(owner.staging(path, *keep, held.map(StagingDirectory::copy)))
            }
            Undo::Replaced { path } => files(owner.replaced(path)),
            _ => match self.restorer(context).undo(undo) {
                Some(undone) => done(undone),
                None => Undone::Left(Text::new("this version has no undo for it")),
            },
        }
    }
}

/// Returns the target directory that the agent holds open.
pub(super) fn held(staging: Option<&StagingDirectory>) -> Option<Held<'_>> {
    staging.map(|staging| Held { path: staging.target_path(), directory: staging.target() })
}

fn run_hook(context: &Context<'_>, hook: &Hook) -> Undone {
    let home = match state::open_owned(context.directory) {
        Ok(home) => home,
        Err(error) => return Undone::Left(Text::from(&error)),
    };
    let hooks = hooks::Context {
        directory: home.as_fd(),
        run: context.agent.run(),
        conclusion: context.conclusion,
        circumstances: circumstances(context),
        forgets: context.policy.hooks == rollback::Hooks::Forget,
    };
    match hooks::run_after(&hooks, hook, &Programs::of_login()) {
        Ok(HookEnd::Succeeded) => Undone::Done,
        Ok(HookEnd::Forgotten) => Undone::Forgotten,
        Err(error) => Undone::Left(Text::from(&error)),
    }
}

fn circumstances(context: &Context<'_>) -> Circumstances {
    let may_start = match context.policy.may_start {
        rollback::MayStart::All => MayStart::All,
        rollback::MayStart::Own => MayStart::Own,
        rollback::MayStart::None => MayStart::No,
    };
    Circumstances { may_start, is_rebooted: context.is_rebooted }
}

fn durability(context: &Context<'_>) -> durable::Durability {
    match context.policy.durability {
        rollback::Durability::Synced => durable::Durability::Synced,
        rollback::Durability::Hasty => durable::Durability::Hasty,
    }
}

fn done<E: Display>(result: Result<(), E>) -> Undone {
    match result {
        Ok(()) => Undone::Done,
        Err(error) => Undone::Left(Text::from(&error)),
    }
}

fn files(result: Result<FilesUndone, UndoError>) -> Undone {
    match result {
        Ok(FilesUndone::Gone) => Undone::Done,
        Ok(FilesUndone::Kept) => Undone::Kept,
        Err(error) => Undone::Left(Text::from(&error)),
    }
}
