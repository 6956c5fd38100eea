//! An answer's body, played step by step.
//! A dialect gives frames (the events of a stream, or one whole body); the fault turns them into steps; the body plays
//! them, one write each, and its receipt tells what was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame as BodyFrame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::account::Receipt;
use super::fault::Fault;
use super::reply::STAMP;

/// The pause between the pieces of a split write, so that they arrive apart.
const SPLIT_PAUSE: Duration = Duration::from_millis(1);

/// How much more a truncated answer promises than it sends.
pub(crate) const TRUNCATED_BY: usize = 64;

/// Where in a stream a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before the content: role, `message_start`.
    Preface,
    /// A ping or comment.
    Ping,
    /// Content, of so many tokens.
    Content(u64),
    /// After the content: finish, usage, the end.
    Tail,
}

/// One event as it goes on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) place: Place,
    pub(crate) bytes: Bytes,
}

/// A stream's frames, written into one buffer.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: BytesMut,
    ends: Vec<(usize, Place)>,
}

impl Frames {
    /// Adds a frame that `write` writes.
    pub(crate) fn push(&mut self, place: Place, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.buffer);
        self.ends.push((self.buffer.len(), place));
    }

    /// The frames.
    pub(crate) fn finish(self) -> Vec<Frame> {
        let bytes = self.buffer.freeze();
        let mut start = 0;
        let frame = |(end, place)| {
            let frame = Frame { place, bytes: bytes.slice(start..end) };
            start = end;
            frame
        };
        self.ends.into_iter().map(frame).collect()
    }
}

/// One step of a body.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// One write, of so many tokens.
    Write(Bytes, u64),
    /// One write, with the time of sending written over the stamps.
    Stamp(Bytes, u64),
    /// Byte by byte, with a pause after each.
    Drip(Bytes, Duration),
    Wait(Duration),
    /// Nothing more, for ever.
    Silence,
    /// Close the connection.
    Cut,
}

/// The steps of a stream: `failure` is the dialect's error event, with what follows it.
pub(crate) fn stream(frames: Vec<Frame>, failure: Option<Bytes>, fault: &Fault) -> VecDeque<Step> {
    let (frames, end) = end_early(frames, failure, fault);
    let frames = if fault.malformed { break_one(frames) } else { frames };
    let frames = if fault.crlf { frames.into_iter().map(with_crlf).collect() } else { frames };
    let frames = if fault.gzip { zip(frames) } else { frames };
    let mut steps = VecDeque::with_capacity(frames.len() * 2 + 2);
    wait(&mut steps, fault.first);
    let mut paced = false;
    for frame in frames {
        let pacing = matches!(frame.place, Place::Content(_) | Place::Ping);
        if pacing && paced {
            wait(&mut steps, fault.gap);
        }
        paced |= pacing;
        write(&mut steps, frame, fault);
    }
    steps.extend(end);
    steps
}

/// The steps of a whole body.
pub(crate) fn whole(body: Bytes, tokens: u64, fault: &Fault) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    wait(&mut steps, fault.first);
    let (kept, end) = match (fault.cut, fault.silence) {
        (Some(_), _) => (body.slice(..body.len() / 2), Some(Step::Cut)),
        (None, Some(_)) => (body.slice(..body.len() / 2), Some(Step::Silence)),
        (None, None) => (body, fault.truncate.then_some(Step::Cut)),
    };
    write(&mut steps, Frame { place: Place::Content(tokens), bytes: kept }, fault);
    steps.extend(end);
    steps
}

/// `body` in gzip.
pub(crate) fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a vector does not fail; a short body would fail the test that reads it.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

fn end_early(frames: Vec<Frame>, failure: Option<Bytes>, fault: &Fault) -> (Vec<Frame>, Option<Step>) {
    if let Some(failure) = failure {
        let kept = fault.error_after.map_or_else(Vec::new, |after| up_to(frames, after));
        let error = Frame { place: Place::Tail, bytes: failure };
        return (kept.into_iter().chain([error]).collect(), None);
    }
    let stops = [(fault.cut, Some(Step::Cut)), (fault.silence, Some(Step::Silence)), (fault.end, None)];
    let earliest = stops.into_iter().filter_map(|(after, step)| Some((after?, step))).min_by_key(|(after, _)| *after);
    match earliest {
        Some((after, step)) => (up_to(frames, after), step),
        None => (frames, None),
    }
}

/// The frames up to the content event `count`, without what ends the stream.
fn up_to(frames: Vec<Frame>, count: usize) -> Vec<Frame> {
    let mut seen = 0;
    let before = |frame: &Frame| match frame.place {
        Place::Content(_) => {
            seen += 1;
            seen <= count
        }
        Place::Tail => false,
        Place::Preface | Place::Ping => seen < count || seen == 0,
    };
    frames.into_iter().take_while(before).collect()
}

fn break_one(mut frames: Vec<Frame>) -> Vec<Frame> {
    let is_content = |frame: &&mut Frame| matches!(frame.place, Place::Content(_));
    if let Some(frame) = frames.iter_mut().filter(is_content).take(2).last() {
        let half = frame.bytes.slice(..frame.bytes.len() / 2);
        frame.bytes = [half.as_ref(), b"\n\n"].concat().into();
    }
    frames
}

fn with_crlf(frame: Frame) -> Frame {
    let mut bytes = BytesMut::with_capacity(frame.bytes.len() + 4);
    for byte in &frame.bytes {
        if *byte == b'\n' {
            bytes.extend_from_slice(b"\r");
        }
        bytes.extend_from_slice(&[*byte]);
    }
    Frame { bytes: bytes.freeze(), ..frame }
}

fn zip(frames: Vec<Frame>) -> Vec<Frame> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut zipped: Vec<Frame> = frames
        .into_iter()
        .map(|frame| {
            let _ = encoder.write_all(&frame.bytes).and_then(|()| encoder.flush());
            Frame { bytes: std::mem::take(encoder.get_mut()).into(), ..frame }
        })
        .collect();
    zipped.push(Frame { place: Place::Tail, bytes: encoder.finish().unwrap_or_default().into() });
    zipped
}

fn wait(steps: &mut VecDeque<Step>, time: Duration) {
    if time > Duration::ZERO {
        steps.push_back(Step::Wait(time));
    }
}

fn write(steps: &mut VecDeque<Step>, frame: Frame, fault: &Fault) {
    let tokens = match frame.place {
        Place::Content(tokens) => tokens,
        Place::Preface | Place::Ping | Place::Tail => 0,
    };
    if let Some(pause) = fault.slow {
        steps.push_back(Step::Drip(frame.bytes, pause));
        steps.push_back(Step::Write(Bytes::new(), tokens));
    } else if fault.split {
        split(steps, &frame.bytes, tokens);
    } else if fault.stamp && !fault.gzip {
        steps.push_back(Step::Stamp(frame.bytes, tokens));
    } else {
        steps.push_back(Step::Write(frame.bytes, tokens));
    }
}

/// Cuts inside each wide character, in the middle, and before the last byte, which ends the event.
fn split(steps: &mut VecDeque<Step>, bytes: &Bytes, tokens: u64) {
    let inside = |i: &usize| bytes.get(*i).is_some_and(|byte| byte & 0xC0 == 0x80);
    let mut cuts: Vec<usize> = (0..bytes.len()).filter(inside).collect();
    cuts.extend([bytes.len() / 2, bytes.len().saturating_sub(1), bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    let mut start = 0;
    for end in cuts.into_iter().filter(|end| *end > 0) {
        steps.push_back(Step::Write(bytes.slice(start..end), 0));
        steps.push_back(Step::Wait(SPLIT_PAUSE));
        start = end;
    }
    steps.push_back(Step::Write(Bytes::new(), tokens));
}

/// The error that closes a connection.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by a directive")
    }
}

impl std::error::Error for Cut {}

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// An answer's body: one write, or a script.
#[derive(Debug)]
pub(crate) enum Play {
    Whole(Bytes),
    Script(Box<Script>),
}

/// Steps being played.
#[derive(Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    /// When the last pause was to end: pauses are counted from here, so that lateness does not add up.
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// A write has gone to hyper and is to leave before the next.
    flushing: bool,
    receipt: Receipt,
    /// The output tokens of a body that is played to its proper end.
    total: Option<u64>,
}

impl Play {
    pub(crate) fn script(steps: VecDeque<Step>, receipt: Receipt, total: Option<u64>) -> Self {
        Self::Script(Box::new(Script { steps, due: None, timer: None, flushing: false, receipt, total }))
    }
}

impl Body for Play {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(BodyFrame::data(std::mem::take(bytes))))),
            Self::Script(script) => script.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Script(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Script(_) => SizeHint::default(),
        }
    }
}

impl Script {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, Cut>>> {
        loop {
            if self.is_waiting(cx) {
                return Poll::Pending;
            }
            let Some(step) = self.steps.pop_front() else {
                self.receipt.answered();
                self.receipt.sent_all(self.total);
                return Poll::Ready(None);
            };
            let bytes = match step {
                Step::Write(bytes, tokens) => self.sent(bytes, tokens),
                Step::Stamp(bytes, tokens) => self.sent(stamped(&bytes), tokens),
                Step::Drip(bytes, pause) => self.drip(bytes, pause),
                Step::Wait(time) => self.wait(time),
                Step::Silence => return self.fall_silent(),
                Step::Cut => return self.cut(),
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(BodyFrame::data(bytes))));
            }
        }
    }

    /// Hyper flushes what it has when the body is pending: a turn without a frame makes each frame a write of its own.
    fn is_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return true;
            }
            self.timer = None;
            self.flushing = false;
        }
        if std::mem::take(&mut self.flushing) {
            cx.waker().wake_by_ref();
            return true;
        }
        false
    }

    fn sent(&mut self, bytes: Bytes, tokens: u64) -> Bytes {
        self.receipt.sent(tokens);
        let pause_follows = matches!(self.steps.front(), Some(Step::Wait(_) | Step::Silence) | None);
        self.flushing = !bytes.is_empty() && !pause_follows;
        bytes
    }

    fn drip(&mut self, mut bytes: Bytes, pause: Duration) -> Bytes {
        let byte = bytes.split_to(1.min(bytes.len()));
        if !bytes.is_empty() {
            self.steps.push_front(Step::Drip(bytes, pause));
        }
        self.steps.push_front(Step::Wait(pause));
        byte
    }

    fn wait(&mut self, time: Duration) -> Bytes {
        let due = self.due.unwrap_or_else(Instant::now) + time;
        self.due = Some(due);
        self.timer = Some(Box::pin(tokio::time::sleep_until(due)));
        Bytes::new()
    }

    /// Nobody wakes the body again; hyper drops it when the peer goes.
    fn fall_silent(&mut self) -> Poll<Option<Result<BodyFrame<Bytes>, Cut>>> {
        self.steps.push_front(Step::Silence);
        Poll::Pending
    }

    fn cut(&mut self) -> Poll<Option<Result<BodyFrame<Bytes>, Cut>>> {
        self.receipt.answered();
        Poll::Ready(Some(Err(Cut)))
    }
}

/// `bytes` with the time, in nanoseconds since 1970, over the first stamp.
fn stamped(bytes: &Bytes) -> Bytes {
    let found = bytes.windows(STAMP.len()).position(|window| window == STAMP.as_bytes());
    let Some(place) = found else {
        return bytes.clone();
    };
    let mut copy = BytesMut::from(bytes.as_ref());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let digits = format!("{now:020}");
    if let Some(slot) = copy.get_mut(place..place + STAMP.len()) {
        slot.copy_from_slice(digits.as_bytes());
    }
    copy.freeze()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn frames(contents: usize) -> Vec<Frame> {
        let mut frames = Frames::default();
        frames.push(Place::Preface, |out| out.extend_from_slice(b"data: p\n\n"));
        for _ in 0..contents {
            frames.push(Place::Content(1), |out| out.extend_from_slice("data: é\n\n".as_bytes()));
        }
        frames.push(Place::Tail, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
        frames.finish()
    }

    fn bytes(steps: &VecDeque<Step>) -> Vec<u8> {
        let written = steps.iter().map(|step| match step {
            Step::Write(bytes, _) | Step::Stamp(bytes, _) | Step::Drip(bytes, _) => bytes.to_vec(),
            Step::Wait(_) | Step::Silence | Step::Cut => Vec::new(),
        });
        written.flatten().collect()
    }

    #[test]
    fn a_stream_without_a_fault_is_its_frames() {
        let steps = stream(frames(2), None, &Fault::default());
        assert_eq!(bytes(&steps), "data: p\n\ndata: é\n\ndata: é\n\ndata: [DONE]\n\n".as_bytes());
        assert_eq!(steps.len(), 4);
    }

    #[test]
    fn a_cut_comes_after_so_many_content_events() {
        let steps = stream(frames(5), None, &Fault::parse("cut=2").unwrap());
        assert_eq!(bytes(&steps), "data: p\n\ndata: é\n\ndata: é\n\n".as_bytes());
        assert_eq!(steps.back(), Some(&Step::Cut));
    }

    #[test]
    fn a_cut_past_the_content_still_loses_the_end() {
        let steps = stream(frames(1), None, &Fault::parse("end=9").unwrap());
        assert_eq!(bytes(&steps), "data: p\n\ndata: é\n\n".as_bytes());
    }

    #[test]
    fn an_error_comes_before_everything_unless_it_is_to_come_after_some() {
        let error = || Some(Bytes::from_static(b"E"));
        assert_eq!(bytes(&stream(frames(3), error(), &Fault::parse("error=400").unwrap())), b"E");
        let after = stream(frames(3), error(), &Fault::parse("error_after=1").unwrap());
        assert_eq!(bytes(&after), "data: p\n\ndata: é\n\nE".as_bytes());
    }

    #[test]
    fn a_split_cuts_inside_a_character_and_loses_nothing() {
        let steps = stream(frames(1), None, &Fault::parse("split").unwrap());
        assert_eq!(bytes(&steps), "data: p\n\ndata: é\n\ndata: [DONE]\n\n".as_bytes());
        let broken = |step: &Step| matches!(step, Step::Write(bytes, _) if std::str::from_utf8(bytes).is_err());
        assert!(steps.iter().any(broken));
    }

    #[test]
    fn a_stamp_is_the_time_of_sending() {
        let text = stamped(&Bytes::from(format!("x{STAMP}y")));
        let digits = std::str::from_utf8(&text[1..21]).unwrap();
        assert!(digits.parse::<u128>().unwrap() > 1_700_000_000_000_000_000);
    }

    #[test]
    fn gaps_stand_between_content_events_only() {
        let steps = stream(frames(3), None, &Fault::parse("gap=5ms").unwrap());
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Wait(_))).count(), 2);
    }
}
