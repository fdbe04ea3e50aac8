//! A copy that has its name becomes a replica, on trial: its server is started with it, follows, catches up, and is compared. Until it
//! is accepted, the old server comes back whatever happens.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::{BackupFacts, Lane};
use crate::error::{Error, chain};
use crate::host::agent::{AgentError, Job};
use crate::host::scripts::Script;
use crate::host::wire::{LONGEST_TEXT, printable, short};
use crate::lease::{self, End};
use crate::pipeline::jobs;
use crate::plan::Plan;
use crate::plan::replica::{Account, AccountPlan, Follow, Position, ReplicaPlan, Whose, is_gtid};
use crate::progress::{Phase, Progress};
use crate::run_id::random_hex;
use crate::values::TableCheck;
use crate::verify;

/// How often the progress is told.
const LOOK: Duration = Duration::from_millis(250);

/// The facts of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The server that it replicates from, as the user knows it.
    pub primary: String,
    /// How it gets there, `HOST:PORT`.
    pub place: String,
    /// By which account.
    pub user: String,
    /// The account was made for it.
    pub made: bool,
    /// Where in the other one's binary log it began.
    pub began: Position,
    /// What it has, as a GTID.
    pub gtid: String,
    /// It had all that the other one had so long ago.
    pub lag: Duration,
    /// Its tables and those of the server that was copied are the same: how they were compared, how many there are, and at which
    /// GTID or place.
    pub tables: Option<(TableCheck, u64, String)>,
    /// How long each step took, in order.
    pub steps: Vec<(&'static str, Duration)>,
}

/// Accounts for all lanes, where each gets one of its own. One that gets none has failed.
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
        _ => return Err(Error::Failed("there is nobody who could make an account".into())),
    };
    let password = random_hex::<16>()
        .map_err(|error| Error::Failed(format!("no random numbers for a password: {error}")))?;
    let account = Account::new(plan.account_name(lane.plan.number), password);
    let account = account.ok_or_else(|| Error::Failed("that is no name of an account".into()))?;
    lease::make_account(primary, (socket, &replica.defaults_file), (&account, &follow.own)).await?;
    // Not after hours of copying.
    let script =
        Script::reach(&follow.host, "", (replica.port, replica.ssl), (&account.user, account.password()));
    let answer = lane.end.host.ask("a login with the new account", &script).await?;
    let refused = answer.iter().find(|message| message.len() > 1 && message[0] == b"reach_error");
    match refused {
        Some(message) => Err(Error::Failed(format!(
            "{}: the account {}@{} was made on {}, but cannot be used from there: {}",
            lane.end.agent.host(),
            account.user,
            follow.own,
            replica.primary,
            short(&message[1], LONGEST_TEXT)
        ))),
        None => Ok(account),
    }
}

/// What an error says that a job told as a fact.
fn told(end: &End, job: &Job, what: &str) -> Error {
    let why = job.facts.get("error").map_or_else(|| "it was ended".to_owned(), Clone::clone);
    Error::Failed(format!("{}: {what}: {why}", end.agent.host()))
}

/// Where the copy begins.
fn position(replica: &ReplicaPlan, backup: &BackupFacts) -> Result<Position, Error> {
    let found = match replica.position {
        Whose::Own if !backup.gtid.is_empty() => Some(Position::Gtid(backup.gtid.clone())),
        Whose::Own => backup.binlog.clone().map(|(file, position)| Position::File(file, position)),
        Whose::Upstream => backup.source_position.as_deref().and_then(of_statement),
    };
    found.ok_or_else(|| Error::Failed("the backup does not tell the position that it is of".into()))
}

/// The position in the statements that a backup of a replica brings.
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

/// Starts the server of a lane with its copy, lets it follow, and waits until it has caught up.
pub(super) async fn follow(
    plan: &Plan,
    lane: &Lane<'_>,
    (replica, how): (&ReplicaPlan, &Follow),
    backup: &BackupFacts,
    progress: &Progress,
) -> Result<Followed, Error> {
    let account = lane.account.as_ref().ok_or_else(|| Error::Failed("there is no account".into()))?;
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

/// Runs a job that ends when the replica has caught up. Returns its GTID and its lag.
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
        _ => Err(told(end, &job, &format!("it does not replicate from {}", replica.primary))),
    }
}

/// The moment at which a source has read its tables, in the way in which a replica follows it.
fn moment_of(job: &Job, began: &Position) -> Option<Position> {
    let fact = |key: &str| job.facts.get(key).cloned().unwrap_or_default();
    match began {
        Position::Gtid(_) => Some(fact("gtid")).filter(|gtid| is_gtid(gtid)).map(Position::Gtid),
        Position::File(..) => Some(Position::File(fact("file"), fact("position").parse().ok()?)),
    }
}

/// A lane whose replica has caught up.
pub(super) struct Caught<'a, 'b> {
    pub(super) lane: &'a Lane<'b>,
    pub(super) followed: Followed,
}

/// Compares the tables of all replicas with those of the server that was copied, at one moment of it. Each keeps its own error.
pub(super) async fn compare_tables(
    plan: &Plan,
    source: &End,
    (replica, check): (&ReplicaPlan, TableCheck),
    caught: Vec<Caught<'_, '_>>,
    progress: &Progress,
) -> Vec<Result<Followed, Error>> {
    progress.phase(Phase::Comparing);
    let clock = Instant::now();
    // Before the moment, so that all of them come to it.
    let resting = join_all(caught.iter().map(|caught| async {
        let script = caught.lane.plan.follow.as_ref().map(|how| jobs::rest_tables(plan, replica, how));
        run(caught.lane.end, &script.unwrap_or_default(), "it cannot stand still").await
    }));
    let resting = resting.await;
    // Nobody's writes wait for a comparison that cannot be.
    if resting.iter().all(Result::is_err) {
        return resting.into_iter().filter_map(Result::err).map(Err).collect();
    }
    let behind = resting.iter().flatten().filter_map(|job| job.facts.get("gtid").cloned());
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
        Ok(job) => Err(told(source, &job, "its tables cannot be read at one moment").chain()),
        Err(error) => Err(chain(&error)),
    };
    let of_source = async { source.agent.ended("tables").await.map_err(Error::from) };
    let of_targets = async {
        let read = join_all(caught.iter().zip(resting).map(|(caught, rested)| async {
            rested?;
            let moment = moment.as_ref().map_err(|text| Error::Failed(text.clone()))?;
            let moment = moment_of(moment, &caught.followed.began)
                .ok_or_else(|| Error::Failed("the source tells no moment to compare its tables at".into()))?;
            let how =
                caught.lane.plan.follow.as_ref().ok_or_else(|| Error::Failed("it follows nobody".into()))?;
            let script = jobs::target_tables(plan, replica, how, check, &moment);
            run(caught.lane.end, &script, "its tables cannot be read at that moment").await
        }))
        .await;
        if read.iter().all(Result::is_err) {
            // Its end is what is waited for, and told, whatever becomes of this.
            let _ = source.agent.call("stop_job", &[b"tables"]).await;
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
        Ok(job) => Err(told(source, &job, "its tables cannot be read").chain()),
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
                    "{}: its tables are not those of {}: {differences}",
                    lane.plan.endpoint.host, plan.source.endpoint.host
                )));
            }
            let place =
                moment_of(there, &followed.began).map_or_else(String::new, |moment| moment.to_string());
            followed.tables = Some((check, list.map_or(0, |list| list.records), place));
            followed.steps.push(("comparing tables", clock.elapsed()));
            // It stood still meanwhile.
            let account = lane.account.as_ref().ok_or_else(|| Error::Failed("there is no account".into()))?;
            let how = lane.plan.follow.as_ref().ok_or_else(|| Error::Failed("it follows nobody".into()))?;
            let again = Instant::now();
            let script = jobs::follow_again(plan, replica, how);
            (followed.gtid, followed.lag) = wait(lane.end, &script, account, replica, progress).await?;
            followed.steps.push(("catching up again", again.elapsed()));
            Ok(followed)
        }
    });
    join_all(compared).await
}

/// Runs a job `tables` to its end, which must be good.
async fn run(end: &End, script: &[u8], what: &str) -> Result<Job, Error> {
    lease::job(&end.agent, "tables", script, "").await?;
    let job = end.agent.ended("tables").await?;
    if job.exit == Some(0) { Ok(job) } else { Err(told(end, &job, what)) }
}

/// What was on trial stays, and so does its account. The account first: a replica without one would be none.
pub(super) async fn accept(plan: &Plan, primary: Option<&End>, lane: &Lane<'_>) -> Result<(), Error> {
    let Some(replica) = &plan.replica else { return Ok(()) };
    if let (AccountPlan::Create { socket, .. }, Some(primary), Some(account), Some(how)) =
        (&replica.account, primary, &lane.account, &lane.plan.follow)
    {
        let server = (socket.as_str(), replica.defaults_file.as_str());
        lease::keep_account(primary, server, (account, &how.own)).await?;
        return match lease::accept(lane.end, lane.plan).await {
            // Its word is what counts, whatever became of the reply.
            Err(_) if lane.end.agent.published() => Ok(()),
            // One that says that it has not. Of one that says nothing nobody knows, and a replica needs its account.
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

/// The old server comes back, and does not wait for the release of all. What does not succeed is tried again at the end.
pub(super) async fn give_back(lane: &Lane<'_>) {
    // What waits for the new server would be in its way.
    for job in ["follow", "tables"] {
        if lane.end.agent.job(job).exit.is_none() {
            let _ = lane.end.agent.call("stop_job", &[job.as_bytes()]).await;
        }
    }
    match lease::restart(&lane.end.agent).await {
        Ok(_) => {}
        Err(error) => {
            let name = printable(lane.plan.final_path.as_os_str().as_encoded_bytes());
            tracing::warn!("the old server of {name} is not back yet: {}", chain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_a_replica_is_read_from_what_its_backup_says() {
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
