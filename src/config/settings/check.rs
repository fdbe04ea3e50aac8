//! Checks of the settings against the command line and its targets.

use super::{Replace, Settings, SettingsError};
use crate::base::endpoint::{Endpoint, HostName, MOST_TARGETS};
use crate::config::options::Options;
use crate::config::typed::Typed;
use crate::config::values::{Ends, TransferType};

impl Settings {
    /// Checks the settings for a transfer to these targets. A typed option must have an effect; one from a
    /// file may be meant for other runs.
    pub fn check(&self, typed: &Typed, targets: &[Endpoint]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && self.replace == Replace::No {
            return contradiction("--keep-old requires --replace".into());
        }
        let kind = self.transfer_type;
        if let Some(option) = without_effect(kind, &typed.options) {
            return contradiction(format!("{option} has no effect with --type {}", kind.name()));
        }
        let has_name = kind == TransferType::File || self.rename.is_some();
        let replaces = typed.options.replace == Some(true);
        if replaces && !has_name && kind != TransferType::Compress {
            return contradiction(format!(
                "--replace requires --as NAME with --type {} (otherwise the copy fills the target directory)",
                kind.name()
            ));
        }
        if replaces && kind == TransferType::Compress {
            return contradiction(
                "--replace cannot be used with --type compress; choose another name with --as".into(),
            );
        }
        let hosts: Vec<&HostName> = targets.iter().map(|target| &target.host).collect();
        Self::check_addresses(typed, &hosts)
    }

    fn check_number(targets: usize) -> Result<(), SettingsError> {
        if targets > MOST_TARGETS {
            let text = format!("{targets} targets: the maximum for a run is {MOST_TARGETS}");
            return Err(SettingsError::Contradiction(text));
        }
        Ok(())
    }

    /// Checks the settings for replicas on these hosts.
    pub fn check_replicas(typed: &Typed, targets: &[HostName]) -> Result<(), SettingsError> {
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && typed.options.replace != Some(true) {
            return Err(SettingsError::Contradiction("--keep-old requires --replace".into()));
        }
        Self::check_addresses(typed, &targets.iter().collect::<Vec<_>>())
    }

    /// Checks that each address on the data path belongs to a target.
    fn check_addresses(typed: &Typed, targets: &[&HostName]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        for given in typed.options.target_address.iter().flatten() {
            let address = given.address;
            let text = match &given.host {
                None if targets.len() > 1 => {
                    format!("--target-address {address}: with several targets, use HOST={address}")
                }
                Some(host) if !targets.iter().any(|target| target.is_same(host)) => {
                    format!("--target-address {host}={address}: {host} is not a target")
                }
                _ => continue,
            };
            return contradiction(text);
        }
        Ok(())
    }
}

/// Returns the first typed option that has no effect with this type.
fn without_effect(kind: TransferType, typed: &Options) -> Option<&'static str> {
    use TransferType::{Backup, Compress, Decompress, File};
    let on = |option: Option<bool>| option == Some(true);
    let stops = typed.stop_server.unwrap_or(Ends::None);
    let of: [(bool, &'static str, &[TransferType]); 9] = [
        (typed.exclude.is_some(), "--exclude", &[File, Compress]),
        (on(typed.ignore_changed), "--ignore-changed", &[File]),
        (typed.drop_attributes.is_some(), "--drop-attributes", &[File, Decompress]),
        (typed.backup_threads.is_some(), "--backup-threads", &[Backup, Compress, Decompress]),
        (on(typed.prepare), "--prepare", &[Backup, Decompress]),
        (typed.prepare_memory.is_some(), "--prepare-memory", &[Backup, Decompress]),
        (stops.source(), "--stop-server source", &[File, Compress]),
        (stops.target(), "--stop-server target", &[File, Backup, Decompress]),
        (on(typed.allow_running), "--allow-running", &[File, Compress]),
    ];
    of.into_iter().find(|(given, _, types)| *given && !types.contains(&kind)).map(|(_, option, _)| option)
}
