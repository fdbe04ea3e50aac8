use std::fs;

use super::*;
use crate::agent::accounts::Login;
use crate::proto::facts::path::UnknownOwner;

fn query(directory: &Path, name: &str, transfer: Transfer) -> TargetQuery {
    let (user, group) = (Text::default(), Text::default());
    TargetQuery { transfer, directory: HostBytes::from(directory), name: HostBytes::from(name), user, group }
}

fn of(query: &TargetQuery) -> DirectoryFacts {
    target(query, &mut Servers::new(Login::of_agent(None))).unwrap().directory.unwrap()
}

fn facts(directory: &Path, name: &str) -> DirectoryFacts {
    of(&query(directory, name, Transfer::Files))
}

#[test]
fn directory_is_described() {
    let directory = tempfile::tempdir().unwrap();
    let facts = facts(directory.path(), "new");
    assert!(facts.writable && !facts.read_only && !facts.folds_case && !facts.mounted);
    assert!(facts.free_bytes > 0 && !facts.file_system.is_empty() && facts.place.is_some());
    assert_eq!(facts.real, HostBytes::from(&directory.path().canonicalize().unwrap()));
    assert_eq!(facts.id, id(&rustix::fs::stat(directory.path()).unwrap()));
    assert_eq!((facts.existing, facts.holds, facts.busy), (Existing::Nothing, None, None));
    assert!(facts.owners.users.contains_key(&Text::new("root")));
}

#[test]
fn missing_directories_and_files_have_no_facts() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    for (name, path_type) in [("missing", PathType::Missing), ("file", PathType::File)] {
        let query = query(&directory.path().join(name), "x", Transfer::Files);
        let facts = target(&query, &mut Servers::new(Login::of_agent(None))).unwrap();
        assert_eq!(facts, TargetFacts { path_type, directory: None });
    }
}

#[test]
fn existing_data_and_digest_files_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("data")).unwrap();
    fs::write(path("a.tar.sha256"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let entry = Existing::Entry(id(&rustix::fs::stat(path("data")).unwrap()));
    assert_eq!(facts(directory.path(), "data").existing, entry);
    assert!(matches!(facts(directory.path(), "link").existing, Existing::Entry(_)));
    assert_eq!(facts(directory.path(), "a.tar").existing, Existing::Nothing);
    let compress = query(directory.path(), "a.tar", Transfer::Compress);
    assert_eq!(of(&compress).existing, Existing::DigestFile);
}

#[test]
fn directory_that_is_filled_must_be_empty() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["lost+found", ".transfer-run"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    assert_eq!(facts(directory.path(), "").holds, None);
    fs::write(directory.path().join("entry"), "").unwrap();
    assert_eq!(facts(directory.path(), "").holds, Some(HostBytes::from("entry")));
    assert_eq!(facts(directory.path(), "new").holds, None);
}

#[test]
fn unknown_owners_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let query = TargetQuery {
        user: Text::new("no-such-user"),
        group: Text::new("root"),
        ..query(directory.path(), "new", Transfer::Files)
    };
    assert_eq!(of(&query).unknown_owners, [UnknownOwner::User(Text::new("no-such-user"))]);
}

#[test]
fn shared_directory_is_not_trusted() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(facts(directory.path(), "new").trust, PathTrust::Trusted);
    std::os::unix::fs::chown(directory.path(), Some(4321), None).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("link", &link).unwrap();
    let trust = super::trust(&link, &Servers::new(Login::of_agent(None)));
    std::os::unix::fs::chown(directory.path(), Some(0), None).unwrap();
    let unknown = super::trust(&link, &Servers::new(Login::of_agent(None)));
    assert!(matches!(trust, PathTrust::Shared(_)) && matches!(unknown, PathTrust::Unknown(_)));
    std::os::unix::fs::chown(directory.path(), Some(4321), None).unwrap();
    let PathTrust::Shared(shared) = facts(directory.path(), "new").trust else { panic!("trusted") };
    assert_eq!(shared.path, HostBytes::from(directory.path()));
}

#[test]
fn servers_within_count_where_nothing_exists() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let _open = fs::File::create(data.join("ibdata1")).unwrap();
    assert_eq!(facts(&data, "new").servers[0].relation, Relation::Within);
    assert!(facts(directory.path(), "new").servers.is_empty());
    assert_eq!(facts(directory.path(), "data").servers[0].relation, Relation::Within);
    assert_eq!(facts(directory.path(), "").servers[0].relation, Relation::Around);
}
