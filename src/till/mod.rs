/// A till that sells by its journal.
pub mod counter;
/// Sending what waits in a journal.
pub mod drain;
/// What a till keeps on its disk.
pub mod folder;
/// Sales on disk, before the shop hears of them.
pub mod journal;
/// `kassa sell`: many sales, with a progress bar and a summary.
pub mod sell;
/// What a till's journal tells people.
pub mod status;

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use drain::Answered;
use kassa_bus::error::chain;
use kassa_bus::jwe::{ContentKey, Sealer};
use kassa_bus::jws::Signer;
use kassa_bus::keys::PublicKey;
use kassa_bus::trace::{Kind, Span};
use kassa_bus::{Clock, Line, SaleId, ShopId, Thumbprint, TraceContext, Tracer};
use rand::Rng;
use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How a till encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JWE: any number of lines, and the shop notices tampering.
    Sealed,
    /// RSA alone, as the older tills do: at most 190 bytes.
    Classic,
}

/// Sales one content key seals, and for how long, at most.
const SESSION_SALES: u32 = 1_000;
const SESSION_TIME: Duration = Duration::from_hours(1);

/// How long a fetched public key is used.
const KEY_TIME: Duration = Duration::from_hours(1);

/// How long one that was kept is used before the shop is asked again.
const KEPT_KEY_TIME: Duration = Duration::from_mins(1);

/// How long the shop is asked for a key where there is one to go on with.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// How long a key that was just fetched is used, whatever the shop says.
const KEY_STANDS: Duration = Duration::from_secs(1);

/// The header by which the shop names the key it wants sales sealed with.
const KASSA_KEY: &str = "kassa-key";

/// The most a till waits between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A till: seals sales with its shop's public key and posts each until it is accepted.
pub struct Till {
    pub shop: ShopId,
    pub name: String,
    pub format: Format,
    /// Whose public key to seal with: its own shop's, unless it is misconfigured.
    pub key_of: ShopId,
    /// How long one sale is tried before the till gives it up.
    pub patience: Duration,
    /// Makes a span of each sale, if it is on, which the shop's spans are below.
    pub tracer: Tracer,
    /// Where the shop's public key is kept, if it is.
    pub key_file: Option<PathBuf>,
    /// Signs sealed sales, if the till is enrolled.
    pub signer: Option<Signer>,
    /// Whether each sale is sent with a `traceparent` in any case.
    pub traceparent: bool,
    url: String,
    client: Client,
    clock: Clock,
    seq: AtomicU64,
    key: tokio::sync::Mutex<Option<FetchedKey>>,
    session: Mutex<Option<Session>>,
}

struct FetchedKey {
    kid: Thumbprint,
    key: OaepPublicEncryptingKey,
    since: Instant,
    good_for: Duration,
}

struct Session {
    kid: Thumbprint,
    sealer: Sealer,
    left: u32,
    since: Instant,
}

/// A sale ready to be posted, as often as it takes.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The till's counter.
    pub seq: u64,
    pub sale_id: SaleId,
    pub body: String,
}

/// How a sale was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// From the first try to the yes.
    pub took: Duration,
    pub retries: u32,
}

/// Why a sale was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TillError {
    #[error("{url} has no key of {shop}: {why}")]
    NoKey { url: String, shop: ShopId, why: String },
    #[error("the sale has {0} bytes; classic sales have at most 190, use --format sealed")]
    TooLong(usize),
    #[error("the sale cannot be encrypted")]
    Crypto,
    #[error("the shop refused the sale: {status} {detail}")]
    Refused { status: u16, detail: String },
    #[error("the shop did not accept the sale within {0:?}; the last answer was: {1}")]
    GaveUp(Duration, String),
    #[error("the shop does not take sales now: {0}")]
    Away(Away),
}

/// The shop cannot be reached, or wants to be asked later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    pub why: String,
    /// What the shop asks to be waited.
    pub at_least: Duration,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// The sealed content (see the README's formats).
#[derive(Serialize)]
struct SealedContent<'a> {
    sale_id: &'a SaleId,
    shop_id: &'a ShopId,
    till: &'a str,
    seq: u64,
    sold_at: String,
    sales: &'a [Line],
}

impl Till {
    /// A till of `shop` that posts to `url`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(
        url: &str,
        shop: ShopId,
        name: &str,
        format: Format,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let client =
            Client::builder().timeout(Duration::from_secs(30)).pool_max_idle_per_host(1024).build()?;
        Ok(Self {
            key_of: shop.clone(),
            shop,
            name: name.to_owned(),
            format,
            patience: Duration::from_mins(1),
            tracer: Tracer::default(),
            traceparent: false,
            signer: None,
            key_file: None,
            url: url.trim_end_matches('/').to_owned(),
            client,
            clock,
            seq: AtomicU64::new(1),
            key: tokio::sync::Mutex::new(None),
            session: Mutex::new(None),
        })
    }

    /// Counts on from here: what a till sold before it was started.
    pub fn count_on(&self, seq: u64) {
        self.seq.store(seq, Ordering::Relaxed);
    }

    /// Rings up a sale: gives it an id and encrypts it.
    ///
    /// # Errors
    /// [`TillError`] if there is no key to encrypt with, or it does not fit.
    pub async fn ring_up(&self, lines: &[Line]) -> Result<Prepared, TillError> {
        match self.format {
            Format::Sealed => self.seal(SaleId::new(self.clock.now()), lines).await,
            Format::Classic => self.encrypt(lines).await,
        }
    }

    async fn seal(&self, sale_id: SaleId, lines: &[Line]) -> Result<Prepared, TillError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let content = SealedContent {
            sale_id: &sale_id,
            shop_id: &self.shop,
            till: &self.name,
            seq,
            sold_at: self.clock.now().to_string(),
            sales: lines,
        };
        let content = Zeroizing::new(serde_json::to_string(&content).map_err(|_| TillError::Crypto)?);
        let content = match &self.signer {
            Some(signer) => signer.sign(content.as_bytes()),
            None => content,
        };
        let mut fetched = self.key.lock().await;
        let key = self.fresh_key(&mut fetched).await?;
        let sealed = {
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let spent = |s: &Session| s.left == 0 || s.since.elapsed() >= SESSION_TIME || s.kid != key.kid;
            if session.as_ref().is_none_or(spent) {
                *session = Some(Session::new(key).ok_or(TillError::Crypto)?);
            }
            let session = session.as_mut().ok_or(TillError::Crypto)?;
            session.left -= 1;
            session.sealer.seal(content.as_bytes()).map_err(|_| TillError::Crypto)?
        };
        let body = json!({"shop_id": self.shop, "message_id": sale_id, "sealed": sealed}).to_string();
        Ok(Prepared { seq, sale_id, body })
    }

    async fn encrypt(&self, lines: &[Line]) -> Result<Prepared, TillError> {
        let content = Zeroizing::new(json!({ "sales": lines }).to_string());
        let mut fetched = self.key.lock().await;
        let key = self.fresh_key(&mut fetched).await?;
        if content.len() > key.key.max_plaintext_size(&OAEP_SHA256_MGF1SHA256) {
            return Err(TillError::TooLong(content.len()));
        }
        let content_base64 = BASE64_STANDARD.encode(key.wrap(content.as_bytes()).ok_or(TillError::Crypto)?);
        let now = self.clock.now();
        let number: u64 = rand::rng().random_range(0..10_000_000_000_000_000_000);
        let day = now.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d");
        let sale_id: SaleId = format!("{number}-{day}").parse().map_err(|_| TillError::Crypto)?;
        let body = json!({"shop_id": self.shop, "message_id": sale_id, "content_base64": content_base64})
            .to_string();
        Ok(Prepared { seq: self.seq.fetch_add(1, Ordering::Relaxed), sale_id, body })
    }

    async fn fresh_key<'k>(&self, fetched: &'k mut Option<FetchedKey>) -> Result<&'k FetchedKey, TillError> {
        if fetched.as_ref().is_none_or(|key| key.since.elapsed() >= key.good_for) {
            let kept = self.kept_key();
            // Whoever has a key to go on with does not wait long for another.
            let patience = if kept.is_some() { KEY_PATIENCE.min(self.patience) } else { self.patience };
            *fetched = Some(match (self.fetch_key(patience).await, kept) {
                (Ok(key), _) => key,
                (Err(TillError::NoKey { .. }), Some(kept)) => kept,
                (Err(error), _) => return Err(error),
            });
        }
        fetched.as_ref().ok_or(TillError::Crypto)
    }

    /// The key that was fetched last, by this process or one before: a till that is cut off seals with it.
    fn kept_key(&self) -> Option<FetchedKey> {
        let kept = std::fs::read(self.key_file.as_ref()?).ok()?;
        let jwk: PublicKey = serde_json::from_slice(&kept).ok()?;
        FetchedKey::of(&jwk, KEPT_KEY_TIME).ok()
    }

    /// Keeps a key. That it cannot be kept is no reason not to use it.
    fn keep_key(&self, jwk: &PublicKey) {
        if let (Some(file), Ok(json)) = (&self.key_file, serde_json::to_vec(jwk)) {
            let beside = file.with_extension("new");
            let _ = std::fs::write(&beside, json).and_then(|()| std::fs::rename(&beside, file));
        }
    }

    async fn fetch_key(&self, patience: Duration) -> Result<FetchedKey, TillError> {
        let no_key = |why: String| TillError::NoKey { url: self.url.clone(), shop: self.key_of.clone(), why };
        let request = || self.client.get(format!("{}/shop/{}/key", self.url, self.key_of));
        let (response, _) =
            self.persist(request, patience).await.map_err(|error| no_key(error.to_string()))?;
        let jwk: PublicKey = response.json().await.map_err(|e| no_key(chain(&e)))?;
        let key = FetchedKey::of(&jwk, KEY_TIME).map_err(no_key)?;
        self.keep_key(&jwk);
        Ok(key)
    }

    /// Posts a sale once.
    ///
    /// # Errors
    /// [`Away`], after which it may be posted again.
    pub async fn post_once(&self, sale: &Prepared) -> Result<Answered, Away> {
        let (span, trace) = self.span(sale);
        let sent = self.send(&sale.body, trace).await;
        if let Ok((status, _)) | Err(TillError::Refused { status, .. }) = &sent {
            span.number("http.response.status_code", *status);
        }
        match span.ends("not-accepted", sent) {
            Ok(_) => Ok(Answered::Accepted),
            Err(TillError::Refused { status, detail }) => Ok(Answered::Refused { status, detail }),
            Err(TillError::Away(away)) => Err(away),
            Err(other) => Err(Away { why: other.to_string(), at_least: Duration::ZERO }),
        }
    }

    /// Posts this once, and gives what was answered.
    async fn send(&self, body: &str, trace: Option<TraceContext>) -> Result<(u16, Value), TillError> {
        let away = |why, at_least| TillError::Away(Away { why, at_least });
        let request = self.request(body, trace);
        let response = request.send().await.map_err(|error| away(chain(&error), Duration::ZERO))?;
        let status = response.status();
        if may_pass(status) {
            return Err(away(status.to_string(), retry_after(&response)));
        }
        if !status.is_success() {
            return Err(refused(response).await);
        }
        self.heard_of(response.headers().get(KASSA_KEY)).await;
        let answer = response.json().await.map_err(|error| away(chain(&error), Duration::ZERO))?;
        Ok((status.as_u16(), answer))
    }

    fn request(&self, body: &str, trace: Option<TraceContext>) -> RequestBuilder {
        let post = self.client.post(self.address()).header(header::CONTENT_TYPE, "application/json");
        let post = trace.iter().fold(post, |post, trace| post.header("traceparent", trace.to_string()));
        post.body(body.to_owned())
    }

    fn address(&self) -> String {
        format!("{}/shop", self.url)
    }

    /// Posts a sale until the shop says yes, a final no, or patience is over.
    ///
    /// # Errors
    /// [`TillError::Refused`] or [`TillError::GaveUp`].
    pub async fn post(&self, sale: &Prepared) -> Result<Posted, TillError> {
        let begun = Instant::now();
        let (span, trace) = self.span(sale);
        let answered = self.persist(|| self.request(&sale.body, trace), self.patience).await;
        match &answered {
            Ok((response, retries)) => {
                span.number("http.response.status_code", response.status().as_u16());
                span.number("http.request.resend_count", *retries);
            }
            Err(TillError::Refused { status, .. }) => span.number("http.response.status_code", *status),
            Err(_) => {}
        }
        let (response, retries) = span.ends("not-accepted", answered)?;
        self.heard_of(response.headers().get(KASSA_KEY)).await;
        // Reading the answer to its end frees the connection for the next sale.
        let _ = response.bytes().await;
        Ok(Posted { took: begun.elapsed(), retries })
    }

    /// The shop says which key it wants sales sealed with. Another than the one in hand is fetched before the next sale,
    /// but not again and again while the shop still gives out the old one.
    async fn heard_of(&self, wanted: Option<&header::HeaderValue>) {
        let Some(wanted) = wanted.filter(|_| self.key_of == self.shop) else { return };
        let mut fetched = self.key.lock().await;
        if let Some(key) = &*fetched
            && wanted.as_bytes() != key.kid.as_str().as_bytes()
            && key.since.elapsed() >= KEY_STANDS
        {
            *fetched = None;
        }
    }

    /// The span of a sale, from the first try to the yes, and what its requests say of it.
    fn span(&self, sale: &Prepared) -> (Span, Option<TraceContext>) {
        let url = self.address();
        let span = self.tracer.start(None, Kind::Client, "POST /shop");
        span.attribute("http.request.method", "POST");
        span.text("url.full", &url);
        if let (true, Ok(url)) = (span.is_on(), reqwest::Url::parse(&url)) {
            span.text("server.address", url.host_str().unwrap_or_default());
            span.number("server.port", url.port_or_known_default().unwrap_or_default());
        }
        span.text("kassa.shop_id", self.shop.as_str());
        span.text("kassa.sale_id", sale.sale_id.as_str());
        let trace = span.context().or_else(|| self.traceparent.then(TraceContext::random));
        (span, trace)
    }

    /// Sends the same request until it succeeds: exponential backoff with full jitter, never less
    /// than the shop's `Retry-After`.
    async fn persist(
        &self,
        request: impl Fn() -> RequestBuilder,
        patience: Duration,
    ) -> Result<(reqwest::Response, u32), TillError> {
        let begun = Instant::now();
        let mut backoff = Duration::from_millis(50);
        let mut retries = 0;
        loop {
            let (why, at_least) = match request().send().await {
                Ok(response) if response.status().is_success() => return Ok((response, retries)),
                Ok(response) if may_pass(response.status()) => {
                    (response.status().to_string(), retry_after(&response))
                }
                Ok(response) => return Err(refused(response).await),
                Err(error) => (chain(&error), Duration::ZERO),
            };
            let wait = at_least.max(backoff.mul_f64(rand::rng().random_range(0.0..1.0)));
            if begun.elapsed() + wait > patience {
                return Err(TillError::GaveUp(patience, why));
            }
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(LONGEST_WAIT);
            retries += 1;
        }
    }
}

/// What the shop asks to be waited.
fn retry_after(response: &reqwest::Response) -> Duration {
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    Duration::from_secs(after.unwrap_or(0))
}

/// Whether the same request may succeed later.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

async fn refused(response: reqwest::Response) -> TillError {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap_or_default();
    TillError::Refused {
        status,
        detail: problem["detail"].as_str().unwrap_or("without saying why").to_owned(),
    }
}

impl FetchedKey {
    fn of(jwk: &PublicKey, good_for: Duration) -> Result<Self, String> {
        let (n, e) = jwk.components().map_err(|e| e.to_string())?;
        let not_rsa = |_| "not an RSA key".to_owned();
        let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().map_err(not_rsa)?;
        let key = OaepPublicEncryptingKey::new(key).map_err(not_rsa)?;
        Ok(Self { kid: jwk.kid().clone(), key, since: Instant::now(), good_for })
    }

    fn wrap(&self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut ciphertext = vec![0; self.key.ciphertext_size()];
        let length = self.key.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut ciphertext, None).ok()?.len();
        ciphertext.truncate(length);
        Some(ciphertext)
    }
}

impl Session {
    fn new(key: &FetchedKey) -> Option<Self> {
        let mut content_key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(content_key.as_mut()).ok()?;
        let encrypted = key.wrap(content_key.as_ref())?;
        let sealer = Sealer::new(ContentKey::new(content_key.as_ref()).ok()?, &key.kid, &encrypted);
        Some(Self { kid: key.kid.clone(), sealer, left: SESSION_SALES, since: Instant::now() })
    }
}
