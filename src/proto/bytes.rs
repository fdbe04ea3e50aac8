//! Byte strings and texts of hosts, bounded when they are decoded.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, message, short};

/// Path, name or argument: any bytes, which are not always UTF-8.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostBytes(Vec<u8>);

impl HostBytes {
    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes as a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_os_str())
    }

    /// Returns the bytes as a name or an argument.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for HostBytes {
    fn from(text: &T) -> Self {
        Self(text.as_ref().as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for HostBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<HostBytes> for PathBuf {
    fn from(bytes: HostBytes) -> Self {
        Self::from(OsString::from_vec(bytes.0))
    }
}

/// Shows the bytes as users see them: printable and at most as long as a path.
impl fmt::Display for HostBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.0, LONGEST_PATH))
    }
}

impl fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for HostBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize(deserializer).map(Self)
    }
}

/// Message or name of a host, for people: printable, in one line, at most [`LONGEST_TEXT`] bytes. Both the
/// constructor and the decoder enforce that.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Text(String);

impl Text {
    /// Creates a text from the output of a program or the message of an error.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(message(bytes.as_ref(), LONGEST_TEXT))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: fmt::Display + ?Sized> From<&T> for Text {
    fn from(value: &T) -> Self {
        Self::new(value.to_string())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl Visitor<'_> for Bounded {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::new(text))
            }

            fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Text, E> {
                Err(E::custom("bytes instead of a text"))
            }
        }
        deserializer.deserialize_str(Bounded).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_the_encoding(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let encoded = postcard::to_stdvec(&HostBytes(bytes.clone())).unwrap();
            let decoded: HostBytes = postcard::from_bytes(&encoded).unwrap();
            prop_assert_eq!(decoded.as_bytes(), bytes);
        }

        #[test]
        fn decoded_texts_are_printable_and_bounded(text in any::<String>(), times in 0usize..200) {
            let encoded = postcard::to_stdvec(&text.repeat(times)).unwrap();
            let decoded: Text = postcard::from_bytes(&encoded).unwrap();
            prop_assert!(decoded.as_str().len() <= LONGEST_TEXT + '…'.len_utf8());
            prop_assert!(!decoded.as_str().chars().any(char::is_control));
        }
    }
}
