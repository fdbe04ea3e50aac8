//! A firewall that a run has to open.

/// Lets in ssh only: a run needs a rule of its own, and a rule that stays is seen. The table is `inet
/// closed`.
pub(crate) const FIREWALL: &str = "nft -f - <<'RULES'
    add table inet closed
    delete table inet closed
    table inet closed {
        chain input {
            type filter hook input priority 0; policy drop;
            ct state established,related accept
            iif lo accept
            tcp dport 22 accept
            meta l4proto { icmp, ipv6-icmp } accept
        }
    }
RULES";
