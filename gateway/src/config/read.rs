//! From the tree to types, gathering every fault on the way.
//! A reading never fails half-way: a value that is wrong is recorded and a placeholder stands in for it, so that the
//! rest of the file is looked at too. No placeholder leaves `config`, because a configuration with a fault never does.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::json;

use super::tree::{Key, Mark, Node, Value};
use super::value::Secret;

/// A type that can be read from the tree.
pub(super) trait Read: Sized + JsonSchema + Serialize {
    /// Whether `null` is a value of its own and not the same as leaving the key out.
    const NULL_SPEAKS: bool = false;

    /// Reads it, or records what is wrong and stands in.
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self;

    /// What stands in for a value that is wrong or missing.
    fn placeholder() -> Self;
}

/// One step on the way to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'n> {
    Key(&'n str),
    Index(usize),
}

/// A fault before its file has a name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) mark: Mark,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Where the reading stands, and what it found.
#[derive(Debug, Default)]
pub(super) struct Reader<'n> {
    path: Vec<Step<'n>>,
    pub(super) faults: Vec<Found>,
    pub(super) more: usize,
    /// Paths whose values are placeholders, because they are missing or wrong.
    pub(super) suspect: HashSet<String>,
    /// Every secret that is named, with its place.
    pub(super) secrets: Vec<(Mark, String, Secret)>,
}

/// The entries of a map that is read as a section with known keys.
pub(super) struct Fields<'n> {
    mark: Mark,
    entries: &'n [(Key<'n>, Node<'n>)],
    /// Known keys that an unknown one was probably meant to be: their absence is not reported again.
    meant: Vec<&'static str>,
}

/// The schema of one field of a section.
pub(super) struct FieldSchema {
    pub(super) key: &'static str,
    pub(super) doc: String,
    pub(super) schema: Schema,
    pub(super) default: Option<serde_json::Value>,
}

impl<'n> Reader<'n> {
    /// Records a fault at `mark` on the present path.
    pub(super) fn fault(&mut self, mark: Mark, message: impl Into<String>, help: Option<String>) {
        if self.faults.len() >= super::MOST_FAULTS {
            self.more += 1;
            return;
        }
        let path = spell(&self.path);
        self.suspect.insert(path.clone());
        self.faults.push(Found { mark, path, message: message.into(), help });
    }

    /// Remembers where a secret is named, so that a strict check can fetch it.
    pub(super) fn secret(&mut self, mark: Mark, secret: &Secret) {
        self.secrets.push((mark, spell(&self.path), secret.clone()));
    }

    /// Records that `node` is not `wanted`, and stands in for it.
    pub(super) fn wrong<T: Read>(&mut self, node: &Node<'_>, wanted: &str, help: Option<String>) -> T {
        let found = match node.text() {
            Some(text) if is_quotable(text) => format!("`{}`", clip(text)),
            Some(text) => format!("a text of {} characters", text.chars().count()),
            None => node.kind().to_owned(),
        };
        self.fault(node.mark, format!("expected {wanted}, found {found}"), help);
        T::placeholder()
    }

    /// Reads something one step further down.
    pub(super) fn within<T>(&mut self, step: Step<'n>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    /// The entries of `node`, whose keys must be among `known`.
    pub(super) fn section(&mut self, node: &'n Node<'n>, known: &[&'static str]) -> Fields<'n> {
        let Value::Map(entries) = &node.value else {
            let keys = known.join(", ");
            self.fault(
                node.mark,
                format!("expected a map, found {}", node.kind()),
                Some(format!("its keys are {keys}")),
            );
            // What is missing from something that is no map is not worth a fault each.
            return Fields { mark: node.mark, entries: &[], meant: known.to_vec() };
        };
        let mut meant = Vec::new();
        for (key, _) in entries {
            if !known.contains(&key.text.as_ref()) {
                meant.extend(self.unknown_key(key, known));
            }
        }
        Fields { mark: node.mark, entries, meant }
    }

    fn unknown_key(&mut self, key: &'n Key<'n>, known: &[&'static str]) -> Option<&'static str> {
        let meant = nearest(&key.text, known.iter().copied());
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        self.within(Step::Key(&key.text), |reader| {
            reader.fault(key.mark, format!("unknown key `{}`", clip(&key.text)), Some(help));
        });
        meant
    }

    /// A key that must be there.
    pub(super) fn required<T: Read>(&mut self, fields: &Fields<'n>, key: &'static str) -> T {
        match fields.get(key) {
            Some(node) if !node.is_null() || T::NULL_SPEAKS => {
                self.within(Step::Key(key), |reader| T::read(node, reader))
            }
            Some(node) => {
                self.within(Step::Key(key), |reader| reader.fault(node.mark, "a value is required here", None));
                T::placeholder()
            }
            None => {
                self.within(Step::Key(key), |reader| reader.missing(fields, key));
                T::placeholder()
            }
        }
    }

    fn missing(&mut self, fields: &Fields<'n>, key: &'static str) {
        if fields.meant.contains(&key) {
            self.suspect.insert(spell(&self.path));
        } else {
            self.fault(fields.mark, format!("`{key}` is missing"), Some(format!("add `{key}: …`")));
        }
    }

    /// A key that may be left out.
    pub(super) fn optional<T: Read>(
        &mut self,
        fields: &Fields<'n>,
        key: &'static str,
        default: impl FnOnce() -> T,
    ) -> T {
        match fields.get(key) {
            Some(node) if !node.is_null() || T::NULL_SPEAKS => {
                self.within(Step::Key(key), |reader| T::read(node, reader))
            }
            Some(_) | None => default(),
        }
    }
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node<'n>> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }
}

/// A path as people write it: `models[2].targets[0].provider`.
pub(super) fn spell(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(i) => text.push_str(&format!("[{i}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&clip(key));
            }
        }
    }
    text
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    /// Longer words are not names that somebody mistyped, and comparing them is quadratic.
    const LONGEST: usize = 64;
    /// Names that differ more than this in length are not compared.
    const LONGEST_GAP: usize = 12;
    if word.len() > LONGEST {
        return None;
    }
    let allowed = (word.chars().count() / 3).max(1);
    known
        .filter(|known| known.len().abs_diff(word.len()) <= LONGEST_GAP)
        .map(|known| (distance(word, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How far apart two names are; `base-url`, `baseURL` and `base_url` are the same word.
fn distance(a: &str, b: &str) -> usize {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    if plain(a) == plain(b) { 0 } else { strsim::osa_distance(a, b) }
}

/// Whether a text that stands in the wrong place may be shown: a secret may have been put there.
fn is_quotable(text: &str) -> bool {
    /// Keys are longer.
    const LONGEST: usize = 32;
    text.len() <= LONGEST && !text.contains('@') && !text.starts_with("sk-")
}

/// What came from the file, short enough for a message.
pub(super) fn clip(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// The lines of a doc comment as the text of a schema's description.
pub(super) fn description(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The schema of a section: an object with exactly these keys.
pub(super) fn section_schema(doc: String, fields: Vec<FieldSchema>, short: Option<Schema>) -> Schema {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for field in fields {
        if field.default.is_none() {
            required.push(json!(field.key));
        }
        properties.insert(field.key.to_owned(), field_schema(field));
    }
    let object =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let schema = match short {
        Some(short) => json!({"description": doc, "anyOf": [short, object]}),
        None => merge(json!({"description": doc}), object),
    };
    Schema::try_from(schema).unwrap_or_default()
}

fn field_schema(field: FieldSchema) -> serde_json::Value {
    let mut schema = field.schema.to_value();
    let nothing = serde_json::Value::Null;
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(field.doc));
        if let Some(default) = field.default.filter(|d| *d != nothing) {
            object.insert("default".to_owned(), default);
        }
    }
    schema
}

fn merge(mut a: serde_json::Value, b: serde_json::Value) -> serde_json::Value {
    if let (Some(a), serde_json::Value::Object(b)) = (a.as_object_mut(), b) {
        a.extend(b);
    }
    a
}

/// Declares a section of the configuration: its fields with their docs, names in the file and defaults, once for the
/// type, the reading and the JSON Schema. `name as "key": Type = default;` - a field without a default is required.
/// `short field` lets a text stand for the section.
macro_rules! section {
    (@key $name:ident) => { stringify!($name) };
    (@key $name:ident $key:literal) => { $key };
    (@read $reader:ident $fields:ident $key:expr) => { $reader.required(&$fields, $key) };
    (@read $reader:ident $fields:ident $key:expr, $default:expr) => { $reader.optional(&$fields, $key, || $default) };
    (@value) => { $crate::config::read::Read::placeholder() };
    (@value $default:expr) => { $default };
    (@default $ty:ty) => { None };
    (@default $ty:ty, $default:expr) => {{
        let default: $ty = $default;
        serde_json::to_value(default).ok()
    }};
    (@short $reader:ident $node:ident) => {};
    (@short $reader:ident $node:ident $short:ident) => {
        if matches!($node.value, $crate::config::tree::Value::Scalar { .. }) {
            let mut section = <Self as $crate::config::read::Read>::placeholder();
            section.$short = $crate::config::read::Read::read($node, $reader);
            return section;
        }
    };
    (
        $(#[doc = $doc:literal])*
        pub struct $section:ident $(short $short:ident: $short_ty:ty)? {
            $(
                $(#[doc = $field_doc:literal])*
                $name:ident $(as $key:literal)?: $ty:ty $(= $default:expr)?;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $section {
            $( $(#[doc = $field_doc])* $(#[serde(rename = $key)])? pub $name: $ty, )*
        }

        impl $crate::config::read::Read for $section {
            fn read<'n>(node: &'n $crate::config::tree::Node<'n>, reader: &mut $crate::config::read::Reader<'n>) -> Self {
                $( section!(@short reader node $short); )?
                let fields = reader.section(node, &[$( section!(@key $name $($key)?) ),*]);
                Self { $( $name: section!(@read reader fields section!(@key $name $($key)?) $(, $default)?), )* }
            }

            fn placeholder() -> Self {
                Self { $( $name: section!(@value $($default)?), )* }
            }
        }

        impl schemars::JsonSchema for $section {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($section).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let fields = vec![$( $crate::config::read::FieldSchema {
                    key: section!(@key $name $($key)?),
                    doc: $crate::config::read::description(&[$($field_doc),*]),
                    schema: generator.subschema_for::<$ty>(),
                    default: section!(@default $ty $(, $default)?),
                } ),*];
                let short: Option<schemars::Schema> = None;
                $( let short = short.or(Some(generator.subschema_for::<$short_ty>())); )?
                $crate::config::read::section_schema($crate::config::read::description(&[$($doc),*]), fields, short)
            }
        }
    };
}
pub(super) use section;

/// Declares a closed set of words, each with its doc: the enum, its reading, its spelling and its JSON Schema.
macro_rules! choices {
    (
        $(#[doc = $doc:literal])*
        pub enum $choice:ident {
            $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal $(| $old:literal)*, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum $choice {
            $( $(#[doc = $variant_doc])* #[serde(rename = $word)] $variant, )*
        }

        impl $choice {
            /// Every one, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// As it is written in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// The one that `word` names.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $( $word $(| $old)* => Some(Self::$variant), )* _ => None }
            }
        }

        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::read::Read for $choice {
            fn read<'n>(node: &'n $crate::config::tree::Node<'n>, reader: &mut $crate::config::read::Reader<'n>) -> Self {
                if let Some(choice) = node.text().and_then(Self::parse) {
                    return choice;
                }
                $crate::config::read::not_among(node, reader, &[$( $word ),*])
            }

            fn placeholder() -> Self {
                Self::ALL[0]
            }
        }

        impl schemars::JsonSchema for $choice {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($choice).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words = [$( ($word, $crate::config::read::description(&[$($variant_doc),*])) ),*];
                $crate::config::read::choice_schema($crate::config::read::description(&[$($doc),*]), &words)
            }
        }
    };
}
pub(super) use choices;

/// Records that `node` is none of `words`.
pub(super) fn not_among<T: Read>(node: &Node<'_>, reader: &mut Reader<'_>, words: &[&'static str]) -> T {
    let help = node
        .text()
        .and_then(|text| nearest(text, words.iter().copied()))
        .map(|meant| format!("did you mean `{meant}`?"));
    reader.wrong(node, &format!("one of {}", words.join(", ")), help)
}

/// The schema of a closed set of words.
pub(super) fn choice_schema(doc: String, words: &[(&'static str, String)]) -> Schema {
    let words: Vec<_> = words.iter().map(|(word, doc)| json!({"const": word, "description": doc})).collect();
    Schema::try_from(json!({"description": doc, "oneOf": words})).unwrap_or_default()
}

impl<T: Read> Read for Option<T> {
    const NULL_SPEAKS: bool = true;

    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        if node.is_null() { None } else { Some(T::read(node, reader)) }
    }

    fn placeholder() -> Self {
        None
    }
}

impl<T: Read> Read for Box<T> {
    const NULL_SPEAKS: bool = T::NULL_SPEAKS;

    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        Self::new(T::read(node, reader))
    }

    fn placeholder() -> Self {
        Self::new(T::placeholder())
    }
}

impl<T: Read> Read for Vec<T> {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Value::List(items) = &node.value else {
            return reader.wrong(node, "a list", Some("write `[…]`, or one item a line, each after `- `".to_owned()));
        };
        let item = |(i, node)| reader.within(Step::Index(i), |reader| T::read(node, reader));
        items.iter().enumerate().map(item).collect()
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

/// A name in front of a value, as in `providers` or `per_model`.
pub(super) trait Name: Sized + Eq + Hash {
    /// The name, or what it must look like.
    fn name(text: &str) -> Result<Self, String>;
}

impl Name for String {
    fn name(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a name may not be empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl<K: Name + JsonSchema + Serialize, T: Read> Read for IndexMap<K, T> {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Value::Map(entries) = &node.value else {
            return reader.wrong(node, "a map from names to values", None);
        };
        let mut map = Self::with_capacity(entries.len());
        for (key, node) in entries {
            reader.within(Step::Key(&key.text), |reader| match K::name(&key.text) {
                Ok(name) => {
                    map.insert(name, T::read(node, reader));
                }
                Err(why) => reader.fault(key.mark, why, None),
            });
        }
        map
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Read for String {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        match node.text() {
            Some("") => {
                reader.fault(node.mark, "this may not be empty", None);
                Self::placeholder()
            }
            Some(text) => text.to_owned(),
            None => reader.wrong(node, "a text", None),
        }
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Read for PathBuf {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        String::read(node, reader).into()
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Read for bool {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        match node.plain() {
            Some("true") => true,
            Some("false") => false,
            Some(_) | None => reader.wrong(node, "true or false", None),
        }
    }

    fn placeholder() -> Self {
        false
    }
}

impl Read for u32 {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Some(text) = node.plain() else {
            return reader.wrong(node, "a whole number", None);
        };
        match text.parse() {
            Ok(number) => number,
            Err(_) => reader.wrong(node, "a whole number from 0 to 4294967295", None),
        }
    }

    fn placeholder() -> Self {
        1
    }
}

impl Read for f64 {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let number = node
            .plain()
            .filter(|text| text.bytes().any(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse::<Self>().ok());
        match number.filter(|n| n.is_finite()) {
            Some(number) => number,
            None => reader.wrong(node, "a number", None),
        }
    }

    fn placeholder() -> Self {
        0.0
    }
}
