//! Data under the final name on a target.

use super::experiment::Experiment;
use super::lane::DATA;
use super::moments::End;
use super::variants::{WITH_OLD, host_of};
use crate::support::hosts::Host;
use crate::support::trees;

/// State of the final name on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Old,
    Copy,
}

impl Experiment {
    /// Determines the state of a target; every entry is compared.
    pub(super) fn found(&self, host: &str) -> Found {
        let on = self.lane.host(host);
        if self.variant.fills() {
            return self.filled(&on);
        }
        let names = trees::names(&on, self.variant.directory);
        let list = |name: &str| trees::list(&on, &format!("{}/{name}", self.variant.directory));
        let old = |list: &[String]| list == self.lane.lists.old;
        let (asides, others): (Vec<&String>, Vec<&String>) =
            names.iter().filter(|name| *name != "data").partition(|name| name.starts_with("data.old-20"));
        let others: Vec<&String> = others
            .into_iter()
            .filter(|name| !(self.variant.keeps_staging() && name.starts_with(".transfer-")))
            .collect();
        assert_eq!(others, Vec::<&String>::new(), "on {host}");
        let has_one = names.iter().any(|name| name == "data");
        let found = match has_one.then(|| list("data")) {
            None => Found::Nothing,
            Some(list) if old(&list) => Found::Old,
            Some(list) => {
                let data = self.lane.data_of(host_of(self.variant.source));
                let good = list == data || self.altered.as_ref() == Some(&list);
                assert!(good, "half a copy on {host}: {list:#?} instead of {data:#?}");
                Found::Copy
            }
        };
        let kept = found == Found::Copy && self.variant.keeps_old();
        assert_eq!(asides.len(), usize::from(kept), "{names:?} on {host}");
        if let [aside] = asides[..] {
            let rename = |line: &String| line.replace(&format!("./{aside}"), "./data");
            let aside: Vec<String> = list(aside).iter().map(rename).collect();
            assert!(old(&aside), "the old one was changed: {aside:#?}");
        }
        found
    }

    /// Determines the state of a directory that is filled: everything or nothing.
    fn filled(&self, on: &Host) -> Found {
        let directory = self.variant.directory;
        let names = trees::names(on, directory);
        if names.is_empty() {
            return Found::Nothing;
        }
        if self.variant.is_hot() {
            let files = |directory: &str| {
                format!(
                    "cd {directory}; find . -type f ! -name xtrabackup_checkpoints -exec sha256sum {{}} + | sort"
                )
            };
            let there = self.host(End::Source).sh(&files(DATA));
            assert_eq!(on.sh(&files(directory)), there, "not all of the backup is there");
            return Found::Copy;
        }
        let parent = directory.rsplit('/').next().unwrap_or_default();
        let rename = |line: &String| line.replace(&format!("./{parent}"), "./data");
        let all: Vec<String> = trees::list(on, directory).iter().map(rename).collect();
        // The directory itself is not part of the copy.
        let data = self.lane.data_of(host_of(self.variant.source));
        assert_eq!(all[1..], data[1..], "not all of the archive is there");
        Found::Copy
    }

    /// Restores the target directory as it was before the run.
    pub(super) fn reset(&self, host: &str) {
        let back = if self.variant.directory == WITH_OLD {
            format!("rm -rf {WITH_OLD}/*; cp -a /srv/damage/template/data {WITH_OLD}/")
        } else {
            format!("rm -rf {0}/* {0}/.transfer-*", self.variant.directory)
        };
        self.lane.host(host).sh(&back);
    }
}
