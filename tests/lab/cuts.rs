//! Connections from the controller that are cut for less than the lease time: the run goes on.

use std::thread;
use std::time::Duration;

use crate::support::agents;
use crate::support::changes::Changed;
use crate::support::midstream::{MidStream, PROMPTLY};
use crate::support::output::Output;
use crate::support::scenes::SOON;

/// Lease time in seconds. ssh gives a connection up after a third of it.
const LEASE: &str = "24";
/// More than that.
const CUT: Duration = Duration::from_secs(12);

impl MidStream {
    /// Cuts hosts off in mid-stream, and returns the result of the run, in which they get no other agent.
    #[track_caller]
    fn cut_off(&self, hosts: &[&str]) -> Output {
        let args = self.args(&["--lease-time", LEASE]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = self.start_stream_of(self.lab.program(&args));
        let names = || [agents::name(&self.db1), agents::name(&self.db2)];
        let before = names();
        let cuts: Vec<_> = hosts.iter().map(|host| self.lab.cut("ctl", host)).collect();
        thread::sleep(CUT);
        self.await_more();
        drop(cuts);
        assert_eq!(names(), before);
        self.open_throttle();
        run.end_within(SOON)
    }
}

#[test]
fn exclusive_cut_connection_is_replaced() {
    let Some(scene) = MidStream::set() else { return };
    for hosts in [&["db1"][..], &["db2"], &["db1", "db2"]] {
        let output = scene.cut_off(hosts).expect_success();
        for host in hosts {
            let said = [format!("{host}: no contact; "), format!("{host}: in contact again")];
            assert!(said.iter().all(|line| output.stderr.contains(line)), "{output}");
        }
        scene.expect_copied();
        scene.expect_as_before(PROMPTLY);
    }
}

#[test]
fn exclusive_connection_closed_by_sshd_is_replaced() {
    let Some(scene) = MidStream::set() else { return };
    let reload = "systemctl reload ssh";
    let settings = "/etc/ssh/sshd_config.d/impatient.conf";
    let set = format!("printf 'ClientAliveInterval 2\\nClientAliveCountMax 2\\n' >{settings}; {reload}");
    let _impatient =
        [&scene.db1, &scene.db2].map(|host| Changed::new(host, &set, &format!("rm {settings}; {reload}")));
    scene.cut_off(&["db1", "db2"]).expect_success();
    scene.expect_copied();
}
