//! Addresses of the host, the way from them to others by the routing table, and addresses of names.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::LIMIT;
use crate::agent::tool::{Tool, ToolError};
use crate::proto::facts::{MOST_ADDRESSES, Route};

/// Port of the connections that are never used: discard.
const ANY_PORT: u16 = 9;
/// Flags of IPv6 addresses that the host will not keep, or may not use: temporary, failed, deprecated, tentative.
const PASSING: u8 = 0x01 | 0x08 | 0x20 | 0x40;
/// Scope of global addresses.
const GLOBAL: u8 = 0;
/// Status of `getent` when it has found nothing.
const NOT_FOUND: i32 = 2;

/// Returns the addresses at which the host may be reached: global ones that it will keep, of links that are up.
pub(super) fn addresses() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let own = interfaces();
    let usable = own.iter().filter_map(|(_, address)| match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(*address),
        _ => None,
    });
    found.extend(usable);
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let lasting = table.lines().filter_map(lasting);
    found.extend(lasting.filter(|entry| own.iter().any(|own| own == entry)).map(|(_, address)| address));
    let mut seen = BTreeSet::new();
    found.retain(|address| seen.insert(*address));
    found
}

/// Returns the ways to other addresses.
pub(crate) fn routes(addresses: &[IpAddr]) -> Vec<Route> {
    let own = interfaces();
    let is_own = |address: IpAddr| address.is_loopback() || own.iter().any(|(_, own)| *own == address);
    addresses
        .iter()
        .map(|address| Route {
            address: *address,
            source: source(*address),
            own: is_own(address.to_canonical()),
        })
        .collect()
}

/// Returns the address from which a connection would be made. A datagram socket sends nothing for that.
fn source(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(address, ANY_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

/// Returns the addresses of a name, in the order in which programs of this host try them. A static program
/// has no name service switch: `getent` is asked. Without it there are none.
pub(crate) fn resolve(name: &str) -> Result<Vec<IpAddr>, ToolError> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    match Tool::new("getent").args(["ahosts", "--", name]).limit(LIMIT).run() {
        Ok(output) if output.status.success() => Ok(listed(&output.stdout)),
        Ok(output) if output.status.code() == Some(NOT_FOUND) => Ok(Vec::new()),
        Ok(output) => Err(ToolError::Failed { program: "getent".into(), said: output.last_words() }),
        Err(ToolError::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Returns the different addresses in lines `ADDRESS TYPE NAME`.
fn listed(lines: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(lines);
    let mut found: Vec<IpAddr> = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse::<IpAddr>().ok()) {
        let address = address.to_canonical();
        if found.len() < MOST_ADDRESSES && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Returns all addresses of links that are up, with the names of the links.
fn interfaces() -> Vec<(String, IpAddr)> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let up = all.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    up.filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let v6 = storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
        Some((interface.interface_name, v4.or(v6)?))
    })
    .collect()
}

/// Parses `ADDRESS LINK PREFIX SCOPE FLAGS NAME` of a global address that the host will keep.
fn lasting(line: &str) -> Option<(String, IpAddr)> {
    let mut words = line.split_ascii_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let scope = u8::from_str_radix(words.nth(2)?, 16).ok()?;
    let flags = u32::from_str_radix(words.next()?, 16).ok()?;
    (scope == GLOBAL && flags & u32::from(PASSING) == 0)
        .then(|| Some((words.next()?.to_owned(), Ipv6Addr::from(address).into())))?
}

/// Returns the addresses of both ends of the SSH connection as this host sees them, from `SSH_CONNECTION`.
pub(super) fn ssh(connection: &str) -> Option<(IpAddr, IpAddr)> {
    let mut words = connection.split_ascii_whitespace();
    let peer: IpAddr = words.next()?.parse().ok()?;
    let own: IpAddr = words.nth(1)?.parse().ok()?;
    Some((peer.to_canonical(), own.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_and_local_addresses_are_left_out() {
        let line = |scope: &str, flags: &str| {
            format!("fd770000000000000000000000000001 02 40 {scope} {flags}     eth0")
        };
        let address: IpAddr = "fd77::1".parse().unwrap();
        assert_eq!(lasting(&line("00", "80")), Some(("eth0".into(), address)));
        for (scope, flags) in
            [("20", "80"), ("10", "80"), ("00", "01"), ("00", "c0"), ("00", "a0"), ("00", "88")]
        {
            assert_eq!(lasting(&line(scope, flags)), None, "{scope} {flags}");
        }
        assert_eq!(lasting("x"), None);
    }

    #[test]
    fn addresses_are_those_that_ip_lists() {
        let listed = Tool::new("ip").args(["-o", "address", "show", "up", "scope", "global"]).succeed();
        let Ok(listed) = listed else { return };
        let listed = String::from_utf8(listed).unwrap();
        let is_passing = |line: &&str| {
            ["temporary", "tentative", "deprecated", "dadfailed"].iter().any(|word| line.contains(word))
        };
        let lines = listed.lines().filter(|line| !is_passing(line));
        let expected: BTreeSet<IpAddr> = lines
            .map(|line| line.split_whitespace().nth(3).unwrap().split('/').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(addresses().into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn own_addresses_are_known_as_such() {
        let routes = routes(&["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
        assert!(routes[0].own && routes[0].source == Some([127, 0, 0, 1].into()));
        assert!(!routes[1].own);
        for own in addresses() {
            let route = super::routes(&[own])[0];
            assert!(route.own && route.source == Some(own), "{own}");
        }
    }

    #[test]
    fn names_are_resolved_by_the_host() {
        let list = b"10.0.0.7  STREAM db1\n10.0.0.7  DGRAM\nfd77::7   STREAM\n::ffff:10.0.0.7 RAW\n\
            fe80::1%eth0 RAW\n\n";
        assert_eq!(listed(list), ["10.0.0.7", "fd77::7"].map(|text| text.parse::<IpAddr>().unwrap()));
        let many: String = (0..300).map(|n| format!("10.0.{}.{} STREAM\n", n / 250, n % 250)).collect();
        assert_eq!(listed(many.as_bytes()).len(), MOST_ADDRESSES);
        assert!(resolve("").unwrap().is_empty());
        if Tool::new("getent").args(["ahosts", "--", "127.0.0.1"]).succeed().is_ok() {
            assert_eq!(resolve("127.0.0.1").unwrap(), [IpAddr::from([127, 0, 0, 1])]);
            assert!(resolve("no-such-host.invalid").unwrap().is_empty());
            assert!(resolve("--help").unwrap().is_empty());
        }
    }

    #[test]
    fn ends_of_the_connection_are_canonical() {
        let (peer, own) = ssh("::ffff:10.0.0.9 5 fd77::1 22").unwrap();
        assert_eq!((peer.to_string(), own.to_string()), ("10.0.0.9".into(), "fd77::1".into()));
        assert_eq!(ssh(""), None);
    }
}
