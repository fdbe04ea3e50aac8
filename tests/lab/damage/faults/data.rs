//! Data that changes: in the source, and on the wire.

use super::{Fault, fault};
use crate::damage::lane::DATA;
use crate::damage::moments::End;

/// Name of the file that tar reads last.
const LAST: &str = "$(cd /srv/damage/data && ls -U | grep -E 'one|two|three' | tail -n 1)";

pub(super) fn sources() -> Vec<Fault> {
    /// Restores the file and its time afterwards.
    fn change(name: &str, how: &str) -> Fault {
        let script =
            format!("cd {DATA}; mkdir ../kept; cp -a {LAST} ../kept/; touch -r . ../kept/time; {how}");
        let back = format!(
            "cd {DATA}; for name in one two three; do [[ ! -e ../kept/$name ]] || mv ../kept/$name $name; done
             touch -r ../kept/time .; rm -r ../kept"
        );
        fault(name, move |experiment| experiment.alter_source(&script))
            .mend(move |experiment| drop(experiment.sh(End::Source, &back)))
            .at(|moment| ["first", "middle"].contains(&moment.name))
            .by(|variant| ["plain", "parallel", "two-targets", "local-source"].contains(&variant.name))
    }
    vec![
        change("source-truncated", &format!("truncate -s 100000 {LAST}")).ends(&[0, 1, 3], &[]),
        change("source-grown", &format!("head -c 300000 /dev/urandom >>{LAST}")).ends(&[0, 1, 3], &[]),
        change("source-vanished", &format!("rm {LAST}")).ends(&[0, 1, 3], &[]),
        change("source-unreadable", &format!("chmod 0 {LAST}"))
            .by(|variant| variant.name == "reader")
            .ends(&[1], &["db1", "Permission denied"]),
    ]
}

/// Filters the stream between the netcats of source and target through perl code.
pub(super) fn wires() -> Vec<Fault> {
    let damage = |name: &str, how: &'static str, codes: &'static [i32]| {
        fault(name, move |experiment| experiment.damage_wire(how))
            .mend(|experiment| experiment.mend_tool(End::Source, "nc"))
            .at(|moment| moment.name == "sender")
            .by(|variant| ["plain", "parallel", "two-targets"].contains(&variant.name))
            .ends(codes, &["db2"])
    };
    let mut faults = Vec::new();
    for (place, at) in [("first", "100"), ("middle", "1800000"), ("last", "-100")] {
        for (kind, change) in [
            ("flipped", "substr($all, $at, 1) ^= chr(1)"),
            ("dropped", "substr($all, $at, 64) = q()"),
            ("repeated", "substr($all, $at, 0) = substr($all, $at, 64)"),
            ("cut", "substr($all, $at) = q()"),
        ] {
            let script: &'static str = Box::leak(format!("my $at = {at}; {change}").into_boxed_str());
            // A stream of the right length is complete, and altered.
            let codes: &[i32] = if kind == "flipped" { &[3] } else { &[1, 3] };
            faults.push(damage(&format!("wire-{kind}-{place}"), script, codes));
        }
    }
    faults
}
