//! `README.md` says which test holds which law; a name in it that is no test's would hold nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_readme_names_is_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut known = tests(&folder.join("tests"));
    known.extend(tests(&folder.join("../gateway/src")));
    let is_a_name =
        |word: &&str| word.len() > 20 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let named: Vec<&str> = readme.split('`').filter(is_a_name).collect();
    assert!(named.len() > 40, "the table is not read: {named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "no tests: {missing:#?}");
}

/// The names of all tests in a folder's files, and in those of the folders in it.
fn tests(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: std::path::PathBuf| match path.extension() {
        _ if path.is_dir() => tests(&path),
        Some(kind) if kind == "rs" => names(&fs::read_to_string(path).unwrap()).into_iter().collect(),
        _ => BTreeSet::new(),
    };
    entries.flat_map(of).collect()
}

fn names(text: &str) -> Vec<String> {
    let of = |part: &str| {
        let function = part.split_once("fn ")?.1;
        function.split_once('(').map(|(name, _)| name.to_owned())
    };
    let attributes = text.match_indices("test]\n").chain(text.match_indices("test(flavor"));
    attributes.filter_map(|(place, _)| of(&text[place..])).collect()
}
