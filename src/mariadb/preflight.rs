//! Checks that involve database servers and backups.

use std::os::unix::ffi::OsStrExt as _;

use super::backup::{self, Vendor};
use super::facts::{Instance, Server};
use crate::config::settings::Settings;
use crate::config::values::TransferType;
use crate::host::command::typable;
use crate::host::facts::{Facts, PathType};
use crate::preflight::{Before, Finding, Findings, Side, shown};
use crate::shape::{Consumer, Producer, Shape, final_name};

/// Role of a host in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
}

/// Checks the source.
#[must_use]
pub(crate) fn source(settings: &Settings, side: Side<'_>) -> Vec<Finding> {
    let mut findings = Findings::of(side.endpoint);
    findings.instance(settings, side);
    findings.servers(settings, side, Role::Source);
    if settings.servers.stop_replication && side.facts.instance.is_none() {
        findings.warn(
            "--stop-replication has no effect on a copy of files",
            "omit it, or stop the replication yourself",
        );
    }
    findings.list
}

/// Checks one target.
#[must_use]
pub(crate) fn target(
    settings: &Settings,
    source: Side<'_>,
    side: Side<'_>,
    before: Before<'_>,
) -> Vec<Finding> {
    let mut findings = Findings::of(side.endpoint);
    findings.servers(settings, side, Role::Target);
    if !before.replicas {
        findings.no_server(settings, source, side);
    }
    let shape = Shape::of(settings, source.facts);
    if shape.consumer == Consumer::Backup {
        let instance = source.facts.instance.as_ref().filter(|instance| instance.error.is_none());
        findings.backup(settings, instance, side);
    }
    if shape.producer == Producer::Tree && settings.servers.prepare {
        findings.warn("--prepare has no effect on a copy of files", "omit it");
    }
    findings.list
}

impl Findings {
    /// Checks the server behind the source's socket.
    fn instance(&mut self, settings: &Settings, side: Side<'_>) {
        let (facts, path) = (side.facts, shown(&side.endpoint.path));
        let is_socket = facts.source.as_ref().is_some_and(|source| source.path_type == PathType::Socket);
        if !is_socket || !matches!(settings.transfer_type, TransferType::Backup | TransferType::Compress) {
            return;
        }
        if !facts.has("mariadb") && !facts.has("mysql") {
            self.refuse("no database client is installed (mariadb or mysql)", "apt install mariadb-client");
            return;
        }
        let Some(instance) = &facts.instance else {
            self.refuse(&format!("no answer from the server at {path}"), "check that it is running");
            return;
        };
        if let Some(error) = &instance.error {
            let fix = if error.is_denied {
                "log in as root, or give an option file on the host with --defaults-file"
            } else {
                "check that the server is running, and that this is its socket"
            };
            let problem = format!("cannot query the server at {path}: {}", error.problem);
            self.refuse(&problem, error.fix_or(fix));
            return;
        }
        if let Err(mismatch) = backup::tool(facts, instance) {
            self.refuse(&mismatch.problem, &mismatch.fix);
        }
        if facts.source.as_ref().is_none_or(|source| source.files == 0) {
            self.refuse(
                &format!("uid {} cannot read {}", facts.uid, shown(&instance.datadir())),
                "log in as root, or use --sudo",
            );
        }
    }

    /// Checks servers that run on the data to be copied or replaced.
    fn servers(&mut self, settings: &Settings, side: Side<'_>, role: Role) {
        let stops = match role {
            Role::Source => settings.servers.stop.source(),
            Role::Target => settings.servers.stop.target(),
        };
        // Servers do not run on archives, and hot backups are made of running ones.
        if role == Role::Source && Shape::of(settings, side.facts).producer != Producer::Tree {
            return;
        }
        if let Some(run) = side.facts.source.as_ref().and_then(|source| source.quiesced.as_ref()) {
            self.refuse(
                &format!("another run has quiesced the server of {}: {run}", shown(&side.endpoint.path)),
                "wait until that run has ended",
            );
        }
        for other in &side.facts.other_servers {
            self.warn(
                &format!(
                    "a process of user {} has database files open in {}",
                    other.account,
                    shown(&other.datadir)
                ),
                if role == Role::Source { "the copy may be inconsistent" } else { "it will not be stopped" },
            );
        }
        let servers = &side.facts.servers;
        if stops && servers.is_empty() && role == Role::Source {
            self.warn(
                &format!("no server is running in {}, so none will be stopped", shown(&side.endpoint.path)),
                "omit --stop-server if that is expected",
            );
        }
        for server in servers {
            match (role, stops) {
                (Role::Target, true) if server.socket.is_empty() => self.refuse(
                    &format!("cannot find the socket of {}", described(server)),
                    "stop it yourself: without the socket, replication with the new data cannot be prevented",
                ),
                (_, true) => self.stop(settings, side.facts, server, servers.len()),
                (Role::Source, _) if settings.servers.allow_running => self.warn(
                    &format!("{} is running on the data to be copied (--allow-running)", described(server)),
                    "do not start a server on the copy: it is inconsistent",
                ),
                (Role::Source, _) => self.refuse(
                    &format!("{} is running on the data to be copied", described(server)),
                    "stop it for the copy with --stop-server source, make a hot backup with --type \
                     mariabackup, or accept an inconsistent copy with --allow-running",
                ),
                (Role::Target, _) => self.refuse(
                    &format!("{} is running in the destination of the copy", described(server)),
                    "choose another directory, or stop it for the copy with --stop-server target",
                ),
            }
        }
    }

    /// Warns if `--stop-server` finds no server on the target: none will be started with the copy, either.
    fn no_server(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        if settings.servers.stop.target() && side.facts.servers.is_empty() {
            let directory = &side.endpoint.path;
            let name = final_name(settings, source.endpoint, Some(source.facts));
            let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
            self.warn(
                &format!(
                    "no server is running in {}, so none will be stopped or started with the copy",
                    shown(&path)
                ),
                "start it yourself afterwards (on the copy of a replica with --skip-slave-start), or omit \
                 --stop-server",
            );
        }
    }

    /// Checks that a server can be stopped and started.
    fn stop(&mut self, settings: &Settings, facts: &Facts, server: &Server, side_by_side: usize) {
        if !facts.has("systemctl") {
            self.refuse(
                &format!("cannot stop {}: systemctl is not installed", described(server)),
                "stop it yourself",
            );
        } else if facts.uid != 0 {
            self.refuse(
                &format!("uid {} cannot stop {}", facts.uid, described(server)),
                "log in as root, or use --sudo",
            );
        } else if let Some(unit) =
            settings.servers.unit.as_ref().filter(|unit| !server.unit.is_empty() && **unit != server.unit)
        {
            self.refuse(
                &format!("the server in {} runs in {}, not in {unit}", shown(&server.datadir), server.unit),
                "omit --unit",
            );
        } else if side_by_side > 1 && (server.unit.is_empty() || settings.servers.unit.is_some()) {
            self.refuse(
                &format!("{} is one of {side_by_side} servers, and --unit names only one", described(server)),
                "stop them yourself, or copy them one by one",
            );
        } else if server.unit.is_empty() && settings.servers.unit.is_none() {
            self.refuse(
                &format!("{} does not run in a systemd unit of this host", described(server)),
                "stop it yourself, or give its unit with --unit",
            );
        } else if let Some(error) = &server.error {
            let fix = "give an option file on the host with --defaults-file";
            self.refuse(
                &format!(
                    "cannot query the replication state of {}, which must be restored later: {}",
                    described(server),
                    error.problem
                ),
                error.fix_or(fix),
            );
        } else if server.socket.is_empty() {
            self.warn(
                &format!("cannot find the socket of {}", described(server)),
                "replication will not be restored: it starts with the server unless skip_slave_start is set",
            );
        }
    }

    fn backup(&mut self, settings: &Settings, instance: Option<&Instance>, side: Side<'_>) {
        let facts = side.facts;
        match instance {
            Some(instance) => {
                let (vendor, version) = (Vendor::of(instance), backup::Version::find(instance.version()));
                if let Some(version) = version {
                    self.needs(facts, vendor.extractor(), &backup::package(vendor, version));
                }
            }
            None if !facts.has("xbstream") => self.needs(facts, "mbstream", "mariadb-backup"),
            None => {}
        }
        if !settings.servers.prepare {
            return;
        }
        if facts.uid != 0 {
            self.refuse(
                "--prepare requires root, to give the backup to the server's user",
                "log in as root, or use --sudo",
            );
        }
        if instance.is_none() && backup::tools(facts).next().is_none() {
            self.refuse("mariadb-backup is not installed (--prepare)", "apt install mariadb-backup");
        }
        if let Some(Err(mismatch)) = instance.map(|instance| backup::tool(facts, instance)) {
            self.refuse(&format!("{} (--prepare)", mismatch.problem), &mismatch.fix);
        }
        let owner = match (&settings.chown, instance) {
            (Some(owner), _) => &owner.0,
            (None, Some(instance)) => &instance.owner,
            (None, None) => "mysql:mysql",
        };
        let user = owner.split(':').next().unwrap_or_default();
        let of_target = facts.target.as_ref();
        if let Some(own) = of_target.map(|target| &target.owner).filter(|own| *own != user && !own.is_empty())
        {
            if Shape::fills(settings) && !user.is_empty() {
                self.warn(
                    &format!(
                        "{} itself still belongs to {own}, and only its contents will belong to {user}",
                        shown(&side.endpoint.path)
                    ),
                    &format!(
                        "before starting a server with it, run: chown {owner} {}",
                        typable(side.endpoint.path.as_os_str().as_bytes())
                    ),
                );
            }
        }
        if settings.chown.is_none() && !user.is_empty() && !facts.users.contains_key(user) {
            self.refuse(
                &format!("user {user}, the owner of the server's files, does not exist (--prepare)"),
                "install the server, or give --chown USER:GROUP",
            );
        }
    }
}

/// Describes a server as `mariadb.service (in /var/lib/mysql)`.
fn described(server: &Server) -> String {
    let name = if server.unit.is_empty() { "a server" } else { &server.unit };
    format!("{name} (in {})", shown(&server.datadir))
}
