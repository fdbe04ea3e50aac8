//! Database servers of this host, with the parts of the agent that they need.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use crate::agent::accounts::{Accounts, Login};
use crate::agent::holders::Servers;
use crate::agent::service::{Service, SharedComponent, Surroundings};
use crate::agent::trust::{Trusted, shared_component};

/// Database servers of this host.
pub(crate) static SERVICE: LazyLock<Service<'static>> = LazyLock::new(|| Service::new(&HOST));

/// Returns the account that runs this agent, and the one that called sudo.
pub(crate) fn login() -> Login {
    Login::of_agent(std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()))
}

/// The host as it is now.
pub(crate) static HOST: HostSurroundings = HostSurroundings;

/// Answers from the host. Nothing is kept: a server may be started or stopped at any time.
pub(crate) struct HostSurroundings;

impl Surroundings for HostSurroundings {
    fn is_served(&self, datadir: &Path, unit: Option<&str>) -> io::Result<bool> {
        Servers::new(login()).is_served(datadir, unit).map_err(io::Error::other)
    }

    fn shared_component(&self, path: &Path, servers: &[u32]) -> io::Result<Option<SharedComponent>> {
        let accounts = Accounts::read();
        let trusted = Trusted::new(login(), &accounts).with_servers(servers.iter().copied());
        let found = shared_component(path, &trusted).map_err(io::Error::other)?;
        Ok(found.map(|shared| SharedComponent {
            path: shared.path.into(),
            owner: shared.owner.to_string(),
            mode: shared.mode,
        }))
    }
}
