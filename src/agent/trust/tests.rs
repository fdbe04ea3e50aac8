use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

const EVE: u32 = 4321;
const SERVER: u32 = 4322;

/// Directory in a place that root alone controls, with accounts of its own.
struct World {
    directory: tempfile::TempDir,
    accounts: Accounts,
}

impl World {
    /// Creates a world, unless this is not root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = "root:x:0:0::/:/\neve:x:4321:4321::/:/\nmysql:x:4322:4322::/:/\nown:x:0:77::/:/\n";
        let group = "root:x:0:\neve:x:4321:\nmysql:x:4322:\nown:x:77:\nstaff:x:50:eve\nopen:x:78:eve\n";
        let accounts = Accounts::parse(passwd.as_bytes(), group.as_bytes());
        let directory = tempfile::tempdir().unwrap();
        Some(Self { directory, accounts })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn directory(&self, name: &str, uid: u32, gid: u32, mode: u32) {
        fs::create_dir_all(self.path(name)).unwrap();
        chown(self.path(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn root(&self) -> Trusted<'_> {
        Trusted::new(Login { uid: 0, caller: None }, &self.accounts)
    }

    /// Returns the component below the directory that is shared; empty for none.
    fn shared(&self, name: &str, trusted: &Trusted<'_>) -> String {
        let found = shared_component(&self.path(name), trusted).unwrap();
        let relative = |shared: SharedComponent| {
            shared.path.as_path().strip_prefix(self.directory.path()).unwrap().to_str().unwrap().to_owned()
        };
        found.map(relative).unwrap_or_default()
    }
}

#[test]
fn owners_and_modes_of_all_components_count() {
    let Some(world) = World::new() else { return };
    world.directory("own/deep", 0, 0, 0o755);
    world.directory("eves", EVE, EVE, 0o755);
    world.directory("eves/deep", 0, 0, 0o755);
    world.directory("open", 0, 0, 0o777);
    world.directory("open/deep", 0, 0, 0o755);
    world.directory("sticky", 0, 0, 0o1777);
    world.directory("sticky/mine", 0, 0, 0o755);
    world.directory("sticky/eves", EVE, EVE, 0o755);
    for (path, shared) in [
        ("own/deep", ""),
        ("own/missing", ""),
        ("own/missing/more", ""),
        ("own/../own/./deep", ""),
        ("eves", "eves"),
        ("eves/deep", "eves"),
        ("open/deep", "open"),
        ("sticky/mine", ""),
        ("sticky/eves", "sticky/eves"),
        ("sticky/eves/../../own", "sticky/eves"),
        ("sticky/missing", ""),
        ("sticky/missing/more", "sticky"),
    ] {
        assert_eq!(world.shared(path, &world.root()), shared, "{path}");
    }
    let shared = shared_component(&world.path("eves"), &world.root()).unwrap().unwrap();
    assert_eq!((shared.owner.as_str(), shared.mode), ("eve", 0o755));
}

#[test]
fn groups_are_safe_only_as_own_groups() {
    let Some(world) = World::new() else { return };
    for (name, gid) in [("root", 0), ("own", 77), ("eves", EVE), ("staff", 50), ("open", 78), ("unknown", 79)]
    {
        world.directory(name, 0, gid, 0o775);
    }
    for (name, shared) in [
        ("root", ""),
        ("own", ""),
        ("eves", "eves"),
        ("staff", "staff"),
        ("open", "open"),
        ("unknown", "unknown"),
    ] {
        assert_eq!(world.shared(name, &world.root()), shared, "{name}");
    }
    let with_eve = Trusted::new(Login { uid: 0, caller: Some(EVE) }, &world.accounts);
    assert_eq!(world.shared("eves", &with_eve), "");
}

#[test]
fn acl_makes_the_group_bits_a_mask() {
    let Some(world) = World::new() else { return };
    world.directory("listed", 0, 0, 0o755);
    let entry = format!("u:{EVE}:rwx");
    let set = Command::new("setfacl").args(["-m", &entry]).arg(world.path("listed")).status();
    if set.is_ok_and(|status| status.success()) {
        assert_eq!(world.shared("listed", &world.root()), "listed");
    }
}

#[test]
fn links_are_resolved_and_belong_to_the_way() {
    let Some(world) = World::new() else { return };
    world.directory("own/deep", 0, 0, 0o755);
    world.directory("eves/deep", EVE, EVE, 0o755);
    world.directory("sticky", 0, 0, 0o1777);
    symlink("own/../own/deep", world.path("relative")).unwrap();
    symlink(world.path("eves/deep"), world.path("absolute")).unwrap();
    symlink("/", world.path("sticky/hers")).unwrap();
    std::os::unix::fs::lchown(world.path("sticky/hers"), Some(EVE), Some(EVE)).unwrap();
    symlink("loop", world.path("loop")).unwrap();
    fs::write(world.path("own/file"), "").unwrap();
    chown(world.path("own/file"), Some(EVE), None).unwrap();
    for (path, shared) in [
        ("relative", ""),
        ("relative/missing", ""),
        ("absolute", "eves/deep"),
        ("sticky/hers", "sticky/hers"),
        ("own/file", "own/file"),
    ] {
        assert_eq!(world.shared(path, &world.root()), shared, "{path}");
    }
    let check = |path: &Path| shared_component(path, &world.root());
    assert!(matches!(check(&world.path("loop")), Err(TrustError::Links(_))));
    assert!(matches!(check(Path::new("/proc/self/cwd")), Err(TrustError::Proc(_))));
    assert!(matches!(check(Path::new("etc")), Err(TrustError::Relative(_))));
}

#[test]
fn accounts_of_servers_are_trusted_with_data_only() {
    let Some(world) = World::new() else { return };
    for name in ["home", "home/data", "home/data/shop", "empty"] {
        world.directory(name, SERVER, SERVER, 0o755);
    }
    fs::write(world.path("home/data/ibdata1"), "").unwrap();
    world.directory("links", 0, 0, 0o755);
    for (name, to) in [("links/data", "home/data"), ("links/empty", "empty")] {
        symlink(world.path(to), world.path(name)).unwrap();
        std::os::unix::fs::lchown(world.path(name), Some(SERVER), Some(SERVER)).unwrap();
    }
    fs::rename(world.path("home/data"), world.path("data")).unwrap();
    world.directory("home/other", SERVER, SERVER, 0o755);
    fs::remove_file(world.path("links/data")).unwrap();
    symlink(world.path("data"), world.path("links/data")).unwrap();
    std::os::unix::fs::lchown(world.path("links/data"), Some(SERVER), Some(SERVER)).unwrap();
    let everywhere = world.root().with_servers([SERVER]);
    let data = world.root().with_servers_of_data([SERVER]);
    for (path, of_data) in [
        ("data", ""),
        ("data/shop", ""),
        ("empty", ""),
        ("home/other", "home"),
        ("links/data", ""),
        ("links/empty", "links/empty"),
    ] {
        assert_eq!(world.shared(path, &everywhere), "", "{path}");
        assert_eq!(world.shared(path, &data), of_data, "{path}");
    }
    assert_eq!(world.shared("data", &world.root()), "data");
}
