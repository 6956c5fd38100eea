//! What would become of a request: the steps of the exchange, taken by the same functions, up to the bytes that would
//! go to a provider; no socket is opened. Limits and budgets are as they are at the beginning of a window.

mod told;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use adapters::{NativeRequest, Operation, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;

use crate::access::{self, Key};
use crate::attempt;
use crate::balance::{Moment, Tried, Unpicked};
use crate::bill::Bill;
use crate::budget;
use crate::config::{self, Config, Faults, Loaded, Secret};
use crate::error::{Fault, Kind};
use crate::exchange;
use crate::headers;
use crate::limit;
use crate::model::source::Offer;
use crate::model::{self, Model, ModelInstance, Picked, ProviderManager, Snapshot, type_of};
use crate::net::proxy::Proxies;
use crate::params::Adjusted;
use crate::record;
use crate::retry::{Step, Tries};
use crate::route::Route;
use crate::search;
use crate::succession::Succession;

pub use told::Explanation;
use told::{Account, Candidate, Dropped, ModelTold, Outgoing, Quota, Refusal, Scope, Verdict};

/// A request that is to be explained.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's key.
    pub key: String,
    /// `chat`, or the path of an endpoint behind `/v1/`.
    pub endpoint: String,
    /// The headers; what carries a key in them gives way to `key`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why a request is not explained.
#[derive(Debug)]
pub enum Unexplained {
    /// The configuration cannot be served.
    Faults(Faults),
    /// Something about the machine.
    Machine(String),
}

/// What a rehearsal does about secrets and files that are on another machine, most likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// It does without them.
    Spared,
    /// They have to be here.
    Wanted,
}

/// Builds what would be served of this configuration.
///
/// # Errors
/// What `weir serve` would refuse of it.
pub fn rehearse(mut loaded: Loaded, elsewhere: Elsewhere) -> Result<(), Unexplained> {
    if elsewhere == Elsewhere::Spared {
        stand_ins(&mut loaded.config);
        loaded.config.providers.values_mut().for_each(|provider| provider.ca = None);
    }
    snapshot(&loaded).map(drop)
}

fn snapshot(loaded: &Loaded) -> Result<Snapshot, Unexplained> {
    let proxies = Proxies::from_environment().map_err(|error| Unexplained::Machine(error.to_string()))?;
    let providers = ProviderManager {
        proxies,
        simulator: Some(SIMULATOR),
        registry: Arc::default(),
        limits: Arc::new(limit::Registry::default()),
        budgets: Arc::new(budget::Registry::new(budget::Listener::new(|_alert| {}))),
    };
    providers.build(loaded, None).map_err(Unexplained::Faults)
}

/// Explains a request to whoever would serve this configuration.
///
/// # Errors
/// The configuration cannot be served. What the caller would be refused with is no error, but a part of what is told.
pub async fn explain(mut loaded: Loaded, call: &Call) -> Result<Explanation, Unexplained> {
    let mut told = Explanation { notes: stand_ins(&mut loaded.config), ..Explanation::default() };
    let snapshot = snapshot(&loaded)?;
    let steps = Steps { config: &loaded.config, snapshot: &snapshot, told: &mut told };
    if let Err(fault) = steps.all(call).await {
        told.refused = Some(Refusal::of(&fault));
    }
    Ok(told)
}

/// Where the simulator would be; its port is the system's choice, and this one stands for it.
const SIMULATOR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Puts something in the place of each secret that is not to be had, and tells which those are.
fn stand_ins(config: &mut Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut stand_in = |path: String, secret: &mut Secret| {
        if let Err(error) = secret.resolve() {
            notes.push(format!("{path}: {error}; weir serve would refuse to start"));
            *secret = Secret::written("unset");
        }
    };
    for (name, provider) in &mut config.providers {
        let at = format!("providers.{name}");
        keys_of(&mut provider.credentials).for_each(|(id, key)| stand_in(format!("{at}.credentials.{id}"), key));
        provider.headers.iter_mut().for_each(|(name, text)| stand_in(format!("{at}.headers.{}", name.0), text));
    }
    for tenant in &mut config.tenants {
        for (name, own) in &mut tenant.providers {
            let at = format!("tenants.{}.providers.{name}", tenant.id);
            keys_of(&mut own.credentials).for_each(|(id, key)| stand_in(format!("{at}.credentials.{id}"), key));
        }
    }
    notes
}

/// The keys that are resolved when a configuration is served.
fn keys_of(credentials: &mut [config::Credential]) -> impl Iterator<Item = (&str, &mut Secret)> {
    let used = credentials.iter_mut().filter(|credential| credential.enabled);
    used.filter_map(|credential| Some((credential.id.as_str(), credential.api_key.as_mut()?)))
}

/// The steps of one request.
struct Steps<'a> {
    config: &'a Config,
    snapshot: &'a Snapshot,
    told: &'a mut Explanation,
}

/// Who calls with what.
#[derive(Clone, Copy)]
struct Caller<'a, 'r> {
    key: &'a Key,
    headers: &'r HeaderMap,
    request: &'r Request,
}

/// Why a target that could be asked is not.
const NO_ATTEMPT_LEFT: &str = "no attempt is left for it when those before it failed";

/// A request that can be sent.
struct Chosen<'s> {
    picked: Picked<'s>,
    native: NativeRequest,
    limited_to: Option<u64>,
}

impl<'a> Steps<'a> {
    async fn all(mut self, call: &Call) -> Result<(), Fault> {
        let operation = self.operation(&call.endpoint)?;
        let headers = &call.headers;
        let key = self.authenticate(headers, &call.key)?;
        let mut bill = Bill::default();
        bill.admit(key, Instant::now()).await?;
        self.tell_headers(headers);
        exchange::refuse_encoded(headers)?;
        let request = &self.read(operation, &call.body)?;
        let caller = Caller { key, headers, request };
        let asked = model::asked(request)?;
        let mut instance = self.snapshot.resolve(key, type_of(operation), asked.as_deref())?;
        instance.narrow(key, headers)?;
        if let Some(other) = exchange::instead(self.snapshot, key, operation, headers) {
            self.told.notes.push(format!("{} answers: a budget is low from its beginning", other.asked()));
            instance = other;
        }
        self.told.total = exchange::longest(headers, &instance)?.map(Into::into);
        self.any_model(&mut bill, instance, asked.as_deref(), caller).await
    }

    /// The model that was asked for, or the first that takes over for it.
    async fn any_model(
        &mut self,
        bill: &mut Bill,
        instance: ModelInstance<'a>,
        asked: Option<&str>,
        caller: Caller<'a, '_>,
    ) -> Result<(), Fault> {
        let (model, first) = (instance.model(), instance.asked().to_owned());
        let mut fault = match self.one_model(bill, instance, asked, caller).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        let Caller { key, headers, request } = caller;
        let mut succession = Succession::after((self.snapshot, key), request.operation(), (model, first), &fault);
        while let Some(mut other) = succession.next() {
            if other.narrow(key, headers).is_err() {
                continue;
            }
            let (name, heir) = (other.asked().to_owned(), other.model());
            self.told.notes.push(format!("{name} takes over from {}: {}", model.name, fault.message));
            match self.one_model(bill, other, Some(&name), caller).await {
                Ok(()) => return Ok(()),
                Err(failed) => fault = failed,
            }
            succession.failed(heir, &fault);
        }
        Err(fault)
    }

    async fn one_model(
        &mut self,
        bill: &mut Bill,
        instance: ModelInstance<'a>,
        asked: Option<&str>,
        caller: Caller<'a, '_>,
    ) -> Result<(), Fault> {
        self.tell_model(&instance, asked, caller);
        self.tell_limits(caller.key, &instance);
        let adjusted = instance.model().adjust(caller.request)?;
        self.told.params.clone_from(&adjusted.changes);
        bill.for_model(&instance, &adjusted.request, None, Instant::now()).await?;
        let chosen = self.candidates(bill, caller, &instance, &adjusted).await;
        self.tell_excluded(&instance);
        self.tell_request(&chosen?);
        Ok(())
    }

    fn operation(&mut self, endpoint: &str) -> Result<Operation, Fault> {
        let name = if endpoint == "chat" { "chat/completions" } else { endpoint };
        let path = format!("/v1/{}", name.trim_start_matches('/').trim_start_matches("v1/"));
        let route = Route::of(&Method::POST, &path)?;
        self.told.endpoint = path;
        match route {
            Route::Call(operation) => Ok(operation),
            other => Err(Fault::internal(format!("{} is no request to a model", other.name()))),
        }
    }

    fn authenticate(&mut self, headers: &HeaderMap, key: &str) -> Result<&'a Key, Fault> {
        let mut headers = headers.clone();
        let carried = HeaderValue::try_from(format!("Bearer {key}"));
        headers.insert(header::AUTHORIZATION, carried.unwrap_or_else(|_| HeaderValue::from_static("")));
        let key = access::authenticate(&self.snapshot.keys, &headers, SystemTime::now())?;
        self.told.tenant = Some(key.tenant.id.clone());
        self.told.key = Some(key.id.clone());
        Ok(key)
    }

    fn read(&self, operation: Operation, body: &Bytes) -> Result<Request, Fault> {
        if u64::try_from(body.len()).is_ok_and(|length| length > self.snapshot.max_body) {
            return Err(exchange::too_large(self.snapshot));
        }
        Ok(Request::parse(operation, body.clone())?)
    }

    /// Each candidate in the order in which they would be tried, and the first that can be.
    async fn candidates(
        &mut self,
        bill: &mut Bill,
        caller: Caller<'a, '_>,
        instance: &ModelInstance<'a>,
        adjusted: &Adjusted<'_>,
    ) -> Result<Chosen<'a>, Fault> {
        let Caller { key, headers, .. } = caller;
        let passed_on = attempt::passed_on(headers);
        let policy = search::retries(headers, instance);
        let (mut tried, mut tries, mut sendable) = (Tried::default(), policy.begin(), 0);
        let shares = instance.shares(Moment::now());
        let mut outcome: Option<Result<Chosen<'a>, Fault>> = None;
        let unpicked = loop {
            let picked = match instance.pick(&mut tried, Moment::now(), search::room) {
                Ok((picked, _held)) => picked,
                Err(unpicked) => break unpicked,
            };
            let attempted = dry_run(bill, key, instance, &picked, adjusted, &passed_on).await;
            self.tell_unpriced(key, &picked);
            sendable += u32::from(attempted.is_ok());
            let is_chosen = matches!(outcome, Some(Ok(_)));
            let is_first = attempted.is_ok() && !is_chosen;
            if is_first {
                self.tell_accounts(key);
            }
            let gives_up = !is_chosen && gives_up(&mut tries, &attempted);
            let verdict = match &attempted {
                Ok(_) if sendable > policy.max.saturating_add(1) => Verdict::Refused(NO_ATTEMPT_LEFT.to_owned()),
                attempted => verdict(attempted, is_first),
            };
            self.told.candidates.push(Candidate::picked(&picked, instance, &shares, verdict));
            if is_first || outcome.is_none() {
                outcome = Some(attempted);
            }
            if gives_up {
                break Unpicked::Exhausted;
            }
        };
        self.tell_rest(instance, &tried, &tries);
        outcome.unwrap_or_else(|| Err(search::unavailable(instance.status().fault(instance.asked()), unpicked)))
    }

    /// The candidates to which it does not come.
    fn tell_rest(&mut self, instance: &ModelInstance<'a>, tried: &Tried, tries: &Tries) {
        let targets = instance.model().targets.iter().enumerate();
        for (_, target) in targets.filter(|(place, _)| !tried.has(*place)) {
            let why = match instance.offer(target) {
                _ if !instance.is_wanted(target) => "the caller wants another credential",
                _ if instance.may_use(target) && tries.are_over() => NO_ATTEMPT_LEFT,
                _ if instance.may_use(target) => "the failure before it is the caller's",
                Offer::NoQuota => "no quota of the tenant is for this model",
                Offer::Spent => "the tenant's quota is used up",
                Offer::Missing | Offer::Valid => "the tenant may not use it",
            };
            let picked = instance.at(target);
            let verdict = Verdict::Refused(why.to_owned());
            self.told.candidates.push(Candidate::picked(&picked, instance, &[], verdict));
        }
    }

    /// What the caller says of its request, and what it says in vain.
    fn tell_headers(&mut self, headers: &HeaderMap) {
        self.told.tags = record::tags(headers);
        let own = headers.keys().filter(|name| name.as_str().starts_with("x-weir-"));
        for unknown in own.filter(|name| !headers::OF_CALLERS.contains(name)) {
            self.told.notes.push(format!("{unknown}: no header that a caller sends; weir serve takes no notice of it"));
        }
    }

    fn tell_model(&mut self, instance: &ModelInstance<'_>, asked: Option<&str>, caller: Caller<'_, '_>) {
        let model = instance.model();
        let written = self.written(model);
        let affinity = written.and_then(|written| written.affinity.as_ref());
        let resolved = match (asked, &model.model_type) {
            (None | Some("" | "default"), _) => "by the tenant's default",
            (_, None) => "by a provider's name",
            _ if model.name.contains('*') => "by its *",
            _ => "by its name",
        };
        self.told.model = Some(ModelTold {
            asked: instance.asked().to_owned(),
            name: model.name.clone(),
            resolved,
            model_type: model.model_type,
            balance: written.map_or(config::Balance::Weighted, |written| written.balance),
            retries: search::retries(caller.headers, instance).max,
            fallbacks: model.fallbacks.clone(),
            affinity: affinity.iter().flat_map(|affinity| &affinity.by).map(ToString::to_string).collect(),
            related_by: model.relation.found(caller.key, caller.headers, caller.request),
            hedge: written.and_then(|written| written.hedge.as_ref()).map(|hedge| hedge.after),
            when_all_cool: model.when_all_cool,
        });
    }

    fn tell_limits(&mut self, key: &Key, instance: &ModelInstance<'_>) {
        let of_model = limit::Limited::of_model(&key.limited.models, instance.limited_as());
        let of_model = of_model.iter().flat_map(limit::Scopes::iter);
        self.told.limits = key.limited.base.iter().chain(of_model).map(|scope| Scope::of(scope)).collect();
        self.tell_accounts(key);
    }

    fn tell_accounts(&mut self, key: &Key) {
        let now = Timestamp::now();
        self.told.budgets = key.accounts.iter().map(|account| Account::of(account, now)).collect();
        let quotas = key.tenant.quotas.values().flat_map(budget::Quotas::accounts);
        self.told.quotas = quotas.map(|account| Quota::of(account, now)).collect();
        self.told.quotas.sort();
    }

    fn tell_unpriced(&mut self, key: &Key, picked: &Picked<'_>) {
        if !key.accounts.is_empty() && picked.price(SystemTime::now()).is_none() {
            let provider = &picked.target.provider.name;
            let note = format!("{provider}/{}: no price is known, so budgets do not count it", picked.upstream_model);
            if !self.told.notes.contains(&note) {
                self.told.notes.push(note);
            }
        }
    }

    /// The credentials that no request of this model uses, as they are configured.
    fn tell_excluded(&mut self, instance: &ModelInstance<'_>) {
        let model = instance.model();
        let Some(written) = self.written(model) else {
            // `provider/model`: all of the provider's credentials are candidates.
            let name = model.name.strip_suffix("/*").unwrap_or_default();
            let model = "*".to_owned();
            let any = config::Target { provider: name.to_owned(), model, tier: 0, weight: 1, credential: None };
            return self.tell_unused(&any);
        };
        written.targets.iter().for_each(|target| self.tell_unused(target));
    }

    fn tell_unused(&mut self, target: &config::Target) {
        let tenant = self.config.tenants.iter().find(|tenant| Some(&tenant.id) == self.told.tenant.as_ref());
        let own = tenant.and_then(|tenant| tenant.providers.get(&target.provider));
        let own = own.into_iter().flat_map(|own| &own.credentials).map(|credential| (credential, None));
        let systems = self.config.providers.get(&target.provider).into_iter().flat_map(|written| &written.credentials);
        let systems = systems.map(|credential| (credential, target.credential.as_deref()));
        for (credential, only) in systems.chain(own) {
            let why = match only {
                _ if !credential.enabled => "the credential is disabled",
                Some(only) if only != credential.id => "the target names another credential",
                _ => continue,
            };
            self.told.candidates.push(Candidate::excluded(target, &credential.id, why));
        }
    }

    fn tell_request(&mut self, chosen: &Chosen<'_>) {
        let Chosen { picked, native, limited_to } = chosen;
        self.told.limited_to = *limited_to;
        self.told.dropped = native.dropped.iter().map(Dropped::of).collect();
        self.told.request = Some(Outgoing::of(picked, native));
        if self.config.providers.get(&picked.target.provider.name).is_some_and(|written| written.simulated) {
            self.told.notes.push("the provider is simulated inside the process, at a port of its own".to_owned());
        }
    }

    fn written(&self, model: &Model) -> Option<&'a config::Model> {
        let same =
            |written: &&config::Model| written.name == model.name && Some(written.model_type) == model.model_type;
        self.config.models.iter().find(same)
    }
}

/// One attempt, up to where it would be sent.
async fn dry_run<'s>(
    bill: &mut Bill,
    key: &Key,
    instance: &ModelInstance<'s>,
    picked: &Picked<'s>,
    adjusted: &Adjusted<'_>,
    passed_on: &HeaderMap,
) -> Result<Chosen<'s>, Fault> {
    let payable = bill.afford(key, picked, &adjusted.request).await?;
    let to = attempt::addressed(picked, instance, passed_on);
    let native = attempt::encode(picked, &payable.request, adjusted, &to)?;
    Ok(Chosen { picked: picked.clone(), native, limited_to: payable.limited_to })
}

/// Whether the caller is told of a failure before another target is tried. What cannot be paid or is limited is no try.
fn gives_up(tries: &mut Tries, attempted: &Result<Chosen<'_>, Fault>) -> bool {
    let fault = attempted.as_ref().err();
    let is_no_try =
        |fault: &Fault| matches!(fault.kind, Kind::PolicyBudget | Kind::ProviderLimit) || fault.is_targets_lack();
    let fault = fault.filter(|fault| !is_no_try(fault));
    fault.is_some_and(|fault| tries.after(fault) == Step::GiveUp)
}

fn verdict(attempted: &Result<Chosen<'_>, Fault>, is_first: bool) -> Verdict {
    match attempted {
        Ok(_) if is_first => Verdict::Chosen,
        Ok(_) => Verdict::Next,
        Err(fault) => Verdict::Refused(fault.detail.clone().unwrap_or_else(|| fault.message.clone())),
    }
}
