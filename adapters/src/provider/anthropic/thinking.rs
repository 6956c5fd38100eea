//! How much the model thinks: `reasoning_effort`, or Anthropic's own `thinking` and `output_config`, as the model at
//! hand takes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Notes;
use super::model::{Model, ThinkingStyle};
use super::native::{Display, MadeThinking, Thinking};
use crate::adapter::EncodeError;
use crate::openai::message::value;
use crate::openai::text::Text;
use crate::request::Texts;

/// The least that a budget may be.
const LEAST_BUDGET: u64 = 1_024;

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    /// Up to how many tokens it may cost, where a model wants to be told.
    fn budget(self) -> u64 {
        match self {
            Self::None | Self::Minimal => LEAST_BUDGET,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High => 16_384,
            Self::XHigh => 24_576,
            Self::Max => 32_000,
        }
    }

    /// Its word.
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The model's nearest level.
    fn on(self, model: Model) -> Self {
        match self {
            Self::None | Self::Minimal => Self::Low,
            Self::Max if !model.takes_max_effort() => Self::High,
            Self::XHigh if !model.takes_xhigh_effort() => Self::High,
            other => other,
        }
    }
}

/// What the model is told.
#[derive(Debug, Default)]
pub(super) struct Reasoning<'a> {
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) effort: Option<Effort>,
}

/// What stands around the question how much to think.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    pub(super) model: Model,
    pub(super) max_tokens: u64,
    /// A call is forced; Anthropic does not think before one.
    pub(super) is_forced: bool,
    /// The tool loop that goes on came without its reasoning.
    pub(super) loop_lacks_thinking: bool,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct Shown {
    display: Option<Display>,
}

impl<'a> Reasoning<'a> {
    /// Reads `thinking` and `reasoning_effort`.
    pub(super) fn read(fields: Texts<'a>, around: Surroundings, notes: &mut Notes) -> Result<Self, EncodeError> {
        let effort = match fields.get("reasoning_effort") {
            Some(raw) => Some(value::<Effort>(
                raw,
                "reasoning_effort",
                "one of `none`, `minimal`, `low`, `medium`, `high`, `xhigh` and `max`",
            )?),
            None => None,
        };
        if let Some(raw) = fields.get("thinking") {
            let thinking = around.native(raw, notes)?;
            return Ok(Self { thinking, effort: effort.and_then(|effort| around.effort(effort, notes)) });
        }
        Ok(effort.map(|effort| around.made(effort, notes)).unwrap_or_default())
    }

    /// Whether the model was told to think.
    pub(super) fn is_on(&self) -> bool {
        match &self.thinking {
            None | Some(Thinking::Made(MadeThinking::Disabled)) => false,
            Some(Thinking::Made(_)) => true,
            Some(Thinking::Native(raw)) => !matches!(kind(raw).as_deref(), Some("disabled" | "between_tools")),
        }
    }
}

impl Surroundings {
    fn made<'a>(self, effort: Effort, notes: &mut Notes) -> Reasoning<'a> {
        let style = self.model.thinking();
        let told = match (style, effort) {
            (ThinkingStyle::None | ThinkingStyle::Budget, Effort::None) => return Reasoning::default(),
            (ThinkingStyle::Adaptive, Effort::None) if !self.model.always_thinks() => {
                return Reasoning { thinking: Some(disabled()), effort: None };
            }
            _ => self.effort(effort, notes),
        };
        let thinking = match style {
            ThinkingStyle::None => {
                notes.add("reasoning_effort", "this model does not reason");
                None
            }
            _ if effort == Effort::None => None,
            _ if self.is_forced => {
                notes.add("reasoning_effort", "Anthropic does not reason before a forced call of a tool");
                None
            }
            ThinkingStyle::Adaptive => Some(adaptive(None)),
            ThinkingStyle::Budget => self.budget(effort, None, notes),
        };
        Reasoning { thinking, effort: told }
    }

    fn effort(self, effort: Effort, notes: &mut Notes) -> Option<Effort> {
        if !self.model.takes_effort() {
            return None;
        }
        let told = effort.on(self.model);
        if told < effort {
            notes.change("reasoning_effort", told.name(), "lowered to the highest that this model takes");
        } else if told > effort {
            notes.change("reasoning_effort", told.name(), "raised to the lowest that this model takes");
        }
        Some(told)
    }

    fn budget<'a>(self, effort: Effort, display: Option<Display>, notes: &mut Notes) -> Option<Thinking<'a>> {
        if self.loop_lacks_thinking {
            notes.add("reasoning_effort", "the tool calls that were handed back lack their `thinking_blocks`");
            return None;
        }
        if self.max_tokens <= LEAST_BUDGET {
            notes.add("reasoning_effort", "`max_tokens` leaves no room to reason: Anthropic needs more than 1024");
            return None;
        }
        let room = (self.max_tokens / 2).max(LEAST_BUDGET);
        Some(Thinking::Made(MadeThinking::Enabled { budget_tokens: effort.budget().min(room), display }))
    }

    /// The caller's own words, where the model takes them; else what comes nearest.
    fn native<'a>(self, raw: &'a str, notes: &mut Notes) -> Result<Option<Thinking<'a>>, EncodeError> {
        let invalid = |_| EncodeError::invalid("thinking", "`thinking` must be an object with a `type`.");
        let raw: &'a RawValue = serde_json::from_str(raw).map_err(invalid)?;
        match kind(raw).as_deref() {
            Some("enabled") if self.model.takes_budget() && self.loop_lacks_thinking => {
                notes.add("thinking", "the tool calls that were handed back lack their `thinking_blocks`");
                Ok(None)
            }
            Some("enabled") if self.model.thinking() == ThinkingStyle::Adaptive && !self.model.takes_budget() => {
                notes.add("thinking.budget_tokens", "this model decides itself how much it thinks");
                Ok(Some(adaptive(display(raw))))
            }
            Some("adaptive") if self.model.thinking() == ThinkingStyle::Budget => {
                Ok(self.budget(Effort::Medium, display(raw), notes))
            }
            Some("disabled") if self.model.always_thinks() => {
                notes.add("thinking", "this model always thinks");
                Ok(None)
            }
            _ => Ok(Some(Thinking::Native(raw))),
        }
    }
}

fn kind(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Kind<'_>>(raw.get()).ok().map(|kind| kind.kind.0)
}

/// Whether the caller wants to see the reasoning, if it says so.
fn display(raw: &RawValue) -> Option<Display> {
    serde_json::from_str::<Shown>(raw.get()).ok()?.display
}

fn adaptive<'a>(display: Option<Display>) -> Thinking<'a> {
    Thinking::Made(MadeThinking::Adaptive { display: display.unwrap_or(Display::Summarized) })
}

fn disabled<'a>() -> Thinking<'a> {
    Thinking::Made(MadeThinking::Disabled)
}
