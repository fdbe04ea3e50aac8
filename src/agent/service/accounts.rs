//! Accounts of the host, by `getent`: a static program sees none that a directory service knows.

use super::Service;

/// Units of servers, by the names that packages give them.
const UNITS: [&str; 6] = [
    "mariadb.service",
    "mysql.service",
    "mysqld.service",
    "mariadb@*.service",
    "mysql@*.service",
    "mysqld@*.service",
];

impl Service<'_> {
    /// Returns the accounts that may listen on the socket of a server: root, the login, those that the units
    /// of servers name, and `mysql`.
    pub(super) fn server_accounts(&self, unit: Option<&str>) -> Vec<u32> {
        let users = self.programs.tool("systemctl").args(["show", "-p", "User", "--value", "--"]);
        let users = users.args(unit).args(UNITS).succeed().unwrap_or_default();
        let users = String::from_utf8_lossy(&users);
        let names: Vec<&str> = users.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut accounts = vec![0, rustix::process::geteuid().as_raw()];
        accounts.extend(names.iter().filter_map(|name| name.parse::<u32>().ok()));
        let names = names.iter().copied().filter(|name| name.parse::<u32>().is_err());
        let found = self.passwd(&names.chain(["mysql"]).collect::<Vec<_>>());
        accounts.extend(found.into_iter().map(|(_, id)| id));
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// Returns the name of an account, or its number.
    pub(super) fn account_name(&self, id: u32) -> String {
        let found = self.passwd(&[&id.to_string()]);
        let name = found.into_iter().find(|(_, other)| *other == id).map(|(name, _)| name);
        name.unwrap_or_else(|| format!("user ID {id}"))
    }

    /// Returns the names and numbers of those accounts that exist.
    fn passwd(&self, keys: &[&str]) -> Vec<(String, u32)> {
        // Its status says only whether one of them is unknown.
        let output = self.programs.tool("getent").args(["passwd", "--"]).args(keys).run();
        let lines = output.map(|output| output.stdout).unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines);
        let account = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        };
        lines.lines().filter_map(account).collect()
    }
}
