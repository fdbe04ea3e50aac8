//! Deserialization of values from the words that they would be on the command line.

use std::str::FromStr;

use serde::Deserialize;

/// A scalar of any type, to be converted to a word.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(i64),
    Text(String),
}

/// Deserializes a value from one word.
pub(crate) fn from_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = String>,
{
    let word = match Scalar::deserialize(deserializer) {
        Ok(Scalar::Switch(on)) => on.to_string(),
        Ok(Scalar::Number(number)) => number.to_string(),
        Ok(Scalar::Text(text)) => text,
        Err(_) => {
            return Err(serde::de::Error::custom("expected a string, a number, true or false"));
        }
    };
    word.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Deserializes one value, or a list of them, each from one word.
pub(crate) fn from_words<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let words = match Words::deserialize(deserializer) {
        Ok(Words::One(word)) => vec![word],
        Ok(Words::Many(words)) => words,
        Err(_) => return Err(serde::de::Error::custom("expected a string or a list of strings")),
    };
    let values: Result<Vec<T>, String> = words.iter().map(|word| word.parse()).collect();
    values.map(Some).map_err(serde::de::Error::custom)
}
