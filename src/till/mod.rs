/// What a till keeps on its disk.
pub mod folder;
/// `kassa sell`: many sales, with a progress bar and a summary.
pub mod sell;

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
use kassa_bus::error::chain;
use kassa_bus::jwe::{ContentKey, Sealer};
use kassa_bus::jws::Signer;
use kassa_bus::keys::PublicKey;
use kassa_bus::trace::{Kind, Span};
use kassa_bus::{Clock, Line, SaleId, ShopId, Thumbprint, TraceContext, Tracer};
use rand::Rng;
use reqwest::{Client, StatusCode, header};
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
            url: url.trim_end_matches('/').to_owned(),
            client,
            clock,
            seq: AtomicU64::new(1),
            key: tokio::sync::Mutex::new(None),
            session: Mutex::new(None),
        })
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
        let content = SealedContent {
            sale_id: &sale_id,
            shop_id: &self.shop,
            till: &self.name,
            seq: self.seq.fetch_add(1, Ordering::Relaxed),
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
        Ok(Prepared { sale_id, body })
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
        Ok(Prepared { sale_id, body })
    }

    async fn fresh_key<'k>(&self, fetched: &'k mut Option<FetchedKey>) -> Result<&'k FetchedKey, TillError> {
        if fetched.as_ref().is_none_or(|key| key.since.elapsed() >= KEY_TIME) {
            *fetched = Some(self.fetch_key().await?);
        }
        fetched.as_ref().ok_or(TillError::Crypto)
    }

    async fn fetch_key(&self) -> Result<FetchedKey, TillError> {
        let no_key = |why: String| TillError::NoKey { url: self.url.clone(), shop: self.key_of.clone(), why };
        let request = || self.client.get(format!("{}/shop/{}/key", self.url, self.key_of));
        let (response, _) = self.persist(request).await.map_err(|error| no_key(error.to_string()))?;
        let jwk: PublicKey = response.json().await.map_err(|e| no_key(chain(&e)))?;
        let (n, e) = jwk.components().map_err(|e| no_key(e.to_string()))?;
        let key: PublicEncryptingKey =
            PublicKeyComponents { n, e }.try_into().map_err(|_| no_key("not an RSA key".into()))?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| no_key("not an RSA key".into()))?;
        Ok(FetchedKey { kid: jwk.kid().clone(), key, since: Instant::now() })
    }

    /// Posts a sale until the shop says yes, a final no, or patience is over.
    ///
    /// # Errors
    /// [`TillError::Refused`] or [`TillError::GaveUp`].
    pub async fn post(&self, sale: &Prepared) -> Result<Posted, TillError> {
        let begun = Instant::now();
        let url = format!("{}/shop", self.url);
        let span = self.span(sale, &url);
        let trace = span.context().or_else(|| self.traceparent.then(TraceContext::random));
        let request = || {
            let post = self.client.post(&url).header(header::CONTENT_TYPE, "application/json");
            let post = trace.iter().fold(post, |post, trace| post.header("traceparent", trace.to_string()));
            post.body(sale.body.clone())
        };
        let answered = self.persist(request).await;
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

    /// The span of a sale, from the first try to the yes.
    fn span(&self, sale: &Prepared, url: &str) -> Span {
        let span = self.tracer.start(None, Kind::Client, "POST /shop");
        span.attribute("http.request.method", "POST");
        span.text("url.full", url);
        if let (true, Ok(url)) = (span.is_on(), reqwest::Url::parse(url)) {
            span.text("server.address", url.host_str().unwrap_or_default());
            span.number("server.port", url.port_or_known_default().unwrap_or_default());
        }
        span.text("kassa.shop_id", self.shop.as_str());
        span.text("kassa.sale_id", sale.sale_id.as_str());
        span
    }

    /// Sends the same request until it succeeds: exponential backoff with full jitter, never less
    /// than the shop's `Retry-After`.
    async fn persist(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<(reqwest::Response, u32), TillError> {
        let begun = Instant::now();
        let mut backoff = Duration::from_millis(50);
        let mut retries = 0;
        loop {
            let (why, at_least) = match request().send().await {
                Ok(response) if response.status().is_success() => return Ok((response, retries)),
                Ok(response) if may_pass(response.status()) => {
                    let after = response
                        .headers()
                        .get(header::RETRY_AFTER)
                        .and_then(|v| v.to_str().ok()?.parse().ok());
                    (response.status().to_string(), Duration::from_secs(after.unwrap_or(0)))
                }
                Ok(response) => return Err(refused(response).await),
                Err(error) => (chain(&error), Duration::ZERO),
            };
            let wait = at_least.max(backoff.mul_f64(rand::rng().random_range(0.0..1.0)));
            if begun.elapsed() + wait > self.patience {
                return Err(TillError::GaveUp(self.patience, why));
            }
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(LONGEST_WAIT);
            retries += 1;
        }
    }
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
