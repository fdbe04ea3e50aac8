//! Brings a replica to a moment of its donor, and stops it there.

use std::time::{Duration, Instant};

use super::contents::{Contents, Reading, Tables, read};
use super::donor::SETTINGS;
use super::error::Trouble;
use super::follow::{INTERVAL, LIMIT, is_reached, own_position};
use super::patience::Patience;
use super::status::{self, Status};
use crate::base::statement::literal;
use crate::config::values::TableCheck;
use crate::mariadb::plan::Position;
use crate::mariadb::sql::{Connection, Server};

/// Stops replication and returns the GTID up to which changes were applied.
pub(super) async fn stop(server: &Server<'_>, idle: Duration) -> Result<String, Trouble> {
    let mut server = server.connection();
    stop_threads(&mut server, idle).await?;
    Ok(own_position(&mut server).await?)
}

/// Lets a replica continue to exactly this position, reads its tables there, and starts its replication
/// again.
pub(super) async fn read_at(
    server: &Server<'_>,
    position: &Position,
    check: TableCheck,
    idle: Duration,
) -> Result<Contents, Trouble> {
    {
        let mut server = server.connection();
        go_to(&mut server, position, idle).await?;
        stop_threads(&mut server, idle).await?;
    }
    let mut contents = Contents::new();
    let session = server.open().await?;
    session.execute(LIMIT, SETTINGS).await?;
    let Tables { transactional, others, .. } = Tables::list(&session).await?;
    for tables in [transactional, others] {
        read(&session, check, Reading::Plain, tables, &mut contents).await?;
    }
    session.execute(LIMIT, "START SLAVE").await?;
    Ok(contents)
}

/// Waits until both threads are stopped. A change that is being applied comes to its end first.
async fn stop_threads(server: &mut Connection<'_>, idle: Duration) -> Result<(), Trouble> {
    let mut patience = Patience::new(idle);
    let clock = Instant::now();
    loop {
        // It waits for the change, maybe for too long: the state of the threads counts.
        let _ = server.execute(LIMIT, "STOP SLAVE").await;
        let status = status(server).await?;
        if status.is_stopped() {
            return Ok(());
        }
        if patience.is_over(clock.elapsed(), (), status.is_behind()) {
            return Err(Trouble::NotStopping);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Lets a stopped replica apply changes up to a position.
async fn go_to(server: &mut Connection<'_>, position: &Position, idle: Duration) -> Result<(), Trouble> {
    let until = match position {
        Position::Gtid(gtid) => format!("master_gtid_pos = {}", literal(gtid)),
        Position::File(file, offset) => {
            format!("MASTER_LOG_FILE = {}, MASTER_LOG_POS = {offset}", literal(file))
        }
    };
    server.execute(LIMIT, &format!("START SLAVE UNTIL {until}")).await?;
    let mut patience = Patience::new(idle);
    let clock = Instant::now();
    loop {
        let status = status(server).await?;
        if !status.sql_error.is_empty() {
            return Err(Trouble::Stopped(status.sql_error));
        }
        // A replica that is there already, or that has several threads, stops only at the next change.
        let is_there = match position {
            _ if !status.sql => true,
            Position::Gtid(gtid) => is_reached(server, gtid, 0).await,
            Position::File(file, offset) => status.applied == (file.clone(), *offset),
        };
        if is_there {
            return Ok(());
        }
        if patience.is_over(clock.elapsed(), status.applied.clone(), status.is_behind()) {
            return Err(Trouble::NoProgress { position: position.clone(), idle });
        }
        tokio::time::sleep(INTERVAL / 2).await;
    }
}

async fn status(server: &mut Connection<'_>) -> Result<Status, Trouble> {
    Ok(Status::first(&server.execute(LIMIT, status::STATEMENT).await?))
}
