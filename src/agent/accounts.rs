//! Accounts and groups of the host. A static program has no name service switch: `/etc/passwd` and `/etc/group`
//! are parsed, and `getent` is asked for accounts of directory services.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::tool::{Tool, ToolError};
use crate::proto::Text;

/// Status of `getent` when it has found nothing.
const NOT_FOUND: i32 = 2;
/// First user ID of people, unless `/etc/login.defs` says otherwise.
const FIRST_ACCOUNT: u32 = 1000;

/// User of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: OsString,
    /// User ID.
    pub(crate) uid: u32,
    /// ID of the primary group.
    pub(crate) gid: u32,
}

/// Group of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Name.
    pub(crate) name: OsString,
    /// Group ID.
    pub(crate) gid: u32,
    /// Listed members, which are not those whose primary group it is.
    pub(crate) members: Vec<OsString>,
}

/// Account that runs the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// User ID of the agent.
    pub(crate) uid: u32,
    /// User who called `sudo`.
    pub(crate) caller: Option<u32>,
}

impl Login {
    /// Returns the account of this process; `caller` is the user who called `sudo`.
    pub(crate) fn of_agent(caller: Option<u32>) -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), caller }
    }

    /// Returns all user IDs that are the login's.
    pub(crate) fn uids(self) -> impl Iterator<Item = u32> {
        [self.uid].into_iter().chain(self.caller)
    }
}

/// Answers of `getent`, by database and key.
type Answers = HashMap<(&'static str, OsString), Option<Vec<u8>>>;

/// Accounts of the host. Answers are kept as long as this value.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
    asks: bool,
    asked: RefCell<Answers>,
}

impl Accounts {
    /// Reads the local accounts. A missing file has none.
    pub(crate) fn read() -> Self {
        let read = |path| std::fs::read(path).unwrap_or_default();
        Self { asks: true, ..Self::parse(&read("/etc/passwd"), &read("/etc/group")) }
    }

    /// Parses local accounts; no others are known then.
    pub(crate) fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self { users: lines(passwd, user), groups: lines(group, parse_group), ..Self::default() }
    }

    /// Returns the local users.
    pub(crate) fn users(&self) -> &[User] {
        &self.users
    }

    /// Returns the local groups.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Returns the user with this number.
    pub(crate) fn user_of_id(&self, uid: u32) -> Result<Option<User>, ToolError> {
        self.find_user(|user| user.uid == uid, OsStr::new(&uid.to_string()))
    }

    /// Returns the user of this name.
    pub(crate) fn user(&self, name: &OsStr) -> Result<Option<User>, ToolError> {
        self.find_user(|user| user.name == name, name)
    }

    fn find_user(&self, is_it: impl Fn(&User) -> bool, key: &OsStr) -> Result<Option<User>, ToolError> {
        if let Some(found) = self.users.iter().find(|user| is_it(user)) {
            return Ok(Some(found.clone()));
        }
        Ok(self.ask("passwd", key)?.as_deref().and_then(user).filter(is_it))
    }

    /// Returns the group of this name.
    pub(crate) fn group(&self, name: &OsStr) -> Result<Option<Group>, ToolError> {
        if let Some(found) = self.groups.iter().find(|group| group.name == name) {
            return Ok(Some(found.clone()));
        }
        Ok(self.ask("group", name)?.as_deref().and_then(parse_group).filter(|group| group.name == name))
    }

    /// Returns the group with this number and all of its listed members: a directory service may add some to a
    /// local group.
    pub(crate) fn whole_group(&self, gid: u32) -> Result<Option<Group>, ToolError> {
        if let Some(line) = self.ask("group", OsStr::new(&gid.to_string()))? {
            return Ok(parse_group(&line).filter(|group| group.gid == gid));
        }
        Ok(self.groups.iter().find(|group| group.gid == gid).cloned())
    }

    /// Returns the name of a user, or else the number.
    pub(crate) fn user_name(&self, uid: u32) -> Text {
        let found = self.user_of_id(uid).ok().flatten();
        found.map_or_else(|| Text::from(&uid), |user| Text::new(user.name.as_bytes()))
    }

    /// Returns the name of a group, or else the number.
    pub(crate) fn group_name(&self, gid: u32) -> Text {
        let local = self.groups.iter().find(|group| group.gid == gid).cloned();
        let found = local.or_else(|| self.whole_group(gid).ok().flatten());
        found.map_or_else(|| Text::from(&gid), |group| Text::new(group.name.as_bytes()))
    }

    /// Asks the name services. Without `getent` there are only local accounts.
    fn ask(&self, database: &'static str, key: &OsStr) -> Result<Option<Vec<u8>>, ToolError> {
        if !self.asks || key.is_empty() {
            return Ok(None);
        }
        let question = (database, key.to_owned());
        if let Some(known) = self.asked.borrow().get(&question) {
            return Ok(known.clone());
        }
        let answer = match Tool::new("getent").args([OsStr::new(database), OsStr::new("--"), key]).run() {
            Ok(output) if output.status.success() => Some(output.stdout.trim_ascii_end().to_vec()),
            Ok(output) if output.status.code() == Some(NOT_FOUND) => None,
            Ok(output) => {
                return Err(ToolError::Failed { program: "getent".into(), said: output.last_words() });
            }
            Err(ToolError::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        self.asked.borrow_mut().insert(question, answer.clone());
        Ok(answer)
    }
}

/// Returns the first user ID that people have.
pub(crate) fn first_account() -> u32 {
    first_in(&std::fs::read("/etc/login.defs").unwrap_or_default())
}

fn first_in(definitions: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(definitions);
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("UID_MIN"));
    let values = lines.filter(|rest| rest.starts_with(char::is_whitespace));
    // The last one counts, as for the programs that read this file.
    values
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .next_back()
        .unwrap_or(FIRST_ACCOUNT)
}

fn lines<T>(file: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
    file.split(|&byte| byte == b'\n').filter_map(parse).collect()
}

/// Parses `NAME:PASSWORD:UID:GID:…`. Names that begin with `+` or `-` are orders to the name services.
fn user(line: &[u8]) -> Option<User> {
    let mut fields = line.split(|&byte| byte == b':');
    let name = name(fields.next()?)?;
    Some(User { name, uid: number(fields.nth(1)?)?, gid: number(fields.next()?)? })
}

/// Parses `NAME:PASSWORD:GID:MEMBER,…`.
fn parse_group(line: &[u8]) -> Option<Group> {
    let mut fields = line.split(|&byte| byte == b':');
    let group = name(fields.next()?)?;
    let gid = number(fields.nth(1)?)?;
    let members = fields.next().unwrap_or_default().split(|&byte| byte == b',');
    let members =
        members.filter(|member| !member.is_empty()).map(|member| OsString::from_vec(member.to_vec()));
    Some(Group { name: group, gid, members: members.collect() })
}

fn name(field: &[u8]) -> Option<OsString> {
    let starts = field.first()?;
    (!b"+-#".contains(starts)).then(|| OsString::from_vec(field.to_vec()))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nmysql:x:111:117:MySQL,,,:/nonexistent:/bin/false\n\
        +nis::::::\nbroken\n\xff:x:5:5::/:/\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:eve,adam\nmysql:!:117:\nodd:x:\n";

    #[test]
    fn local_accounts_are_parsed() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        assert_eq!(accounts.users().len(), 3);
        assert_eq!(accounts.user(OsStr::new("mysql")).unwrap().unwrap().gid, 117);
        assert_eq!(accounts.user_name(111).as_str(), "mysql");
        assert_eq!(accounts.user_name(999_999).as_str(), "999999");
        assert_eq!(accounts.whole_group(50).unwrap().unwrap().members, ["eve", "adam"]);
        assert_eq!(accounts.group(OsStr::new("odd")).unwrap(), None);
        assert_eq!(accounts.group_name(117).as_str(), "mysql");
    }

    #[test]
    fn name_services_are_asked_for_the_rest() {
        let accounts = Accounts { asks: true, ..Accounts::default() };
        let root = accounts.user_of_id(0).unwrap();
        if Tool::new("getent").arg("passwd").run().is_err() {
            return;
        }
        assert_eq!(root.map(|user| user.name), Some("root".into()));
        assert_eq!(accounts.user(OsStr::new("--no-such-user")).unwrap(), None);
        assert_eq!(accounts.whole_group(0).unwrap().map(|group| group.gid), Some(0));
        assert_eq!(accounts.asked.borrow().len(), 3);
    }

    #[test]
    fn first_account_is_that_of_the_host() {
        assert_eq!(first_in(b"# UID_MIN 5\nUID_MIN\t\t  500\nSYS_UID_MIN 101\n"), 500);
        assert_eq!(first_in(b"UID_MIN x\nUID_MINIMUM 7\n"), FIRST_ACCOUNT);
    }
}
