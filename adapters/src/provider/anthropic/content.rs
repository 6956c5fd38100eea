//! Parts of a message as Anthropic's blocks: texts, images, files, and blocks that a caller wrote in Anthropic's own
//! words. A part that can't be carried is refused, never dropped.

use std::borrow::Cow;
use std::cell::LazyCell;

use serde_json::value::RawValue;

use super::Notes;
use super::bounds::Room;
use super::native::{Block, Made, Source};
use super::plain::PlainText;
use crate::adapter::EncodeError;
use crate::openai::message::{CacheBreakpoint, Content, File, ImageUrl, Part};
use crate::openai::text::{Text, is_blank, is_string};

/// Blocks of Anthropic's own that pass as they are wherever a caller writes them among a message's parts.
const NATIVE: [&str; 21] = [
    "image",
    "document",
    "search_result",
    "thinking",
    "redacted_thinking",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "container_upload",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "compaction",
    "fallback",
    "tool_reference",
    "browser_state",
];

/// Those that pass in instructions, which change the tools from there on.
const NATIVE_INSTRUCTIONS: [&str; 2] = ["tool_addition", "tool_removal"];

/// The images that Anthropic takes.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// How a base64 PDF begins.
const PDF_BEGINS: &str = "JVBERi0";

/// Whose content it is: each may hold other kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    System,
    User,
    Assistant,
    ToolResult,
}

/// Reads the contents of one message.
pub(super) struct Reader<'n> {
    /// The message's place in the request.
    pub(super) message: usize,
    /// Whose content it is.
    pub(super) side: Side,
    /// Where to note what is dropped.
    pub(super) notes: &'n mut Notes,
    /// How many parts there may still be.
    pub(super) room: &'n mut Room,
}

impl Reader<'_> {
    /// A message's content as blocks; blank texts, which Anthropic refuses, are left out.
    pub(super) fn blocks<'a>(&mut self, content: Content<'a>) -> Result<Vec<Block<'a>>, EncodeError> {
        match content {
            Content::Absent => Ok(Vec::new()),
            Content::Text(text) => Ok(text_block(text, None).into_iter().collect()),
            Content::Parts(raw) => {
                let param = format_args!("messages[{}].content", self.message);
                let parts: Vec<Part<'a>> = self.room.list(raw.get(), param, "an array of parts")?;
                let written =
                    LazyCell::new(|| serde_json::from_str::<Vec<&'a RawValue>>(raw.get()).unwrap_or_default());
                let mut blocks = Vec::with_capacity(parts.len());
                for (at, part) in parts.into_iter().enumerate() {
                    let native = || written.get(at).copied().map(Block::Native);
                    blocks.extend(self.part(native, at, part)?);
                }
                Ok(blocks)
            }
        }
    }

    /// `native` is the part as it was written.
    fn part<'a>(
        &mut self,
        native: impl Fn() -> Option<Block<'a>>,
        at: usize,
        part: Part<'a>,
    ) -> Result<Option<Block<'a>>, EncodeError> {
        let mark = mark_of(&part);
        match (&*part.kind, self.side) {
            ("text", _) => {
                let mut block = self.text(at, part.text, "text", mark)?;
                if let (Some(Block::Made(Made::Text { citations, .. })), Some(told)) = (&mut block, part.citations) {
                    *citations = Some(Cow::Borrowed(told));
                }
                Ok(block)
            }
            ("refusal", Side::Assistant) => self.text(at, part.refusal, "refusal", mark),
            ("image_url", Side::User | Side::ToolResult) => self.image(at, part.image_url, mark).map(Some),
            ("file", Side::User | Side::ToolResult) => self.file(at, part.file, mark).map(Some),
            ("input_audio", _) => Err(self.unsupported(at, "This model does not take audio.")),
            (kind, side) if side.takes(kind) => Ok(native()),
            (kind, side) => Err(self.unsupported(at, format!("A part `{kind}` can't be carried in {}.", side.place()))),
        }
    }

    fn text<'a>(
        &self,
        at: usize,
        text: Option<&'a RawValue>,
        field: &str,
        mark: Option<&'a RawValue>,
    ) -> Result<Option<Block<'a>>, EncodeError> {
        match text.filter(|raw| is_string(raw)) {
            Some(text) => Ok(text_block(text, mark)),
            None => Err(self.invalid(at, format!("A part of type `{field}` must have a string `{field}`."))),
        }
    }

    fn image<'a>(
        &mut self,
        at: usize,
        image: Option<ImageUrl<'a>>,
        mark: Option<&'a RawValue>,
    ) -> Result<Block<'a>, EncodeError> {
        let image = image.ok_or_else(|| self.invalid(at, "A part of type `image_url` must have an `image_url`."))?;
        if image.detail.is_some_and(|detail| &*detail != "auto") {
            self.notes.add("image_url.detail", "Anthropic looks at all images in one way");
        }
        let source = self.image_source(at, image.url)?;
        Ok(Block::Made(Made::Image { source, cache_control: mark }))
    }

    fn image_source<'a>(&self, at: usize, url: Text<'a>) -> Result<Source<'a>, EncodeError> {
        if url.starts_with("https://") || url.starts_with("http://") {
            return Ok(Source::Url { url: url.0 });
        }
        let Some(data) = DataUrl::read(&url) else {
            return Err(self.invalid(at, "An image's `url` must be an http(s) address or a base64 `data:` URL."));
        };
        let Some(media_type) = image_type(data.media_type) else {
            return Err(self.unsupported(at, format!("An image of type `{}` is not taken.", data.media_type)));
        };
        let start = data.start;
        Ok(Source::Base64 { media_type, data: from(url.0, start) })
    }

    fn file<'a>(
        &self,
        at: usize,
        file: Option<File<'a>>,
        mark: Option<&'a RawValue>,
    ) -> Result<Block<'a>, EncodeError> {
        let file = file.ok_or_else(|| self.invalid(at, "A part of type `file` must have a `file`."))?;
        let title = file.filename.map(|name| name.0);
        let source = match (file.file_data, file.file_id) {
            (Some(data), _) => self.file_source(at, data, title.as_deref())?,
            (None, Some(id)) => Source::File { file_id: id.0 },
            (None, None) => {
                return Err(self.invalid(at, "A `file` must have `file_data` or a `file_id`."));
            }
        };
        let is_image = matches!(&source, Source::Base64 { media_type, .. } if IMAGES.contains(media_type));
        Ok(Block::Made(match is_image {
            true => Made::Image { source, cache_control: mark },
            false => Made::Document { source, title, cache_control: mark },
        }))
    }

    fn file_source<'a>(&self, at: usize, file: Text<'a>, name: Option<&str>) -> Result<Source<'a>, EncodeError> {
        let (media_type, start) = match DataUrl::read(&file) {
            Some(url) => (url.media_type, url.start),
            None => (type_of_bare(&file, name), 0),
        };
        if media_type == "application/pdf" {
            return Ok(Source::Base64 { media_type: "application/pdf", data: from(file.0, start) });
        }
        if let Some(media_type) = image_type(media_type) {
            return Ok(Source::Base64 { media_type, data: from(file.0, start) });
        }
        if media_type.starts_with("text/") || media_type == "application/json" {
            let data = PlainText::of(from(file.0, start));
            let data = data.ok_or_else(|| self.invalid(at, "A text file must be UTF-8, in base64."))?;
            return Ok(Source::Text { media_type: "text/plain", data });
        }
        Err(self.unsupported(at, format!("A file of type `{media_type}` is not taken: only PDF, text and images are.")))
    }

    fn param(&self, at: usize) -> String {
        format!("messages[{}].content[{at}]", self.message)
    }

    fn invalid(&self, at: usize, message: impl Into<String>) -> EncodeError {
        EncodeError::invalid(self.param(at), message)
    }

    fn unsupported(&self, at: usize, message: impl Into<String>) -> EncodeError {
        EncodeError::unsupported(self.param(at), message)
    }
}

impl Side {
    /// Whether a block of Anthropic's own may stand here.
    fn takes(self, kind: &str) -> bool {
        NATIVE_INSTRUCTIONS.contains(&kind) || self != Self::System && NATIVE.contains(&kind)
    }

    fn place(self) -> &'static str {
        match self {
            Self::System => "a system message",
            Self::User => "a user message",
            Self::Assistant => "an assistant message",
            Self::ToolResult => "a tool's result",
        }
    }
}

/// A text as a block; nothing for a blank one.
pub(super) fn text_block<'a>(text: &'a RawValue, mark: Option<&'a RawValue>) -> Option<Block<'a>> {
    (!is_blank(text)).then(|| Block::text(Cow::Borrowed(text), mark))
}

fn mark_of<'a>(part: &Part<'a>) -> Option<&'a RawValue> {
    part.cache_control.or_else(|| part.prompt_cache_breakpoint.as_ref().and_then(mark_of_breakpoint))
}

/// OpenAI's breakpoints live for 30 minutes or 12 hours, Anthropic's for 5 minutes or one hour.
fn mark_of_breakpoint(breakpoint: &CacheBreakpoint<'_>) -> Option<&'static RawValue> {
    let mark = match breakpoint.ttl {
        None => r#"{"type":"ephemeral"}"#,
        Some(_) => r#"{"type":"ephemeral","ttl":"1h"}"#,
    };
    serde_json::from_str(mark).ok()
}

/// A base64 `data:` URL.
struct DataUrl<'u> {
    media_type: &'u str,
    /// Where the base64 starts.
    start: usize,
}

impl<'u> DataUrl<'u> {
    fn read(url: &'u str) -> Option<Self> {
        let rest = url.strip_prefix("data:")?;
        let (meta, data) = rest.split_once(',')?;
        let meta = meta.strip_suffix(";base64")?;
        let media_type = meta.split(';').next().unwrap_or_default().trim();
        Some(Self { media_type, start: url.len() - data.len() })
    }
}

fn image_type(media_type: &str) -> Option<&'static str> {
    let media_type = if media_type.eq_ignore_ascii_case("image/jpg") { "image/jpeg" } else { media_type };
    IMAGES.into_iter().find(|known| known.eq_ignore_ascii_case(media_type))
}

/// The type of base64 without a `data:` URL around it, by how it begins or by the file's name.
fn type_of_bare(data: &str, name: Option<&str>) -> &'static str {
    if data.starts_with(PDF_BEGINS) {
        return "application/pdf";
    }
    let ending = name.and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("pdf") => "application/pdf",
        Some("txt" | "md" | "csv" | "json" | "html" | "xml" | "yaml" | "yml") => "text/plain",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        _ => "unknown",
    }
}

/// The text from there on, borrowed where it was.
fn from(text: Cow<'_, str>, start: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(start..).unwrap_or_default()),
        Cow::Owned(mut text) => {
            text.drain(..start.min(text.len()));
            Cow::Owned(text)
        }
    }
}
