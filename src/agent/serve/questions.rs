//! Questions of a controller, which change nothing.

use std::os::fd::AsFd as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::failure::{Fallible, failed};
use super::names;
use super::sessions::Opened;
use super::surroundings::{SERVICE, login};
use crate::agent::facts::addresses::{resolve, routes};
use crate::agent::facts::data::{data, instance_files};
use crate::agent::facts::installed::installed;
use crate::agent::facts::source::source;
use crate::agent::facts::target::target;
use crate::agent::facts::{self};
use crate::agent::files::attributes::attributes;
use crate::agent::files::lacks::lacks;
use crate::agent::files::pattern::Pattern;
use crate::agent::files::twins::twin;
use crate::agent::files::walk::Root;
use crate::agent::holders::Servers;
use crate::agent::locks::{holder, name_lock, server_lock};
use crate::agent::service::remote::RemoteError;
use crate::agent::service::replication_account;
use crate::agent::state::Directories;
use crate::proto::command::{Answer, Command, Failure, TreeQuery};
use crate::proto::facts::path::{SourceFacts, SourceQuery, TargetFacts, TargetQuery};
use crate::proto::files::AttributeScope;
use crate::proto::server::{Remote, SqlAnswer, SqlFailure};
use crate::proto::vault::Vault;
use crate::proto::{HostBytes, Text};

/// Answers a question; returns the command if it is none.
pub(super) fn answer(
    command: Command,
    directories: &Directories,
    connection: &str,
) -> Result<Result<Answer, Failure>, Box<Command>> {
    Ok(match command {
        Command::HostFacts(transfer) => Ok(Answer::Host(Box::new(facts::host(transfer, connection)))),
        Command::SourceFacts(query) => source_facts(&query, directories).map(Box::new).map(Answer::Source),
        Command::TargetFacts(query) => target_facts(&query, directories).map(Box::new).map(Answer::Target),
        Command::InstalledServer { unit } => {
            let unit = Some(unit.as_str()).filter(|unit| !unit.is_empty());
            installed(unit, &mut Servers::new(login())).or_failed().map(Box::new).map(Answer::Installed)
        }
        Command::DataFacts { datadir, unit } => {
            let unit = Some(unit.as_str()).filter(|unit| !unit.is_empty());
            let facts = data(datadir.as_path(), unit, &mut Servers::new(login()));
            facts.or_failed().map(Box::new).map(Answer::Data)
        }
        Command::InstanceFiles { datadir, binlog } => {
            let accounts = crate::agent::accounts::Accounts::read();
            let files = instance_files(datadir.as_path(), binlog.as_path(), &accounts);
            files.or_failed().map(Answer::InstanceFiles)
        }
        Command::Routes(addresses) => Ok(Answer::Routes(routes(&addresses))),
        Command::Resolve(name) => resolve(&name).or_failed().map(Answer::Addresses),
        Command::Twin(query) => find_twin(&query),
        Command::Attributes { tree, scope } => find_attributes(&tree, scope),
        command => return Err(Box::new(command)),
    })
}

fn source_facts(query: &SourceQuery, directories: &Directories) -> Result<SourceFacts, Failure> {
    let patterns: Vec<Pattern> = query.exclude.iter().map(|text| Pattern::new(text.as_bytes())).collect();
    let is_excluded = |path: &[u8]| patterns.iter().any(|pattern| pattern.matches(path));
    let mut facts = source(query, &mut Servers::new(login()), &is_excluded).or_failed()?;
    facts.quiesced = facts.id.and_then(|id| holder(directories, &server_lock(id)));
    Ok(facts)
}

fn target_facts(query: &TargetQuery, directories: &Directories) -> Result<TargetFacts, Failure> {
    let mut facts = target(query, &mut Servers::new(login())).or_failed()?;
    if let Some(found) = &mut facts.directory {
        let name = if query.name.is_empty() { HostBytes::from(".") } else { query.name.clone() };
        found.busy = holder(directories, &name_lock(found.id, &name));
        let directory = names::open(&query.directory).or_failed()?;
        found.lacks = lacks(directory.as_fd()).unwrap_or_default();
    }
    Ok(facts)
}

fn find_twin(query: &TreeQuery) -> Result<Answer, Failure> {
    let directory = names::open(&query.directory).or_failed()?;
    // Files there have no names: nothing is left when the agent is killed.
    let scratch = names::open(&HostBytes::from(&std::env::temp_dir())).or_failed()?;
    let found = twin(Root::Entry(directory.as_fd()), &query.tree, scratch.as_fd());
    found.or_failed().map(Answer::Twin)
}

fn find_attributes(query: &TreeQuery, scope: AttributeScope) -> Result<Answer, Failure> {
    let directory = names::open(&query.directory).or_failed()?;
    Ok(Answer::Attributes(attributes(Root::Entry(directory.as_fd()), &query.tree, scope)))
}

/// Executes statements on a server of this host.
pub(super) fn query(
    login: &crate::proto::server::Login,
    unit: Option<&str>,
    statements: &Opened,
) -> Result<SqlAnswer, SqlFailure> {
    let client = SERVICE
        .client(login, unit)
        .map_err(|error| SqlFailure { number: None, message: Text::from(&error) })?;
    let sets = client.execute(&statements.text, statements.limit).map_err(|error| error.failure())?;
    Ok(SqlAnswer { sets, more: false })
}

/// Executes statements on a server of another host.
pub(super) fn remote_query(
    server: &Remote,
    user: &str,
    password: &Zeroizing<Vec<u8>>,
    statements: &Opened,
) -> Result<Answer, Failure> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(ToOwned::to_owned);
    let password = Zeroizing::new(text(password).map_err(|_| failed("the password is not UTF-8"))?);
    let statements = text(&statements.text).map_err(|_| failed("the statements are not UTF-8"))?;
    let answer = SERVICE.query_remote(server, user, &password, &statements);
    Ok(Answer::Sql(match answer {
        Ok(sets) => Ok(SqlAnswer { sets, more: false }),
        Err(RemoteError::Sql(error)) => Err(error.failure()),
        Err(error) => Err(SqlFailure { number: None, message: Text::from(&error) }),
    }))
}

/// Reads the account with which a server replicates.
pub(super) fn replication_account(
    datadir: &HostBytes,
    connection: &str,
    vault: &Vault,
) -> Result<Answer, Failure> {
    let found = replication_account::read(Path::new(datadir.as_os_str()), connection).or_failed()?;
    let sealed = found
        .map(|account| {
            vault.seal(account.password.as_bytes()).map(|password| (account.user.to_string(), password))
        })
        .transpose()
        .or_failed()?;
    Ok(Answer::ReplicationAccount(sealed))
}
