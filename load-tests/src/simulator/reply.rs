//! What the simulator says, in no dialect's words: a prompt in, a reply out.
//! The rules are in `README.md` of this package; each is a function here, so that every dialect keeps them alike.

use std::borrow::Cow;

use serde_json::Value;

use super::fault::{Fault, UsageReport};
use super::{schema, text};

/// How many words of the prompt are said back.
const ECHO_WORDS: usize = 48;

/// How many bytes of the prompt are said back.
const ECHO_BYTES: usize = 600;

/// The stamp that an event's time replaces: as many bytes as nanoseconds since 1970 have digits, and one more.
pub(crate) const STAMP: &str = "@@@@@@@@@@@@@@@@@@@@";

/// A request as every dialect understands it.
#[derive(Debug, Default)]
pub(crate) struct Prompt<'a> {
    /// The last text that the user wrote.
    pub(crate) text: Cow<'a, str>,
    /// The tool's result, where that is what came last.
    pub(crate) tool_said: Option<String>,
    /// Input tokens.
    pub(crate) input: u64,
    /// Of these, from the provider's cache.
    pub(crate) cached: u64,
    /// Of these, written to the provider's cache.
    pub(crate) cache_write: u64,
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) choice: Choice<'a>,
    pub(crate) parallel: Parallel,
    pub(crate) format: Format<'a>,
    /// The most output tokens.
    pub(crate) limit: Option<u64>,
    pub(crate) stops: Vec<&'a str>,
    pub(crate) thinking: Thinking,
}

/// A tool that the caller offers.
#[derive(Debug)]
pub(crate) struct Tool<'a> {
    pub(crate) name: &'a str,
    pub(crate) schema: Option<&'a Value>,
}

/// Which tools must or may be called.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Choice<'a> {
    #[default]
    Auto,
    Never,
    Any,
    Named(&'a str),
}

/// Whether several tools may be called at once.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Parallel {
    #[default]
    Allowed,
    Forbidden,
}

/// The form of the text.
#[derive(Debug, Default)]
pub(crate) enum Format<'a> {
    #[default]
    Text,
    Object,
    Schema(&'a Value),
}

/// Whether the model thinks before it speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Thinking {
    #[default]
    Off,
    On,
}

/// A reply as every dialect can write it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) reasoning: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// One call of a tool.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

/// Why the reply ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Sequence(String),
    Length,
    Calls,
}

/// Tokens; `input` includes what was cached, `output` what was thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Usage {
    /// What is reported of it.
    pub(crate) fn reported(self, report: UsageReport) -> Option<Self> {
        match report {
            UsageReport::True => Some(self),
            UsageReport::Zero => Some(Self::default()),
            UsageReport::None => None,
        }
    }
}

impl Reply {
    /// The reply to `prompt` under `fault`.
    pub(crate) fn to(prompt: &Prompt<'_>, fault: &Fault) -> Self {
        let calls = prompt.calls();
        let mut reply = Self {
            reasoning: prompt.reasoning(),
            text: if calls.is_empty() { prompt.say(fault) } else { prompt.preamble() },
            finish: if calls.is_empty() { Finish::Stop } else { Finish::Calls },
            calls,
            usage: Usage::default(),
        };
        reply.stop_at(&prompt.stops);
        reply.keep_within(prompt.limit);
        reply.usage = reply.count(prompt, fault);
        reply
    }

    fn stop_at(&mut self, stops: &[&str]) {
        let places =
            stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| Some((self.text.find(stop)?, *stop)));
        let Some((place, stop)) = places.min() else {
            return;
        };
        self.text.truncate(place);
        self.finish = Finish::Sequence(stop.to_owned());
    }

    fn keep_within(&mut self, limit: Option<u64>) {
        let Some(limit) = limit else { return };
        let thought = text::count(&self.reasoning);
        if thought + text::count(&self.text) + calls_tokens(&self.calls) <= limit {
            return;
        }
        self.reasoning = first_words(&self.reasoning, limit);
        self.text = first_words(&self.text, limit.saturating_sub(thought));
        self.calls.clear();
        self.finish = Finish::Length;
    }

    fn count(&self, prompt: &Prompt<'_>, fault: &Fault) -> Usage {
        let reasoning = text::count(&self.reasoning);
        Usage {
            input: prompt.input,
            cached: fault.cached.unwrap_or(prompt.cached).min(prompt.input),
            cache_write: fault.cache_write.unwrap_or(prompt.cache_write).min(prompt.input),
            output: reasoning + text::count(&self.text) + calls_tokens(&self.calls),
            reasoning,
        }
    }
}

impl Prompt<'_> {
    /// Tools are called when the choice forces it, or when the user, speaking last, says `call` or names a tool:
    /// each tool once for each time that its name stands in the text, or the first tool once where no name does.
    fn calls(&self) -> Vec<Call> {
        if self.tools.is_empty() {
            return Vec::new();
        }
        let mut named: Vec<&Tool<'_>> = match &self.choice {
            Choice::Never => return Vec::new(),
            Choice::Named(name) => self.tools.iter().filter(|tool| tool.name == *name).collect(),
            Choice::Auto if self.tool_said.is_some() => return Vec::new(),
            Choice::Auto | Choice::Any => self.tools_in_text(),
        };
        let asked = !named.is_empty() || self.text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "call");
        if self.choice == Choice::Auto && !asked {
            return Vec::new();
        }
        if named.is_empty() {
            named.extend(self.tools.first());
        }
        if self.parallel == Parallel::Forbidden {
            named.truncate(1);
        }
        let mut words = text::cycle(&self.text);
        named.into_iter().map(|tool| tool.call(&mut words)).collect()
    }

    fn tools_in_text(&self) -> Vec<&Tool<'_>> {
        let mut found: Vec<(usize, &Tool<'_>)> = Vec::new();
        for tool in self.tools.iter().filter(|tool| !tool.name.is_empty()) {
            found.extend(self.text.match_indices(tool.name).map(|(place, _)| (place, tool)));
        }
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, tool)| tool).collect()
    }

    /// With calls there is text only where the user said `explain`.
    fn preamble(&self) -> String {
        if self.text.contains("explain") { "Let me look that up.".to_owned() } else { String::new() }
    }

    fn reasoning(&self) -> String {
        match self.thinking {
            Thinking::Off => String::new(),
            Thinking::On => {
                format!("Let me think about: {}", text::head(self.tool_said.as_deref().unwrap_or(&self.text), 8, 120))
            }
        }
    }

    fn say(&self, fault: &Fault) -> String {
        let mut said = match &self.format {
            Format::Schema(schema) => {
                return schema::example(schema, &mut text::cycle(&self.text)).to_string();
            }
            Format::Object => return serde_json::json!({"said": self.echo()}).to_string(),
            Format::Text => self.sized(fault),
        };
        if fault.split {
            said.push(' ');
            said.push_str(text::WIDE);
        }
        said
    }

    fn sized(&self, fault: &Fault) -> String {
        if fault.stamp {
            return vec![STAMP; fault.events.unwrap_or(1)].join(" ");
        }
        match (fault.size, fault.events) {
            (Some(size), _) => self.of_size(size),
            (None, Some(events)) => text::cycle(&self.text).take(events).map(short).collect::<Vec<_>>().join(" "),
            (None, None) => self.echo(),
        }
    }

    fn echo(&self) -> String {
        match &self.tool_said {
            Some(result) => format!("The tool said: {}", text::head(result, ECHO_WORDS, ECHO_BYTES)),
            None => format!("You said: {}", text::head(&self.text, ECHO_WORDS, ECHO_BYTES)),
        }
    }

    fn of_size(&self, size: usize) -> String {
        let mut said = String::with_capacity(size + 64);
        let mut words = text::cycle(&self.text).map(short);
        while said.len() < size {
            said.push_str(words.next().unwrap_or("weir"));
            said.push(' ');
        }
        said.truncate(said.floor_char_boundary(size));
        said
    }
}

impl Tool<'_> {
    fn call(&self, words: &mut dyn Iterator<Item = &str>) -> Call {
        let empty = Value::Object(serde_json::Map::new());
        let arguments = match self.schema {
            Some(schema) if schema.get("properties").is_some() => schema::example(schema, words),
            _ => empty,
        };
        Call { name: self.name.to_owned(), arguments: arguments.to_string() }
    }
}

/// A call's tokens: one for the name, and the words of the arguments.
fn calls_tokens(calls: &[Call]) -> u64 {
    calls.iter().map(|call| 1 + text::count(&call.arguments)).sum()
}

fn short(word: &str) -> &str {
    word.get(..word.floor_char_boundary(40)).unwrap_or(word)
}

fn first_words(text: &str, limit: u64) -> String {
    text::pieces(text).into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt(text: &str) -> Prompt<'_> {
        Prompt { text: text.into(), ..Prompt::default() }
    }

    #[test]
    fn a_reply_says_back_what_the_user_said() {
        let reply = Reply::to(&prompt("hello there"), &Fault::default());
        assert_eq!(reply.text, "You said: hello there");
        assert_eq!(reply.usage.output, 4);
    }

    #[test]
    fn a_reply_keeps_within_its_limit() {
        let reply = Reply::to(&Prompt { limit: Some(2), ..prompt("hello there") }, &Fault::default());
        assert_eq!(reply.text, "You said:");
        assert_eq!(reply.finish, Finish::Length);
        assert_eq!(reply.usage.output, 2);
    }

    #[test]
    fn a_reply_ends_before_the_first_stop_sequence() {
        let reply = Reply::to(&Prompt { stops: vec!["there", "hello"], ..prompt("hello there") }, &Fault::default());
        assert_eq!(reply.text, "You said: ");
        assert_eq!(reply.finish, Finish::Sequence("hello".to_owned()));
    }

    #[test]
    fn each_mention_of_a_tool_is_a_call() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let tool = |name| Tool { name, schema: Some(&schema) };
        let asked = Prompt { tools: vec![tool("weather"), tool("time")], ..prompt("call weather time weather") };
        let names: Vec<String> = Reply::to(&asked, &Fault::default()).calls.into_iter().map(|call| call.name).collect();
        assert_eq!(names, ["weather", "time", "weather"]);
        let one = Prompt { parallel: Parallel::Forbidden, ..asked };
        assert_eq!(Reply::to(&one, &Fault::default()).calls.len(), 1);
    }

    #[test]
    fn as_many_words_as_events() {
        let fault = Fault { events: Some(7), ..Fault::default() };
        assert_eq!(Reply::to(&prompt("a b"), &fault).usage.output, 7);
    }
}
