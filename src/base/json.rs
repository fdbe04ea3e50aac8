//! Output of `--json`: one object per line, with the format version and the name of the event. See
//! docs/json.md.

use serde::Serialize;

/// Format version, increased when a field changes its meaning or is removed. New fields and events may be
/// added.
pub const VERSION: u32 = 2;

#[derive(Serialize)]
struct Line<'a, T> {
    version: u32,
    event: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// Formats an event as one line, without the newline. The body is a struct or a map.
#[must_use]
pub fn line(event: &str, body: &impl Serialize) -> String {
    // Our own types have string keys and finite numbers only.
    serde_json::to_string(&Line { version: VERSION, event, body }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_version_and_event() {
        let body = serde_json::json!({ "phase": "copying" });
        assert_eq!(line("phase", &body), r#"{"version":2,"event":"phase","phase":"copying"}"#);
    }
}
