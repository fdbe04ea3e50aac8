//! JSON Schema of the program's output.

use serde_json::Value;

/// Returns docs/json.schema.json in a strict form: it has to know every field, and every word where it has
/// examples. The published form lets readers accept later versions.
fn schema() -> jsonschema::Validator {
    fn close(value: &mut Value) {
        if let Value::Object(map) = value {
            if map.contains_key("properties") {
                map.entry("additionalProperties").or_insert(false.into());
            }
            if let Some(words) = map.remove("examples") {
                map.insert("enum".into(), words);
            }
            // A condition does not list all properties.
            map.iter_mut().filter(|(key, _)| *key != "if").for_each(|(_, value)| close(value));
        } else if let Value::Array(list) = value {
            list.iter_mut().for_each(close);
        }
    }
    let mut schema: Value = serde_json::from_str(include_str!("../../docs/json.schema.json")).unwrap();
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
pub(crate) fn expect_valid(line: &Value) {
    let errors: Vec<String> = schema().iter_errors(line).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "docs/json.schema.json: {errors:?}: {line}");
}

#[test]
fn schema_rejects_unknown_fields_and_values() {
    let errors = |line: Value| schema().iter_errors(&line).count();
    let phase = serde_json::json!({ "version": 2, "event": "phase", "phase": "copying" });
    assert_eq!(errors(phase.clone()), 0);
    for (field, value) in
        [("phase", Value::from("no such")), ("version", 3.into()), ("more", 1.into()), ("phase", 1.into())]
    {
        let mut other = phase.clone();
        other[field] = value;
        assert!(errors(other) > 0, "{field}");
    }
    assert!(errors(serde_json::json!({ "version": 2, "event": "report" })) > 0);
    assert!(errors(serde_json::json!({ "record": 1 })) > 0);
    assert!(errors(serde_json::json!({ "neither": 1 })) > 0);
}
