//! Whom new replicas follow: what was ordered, what the hosts said, and what follows from both. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use super::refusal;
use crate::cli;
use crate::endpoint::HostName;
use crate::host::facts::{Facts, Installed, Upstream};
use crate::plan::replica::Whose;
use crate::preflight::Finding;

/// What is known where nothing is.
static NO_SERVER: LazyLock<Installed> = LazyLock::new(Installed::default);

/// What a host is to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is replicated from.
    Primary,
    /// It is copied.
    Donor,
    /// It becomes one.
    Target,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Donor => "donor",
            Self::Target => "target",
        }
    }
}

/// An order, and what its hosts said.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) order: &'a cli::Replica,
    pub(super) donor: (HostName, Facts),
    /// Where it is the donor, too, the same.
    pub(super) primary: (HostName, Facts),
    pub(super) targets: Vec<(HostName, Facts)>,
}

/// The server that is replicated from.
#[derive(Clone, Debug)]
pub(super) struct Whom {
    /// As it is told.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) ssl: bool,
    pub(super) position: Whose,
    /// It is a host of the order, and no other.
    pub(super) is_asked: bool,
    /// Its own address, if it is known.
    address: Option<IpAddr>,
    /// It is this machine.
    is_here: bool,
}

/// How a target reaches it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reached {
    pub(super) host: String,
    pub(super) own: String,
    pub(super) current: String,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) may_replicate: bool,
    pub(super) error: Option<String>,
}

/// The name without who logs in.
pub(super) fn bare(name: &HostName) -> String {
    let name = name.to_string();
    name.rsplit('@').next().unwrap_or_default().to_owned()
}

/// The server of a host, or one of which nothing is known.
pub(super) fn server(facts: &Facts) -> &Installed {
    facts.installed.as_ref().unwrap_or(&NO_SERVER)
}

impl Whom {
    /// What is tried from a target: a name, and the address that it must lead to where that is known.
    pub(super) fn seen_by(&self, order: &cli::Replica, target: &Facts) -> (String, String) {
        if let Some(said) = &order.primary_address {
            return (said.clone(), String::new());
        }
        // The target knows this machine as the address that its SSH connection came from.
        let here = target.ssh.map(|(controller, _)| controller).filter(|_| self.is_here);
        match here.or(self.address) {
            Some(address) => (self.name.clone(), address.to_string()),
            None => (self.name.clone(), String::new()),
        }
    }
}

impl Asked<'_> {
    pub(super) fn donor(&self) -> &Installed {
        server(&self.donor.1)
    }

    /// They replicate from where the donor does.
    pub(super) fn beside(&self) -> bool {
        !self.order.replicate_from_primary
            && (self.order.from.is_some() || !self.donor().upstreams.is_empty())
    }

    /// Where the donor gets from what the order's primary has; the only one, where that is not named.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        let (name, facts) = &self.primary;
        let own = facts.ssh.map(|(_, own)| own);
        let is_primary = |upstream: &&Upstream| {
            let address = upstream.host.parse::<IpAddr>().ok();
            upstream.host == bare(name)
                || address.is_some_and(|address| Some(address) == own || facts.addresses.contains(&address))
                || upstream.server_id == server(facts).server_id() && upstream.server_id != 0
        };
        if self.order.from.is_some() {
            return self.donor().upstreams.iter().find(is_primary);
        }
        self.donor().upstreams.first().filter(|_| self.donor().upstreams.len() == 1)
    }

    /// Whom they replicate from.
    pub(super) fn whom(&self) -> Result<Whom, Finding> {
        let donor = self.donor();
        let (name, facts) = &self.primary;
        if self.order.sibling && donor.upstreams.is_empty() {
            let fix = "leave out --sibling, to let the new ones replicate from it";
            return Err(refusal(&self.donor.0, "it replicates from nobody", fix));
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
        let has_ssl = server(facts).instance.variable("have_ssl") == "YES";
        if !self.beside() {
            return Ok(of_primary(donor.port(), has_ssl, Whose::Own));
        }
        let Some(upstream) = self.upstream() else {
            let many = donor.upstreams.len();
            return Err(if self.order.from.is_some() {
                let fix = "name a replica of it with --from, or leave that out";
                refusal(&self.donor.0, &format!("it does not replicate from {name}"), fix)
            } else {
                let fix = "replicate from it with --replicate-from-primary, or name the one with --from: transfer replica PRIMARY TARGET --from DONOR";
                refusal(&self.donor.0, &format!("it replicates from {many} servers"), fix)
            });
        };
        if self.order.from.is_some() {
            return Ok(of_primary(server(facts).port(), upstream.ssl || has_ssl, Whose::Upstream));
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
