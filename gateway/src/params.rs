//! What a model makes of its requests' parameters: what is put in, replaced, moved into its range or left out. Only the
//! fields that are named change; every other byte stays, and a model without such rules does not look at all.

use std::borrow::Cow;
use std::fmt;

use adapters::request::{Edit, OUTPUT_LIMITS};
use adapters::{Dropped, Request};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::config::{self, Rule, Unsupported, Verdict};
use crate::error::Fault;

/// The rules of one model, ready for its requests.
#[derive(Debug, PartialEq)]
pub struct Params {
    unsupported: Unsupported,
    defaults: Vec<(String, Bytes)>,
    /// `None` takes the field out.
    overrides: Vec<(String, Option<Bytes>)>,
    rules: Vec<Rule>,
}

/// A request as its model wants it.
#[derive(Debug)]
pub struct Adjusted<'r> {
    /// The request.
    pub request: Cow<'r, Request>,
    /// What was changed.
    pub changes: Vec<Change>,
    /// What becomes of a parameter that a target does not take.
    unsupported: Unsupported,
}

/// One parameter that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name in the caller's request.
    pub param: String,
    /// What became of it.
    pub change: What,
    /// Its new value as JSON; `None` where it is left out.
    pub to: Option<String>,
    /// What the rule allows, where a rule did it.
    pub why: Option<String>,
}

/// What became of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The request lacked it.
    Defaulted,
    /// It is the operator's, whatever the caller says.
    Overridden,
    /// It was moved to the nearest value that is allowed.
    Clamped,
    /// It was left out.
    Dropped,
}

impl What {
    /// Its word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Defaulted => "defaulted",
            Self::Overridden => "overridden",
            Self::Clamped => "clamped",
            Self::Dropped => "dropped",
        }
    }
}

impl<'r> Adjusted<'r> {
    /// A request that is left as it is.
    #[must_use]
    pub fn unchanged(request: &'r Request, unsupported: Unsupported) -> Self {
        Self { request: Cow::Borrowed(request), changes: Vec::new(), unsupported }
    }

    /// The first of what a dialect dropped that is to be refused instead. What the operator put in is not the caller's
    /// fault.
    #[must_use]
    pub fn refuses<'d>(&self, dropped: &'d [Dropped]) -> Option<&'d Dropped> {
        if self.unsupported != Unsupported::Reject {
            return None;
        }
        dropped.iter().find(|dropped| !self.is_own(&dropped.param))
    }

    /// Whether the value is the operator's.
    fn is_own(&self, param: &str) -> bool {
        let own = |change: &Change| matches!(change.change, What::Defaulted | What::Overridden);
        self.changes.iter().any(|change| change.param == param && own(change))
    }

    /// What of the caller's own words is not sent as it was written, `dropped` by the dialect included: `seed` is left
    /// out, `temperature=1` has that value now.
    #[must_use]
    pub fn lost(&self, dropped: Option<HeaderValue>) -> Option<HeaderValue> {
        if self.changes.is_empty() {
            return dropped;
        }
        let by_dialect =
            dropped.as_ref().and_then(|names| names.to_str().ok()).into_iter().flat_map(|all| all.split(','));
        let is_callers = |told: &&str| told.split('=').next().is_some_and(|param| !self.is_own(param));
        let callers = by_dialect.filter(is_callers).map(str::to_owned);
        let lost: Vec<String> = self.changes.iter().filter_map(Change::lost).chain(callers).collect();
        if lost.is_empty() { None } else { HeaderValue::try_from(lost.join(",")).ok() }
    }
}

impl Change {
    fn lost(&self) -> Option<String> {
        match (self.change, &self.to) {
            (What::Defaulted, _) => None,
            (What::Clamped, Some(to)) => Some(format!("{}={to}", self.param)),
            (What::Overridden | What::Clamped | What::Dropped, _) => Some(self.param.clone()),
        }
    }
}

/// For people, behind the word for what became of it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.param)?;
        self.to.iter().try_for_each(|to| write!(f, " is {to}"))?;
        self.why.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}

impl Params {
    /// What is written for a model; `None` where that changes nothing.
    #[must_use]
    pub fn of(written: &config::Params) -> Option<Self> {
        let json = |value: &config::Json| (!value.0.is_null()).then(|| Bytes::from(value.0.to_string()));
        let defaults = written.defaults.iter().filter_map(|(name, value)| Some((name.clone(), json(value)?)));
        let params = Self {
            unsupported: written.unsupported,
            defaults: defaults.collect(),
            overrides: written.overrides.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
            rules: written.rules.iter().map(Rule::from).collect(),
        };
        let is_idle = params.defaults.is_empty() && params.overrides.is_empty() && params.rules.is_empty();
        (!is_idle).then_some(params)
    }

    /// Makes of `request` what the model wants.
    ///
    /// # Errors
    /// A parameter that is not allowed where that is to be refused, or that is missing.
    pub fn adjust<'r>(&self, request: &'r Request) -> Result<Adjusted<'r>, Fault> {
        let mut adjusting =
            Adjusting { request, edits: Vec::new(), changes: Vec::new(), unsupported: self.unsupported };
        for (name, value) in &self.overrides {
            adjusting.replace(name, value.as_ref());
        }
        for rule in &self.rules {
            self.judge(rule, &mut adjusting)?;
        }
        let ruled = self.rules.iter().filter_map(|rule| Some((&rule.name, rule.default.as_ref()?)));
        for (name, value) in self.defaults.iter().map(|(name, value)| (name, value)).chain(ruled) {
            adjusting.fill(name, value);
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.required && !adjusting.has(&rule.name)) {
            let message = format!("`{}` is missing; this model needs {rule} there.", rule.name);
            return Err(refused(&rule.name, message));
        }
        adjusting.end()
    }

    /// Judges what the caller wrote; what is the operator's by now is right.
    fn judge<'p>(&self, rule: &'p Rule, adjusting: &mut Adjusting<'p, '_>) -> Result<(), Fault> {
        for name in spellings(&rule.name) {
            let Some(raw) = adjusting.written(name) else {
                continue;
            };
            match (rule.judge(raw), self.unsupported) {
                (Verdict::Allowed, _) => {}
                (Verdict::Nearest(_) | Verdict::Refused, Unsupported::Reject) => {
                    return Err(refused(name, format!("`{name}` must be {rule} for this model.")));
                }
                (Verdict::Nearest(near), Unsupported::Clamp) => {
                    adjusting.change(name, What::Clamped, Some(near.into()), Some(rule));
                }
                (Verdict::Nearest(_) | Verdict::Refused, Unsupported::Drop | Unsupported::Clamp) => {
                    adjusting.change(name, What::Dropped, None, Some(rule));
                }
            }
        }
        Ok(())
    }
}

fn refused(param: &str, message: String) -> Fault {
    Fault::request(StatusCode::BAD_REQUEST, "invalid_request", message).of_param(param)
}

/// The names that a parameter goes by: what holds for one must hold for the other, and no request may have both.
fn spellings(name: &str) -> impl Iterator<Item = &str> {
    let others = if OUTPUT_LIMITS.contains(&name) { &OUTPUT_LIMITS[..] } else { &[] };
    std::iter::once(name).chain(others.iter().copied().filter(move |other| *other != name))
}

/// One request while it is changed.
struct Adjusting<'p, 'r> {
    request: &'r Request,
    /// One for each field at the most.
    edits: Vec<Edit<'p>>,
    changes: Vec<Change>,
    unsupported: Unsupported,
}

impl<'p, 'r> Adjusting<'p, 'r> {
    /// What the caller wrote, if it is to be sent; null says nothing.
    fn written(&self, name: &str) -> Option<&'r [u8]> {
        let is_edited = self.edits.iter().any(|edit| edit.name() == name);
        self.request.get(name).filter(|raw| !is_edited && *raw != b"null")
    }

    /// Whether what will be sent has it, by whichever name.
    fn has(&self, name: &str) -> bool {
        spellings(name).any(|name| match self.edits.iter().find(|edit| edit.name() == name) {
            Some(Edit::Set(..)) => true,
            Some(Edit::Remove(_)) => false,
            None => self.request.get(name).is_some_and(|raw| raw != b"null"),
        })
    }

    /// The operator's value in the place of the caller's.
    fn replace(&mut self, name: &'p str, value: Option<&Bytes>) {
        for other in spellings(name).skip(usize::from(value.is_some())) {
            if self.request.get(other).is_some() {
                self.change(other, What::Dropped, None, None);
            }
        }
        let Some(value) = value.filter(|value| self.request.get(name) != Some(value)) else {
            return;
        };
        let change = if self.written(name).is_some() { What::Overridden } else { What::Defaulted };
        self.change(name, change, Some(value.clone()), None);
    }

    fn fill(&mut self, name: &'p str, value: &Bytes) {
        if !self.has(name) {
            self.change(name, What::Defaulted, Some(value.clone()), None);
        }
    }

    fn change(&mut self, name: &'p str, change: What, to: Option<Bytes>, rule: Option<&Rule>) {
        self.changes.push(Change {
            param: name.to_owned(),
            change,
            to: to.as_ref().map(|to| String::from_utf8_lossy(to).into_owned()),
            why: rule.map(|rule| format!("it must be {rule}")),
        });
        self.edits.retain(|edit| edit.name() != name);
        self.edits.push(to.map_or_else(|| Edit::Remove(name.into()), |to| Edit::Set(name, to)));
    }

    fn end(self) -> Result<Adjusted<'r>, Fault> {
        if self.edits.is_empty() {
            return Ok(Adjusted::unchanged(self.request, self.unsupported));
        }
        let request = Cow::Owned(self.request.with(&self.edits)?);
        Ok(Adjusted { request, changes: self.changes, unsupported: self.unsupported })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use adapters::Operation;
    use proptest::prelude::*;

    use super::*;

    fn params(text: &str) -> Params {
        let text = format!(
            "providers: {{p: {{simulated: true, kind: openai}}}}\ntenants: []\nmodels: [{{name: m, targets: [{{provider: p, model: m}}], params: {text}}}]"
        );
        Params::of(&config::parse_str("test", &text).unwrap().config.models.first().unwrap().params).unwrap()
    }

    fn request(text: &str) -> Request {
        Request::parse(Operation::Chat, Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn adjusted(rules: &str, text: &str) -> (String, String) {
        let request = request(text);
        let params = params(rules);
        let adjusted = params.adjust(&request).unwrap();
        let lost = adjusted.lost(None).map(|names| names.to_str().unwrap().to_owned());
        (String::from_utf8(adjusted.request.body().to_vec()).unwrap(), lost.unwrap_or_default())
    }

    fn refusal(rules: &str, text: &str) -> Fault {
        params(rules).adjust(&request(text)).unwrap_err()
    }

    fn of(body: &str, lost: &str) -> (String, String) {
        (body.to_owned(), lost.to_owned())
    }

    #[test]
    fn a_model_without_parameters_of_its_own_has_nothing_to_look_at() {
        let text = "providers: {}\ntenants: []\nmodels: []";
        assert!(config::parse_str("t", text).is_ok());
        let plain = config::Params {
            unsupported: Unsupported::Reject,
            defaults: indexmap::IndexMap::new(),
            overrides: indexmap::IndexMap::new(),
            rules: Vec::new(),
        };
        assert_eq!(Params::of(&plain), None);
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null_and_nothing_else() {
        let rules = "{defaults: {temperature: 0.2, stop: [a]}}";
        let long = r#"{ "seed" : 12345678901234567890123, "temperature": 1.50, "stop":"x" }"#;
        assert_eq!(adjusted(rules, long), of(long, ""));
        assert_eq!(
            adjusted(rules, r#"{"temperature": null, "x":0}"#),
            of(r#"{"stop":["a"],"temperature": 0.2, "x":0}"#, "")
        );
    }

    #[test]
    fn an_override_replaces_adds_and_removes_and_tells_what_of_the_callers_is_lost() {
        let rules = "{override: {temperature: 0, user: null, top_p: 1}}";
        let body = r#"{"temperature": 0.9, "user": "u", "n":1}"#;
        assert_eq!(adjusted(rules, body), of(r#"{"top_p":1,"temperature": 0, "n":1}"#, "temperature,user"));
        assert_eq!(adjusted(rules, r#"{"top_p":1,"temperature":0}"#), of(r#"{"top_p":1,"temperature":0}"#, ""));
    }

    #[test]
    fn what_is_not_allowed_is_dropped_clamped_or_refused_as_the_policy_says() {
        let rules =
            "rules: [{name: temperature}, {name: seed, type: int, min: 1}, {name: reasoning_effort, options: [low]}]";
        let body = r#"{"temperature":1.505,"seed":0,"reasoning_effort":"high","x":1}"#;
        let dropped = of(r#"{"x":1}"#, "temperature,seed,reasoning_effort");
        assert_eq!(adjusted(&format!("{{{rules}}}"), body), dropped);
        let clamped = of(r#"{"temperature":1,"seed":1,"x":1}"#, "temperature=1,seed=1,reasoning_effort");
        assert_eq!(adjusted(&format!("{{unsupported: clamp, {rules}}}"), body), clamped);
        let fault = refusal(&format!("{{unsupported: reject, {rules}}}"), body);
        assert_eq!((fault.status.as_u16(), fault.param.as_deref()), (400, Some("temperature")));
        assert!(fault.message.contains("a number from 0 to 1"), "{}", fault.message);
    }

    #[test]
    fn what_was_dropped_is_absent_and_gets_its_default() {
        let rules = "{rules: [{name: temperature, default: 0.5, required: true}]}";
        assert_eq!(adjusted(rules, r#"{"temperature":7}"#), of(r#"{"temperature":0.5}"#, "temperature"));
    }

    #[test]
    fn what_is_required_and_has_no_default_is_named() {
        let rules = "{rules: [{name: user, type: string, required: true}]}";
        assert_eq!(refusal(rules, r#"{"user":null}"#).param.as_deref(), Some("user"));
        assert_eq!(adjusted(rules, r#"{"user":"u"}"#), of(r#"{"user":"u"}"#, ""));
    }

    #[test]
    fn the_limit_of_the_answer_is_one_parameter_with_two_names() {
        let rules = "{unsupported: clamp, defaults: {max_tokens: 100}, rules: [{name: max_tokens, max: 500}]}";
        let body = r#"{"max_completion_tokens":9000}"#;
        assert_eq!(adjusted(rules, body), of(r#"{"max_completion_tokens":500}"#, "max_completion_tokens=500"));
        assert_eq!(adjusted(rules, "{}"), of(r#"{"max_tokens":100}"#, ""));
        let rules = "{override: {max_completion_tokens: 7}}";
        let body = r#"{"max_tokens":9}"#;
        assert_eq!(adjusted(rules, body), of(r#"{"max_completion_tokens":7}"#, "max_tokens"));
    }

    /// Values as callers send them, some of them allowed.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            (-3.0..3.0).prop_map(|number: f64| number.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            "[a-z]{0,4}".prop_map(|text| format!("\"{text}\"")),
            Just("[ 1,2 ]".to_owned()),
            Just("12345678901234567890123".to_owned()),
        ]
    }

    proptest! {
        /// Whatever is sent: what goes on is allowed, every other field is as it was, and once is enough.
        #[test]
        fn what_goes_on_is_allowed_and_nothing_else_is_touched(
            values in prop::collection::vec(value(), 5),
            clamps: bool,
            space in " {0,2}",
        ) {
            let names = ["temperature", "other", "max_tokens", "seed", "x"];
            let fields: Vec<_> = names.iter().zip(&values).map(|(name, value)| format!("{space}\"{name}\":{space}{value}")).collect();
            let body = format!("{{{}}}", fields.join(","));
            let policy = if clamps { "clamp" } else { "drop" };
            let params = params(&format!(
                "{{unsupported: {policy}, defaults: {{temperature: 0.2}}, override: {{seed: 7}}, rules: [{{name: temperature}}, {{name: max_tokens}}]}}"
            ));
            let request = request(&body);
            let adjusted = params.adjust(&request).unwrap();
            for rule in &params.rules {
                if let Some(raw) = adjusted.request.get(&rule.name).filter(|raw| *raw != b"null") {
                    prop_assert_eq!(rule.judge(raw), Verdict::Allowed);
                }
            }
            prop_assert!(adjusted.request.get("temperature").is_some());
            prop_assert_eq!(adjusted.request.get("seed"), Some(&b"7"[..]));
            for untouched in ["other", "x"] {
                prop_assert_eq!(adjusted.request.get(untouched), request.get(untouched));
            }
            let again = params.adjust(&adjusted.request).unwrap();
            prop_assert_eq!(again.request.body(), adjusted.request.body());
            prop_assert!(again.changes.is_empty());
        }
    }
}
