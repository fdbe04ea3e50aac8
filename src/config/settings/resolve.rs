//! Settings from the merged layers of options: the defaults, and options that depend on each other.

use std::time::Duration;

use super::{Login, Replace, Servers, Settings, SettingsError, contradiction};
use crate::config::options::{Level, Options};
use crate::config::values::{
    Compress, DigestAlgorithm, Ends, FirewallChoice, PortRange, ProgressChoice, TransferType,
};

/// Default port range.
const PORTS: PortRange = PortRange { first: 4400, last: 4500 };

/// Default number of records of past runs.
const HISTORY_SIZE: usize = 1000;

impl Settings {
    #[expect(clippy::too_many_lines, reason = "a line or two for each option")]
    pub(super) fn resolve(options: Options, dry_run: bool) -> Result<Self, SettingsError> {
        // Without `..`, so that an option cannot be forgotten.
        let Options {
            transfer_type,
            exclude,
            ignore_changed,
            drop_attributes,
            backup_threads,
            stop_replication,
            prepare,
            prepare_memory,
            stop_server,
            unit,
            server_timeout,
            allow_running,
            defaults_file,
            hook,
            rename,
            replace,
            keep_old,
            chown,
            keep_staging,
            fsync,
            allow_shared_path,
            skip_refused,
            compress,
            compress_level,
            encrypt,
            threads,
            nice,
            checksum,
            checksum_algorithm,
            parallel_checksum,
            port,
            port_range,
            firewall,
            source_address,
            target_address,
            sudo,
            ssh_config,
            ssh_option,
            lease_time,
            idle_timeout,
            max_duration,
            progress,
            json,
            verbose,
            metrics,
            history_size,
            profile: _,
        } = options;
        let transfer_type = transfer_type.unwrap_or(TransferType::File);
        let ignore_changed = ignore_changed.unwrap_or(false);
        let keep_staging = keep_staging.unwrap_or(false);
        let ports = ports(port, port_range)?;
        let (compress, compress_level) = compression(compress, compress_level)?;
        let is_digest_needed = ignore_changed && transfer_type == TransferType::File;
        let Checks { files, stream } = checks(is_digest_needed, checksum, parallel_checksum)?;
        let replace = replacing(replace, keep_old, keep_staging)?;
        Ok(Self {
            transfer_type,
            hooks: hook.unwrap_or_default(),
            servers: Servers {
                threads: backup_threads.map(|threads| threads.0),
                stop_replication: stop_replication.unwrap_or(false),
                prepare: prepare.unwrap_or(false),
                prepare_memory: prepare_memory.map(|memory| memory.0),
                stop: stop_server.unwrap_or(Ends::None),
                unit: unit.map(|unit| unit.0),
                timeout: server_timeout.map_or(Duration::from_secs(600), |time| time.0),
                allow_running: allow_running.unwrap_or(false),
                defaults_file: defaults_file.map(|file| file.0),
            },
            exclude: exclude.unwrap_or_default(),
            ignore_changed,
            drop_attributes: drop_attributes.unwrap_or_default().0,
            rename,
            replace,
            chown,
            keep_staging,
            fsync: fsync.unwrap_or(true),
            skip_refused: skip_refused.unwrap_or(false),
            allow_shared_path: allow_shared_path.unwrap_or(false),
            compress,
            compress_level,
            encrypt: encrypt.unwrap_or(true),
            threads: threads.map(|threads| threads.0),
            nice: nice.map_or(0, |nice| nice.0),
            checksum: files.then(|| checksum_algorithm.unwrap_or(DigestAlgorithm::Blake3)),
            parallel_checksum: stream,
            ports,
            firewall: firewall.unwrap_or(FirewallChoice::Auto),
            source_address,
            target_address: target_address.unwrap_or_default(),
            login: Login {
                sudo: sudo.unwrap_or(false),
                config: ssh_config,
                options: ssh_option.unwrap_or_default().into_iter().map(|option| option.0).collect(),
            },
            lease_time: lease_time.map_or(Duration::from_secs(30), |time| time.0),
            idle_timeout: idle_timeout.map_or(Duration::from_secs(300), |time| time.0),
            max_duration: max_duration.map(|time| time.0),
            dry_run,
            progress: progress.unwrap_or(ProgressChoice::Auto),
            json: json.unwrap_or(false),
            verbose: verbose.unwrap_or(false),
            metrics,
            history_size: history_size.map_or(HISTORY_SIZE, |size| size.0 as usize),
        })
    }
}

/// Resolves what happens to data that has the final name already.
fn replacing(
    replace: Option<bool>,
    keep_old: Option<bool>,
    keep_staging: bool,
) -> Result<Replace, SettingsError> {
    match (replace.unwrap_or(false), keep_old.unwrap_or(false)) {
        (true, true) => Ok(Replace::Keep),
        (true, false) if keep_staging => contradiction("--keep-staging with --replace requires --keep-old"),
        (true, false) => Ok(Replace::Remove),
        // In a file `keep_old` applies only to runs that replace something.
        (false, _) => Ok(Replace::No),
    }
}

/// Resolves the ports that targets may listen on.
fn ports(port: Option<u16>, range: Option<PortRange>) -> Result<PortRange, SettingsError> {
    match (port.filter(|port| *port != 0), range) {
        (Some(_), Some(_)) => contradiction("--port and --port-range cannot be used together"),
        (Some(port), None) => Ok(PortRange { first: port, last: port }),
        (None, range) => Ok(range.unwrap_or(PORTS)),
    }
}

/// Resolves the compression and its level, on the scale of the program.
fn compression(compress: Option<Compress>, level: Option<Level>) -> Result<(Compress, u8), SettingsError> {
    let compress = compress.unwrap_or(Compress::Auto);
    let level = level.map_or(1, |level| u8::try_from(level.0).unwrap_or(u8::MAX));
    match compress {
        Compress::With(program) if level > program.highest_level() => contradiction(&format!(
            "--compress-level {level}: the maximum for {} is {}",
            program.name(),
            program.highest_level()
        )),
        _ => Ok((compress, level)),
    }
}

/// Digests that are compared.
struct Checks {
    /// A digest of every file.
    files: bool,
    /// A digest of the stream, even without encryption.
    stream: bool,
}

/// Resolves the digests to compare. `is_needed`: digests of files are needed to tell changes from faults.
fn checks(is_needed: bool, files: Option<bool>, stream: Option<bool>) -> Result<Checks, SettingsError> {
    // Otherwise only a program's message would tell a change from a disk error.
    if is_needed && files == Some(false) {
        return contradiction(
            "--ignore-changed cannot be used with --no-checksum: only digests tell changes from faults",
        );
    }
    Ok(Checks {
        files: is_needed || files.unwrap_or(stream != Some(true)),
        stream: stream == Some(true) && files != Some(true),
    })
}
