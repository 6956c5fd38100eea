//! Callers, what they do, and what they heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;
use weir_tests::ask::{chat, stream, with};
use weir_tests::client::{Call, End};

use crate::nodes::Node;

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Reads an answer to its end.
    Whole,
    Stream,
    /// Leaves in the middle of a stream that is counted at its end.
    Leaves,
    /// Leaves in the middle of one whose input is counted at its beginning.
    LeavesCounted,
    /// Will not wait for a slow target.
    Hurries,
    /// Asks for what fails at first.
    FailsOver,
    /// Asks for what is silent at first, and given up: before an answer's head, and after it.
    GivenUp,
    Silent,
    /// Asks for what is slow, and so asked a second time elsewhere.
    Hedged,
}

const DEEDS: [Deed; 9] = [
    Deed::Whole,
    Deed::Stream,
    Deed::Leaves,
    Deed::LeavesCounted,
    Deed::Hurries,
    Deed::FailsOver,
    Deed::GivenUp,
    Deed::Silent,
    Deed::Hedged,
];

/// What the caller heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// An answer, to its end.
    Whole,
    /// An error with this status.
    Refused(u16),
    /// The beginning of an answer: it left, or its connection was closed.
    Part,
    /// Nothing at all.
    Nothing,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Its name, to the gateway and to the provider.
    pub(crate) id: String,
    pub(crate) deed: Deed,
    pub(crate) node: usize,
    pub(crate) heard: Heard,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Asked {
    /// Whether it was cut, by its caller, by its caller's clock, or by its gateway's end: all that a row may not be
    /// exact of.
    pub(crate) fn was_cut(&self) -> bool {
        match self.heard {
            Heard::Part | Heard::Nothing => true,
            Heard::Refused(status) => self.deed == Deed::Hurries && status == 504,
            Heard::Whole => false,
        }
    }
}

impl Deed {
    fn call(self, to: Call, id: &str) -> Call {
        let named = |body| with(body, "user", json!(id));
        let limited = |body| with(named(body), "max_tokens", json!(8));
        let to = to.header("x-request-id", id);
        match self {
            Self::Whole => to.json(&limited(chat("m"))),
            Self::Stream => to.json(&limited(stream("m"))),
            Self::Leaves => to.json(&named(stream("long"))),
            Self::LeavesCounted => to.json(&named(stream("counted"))),
            Self::Hurries => to.header("x-weir-timeout-ms", "20").json(&limited(chat("slow"))),
            Self::FailsOver => to.json(&limited(chat("failing"))),
            Self::GivenUp => to.json(&limited(chat("late"))),
            Self::Silent => to.json(&limited(stream("silent"))),
            Self::Hedged => to.json(&limited(chat("hedged"))),
        }
    }
}

/// Makes one request.
pub(crate) async fn perform(deed: Deed, to: Call, id: String, node: usize) -> Asked {
    let (began, call) = (Instant::now(), deed.call(to, &id));
    // A gateway that has just ended takes no connection, which the client panics at.
    let heard = tokio::spawn(hear(deed, call)).await.unwrap_or(Heard::Nothing);
    Asked { id, deed, node, heard, began, ended: Instant::now() }
}

async fn hear(deed: Deed, call: Call) -> Heard {
    let Ok(mut answer) = call.begin().await.outcome().await else {
        return Heard::Nothing;
    };
    let status = answer.status.as_u16();
    if matches!(deed, Deed::Leaves | Deed::LeavesCounted) && status == 200 {
        answer.piece().await;
        answer.leave();
        return Heard::Part;
    }
    match answer.rest().await {
        (_, End::Aborted) => Heard::Part,
        (text, End::Whole) if status == 200 && text.contains("\"error\":") => Heard::Part,
        (_, End::Whole) if status == 200 => Heard::Whole,
        (_, End::Whole) => Heard::Refused(status),
    }
}

/// Makes one request after the other until it is over.
pub(crate) async fn caller(number: usize, node: Arc<Node>, place: usize, over: Arc<AtomicBool>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let Some(call) = node.call().await else { continue };
        let deed = DEEDS[(number + turn) % DEEDS.len()];
        asked.push(perform(deed, call, format!("chaos-{number}-{turn}"), place).await);
    }
    asked
}
