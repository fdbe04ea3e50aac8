//! Firewall layers to open on a target.

use std::net::IpAddr;

use crate::config::values::FirewallChoice;
use crate::host::facts::{Facts, Family, Layer};

/// Returns the layers of a host that filter packets from `peer` and that `choice` allows to open.
///
/// Chains of iptables-nft are base chains of nftables like any other: `auto` opens all of them with `nft`,
/// and uses iptables only if there is no `nft`.
#[must_use]
pub(crate) fn layers(facts: &Facts, choice: FirewallChoice, peer: IpAddr) -> Vec<Layer> {
    let family = if peer.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut found: Vec<Layer> =
        facts.firewall.iter().filter(|(_, of)| *of == family).map(|(layer, _)| *layer).collect();
    found.sort();
    found.dedup();
    match choice {
        FirewallChoice::None => found.clear(),
        FirewallChoice::Nftables => found.retain(|layer| *layer == Layer::Nftables),
        FirewallChoice::Iptables => found.retain(|layer| *layer != Layer::Nftables),
        FirewallChoice::Auto => {
            if found.contains(&Layer::Nftables) {
                found.retain(|layer| *layer != Layer::IptablesNft);
            }
        }
    }
    found
}

/// Returns the tables that filter packets from `peer` and that `choice` would open, but that only their owner
/// can change.
pub(crate) fn not_ours_to_open(
    facts: &Facts,
    choice: FirewallChoice,
    peer: IpAddr,
) -> impl Iterator<Item = &String> {
    let opens = matches!(choice, FirewallChoice::Auto | FirewallChoice::Nftables);
    let blind = if peer.is_ipv4() { "ip6 " } else { "ip " };
    facts.owned_tables.iter().filter(move |table| opens && !table.starts_with(blind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_in_use_is_opened_once() {
        let facts = Facts {
            firewall: vec![
                (Layer::IptablesLegacy, Family::V4),
                (Layer::IptablesNft, Family::V4),
                (Layer::Nftables, Family::V4),
                (Layer::Nftables, Family::V6),
            ],
            ..Facts::default()
        };
        let v4 = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(layers(&facts, FirewallChoice::Auto, v4), [Layer::Nftables, Layer::IptablesLegacy]);
        assert_eq!(layers(&facts, FirewallChoice::Iptables, v4), [Layer::IptablesNft, Layer::IptablesLegacy]);
        assert_eq!(layers(&facts, FirewallChoice::Nftables, v4), [Layer::Nftables]);
        assert!(layers(&facts, FirewallChoice::None, v4).is_empty());
        assert_eq!(layers(&facts, FirewallChoice::Auto, "fd77::11".parse().unwrap()), [Layer::Nftables]);
    }
}
