//! Commands as data, and the one routine that quotes a word for a shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::settings::Login;

/// One word of a command that will stand in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Taken literally, whatever is in it.
    Literal(Vec<u8>),
    /// A file of that name in the guard's own directory on the host. The name is ours, never a user's.
    Home(String),
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Word {
    fn from(text: &T) -> Self {
        Self::Literal(text.as_ref().as_bytes().to_vec())
    }
}

impl Word {
    /// As it stands in a script for bash.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        match self {
            Self::Literal(bytes) => quote(bytes),
            Self::Home(name) => {
                debug_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)));
                [b"\"$home\"/", name.as_bytes()].concat()
            }
        }
    }
}

/// A word for bash, in single quotes unless it is plainly harmless. NUL cannot be in an argument and is dropped.
#[must_use]
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(harmless) {
        return bytes.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            0 => {}
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A login as words of our own command line, for people to copy, each with a blank behind it.
#[must_use]
pub fn login_words(login: &Login) -> String {
    let mut words: Vec<Vec<u8>> = Vec::new();
    if login.sudo {
        words.push(b"--sudo".to_vec());
    }
    let config = login.config.iter().map(|file| [b"--ssh-config=", file.as_os_str().as_bytes()].concat());
    let options = login.options.iter().map(|option| [b"--ssh-option=", option.as_bytes()].concat());
    words.extend(config.chain(options).map(|word| quote(&word)));
    words.iter().map(|word| format!("{} ", String::from_utf8_lossy(word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// What bash makes of a script that prints its quoted words, each ended by NUL.
    fn words_in_bash(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut script = b"LC_ALL=C; printf '%s\\0'".to_vec();
        for word in words {
            script.push(b' ');
            script.extend(quote(word));
        }
        script.push(b'\n');
        let mut bash = Command::new("bash")
            .args(["--norc", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin.take().unwrap().write_all(&script).unwrap();
        let output = bash.wait_with_output().unwrap().stdout;
        output.split(|&b| b == 0).map(<[u8]>::to_vec).take(words.len()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bash_reads_every_word_as_it_was(words in prop::collection::vec(prop::collection::vec(1u8..=255, 0..30), 1..5)) {
            prop_assert_eq!(words_in_bash(&words), words);
        }
    }

    #[test]
    fn what_a_shell_would_run_is_not_run() {
        for word in
            [&b"$(touch /tmp/x)"[..], b"a'b", b"-rf", b"`id`", b"a\nb", b"", b"~", b"*", b"a;b", b"!x"]
        {
            assert_eq!(words_in_bash(&[word.to_vec()]), [word.to_vec()]);
        }
        assert_eq!(quote(b"/srv/sqldata"), b"/srv/sqldata");
    }
}
