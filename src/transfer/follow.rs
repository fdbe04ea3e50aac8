//! Setup of a replica from a published copy: starts its server, starts replication, waits until it has caught
//! up, and compares tables. Until the commit the new data is provisional, and any failure restores the old
//! server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::{BackupFacts, Lane};
use crate::error::{Error, chain};
use crate::host::agent::{AgentError, Command, Job};
use crate::host::scripts::Script;
use crate::host::wire::{LONGEST_TEXT, message, printable};
use crate::lease::{self, End};
use crate::pipeline::jobs;
use crate::plan::Plan;
use crate::plan::replica::{Account, AccountPlan, Follow, Position, ReplicaPlan, Whose, is_gtid};
use crate::progress::{Phase, Progress};
use crate::run_id::random_hex;
use crate::values::TableCheck;
use crate::verify;

/// Interval of progress reports.
const LOOK: Duration = Duration::from_millis(250);

/// Facts about a new replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Upstream, as named by the user.
    pub primary: String,
    /// Address of the upstream as the replica uses it, `HOST:PORT`.
    pub place: String,
    /// Replication account.
    pub user: String,
    /// The account was created for this replica.
    pub made: bool,
    /// Binlog position at which replication began.
    pub began: Position,
    /// GTID position of the replica.
    pub gtid: String,
    /// Lag behind the upstream.
    pub lag: Duration,
    /// Successful comparison of the tables with those of the donor: method, number of tables, and GTID or
    /// binlog position.
    pub tables: Option<(TableCheck, u64, String)>,
    /// Duration of each step, in order.
    pub steps: Vec<(&'static str, Duration)>,
}

/// Provides the replication accounts of all lanes. Marks lanes without one as failed.
pub(super) async fn accounts(plan: &Plan, primary: Option<&End>, lanes: &mut [Lane<'_>]) {
    let Some(replica) = &plan.replica else { return };
    for lane in lanes {
        match account(plan, replica, primary, lane).await {
            Ok(account) => lane.account = Some(account),
            Err(error) => lane.fail(error),
        }
    }
}

async fn account(
    plan: &Plan,
    replica: &ReplicaPlan,
    primary: Option<&End>,
    lane: &Lane<'_>,
) -> Result<Account, Error> {
    let (follow, socket, primary) = match (&replica.account, &lane.plan.follow, primary) {
        (AccountPlan::Given(account), ..) => return Ok(account.clone()),
        (AccountPlan::Create { socket, .. }, Some(follow), Some(primary)) => (follow, socket, primary),
        _ => return Err(Error::Failed("no server to create the replication account on".into())),
    };
    let password = random_hex::<16>()
        .map_err(|error| Error::Failed(format!("cannot get random numbers for a password: {error}")))?;
    let account = Account::new(plan.account_name(lane.plan.number), password);
    let account = account.ok_or_else(|| Error::Failed("invalid name of a replication account".into()))?;
    lease::make_account(primary, (socket, &replica.defaults_file), (&account, &follow.own)).await?;
    // Checked now, not after hours of copying.
    let script =
        Script::reach(&follow.host, "", (replica.port, replica.ssl), (&account.user, account.password()));
    let answer = lane.end.host.ask("a login with the new account", &script).await?;
    let refused = answer.iter().find(|fields| fields.len() > 1 && fields[0] == b"reach_error");
    match refused {
        Some(fields) => Err(Error::Failed(format!(
            "{}: the account {}@{} was created on {}, but a login with it failed here: {}",
            lane.end.agent.host(),
            account.user,
            follow.own,
            replica.primary,
            message(&fields[1], LONGEST_TEXT)
        ))),
        None => Ok(account),
    }
}

/// Returns the error that a job reported as a fact.
fn reported(end: &End, job: &Job, what: &str) -> Error {
    let why = job.facts.get("error").map_or_else(|| "the job was killed".to_owned(), Clone::clone);
    Error::Failed(format!("{}: {what}: {why}", end.agent.host()))
}

/// Returns the binlog position of the copy.
fn position(replica: &ReplicaPlan, backup: &BackupFacts) -> Result<Position, Error> {
    let found = match replica.position {
        Whose::Own if !backup.gtid.is_empty() => Some(Position::Gtid(backup.gtid.clone())),
        Whose::Own => backup.binlog.clone().map(|(file, position)| Position::File(file, position)),
        Whose::Upstream => backup.source_position.as_deref().and_then(of_statement),
    };
    found.ok_or_else(|| Error::Failed("the backup does not contain its binlog position".into()))
}

/// Parses the position from the statements in a backup of a replica.
fn of_statement(text: &str) -> Option<Position> {
    let quoted = |key: &str| {
        let rest = text.split_once(key)?.1.trim_start().strip_prefix('=')?.trim_start().strip_prefix('\'')?;
        Some(rest.split_once('\'')?.0.to_owned())
    };
    if let Some(gtid) = quoted("gtid_slave_pos").filter(|gtid| !gtid.is_empty()) {
        return Some(Position::Gtid(gtid));
    }
    let rest = text.split_once("MASTER_LOG_POS")?.1.trim_start().strip_prefix('=')?.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    Some(Position::File(quoted("MASTER_LOG_FILE")?, digits.parse().ok()?))
}

/// Starts the server of a lane with its copy, starts replication, and waits until it has caught up.
pub(super) async fn follow(
    plan: &Plan,
    lane: &Lane<'_>,
    (replica, how): (&ReplicaPlan, &Follow),
    backup: &BackupFacts,
    progress: &Progress,
) -> Result<Followed, Error> {
    let account = lane.account.as_ref().ok_or_else(|| Error::Failed("no replication account".into()))?;
    let began = position(replica, backup)?;
    progress.phase(Phase::Starting);
    let clock = Instant::now();
    lease::start_server(lane.end, lane.plan, how, &replica.defaults_file).await?;
    let started = clock.elapsed();
    progress.phase(Phase::CatchingUp);
    let script = jobs::follow(plan, replica, how, &began);
    let (gtid, lag) = wait(lane.end, &script, account, replica, progress).await?;
    Ok(Followed {
        primary: replica.primary.clone(),
        place: format!("{}:{}", how.host, replica.port),
        user: account.user.clone(),
        made: matches!(replica.account, AccountPlan::Create { .. }),
        began,
        gtid,
        lag,
        tables: None,
        steps: vec![("starting", started), ("catching up", clock.elapsed().saturating_sub(started))],
    })
}

/// Runs a job that ends when the replica has caught up. Returns the replica's GTID position and lag.
async fn wait(
    end: &End,
    script: &[u8],
    account: &Account,
    replica: &ReplicaPlan,
    progress: &Progress,
) -> Result<(String, Duration), Error> {
    let key = Zeroizing::new(format!("{}\n{}", account.user, account.password()));
    lease::job(&end.agent, "follow", script, &key).await?;
    let job = loop {
        tokio::select! {
            ended = end.agent.ended("follow") => break ended?,
            () = tokio::time::sleep(LOOK) => {
                let behind = end.agent.job("follow").facts.get("behind").and_then(|behind| behind.parse::<u64>().ok());
                progress.waits(behind.map(|seconds| format!("{seconds} s behind")));
            }
        }
    };
    let lag = job.facts.get("lag_ms").and_then(|lag| lag.parse().ok()).map(Duration::from_millis);
    match lag {
        Some(lag) if job.exit == Some(0) => Ok((job.facts.get("gtid").cloned().unwrap_or_default(), lag)),
        _ => Err(reported(end, &job, &format!("replication from {} failed", replica.primary))),
    }
}

/// Returns the position at which the source has read its tables, in the form that the replica uses.
fn moment_of(job: &Job, began: &Position) -> Option<Position> {
    let fact = |key: &str| job.facts.get(key).cloned().unwrap_or_default();
    match began {
        Position::Gtid(_) => Some(fact("gtid")).filter(|gtid| is_gtid(gtid)).map(Position::Gtid),
        Position::File(..) => Some(Position::File(fact("file"), fact("position").parse().ok()?)),
    }
}

/// Lane whose replica has caught up.
pub(super) struct Caught<'a, 'b> {
    pub(super) lane: &'a Lane<'b>,
    pub(super) followed: Followed,
}

/// Compares the tables of all replicas with those of the donor, at one position of it. Each replica has its
/// own result.
pub(super) async fn compare_tables(
    plan: &Plan,
    source: &End,
    (replica, check): (&ReplicaPlan, TableCheck),
    caught: Vec<Caught<'_, '_>>,
    progress: &Progress,
) -> Vec<Result<Followed, Error>> {
    progress.phase(Phase::Comparing);
    let clock = Instant::now();
    // The replicas stop before the position is chosen: none can be past it.
    let stopped = join_all(caught.iter().map(|caught| async {
        let script = caught.lane.plan.follow.as_ref().map(|how| jobs::rest_tables(plan, replica, how));
        run(caught.lane.end, &script.unwrap_or_default(), "cannot stop replication for the comparison").await
    }));
    let stopped = stopped.await;
    // Without a replica to compare, the donor's writes must not be blocked.
    if stopped.iter().all(Result::is_err) {
        return stopped.into_iter().filter_map(Result::err).map(Err).collect();
    }
    let behind = stopped.iter().flatten().filter_map(|job| job.facts.get("gtid").cloned());
    let behind = behind.filter(|gtid| is_gtid(gtid));
    let script = jobs::source_tables(plan, replica, check, &behind.collect::<Vec<_>>());
    let moment = match lease::job(&source.agent, "tables", &script, "").await {
        Ok(()) => {
            source.agent.until("tables", |job| job.facts.contains_key("gtid") || job.exit.is_some()).await
        }
        Err(error) => Err(error),
    };
    let moment = match moment {
        Ok(job) if job.facts.contains_key("gtid") => Ok(job),
        Ok(job) => Err(reported(source, &job, "cannot read its tables in one snapshot").chain()),
        Err(error) => Err(chain(&error)),
    };
    let of_source = async { source.agent.ended("tables").await.map_err(Error::from) };
    let of_targets = async {
        let read = join_all(caught.iter().zip(stopped).map(|(caught, stopped)| async {
            stopped?;
            let moment = moment.as_ref().map_err(|text| Error::Failed(text.clone()))?;
            let moment = moment_of(moment, &caught.followed.began)
                .ok_or_else(|| Error::Failed("the source reported no position for the comparison".into()))?;
            let how = caught.lane.plan.follow.as_ref();
            let how = how.ok_or_else(|| Error::Failed("no replication was planned".into()))?;
            let script = jobs::target_tables(plan, replica, how, check, &moment);
            run(caught.lane.end, &script, "cannot read its tables at the position of the source").await
        }))
        .await;
        if read.iter().all(Result::is_err) {
            // A failure to stop the job shows below, where its end is waited for.
            let _ = source.agent.call(Command::StopJob("tables")).await;
        }
        read
    };
    let (of_source, of_targets) = if moment.is_ok() {
        tokio::join!(of_source, of_targets)
    } else {
        (Err(Error::Failed(String::new())), of_targets.await)
    };
    let of_source = match of_source {
        Ok(job) if job.exit == Some(0) => Ok(job),
        Ok(job) => Err(reported(source, &job, "cannot read its tables").chain()),
        Err(error) => Err(error.chain()),
    };
    let compared = caught.into_iter().zip(of_targets).map(|(Caught { lane, mut followed }, here)| {
        let of_source = &of_source;
        async move {
            let (here, there) = (here?, of_source.as_ref().map_err(|text| Error::Failed(text.clone()))?);
            let (list, other) = (there.manifests.get("tables"), here.manifests.get("tables"));
            if list.is_none() || list != other {
                let differences = verify::differences(source, lane.end, "tables").await?;
                return Err(Error::Verification(format!(
                    "{}: its tables differ from those of {}: {differences}",
                    lane.plan.endpoint.host, plan.source.endpoint.host
                )));
            }
            let place =
                moment_of(there, &followed.began).map_or_else(String::new, |moment| moment.to_string());
            followed.tables = Some((check, list.map_or(0, |list| list.records), place));
            followed.steps.push(("comparing tables", clock.elapsed()));
            // Replication was stopped during the comparison.
            let account = lane.account.as_ref();
            let account = account.ok_or_else(|| Error::Failed("no replication account".into()))?;
            let how = lane.plan.follow.as_ref();
            let how = how.ok_or_else(|| Error::Failed("no replication was planned".into()))?;
            let again = Instant::now();
            let script = jobs::follow_again(plan, replica, how);
            (followed.gtid, followed.lag) = wait(lane.end, &script, account, replica, progress).await?;
            followed.steps.push(("catching up again", again.elapsed()));
            Ok(followed)
        }
    });
    join_all(compared).await
}

/// Runs a job `tables` and requires it to succeed.
async fn run(end: &End, script: &[u8], what: &str) -> Result<Job, Error> {
    lease::job(&end.agent, "tables", script, "").await?;
    let job = end.agent.ended("tables").await?;
    if job.exit == Some(0) { Ok(job) } else { Err(reported(end, &job, what)) }
}

/// Commits the provisional data and the account. The account first: a replica cannot work without one.
pub(super) async fn accept(plan: &Plan, primary: Option<&End>, lane: &Lane<'_>) -> Result<(), Error> {
    let Some(replica) = &plan.replica else { return Ok(()) };
    if let (AccountPlan::Create { socket, .. }, Some(primary), Some(account), Some(how)) =
        (&replica.account, primary, &lane.account, &lane.plan.follow)
    {
        let server = (socket.as_str(), replica.defaults_file.as_str());
        lease::keep_account(primary, server, (account, &how.own)).await?;
        return match lease::accept(lane.end, lane.plan).await {
            // The agent's event counts, even if its reply was lost.
            Err(_) if lane.end.agent.published() => Ok(()),
            // Only if the agent denies the commit. If it was lost, the state is unknown, and a replica would
            // need its account.
            Err(error @ AgentError::Failed { .. }) => {
                lease::give_up_account(primary, server, (account, &how.own)).await?;
                Err(error.into())
            }
            accepted => Ok(accepted?),
        };
    }
    match lease::accept(lane.end, lane.plan).await {
        Err(_) if lane.end.agent.published() => Ok(()),
        accepted => Ok(accepted?),
    }
}

/// Restores the old server now, before the release of all agents. The release retries what fails here.
pub(super) async fn give_back(lane: &Lane<'_>) {
    // Jobs that use the new server would delay this.
    for job in ["follow", "tables"] {
        if lane.end.agent.job(job).exit.is_none() {
            let _ = lane.end.agent.call(Command::StopJob(job)).await;
        }
    }
    match lease::restart(&lane.end.agent).await {
        Ok(_) => {}
        Err(error) => {
            let name = printable(lane.plan.final_path.as_os_str().as_encoded_bytes());
            tracing::warn!("the old server of {name} is not running again yet: {}", chain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_parsed_from_the_backup_of_a_replica() {
        let gtid =
            "SET GLOBAL gtid_slave_pos = '0-1-6,5-9-100';\nCHANGE MASTER TO master_use_gtid = slave_pos;";
        assert_eq!(of_statement(gtid), Some(Position::Gtid("0-1-6,5-9-100".into())));
        let named =
            "SET GLOBAL gtid_slave_pos = '0-1-6';\nCHANGE MASTER 'main' TO master_use_gtid = slave_pos;";
        assert_eq!(of_statement(named), Some(Position::Gtid("0-1-6".into())));
        let file = "CHANGE MASTER TO MASTER_LOG_FILE='mysql-bin.000007', MASTER_LOG_POS=1234;\n";
        assert_eq!(of_statement(file), Some(Position::File("mysql-bin.000007".into(), 1234)));
        for text in ["", "CHANGE MASTER TO", "MASTER_LOG_FILE='x', MASTER_LOG_POS=", "gtid_slave_pos = ''"] {
            assert_eq!(of_statement(text), None, "{text}");
        }
    }
}
