//! Holds the walls between the rooms: which file may name which crate, which room may know which other.
//! Sources are read as tokens, so comments, strings and test modules don't count.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A crate and the only places, as beginnings of a path below the repository, that may name it.
struct Wall {
    crate_name: &'static str,
    rooms: &'static [&'static str],
}

const fn wall(crate_name: &'static str, rooms: &'static [&'static str]) -> Wall {
    Wall { crate_name, rooms }
}

const WALLS: &[Wall] = &[
    wall("pingora", &["gateway/src/net/", "gateway/src/lib.rs"]),
    wall("redis", &["gateway/src/redis/"]),
    wall("sled", &["gateway/src/store/sled"]),
    wall("prometheus", &["gateway/src/metrics"]),
    wall("axum", &["gateway/src/admin/"]),
];

/// What the pure crate may never name.
const IMPURE: &[&str] = &[
    "axum",
    "gateway",
    "hyper",
    "pingora",
    "redis",
    "sled",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio",
];

/// The rooms of the gateway that know no socket and not each other.
const PURE_ROOMS: &[&str] = &["balance", "limit", "retry"];

/// What a room that knows no socket may not name.
const SOCKETS: &[&str] = &[
    "axum",
    "crate::exchange",
    "crate::net",
    "crate::relay",
    "hyper",
    "pingora",
    "std::net",
    "tokio::io",
    "tokio::net",
];

/// The rooms that the exchange puts in order, and that therefore do not know it.
const BELOW_THE_EXCHANGE: &[&str] = &[
    "access",
    "balance",
    "budget",
    "config",
    "ledger",
    "limit",
    "model",
    "net/upstream",
    "price",
    "redis",
    "retry",
    "store",
];

const FOLDERS: &[&str] = &["adapters/src", "gateway/src", "load-tests/src", "tests/src", "tests/tests"];

#[test]
fn a_crate_is_named_only_in_its_room() {
    assert_none(sources("gateway/src").flat_map(|source| {
        let walls = WALLS.iter().filter(|wall| !source.lies_in(wall.rooms));
        source.breaches(walls.map(|wall| wall.crate_name))
    }));
}

#[test]
fn every_room_is_told_of_in_the_architecture() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let told: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    let told: BTreeSet<_> =
        told.iter().flat_map(|rooms| rooms.split(", ")).map(|room| room.trim_matches('`')).collect();
    let sources = fs::read_to_string(root().join("gateway/src/lib.rs")).unwrap();
    let rooms = sources.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let difference: Vec<_> = told.symmetric_difference(&rooms).filter(|room| !room.contains('/')).collect();
    assert!(difference.is_empty(), "{difference:?}");
}

#[test]
fn the_adapters_are_pure() {
    let impure = || IMPURE.iter().copied();
    assert_none(sources("adapters/src").flat_map(|source| source.breaches(impure())));
}

#[test]
fn the_adapters_depend_on_nothing_that_does_input_or_output() {
    let manifest = fs::read_to_string(root().join("adapters/Cargo.toml")).unwrap();
    let dependencies = manifest.split("\n[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let names = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    let impure = names.filter(|name| IMPURE.contains(name));
    assert_none(impure.map(|name| format!("adapters/Cargo.toml names {name}")));
}

#[test]
fn balance_limit_and_retry_know_no_socket_and_not_each_other() {
    assert_none(sources("gateway/src").flat_map(|source| {
        let Some(room) = PURE_ROOMS.iter().find(|room| source.is_room(room)) else {
            return Vec::new();
        };
        let others = PURE_ROOMS.iter().filter(|other| *other != room);
        let others: Vec<_> = others.map(|other| format!("crate::{other}")).collect();
        source.breaches(others.iter().map(String::as_str).chain(SOCKETS.iter().copied()))
    }));
}

#[test]
fn what_the_exchange_puts_in_order_does_not_know_the_exchange() {
    let below = |source: &Source| BELOW_THE_EXCHANGE.iter().any(|room| source.is_room(room));
    assert_none(
        sources("gateway/src").filter(below).flat_map(|source| source.breaches(["crate::exchange"].into_iter())),
    );
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mute = all_sources().filter(|source| !source.text.starts_with("//! "));
    assert_none(mute.map(|source| source.path));
}

#[test]
fn a_lint_is_expected_with_a_reason_and_never_allowed() {
    assert_none(all_sources().flat_map(|source| {
        let mut found = Vec::new();
        visit_attributes(tokens(&source.text), &mut |name, arguments| {
            if name == "allow" || (name == "expect" && !arguments.contains("reason")) {
                found.push(format!("{}: {name}({arguments})", source.path));
            }
        });
        found
    }));
}

#[test]
fn a_name_is_found_however_it_is_written() {
    assert!(names("use redis::Client;", "redis"));
    assert!(names("use redis as r;", "redis"));
    assert!(names("use {bytes::Bytes, redis::{Client, aio::X}};", "redis"));
    assert!(names("fn f() { ::redis::cmd() }", "redis"));
    assert!(names("impl redis::Value for X { }", "redis"));
    assert!(names("fn f() { g(std::net::TcpStream::connect(a)) }", "std::net"));
    assert!(names("use std::{fs, net::TcpStream};", "std::net"));
    assert!(names("use std::{fs, io};", "std::fs"));
    assert!(names("use crate::{limit::rate::{self, Rate}, store};", "crate::limit"));
    assert!(names("fn f() { use tokio::net; }", "tokio::net"));
}

#[test]
fn a_name_of_our_own_is_not_taken_for_a_crate() {
    assert!(!names("use crate::store::redis::Backend;", "redis"));
    assert!(!names("use crate::store::{redis::Backend, sled};", "redis"));
    assert!(!names("mod redis; use redis::Backend;", "redis"));
    assert!(!names("use crate::redis; fn f() { redis::connect() }", "redis"));
    assert!(!names("struct S { redis: u8 } fn f(redis: u8) { s.redis }", "redis"));
    assert!(!names("// redis::Client\n/// redis::Client\nfn f() { \"redis::C\" }", "redis"));
    assert!(!names("#[cfg(test)] mod tests { use redis::Client; }", "redis"));
    assert!(!names("use std::io;", "std::fs"));
    assert!(!names("use crate::store::limit::X;", "crate::limit"));
}

/// One file of ours.
struct Source {
    /// Below the repository, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// Whether its path begins with one of `places`.
    fn lies_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Whether it is the gateway's room of that name, or in it.
    fn is_room(&self, room: &str) -> bool {
        let inside = self.path.strip_prefix("gateway/src/").unwrap_or("");
        inside.strip_prefix(room).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    fn breaches<'a>(&self, forbidden: impl Iterator<Item = &'a str>) -> Vec<String> {
        let found = forbidden.filter(|path| names(&self.text, path));
        found.map(|path| format!("{} names {path}", self.path)).collect()
    }
}

/// Whether the code names `path` or something in it; `use a::{b, c}` names `a::b`.
fn names(text: &str, path: &str) -> bool {
    let tokens = without_tests(tokens(text));
    let mut named = BTreeSet::new();
    collect_paths(&tokens, &mut named);
    let imported = ["crate", "super"].iter().any(|root| named.contains(&format!("{root}::{path}")));
    let hidden = declares_module(&tokens, path) || imported;
    !hidden && named.iter().any(|name| is_within(name, path))
}

fn is_within(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether the file has a module of its own of that name, which hides the crate's.
fn declares_module(tokens: &[TokenTree], name: &str) -> bool {
    tokens.windows(2).any(|pair| match pair {
        [TokenTree::Ident(keyword), TokenTree::Ident(word)] => keyword == "mod" && word == name,
        _ => false,
    })
}

/// Every path of two segments or more, and all that `use` names, written out.
fn collect_paths(tokens: &[TokenTree], named: &mut BTreeSet<String>) {
    let mut rest = tokens;
    while let Some((token, after)) = rest.split_first() {
        rest = match token {
            TokenTree::Ident(word) if word == "use" => {
                let end = after.iter().position(|token| is_mark(token, ';')).unwrap_or(after.len());
                let (tree, after) = after.split_at(end);
                expand_use("", tree, named);
                after
            }
            TokenTree::Ident(word) => take_path(word.to_string(), after, named),
            TokenTree::Group(group) => {
                collect_paths(&inside(group), named);
                after
            }
            _ => after,
        };
    }
}

/// Takes the segments that follow `path`, and gives what comes after them.
fn take_path<'a>(mut path: String, mut rest: &'a [TokenTree], named: &mut BTreeSet<String>) -> &'a [TokenTree] {
    while let [first, second, TokenTree::Ident(word), after @ ..] = rest {
        if !is_mark(first, ':') || !is_mark(second, ':') {
            break;
        }
        path = format!("{path}::{word}");
        rest = after;
    }
    if path.contains("::") {
        named.insert(path);
    }
    rest
}

fn expand_use(prefix: &str, tree: &[TokenTree], named: &mut BTreeSet<String>) {
    for branch in tree.split(|token| is_mark(token, ',')) {
        let mut path = prefix.to_owned();
        for token in branch {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) if path.is_empty() => path = word.to_string(),
                TokenTree::Ident(word) => path = format!("{path}::{word}"),
                TokenTree::Group(group) => expand_use(&path, &inside(group), named),
                _ => {}
            }
        }
        named.insert(path);
    }
}

/// The tokens but for the items under `#[cfg(test)]`.
fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut skipping = false;
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if let (true, Some(TokenTree::Group(group))) = (is_mark(&token, '#'), tokens.peek()) {
            skipping |= group.stream().to_string().replace(' ', "") == "cfg(test)";
        }
        let is_body = matches!(&token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        let ends = is_body || is_mark(&token, ';');
        if !skipping {
            kept.push(token);
        }
        skipping &= !ends;
    }
    kept
}

/// Calls `visit` with the name and the arguments of each attribute, at any depth.
fn visit_attributes(tokens: Vec<TokenTree>, visit: &mut impl FnMut(&str, &str)) {
    let mut opened = false;
    for token in tokens {
        let TokenTree::Group(group) = &token else {
            opened = is_mark(&token, '#') || (opened && is_mark(&token, '!'));
            continue;
        };
        let inner = inside(group);
        if let (true, [TokenTree::Ident(name), TokenTree::Group(arguments)]) = (opened, &*inner) {
            visit(&name.to_string(), &arguments.stream().to_string());
        }
        opened = false;
        visit_attributes(inner, visit);
    }
}

fn tokens(text: &str) -> Vec<TokenTree> {
    match TokenStream::from_str(text) {
        Ok(stream) => stream.into_iter().collect(),
        Err(error) => panic!("not Rust: {error}"),
    }
}

fn inside(group: &proc_macro2::Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == mark)
}

fn all_sources() -> impl Iterator<Item = Source> {
    FOLDERS.iter().copied().flat_map(sources)
}

/// The sources below `folder`, but for those whose name says that they are tests.
fn sources(folder: &str) -> impl Iterator<Item = Source> {
    let mut files = Vec::new();
    collect_files(&root().join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has no sources");
    files.sort();
    files.into_iter().filter(|file| !file.ends_with("tests.rs")).map(|file| Source {
        path: file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(&file).unwrap(),
    })
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[track_caller]
fn assert_none(breaches: impl Iterator<Item = String>) {
    let breaches: Vec<_> = breaches.collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}
