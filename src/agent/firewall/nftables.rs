//! Chains of nftables, also those of iptables-nft.
//!
//! The text of `nft` is parsed, and not its JSON: nft 1.0.6 (Debian 12) frees the flags of a table before it
//! prints them, so that JSON does not show which tables have an owner. Depth tells a table's flags from those of
//! a set, and a chain's hook from the comment of a rule.

use super::{FirewallError, Rule};
use crate::agent::tool::Tool;
use crate::proto::journal::Family;

/// Maximum size of a listed ruleset in bytes. Elements of sets are not listed.
const MOST: usize = 64 << 20;

/// Base chain that filters packets that come in over IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Address family of the table: `ip`, `ip6` or `inet`.
    pub(super) family: String,
    /// Table.
    pub(super) table: String,
    /// Name.
    pub(super) name: String,
    /// Only the process that made the table can change it.
    pub(super) is_owned: bool,
}

impl Chain {
    /// Returns whether it sees packets of an address family.
    pub(super) fn filters(&self, family: Family) -> bool {
        self.family == "inet" || self.family == word(family)
    }
}

/// Inserts a rule into all input chains of its family, or none, and returns how many these are.
pub(super) fn open(rule: &Rule<'_>) -> Result<usize, FirewallError> {
    let family = super::family(rule.peer);
    let chains = chains()?;
    let chains: Vec<&Chain> =
        chains.iter().filter(|chain| chain.filters(family) && !chain.is_owned).collect();
    let insert = |chain: &&Chain| {
        format!(
            "insert rule {} {} {} {} saddr {} tcp dport {} accept comment \"{}\"\n",
            chain.family,
            chain.table,
            chain.name,
            word(family),
            rule.peer,
            rule.port,
            rule.tag
        )
    };
    let script: String = chains.iter().map(insert).collect();
    run(script)?;
    Ok(chains.len())
}

/// Removes all rules with a tag, and returns whether they are gone.
pub(super) fn close(tag: &str) -> Result<bool, FirewallError> {
    let delete = |rule: &Tagged| {
        format!("delete rule {} {} {} handle {}\n", rule.family, rule.table, rule.chain, rule.handle)
    };
    let script = tagged(&list()?, tag).iter().map(delete).collect();
    // One that another process removes at the same time makes the whole script fail: the list decides.
    let result = run(script);
    let is_gone = tagged(&list()?, tag).is_empty();
    if is_gone { Ok(true) } else { result.map(|()| false) }
}

/// Returns all base chains that filter input over IP.
pub(super) fn chains() -> Result<Vec<Chain>, FirewallError> {
    Ok(parse_chains(&list()?))
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Lists the ruleset without the elements of sets, of which there may be a million.
fn list() -> Result<String, FirewallError> {
    let output = Tool::new("nft").args(["-t", "-a", "list", "ruleset"]).most(MOST).succeed()?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Runs a script, which takes effect as a whole or not at all.
fn run(script: String) -> Result<(), FirewallError> {
    if !script.is_empty() {
        Tool::new("nft").args(["-f", "-"]).input(script).succeed()?;
    }
    Ok(())
}

/// Splits a line into its depth and its text.
fn depth(line: &str) -> (usize, &str) {
    let text = line.trim_start_matches('\t');
    (line.len() - text.len(), text)
}

/// Returns the words of the line that begins a table or a chain, without `{` and what follows.
fn head<'a, const N: usize>(text: &'a str, keyword: &str) -> Option<[&'a str; N]> {
    let mut words = text.strip_prefix(keyword)?.strip_prefix(' ')?.split(' ');
    let mut head = [""; N];
    for slot in &mut head {
        *slot = words.next()?;
    }
    (words.next() == Some("{")).then_some(head)
}

fn parse_chains(ruleset: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let (mut family, mut table, mut name, mut is_owned) = ("", "", "", false);
    let mut is_base = false;
    for line in ruleset.lines() {
        match depth(line) {
            (0, text) => {
                if let Some([of, called]) = head(text, "table") {
                    (family, table, is_owned, is_base) = (of, called, false, false);
                }
            }
            (1, text) => {
                if let Some([chain]) = head(text, "chain") {
                    (name, is_base) = (chain, true);
                } else if let Some(flags) = text.strip_prefix("flags ") {
                    is_owned = flags.split([',', ' ', ';']).any(|flag| flag == "owner");
                } else if text.ends_with('{') || text == "}" {
                    is_base = false;
                }
            }
            (2, text) if is_base && text.starts_with("type filter hook input ") => {
                if matches!(family, "ip" | "ip6" | "inet") {
                    let (family, table, name) = (family.to_owned(), table.to_owned(), name.to_owned());
                    chains.push(Chain { family, table, name, is_owned });
                }
            }
            _ => {}
        }
    }
    chains
}

/// Rule with a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tagged {
    family: String,
    table: String,
    chain: String,
    handle: u64,
}

fn tagged(ruleset: &str, tag: &str) -> Vec<Tagged> {
    let comment = format!(" comment \"{tag}\" # handle ");
    let mut rules = Vec::new();
    let (mut family, mut table, mut chain) = ("", "", "");
    for line in ruleset.lines() {
        match depth(line) {
            (0, text) => {
                if let Some([of, called]) = head(text, "table") {
                    (family, table) = (of, called);
                }
            }
            (1, text) => {
                if let Some([called]) = head(text, "chain") {
                    chain = called;
                }
            }
            (_, text) => {
                let handle =
                    text.rsplit_once(&comment).and_then(|(_, handle)| handle.trim_end().parse().ok());
                let (family, table, chain) = (family.to_owned(), table.to_owned(), chain.to_owned());
                rules.extend(handle.map(|handle| Tagged { family, table, chain, handle }));
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ruleset with comments and names that resemble other lines.
    const RULESET: &str = "\
table inet firewalld { # handle 3 progname firewalld
	flags owner,persist

	chain filter_INPUT { # handle 1
		type filter hook input priority filter + 10; policy accept;
		ct state invalid drop # handle 4
	}

	chain filter_IN_public { # handle 2
		tcp dport 22 accept comment \"type filter hook input\" # handle 5
	}
}
table inet site { # handle 4
	comment \"flags owner\"
	set flags { # handle 7
		type ipv4_addr
		flags interval
		comment \"owner\"
	}

	chain input { # handle 1
		comment \"flags owner\"
		type filter hook input priority -5; policy drop;
		ip saddr 10.0.0.1 tcp dport 4400 accept comment \"transfer-r1-t\" # handle 9
		ip saddr 10.0.0.1 tcp dport 4400 accept comment \"transfer-r1-t2\" # handle 10
		ip saddr 10.0.0.1 tcp dport 4400 accept comment \"x transfer-r1-t\" # handle 11
	}

	chain early { # handle 2
		type filter hook ingress device \"e0\" priority filter; policy accept;
	}

	chain raw { # handle 3
		type filter hook prerouting priority raw; policy drop;
	}
}
table ip filter { # handle 5
	chain INPUT { # handle 1
		type filter hook input priority filter; policy drop;
		ip saddr 10.0.0.1 tcp dport 4400 accept comment \"transfer-r1-t\" # handle 2
	}

	chain late { # handle 2
		type nat hook input priority 100; policy accept;
	}
}
table ip6 filter { # handle 6
	chain INPUT { # handle 1
		type filter hook input priority filter; policy drop;
	}
}
table bridge filter { # handle 7
	chain INPUT { # handle 1
		type filter hook input priority filter; policy drop;
	}
}
table inet owner { # handle 8
	set s { # handle 1
		type ifname
		flags owner
	}
}
";

    #[test]
    fn only_base_chains_of_ip_input_are_found() {
        let chains = parse_chains(RULESET);
        let shown: Vec<String> = chains
            .iter()
            .map(|chain| {
                let owner = if chain.is_owned { "owned" } else { "free" };
                format!("{} {} {owner} {}", chain.family, chain.table, chain.name)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "inet firewalld owned filter_INPUT",
                "inet site free input",
                "ip filter free INPUT",
                "ip6 filter free INPUT"
            ]
        );
        assert!(chains[1].filters(Family::V4) && chains[1].filters(Family::V6));
        assert!(chains[2].filters(Family::V4) && !chains[2].filters(Family::V6));
    }

    #[test]
    fn rules_with_exactly_the_tag_are_found() {
        let found = tagged(RULESET, "transfer-r1-t");
        let shown: Vec<_> =
            found.iter().map(|rule| (rule.table.as_str(), rule.chain.as_str(), rule.handle)).collect();
        assert_eq!(shown, [("site", "input", 9), ("filter", "INPUT", 2)]);
        assert!(tagged(RULESET, "transfer-r1").is_empty());
    }

    #[test]
    fn other_text_has_neither_chains_nor_rules() {
        for text in ["", "table", "table inet", "chain x {\n\t\ttype filter hook input", "\t\t\t"] {
            assert!(parse_chains(text).is_empty() && tagged(text, "t").is_empty(), "{text}");
        }
    }
}
