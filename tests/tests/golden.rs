//! Each fixture through its adapter, without a socket. `BLESS=1 cargo test -p weir-tests --test golden` writes the
//! expectations anew; the diff is to be read.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use adapters::{EncodeError, NativeRequest, Refusal};
use weir_tests::fixtures::{self, Case};

/// What each provider of chat must have a fixture of.
const CASES: [&str; 9] = [
    "plain",
    "stream",
    "tools-stream",
    "parallel-tools-stream",
    "image",
    "refused-429",
    "refused-400",
    "error-mid-stream",
    "unknown-fields",
];

#[test]
fn every_adapter_has_its_fixtures() {
    for kind in adapters::provider::kinds() {
        for case in CASES {
            let folder = fixtures::root().join(kind).join(case);
            assert!(folder.is_dir(), "{} is missing", folder.display());
        }
    }
}

#[test]
fn every_fixture_says_what_it_is_about_and_which_sdk_it_was_checked_against() {
    for case in fixtures::all() {
        let about = case.file("about.txt").unwrap_or_default();
        let about = String::from_utf8_lossy(&about);
        assert!(about.contains("SDK"), "{}: about.txt names no SDK", case.folder.display());
    }
}

#[test]
fn requests_are_said_in_the_providers_words() {
    for case in fixtures::all() {
        let encoded = case.adapter.encode(&case.request, &case.target());
        let (head, body) = match encoded {
            Ok(native) => (head(&native), Some(native.body.joined())),
            Err(error) => (refused(&error), None),
        };
        expect(&case, "native.head", Some(head.as_bytes()));
        expect(&case, "native.json", body.as_deref());
    }
}

#[test]
fn whole_answers_are_read() {
    for case in fixtures::all() {
        let Some(native) = case.file("reply.native") else {
            continue;
        };
        match case.adapter.decode(&case.request, &case.target(), native.trim_ascii_end().to_vec().into()) {
            Ok(reply) => {
                expect(&case, "reply.json", Some(&reply.body.joined()));
                expect(&case, "reply.usage", Some(format!("{:#?}", reply.usage).as_bytes()));
            }
            Err(error) => expect(&case, "reply.fault", Some(format!("{error:#?}").as_bytes())),
        }
    }
}

#[test]
fn streams_are_read() {
    for case in fixtures::all() {
        let Some(native) = case.file("stream.native") else {
            continue;
        };
        let streamed = case.streamed([native.as_slice()]);
        expect(&case, "stream.sse", Some(&streamed.bytes));
        let end = format!("content begun: {}\n{:#?}\n{:#?}", streamed.has_content, streamed.fault, streamed.usage);
        expect(&case, "stream.end", Some(end.as_bytes()));
    }
}

#[test]
fn errors_are_read() {
    for case in fixtures::all() {
        let Some(native) = case.file("refused.native") else {
            continue;
        };
        let (status, headers, body) = fixtures::refused(&native);
        let refusal: Refusal = case.adapter.refusal(status, &headers, &body);
        expect(&case, "refused.txt", Some(format!("{refusal:#?}").as_bytes()));
    }
}

fn head(native: &NativeRequest) -> String {
    let mut text = format!("POST {}\n", native.path);
    for (name, value) in &native.headers {
        let _ = writeln!(text, "{name}: {}", value.to_str().unwrap_or("?"));
    }
    for dropped in &native.dropped {
        let _ = writeln!(text, "dropped {dropped}: {}", dropped.why);
    }
    text
}

fn refused(error: &EncodeError) -> String {
    match error {
        EncodeError::Invalid { param, message } => format!("invalid {param}: {message}\n"),
        EncodeError::Unsupported { param, message } => format!("unsupported {param}: {message}\n"),
    }
}

/// Compares a file with what came out; a final line end does not count.
fn expect(case: &Case, name: &str, got: Option<&[u8]>) {
    let path = case.folder.join(name);
    if std::env::var_os("BLESS").is_some() {
        return bless(&path, got);
    }
    let want = case.file(name);
    let trimmed = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned();
    let (want, got) = (want.as_deref().map(trimmed), got.map(trimmed));
    if want != got {
        let show = |side: Option<String>| side.unwrap_or_else(|| "(no such file)".to_owned());
        panic!("{}\nwant:\n{}\n\ngot:\n{}\n", path.display(), show(want), show(got));
    }
}

fn bless(path: &Path, got: Option<&[u8]>) {
    let Some(got) = got else {
        let _absent = std::fs::remove_file(path);
        return;
    };
    let mut bytes = got.trim_ascii_end().to_vec();
    bytes.push(b'\n');
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
