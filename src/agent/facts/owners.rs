//! Owners of files, by name.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::agent::accounts::Accounts;
use crate::agent::tool::ToolError;
use crate::proto::Text;
use crate::proto::facts::path::{MOST_OWNERS, Owners, UnknownOwner};

/// Returns the local accounts and groups of these numbers.
pub(super) fn owners_of(accounts: &Accounts, users: &BTreeSet<u32>, groups: &BTreeSet<u32>) -> Owners {
    owners(accounts, |uid| users.contains(&uid), |gid| groups.contains(&gid))
}

/// Returns all local accounts and groups.
pub(super) fn all_owners(accounts: &Accounts) -> Owners {
    owners(accounts, |_| true, |_| true)
}

fn owners(accounts: &Accounts, is_user: impl Fn(u32) -> bool, is_group: impl Fn(u32) -> bool) -> Owners {
    let named = |name: &OsStr| Text::new(name.as_bytes());
    let users = accounts.users().iter().filter(|user| is_user(user.uid)).take(MOST_OWNERS);
    let groups = accounts.groups().iter().filter(|group| is_group(group.gid)).take(MOST_OWNERS);
    Owners {
        users: users.map(|user| (named(&user.name), user.uid)).collect(),
        groups: groups.map(|group| (named(&group.name), group.gid)).collect(),
    }
}

/// Returns the requested owners that the host does not know. Numbers are always known.
pub(super) fn unknown(
    accounts: &Accounts,
    user: &Text,
    group: &Text,
) -> Result<Vec<UnknownOwner>, ToolError> {
    let is_name = |name: &Text| !name.as_str().bytes().all(|byte| byte.is_ascii_digit());
    let mut unknown = Vec::new();
    if is_name(user) && accounts.user(user.as_str().as_ref())?.is_none() {
        unknown.push(UnknownOwner::User(user.clone()));
    }
    if is_name(group) && accounts.group(group.as_str().as_ref())?.is_none() {
        unknown.push(UnknownOwner::Group(group.clone()));
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(b"root:x:0:0::/:/\nmysql:x:111:117::/:/\n", b"root:x:0:\nmysql:x:117:\n")
    }

    #[test]
    fn only_wanted_numbers_are_named() {
        let owners = owners_of(&accounts(), &BTreeSet::from([111, 999]), &BTreeSet::from([0]));
        assert_eq!(owners.users.into_iter().collect::<Vec<_>>(), [(Text::new("mysql"), 111)]);
        assert_eq!(owners.groups.into_iter().collect::<Vec<_>>(), [(Text::new("root"), 0)]);
        assert_eq!(all_owners(&accounts()).users.len(), 2);
    }

    #[test]
    fn unknown_names_are_reported() {
        let unknown = |user: &str, group: &str| {
            let found = unknown(&accounts(), &Text::new(user), &Text::new(group)).unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(
            unknown("mysql", "mysql").is_empty()
                && unknown("", "").is_empty()
                && unknown("4711", "0").is_empty()
        );
        assert_eq!(unknown("nobody-here", "none"), ["user nobody-here", "group none"]);
    }
}
