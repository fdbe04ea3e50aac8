//! Hosts with unusual clocks, shells and start-up files.

use super::{Fault, fault, plain};
use crate::damage::moments::End;

/// Applies to hosts before anything begins.
pub(super) fn hosts() -> Vec<Fault> {
    let odd = |name: &str, script: &'static str, back: &'static str| {
        fault(name, move |experiment| {
            for end in [End::Source, End::Target] {
                experiment.sh(end, script);
            }
        })
        .mend(move |experiment| {
            for end in [End::Source, End::Target] {
                experiment.sh(end, back);
            }
        })
        .at(|moment| moment.name == "connecting")
        .by(|variant| ["plain", "sudo"].contains(&variant.name))
        .ends(&[0], &[])
    };
    let jump = |name: &str, by: &'static str| {
        fault(name, move |experiment| experiment.jump(by)).by(plain).ends(&[0], &[])
    };
    vec![
        jump("clock-forward", "+2d"),
        jump("clock-backward", "-2d"),
        odd(
            "banner",
            "echo 'Authorised \\e[31muse only' >/etc/issue.net
             echo 'Banner /etc/issue.net' >/etc/ssh/sshd_config.d/banner.conf; systemctl reload ssh",
            "rm /etc/ssh/sshd_config.d/banner.conf; systemctl reload ssh",
        ),
        odd(
            "startup-files",
            "for home in /root /home/dba; do
                 for file in .bashrc .profile; do cp -a $home/$file /etc/damage-${home##*/}$file; done
                 echo 'printf \"! ready\\n= 1 ok\\nWelcome\"' | tee $home/.profile >$home/.bashrc
             done",
            "for home in /root /home/dba; do
                 for file in .bashrc .profile; do mv -T /etc/damage-${home##*/}$file $home/$file; done
             done",
        ),
        odd("shell-fish", "chsh -s /usr/bin/fish root; chsh -s /usr/bin/fish dba", SHELLS),
        odd("shell-tcsh", "chsh -s /usr/bin/tcsh root; chsh -s /usr/bin/tcsh dba", SHELLS),
        odd("shell-dash", "chsh -s /bin/dash root; chsh -s /bin/dash dba", SHELLS),
    ]
}

const SHELLS: &str = "chsh -s /bin/bash root; chsh -s /bin/bash dba; rm -rf /home/dba/.config /home/dba/.cache /home/dba/.local/share";
