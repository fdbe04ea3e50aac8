//! What documents name exists.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Words in backquotes of the shape `file::test`, the file below `tests/`.
fn named(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"));
    quoted.map(|(file, test)| (file.to_owned(), test.to_owned())).collect()
}

#[test]
fn every_test_that_shows_a_promise_is_a_test() {
    let named = named("docs/guarantees.md");
    assert!(named.len() > 30, "they were not found: {named:?}");
    let faults = fs::read_to_string(Path::new(ROOT).join("tests/lab/damage/faults.rs")).unwrap();
    for (file, test) in named.into_iter().filter(|(_, test)| !["TEST", "FAULT"].contains(&test.as_str())) {
        if file == "damage" {
            assert!(faults.contains(&format!("\"{test}\"")), "the matrix has no fault {test}");
            continue;
        }
        let path = Path::new(ROOT).join("tests").join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Attributes, and the arguments of a property, may stand in between.
        let is_test = text.contains(&format!("fn {test}("))
            && text
                .split("#[test]")
                .skip(1)
                .any(|behind| behind.split('(').next().unwrap().ends_with(&format!("fn {test}")));
        assert!(is_test, "{file} has no test {test}");
    }
}
