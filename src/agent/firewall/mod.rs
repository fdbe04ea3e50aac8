//! Firewall rules for one peer and one port.
//!
//! A packet that one chain accepts can still be dropped by the next, so the rule goes in front of every chain that
//! filters input of the peer's family: into all of them, or none. It has the run's tag as its comment, by which
//! the rollback finds it, also after another tool has loaded its rules again.

mod iptables;
mod nftables;

use std::net::IpAddr;
use std::time::Duration;

use super::tool::ToolError;
use crate::proto::journal::{Family, Layer};

/// Rule that admits a peer to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    /// Layer of the firewall.
    pub(crate) layer: Layer,
    /// Peer.
    pub(crate) peer: IpAddr,
    /// Port of this host.
    pub(crate) port: u16,
    /// Comment.
    pub(crate) tag: &'a str,
}

/// Layers that filter incoming packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Layers in use, and of which address family.
    pub(crate) used: Vec<(Layer, Family)>,
    /// Tables of nftables, such as `inet site`, that only their owner process can change.
    pub(crate) owned: Vec<String>,
}

/// Error of a firewall.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// The rules cannot be listed or changed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Rules are still there after they were removed.
    #[error("rules with the comment {tag} are still in {}; remove them by hand", layer.name())]
    Remain {
        /// Layer of the firewall.
        layer: Layer,
        /// Comment of the rules.
        tag: String,
    },
    /// A tag has characters that the comment of a rule cannot have.
    #[error("{0:?} cannot be the comment of a rule")]
    Tag(String),
}

/// Returns the address family of an address.
pub(crate) fn family(address: IpAddr) -> Family {
    match address.to_canonical() {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Inserts a rule in front of those that are there, and returns into how many chains. The undo must be journaled
/// before.
pub(crate) fn open(rule: &Rule<'_>) -> Result<usize, FirewallError> {
    check(rule.tag)?;
    let rule = Rule { peer: rule.peer.to_canonical(), ..*rule };
    match rule.layer {
        Layer::Nftables => nftables::open(&rule),
        Layer::IptablesNft | Layer::IptablesLegacy => iptables::open(&rule),
    }
}

/// Removes every rule with exactly this tag, and lists the rules again to prove it. Rules that cannot be listed
/// are not known to be gone. `patience` is the maximum time to wait for the lock of iptables.
pub(crate) fn close(
    layer: Layer,
    family: Family,
    tag: &str,
    patience: Duration,
) -> Result<(), FirewallError> {
    check(tag)?;
    let is_gone = match layer {
        Layer::Nftables => nftables::close(tag)?,
        Layer::IptablesNft | Layer::IptablesLegacy => iptables::close(layer, family, tag, patience)?,
    };
    if is_gone { Ok(()) } else { Err(FirewallError::Remain { layer, tag: tag.to_owned() }) }
}

/// Returns the layers that filter incoming packets. Nothing is listed whose listing would load or create it.
/// Without root they cannot be seen.
pub(crate) fn layers() -> Layers {
    let mut layers = Layers::default();
    if !rustix::process::geteuid().is_root() {
        return layers;
    }
    for family in [Family::V4, Family::V6] {
        layers.used.extend(iptables::used(family).into_iter().map(|layer| (layer, family)));
    }
    for chain in nftables::chains().unwrap_or_default() {
        let used = [Family::V4, Family::V6].into_iter().filter(|family| chain.filters(*family));
        for pair in used.map(|family| (Layer::Nftables, family)) {
            if !layers.used.contains(&pair) {
                layers.used.push(pair);
            }
        }
        let table = format!("{} {}", chain.family, chain.table);
        if chain.is_owned && !layers.owned.contains(&table) {
            layers.owned.push(table);
        }
    }
    layers
}

/// Refuses tags that a firewall would quote or cut.
fn check(tag: &str) -> Result<(), FirewallError> {
    const LONGEST: usize = 127;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !tag.is_empty() && tag.len() <= LONGEST && tag.chars().all(is_plain) {
        Ok(())
    } else {
        Err(FirewallError::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests;
