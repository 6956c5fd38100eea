//! The values of a configuration that carry a meaning: spans of time, sizes, counts, shares, money, secrets, hashes,
//! dates, addresses. Each knows how it is written, and says what it wanted when it is not.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use indexmap::IndexMap;
use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::read::{Name, Read, Reader, nearest};
use super::tree::{Node, Value};

/// Something that is written as one scalar.
trait Scalar: Sized {
    /// What a fault says was expected.
    const WANTED: &'static str;

    /// Reads it; the error may hold a suggestion.
    fn parse(text: &str) -> Result<Self, Option<String>>;

    /// What stands in for one that is wrong.
    fn stand_in() -> Self;

    /// Its JSON Schema.
    fn schema() -> serde_json::Value;
}

/// Gives a scalar its reading and its schema, and makes it serialise as it is written.
macro_rules! scalar {
    ($($ty:ident),* $(,)?) => {$(
        impl Read for $ty {
            fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
                let Some(text) = node.text() else {
                    return reader.wrong(node, <Self as Scalar>::WANTED, None);
                };
                match <Self as Scalar>::parse(text) {
                    Ok(value) => value,
                    Err(help) => reader.wrong(node, <Self as Scalar>::WANTED, help),
                }
            }

            fn placeholder() -> Self {
                <Self as Scalar>::stand_in()
            }
        }

        impl JsonSchema for $ty {
            fn schema_name() -> Cow<'static, str> {
                stringify!($ty).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                Schema::try_from(<Self as Scalar>::schema()).unwrap_or_default()
            }
        }

        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
scalar!(
    Duration,
    DurationRange,
    ByteSize,
    Count,
    Percent,
    Money,
    KeyHash,
    Expiry,
    Zone,
    Address,
    BaseUrl,
    Proxy,
    AffinityBy,
    AccessLog,
    Upstream
);

/// A span of time: `250ms`, `30s`, `15m`, `1h`, `7d`; `0s` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    /// So many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// So many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// The span itself.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// True for `0s`.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// The units of time with their length in microseconds, the longest first.
const TIMES: &[(&str, u64)] =
    &[("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// No span in a configuration is longer than ten years: a longer one is a slip, and clocks overflow on it.
const LONGEST_MICROS: u64 = 3_650 * 86_400_000_000;

impl Scalar for Duration {
    const WANTED: &'static str = "a span of time such as `30s`, `250ms` or `15m`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (number, unit) = split_unit(text);
        if unit.is_empty() && !number.is_empty() {
            return Err(Some(format!("write the unit: `{number}s`")));
        }
        let Some((_, micros)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            return Err(Some("the units are us, ms, s, m, h and d".to_owned()));
        };
        match scaled(number, *micros) {
            Some(micros) if micros <= LONGEST_MICROS => Ok(Self(std::time::Duration::from_micros(micros))),
            Some(_) => Err(Some("the longest span is 3650d".to_owned())),
            None => Err(None),
        }
    }

    fn stand_in() -> Self {
        Self::ZERO
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)$", "description": "A span of time: `250ms`, `30s`, `15m`, `1h`; `0s` is none."})
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        match TIMES.iter().find(|(_, unit)| micros.is_multiple_of(u128::from(*unit))) {
            // A day is easily misread for anything under two of them.
            Some(("d", unit)) if micros / u128::from(*unit) < 2 => {
                write!(f, "{}h", micros / 3_600_000_000)
            }
            Some((name, unit)) => write!(f, "{}{name}", micros / u128::from(*unit)),
            None => write!(f, "{micros}us"),
        }
    }
}

/// A span of time between two bounds: `250ms..5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationRange {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub to: Duration,
}

impl Scalar for DurationRange {
    const WANTED: &'static str = "two spans of time such as `250ms..5s`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let range = Self { from: Duration::parse(from.trim())?, to: Duration::parse(to.trim())? };
        if range.from > range.to {
            return Err(Some(format!("the shorter one first: `{}..{}`", range.to, range.from)));
        }
        Ok(range)
    }

    fn stand_in() -> Self {
        Self { from: Duration::ZERO, to: Duration::ZERO }
    }

    fn schema() -> serde_json::Value {
        let span = r"[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)";
        json!({"type": "string", "pattern": format!(r"^{span}(\.\.{span})?$"), "description": "Two spans of time: `250ms..5s`."})
    }
}

impl fmt::Display for DurationRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

/// A size in bytes: `512KiB`, `64MiB`, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The units of size, the largest first.
const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many mebibytes.
    #[must_use]
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// In bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Scalar for ByteSize {
    const WANTED: &'static str = "a size such as `64MiB`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (number, unit) = split_unit(text);
        let Some((_, bytes)) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            return Err(Some("the units are B, KiB, MiB, GiB, kB, MB and GB".to_owned()));
        };
        scaled(number, *bytes).map(Self).ok_or(None)
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMG]iB|kB|MB|GB|B)$", "description": "A size: `512KiB`, `64MiB`."})
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A number of things: `600`, `400k`, `2m` (two million), `1.5M`, `3b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(u64);

const COUNTS: &[(&str, u64)] = &[("b", 1_000_000_000), ("m", 1_000_000), ("k", 1_000), ("", 1)];

impl Count {
    /// So many.
    #[must_use]
    pub const fn of(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Scalar for Count {
    const WANTED: &'static str = "a number such as `600`, `400k` or `2m` (million)";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.starts_with('-') {
            return Err(Some("it may not be negative".to_owned()));
        }
        let (number, unit) = split_unit(text);
        let Some((_, factor)) = COUNTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            return Err(Some("the units are k (thousand), m (million) and b (billion)".to_owned()));
        };
        scaled(number, *factor).map(Self).ok_or(None)
    }

    fn stand_in() -> Self {
        Self(1)
    }

    fn schema() -> serde_json::Value {
        json!({
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[kKmMbB]?$"}],
            "description": "A number: `600`, `400k`, `2m` (two million).",
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match COUNTS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A share from `0%` to `100%`, exact to a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    hundredths: u16,
}

impl Percent {
    /// So many percent, at most a hundred.
    #[must_use]
    pub const fn of(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self { hundredths: percent as u16 * 100 }
    }

    /// Between 0 and 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }

    /// In hundredths of a percent: `50%` is 5000.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.hundredths
    }
}

impl Scalar for Percent {
    const WANTED: &'static str = "a share from `0%` to `100%`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let Some(number) = text.strip_suffix('%') else {
            return Err(Some("write the percent sign: `5%`".to_owned()));
        };
        let hundredths = scaled(number.trim_end(), 100).and_then(|h| u16::try_from(h).ok());
        hundredths.filter(|h| *h <= 10_000).map(|hundredths| Self { hundredths }).ok_or(None)
    }

    fn stand_in() -> Self {
        Self { hundredths: 0 }
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,2})?%$", "description": "A share: `5%`, `0.5%`."})
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.hundredths) / 100.0)
    }
}

/// An amount of money in nano-units (a thousand millionth of a dollar), never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    nanos: u64,
}

/// Nano-units in one unit.
const NANOS: u64 = 1_000_000_000;

impl Money {
    /// In nano-units: 1.25 is 1 250 000 000.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.nanos
    }
}

impl Scalar for Money {
    const WANTED: &'static str = "an amount of money such as `1.25`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.starts_with('-') {
            return Err(Some("it may not be negative".to_owned()));
        }
        if text.bytes().any(|b| matches!(b, b'e' | b'E')) {
            return Err(Some("write it without an exponent; `per: 1M` gives the price of a million".to_owned()));
        }
        match scaled(text, NANOS) {
            Some(nanos) => Ok(Self { nanos }),
            None => Err(Some("at most nine digits after the point; `per: 1M` gives the price of a million".to_owned())),
        }
    }

    fn stand_in() -> Self {
        Self { nanos: NANOS }
    }

    fn schema() -> serde_json::Value {
        json!({
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?$"}],
            "description": "An amount of money, exact to nine digits after the point.",
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.nanos / NANOS, self.nanos % NANOS);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:09}").trim_end_matches('0'))
    }
}

/// A secret as it is written: `env:NAME`, `file:/path`, or the text itself (which earns a warning).
/// Its text is in no debug output and no serialised form, and is wiped from memory when it goes.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In this variable of the environment.
    Env(String),
    /// In this file, without the line's end.
    File(PathBuf),
    /// Here, in the clear.
    Literal(Zeroizing<String>),
}

/// Why a secret could not be had. It names the place, never the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("the file {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// The file holds nothing.
    #[error("the file {} is empty", .0.display())]
    Empty(PathBuf),
}

impl Secret {
    /// The secret as it is written.
    #[must_use]
    pub fn written(text: &str) -> Self {
        if let Some(name) = text.strip_prefix("env:") {
            return Self::Env(name.trim().to_owned());
        }
        match text.strip_prefix("file:") {
            Some(path) => Self::File(path.trim().into()),
            None => Self::Literal(Zeroizing::new(text.to_owned())),
        }
    }

    /// The secret itself, fetched from where it is kept.
    ///
    /// # Errors
    /// The variable is not set, or the file is not there, not text, over 64 KiB or empty.
    pub fn resolve(&self) -> Result<Zeroizing<String>, SecretError> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text)),
                Ok(_) | Err(_) => Err(SecretError::Unset(name.clone())),
            },
            Self::File(path) => from_file(path),
        }
    }

    /// True when it stands in the file in the clear.
    #[must_use]
    pub const fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

/// No key is longer; a service account's JSON has about 2.5 KiB.
const LONGEST_SECRET: u64 = 64 << 10;

fn from_file(path: &PathBuf) -> Result<Zeroizing<String>, SecretError> {
    use std::io::Read as _;
    let unreadable = |why: String| SecretError::Unreadable { path: path.clone(), why };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = Zeroizing::new(String::new());
    let size = file.take(LONGEST_SECRET + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if u64::try_from(size).unwrap_or(u64::MAX) > LONGEST_SECRET {
        return Err(unreadable("it is over 64 KiB".to_owned()));
    }
    let kept = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(kept);
    if text.is_empty() { Err(SecretError::Empty(path.clone())) } else { Ok(text) }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Literal(_) => f.write_str("[__HIDDEN__]"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Read for Secret {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        // A wrong secret is never quoted in the fault.
        let Some(text) = node.text().filter(|text| !text.is_empty()) else {
            reader.fault(
                node.mark,
                format!("expected a secret, found {}", node.kind()),
                Some("write `env:NAME` or `file:/path`".to_owned()),
            );
            return Self::placeholder();
        };
        let secret = Self::written(text);
        match &secret {
            Self::Env(name) if !is_variable(name) => {
                reader.fault(
                    node.mark,
                    "`env:` needs the name of a variable",
                    Some("such as `env:OPENAI_API_KEY`".to_owned()),
                );
            }
            Self::File(path) if path.as_os_str().is_empty() => {
                reader.fault(node.mark, "`file:` needs a path", Some("such as `file:/run/secrets/openai`".to_owned()));
            }
            Self::Env(_) | Self::File(_) => reader.secret(node.mark, &secret),
            Self::Literal(_) => {}
        }
        secret
    }

    fn placeholder() -> Self {
        Self::Literal(Zeroizing::default())
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.starts_with(|c: char| !c.is_ascii_digit())
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let schema = json!({"type": "string", "minLength": 1, "description": "`env:NAME`, `file:/path`, or the text itself (with a warning)."});
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// The SHA-256 of a virtual key, written `sha256:` and 64 hexadecimal digits. The key itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key as the caller sends it.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Scalar for KeyHash {
    const WANTED: &'static str = "`sha256:` and 64 hexadecimal digits";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let mint = || Some("`weir key hash` gives it for a key".to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(mint)?;
        if digits.len() != 64 {
            return Err(mint());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(mint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| mint())?;
        }
        Ok(Self(hash))
    }

    fn stand_in() -> Self {
        Self([0; 32])
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$", "description": "The SHA-256 of a virtual key; `weir key new` and `weir key hash` give it."})
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The moment from which something is no longer valid: a date (from its first moment on, UTC) or a date with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(jiff::Timestamp);

impl Expiry {
    /// The moment.
    #[must_use]
    pub const fn timestamp(self) -> jiff::Timestamp {
        self.0
    }

    /// Whether it lies behind `now`.
    #[must_use]
    pub fn is_past(self, now: std::time::SystemTime) -> bool {
        std::time::SystemTime::from(self.0) <= now
    }
}

impl Scalar for Expiry {
    const WANTED: &'static str = "a date such as `2027-01-01` or `2027-01-01T12:00:00Z`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(moment));
        }
        // jiff reads many spellings; only the plain one is meant here.
        let date = text.parse::<civil::Date>().ok().filter(|_| text.len() == 10).ok_or(None)?;
        Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).map(Self).map_err(|_| None)
    }

    fn stand_in() -> Self {
        Self(jiff::Timestamp::MAX)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}(T.+)?$", "description": "A date `2027-01-01` (its first moment in UTC) or a time `2027-01-01T12:00:00Z`."})
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A time zone by its IANA name: `Europe/Berlin`, `UTC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(&self) -> &TimeZone {
        &self.zone
    }
}

impl Scalar for Zone {
    const WANTED: &'static str = "a time zone such as `Europe/Berlin` or `UTC`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        if let Ok(zone) = TimeZone::get(text) {
            return Ok(Self { name: text.to_owned(), zone });
        }
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        Err(nearest(text, known.iter().map(String::as_str)).map(|name| format!("did you mean `{name}`?")))
    }

    fn stand_in() -> Self {
        Self::utc()
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "minLength": 1, "description": "A time zone by its IANA name: `Europe/Berlin`."})
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An address to listen on: `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`, `:8080` (every interface).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(SocketAddr);

impl Address {
    /// This port on loopback.
    #[must_use]
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// The socket address.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl Scalar for Address {
    const WANTED: &'static str = "an address such as `127.0.0.1:8080`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let on = |host: Ipv4Addr, port: &str| port.parse::<u16>().ok().map(|port| Self((host, port).into()));
        match text.rsplit_once(':') {
            Some(("localhost", port)) => on(Ipv4Addr::LOCALHOST, port).ok_or(None),
            Some(("" | "*", port)) => on(Ipv4Addr::UNSPECIFIED, port).ok_or(None),
            Some(_) => Err(Some("listen on an IP address, not a host name".to_owned())),
            None => Err(Some("write the port too".to_owned())),
        }
    }

    fn stand_in() -> Self {
        Self::loopback(0)
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": ":[0-9]{1,5}$", "description": "An address to listen on: `127.0.0.1:8080`, `[::]:8080`, `:8080` (every interface)."})
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a provider is: `http://` or `https://`, a host, and the path before the operation's; no query, no user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    uri: http::Uri,
    text: String,
}

impl BaseUrl {
    /// As written, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In its parts. Scheme and host are always there.
    #[must_use]
    pub const fn uri(&self) -> &http::Uri {
        &self.uri
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The host, without brackets or port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port, the scheme's own when none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }
}

impl Scalar for BaseUrl {
    const WANTED: &'static str = "a URL such as `https://api.example.com/v1`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let text = text.trim_end_matches('/');
        if !text.contains("://") {
            return Err(Some(format!("write the scheme too: `https://{text}`")));
        }
        if text.contains(['?', '#']) {
            return Err(Some("a base URL has no query and no fragment".to_owned()));
        }
        let uri: http::Uri = text.parse().map_err(|_| None)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Some("the scheme is http or https".to_owned()));
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(Some("put the secret into `credentials`, not into the URL".to_owned()));
        }
        match uri.host() {
            Some(host) if !host.is_empty() => Ok(Self { uri, text: text.to_owned() }),
            Some(_) | None => Err(None),
        }
    }

    fn stand_in() -> Self {
        Self { uri: http::Uri::from_static("http://localhost"), text: String::new() }
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^https?://[^?#@]+$", "description": "A URL: `https://api.example.com/v1`."})
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The way to a provider: straight, or through an HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Straight.
    None,
    /// Through this one, by `CONNECT` for `https` targets.
    Via(BaseUrl),
}

impl Scalar for Proxy {
    const WANTED: &'static str = "`none` or a URL such as `http://proxy:3128`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text == "none" { Ok(Self::None) } else { BaseUrl::parse(text).map(Self::Via) }
    }

    fn stand_in() -> Self {
        Self::None
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(none|https?://[^?#@]+)$", "description": "`none`, or the URL of an HTTP proxy."})
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Via(url) => fmt::Display::fmt(url, f),
        }
    }
}

/// What makes two requests belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AffinityBy {
    /// The same value of this request header.
    Header(http::HeaderName),
    /// The same beginning of the prompt.
    PromptPrefix,
    /// The same `user` in the request.
    User,
    /// The same virtual key.
    Key,
}

impl Scalar for AffinityBy {
    const WANTED: &'static str = "one of header:NAME, prompt_prefix, user, key";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Some(name) = text.strip_prefix("header:") {
            let name = name.trim().to_ascii_lowercase();
            return http::HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| Some("that is no name of a header".to_owned()));
        }
        match text {
            "prompt_prefix" => Ok(Self::PromptPrefix),
            "user" => Ok(Self::User),
            "key" => Ok(Self::Key),
            other => {
                Err(nearest(other, ["prompt_prefix", "user", "key"].into_iter())
                    .map(|m| format!("did you mean `{m}`?")))
            }
        }
    }

    fn stand_in() -> Self {
        Self::Key
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(header:.+|prompt_prefix|user|key)$", "description": "`header:NAME`, `prompt_prefix`, `user` or `key`."})
    }
}

impl fmt::Display for AffinityBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::PromptPrefix => f.write_str("prompt_prefix"),
            Self::User => f.write_str("user"),
            Self::Key => f.write_str("key"),
        }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    None,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// This file, to which lines are added.
    File(PathBuf),
}

impl Scalar for AccessLog {
    const WANTED: &'static str = "one of stdout, stderr, none, file:/path";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        match text {
            "none" => Ok(Self::None),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            other => {
                match other.strip_prefix("file:").filter(|path| !path.is_empty()) {
                    Some(path) => Ok(Self::File(path.into())),
                    None => Err(nearest(other, ["stdout", "stderr", "none"].into_iter())
                        .map(|m| format!("did you mean `{m}`?"))),
                }
            }
        }
    }

    fn stand_in() -> Self {
        Self::None
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(stdout|stderr|none|file:.+)$", "description": "`stdout`, `stderr`, `none` or `file:/path`."})
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// A host that may be reached although it is private: an IP address, a network in CIDR notation, or a host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Every address of this network; a single address is a network of one.
    Net {
        /// An address in it.
        address: std::net::IpAddr,
        /// How many leading bits count.
        prefix: u8,
    },
    /// This host by name, lower case.
    Host(String),
}

impl Upstream {
    /// Whether a host, as it is written, is meant.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        match (self, host.parse::<std::net::IpAddr>()) {
            (Self::Net { .. }, Ok(ip)) => self.holds(ip),
            (Self::Host(name), Err(_)) => name.eq_ignore_ascii_case(host.trim_end_matches('.')),
            (Self::Net { .. }, Err(_)) | (Self::Host(_), Ok(_)) => false,
        }
    }

    /// Whether the network has this address; an IPv4 address in IPv6 clothes counts as what it is.
    #[must_use]
    pub fn holds(&self, ip: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let Self::Net { address, prefix } = self else {
            return false;
        };
        let shift = |width: u8| u32::from(width.saturating_sub(*prefix));
        match (address.to_canonical(), ip.to_canonical()) {
            (V4(a), V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0,
            (V6(a), V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0,
            (V4(_), V6(_)) | (V6(_), V4(_)) => false,
        }
    }
}

impl Scalar for Upstream {
    const WANTED: &'static str = "an IP address, a network such as `10.0.0.0/8`, or a host name";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (host, prefix) = text.split_once('/').map_or((text, None), |(host, prefix)| (host, Some(prefix)));
        let Ok(address) = host.parse::<std::net::IpAddr>() else {
            return host_name(text).map(Self::Host).ok_or(None);
        };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(widest), |p| p.parse().ok());
        let prefix = prefix.filter(|p| *p <= widest).ok_or_else(|| Some(format!("the prefix is 0 to {widest}")))?;
        Ok(Self::Net { address, prefix })
    }

    fn stand_in() -> Self {
        Self::Host(String::new())
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "minLength": 1, "description": "An IP address, a network such as `10.0.0.0/8`, or a host name."})
    }
}

fn host_name(text: &str) -> Option<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    (fits && !text.is_empty()).then(|| text.to_ascii_lowercase())
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net { address, prefix } => write!(f, "{address}/{prefix}"),
            Self::Host(host) => f.write_str(host),
        }
    }
}

/// Any value, as it goes into a request's JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl Read for Json {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        Self(match &node.value {
            Value::Scalar { .. } => plain_json(node, reader),
            Value::List(_) => {
                let items: Vec<Self> = Read::read(node, reader);
                items.into_iter().map(|item| item.0).collect()
            }
            Value::Map(_) => {
                let entries: IndexMap<String, Self> = Read::read(node, reader);
                serde_json::Value::Object(entries.into_iter().map(|(name, value)| (name, value.0)).collect())
            }
        })
    }

    fn placeholder() -> Self {
        Self(serde_json::Value::Null)
    }
}

/// A scalar by YAML's core schema; a number that JSON cannot hold is a fault.
fn plain_json(node: &Node<'_>, reader: &mut Reader<'_>) -> serde_json::Value {
    let Some(text) = node.plain() else {
        return node.text().map_or(serde_json::Value::Null, |text| json!(text));
    };
    match text {
        "true" => json!(true),
        "false" => json!(false),
        ".inf" | "-.inf" | ".nan" => {
            reader.fault(node.mark, "JSON has no such number", None);
            serde_json::Value::Null
        }
        _ => match text.parse::<serde_json::Number>() {
            Ok(number) => serde_json::Value::Number(number),
            Err(_) => json!(text),
        },
    }
}

impl JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(json!({"description": "Any value."})).unwrap_or_default()
    }
}

/// The name of a request header, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header(pub http::HeaderName);

impl Name for Header {
    fn name(text: &str) -> Result<Self, String> {
        match http::HeaderName::try_from(text.to_ascii_lowercase()) {
            Ok(name) => Ok(Self(name)),
            Err(_) => Err("that is no name of a header".to_owned()),
        }
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl JsonSchema for Header {
    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(json!({"type": "string"})).unwrap_or_default()
    }
}

/// The leading number of `400k` and what follows it.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// `1.5` times `unit` as a whole number; `None` when it is no number, too large or not whole.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(rest)) {
        return None;
    }
    let rest = rest.trim_end_matches('0');
    let denominator = 10_u128.checked_pow(u32::try_from(rest.len()).ok()?)?;
    let numerator = format!("{whole}{rest}").parse::<u128>().ok()?.checked_mul(u128::from(unit))?;
    if !numerator.is_multiple_of(denominator) {
        return None;
    }
    u64::try_from(numerator / denominator).ok()
}

impl Zeroize for Secret {
    fn zeroize(&mut self) {
        if let Self::Literal(text) = self {
            text.zeroize();
        }
    }
}
