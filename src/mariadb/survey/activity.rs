//! Other users of a server: its replicas, clients and writers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fields::{bytes, rows, shown, text};
use super::{LIMIT, MOST, fact};
use crate::host::conversation::AgentError;
use crate::mariadb::sql::Server;
use crate::proto::server::ResultSet;

/// Time during which writes are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of connected clients that are named.
const MOST_CLIENTS: usize = 20;

/// Returns the replicas of a server: server IDs and hosts, which not all of them have reported. There are
/// none if the account may not see them.
pub(super) async fn downstreams(server: &Server<'_>) -> Result<Vec<(u32, String)>, AgentError> {
    Ok(downstreams_in(&ask(server, "SHOW SLAVE HOSTS").await?))
}

fn downstreams_in(sets: &[ResultSet]) -> Vec<(u32, String)> {
    let of = |row| Some((text(row, 0).parse().ok()?, text(row, 1)));
    rows(sets).filter_map(of).take(MOST).collect()
}

/// Returns the number of connected semi-synchronous replicas, if the server counts them.
pub(super) async fn semi_sync_clients(server: &Server<'_>) -> Result<Option<String>, AgentError> {
    let sets = ask(server, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'").await?;
    Ok(rows(&sets).next().map(|row| text(row, 1)))
}

/// Returns clients that are connected over the network, `USER@HOST`.
pub(super) async fn clients(server: &Server<'_>) -> Result<Vec<String>, AgentError> {
    let statement = format!(
        "SELECT user, host FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND command NOT \
         LIKE 'Binlog Dump%' AND user NOT IN ('system user', 'event_scheduler') AND host NOT IN ('', \
         'localhost') LIMIT {MOST_CLIENTS}"
    );
    Ok(clients_in(&ask(server, &statement).await?))
}

fn clients_in(sets: &[ResultSet]) -> Vec<String> {
    let client = |row| format!("{}@{}", text(row, 0), shown(without_port(bytes(row, 1))));
    rows(sets).map(client).take(MOST_CLIENTS).collect()
}

/// Returns the host in `HOST:PORT`.
fn without_port(place: &[u8]) -> &[u8] {
    match place.iter().rposition(|byte| *byte == b':') {
        Some(colon) if place[colon + 1..].iter().all(u8::is_ascii_digit) => &place[..colon],
        _ => place,
    }
}

/// Returns whether clients write to the server itself, as opposed to what it replicates.
pub(super) async fn is_written(server: &Server<'_>) -> Result<bool, AgentError> {
    let before = own_writes(server).await?;
    tokio::time::sleep(INTERVAL).await;
    let after = own_writes(server).await?;
    Ok(before.zip(after).is_some_and(|(before, after)| before != after))
}

/// Returns the GTIDs of the last writes to the server itself; `None` if it has no GTIDs.
async fn own_writes(server: &Server<'_>) -> Result<Option<BTreeSet<String>>, AgentError> {
    Ok(own_writes_in(&ask(server, "SELECT @@global.gtid_binlog_state, @@server_id").await?))
}

fn own_writes_in(sets: &[ResultSet]) -> Option<BTreeSet<String>> {
    let row = rows(sets).next()?;
    let (state, id) = (String::from_utf8_lossy(bytes(row, 0)), text(row, 1));
    let is_own = |gtid: &&str| gtid.split('-').nth(1) == Some(&id);
    Some(state.split(',').map(str::trim).filter(is_own).take(MOST).map(ToOwned::to_owned).collect())
}

/// Returns the answer of a server; none if it refuses.
async fn ask(server: &Server<'_>, statement: &str) -> Result<Vec<ResultSet>, AgentError> {
    Ok(fact(server.query(LIMIT, statement).await)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::survey::fields::samples::{assert_harmless, hostile, row, set};

    #[test]
    fn replicas_without_a_host_count() {
        let rows = vec![row(["2", "10.0.0.2", "3306", "1"]), row(["3", "", "3306", "1"]), row(["x", "y"])];
        assert_eq!(downstreams_in(&[set(rows)]), [(2, "10.0.0.2".to_owned()), (3, String::new())]);
        assert!(downstreams_in(&[]).is_empty());
    }

    #[test]
    fn clients_are_named_without_their_ports() {
        let rows = vec![
            row(["app", "10.0.0.7:51234"]),
            row(["app", "fd77::7:51234"]),
            row(["unauthenticated user", "connecting host"]),
        ];
        let found = clients_in(&[set(rows)]);
        assert_eq!(found, ["app@10.0.0.7", "app@fd77::7", "unauthenticated user@connecting host"]);
    }

    #[test]
    fn only_own_writes_count() {
        let of = |state: &str| own_writes_in(&[set(vec![row([state, "2"])])]).unwrap();
        let before = of("0-1-100,0-2-5,7-2-9");
        assert_eq!(before.iter().collect::<Vec<_>>(), ["0-2-5", "7-2-9"]);
        assert_eq!(before, of("0-1-200,0-2-5, 7-2-9"));
        assert_ne!(before, of("0-1-100,0-2-6,7-2-9"));
        assert!(own_writes_in(&[]).is_none() && of("").is_empty() && of("2").is_empty());
    }

    #[test]
    fn hostile_server_fills_nothing() {
        let long = hostile();
        let many = |field: fn(usize) -> String| {
            let rows = (0..5000).map(|n| row([&field(n), &long]));
            [set(rows.collect())]
        };
        let replicas = downstreams_in(&many(|n| n.to_string()));
        assert_eq!(replicas.len(), MOST);
        assert_harmless(&replicas[0].1);
        let connected = clients_in(&many(|_| hostile()));
        assert_eq!(connected.len(), MOST_CLIENTS);
        assert!(connected[0].len() < 1200 && !connected[0].contains('\u{1b}'));
        let state = (0..5000).map(|n| format!("{n}-2-1")).collect::<Vec<_>>().join(",");
        assert_eq!(own_writes_in(&[set(vec![row([&state, "2"])])]).unwrap().len(), MOST);
    }
}
