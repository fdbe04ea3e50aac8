//! Power cuts of hosts, and networks and sshd that go down.

use std::thread;
use std::time::Duration;

use super::{Fault, GIVEN_UP, cold, fault, few, has_agent, plain};
use crate::damage::experiment::Experiment;

pub(super) fn crashes() -> Vec<Fault> {
    vec![
        fault("crash-of-controller", |experiment| experiment.crash("ctl"))
            .mend(|experiment| {
                experiment.boot("ctl");
                // A process with nothing to send to a host does not notice that it is gone.
                experiment.end_sessions();
            })
            .by(few)
            .ends(&[-9], &[])
            .vanishes(),
        fault("crash-of-source", |experiment| experiment.crash("db1"))
            .mend(|experiment| experiment.boot("db1"))
            .by(few)
            .of_source()
            .ends(&[1, 4, 6], &["db1"])
            // When the target is held at its last step, the source has no lease any more.
            .orphans(|experiment| {
                let holds = has_agent(experiment.moment()) && experiment.moment().name != "releasing";
                if holds { vec!["db1"] } else { Vec::new() }
            })
            .patience(GIVEN_UP),
        fault("crash-of-target", |experiment| experiment.crash("db2"))
            .mend(|experiment| experiment.boot("db2"))
            .ends(&[1, 4, 6], &["db2"])
            .orphans(|experiment| if has_agent(experiment.moment()) { vec!["db2"] } else { Vec::new() })
            .patience(GIVEN_UP),
    ]
}

/// Less than the lease time and the idle timeout, including TCP's retransmission timeout, which doubles each
/// time.
const BLINK: Duration = Duration::from_millis(700);

fn blink(experiment: &mut Experiment, a: &'static str, b: &'static str) {
    experiment.cut(a, b);
    // The held program continues while the network is down.
    experiment.let_go();
    thread::sleep(BLINK);
    experiment.heal();
}

pub(super) fn networks() -> Vec<Fault> {
    let long = |name: &str, a: &'static str, b: &'static str| {
        fault(name, move |experiment| experiment.cut(a, b)).mend(Experiment::heal).patience(GIVEN_UP)
    };
    vec![
        fault("blink-to-target", |experiment| blink(experiment, "ctl", "db2")).by(plain).ends(&[0], &[]),
        fault("blink-to-source", |experiment| blink(experiment, "ctl", "db1")).by(plain).ends(&[0], &[]),
        fault("blink-between", |experiment| blink(experiment, "db1", "db2")).by(plain).ends(&[0], &[]),
        long("cut-to-target", "ctl", "db2").by(few).ends(&[1, 4, 6], &["db2"]).vanishes(),
        long("cut-to-source", "ctl", "db1").by(cold).of_source().ends(&[1, 4, 6], &["db1"]).vanishes(),
        long("cut-between", "db1", "db2").by(plain).of_source().ends(&[0, 1], &["db2"]),
        fault("sshd-of-target", |experiment| experiment.stop_sshd("db2"))
            .mend(|experiment| experiment.start_sshd("db2"))
            .by(plain)
            .ends(&[0, 4], &["db2"]),
        fault("sshd-of-source", |experiment| experiment.stop_sshd("db1"))
            .mend(|experiment| experiment.start_sshd("db1"))
            .by(plain)
            .ends(&[0, 4], &["db1"]),
    ]
}
