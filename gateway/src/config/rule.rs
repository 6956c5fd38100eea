//! What one parameter may be: a rule as it is written, laid over its template. It says of a value whether it is allowed,
//! and which allowed one is the nearest.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use adapters::index;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::file::{ParameterRule, ParameterType};

/// The most digits after the point that a number of 64 bits has surely.
pub(super) const MOST_DIGITS: u32 = 15;

/// A rule with everything that its template adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The parameter.
    pub name: String,
    /// The type of its value; `None`: any.
    pub kind: Option<ParameterType>,
    /// Whether a request must have it.
    pub required: bool,
    /// Its value, as JSON, when a request lacks it.
    pub default: Option<Bytes>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// How many digits after the point.
    pub precision: Option<u32>,
    /// The only values.
    pub options: Option<Vec<String>>,
}

/// Whether a value is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Allowed,
    /// It is not; this one is, and comes the nearest.
    Nearest(String),
    /// It is not, and no other comes near it.
    Refused,
}

/// A kind of parameter that many models have.
struct Template {
    name: &'static str,
    kind: ParameterType,
    default: Option<&'static str>,
    range: Option<(f64, f64)>,
    precision: Option<u32>,
    options: Option<&'static [&'static str]>,
}

const fn number(name: &'static str, default: &'static str, range: (f64, f64)) -> Template {
    let (kind, precision) = (ParameterType::Float, Some(2));
    Template { name, kind, default: Some(default), range: Some(range), precision, options: None }
}

const fn whole(name: &'static str, default: &'static str, range: (f64, f64)) -> Template {
    let (kind, precision) = (ParameterType::Int, Some(0));
    Template { name, kind, default: Some(default), range: Some(range), precision, options: None }
}

const fn text(name: &'static str, kind: ParameterType, options: Option<&'static [&'static str]>) -> Template {
    Template { name, kind, default: None, range: None, precision: None, options }
}

const TEMPLATES: [Template; 8] = [
    number("temperature", "0", (0.0, 1.0)),
    number("top_p", "1", (0.0, 1.0)),
    whole("top_k", "50", (1.0, 100.0)),
    number("presence_penalty", "0", (0.0, 1.0)),
    number("frequency_penalty", "0", (0.0, 1.0)),
    whole("max_tokens", "64", (1.0, 2048.0)),
    text("response_format", ParameterType::String, Some(&["JSON", "XML"])),
    text("json_schema", ParameterType::Text, None),
];

/// The names of the templates.
pub(super) fn templates() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|template| template.name)
}

impl From<&ParameterRule> for Rule {
    fn from(written: &ParameterRule) -> Self {
        let name = written.use_template.as_deref().unwrap_or(&written.name);
        let template = TEMPLATES.iter().find(|template| template.name == name);
        let range = template.and_then(|template| template.range);
        let required = written.required.unwrap_or(false);
        let of_template = || template.and_then(|template| template.default).filter(|_| required);
        let options = || template.and_then(|template| template.options);
        Self {
            name: written.name.clone(),
            kind: written.value_type.or(template.map(|template| template.kind)).or_else(|| implied(written)),
            required,
            default: match &written.default {
                Some(json) => Some(json.0.to_string().into()),
                None => of_template().map(|raw| Bytes::from_static(raw.as_bytes())),
            },
            min: written.min.or(range.map(|(min, _)| min)),
            max: written.max.or(range.map(|(_, max)| max)),
            precision: written.precision.or_else(|| template?.precision),
            options: written.options.clone().or_else(|| Some(options()?.iter().map(ToString::to_string).collect())),
        }
    }
}

/// The type that the rest of a rule tells of.
fn implied(written: &ParameterRule) -> Option<ParameterType> {
    if written.options.is_some() {
        return Some(ParameterType::String);
    }
    let is_number = written.min.or(written.max).is_some() || written.precision.is_some();
    is_number.then_some(ParameterType::Float)
}

impl Rule {
    /// Whether its values are numbers.
    #[must_use]
    pub fn is_of_numbers(&self) -> bool {
        matches!(self.kind, Some(ParameterType::Float | ParameterType::Int))
    }

    /// Whether its values are texts.
    #[must_use]
    pub fn is_of_texts(&self) -> bool {
        matches!(self.kind, Some(ParameterType::String | ParameterType::Text))
    }

    /// What it says of a raw JSON value.
    #[must_use]
    pub fn judge(&self, raw: &[u8]) -> Verdict {
        match self.kind {
            None => Verdict::Allowed,
            Some(ParameterType::Float | ParameterType::Int) => {
                Number::read(raw).map_or(Verdict::Refused, |number| self.judge_number(number))
            }
            Some(ParameterType::String | ParameterType::Text) => {
                allowed_if(index::text(raw).is_some_and(|text| self.is_option(&text)))
            }
            Some(ParameterType::Boolean) => allowed_if(matches!(raw, b"true" | b"false")),
        }
    }

    fn is_option(&self, text: &str) -> bool {
        self.options.as_ref().is_none_or(|options| options.iter().any(|option| option == text))
    }

    fn judge_number(&self, number: Number<'_>) -> Verdict {
        let nearest = number.value.max(self.min.unwrap_or(f64::MIN)).min(self.max.unwrap_or(f64::MAX));
        let fits = self.digits().is_none_or(|digits| number.digits() <= i64::from(digits));
        #[expect(clippy::float_cmp, reason = "what lies in the range is not moved at all")]
        if nearest == number.value && fits {
            return Verdict::Allowed;
        }
        Verdict::Nearest(self.rounded(nearest))
    }

    /// Rounding cannot leave the range: its ends have no more digits themselves.
    fn rounded(&self, value: f64) -> String {
        let Some(digits) = self.digits().and_then(|digits| usize::try_from(digits).ok()) else {
            return value.to_string();
        };
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    }

    fn digits(&self) -> Option<u32> {
        if self.kind == Some(ParameterType::Int) { Some(0) } else { self.precision }
    }
}

fn allowed_if(allowed: bool) -> Verdict {
    if allowed { Verdict::Allowed } else { Verdict::Refused }
}

/// What it allows, for a caller: `a number from 0 to 1 with at most 2 digits after the point`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.kind, &self.options) {
            (None, _) => return f.write_str("any value"),
            (Some(ParameterType::Boolean), _) => return f.write_str("true or false"),
            (Some(ParameterType::String | ParameterType::Text), None) => return f.write_str("a string"),
            (Some(ParameterType::String | ParameterType::Text), Some(options)) => {
                let quoted: Vec<_> = options.iter().map(|option| format!("\"{option}\"")).collect();
                return write!(f, "one of {}", quoted.join(", "));
            }
            (Some(ParameterType::Float), _) => "a number",
            (Some(ParameterType::Int), _) => "a whole number",
        })?;
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, " from {min} to {max}")?,
            (Some(min), None) => write!(f, " of at least {min}")?,
            (None, Some(max)) => write!(f, " of at most {max}")?,
            (None, None) => {}
        }
        let is_float = self.kind == Some(ParameterType::Float);
        match self.precision.filter(|_| is_float) {
            None => Ok(()),
            Some(0) => f.write_str(" without digits after the point"),
            Some(digits) => write!(f, " with at most {digits} digits after the point"),
        }
    }
}

/// A JSON number as it is written, and about what it says.
struct Number<'a> {
    text: Cow<'a, str>,
    value: f64,
}

impl<'a> Number<'a> {
    fn read(raw: &'a [u8]) -> Option<Self> {
        let starts = raw.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-');
        let text = serde_json::from_slice::<&RawValue>(raw).ok().filter(|_| starts)?.get();
        Some(Self { text: Cow::Borrowed(text), value: text.parse().ok()? })
    }

    fn of(value: f64) -> Self {
        let mut text = String::new();
        // Never with an exponent, and no more digits than tell it from its neighbours.
        let _infallible = write!(text, "{value}");
        Self { text: Cow::Owned(text), value }
    }

    /// How many digits it has after the point, zeros at the end not counted.
    fn digits(&self) -> i64 {
        let (mantissa, exponent) = self.text.split_once(['e', 'E']).unwrap_or((&self.text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written = [whole.trim_start_matches('-'), fraction].concat();
        if written.bytes().all(|digit| digit == b'0') {
            return 0;
        }
        let zeros = written.len() - written.trim_end_matches('0').len();
        let behind = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let moved = exponent.trim_start_matches('+').parse::<i64>().unwrap_or(i64::MIN / 2);
        behind.saturating_sub(moved).saturating_sub(i64::try_from(zeros).unwrap_or_default()).max(0)
    }
}

/// How many digits a bound has after the point.
pub(super) fn digits_of(bound: f64) -> i64 {
    Number::of(bound).digits()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(name: &str) -> ParameterRule {
        ParameterRule {
            name: name.to_owned(),
            use_template: None,
            value_type: None,
            required: None,
            default: None,
            min: None,
            max: None,
            precision: None,
            options: None,
            help: None,
        }
    }

    fn nearest(text: &str) -> Verdict {
        Verdict::Nearest(text.to_owned())
    }

    #[test]
    fn a_rule_lies_over_its_template_and_what_it_says_wins_zeros_too() {
        let written = ParameterRule { max: Some(2.0), precision: Some(0), ..rule("temperature") };
        let rule = Rule::from(&written);
        assert_eq!(
            (rule.kind, rule.min, rule.max, rule.precision),
            (Some(ParameterType::Float), Some(0.0), Some(2.0), Some(0))
        );
        let zero = Rule::from(&ParameterRule { max: Some(0.0), use_template: Some("top_k".into()), ..self::rule("k") });
        assert_eq!((zero.kind, zero.min, zero.max), (Some(ParameterType::Int), Some(1.0), Some(0.0)));
    }

    #[test]
    fn a_templates_default_is_only_for_what_is_required() {
        assert_eq!(Rule::from(&rule("max_tokens")).default, None);
        let required = ParameterRule { required: Some(true), ..rule("max_tokens") };
        assert_eq!(Rule::from(&required).default.as_deref(), Some(&b"64"[..]));
    }

    #[test]
    fn numbers_out_of_the_range_have_a_nearest_and_other_types_have_none() {
        let temperature = Rule::from(&rule("temperature"));
        for (raw, verdict) in [
            ("0", Verdict::Allowed),
            ("0.70", Verdict::Allowed),
            ("1e-2", Verdict::Allowed),
            ("100e-2", Verdict::Allowed),
            ("0.705", nearest("0.7")),
            ("1.5", nearest("1")),
            ("-3", nearest("0")),
            ("1e999", nearest("1")),
            ("1e-999999999999999999999", nearest("0")),
            ("\"0.5\"", Verdict::Refused),
            ("true", Verdict::Refused),
            ("-inf", Verdict::Refused),
            ("1.", Verdict::Refused),
            ("[0.5]", Verdict::Refused),
        ] {
            assert_eq!(temperature.judge(raw.as_bytes()), verdict, "{raw}");
        }
        assert_eq!(temperature.to_string(), "a number from 0 to 1 with at most 2 digits after the point");
    }

    #[test]
    fn whole_numbers_of_any_length_are_whole() {
        let seed = Rule::from(&ParameterRule { value_type: Some(ParameterType::Int), ..rule("seed") });
        assert_eq!(seed.judge(b"12345678901234567890123"), Verdict::Allowed);
        assert_eq!(seed.judge(b"2.5"), nearest("2"));
        assert_eq!(seed.judge(b"7.0"), Verdict::Allowed);
        assert_eq!(seed.to_string(), "a whole number");
    }

    #[test]
    fn texts_are_among_the_options_however_they_are_escaped() {
        let options = Some(vec!["low".to_owned(), "h\"".to_owned()]);
        let effort = Rule::from(&ParameterRule { options, ..rule("reasoning_effort") });
        assert_eq!(effort.judge(b"\"low\""), Verdict::Allowed);
        assert_eq!(effort.judge(br#""\u006cow""#), Verdict::Allowed);
        assert_eq!(effort.judge(br#""h\"""#), Verdict::Allowed);
        assert_eq!(effort.judge(b"\"high\""), Verdict::Refused);
        assert_eq!(effort.judge(b"1"), Verdict::Refused);
    }

    proptest! {
        /// Whatever is sent: what is put in its place is allowed, and what is allowed stays.
        #[test]
        fn the_nearest_value_is_an_allowed_one(
            (min, max) in (-50_i32..50, 0_i32..50).prop_map(|(min, more)| (f64::from(min), f64::from(min + more))),
            precision in prop::option::of(0_u32..5),
            is_int: bool,
            value in prop_oneof![any::<f64>().prop_filter("JSON has no other", |v| v.is_finite()), -60.0..60.0],
        ) {
            let kind = if is_int { ParameterType::Int } else { ParameterType::Float };
            let written = ParameterRule {
                value_type: Some(kind), min: Some(min), max: Some(max), precision, ..rule("x")
            };
            let rule = Rule::from(&written);
            let raw = value.to_string();
            match rule.judge(raw.as_bytes()) {
                Verdict::Allowed => prop_assert!(min <= value && value <= max),
                Verdict::Nearest(near) => {
                    prop_assert_eq!(rule.judge(near.as_bytes()), Verdict::Allowed, "{} from {}", near, raw);
                }
                Verdict::Refused => prop_assert!(false, "a number has a nearest one"),
            }
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(raw: Vec<u8>, kind in prop::sample::select(ParameterType::ALL)) {
            let written = ParameterRule { value_type: Some(kind), min: Some(0.0), precision: Some(2), ..rule("x") };
            let _any = Rule::from(&written).judge(&raw);
        }
    }
}
