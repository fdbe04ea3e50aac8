//! The only routines that quote words for a shell, and commands that are suggested to users.

use std::os::unix::ffi::OsStrExt;

use crate::base::printable::printable;
use crate::config::settings::Login;

/// Quotes a word for bash with single quotes, unless all of its characters are harmless. Drops NUL, which an
/// argument cannot contain.
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

/// Quotes a word for a user who types it into bash: a word with unprintable characters becomes `$'...'`.
#[must_use]
pub fn typable(bytes: &[u8]) -> String {
    let shown = printable(bytes);
    if shown.as_bytes() == bytes {
        return String::from_utf8_lossy(&quote(bytes)).into_owned();
    }
    let mut word = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let raw = c.encode_utf8(&mut [0; 4]).to_owned();
            match c {
                '\'' | '\\' => word.extend(['\\', c]),
                '\n' => word.push_str("\\n"),
                '\t' => word.push_str("\\t"),
                _ if printable(raw.as_bytes()) == raw => word.push(c),
                _ => word.extend(raw.bytes().map(|byte| format!("\\x{byte:02x}"))),
            }
        }
        word.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    word.push('\'');
    word
}

/// Returns the command that runs `status` or `clean` on hosts with the same login as the run.
#[must_use]
pub fn look_after(login: &Login, verb: &str, hosts: &str) -> String {
    let sudo = login.sudo.then(|| b"--sudo".to_vec());
    let config = login.config.iter().map(|file| [b"--ssh-config=", file.as_os_str().as_bytes()].concat());
    let options = login.options.iter().map(|option| [b"--ssh-option=", option.as_bytes()].concat());
    typed(&["transfer"], sudo.into_iter().chain(config).chain(options), &[verb, hosts])
}

/// Returns the command with which a user can try a login.
#[must_use]
pub fn try_login(login: &Login, host: &str) -> String {
    let config = login.config.iter().flat_map(|file| [b"-F".to_vec(), file.as_os_str().as_bytes().to_vec()]);
    let options = login.options.iter().flat_map(|option| [b"-o".to_vec(), option.as_bytes().to_vec()]);
    // Batch mode, as in runs: a login that asks for a password must fail here, too.
    typed(&["ssh", "-o", "BatchMode=yes"], config.chain(options), &[host, "true"])
}

/// Joins the words of a command line and quotes those in the middle, which may be any bytes.
fn typed(first: &[&str], words: impl Iterator<Item = Vec<u8>>, last: &[&str]) -> String {
    let quoted: Vec<String> = words.map(|word| typable(&word)).collect();
    let quoted = quoted.iter().map(String::as_str);
    first.iter().copied().chain(quoted).chain(last.iter().copied()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Passes quoted words through bash and returns them as bash reads them.
    fn words_in_bash(words: &[Vec<u8>], quote: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
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
        fn bash_reads_quoted_words_unchanged(words in prop::collection::vec(prop::collection::vec(1u8..=255, 0..30), 1..5)) {
            prop_assert_eq!(words_in_bash(&words, quote), words.clone());
            prop_assert_eq!(words_in_bash(&words, |word| typable(word).into_bytes()), words);
        }
    }

    #[test]
    fn suggested_commands_log_in_as_the_run_did() {
        let login =
            Login { sudo: true, config: Some("/etc/my ssh".into()), options: vec!["Port=2222".into()] };
        assert_eq!(
            look_after(&login, "clean", "db1 db2"),
            "transfer --sudo '--ssh-config=/etc/my ssh' --ssh-option=Port=2222 clean db1 db2"
        );
        assert_eq!(try_login(&login, "db1"), "ssh -o BatchMode=yes -F '/etc/my ssh' -o Port=2222 db1 true");
        assert_eq!(try_login(&Login::default(), "db1"), "ssh -o BatchMode=yes db1 true");
    }

    #[test]
    fn shell_syntax_in_words_is_not_executed() {
        for word in
            [&b"$(touch /tmp/x)"[..], b"a'b", b"-rf", b"`id`", b"a\nb", b"", b"~", b"*", b"a;b", b"!x"]
        {
            assert_eq!(words_in_bash(&[word.to_vec()], quote), [word.to_vec()]);
        }
        assert_eq!(quote(b"/srv/sqldata"), b"/srv/sqldata");
    }
}
