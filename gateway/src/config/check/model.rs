//! Models: their targets, fallbacks, parameters and prices.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{At, Check};
use crate::config::file::{LONGEST_NAME, Model, ParameterRule, ParameterType, Params, PriceTier, Pricing, Target};
use crate::config::rule::{self, Rule, Verdict};
use crate::config::value::{Duration, Json};

/// More retries than this are a storm.
const MOST_RETRIES: u32 = 20;

/// Parameters by which the gateway itself finds its way: no rule changes them.
const OWN_PARAMETERS: [&str; 3] = ["model", "stream", "stream_options"];

pub(super) fn models(check: &mut Check<'_>, at: &At<'_>) {
    let models = &check.config.models;
    check.unique(models.iter().map(|m| ((m.name.as_str(), m.model_type), m.name.clone())), at, "name", "the model");
    for (i, model) in models.iter().enumerate() {
        self::model(check, model, &at.index(i));
    }
    for list in ["any", "context_window", "content_policy"] {
        cycles(check, list, at);
    }
}

fn model(check: &mut Check<'_>, model: &Model, at: &At<'_>) {
    name(check, model, &at.key("name"));
    targets(check, model, &at.key("targets"));
    policy(check, model, at);
    fallbacks(check, model, &at.key("fallbacks"));
    params(check, &model.params, &at.key("params"));
    if let Some(pricing) = &model.pricing {
        self::pricing(check, pricing, &at.key("pricing"));
    }
}

fn name(check: &mut Check<'_>, model: &Model, at: &At<'_>) {
    let name = &model.name;
    if name.len() > LONGEST_NAME || !name.bytes().all(|b| b.is_ascii_graphic()) {
        check.fault(
            at,
            format!("a model's name is at most {LONGEST_NAME} visible ASCII characters without spaces"),
            None,
        );
    }
    if name.matches('*').count() > 1 {
        check.fault(at, "a model's name has at most one `*`", None);
    }
    if name == "default" {
        check.fault(at, "the name `default` is reserved: callers write it for the tenant's default model", None);
    }
}

fn targets(check: &mut Check<'_>, model: &Model, at: &At<'_>) {
    if model.targets.is_empty() {
        check.fault(at, "there is no target", "add `{provider: …, model: …}`".to_owned());
    }
    let mut tiers: BTreeMap<u32, u64> = BTreeMap::new();
    let mut seen = HashSet::new();
    for (i, target) in model.targets.iter().enumerate() {
        let at = at.index(i);
        *tiers.entry(target.tier).or_default() += u64::from(target.weight);
        if !seen.insert((target.tier, &target.provider, &target.model, &target.credential)) {
            check.warn(&at, "this target is given twice", "write it once, with the sum of the weights".to_owned());
        }
        self::target(check, model, target, &at);
    }
    for tier in tiers.into_iter().filter(|(_, weight)| *weight == 0).map(|(tier, _)| tier) {
        check.fault(at, format!("every target of tier {tier} has weight 0"), "give one of them a weight".to_owned());
    }
}

fn target(check: &mut Check<'_>, model: &Model, target: &Target, at: &At<'_>) {
    check.provider(&target.provider, &at.key("provider"));
    if target.model.contains('*') && !model.name.contains('*') {
        let help = format!("name the provider's model, or put a `*` into the name `{}`", model.name);
        check.fault(&at.key("model"), "a `*` stands for nothing here, because the model's name has none", help);
    }
    if target.model.matches('*').count() > 1 {
        check.fault(&at.key("model"), "a target's model has at most one `*`", None);
    }
    let Some(wanted) = &target.credential else {
        return;
    };
    let Some(provider) = check.config.providers.get(&target.provider) else {
        return;
    };
    if !provider.credentials.iter().any(|credential| credential.id == *wanted) {
        let help = super::near(wanted, provider.credentials.iter().map(|c| c.id.as_str()));
        check.fault(&at.key("credential"), format!("`{}` has no credential `{wanted}`", target.provider), help);
    }
}

fn policy(check: &mut Check<'_>, model: &Model, at: &At<'_>) {
    if model.retries.max > MOST_RETRIES {
        check.fault(&at.key("retries").key("max"), format!("at most {MOST_RETRIES} retries"), None);
    }
    if model.affinity.as_ref().is_some_and(|affinity| affinity.by.is_empty()) {
        let help = "such as `by: [header:x-session-id]`".to_owned();
        check.fault(&at.key("affinity").key("by"), "there is nothing to tell related requests by", help);
    }
    let times = &model.timeouts;
    let limited = |d: Duration| !d.is_zero();
    if limited(times.first_byte) && limited(times.total) && times.first_byte > times.total {
        check.warn(&at.key("timeouts").key("first_byte"), "this never takes effect, since `total` is shorter", None);
    }
}

fn fallbacks(check: &mut Check<'_>, model: &Model, at: &At<'_>) {
    for (list, names) in lists(model) {
        let at = at.key(list);
        for (i, name) in names.iter().enumerate() {
            let at = at.index(i);
            if *name == model.name {
                check.fault(&at, "a model cannot take over from itself", None);
            } else {
                check.model(name, Some(model.model_type), &at);
            }
        }
    }
}

fn lists(model: &Model) -> [(&'static str, &[String]); 3] {
    let fallbacks = &model.fallbacks;
    [
        ("any", &fallbacks.any),
        ("context_window", &fallbacks.context_window),
        ("content_policy", &fallbacks.content_policy),
    ]
}

/// Chains of fallbacks that come back to where they began; each is told once. Iterative, because a chain can be long.
fn cycles(check: &mut Check<'_>, list: &'static str, at: &At<'_>) {
    let models = &check.config.models;
    let index: HashMap<_, usize> =
        models.iter().enumerate().map(|(i, m)| ((m.name.as_str(), m.model_type), i)).collect();
    let edges = |i: usize| -> Vec<usize> {
        let Some(model) = models.get(i) else {
            return Vec::new();
        };
        let names =
            lists(model).into_iter().find(|(name, _)| *name == list).map(|(_, names)| names).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| index.get(&(name.as_str(), model.model_type)).copied())
            .filter(|to| *to != i)
            .collect()
    };
    for cycle in walk(models.len(), edges) {
        let names = cycle.iter().filter_map(|i| models.get(*i)).map(|m| m.name.as_str()).collect::<Vec<_>>();
        let Some(first) = cycle.first() else { continue };
        let chain = format!("{} → {}", names.join(" → "), names.first().copied().unwrap_or_default());
        check.fault(
            &at.index(*first).key("fallbacks").key(list),
            format!("these fallbacks go in a circle: {chain}"),
            None,
        );
    }
}

/// The cycles that a depth-first walk closes.
fn walk(nodes: usize, edges: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    let mut done = HashSet::new();
    let mut cycles = Vec::new();
    for start in 0..nodes {
        let mut trail: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut on_trail = HashMap::new();
        let mut next = Some(start);
        while let Some(node) = next {
            match on_trail.get(&node) {
                Some(from) => cycles.push(trail.iter().skip(*from).map(|(node, _)| *node).collect()),
                None if done.insert(node) => {
                    on_trail.insert(node, trail.len());
                    trail.push((node, edges(node)));
                }
                None => {}
            }
            next = step(&mut trail, &mut on_trail);
        }
    }
    cycles
}

/// The next node to look at: a child of the last on the trail, or of one before it.
fn step(trail: &mut Vec<(usize, Vec<usize>)>, on_trail: &mut HashMap<usize, usize>) -> Option<usize> {
    while let Some((node, children)) = trail.last_mut() {
        if let Some(child) = children.pop() {
            return Some(child);
        }
        on_trail.remove(node);
        trail.pop();
    }
    None
}

fn params(check: &mut Check<'_>, params: &Params, at: &At<'_>) {
    let rules: Vec<Rule> = params.rules.iter().map(Rule::from).collect();
    let judge = |name: &str, value: &Json| {
        let rule = rules.iter().find(|rule| rule.name == name).filter(|_| !value.0.is_null())?;
        (rule.judge(value.0.to_string().as_bytes()) != Verdict::Allowed).then(|| must_be(rule))
    };
    for (list, values) in [("defaults", &params.defaults), ("override", &params.overrides)] {
        for (name, value) in values {
            let (list, message) = (at.key(list), judge(name, value));
            let at = list.key(name);
            changeable(check, name, &at);
            if let Some(message) = message {
                check.fault(&at, format!("the rule for it does not allow this value: {message}"), None);
            }
        }
    }
    let at = at.key("rules");
    check.unique(params.rules.iter().map(|rule| (rule.name.as_str(), rule.name.clone())), &at, "name", "the rule for");
    for (i, (written, rule)) in params.rules.iter().zip(&rules).enumerate() {
        self::rule(check, written, rule, &at.index(i));
    }
}

fn changeable(check: &mut Check<'_>, name: &str, at: &At<'_>) {
    if OWN_PARAMETERS.contains(&name) {
        check.fault(at, format!("`{name}` is the caller's to say, since Weir itself goes by it"), None);
    }
}

fn rule(check: &mut Check<'_>, written: &ParameterRule, rule: &Rule, at: &At<'_>) {
    changeable(check, &rule.name, &at.key("name"));
    if let Some(template) =
        written.use_template.as_deref().filter(|name| !rule::templates().any(|known| known == *name))
    {
        let known = || format!("the templates are {}", rule::templates().collect::<Vec<_>>().join(", "));
        let help = super::near(template, rule::templates()).unwrap_or_else(known);
        check.fault(&at.key("use_template"), format!("there is no template `{template}`"), help);
        return;
    }
    if !fields_fit(check, written, rule, at) {
        return;
    }
    if let Some(default) = &rule.default
        && rule.judge(default) != Verdict::Allowed
    {
        check.fault(&at.key("default"), format!("the rule itself does not allow this value: {}", must_be(rule)), None);
    }
}

fn must_be(rule: &Rule) -> String {
    format!("`{}` must be {rule}", rule.name)
}

/// Whether the parts of a rule go with its type and with each other; a template's parts count as the rule's own.
fn fields_fit(check: &mut Check<'_>, written: &ParameterRule, rule: &Rule, at: &At<'_>) -> bool {
    let before = check.findings.faults.len();
    let numbers =
        [("min", written.min.is_some()), ("max", written.max.is_some()), ("precision", written.precision.is_some())];
    for (field, _) in numbers.into_iter().filter(|(_, is_set)| *is_set && !rule.is_of_numbers()) {
        let help = "write `type: float` or `type: int`".to_owned();
        check.fault(&at.key(field), format!("`{field}` is for numbers, and this rule is not for one"), help);
    }
    if written.options.is_some() && !rule.is_of_texts() {
        check.fault(
            &at.key("options"),
            "options are texts, and this rule is not for one",
            "write `type: string`".to_owned(),
        );
    }
    if written.options.as_ref().is_some_and(Vec::is_empty) {
        check.fault(&at.key("options"), "no value is left", "leave `options` out to allow every text".to_owned());
    }
    if rule.is_of_numbers() {
        range_fits(check, written, rule, at);
    }
    check.findings.faults.len() == before
}

fn range_fits(check: &mut Check<'_>, written: &ParameterRule, rule: &Rule, at: &At<'_>) {
    let is_whole = rule.kind == Some(ParameterType::Int);
    let written_digits = written.precision.unwrap_or_default();
    if written_digits > rule::MOST_DIGITS || (is_whole && written_digits > 0) {
        let message = if is_whole {
            "a whole number has no digits after the point".to_owned()
        } else {
            format!("at most {} digits", rule::MOST_DIGITS)
        };
        return check.fault(&at.key("precision"), message, None);
    }
    if let Some((min, max)) = rule.min.zip(rule.max).filter(|(min, max)| min > max) {
        let (field, other) = if written.min.is_some() { ("min", max) } else { ("max", min) };
        let of = if written.min.is_some() && written.max.is_some() { "" } else { ", which is the template's" };
        let (own, others) = if field == "min" { ("over", "max") } else { ("under", "min") };
        check.fault(&at.key(field), format!("`{field}` is {own} `{others}`, {other}{of}"), None);
    }
    let digits = if is_whole { Some(0) } else { rule.precision };
    let Some(digits) = digits else { return };
    for (field, bound) in [("min", written.min), ("max", written.max)] {
        if bound.is_some_and(|bound| rule::digits_of(bound) > i64::from(digits)) {
            check.fault(
                &at.key(field),
                format!("`{field}` has more digits after the point than a value may have ({digits})"),
                None,
            );
        }
    }
}

fn pricing(check: &mut Check<'_>, pricing: &Pricing, at: &At<'_>) {
    if pricing.per.get() == 0 {
        check.fault(&at.key("per"), "a price is for one token or more", "write `per: 1M`".to_owned());
    }
    tiers(check, &pricing.tiers, &at.key("tiers"));
    let (services, at) = (&pricing.service_tiers, at.key("service_tiers"));
    let named = [
        ("flex", &services.flex),
        ("priority", &services.priority),
        ("ultrafast", &services.ultrafast),
        ("fast", &services.fast),
        ("batch", &services.batch),
    ];
    for (name, service) in named {
        if let Some(service) = service {
            tiers(check, &service.tiers, &at.key(name).key("tiers"));
        }
    }
}

fn tiers(check: &mut Check<'_>, tiers: &[PriceTier], at: &At<'_>) {
    for (i, (a, b)) in tiers.iter().zip(tiers.iter().skip(1)).enumerate() {
        if a.above >= b.above {
            check.fault(&at.index(i + 1).key("above"), "each tier must be above the one before it", None);
        }
    }
}
