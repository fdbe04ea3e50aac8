//! What `--json` prints: one object per line, with the version of the format and the event's name. docs/json.md
//! describes each.

use serde::Serialize;

/// The version of the format. It grows when a field changes its meaning or goes; new fields and events may come.
pub const VERSION: u32 = 2;

#[derive(Serialize)]
struct Line<'a, T> {
    version: u32,
    event: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// An event as one line, without its newline. The body is a struct or a map.
#[must_use]
pub fn line(event: &str, body: &impl Serialize) -> String {
    // What we say of ourselves has keys that are texts and no number that is none.
    serde_json::to_string(&Line { version: VERSION, event, body }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_version_and_name_first() {
        let body = serde_json::json!({ "phase": "copying" });
        assert_eq!(line("phase", &body), r#"{"version":2,"event":"phase","phase":"copying"}"#);
    }
}
