//! The account of replicas, out of a file of this machine.

use std::path::Path;

use config::{Config, FileFormat};

use super::refusal;
use crate::plan::replica::Account;
use crate::preflight::Finding;
use crate::printable::printable;
use crate::trust::{self, Readers};

/// Reads `user` and `password` below `[client]` of an option file as MariaDB's clients have it. Others may not be able to read or
/// change it.
pub(super) fn read(file: &Path) -> Result<Account, Finding> {
    let shown = printable(file.as_os_str().as_encoded_bytes());
    let refuse =
        |problem: &str, fix: &str| refusal(&"localhost", &format!("--account {shown}: {problem}"), fix);
    let form = "write it as: [client], and below it: user=NAME and password=WORD";
    let text = trust::read(file, Readers::Owner).map_err(|error| {
        let fix = error.fix().unwrap_or_else(|| "name a file of this machine that you may read".into());
        refuse(&error.to_string(), &fix)
    })?;
    // What the parser says may quote the line.
    let parsed = Config::builder().add_source(config::File::from_str(&text, FileFormat::Ini)).build();
    let parsed = parsed.map_err(|_| refuse("it is no file of options", form))?;
    let word =
        |key: &str| parsed.get_string(&format!("client.{key}")).ok().filter(|word| !word.contains('\n'));
    match word("user").filter(|user| !user.is_empty()).zip(word("password")) {
        Some((user, password)) => {
            Account::new(user, password).ok_or_else(|| refuse("user or password cannot be one", form))
        }
        None => Err(refuse("there is no user and password below [client]", form)),
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
    fn an_account_is_read_and_its_password_is_never_shown() {
        let account = written("[client]\nuser = repl\npassword = \"00 o'clock\\\\\"\n", 0o600).unwrap();
        assert_eq!((account.user.as_str(), account.password()), ("repl", "00 o'clock\\"));
        assert_eq!(format!("{account:?}"), "Account(\"repl\")");
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_none_is_refused_without_its_words() {
        let said = |text: &str, mode: u32| written(text, mode).unwrap_err().to_string();
        assert!(said("[client]\nuser=a\npassword=secret", 0o640).contains("others may read it"));
        let changeable = said("[client]\nuser=a\npassword=secret", 0o602);
        assert!(changeable.contains("may be able to change it; chmod go-w"), "{changeable}");
        assert!(
            said("[mysqld]\nuser=a\npassword=secret", 0o600).contains("no user and password below [client]")
        );
        assert!(!said("[client\nuser=a\npassword=secret", 0o600).contains("secret"));
        assert!(read(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
