//! What each of Anthropic's models takes, told by its name: the types of its SDK are one for all of them, but a
//! parameter that one model wants is a 400 at another. Checked against the SDK 2.12 and a price file of the same month.

use crate::adapter::Options;

/// Version of the API that still takes sampling parameters.
pub(super) const OLD_VERSION: &str = "2023-06-01";

/// The version that the SDK speaks.
pub(super) const NEW_VERSION: &str = "2026-10-21";

/// A model's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Haiku,
    Sonnet,
    Opus,
    Fable,
    Mythos,
    Unknown,
}

/// A model, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    line: Line,
    release: (u8, u8),
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThinkingStyle {
    /// It can't.
    None,
    /// By a budget of tokens.
    Budget,
    /// By an effort; it decides itself how much.
    Adaptive,
}

/// A name of Claude's that tells no release is taken for the newest.
const NEWEST: (u8, u8) = (u8::MAX, 0);

/// The preview had no number; it takes what 4.7 takes.
const PREVIEW: (u8, u8) = (4, 7);

/// What other houses' models that speak this dialect take is about what 3.7 takes.
const COMPATIBLE: (u8, u8) = (3, 7);

impl Model {
    /// The model of that name, whatever a cloud puts before and behind it.
    pub(super) fn of(name: &str) -> Self {
        let Some(own) = name.find("claude").and_then(|at| name.get(at..)) else {
            return Self { line: Line::Unknown, release: COMPATIBLE };
        };
        let mut line = Line::Unknown;
        let mut numbers = [None; 2];
        for word in own.split(|c: char| !c.is_ascii_alphanumeric()) {
            match word {
                "haiku" => line = Line::Haiku,
                "sonnet" => line = Line::Sonnet,
                "opus" => line = Line::Opus,
                "fable" => line = Line::Fable,
                "mythos" => line = Line::Mythos,
                "preview" => {
                    return Self { line, release: PREVIEW };
                }
                "instant" => {
                    return Self { line, release: (1, 2) };
                }
                _ => Self::note(word, &mut numbers),
            }
        }
        let release = match numbers {
            [Some(major), minor] => (major, minor.unwrap_or(0)),
            [None, _] => NEWEST,
        };
        Self { line, release }
    }

    /// A release's number has one or two digits, a date has eight.
    fn note(word: &str, numbers: &mut [Option<u8>; 2]) {
        if word.len() > 2 {
            return;
        }
        let Ok(number) = word.parse::<u8>() else {
            return;
        };
        if let Some(free) = numbers.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(number);
        }
    }

    /// The version of the API that it is spoken to in.
    pub(super) fn version(self) -> &'static str {
        if self.release <= (4, 6) { OLD_VERSION } else { NEW_VERSION }
    }

    /// Whether it takes `temperature`, `top_p` and `top_k` in that version.
    pub(super) fn samples(self, version: &str) -> bool {
        version == OLD_VERSION && self.release <= (4, 6)
    }

    /// Whether it takes only one of `temperature` and `top_p`.
    pub(super) fn samples_by_one(self) -> bool {
        self.release >= (4, 1)
    }

    /// How it is told to think.
    pub(super) fn thinking(self) -> ThinkingStyle {
        match self.release {
            (4, 6..) | (5.., _) => ThinkingStyle::Adaptive,
            (3, 7..) | (4, _) => ThinkingStyle::Budget,
            _ => ThinkingStyle::None,
        }
    }

    /// Whether it takes a budget of thinking tokens.
    pub(super) fn takes_budget(self) -> bool {
        ((3, 7)..=(4, 6)).contains(&self.release)
    }

    /// Whether it thinks whatever it is told.
    pub(super) fn always_thinks(self) -> bool {
        match self.line {
            Line::Fable | Line::Mythos => true,
            Line::Sonnet | Line::Opus => self.release >= (5, 5),
            Line::Haiku | Line::Unknown => false,
        }
    }

    /// Whether a tool call can be forced on it.
    pub(super) fn can_be_forced(self) -> bool {
        match self.line {
            Line::Fable | Line::Mythos => self.release < (5, 1),
            Line::Sonnet | Line::Opus => self.release < (5, 5),
            Line::Haiku | Line::Unknown => true,
        }
    }

    /// Whether it takes `output_config.effort`.
    pub(super) fn takes_effort(self) -> bool {
        self.release >= (4, 6) || (self.line == Line::Opus && self.release == (4, 5))
    }

    /// Whether it takes the effort `max`.
    pub(super) fn takes_max_effort(self) -> bool {
        self.release >= (4, 6)
    }

    /// Whether it takes the effort `xhigh`.
    pub(super) fn takes_xhigh_effort(self) -> bool {
        self.release >= (4, 7)
    }

    /// Whether it answers in a JSON Schema, and takes strict tools.
    pub(super) fn takes_schema(self) -> bool {
        self.release >= (4, 5)
    }

    /// Whether it takes a `system` role among its messages.
    pub(super) fn takes_system_turns(self) -> bool {
        self.release >= (4, 8)
    }

    /// `max_tokens` for callers that give none.
    pub(super) fn default_output(self, options: &Options) -> u64 {
        options.default_max_tokens.unwrap_or_else(|| self.max_output())
    }

    /// The most that it can answer, in tokens.
    pub(super) fn max_output(self) -> u64 {
        match (self.line, self.release) {
            (_, (4, 6..) | (5.., _)) => 128_000,
            (Line::Opus, (4, 0 | 1)) => 32_000,
            (Line::Unknown, _) => 8_192,
            (_, (4, _) | (3, 7)) => 64_000,
            (_, (3, 5..)) => 8_192,
            _ => 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_line_and_release_whatever_stands_around_them() {
        for (name, line, release) in [
            ("claude-opus-4-6", Line::Opus, (4, 6)),
            ("claude-sonnet-4-20250514", Line::Sonnet, (4, 0)),
            ("claude-sonnet-4-5-20250929", Line::Sonnet, (4, 5)),
            ("claude-3-5-sonnet-20241022", Line::Sonnet, (3, 5)),
            ("claude-3-opus-latest", Line::Opus, (3, 0)),
            ("claude-fable-5-2", Line::Fable, (5, 2)),
            ("claude-haiku-5-5", Line::Haiku, (5, 5)),
            ("claude-mythos-preview", Line::Mythos, PREVIEW),
            ("eu.anthropic.claude-opus-4-1-20250805-v1:0", Line::Opus, (4, 1)),
            ("claude-opus-4@20250514", Line::Opus, (4, 0)),
            ("claude-latest", Line::Unknown, NEWEST),
            ("glm-5-2", Line::Unknown, COMPATIBLE),
        ] {
            assert_eq!(Model::of(name), Model { line, release }, "{name}");
        }
    }

    #[test]
    fn version_and_sampling_go_by_the_model() {
        assert!(Model::of("claude-sonnet-4-6").samples(Model::of("claude-sonnet-4-6").version()));
        assert!(!Model::of("claude-sonnet-4-6").samples(NEW_VERSION));
        assert!(!Model::of("claude-opus-4-7").samples(OLD_VERSION));
        assert_eq!(Model::of("claude-opus-5").version(), NEW_VERSION);
        assert_eq!(Model::of("claude-next").version(), NEW_VERSION);
        assert!(Model::of("kimi-k3").samples(Model::of("kimi-k3").version()));
    }
}
