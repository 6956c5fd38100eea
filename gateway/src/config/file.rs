//! The configuration as it is written: every section, field, name and default, in one place. The doc of a field is
//! its description in the JSON Schema, and its default stands behind it. What the fields mean together is `check`'s.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::read::{Read, choices, section};
use super::value::{
    AccessLog, Address, AffinityBy, BaseUrl, ByteSize, Count, Duration, DurationRange, Expiry, Header, Json, KeyHash,
    Money, Percent, Proxy, Secret, Upstream, Zone,
};

section! {
    /// A configuration of Weir.
    pub struct Config {
        /// The version of this format.
        version: u32 = 1;
        /// The listeners and their limits.
        server: Server = Read::placeholder();
        /// Where settings, counters and the ledger are kept.
        store: Store = Read::placeholder();
        /// Where requests can go, by name.
        providers: IndexMap<String, Provider>;
        /// What callers ask for. A name is unique within its type.
        models: Vec<Model>;
        /// Who may call, with which keys, limits and budgets.
        tenants: Vec<Tenant>;
        /// When a target is held to be ill, and for how long.
        health: Health = Read::placeholder();
        /// Logs, traces and what they may hold.
        observability: Observability = Read::placeholder();
    }
}

section! {
    /// The listeners and their limits.
    pub struct Server {
        /// Where the OpenAI-compatible API listens: one address or a list.
        listen: Listeners = Listeners(vec![Listener::loopback(8080)]);
        /// Where the admin API, the console, `/metrics` and health listen; `null`: nowhere. Off loopback it needs a token and TLS, or `insecure_admin`.
        admin: Option<Listener> = Some(Listener::loopback(8081));
        /// What an administrator sends as `Authorization: Bearer`. Without one, anybody who reaches the admin listener is the owner.
        admin_token: Option<Secret> = None;
        /// Allows an admin listener off loopback without a token or without TLS.
        insecure_admin: bool = false;
        /// TLS for every listener that has none of its own.
        tls: Option<Tls> = None;
        /// The largest request body that is accepted; a larger one is a 413.
        max_body: ByteSize = ByteSize::mebibytes(64);
        /// How long requests in flight may take to end after SIGTERM.
        drain: Duration = Duration::secs(30);
        /// How long a connection may be idle between requests, and how long a request's head may take to come.
        idle: Duration = Duration::secs(75);
        /// How long a client may send nothing more of a body that it has begun, or take nothing of its answer.
        stall: Duration = Duration::secs(60);
        /// How many wrong keys a minute one address may try; then it is refused for a while, whatever key it sends. By default any number: behind a proxy all callers have one address.
        wrong_keys: Option<Count> = None;
        /// Refuses every change but the file's (GitOps).
        locked: bool = false;
        /// Private, loopback or link-local hosts and networks that a tenant's own provider address may reach all the same.
        allow_private_upstreams: Vec<Upstream> = Vec::new();
        /// How many worker threads serve the API; by default one a core.
        threads: Option<Count> = None;
    }
}

section! {
    /// An address to listen on; a text is its `address`.
    pub struct Listener short address: Address {
        /// The address and the port.
        address: Address;
        /// The certificate of this listener.
        tls: Option<Tls> = None;
    }
}

#[expect(clippy::derivable_impls, reason = "`choices!` derives the same for every enum")]
impl Default for Unpriced {
    fn default() -> Self {
        Self::Allow
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Read::placeholder()
    }
}

impl Default for Fallbacks {
    fn default() -> Self {
        Read::placeholder()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Read::placeholder()
    }
}

impl Listener {
    /// Without TLS on loopback.
    #[must_use]
    pub const fn loopback(port: u16) -> Self {
        Self { address: Address::loopback(port), tls: None }
    }
}

section! {
    /// A certificate and its key.
    pub struct Tls {
        /// The certificate with its chain, PEM.
        cert: PathBuf;
        /// The private key, PEM.
        key: PathBuf;
    }
}

section! {
    /// Where settings, credentials, counters and the ledger are kept.
    pub struct Store {
        /// The folder of the embedded store.
        path: PathBuf = PathBuf::from("./data");
        /// A Redis by which several gateways share limits, budgets, quotas, cooldowns and ledgers: a URL, a cluster or sentinels.
        redis: Option<Redis> = None;
        /// What happens to limits and budgets while Redis is away.
        on_redis_loss: OnRedisLoss = OnRedisLoss::Lease;
        /// 32 bytes in base64 which encrypt stored credentials. Without it none can be stored.
        master_key: Option<Secret> = None;
        /// The longest time that a row of the ledger waits before it is on the disk: what a `kill -9` can cost.
        commit_within: Duration = Duration::millis(20);
        /// How long rows of the ledger are kept.
        retention: Duration = Duration::secs(90 * 86_400);
    }
}

section! {
    /// A Redis: one of `url`, `cluster` and `sentinel`; a text is its `url`.
    pub struct Redis short url: Option<Secret> {
        /// One server: `redis://host:6379/0`, or `rediss://` with TLS.
        url: Option<Secret> = None;
        /// Some nodes of a cluster, as URLs.
        cluster: Vec<Secret> = Vec::new();
        /// Sentinels that know the master.
        sentinel: Option<Sentinel> = None;
        /// The user.
        username: Option<String> = None;
        /// The password.
        password: Option<Secret> = None;
    }
}

section! {
    /// Redis sentinels.
    pub struct Sentinel {
        /// The name of the master.
        master: String;
        /// The sentinels, as URLs.
        nodes: Vec<Secret>;
    }
}

choices! {
    /// What happens to limits and budgets while Redis is away.
    pub enum OnRedisLoss {
        /// Each gateway keeps to the slice that it holds and its share of what was left.
        Lease = "lease",
        /// Each gateway counts for itself.
        Local = "local",
        /// Requests under a limit are refused.
        Reject = "reject",
    }
}

section! {
    /// Where requests can go.
    pub struct Provider {
        /// What it speaks: a dialect (`openai`, `anthropic`, `bedrock`, …) or a preset; by default the provider's name.
        kind: Option<String> = None;
        /// Where it is; by default the kind's own.
        base_url: Option<BaseUrl> = None;
        /// The credentials to call it with. None: the request carries none.
        credentials: Vec<Credential> = Vec::new();
        /// The version of its API: Azure's `api-version`, Anthropic's `anthropic-version`.
        api_version: Option<String> = None;
        /// The region (Bedrock, Vertex).
        region: Option<String> = None;
        /// The project (Vertex; also OpenAI's project header).
        project: Option<String> = None;
        /// The organization (OpenAI).
        organization: Option<String> = None;
        /// `max_tokens` for callers that give none, where the provider needs one (Anthropic).
        default_max_tokens: Option<Count> = None;
        /// The version of HTTP to call it with.
        http: HttpVersion = HttpVersion::Http1;
        /// Certificates that it may be signed by besides the system's, PEM.
        ca: Option<PathBuf> = None;
        /// The HTTP proxy on the way to it, or `none`; by default what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
        proxy: Option<Proxy> = None;
        /// What becomes of its request when the caller leaves.
        on_disconnect: OnDisconnect = OnDisconnect::Cancel;
        /// Headers for every request to it, each a secret or a text.
        headers: IndexMap<Header, Secret> = IndexMap::new();
        /// Answered by the simulator inside this process: no network, no credential, no cost.
        simulated: bool = false;
    }
}

section! {
    /// A credential of a provider.
    pub struct Credential {
        /// Its name in answers, logs and metrics.
        id: String;
        /// The key, for providers that take one. Bedrock takes one too, in place of the access key.
        api_key: Option<Secret> = None;
        /// The access key's id (AWS).
        access_key_id: Option<Secret> = None;
        /// The secret access key (AWS).
        secret_access_key: Option<Secret> = None;
        /// The session token of temporary credentials (AWS).
        session_token: Option<Secret> = None;
        /// The service account as JSON (Vertex).
        service_account: Option<Secret> = None;
        /// Its share beside the provider's other credentials; 0: only when no other is left.
        weight: u32 = 1;
        /// Requests a minute that the provider allows it.
        rpm: Option<Count> = None;
        /// Tokens a minute that the provider allows it.
        tpm: Option<Count> = None;
        /// Requests at once that the provider allows it.
        concurrent: Option<Count> = None;
        /// Whether it is used at all.
        enabled: bool = true;
    }
}

choices! {
    /// The version of HTTP towards a provider.
    pub enum HttpVersion {
        /// HTTP/2 where the provider offers it by ALPN, else HTTP/1.1.
        Auto = "auto",
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "http2",
    }
}

choices! {
    /// What becomes of the provider's request when the caller leaves.
    pub enum OnDisconnect {
        /// It ends at once.
        Cancel = "cancel",
        /// It is read to its end, so that its usage is exact.
        Drain = "drain",
    }
}

choices! {
    /// What a model is for.
    pub enum ModelType {
        /// Chat and completion.
        Llm = "llm" | "text-generation",
        /// Embeddings.
        TextEmbedding = "text-embedding" | "embeddings",
        /// Reranking.
        Rerank = "rerank" | "reranking",
        /// Transcription and translation of speech.
        Speech2text = "speech2text",
        /// Speech from text.
        Tts = "tts",
        /// Moderation.
        Moderation = "moderation",
        /// Images.
        Image = "image",
    }
}

section! {
    /// A model that callers ask for.
    pub struct Model {
        /// What callers write; one `*` stands for any text.
        name: String;
        /// What it is for.
        model_type as "type": ModelType = ModelType::Llm;
        /// Where its requests can go, the lowest tier first.
        targets: Vec<Target>;
        /// How a target is picked within a tier.
        balance: Balance = Balance::Weighted;
        /// What keeps related requests on one target.
        affinity: Option<Affinity> = None;
        /// How long each part of a request may take.
        timeouts: Timeouts = Read::placeholder();
        /// How a failed request is tried again.
        retries: Retries = Read::placeholder();
        /// A second request when the first is slow.
        hedge: Option<Hedge> = None;
        /// A short wait when every slot is taken; by default none.
        on_busy: Option<OnBusy> = None;
        /// What happens when every target is left out, where it is not what `health` says.
        when_all_cool: Option<WhenAllCool> = None;
        /// Other models that take over when this one's targets are exhausted.
        fallbacks: Fallbacks = Read::placeholder();
        /// What becomes of the request's parameters.
        params: Params = Read::placeholder();
        /// What it costs, over the catalog's figures. Without either, its cost is unknown, and no budget counts it.
        pricing: Option<Pricing> = None;
    }
}

section! {
    /// One place where a model's requests can go.
    pub struct Target {
        /// The provider, by its name.
        provider: String;
        /// The provider's name for the model; `*` takes over what the model's `*` stood for.
        model: String;
        /// Lower tiers are used first; a higher one when no target of the lower is usable.
        tier: u32 = 0;
        /// Its share within its tier.
        weight: u32 = 1;
        /// One credential of the provider by its id; by default all of them in turn.
        credential: Option<String> = None;
    }
}

choices! {
    /// How a target is picked within a tier.
    pub enum Balance {
        /// By weight, evenly spread.
        Weighted = "weighted",
        /// Each in turn.
        RoundRobin = "round_robin",
        /// The one with the fewest requests in flight for its weight.
        LeastBusy = "least_busy",
        /// The faster of two picked at random.
        Latency = "latency",
        /// The cheapest.
        Cost = "cost",
        /// The one with the most left of its limits.
        Usage = "usage",
    }
}

section! {
    /// What keeps related requests on one target.
    pub struct Affinity {
        /// What makes requests related; the first that a request has counts.
        by: Vec<AffinityBy>;
        /// How long a target is remembered after the last request.
        ttl: Duration = Duration::secs(3_600);
    }
}

section! {
    /// How long each part of a request may take; `0s` is no limit.
    pub struct Timeouts {
        /// To connect, TLS included.
        connect: Duration = Duration::secs(3);
        /// Until the first byte of content.
        first_byte: Duration = Duration::secs(60);
        /// Between two bytes of the answer.
        idle: Duration = Duration::secs(60);
        /// From the first attempt to the end of the answer.
        total: Duration = Duration::secs(900);
        /// How long a stream may be silent before headers and a comment go out; `0s`: never.
        keepalive: Duration = Duration::secs(25);
    }
}

section! {
    /// How a failed request is tried again.
    pub struct Retries {
        /// How many times, after the first attempt.
        max: u32 = 2;
        /// The wait before the second round, when every target was tried, and the longest before a later one; it doubles between them, with jitter.
        backoff: DurationRange = DurationRange { from: Duration::millis(250), to: Duration::secs(5) };
    }
}

section! {
    /// A second request when the first is slow; the first answer wins.
    pub struct Hedge {
        /// How long to wait for the first.
        after: Duration;
        /// How many more requests this may cost.
        max_extra: Percent = Percent::of(5);
    }
}

section! {
    /// A short wait when every slot is taken.
    pub struct OnBusy {
        /// How long a request waits before it is a 429.
        queue: Duration;
        /// How many may wait at once.
        max: Count = Count::of(100);
    }
}

section! {
    /// Other models that take over, each list in its order.
    pub struct Fallbacks {
        /// For every failure that another model may mend.
        any: Vec<String> = Vec::new();
        /// When the prompt is too long.
        context_window: Vec<String> = Vec::new();
        /// When the provider refuses the content.
        content_policy: Vec<String> = Vec::new();
    }
}

section! {
    /// What becomes of the request's parameters.
    pub struct Params {
        /// What happens to a parameter that the target does not take, or not with that value.
        unsupported: Unsupported = Unsupported::Drop;
        /// Parameters for requests that lack them, or have `null` there.
        defaults: IndexMap<String, Json> = IndexMap::new();
        /// Parameters that replace the caller's; `null` takes one out.
        overrides as "override": IndexMap<String, Json> = IndexMap::new();
        /// The rules for single parameters.
        rules: Vec<ParameterRule> = Vec::new();
    }
}

choices! {
    /// What happens to a parameter that the target does not take.
    pub enum Unsupported {
        /// It is left out and named in `x-weir-dropped-params`.
        Drop = "drop",
        /// The request is refused.
        Reject = "reject",
        /// A number becomes the nearest that is allowed, and is named in `x-weir-dropped-params` with it; what has no nearest is left out.
        Clamp = "clamp",
    }
}

section! {
    /// The rule for one parameter. What it leaves out is its template's.
    pub struct ParameterRule {
        /// The parameter.
        name: String;
        /// The template that it overlays; by default the one of its name.
        use_template: Option<String> = None;
        /// The type of its value.
        value_type as "type": Option<ParameterType> = None;
        /// Whether a request must have it.
        required: Option<bool> = None;
        /// Its value when a request lacks it; a template's default only counts where the parameter is required.
        default: Option<Json> = None;
        /// The smallest value.
        min: Option<f64> = None;
        /// The largest value.
        max: Option<f64> = None;
        /// How many digits after the point.
        precision: Option<u32> = None;
        /// The only values.
        options: Option<Vec<String>> = None;
        /// What it does, for people.
        help: Option<String> = None;
    }
}

choices! {
    /// The type of a parameter's value.
    pub enum ParameterType {
        /// A number.
        Float = "float",
        /// A whole number.
        Int = "int",
        /// A short text.
        String = "string",
        /// True or false.
        Boolean = "boolean",
        /// A long text.
        Text = "text",
    }
}

section! {
    /// What a model costs. Each price is for `per` units.
    pub struct Pricing {
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
        /// One image.
        per_image: Option<Money> = None;
        /// One request.
        per_request: Option<Money> = None;
        /// One second of audio.
        per_second: Option<Money> = None;
        /// One character of text to be spoken.
        per_character: Option<Money> = None;
        /// One search unit of a rerank.
        per_search_unit: Option<Money> = None;
        /// Other prices for longer prompts.
        tiers: Vec<PriceTier> = Vec::new();
        /// Other prices for requests that the provider served in another way than usual.
        service_tiers: ServiceTiers = Read::placeholder();
        /// The currency; budgets count dollars.
        currency: Currency = Currency::Usd;
        /// How many tokens a price is for.
        per: Count = Count::of(1_000_000);
        /// How amounts are rounded.
        rounding: Rounding = Rounding::Exact;
        /// From when on these prices hold; before it the catalog's do.
        effective: Option<Expiry> = None;
    }
}

section! {
    /// Prices for prompts over a length.
    pub struct PriceTier {
        /// For prompts with more input tokens than this.
        above: Count;
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
    }
}

section! {
    /// Prices by how a provider served a request, which its answer tells. One that is left out costs what is usual.
    pub struct ServiceTiers {
        /// OpenAI's flex processing.
        flex: Option<ServicePricing> = None;
        /// OpenAI's priority processing, which it calls `fast` too; Anthropic's priority tier.
        priority: Option<ServicePricing> = None;
        /// OpenAI's ultrafast processing.
        ultrafast: Option<ServicePricing> = None;
        /// Anthropic's fast mode.
        fast: Option<ServicePricing> = None;
        /// Batches.
        batch: Option<ServicePricing> = None;
    }
}

section! {
    /// Prices of one way to be served. What they leave out costs what is usual.
    pub struct ServicePricing {
        /// Input tokens.
        input: Option<Money> = None;
        /// Output tokens.
        output: Option<Money> = None;
        /// Input tokens that the provider had in its cache.
        cached_input: Option<Money> = None;
        /// Input tokens written to the cache for five minutes.
        cache_write: Option<Money> = None;
        /// Input tokens written to the cache for an hour.
        cache_write_1h: Option<Money> = None;
        /// Reasoning tokens, where they cost other than output.
        reasoning: Option<Money> = None;
        /// Audio tokens in.
        audio_input: Option<Money> = None;
        /// Audio tokens out.
        audio_output: Option<Money> = None;
        /// Other prices for longer prompts. Without any, the dearer of this price and the usual one for them holds.
        tiers: Vec<PriceTier> = Vec::new();
    }
}

choices! {
    /// A currency.
    pub enum Currency {
        /// The dollar of the United States.
        Usd = "USD",
    }
}

choices! {
    /// How amounts are rounded.
    pub enum Rounding {
        /// Once, at the end, to a nano-unit.
        Exact = "exact",
        /// Each part to a ten millionth, half up, as Dify does.
        Dify = "dify",
    }
}

section! {
    /// Someone who may call.
    pub struct Tenant {
        /// Its name in keys, logs and metrics.
        id: String;
        /// Where its days and months begin.
        timezone: Zone = Zone::utc();
        /// The day on which its weeks begin.
        week_start: Weekday = Weekday::Monday;
        /// The models that it may call, `*` allowed; by default all.
        models: Option<Vec<String>> = None;
        /// Models that it may not call all the same.
        disabled_models: Vec<String> = Vec::new();
        /// The model for requests that name none, by type.
        default_models: IndexMap<ModelType, String> = IndexMap::new();
        /// Whose credentials come first; by default its own, if it has any.
        prefer: Option<Prefer> = None;
        /// Its own credentials, by provider.
        providers: IndexMap<String, TenantProvider> = IndexMap::new();
        /// What it may use of the operator's credentials; without any, as much as its limits and budgets allow.
        quotas: Vec<Quota> = Vec::new();
        /// Its limits over all its keys.
        limits: Limits = Read::placeholder();
        /// Its budgets over all its keys. Requests with its own credentials count in them too: a budget is about spending, a quota about the operator's credentials.
        budgets: Vec<Budget> = Vec::new();
        /// What becomes of a request under a budget, its own or its key's, where no price of the model is known.
        unpriced: Unpriced = Unpriced::Allow;
        /// Its keys.
        keys: Vec<ApiKey> = Vec::new();
    }
}

choices! {
    /// What becomes of a request under a budget where no price is known.
    pub enum Unpriced {
        /// It is served, its cost is `null`, and no budget counts it.
        Allow = "allow",
        /// It goes to a target with a price, or is refused.
        Refuse = "refuse",
    }
}

choices! {
    /// A day of the week.
    pub enum Weekday {
        /// Monday.
        Monday = "monday",
        /// Tuesday.
        Tuesday = "tuesday",
        /// Wednesday.
        Wednesday = "wednesday",
        /// Thursday.
        Thursday = "thursday",
        /// Friday.
        Friday = "friday",
        /// Saturday.
        Saturday = "saturday",
        /// Sunday.
        Sunday = "sunday",
    }
}

choices! {
    /// Whose credentials.
    pub enum CredentialSource {
        /// The operator's.
        System = "system",
        /// The tenant's own.
        Custom = "custom",
    }
}

/// Whose credentials come first: for every provider, or for each by its name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Prefer {
    /// For every provider.
    Always(CredentialSource),
    /// For these providers; for others as if nothing were said.
    For(IndexMap<String, CredentialSource>),
}

section! {
    /// A tenant's own way to a provider.
    pub struct TenantProvider {
        /// Its credentials.
        credentials: Vec<Credential>;
        /// Its own address for the provider. It never reaches a private host that `server.allow_private_upstreams` does not list.
        base_url: Option<BaseUrl> = None;
    }
}

section! {
    /// What a tenant may use of the operator's credentials.
    pub struct Quota {
        /// The provider.
        provider: String;
        /// Its type; paid is used before free, free before trial.
        quota_type as "type": QuotaType;
        /// What is counted.
        unit: QuotaUnit;
        /// How much; -1 is unlimited.
        limit: QuotaLimit;
        /// Until when; the soonest to expire is used first within a type.
        expires: Option<Expiry> = None;
        /// The models that it is for, by the provider's names; by default all.
        restrict_models: Vec<String> = Vec::new();
        /// The credits of one call by the provider's model name; 1 for others.
        credits: IndexMap<String, Count> = IndexMap::new();
    }
}

choices! {
    /// The type of a quota, in the order of use.
    pub enum QuotaType {
        /// Paid for.
        Paid = "paid",
        /// Given for good.
        Free = "free",
        /// Given to try.
        Trial = "trial",
    }
}

choices! {
    /// What a quota counts.
    pub enum QuotaUnit {
        /// Calls.
        Times = "times",
        /// Tokens.
        Tokens = "tokens",
        /// Credits, as many for a call as its model says.
        Credits = "credits",
    }
}

/// How much a quota holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaLimit {
    /// Without end, written -1.
    Unlimited,
    /// So much.
    Of(Count),
}

section! {
    /// Limits, each its own.
    pub struct Limits {
        /// Requests a minute.
        rpm: Option<Count> = None;
        /// Tokens a minute.
        tpm: Option<Count> = None;
        /// Requests at once.
        concurrent: Option<Count> = None;
        /// Limits for single models by their names here.
        per_model: IndexMap<String, RateLimits> = IndexMap::new();
    }
}

section! {
    /// Limits for one model.
    pub struct RateLimits {
        /// Requests a minute.
        rpm: Option<Count> = None;
        /// Tokens a minute.
        tpm: Option<Count> = None;
        /// Requests at once.
        concurrent: Option<Count> = None;
    }
}

section! {
    /// Money for a span of time.
    pub struct Budget {
        /// How much, in dollars.
        usd: Money;
        /// For how long; a window begins at midnight in the tenant's time zone.
        every: Every;
        /// The share at which a warning is logged, counted and told to `observability.alerts`, and `on_exhaust` begins to hold.
        soft: Option<Percent> = None;
        /// What happens when it is spent; by default requests are a 429.
        on_exhaust: Option<OnExhaust> = None;
    }
}

choices! {
    /// The window of a budget.
    pub enum Every {
        /// A minute.
        Minute = "minute",
        /// An hour.
        Hour = "hour",
        /// A day.
        Day = "day",
        /// A week.
        Week = "week",
        /// A month.
        Month = "month",
    }
}

section! {
    /// What happens when a budget is spent.
    pub struct OnExhaust {
        /// The model that answers instead.
        model: String;
    }
}

section! {
    /// A virtual key.
    pub struct ApiKey {
        /// Its name in logs, metrics and the ledger; unique within its tenant.
        id: String;
        /// The hash of the key; `weir key new` mints one.
        hash: KeyHash;
        /// From when on it is refused.
        expires: Option<Expiry> = None;
        /// The models that it may call, of those that its tenant may.
        models: Option<Vec<String>> = None;
        /// Its own limits.
        limits: Limits = Read::placeholder();
        /// Its own budgets.
        budgets: Vec<Budget> = Vec::new();
        /// Whether its caller may choose the credential with `x-weir-credential`.
        choose_credential: bool = false;
    }
}

section! {
    /// When a target is held to be ill, and for how long.
    pub struct Health {
        /// How many requests before a share of errors counts.
        min_samples: Count = Count::of(5);
        /// The share of errors that makes a target ill.
        error_rate: Percent = Percent::of(50);
        /// How long a target or credential is left out, by cause.
        cooldown: Cooldown = Read::placeholder();
        /// The longest that it is left out, whatever the provider asks for.
        max_cooldown: Duration = Duration::secs(600);
        /// What happens to a request when every target of its model is left out.
        when_all_cool: WhenAllCool = WhenAllCool::Fail;
        /// How long such a request waits at most; where the soonest target takes longer it fails at once.
        max_wait: Duration = Duration::secs(10);
    }
}

choices! {
    /// What happens to a request when every target of its model is left out.
    pub enum WhenAllCool {
        /// It fails at once, and is told when the first will be back.
        Fail = "fail",
        /// It waits for the first that comes back, no longer than `health.max_wait` and its own time.
        Wait = "wait",
        /// It goes to the one that is the soonest to be back, as if that were well.
        Try = "try",
    }
}

section! {
    /// How long a target or credential is left out, by cause; `0s` is not at all.
    pub struct Cooldown {
        /// After a rate limit without a time of its own.
        rate_limit: Duration = Duration::secs(60);
        /// After a credential was refused.
        auth: Duration = Duration::secs(10);
        /// After a connection failed.
        connection: Duration = Duration::secs(10);
        /// After the provider failed.
        server: Duration = Duration::secs(10);
    }
}

section! {
    /// Logs, traces and what they may hold.
    pub struct Observability {
        /// What is logged: a level, or directives such as `info,gateway::exchange=debug`.
        log: String = "info".to_owned();
        /// Where the access log goes.
        access_log: AccessLog = AccessLog::Stdout;
        /// Webhooks that are told when a budget comes to its soft limit, and when it is spent.
        alerts: Vec<Webhook> = Vec::new();
        /// The OTLP endpoint for traces; `null`: none.
        otlp: Option<BaseUrl> = None;
        /// Which requests and answers are logged with their bodies.
        log_bodies: LogBodies = LogBodies::None;
    }
}

section! {
    /// A webhook.
    pub struct Webhook {
        /// Where to post to. A secret where the URL itself is one.
        url: Secret;
        /// What posts are signed with, as Standard Webhooks do: base64 with or without `whsec_` before it. Without it they are not signed.
        secret: Option<Secret> = None;
    }
}

choices! {
    /// Which requests and answers are logged with their bodies.
    pub enum LogBodies {
        /// None.
        None = "none",
        /// Those that failed.
        Errors = "errors",
        /// All.
        All = "all",
    }
}

/// The listeners of the API: written as one, or as a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Listeners(pub Vec<Listener>);
