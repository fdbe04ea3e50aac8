//! Disks and directories that cannot be written.

use super::{Fault, fault, few, has_agent, plain};
use crate::damage::moments::End;
use crate::damage::variants::Variant;

pub(super) fn disks() -> Vec<Fault> {
    let small: fn(&Variant) -> bool = |variant| variant.name == "small";
    vec![
        fault("disk-full", |experiment| {
            experiment.sh(End::Target, "! head -c 20M /dev/zero >/srv/damage/small/filler");
        })
        .mend(|experiment| drop(experiment.sh(End::Target, "rm /srv/damage/small/filler")))
        .at(has_agent)
        .by(small)
        .ends(&[0, 1], &["db2", "No space left on device"]),
        fault("disk-without-inodes", |experiment| {
            let fill = "mkdir /srv/damage/small/filler; cd /srv/damage/small/filler; for n in {1..200}; do : >$n || break; done";
            experiment.sh(End::Target, fill);
        })
        .mend(|experiment| drop(experiment.sh(End::Target, "rm -r /srv/damage/small/filler")))
        .at(has_agent)
        .by(small)
        .ends(&[0, 1], &["db2", "No space left on device"]),
        fault("directory-locked", |experiment| {
            experiment.sh(End::Target, &format!("chattr +i {}", experiment.variant().directory));
        })
        .mend(|experiment| drop(experiment.sh(End::Target, &format!("chattr -i {}", experiment.variant().directory))))
        .by(|variant| few(variant) && variant.name != "two-targets")
        .ends(&[1, 4, 6], &["db2"]),
        fault("directory-read-only", |experiment| {
            experiment.sh(End::Target, "mount -o remount,ro /srv/damage/small");
        })
        .mend(|experiment| drop(experiment.sh(End::Target, "mount -o remount,rw /srv/damage/small")))
        // Not while files are open for writing there.
        .at(|moment| has_agent(moment) && (!moment.is_from("first") || moment.is_from("syncing")))
        .by(small)
        .ends(&[1, 4, 6], &["db2"]),
        fault("directory-removed", |experiment| {
            experiment.sh(End::Target, "rm -r /srv/damage/in");
        })
        .mend(|experiment| drop(experiment.sh(End::Target, "mkdir /srv/damage/in")))
        // Later the complete copy is removed with it.
        .at(|moment| !moment.is_from("published"))
        .by(plain)
        .ends(&[1, 3, 4, 6], &["db2"]),
        fault("run-full", |experiment| {
            let fill = r#"
                used=$(df --output=iused /run | tail -n 1)
                mount -o remount,nr_inodes="${used// /}" /run"#;
            experiment.sh(End::Target, fill);
        })
        .mend(|experiment| drop(experiment.sh(End::Target, "mount -o remount,nr_inodes=800k /run")))
        .by(plain)
        .ends(&[0, 1, 4], &["db2"]),
    ]
}
