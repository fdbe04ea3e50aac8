//! When a new replica has caught up, and when it will not. Pure: times are those since the wait began.

use std::time::Duration;

use super::patience::Patience;
use super::status::{Io, Status};
use crate::base::printable::short;
use crate::mariadb::plan::{Whose, is_gtid};

/// Errors of an IO thread that no further attempt will end: no access to the database, wrong password, host
/// not permitted, missing privilege, binlog that cannot be read, plugin of the account, TLS.
const FATAL: [u64; 7] = [1044, 1045, 1130, 1227, 1236, 1698, 2026];
/// Number of answers of the upstream that each take longer than the maximum lag.
const MOST_SLOW: u32 = 5;
/// Maximum length in bytes of an unexpected answer in a message.
const LONGEST_ANSWER: usize = 100;

/// Limits of the wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Maximum lag of a replica that counts as caught up.
    pub(super) max_lag: Duration,
    /// Maximum time without progress.
    pub(super) idle: Duration,
    /// Owner of the position that the replica started from. With that of a replica, the upstream may have
    /// more replication domains than the donor ever got.
    pub(super) whose: Whose,
}

/// Next step of the wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the upstream for its position.
    Ask,
    /// Wait until the replica has applied everything up to this GTID.
    Await(String),
    /// Look again after a moment.
    Pause,
    /// The replica has caught up, with this lag.
    Done(Duration),
}

/// Reason to give up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GaveUp {
    /// The replica cannot apply a change.
    #[error("its SQL thread has stopped: {}", reason(.0))]
    Sql(String),
    /// The replica no longer fetches changes.
    #[error("its IO thread has stopped: {}", reason(.0))]
    Io(String),
    /// The upstream refuses the replica.
    #[error("it cannot fetch: {0}")]
    Refused(String),
    /// Nothing moves.
    #[error("it has made no progress for {} s: {why}", idle.as_secs())]
    Idle {
        /// Time limit.
        idle: Duration,
        /// Reason.
        why: String,
    },
    /// The age of the upstream's answers is unknown.
    #[error("the upstream takes longer than --max-lag to report its position; choose a longer --max-lag")]
    Slow,
    /// The upstream reports something else.
    #[error("expected a GTID position from the upstream, found '{0}'")]
    Unexpected(String),
}

fn reason(error: &str) -> &str {
    if error.is_empty() { "no reason reported" } else { error }
}

/// Position of the upstream.
#[derive(Clone, Debug)]
struct Target {
    gtid: String,
    asked: Duration,
}

/// State of the wait.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    progress: Patience<(String, (String, u64), u64)>,
    target: Option<Target>,
    /// Answers in a row that took too long.
    slow: u32,
    /// Error of the last question to the upstream.
    silence: Option<String>,
}

impl Watch {
    /// Starts the wait.
    pub(super) fn new(limits: Limits) -> Self {
        let progress = Patience::new(limits.idle);
        Self { limits, progress, target: None, slow: 0, silence: None }
    }

    /// Judges the state of the replica.
    pub(super) fn look(&mut self, now: Duration, status: &Status) -> Result<Step, GaveUp> {
        if !status.sql {
            return Err(GaveUp::Sql(status.sql_error.clone()));
        }
        if status.io == Io::Stopped {
            return Err(GaveUp::Io(status.io_error.clone()));
        }
        if FATAL.contains(&status.io_errno) {
            return Err(GaveUp::Refused(status.io_error.clone()));
        }
        let place = (status.gtid.clone(), status.applied.clone(), status.fetched);
        // One change may take long: a replica that is behind works on it. What it reports of an upstream that
        // does not answer is no progress.
        let is_busy = status.is_behind() && self.silence.is_none();
        if self.progress.is_over(now, place, is_busy) {
            return Err(GaveUp::Idle { idle: self.progress.limit(), why: self.why(status) });
        }
        match &self.target {
            Some(target) => Ok(Step::Await(target.gtid.clone())),
            None if status.io != Io::Running => Ok(Step::Pause),
            None if self.slow >= MOST_SLOW => Err(GaveUp::Slow),
            None => Ok(Step::Ask),
        }
    }

    /// Judges the answer of the upstream, which was asked at a certain time.
    pub(super) fn answered(
        &mut self,
        asked: Duration,
        now: Duration,
        answer: Result<String, String>,
        status: &Status,
    ) -> Result<Step, GaveUp> {
        let there = match answer {
            // It may be busy; the replica tries again, too.
            Err(text) => {
                self.silence = Some(text);
                return Ok(Step::Pause);
            }
            Ok(there) => there,
        };
        self.silence = None;
        let Some(gtid) = self.expected(&there, &status.gtid)? else {
            // There is no GTID to wait for.
            return Ok(match status.behind.map(Duration::from_secs) {
                Some(lag) if status.applied.1 == status.fetched && lag <= self.limits.max_lag => {
                    Step::Done(lag)
                }
                _ => Step::Pause,
            });
        };
        if now.saturating_sub(asked) > self.limits.max_lag {
            self.slow += 1;
            return Ok(Step::Pause);
        }
        self.slow = 0;
        self.target = Some(Target { gtid: gtid.clone(), asked });
        Ok(Step::Await(gtid))
    }

    /// Judges whether the replica has applied everything that the upstream had when it was asked.
    pub(super) fn awaited(&mut self, now: Duration, is_reached: bool) -> Step {
        let Some(target) = &self.target else { return Step::Pause };
        let lag = now.saturating_sub(target.asked);
        if lag > self.limits.max_lag {
            self.target = None;
        } else if is_reached {
            self.target = None;
            return Step::Done(lag);
        }
        Step::Pause
    }

    /// Returns the GTID to wait for; `None` if nothing that the replica gets has one.
    fn expected(&self, there: &str, own: &str) -> Result<Option<String>, GaveUp> {
        if there.is_empty() {
            return Ok(None);
        }
        if !is_gtid(there) {
            return Err(GaveUp::Unexpected(short(there.as_bytes(), LONGEST_ANSWER)));
        }
        let gtid = match self.limits.whose {
            Whose::Own => there.to_owned(),
            Whose::Upstream => known(there, own),
        };
        Ok(Some(gtid).filter(|gtid| !gtid.is_empty()))
    }

    fn why(&self, status: &Status) -> String {
        let errors = [&status.io_error, &status.sql_error].into_iter().filter(|error| !error.is_empty());
        errors.cloned().chain(self.silence.clone()).next().unwrap_or_else(|| match status.behind {
            Some(seconds) => format!("its lag is {seconds} s"),
            None => "its lag is unknown".to_owned(),
        })
    }
}

/// Returns the parts of a GTID position whose domain is in another one, too.
fn known(gtid: &str, own: &str) -> String {
    let domain = |part: &str| part.split('-').next().map(ToOwned::to_owned);
    let domains: Vec<Option<String>> = own.split(',').map(domain).collect();
    let parts: Vec<&str> = gtid.split(',').filter(|part| domains.contains(&domain(part))).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(whose: Whose) -> Watch {
        Watch::new(Limits { max_lag: 2 * SECOND, idle: 10 * SECOND, whose })
    }

    fn replicating() -> Status {
        Status {
            io: Io::Running,
            sql: true,
            behind: Some(0),
            gtid: "0-1-5".into(),
            applied: ("bin.000001".into(), 500),
            fetched: 500,
            ..Status::default()
        }
    }

    /// Asks and answers at one time.
    fn answered(watch: &mut Watch, now: Duration, answer: &str, status: &Status) -> Result<Step, GaveUp> {
        assert_eq!(watch.look(now, status), Ok(Step::Ask));
        watch.answered(now, now, Ok(answer.into()), status)
    }

    #[test]
    fn everything_that_the_upstream_had_is_awaited() {
        let (mut watch, status) = (watch(Whose::Own), replicating());
        let target = Step::Await("0-1-9".into());
        assert_eq!(answered(&mut watch, SECOND, "0-1-9", &status), Ok(target.clone()));
        assert_eq!(watch.awaited(2 * SECOND, false), Step::Pause);
        // The same position until it is too old.
        assert_eq!(watch.look(2 * SECOND, &status), Ok(target.clone()));
        assert_eq!(watch.awaited(3 * SECOND, true), Step::Done(2 * SECOND));
        assert_eq!(watch.look(3 * SECOND, &status), Ok(Step::Ask));
    }

    #[test]
    fn position_above_the_maximum_lag_is_asked_for_again() {
        for is_reached in [false, true] {
            let (mut watch, status) = (watch(Whose::Own), replicating());
            assert_eq!(answered(&mut watch, SECOND, "0-1-9", &status), Ok(Step::Await("0-1-9".into())));
            assert_eq!(watch.awaited(4 * SECOND, is_reached), Step::Pause);
            assert_eq!(watch.look(4 * SECOND, &status), Ok(Step::Ask));
        }
        assert_eq!(watch(Whose::Own).awaited(SECOND, true), Step::Pause);
    }

    #[test]
    fn stopped_threads_are_final() {
        let error = |change: fn(&mut Status)| {
            let mut status = replicating();
            change(&mut status);
            watch(Whose::Own).look(SECOND, &status).unwrap_err().to_string()
        };
        assert_eq!(error(|status| status.sql = false), "its SQL thread has stopped: no reason reported");
        assert_eq!(
            error(|status| (status.sql, status.sql_error) = (false, "no table".into())),
            "its SQL thread has stopped: no table"
        );
        assert_eq!(
            error(|status| (status.io, status.io_error) = (Io::Stopped, "gone".into())),
            "its IO thread has stopped: gone"
        );
        assert_eq!(
            error(|status| {
                (status.io, status.io_errno, status.io_error) = (Io::Connecting, 1236, "purged".into());
            }),
            "it cannot fetch: purged"
        );
    }

    #[test]
    fn connecting_replica_is_awaited_until_the_idle_timeout() {
        let mut watch = watch(Whose::Own);
        let status = Status { io: Io::Connecting, io_errno: 2003, ..replicating() };
        assert_eq!(watch.look(SECOND, &status), Ok(Step::Pause));
        assert_eq!(watch.look(11 * SECOND, &status), Ok(Step::Pause));
        let error = watch.look(12 * SECOND, &status).unwrap_err().to_string();
        assert_eq!(error, "it has made no progress for 10 s: its lag is 0 s");
    }

    #[test]
    fn reason_of_no_progress_is_the_best_known_one() {
        let error = |status: &Status, silence: Option<&str>| {
            let mut watch = watch(Whose::Own);
            watch.look(SECOND, status).unwrap();
            watch.silence = silence.map(ToOwned::to_owned);
            watch.look(20 * SECOND, status).unwrap_err().to_string()
        };
        let with = |io: &str, sql: &str, behind| Status {
            io_error: io.into(),
            sql_error: sql.into(),
            behind,
            ..replicating()
        };
        let start = "it has made no progress for 10 s: ";
        assert_eq!(error(&with("io", "sql", None), Some("why")), format!("{start}io"));
        assert_eq!(error(&with("", "sql", None), Some("why")), format!("{start}sql"));
        assert_eq!(error(&with("", "", None), Some("why")), format!("{start}why"));
        assert_eq!(error(&with("", "", None), None), format!("{start}its lag is unknown"));
    }

    #[test]
    fn one_long_change_is_progress() {
        let mut watch = watch(Whose::Own);
        let status = Status { behind: Some(100), ..replicating() };
        for minute in 0..10 {
            assert_eq!(watch.look(minute * 60 * SECOND, &status), Ok(Step::Ask));
        }
        // Not beside an upstream that does not answer.
        let step = watch.answered(600 * SECOND, 601 * SECOND, Err("no route".into()), &status);
        assert_eq!(step, Ok(Step::Pause));
        let error = watch.look(700 * SECOND, &status).unwrap_err();
        assert_eq!(error, GaveUp::Idle { idle: 10 * SECOND, why: "no route".into() });
    }

    #[test]
    fn silent_upstream_is_asked_again() {
        let (mut watch, status) = (watch(Whose::Own), replicating());
        assert_eq!(watch.look(SECOND, &status), Ok(Step::Ask));
        let step = watch.answered(SECOND, 2 * SECOND, Err("no route".into()), &status);
        assert_eq!(step, Ok(Step::Pause));
        assert_eq!(answered(&mut watch, 3 * SECOND, "0-1-9", &status), Ok(Step::Await("0-1-9".into())));
        assert_eq!(watch.silence, None);
    }

    #[test]
    fn five_late_answers_in_a_row_are_final() {
        let (mut watch, status) = (watch(Whose::Own), replicating());
        let late = |watch: &mut Watch, status: &Status| {
            assert_eq!(watch.look(SECOND, status), Ok(Step::Ask));
            watch.answered(SECOND, 4 * SECOND, Ok("0-1-9".into()), status)
        };
        for _ in 0..4 {
            assert_eq!(late(&mut watch, &status), Ok(Step::Pause));
        }
        // One in time counts from anew.
        assert_eq!(answered(&mut watch, SECOND, "0-1-9", &status), Ok(Step::Await("0-1-9".into())));
        assert_eq!(watch.awaited(9 * SECOND, false), Step::Pause);
        for _ in 0..5 {
            assert_eq!(late(&mut watch, &status), Ok(Step::Pause));
        }
        assert_eq!(watch.look(SECOND, &status), Err(GaveUp::Slow));
    }

    #[test]
    fn without_gtids_the_lag_of_the_replica_counts() {
        let status = replicating();
        let step = |status: &Status| answered(&mut watch(Whose::Own), SECOND, "", status);
        assert_eq!(step(&status), Ok(Step::Done(Duration::ZERO)));
        assert_eq!(step(&Status { behind: Some(2), ..status.clone() }), Ok(Step::Done(2 * SECOND)));
        assert_eq!(step(&Status { behind: Some(3), ..status.clone() }), Ok(Step::Pause));
        assert_eq!(step(&Status { behind: None, ..status.clone() }), Ok(Step::Pause));
        assert_eq!(step(&Status { fetched: 501, ..status }), Ok(Step::Pause));
    }

    #[test]
    fn domains_that_the_donor_never_got_are_not_awaited() {
        let status = Status { gtid: "1-1-5,12-3-7".into(), ..replicating() };
        let step = |whose, answer: &str| answered(&mut watch(whose), SECOND, answer, &status);
        let there = "0-1-4,1-1-9,2-1-8,12-4-8";
        assert_eq!(step(Whose::Upstream, there), Ok(Step::Await("1-1-9,12-4-8".into())));
        assert_eq!(step(Whose::Own, there), Ok(Step::Await(there.into())));
        assert_eq!(step(Whose::Upstream, "0-1-4,2-1-8"), Ok(Step::Done(Duration::ZERO)));
        let none = Status { gtid: String::new(), ..replicating() };
        let step = answered(&mut watch(Whose::Upstream), SECOND, there, &none);
        assert_eq!(step, Ok(Step::Done(Duration::ZERO)));
    }

    #[test]
    fn other_answer_than_a_position_is_final() {
        for whose in [Whose::Own, Whose::Upstream] {
            let answer = format!("0-1-4'); DROP{}", " ".repeat(1000));
            let error = answered(&mut watch(whose), SECOND, &answer, &replicating()).unwrap_err().to_string();
            assert!(error.starts_with("expected a GTID position from the upstream, found '0-1-4'); DROP"));
            assert!(error.len() < 200, "{error}");
        }
    }
}
