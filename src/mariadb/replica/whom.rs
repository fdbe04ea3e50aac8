//! Choice of the server that the new replicas replicate from, by the command and the probed hosts. Pure.

use std::net::IpAddr;
use std::sync::LazyLock;

use super::refusal;
use crate::base::endpoint::HostName;
use crate::cli;
use crate::host::facts::{Facts, Installed, Upstream};
use crate::mariadb::plan::Whose;
use crate::mariadb::survey::Primary;
use crate::preflight::Finding;

/// Stands in for the facts of a host without a server.
static NO_SERVER: LazyLock<Installed> = LazyLock::new(Installed::default);

/// A command, and the facts of its hosts.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) order: &'a cli::Replica,
    pub(super) donor: AskedHost,
    /// The same as `donor` if the primary is copied itself.
    pub(super) primary: AskedHost,
    pub(super) targets: Vec<AskedHost>,
}

/// A host of the command.
#[derive(Clone, Debug)]
pub(super) struct AskedHost {
    pub(super) name: HostName,
    pub(super) facts: Facts,
}

impl AskedHost {
    /// Returns its server, or an empty one.
    pub(super) fn server(&self) -> &Installed {
        self.facts.installed.as_ref().unwrap_or(&NO_SERVER)
    }

    /// Returns whether both are one host, even if it has two names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name || self.facts.same_machine(&other.facts)
    }
}

/// The server that is replicated from.
#[derive(Clone, Debug)]
pub(super) struct Whom {
    /// Host name as the user or the donor gave it.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) ssl: bool,
    pub(super) position: Whose,
    /// Whether it is a host of the command, which was probed.
    pub(super) is_asked: bool,
    /// Address, if known.
    address: Option<IpAddr>,
    /// Whether it runs on the controller.
    is_here: bool,
}

/// Returns the host name without the user.
pub(super) fn bare(name: &HostName) -> String {
    let name = name.to_string();
    name.rsplit('@').next().unwrap_or_default().to_owned()
}

impl Whom {
    /// Returns the server as a target is to reach it: by its name, which must resolve to its address, if that
    /// is known.
    pub(super) fn seen_by<'a>(&'a self, order: &'a cli::Replica, target: &Facts) -> Primary<'a> {
        if let Some(name) = &order.primary_address {
            return Primary { name, address: None, port: self.port, tls: self.ssl };
        }
        // The target sees the controller at the address that its SSH connection comes from.
        let here = target.ssh.map(|(controller, _)| controller).filter(|_| self.is_here);
        let address = here.or(self.address);
        Primary { name: &self.name, address, port: self.port, tls: self.ssl }
    }
}

impl Asked<'_> {
    pub(super) fn donor(&self) -> &Installed {
        self.donor.server()
    }

    /// Returns whether the new replicas replicate from the donor's upstream.
    pub(super) fn beside(&self) -> bool {
        !self.order.replicate_from_primary
            && (self.order.from.is_some() || !self.donor().upstreams.is_empty())
    }

    /// Returns the donor's upstream that is the primary of the command; without `--from` its only upstream.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        let AskedHost { name, facts } = &self.primary;
        let own = facts.ssh.map(|(_, own)| own);
        let is_primary = |upstream: &&Upstream| {
            let address = upstream.host.parse::<IpAddr>().ok();
            upstream.host == bare(name)
                || address.is_some_and(|address| Some(address) == own || facts.addresses.contains(&address))
                || upstream.server_id == self.primary.server().server_id() && upstream.server_id != 0
        };
        if self.order.from.is_some() {
            return self.donor().upstreams.iter().find(is_primary);
        }
        self.donor().upstreams.first().filter(|_| self.donor().upstreams.len() == 1)
    }

    /// Chooses the server that the new replicas replicate from.
    pub(super) fn whom(&self) -> Result<Whom, Finding> {
        let donor = self.donor();
        let AskedHost { name, facts } = &self.primary;
        if self.order.sibling && donor.upstreams.is_empty() {
            let fix = "omit --sibling to make the new replicas replicate from it";
            return Err(refusal(&self.donor.name, "it is not a replica", fix));
        }
        let of_primary = |port: u16, ssl: bool, position: Whose| Whom {
            name: bare(name),
            port,
            ssl,
            position,
            is_asked: true,
            address: facts.ssh.map(|(_, own)| own),
            is_here: *name == HostName::Local,
        };
        let has_ssl = self.primary.server().instance.variable("have_ssl") == "YES";
        if !self.beside() {
            return Ok(of_primary(donor.port(), has_ssl, Whose::Own));
        }
        let Some(upstream) = self.upstream() else {
            let many = donor.upstreams.len();
            return Err(if self.order.from.is_some() {
                let fix = "give one of its replicas with --from, or omit --from";
                refusal(&self.donor.name, &format!("it does not replicate from {name}"), fix)
            } else {
                let fix = "use --replicate-from-primary to replicate from it, or choose one of them: transfer replica \
                           PRIMARY TARGET --from DONOR";
                refusal(&self.donor.name, &format!("it replicates from {many} servers"), fix)
            });
        };
        if self.order.from.is_some() {
            return Ok(of_primary(self.primary.server().port(), upstream.ssl || has_ssl, Whose::Upstream));
        }
        Ok(Whom {
            name: upstream.host.clone(),
            port: upstream.port,
            ssl: upstream.ssl,
            position: Whose::Upstream,
            is_asked: false,
            address: None,
            is_here: false,
        })
    }
}
