//! What can stand against a run where servers of databases and archives have to do with it.

use super::{End, Finding, Findings, Side, Weight, shown};
use crate::backup::{self, Vendor};
use crate::host::facts::{Content, Facts, Format, Instance, Server};
use crate::settings::Settings;
use crate::shape::{Consumer, Producer, Shape, final_name};
use crate::values::TransferType;

impl Findings {
    /// The server behind the source's socket.
    pub(super) fn instance(&mut self, settings: &Settings, side: Side<'_>) {
        let (facts, path) = (side.facts, shown(&side.endpoint.path));
        let is_socket = facts.source.as_ref().is_some_and(|source| source.file_type == "socket");
        if !is_socket || !matches!(settings.transfer_type, TransferType::Backup | TransferType::Compress) {
            return;
        }
        if !facts.has("mariadb") && !facts.has("mysql") {
            self.refuse("no client for its server is there: mariadb or mysql", "apt install mariadb-client");
            return;
        }
        let Some(instance) = &facts.instance else {
            self.refuse(&format!("nothing is known of the server behind {path}"), "check that it runs");
            return;
        };
        if let Some(error) = &instance.error {
            let fix = if error.contains("Access denied") || error.contains("ERROR 1227") {
                "log in as root, or name a file of options on the host with --defaults-file"
            } else {
                "check that the server runs, and that this is its socket"
            };
            let (error, fix) = own_remedy(error, fix);
            self.refuse(&format!("the server behind {path} cannot be asked: {error}"), fix);
            return;
        }
        if let Err(mismatch) = backup::tool(facts, instance) {
            self.refuse(&mismatch.problem, &mismatch.fix);
        }
        if facts.source.as_ref().is_none_or(|source| source.files == 0) {
            self.refuse(
                &format!("{} cannot be read by user id {}", shown(&instance.datadir()), facts.uid),
                "log in as root, or with --sudo",
            );
        }
    }

    /// What is in an archive that is to be unpacked.
    pub(super) fn archive(&mut self, settings: &Settings, side: Side<'_>) {
        if settings.transfer_type != TransferType::Decompress {
            return;
        }
        let path = shown(&side.endpoint.path);
        let Some(archive) = side.facts.source.as_ref().and_then(|source| source.archive) else { return };
        match archive.content {
            Content::Tar | Content::Backup => {}
            Content::Other => self.refuse(
                &format!(
                    "{path} is no archive: neither a tar nor a backup, plain or in gzip, zstd, lz4 or xz"
                ),
                "copy it as it is, with --type file",
            ),
            Content::Unknown => {
                self.warn(&format!("what is in {path} cannot be looked at there"), "it is taken for a tar");
            }
        }
        if archive.bytes.is_none() || archive.at_least {
            self.warn(
                &format!("{path} does not tell how much there is in it"),
                "make sure that there is enough space on the targets",
            );
        }
    }

    /// Servers that work on what is copied, or on what is replaced.
    pub(super) fn servers(&mut self, settings: &Settings, side: Side<'_>, end: End) {
        let stops = match end {
            End::Source => settings.servers.stop.source(),
            End::Target => settings.servers.stop.target(),
        };
        // An archive, and a backup, are not what a server works on.
        if end == End::Source && Shape::of(settings, side.facts).producer != Producer::Tree {
            return;
        }
        if let Some(who) = side.facts.source.as_ref().and_then(|source| source.rests.as_ref()) {
            self.refuse(
                &format!("another run makes the server of {} rest: {who}", shown(&side.endpoint.path)),
                "wait until it is done",
            );
        }
        for other in &side.facts.other_servers {
            let copied = end == End::Source;
            self.warn(
                &format!(
                    "the account {} has files of a server open in {}",
                    other.account,
                    shown(&other.datadir)
                ),
                if copied { "its copy may be inconsistent" } else { "nothing is done about it" },
            );
        }
        let servers = &side.facts.servers;
        if stops && servers.is_empty() && end == End::Source {
            self.warn(
                &format!("no server works in {}: none is stopped", shown(&side.endpoint.path)),
                "leave out --stop-server, if that is right",
            );
        }
        for server in servers {
            match (end, stops) {
                (End::Target, true) if server.socket.is_empty() => self.refuse(
                    &format!("{} has no socket that can be seen", described(server)),
                    "stop it yourself: nobody could see to it that the new data replicates nothing",
                ),
                (_, true) => self.stop(settings, side.facts, server, servers.len()),
                (End::Source, _) if settings.servers.allow_running => self.warn(
                    &format!("{} works on what is copied", described(server)),
                    "do not start a server with the copy: nothing in it need fit together (--allow-running)",
                ),
                (End::Source, _) => self.refuse(
                    &format!("{} works on what is to be copied", described(server)),
                    "let it be stopped meanwhile with --stop-server source, copy it while it runs with --type mariabackup, \
                     or take what is there with --allow-running",
                ),
                (End::Target, _) => self.refuse(
                    &format!("{} works where the copy is to be", described(server)),
                    "choose another directory, or let it be stopped meanwhile with --stop-server target",
                ),
            }
        }
    }

    /// Whether there is a server that will not run with the copy, since it does not run now.
    pub(super) fn rests(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        if settings.servers.stop.target() && side.facts.servers.is_empty() {
            let directory = &side.endpoint.path;
            let name = final_name(settings, source.endpoint, Some(source.facts));
            let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
            self.warn(
                &format!(
                    "no server works in {}: none is stopped, and none is started with the copy",
                    shown(&path)
                ),
                "start it yourself when the copy is there (a copy of a replica: with --skip-slave-start), or leave out --stop-server",
            );
        }
    }

    /// Whether a server can be stopped and started.
    fn stop(&mut self, settings: &Settings, facts: &Facts, server: &Server, side_by_side: usize) {
        if !facts.has("systemctl") {
            self.refuse(
                &format!("{} cannot be stopped: there is no systemctl", described(server)),
                "stop it yourself",
            );
        } else if facts.uid != 0 {
            self.refuse(
                &format!("{} cannot be stopped by user id {}", described(server), facts.uid),
                "log in as root, or with --sudo",
            );
        } else if let Some(unit) =
            settings.servers.unit.as_ref().filter(|unit| !server.unit.is_empty() && **unit != server.unit)
        {
            self.refuse(
                &format!("{} does not run in {unit}", described(server)),
                "leave out --unit: that of the server is known",
            );
        } else if side_by_side > 1 && (server.unit.is_empty() || settings.servers.unit.is_some()) {
            self.refuse(
                &format!(
                    "{} is one of {side_by_side} servers, of which --unit can name one only",
                    described(server)
                ),
                "stop them yourself, or copy them one by one",
            );
        } else if server.unit.is_empty() && settings.servers.unit.is_none() {
            self.refuse(
                &format!("{} runs in no unit of this host's systemd", described(server)),
                "stop it yourself, or say --unit",
            );
        } else if !server.error.is_empty() {
            let fix = "name a file of options on the host with --defaults-file, for a login to it";
            let (error, fix) = own_remedy(&server.error, fix);
            self.refuse(
                &format!(
                    "{} cannot be asked what it replicates, to be as it was afterwards: {error}",
                    described(server)
                ),
                fix,
            );
        } else if server.socket.is_empty() {
            self.warn(
                &format!("{} has no socket that can be seen", described(server)),
                "what it replicates will do afterwards what it does whenever its server is started",
            );
        }
    }

    /// What a target needs for what arrives.
    pub(super) fn taking(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        let shape = Shape::of(settings, source.facts);
        if let Some((program, package)) = shape.packed.map(Format::program) {
            self.needs(side.facts, program, package);
        }
        let instance = source.facts.instance.as_ref().filter(|instance| instance.error.is_none());
        match shape.consumer {
            Consumer::Backup => self.backup(settings, instance, side),
            Consumer::Archive | Consumer::Tree | Consumer::File => {}
        }
        if shape.producer == Producer::Tree && settings.servers.prepare {
            self.warn("--prepare has no effect on files", "leave it out");
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
                "a backup can be given to the server's user by root only (--prepare)",
                "log in as root, or with --sudo",
            );
        }
        if instance.is_none() && backup::tools(facts).next().is_none() {
            self.refuse("no mariadb-backup is there (--prepare)", "apt install mariadb-backup");
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
                        "{} itself stays {own}'s, and only what is in it becomes {user}'s",
                        shown(&side.endpoint.path)
                    ),
                    &format!("chown {owner} it before a server is started with it"),
                );
            }
        }
        if settings.chown.is_none() && !user.is_empty() && !facts.users.contains_key(user) {
            self.refuse(
                &format!("there is no user {user}, to whom the server's files belong (--prepare)"),
                "install the server, or say --chown USER:GROUP",
            );
        }
    }

    fn needs(&mut self, facts: &Facts, program: &str, package: &str) {
        if !facts.has(program) {
            self.list.push(Finding {
                host: self.host.clone(),
                weight: Weight::Refusal,
                problem: format!("programs are missing: {program}"),
                fix: format!("apt install {package}"),
                kind: None,
            });
        }
    }
}

/// What kept a host from a login, and what to do about it: its own remedy where it names one, or else `fix`.
pub(crate) fn own_remedy<'a>(error: &'a str, fix: &'a str) -> (&'a str, &'a str) {
    let of_ours = ["no login to ", "--defaults-file ", "ERROR 2059 "];
    let is_ours = of_ours.iter().any(|prefix| error.starts_with(prefix));
    error.split_once("; ").filter(|_| is_ours).unwrap_or((error, fix))
}

/// `mariadb.service (in /var/lib/mysql)`.
fn described(server: &Server) -> String {
    let name = if server.unit.is_empty() { "a server" } else { &server.unit };
    format!("{name} (in {})", shown(&server.datadir))
}
