//! Files that are written anew as a whole, by rename, while others may read them.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// What the name of a file begins with that has not got its own yet. The collector of metrics reads `*.prom`, and this is not
/// that.
pub const UNNAMED: &str = ".transfer-";

/// A file for a directory, perhaps of somebody else, without a name of its own yet. Nobody else may read it; it goes with the
/// result.
///
/// # Errors
/// When it cannot be made.
pub fn begin(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(UNNAMED).tempfile_in(directory)
}

/// Writes a file anew. Behind a power cut it is the old one or the new one, each whole.
///
/// # Errors
/// When it cannot be written; it is the old one then.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = begin(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory);
    Ok(())
}

/// The names in a directory are on the disk, where it may be opened for that and its file system knows how.
pub fn sync(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}
