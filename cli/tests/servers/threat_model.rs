//! The threat model names tests; those must exist.

use std::{fs, path::Path};

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/threat-model.md")).expect("the threat model");
    // What stands between backquotes.
    let quoted = text.split('`').skip(1).step_by(2);
    let mut named = 0;
    for (file, function) in quoted
        .filter_map(|text| text.split_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
    {
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("there is no {file}"));
        let is_there = source.lines().any(|line| {
            let declared = line.trim_start().trim_start_matches("async ").strip_prefix("fn ");
            declared.is_some_and(|rest| rest.split('(').next() == Some(function))
        });
        assert!(is_there, "{file} has no {function}");
        named += 1;
    }
    assert!(named > 40, "only {named} tests are named");
}
