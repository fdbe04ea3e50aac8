//! Servers that run on a path, and whether they can be logged in to.

use std::path::PathBuf;

use super::{LIMIT, fact};
use crate::host::conversation::{AgentError, Conversation};
use crate::host::facts::{OtherServer, Relation, Server};
use crate::mariadb::sql;
use crate::proto::facts::server::{OtherServer as FoundOther, Relation as FoundRelation, Server as Found};
use crate::proto::server::Login;

/// Returns servers that the agent has found on a path.
#[must_use]
pub(crate) fn servers(found: &[Found]) -> Vec<Server> {
    let server = |found: &Found| Server {
        relation: match found.relation {
            FoundRelation::Within => Relation::Within,
            FoundRelation::Around => Relation::Around,
        },
        datadir: found.datadir.clone().into(),
        unit: found.unit.to_string(),
        socket: found.socket.to_string(),
        error: None,
    };
    found.iter().map(server).collect()
}

/// Returns servers of ordinary accounts that the agent has found on a path.
#[must_use]
pub(crate) fn other_servers(found: &[FoundOther]) -> Vec<OtherServer> {
    let other = |found: &FoundOther| OtherServer {
        datadir: PathBuf::from(found.datadir.clone()),
        account: found.account.to_string(),
    };
    found.iter().map(other).collect()
}

/// Returns servers that the agent has found on a path and that the run will stop, with the errors of logins
/// to them. A server without a known socket has no error.
pub(crate) async fn try_logins(
    agent: &Conversation,
    found: &[Found],
    defaults_file: &str,
) -> Result<Vec<Server>, AgentError> {
    let mut all = servers(found);
    for (server, found) in all.iter_mut().zip(found) {
        if found.socket.is_empty() {
            continue;
        }
        let login = Login { socket: found.socket.clone(), defaults_file: defaults_file.into() };
        let unit = Some(found.unit.to_string()).filter(|unit| !unit.is_empty());
        let answer = sql::Server { agent, login, unit }.query(LIMIT, "SELECT 1").await;
        server.error = fact(answer)?.err();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{HostBytes, Text};

    #[test]
    fn found_servers_keep_their_facts() {
        let found = Found {
            relation: FoundRelation::Around,
            datadir: HostBytes::from(b"/srv/\xff".to_vec()),
            unit: Text::new("mariadb@one.service"),
            socket: HostBytes::from("/run/one.sock"),
        };
        let [server] = servers(&[found]).try_into().unwrap();
        assert_eq!((server.relation, server.unit.as_str()), (Relation::Around, "mariadb@one.service"));
        assert_eq!(server.datadir.as_os_str().as_encoded_bytes(), b"/srv/\xff");
        assert_eq!((server.socket.as_str(), server.error), ("/run/one.sock", None));
        let other = FoundOther { datadir: HostBytes::from("/home/eve/db"), account: Text::new("eve") };
        let expected = OtherServer { datadir: "/home/eve/db".into(), account: "eve".into() };
        assert_eq!(other_servers(&[other]), [expected]);
    }
}
