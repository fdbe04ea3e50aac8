//! Reads the replication account from a file on the controller (`--account`).

use std::path::Path;

use config::{Config, FileFormat};

use super::refusal;
use crate::base::printable::printable;
use crate::base::trust::{self, Readers};
use crate::mariadb::plan::Account;
use crate::preflight::Finding;

/// Reads `user` and `password` from the `[client]` section of a MariaDB option file. Refuses a file that
/// other accounts can read or change.
pub(super) fn read(file: &Path) -> Result<Account, Finding> {
    let shown = printable(file.as_os_str().as_encoded_bytes());
    let refuse =
        |problem: &str, fix: &str| refusal(&"localhost", &format!("--account {shown}: {problem}"), fix);
    let form = "write user=NAME and password=PASSWORD below [client]";
    let text = trust::read(file, Readers::Owner).map_err(|error| {
        let fix = error.fix().unwrap_or_else(|| "give a file on this machine that you can read".into());
        refuse(&error.to_string(), &fix)
    })?;
    // The parser's message may quote the line, and with it the password.
    let parsed = Config::builder().add_source(config::File::from_str(&text, FileFormat::Ini)).build();
    let parsed = parsed.map_err(|_| refuse("not an option file", form))?;
    let word =
        |key: &str| parsed.get_string(&format!("client.{key}")).ok().filter(|word| !word.contains('\n'));
    match word("user").filter(|user| !user.is_empty()).zip(word("password")) {
        Some((user, password)) => Account::new(user, password)
            .ok_or_else(|| refuse("the user or password is too long or has control characters", form)),
        None => Err(refuse("no user and password below [client]", form)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn written(text: &str, mode: u32) -> Result<Account, Finding> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        read(file.path())
    }

    #[test]
    fn account_is_read_and_its_password_is_not_shown() {
        let account = written("[client]\nuser = repl\npassword = \"00 o'clock\\\\\"\n", 0o600).unwrap();
        assert_eq!((account.user.as_str(), account.password()), ("repl", "00 o'clock\\"));
        assert_eq!(format!("{account:?}"), "Account(\"repl\")");
    }

    #[test]
    fn unsafe_or_invalid_file_is_refused_without_its_content() {
        let refused = |text: &str, mode: u32| written(text, mode).unwrap_err().to_string();
        assert!(refused("[client]\nuser=a\npassword=secret", 0o640).contains("others may read it"));
        let changeable = refused("[client]\nuser=a\npassword=secret", 0o602);
        assert!(changeable.contains("may be able to change it; chmod go-w"), "{changeable}");
        assert!(
            refused("[mysqld]\nuser=a\npassword=secret", 0o600)
                .contains("no user and password below [client]")
        );
        assert!(!refused("[client\nuser=a\npassword=secret", 0o600).contains("secret"));
        assert!(read(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
