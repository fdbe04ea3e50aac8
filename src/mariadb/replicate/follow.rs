//! Start of replication on a new replica, and the wait until it has caught up.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::error::{Named as _, Trouble};
use super::status::{self, Status};
use super::watch::{Limits, Step, Watch};
use crate::base::printable::printable;
use crate::base::statement::{account, identifier, literal};
use crate::mariadb::plan::{Account, Position};
use crate::mariadb::sql::{Connection, RemoteServer, Server, Session, SqlError, name, text, value};
use crate::proto::server::{Remote, ResultSet};

/// Time limit of a statement.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Interval of the looks at a replica.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// Seconds that a replica itself waits for a position.
const WAIT_SECONDS: u32 = 1;

/// Replica that follows an upstream.
#[derive(Clone, Debug)]
pub(super) struct Following<'a> {
    /// Server, which runs with a copy.
    pub(super) server: Server<'a>,
    /// The upstream, with the replication account.
    pub(super) upstream: RemoteServer<'a>,
    /// Limits of the wait.
    pub(super) limits: Limits,
    /// The configuration enables the event scheduler.
    pub(super) events: bool,
}

impl Following<'_> {
    /// Starts replication from a position.
    pub(super) async fn start(&self, from: &Position) -> Result<(), Trouble> {
        let session = self.server.open().await.or_trouble("the new replica does not answer")?;
        drop_connections(&session).await?;
        session.execute(LIMIT, "SET GLOBAL read_only = 1").await.or_trouble("cannot make it read-only")?;
        disable_events(&session).await?;
        if self.events {
            let on = session.execute(LIMIT, "SET GLOBAL event_scheduler = ON").await;
            on.or_trouble("cannot start its event scheduler")?;
        }
        let statements = change_master(&self.upstream.remote, self.upstream.account, from);
        session.execute(LIMIT, &statements).await.or_trouble("cannot configure its replication")?;
        session.execute(LIMIT, "START SLAVE").await.or_trouble("cannot start its replication")?;
        Ok(())
    }

    /// Waits until both threads run and the replica has applied everything that the upstream had, within the
    /// maximum lag. The lag that a replica reports covers only changes that it has fetched; it is passed to
    /// `report`. Returns the replica's GTID and its lag.
    pub(super) async fn wait(&self, report: impl Fn(Option<u64>)) -> Result<(String, Duration), Trouble> {
        let mut watch = Watch::new(self.limits);
        let mut server = self.server.connection();
        let clock = Instant::now();
        loop {
            let sets = server.execute(LIMIT, status::STATEMENT).await;
            let status = Status::first(&sets.or_trouble("the new replica does not answer")?);
            let mut step = watch.look(clock.elapsed(), &status)?;
            if step == Step::Ask {
                let asked = clock.elapsed();
                let answer = position(&self.upstream).await;
                step = watch.answered(asked, clock.elapsed(), answer, &status)?;
            }
            if let Step::Await(gtid) = step {
                let is_reached = is_reached(&mut server, &gtid, WAIT_SECONDS).await;
                step = watch.awaited(clock.elapsed(), is_reached);
            }
            if let Step::Done(lag) = step {
                let gtid = own_position(&mut server).await;
                return Ok((gtid.unwrap_or(status.gtid), lag));
            }
            report(status.behind);
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Drops the connections that the copy has brought. They would run beside ours.
async fn drop_connections(session: &Session<'_>) -> Result<(), Trouble> {
    let sets = session
        .execute(LIMIT, status::STATEMENT)
        .await
        .or_trouble("cannot list its replication connections")?;
    for Status { name, .. } in Status::all(&sets) {
        let quoted = literal(&name);
        let dropped = session.execute(LIMIT, &format!("STOP SLAVE {quoted}; RESET SLAVE {quoted} ALL")).await;
        dropped
            .or_trouble(format!("cannot drop its replication connection '{}'", printable(name.as_bytes())))?;
    }
    Ok(())
}

/// Disables the events that the donor runs: a replica gets their changes from the binlog.
async fn disable_events(session: &Session<'_>) -> Result<(), Trouble> {
    const ENABLED: &str =
        "SELECT event_schema, event_name, definer FROM information_schema.events WHERE status = 'ENABLED'";
    let sets = session.execute(LIMIT, ENABLED).await.or_trouble("cannot list its events")?;
    for row in sets.iter().flat_map(|set| &set.rows) {
        let [schema, event, definer] = [0, 1, 2].map(|index| name(row, index));
        let disabled = session.execute(LIMIT, &disable_event(&schema, &event, &definer)).await;
        disabled.or_trouble(format!("cannot disable its event {}.{}", text(row, 0), text(row, 1)))?;
    }
    Ok(())
}

/// Returns the statement that disables an event. Without a definer in it, the login would become that.
fn disable_event(schema: &str, name: &str, definer: &str) -> String {
    let definer =
        definer.rsplit_once('@').map_or_else(|| literal(definer), |(user, host)| account(user, host));
    let event = format!("{}.{}", identifier(schema), identifier(name));
    format!("SET SESSION sql_log_bin = 0; ALTER DEFINER = {definer} EVENT {event} DISABLE ON SLAVE")
}

/// Returns the statements that configure replication. Logs of the session are off: they would show the
/// password.
fn change_master(remote: &Remote, account: &Account, from: &Position) -> Zeroizing<String> {
    let mut position = String::new();
    let start = match from {
        Position::Gtid(gtid) => {
            position = format!("SET GLOBAL gtid_slave_pos = {};\n", literal(gtid));
            "MASTER_USE_GTID = slave_pos".to_owned()
        }
        Position::File(file, offset) => {
            format!("MASTER_USE_GTID = no, MASTER_LOG_FILE = {}, MASTER_LOG_POS = {offset}", literal(file))
        }
    };
    let password = Zeroizing::new(literal(account.password()));
    Zeroizing::new(format!(
        "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0, SESSION sql_mode = '';\n{position}\
         CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {},\n\
         MASTER_CONNECT_RETRY = 10, MASTER_SSL = {}, MASTER_SSL_VERIFY_SERVER_CERT = 0, {start}",
        literal(&remote.host),
        remote.port,
        literal(&account.user),
        *password,
        u8::from(remote.tls),
    ))
}

/// Asks the upstream for its position.
async fn position(upstream: &RemoteServer<'_>) -> Result<String, String> {
    match upstream.query("SELECT @@global.gtid_binlog_pos").await {
        Ok(sets) => Ok(first(&sets)),
        Err(error) => Err(format!("the upstream does not answer: {error}")),
    }
}

/// Returns whether a replica has applied everything up to a GTID. Waits for it up to this time.
pub(super) async fn is_reached(server: &mut Connection<'_>, gtid: &str, seconds: u32) -> bool {
    let statement = format!("SELECT MASTER_GTID_WAIT({}, {seconds})", literal(gtid));
    // Why it failed shows where the state is read.
    let answer = server.execute(LIMIT, &statement).await;
    answer.is_ok_and(|sets| value(&sets).is_some_and(|value| value.as_bytes() == b"0"))
}

/// Returns the GTID up to which a replica has applied changes.
pub(super) async fn own_position(server: &mut Connection<'_>) -> Result<String, SqlError> {
    Ok(first(&server.execute(LIMIT, "SELECT @@global.gtid_slave_pos").await?))
}

/// Returns the first field of an answer in a form that can be shown; empty if it is NULL or missing.
pub(super) fn first(sets: &[ResultSet]) -> String {
    value(sets).map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_configured_from_either_position() {
        let remote = Remote { host: "db1".into(), port: 3307, tls: true };
        let account = Account::new("it's".into(), r"a\b".into()).unwrap();
        let statements = |from| change_master(&remote, &account, &from).lines().map(str::to_owned).collect();
        let [logs, gtid, master, options]: [String; 4] =
            Vec::try_into(statements(Position::Gtid("0-1-2".into()))).unwrap();
        assert_eq!(logs, "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0, SESSION sql_mode = '';");
        assert_eq!(gtid, "SET GLOBAL gtid_slave_pos = '0-1-2';");
        assert_eq!(
            master,
            "CHANGE MASTER TO MASTER_HOST = 'db1', MASTER_PORT = 3307, MASTER_USER = 'it''s', \
             MASTER_PASSWORD = 'a\\\\b',"
        );
        assert!(options.contains("MASTER_SSL = 1, ") && options.ends_with("MASTER_USE_GTID = slave_pos"));
        let by_file: Vec<String> = statements(Position::File("bin.000007".into(), 9));
        assert!(!by_file.concat().contains("gtid_slave_pos"));
        assert!(
            by_file[2].ends_with("MASTER_USE_GTID = no, MASTER_LOG_FILE = 'bin.000007', MASTER_LOG_POS = 9")
        );
    }

    #[test]
    fn definer_of_an_event_stays() {
        assert_eq!(
            disable_event("a`b", "e'1", "o'neil@x@%"),
            "SET SESSION sql_log_bin = 0; \
             ALTER DEFINER = 'o''neil@x'@'%' EVENT `a``b`.`e'1` DISABLE ON SLAVE"
        );
        assert!(disable_event("a", "b", "role").contains("DEFINER = 'role' EVENT"));
    }
}
