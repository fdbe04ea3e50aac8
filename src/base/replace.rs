//! Files that are replaced atomically by rename, while others may read them.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// Prefix of the name of an unfinished file. The collector of metrics reads `*.prom`, so it ignores these.
pub(crate) const UNNAMED: &str = ".transfer-";

/// Creates an unnamed file in a directory that may belong to another account. Only this account can read it;
/// it is removed with the result.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn begin(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(UNNAMED).tempfile_in(directory)
}

/// Replaces a file. After a power failure, either the old or the new version is there, complete.
///
/// # Errors
/// When it cannot be written; then the old version remains.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = begin(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory);
    Ok(())
}

/// Syncs the names in a directory, if it can be opened and the file system supports that.
pub(crate) fn sync(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}
