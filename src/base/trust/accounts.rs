//! Accounts that may change decisive files: root, and that of this process.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use super::{Distrust, shown};

/// Extended attribute with the ACL of a file or directory.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Root and the account of this process.
pub(super) struct Accounts {
    own: Uid,
}

impl Accounts {
    /// Returns the accounts of this process. With sudo it is root alone: the caller may not have all rights
    /// of root.
    pub(super) fn of_this_process() -> Self {
        Self { own: Uid::effective() }
    }

    fn has(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own.as_raw()
    }

    /// Checks that one of the accounts owns the component.
    pub(super) fn owns(&self, component: &Path, found: &Metadata) -> Result<(), Distrust> {
        if self.has(found.uid()) { Ok(()) } else { Err(self.changeable(component, found)) }
    }

    /// Checks that no other account can change it. In a sticky directory others can change only files of
    /// their own.
    pub(super) fn vouch(&self, component: &Path, found: &Metadata) -> Result<(), Distrust> {
        let is_sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        if self.has(found.uid()) && (is_sticky || !self.others_write(component, found)) {
            return Ok(());
        }
        Err(self.changeable(component, found))
    }

    /// Checks that the account of this process owns it, and no other one can write to it.
    pub(super) fn is_own(&self, component: &Path, found: &Metadata) -> Result<(), Distrust> {
        if found.uid() == self.own.as_raw() && !self.others_write(component, found) {
            return Ok(());
        }
        Err(self.changeable(component, found))
    }

    fn others_write(&self, component: &Path, found: &Metadata) -> bool {
        let mode = found.mode();
        let group_is_others = || has_access_list(component) || !self.has_private_group(found.gid());
        mode & 0o002 != 0 || (mode & 0o020 != 0 && group_is_others())
    }

    /// Returns whether this account is the only member of a group, as on Debian for ordinary accounts.
    fn has_private_group(&self, gid: u32) -> bool {
        if self.own.is_root() {
            return false;
        }
        let (Ok(Some(user)), Ok(Some(group))) =
            (User::from_uid(self.own), Group::from_gid(Gid::from_raw(gid)))
        else {
            return false;
        };
        user.gid.as_raw() == gid
            && group.mem.iter().all(|member| *member == user.name)
            && !is_group_of_others(&user.name, gid)
    }

    fn changeable(&self, component: &Path, found: &Metadata) -> Distrust {
        let own = name(self.own.as_raw());
        let path = shown(component);
        let chown = (!self.has(found.uid()))
            .then(|| format!("chown {}{own} {path}", if found.is_symlink() { "-h " } else { "" }));
        let chmod = (!found.is_symlink() && found.mode() & 0o022 != 0).then(|| format!("chmod go-w {path}"));
        Distrust::Changeable {
            component: component.to_owned(),
            owner: name(found.uid()),
            mode: found.mode() & 0o7777,
            trusted: if self.own.is_root() { own } else { format!("root and {own}") },
            fix: chown.into_iter().chain(chmod).collect::<Vec<_>>().join(" && "),
        }
    }
}

/// Returns whether the group is the primary group of another account of this machine.
fn is_group_of_others(user: &str, gid: u32) -> bool {
    let Ok(accounts) = std::fs::read_to_string("/etc/passwd") else { return true };
    let gid = gid.to_string();
    accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .any(|fields| matches!(fields[..], [name, _, _, primary, ..] if primary == gid && name != user))
}

/// Returns whether it has an ACL. With an ACL, the mode's group bits are the maximum that the ACL grants to
/// anyone.
fn has_access_list(component: &Path) -> bool {
    use rustix::io::Errno;
    !matches!(
        rustix::fs::getxattr(component, ACCESS_LIST, &mut [0_u8; 0]),
        Err(Errno::NODATA | Errno::NOTSUP)
    )
}

/// Returns the name of an account, or its number if it has none.
pub(super) fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
