//! Tables of the donor at one moment: a consistent snapshot, and locks on tables that no snapshot covers.

use std::time::{Duration, Instant};

use super::contents::{Contents, Reading, Table, Tables, read};
use super::error::{Named as _, Trouble};
use super::follow::{LIMIT, first, is_reached, own_position};
use super::patience::Patience;
use crate::base::statement::literal;
use crate::config::values::TableCheck;
use crate::mariadb::plan::{Position, Whose, is_gtid};
use crate::mariadb::sql::{Server, Session, SqlError, text};

/// Settings of a session that reads tables. It may have nothing to do while another one reads.
pub(super) const SETTINGS: &str = "SET SESSION wait_timeout = 31536000, SESSION max_statement_time = 0,
    SESSION idle_transaction_timeout = 0, SESSION idle_readonly_transaction_timeout = 0";
/// Maximum time to wait for locks, in which others wait for us.
const LOCK_TIMEOUT: &str = "SET SESSION lock_wait_timeout = 60";
/// Time limit of taking all locks.
const LOCK_LIMIT: Duration = Duration::from_secs(3600);
/// Maximum length in bytes of the names in one statement; a message has at most 1 MiB.
const MOST_NAMES: usize = 256 << 10;
/// Position of a replica in its snapshot.
const OF_UPSTREAM: &str = "SELECT COALESCE(GROUP_CONCAT(a.domain_id, '-', a.server_id, '-', a.seq_no), '')
    FROM mysql.gtid_slave_pos a
    WHERE a.sub_id = (SELECT MAX(b.sub_id) FROM mysql.gtid_slave_pos b WHERE b.domain_id = a.domain_id)";
/// Seconds that a donor itself waits for the position of its copies.
const WAIT_SECONDS: u32 = 5;

/// Moment of a donor, as far as replicas know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    gtid: String,
    place: Option<(String, u64)>,
}

/// Tables of a donor at one moment. Dropping it ends the snapshot and the locks.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    moment: Moment,
    session: Session<'a>,
    tables: Vec<Table>,
    locked: Vec<(Session<'a>, Vec<Table>)>,
}

impl Moment {
    /// Returns the position in the form from which a replica began.
    pub(super) fn position(&self, began: &Position) -> Option<Position> {
        match began {
            Position::Gtid(_) => Some(self.gtid.clone()).filter(|gtid| is_gtid(gtid)).map(Position::Gtid),
            Position::File(..) => self.place.clone().map(|(file, offset)| Position::File(file, offset)),
        }
    }
}

/// Begins a snapshot of a donor that is not before the positions at which its copies have stopped. With
/// `whose` of the upstream the donor is a replica beside its copies, and may be behind them.
pub(super) async fn begin<'a>(
    server: &Server<'a>,
    whose: Whose,
    idle: Duration,
    copies: &[String],
) -> Result<Snapshot<'a>, Trouble> {
    if whose == Whose::Upstream {
        for gtid in copies {
            reach(server, gtid, idle).await?;
        }
    }
    let session = open(server).await?;
    let tables = Tables::list(&session).await?;
    let mut locked = Vec::new();
    for tables in in_parts(tables.others) {
        let holder = open(server).await?;
        let names: Vec<String> = tables.iter().map(Table::quoted).collect();
        let lock = format!("{LOCK_TIMEOUT}; FLUSH TABLES {} WITH READ LOCK", names.join(", "));
        holder.execute(LOCK_LIMIT, &lock).await.or_trouble("cannot lock its tables")?;
        locked.push((holder, tables));
    }
    let begin = format!(
        "{LOCK_TIMEOUT}; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
        START TRANSACTION WITH CONSISTENT SNAPSHOT"
    );
    session.execute(LIMIT, &begin).await.or_trouble("cannot begin a snapshot")?;
    let moment = moment(&session, whose).await.or_trouble("cannot get the position of the snapshot")?;
    Ok(Snapshot { moment, session, tables: tables.transactional, locked })
}

impl Snapshot<'_> {
    /// Returns the moment.
    pub(super) fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Reads all tables: first those whose writers wait.
    pub(super) async fn read(self, check: TableCheck) -> Result<Contents, Trouble> {
        let Self { session, tables, locked, .. } = self;
        let mut contents = Contents::new();
        for (holder, tables) in locked {
            read(&holder, check, Reading::Locked, tables, &mut contents).await?;
        }
        read(&session, check, Reading::Snapshot, tables, &mut contents).await?;
        Ok(contents)
    }
}

async fn open<'a>(server: &Server<'a>) -> Result<Session<'a>, Trouble> {
    let session = server.open().await?;
    session.execute(LIMIT, SETTINGS).await?;
    Ok(session)
}

/// Returns the position of a snapshot.
async fn moment(session: &Session<'_>, whose: Whose) -> Result<Moment, SqlError> {
    if whose == Whose::Upstream {
        return Ok(Moment { gtid: first(&session.execute(LIMIT, OF_UPSTREAM).await?), place: None });
    }
    let status = "SHOW STATUS LIKE 'binlog_snapshot_file'; SHOW STATUS LIKE 'binlog_snapshot_position'";
    let sets = session.execute(LIMIT, status).await?;
    let value = |index: usize| sets.get(index).and_then(|set| set.rows.first()).map(|row| text(row, 1));
    let (file, offset) = (value(0).unwrap_or_default(), value(1).and_then(|text| text.parse::<u64>().ok()));
    let Some(offset) = offset else { return Ok(Moment::default()) };
    let gtid = format!("SELECT COALESCE(BINLOG_GTID_POS({}, {offset}), '')", literal(&file));
    Ok(Moment { gtid: first(&session.execute(LIMIT, &gtid).await?), place: Some((file, offset)) })
}

/// Waits until a replica that is a donor has applied everything up to a GTID.
async fn reach(server: &Server<'_>, gtid: &str, idle: Duration) -> Result<(), Trouble> {
    let mut server = server.connection();
    let mut patience = Patience::new(idle);
    let clock = Instant::now();
    while !is_reached(&mut server, gtid, WAIT_SECONDS).await {
        let at = own_position(&mut server).await?;
        if patience.is_over(clock.elapsed(), at.clone(), false) {
            return Err(Trouble::Behind { at, gtid: gtid.to_owned() });
        }
    }
    Ok(())
}

/// Returns tables in parts whose names fit into one statement. A server has one list of locks for each
/// session.
fn in_parts(tables: Vec<Table>) -> Vec<Vec<Table>> {
    let mut parts: Vec<Vec<Table>> = Vec::new();
    let mut length = MOST_NAMES;
    for table in tables {
        let added = table.quoted().len() + ", ".len();
        length += added;
        if length > MOST_NAMES {
            length = added;
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(table);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::HostBytes;
    use crate::proto::server::ResultSet;

    #[test]
    fn moment_has_the_form_from_which_a_replica_began() {
        let (by_gtid, by_file) = (Position::Gtid("0-1-1".into()), Position::File("bin.000001".into(), 4));
        let moment = Moment { gtid: "0-1-9,5-2-3".into(), place: Some(("bin.000002".into(), 77)) };
        assert_eq!(moment.position(&by_gtid), Some(Position::Gtid("0-1-9,5-2-3".into())));
        assert_eq!(moment.position(&by_file), Some(Position::File("bin.000002".into(), 77)));
        for gtid in ["", "0-1-9'); DROP"] {
            let moment = Moment { gtid: gtid.into(), place: None };
            assert_eq!((moment.position(&by_gtid), moment.position(&by_file)), (None, None));
        }
    }

    #[test]
    fn names_of_very_many_tables_fit_into_statements() {
        let row =
            |number: u32| ["shop", &format!("t{number:063}"), ""].map(|field| Some(HostBytes::from(field)));
        let rows = (0..10_000).map(|number| row(number).into()).collect();
        let tables = Tables::of(&[ResultSet { rows, ..ResultSet::default() }]).unwrap().others;
        let parts = in_parts(tables.clone());
        let length = |part: &Vec<Table>| part.iter().map(|table| table.quoted().len() + 2).sum::<usize>();
        assert!(parts.iter().all(|part| length(part) <= MOST_NAMES));
        assert_eq!((parts.len(), parts.concat()), (3, tables));
        assert!(in_parts(Vec::new()).is_empty());
    }
}
