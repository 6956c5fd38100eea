//! The YAML as it stands in the file: scalars, lists and maps, each with the place where it was written.
//! Nothing is interpreted here; `read` gives it types. Depth, number of values and what aliases unfold to are bounded,
//! and the tree is built without recursion, so that no text can exhaust the stack or the memory.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::read::{Step, clip, spell};
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// A configuration has about eight levels.
const DEEPEST: usize = 64;

/// A configuration with 100,000 keys and 10,000 models has about two million values.
pub(super) const MOST_NODES: usize = 8_000_000;

/// What all aliases together may unfold to; a YAML bomb passes this at once.
const MOST_UNFOLDED: usize = 200_000;

/// Where something was written: which file (an index into the list of those read), line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) file: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// One value and its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Node<'t> {
    pub(super) mark: Mark,
    pub(super) value: Value<'t>,
}

/// A value, not yet interpreted: `5` and `five` are both scalars.
#[derive(Debug, Clone)]
pub(super) enum Value<'t> {
    Scalar { text: Cow<'t, str>, plain: bool },
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>),
}

/// A key of a map and its place.
#[derive(Debug, Clone)]
pub(super) struct Key<'t> {
    pub(super) mark: Mark,
    pub(super) text: Cow<'t, str>,
}

impl Default for Value<'_> {
    fn default() -> Self {
        Self::Scalar { text: Cow::Borrowed(""), plain: true }
    }
}

impl Node<'_> {
    /// The text of a scalar; `None` for a list, a map, and for null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of a scalar that was not quoted.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain: true } if !self.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// True for nothing at all, `~` and `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, in the words of a fault.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// What is wrong with a text as YAML.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) mark: Mark,
    /// The way to it; empty when the text itself is wrong.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// One file as a tree.
#[derive(Debug)]
pub(super) struct Parsed<'t> {
    /// The document; absent when it could not be read to its end.
    pub(super) root: Option<Node<'t>>,
    /// What is wrong with it.
    pub(super) flaws: Vec<Flaw>,
}

/// Reads one document.
pub(super) fn parse(file: u32, text: &str) -> Parsed<'_> {
    let mut parser = Parser::new_from_str(text.trim_start_matches('\u{feff}'));
    let mut builder = Builder { file, ..Builder::default() };
    while let Some(event) = parser.next_event() {
        let flow = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax(builder.mark(error.marker()), &error.info())),
        };
        if let Err(flaw) = flow {
            builder.flaws.push(flaw);
            return Parsed { root: None, flaws: builder.flaws };
        }
    }
    Parsed { root: Some(builder.root.unwrap_or_default()), flaws: builder.flaws }
}

fn syntax(mark: Mark, info: &str) -> Flaw {
    Flaw { mark, path: String::new(), message: format!("this is not valid YAML: {info}"), help: None }
}

/// Builds the tree from the parser's events.
#[derive(Default)]
struct Builder<'t> {
    file: u32,
    open: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    documents: usize,
    nodes: usize,
    unfolded: usize,
    anchors: HashMap<usize, Node<'t>>,
    flaws: Vec<Flaw>,
}

/// A list or map that has not ended yet.
struct Open<'t> {
    mark: Mark,
    anchor: usize,
    content: Content<'t>,
}

enum Content<'t> {
    List(Vec<Node<'t>>),
    Map { entries: Vec<(Key<'t>, Node<'t>)>, key: Option<Key<'t>>, merged: Vec<(Key<'t>, Node<'t>)> },
}

impl<'t> Builder<'t> {
    fn mark(&self, marker: &granit_parser::Marker) -> Mark {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark { file: self.file, line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
    }

    fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), Flaw> {
        let mark = self.mark(&span.start);
        match event {
            Event::DocumentStart(..) => self.document(mark),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref());
                self.tag(mark, tag.as_deref());
                let value = Value::Scalar { text, plain };
                self.add(Node { mark, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(mark, tag.as_deref());
                self.begin(Open { mark, anchor, content: Content::List(Vec::new()) })
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(mark, tag.as_deref());
                let content = Content::Map { entries: Vec::new(), key: None, merged: Vec::new() };
                self.begin(Open { mark, anchor, content })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(mark, anchor),
            // What else there is, such as comments, says nothing.
            _ => Ok(()),
        }
    }

    fn document(&mut self, mark: Mark) -> Result<(), Flaw> {
        self.documents += 1;
        match self.documents {
            1 => Ok(()),
            _ => Err(Flaw {
                mark,
                path: String::new(),
                message: "a second document begins here".to_owned(),
                help: Some("one file is one document; put the rest into a file of its own".to_owned()),
            }),
        }
    }

    fn tag(&mut self, mark: Mark, tag: Option<&Tag>) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let message = format!("unknown tag `{}{}`", tag.handle(), tag.suffix());
            self.flaws.push(Flaw {
                mark,
                path: String::new(),
                message,
                help: Some("write the value without it".to_owned()),
            });
        }
    }

    fn begin(&mut self, open: Open<'t>) -> Result<(), Flaw> {
        if self.open.len() >= DEEPEST {
            let message = format!("this is nested deeper than {DEEPEST} levels");
            return Err(Flaw { mark: open.mark, path: String::new(), message, help: None });
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Flaw> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(mut items) => {
                items.shrink_to_fit();
                Value::List(items)
            }
            Content::Map { entries, merged, .. } => {
                let mut entries = self.unique(entries, merged);
                entries.shrink_to_fit();
                Value::Map(entries)
            }
        };
        self.add(Node { mark: open.mark, value }, open.anchor)
    }

    /// A map's entries with those of `<<` behind its own; a key that stands twice is a flaw.
    fn unique(
        &mut self,
        mut entries: Vec<(Key<'t>, Node<'t>)>,
        merged: Vec<(Key<'t>, Node<'t>)>,
    ) -> Vec<(Key<'t>, Node<'t>)> {
        for key in repeated(&entries) {
            let message = format!("the key `{}` is given twice", clip(&key.text));
            let path = self.path(&key.text);
            self.flaws.push(Flaw { mark: key.mark, path, message, help: None });
        }
        let mut own: HashSet<Cow<'t, str>> = match merged.is_empty() {
            true => return entries,
            false => entries.iter().map(|(key, _)| key.text.clone()).collect(),
        };
        entries.extend(merged.into_iter().filter(|(key, _)| own.insert(key.text.clone())));
        entries
    }

    /// The way to a key of the map that has just ended.
    fn path(&self, key: &str) -> String {
        let above = self.open.iter().filter_map(|open| match &open.content {
            Content::List(items) => Some(Step::Index(items.len())),
            Content::Map { key, .. } => key.as_ref().map(|key| Step::Key(&key.text)),
        });
        spell(&above.chain([Step::Key(key)]).collect::<Vec<_>>())
    }

    fn alias(&mut self, mark: Mark, anchor: usize) -> Result<(), Flaw> {
        let Some(node) = self.anchors.get(&anchor) else {
            let help = Some("an anchor is used after it is complete".to_owned());
            return Err(Flaw { mark, path: String::new(), message: "this alias has no anchor".to_owned(), help });
        };
        self.unfolded = self.unfolded.saturating_add(node.size());
        if self.unfolded > MOST_UNFOLDED {
            let message = format!("the aliases unfold to more than {MOST_UNFOLDED} values");
            return Err(Flaw { mark, path: String::new(), message, help: None });
        }
        let node = node.clone();
        self.add(node, 0)
    }

    /// Puts a value that is complete where it belongs.
    fn add(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Flaw> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            let message = format!("the file holds more than {MOST_NODES} values");
            return Err(Flaw { mark: node.mark, path: String::new(), message, help: None });
        }
        if anchor != 0 {
            self.remember(anchor, &node)?;
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, merged }) => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(key) if key.text == "<<" => merged.extend(merge_key(node)?),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }

    /// Keeps an anchored value for its aliases; the copies count as unfolded, because nested anchors copy again.
    fn remember(&mut self, anchor: usize, node: &Node<'t>) -> Result<(), Flaw> {
        self.unfolded = self.unfolded.saturating_add(node.size());
        if self.unfolded > MOST_UNFOLDED {
            let message = format!("anchors and aliases hold more than {MOST_UNFOLDED} values");
            return Err(Flaw { mark: node.mark, path: String::new(), message, help: None });
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }
}

impl Node<'_> {
    /// How many values it holds, itself included.
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }
}

/// `!!str` makes a text of what looks like a number.
fn is_text(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix() == "str")
}

fn as_key(node: Node<'_>) -> Result<Key<'_>, Flaw> {
    match node.value {
        Value::Scalar { text, .. } => Ok(Key { mark: node.mark, text }),
        Value::List(_) | Value::Map(_) => Err(Flaw {
            mark: node.mark,
            path: String::new(),
            message: "a key must be a plain text, not a list or a map".to_owned(),
            help: Some("put a text with braces or brackets in quotes".to_owned()),
        }),
    }
}

/// What stands behind `<<`: a map, or a list of maps of which the first wins.
fn merge_key(node: Node<'_>) -> Result<Vec<(Key<'_>, Node<'_>)>, Flaw> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => items.into_iter().map(merge_key).collect::<Result<Vec<_>, _>>().map(|maps| maps.concat()),
        Value::Scalar { .. } => Err(Flaw {
            mark: node.mark,
            path: "<<".to_owned(),
            message: "`<<` takes a map".to_owned(),
            help: Some("such as `<<: *defaults`".to_owned()),
        }),
    }
}

/// The keys that stood before.
fn repeated<'a, 't>(entries: &'a [(Key<'t>, Node<'t>)]) -> Vec<&'a Key<'t>> {
    /// Up to here comparing each with each is quicker than hashing.
    const FEW: usize = 12;
    let keys = entries.iter().map(|(key, _)| key);
    if entries.len() <= FEW {
        let before = |i: usize, key: &Key<'_>| entries.iter().take(i).any(|(earlier, _)| earlier.text == key.text);
        return keys.enumerate().filter(|(i, key)| before(*i, key)).map(|(_, key)| key).collect();
    }
    let mut seen = HashSet::with_capacity(entries.len());
    keys.filter(|key| !seen.insert(key.text.as_ref())).collect()
}

/// A value that a later file replaced.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) path: String,
    pub(super) old: Mark,
    pub(super) new: Mark,
}

/// Adds a later file to an earlier one: maps are joined, lists go on, and a single value replaces the earlier.
pub(super) fn merge<'t>(into: &mut Node<'t>, from: Node<'t>, path: &str, replaced: &mut Vec<Replaced>) {
    match (&mut into.value, from.value) {
        (Value::Map(into), Value::Map(from)) => merge_maps(into, from, path, replaced),
        (Value::List(into), Value::List(from)) => into.extend(from),
        (_, value) => {
            let from = Node { mark: from.mark, value };
            if from.is_null() {
                return;
            }
            if !into.is_null() {
                replaced.push(Replaced { path: path.to_owned(), old: into.mark, new: from.mark });
            }
            *into = from;
        }
    }
}

fn merge_maps<'t>(
    into: &mut Vec<(Key<'t>, Node<'t>)>,
    from: Vec<(Key<'t>, Node<'t>)>,
    path: &str,
    replaced: &mut Vec<Replaced>,
) {
    let mut index: HashMap<Cow<'t, str>, usize> =
        into.iter().enumerate().map(|(i, (key, _))| (key.text.clone(), i)).collect();
    for (key, node) in from {
        match index.get(&key.text).and_then(|i| into.get_mut(*i)) {
            Some((_, old)) => {
                let dot = if path.is_empty() { "" } else { "." };
                merge(old, node, &format!("{path}{dot}{}", key.text), replaced);
            }
            None => {
                index.insert(key.text.clone(), into.len());
                into.push((key, node));
            }
        }
    }
}
