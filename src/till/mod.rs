//! A till: seals sales with its shop's public key, keeps them until the shop has answered for good, and posts them.

/// What an answer says of a sale.
pub mod answer;
/// A till that sells by its journal.
pub mod counter;
/// Sending what waits in a journal.
pub mod drain;
/// What a till keeps on its disk.
pub mod folder;
/// What a till is given to sell.
pub mod goods;
/// Sales on disk, before the shop hears of them.
pub mod journal;
/// The shop's public key, and what is sealed with it.
mod key;
/// What became of sales that the shop took.
pub mod outcome;
/// Posting, again and again.
mod post;
/// `kassa sell`: many sales, with a progress bar and a summary.
pub mod sell;
/// What a till's journal tells people.
pub mod status;
/// Where a shop takes sales.
pub mod url;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rsa::OAEP_SHA256_MGF1SHA256;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use jiff::Timestamp;
use kassa_bus::jws::Signer;
use kassa_bus::limits::MAX_ENVELOPE;
use kassa_bus::{Clock, Line, SaleId, ShopId, Tracer};
use kassa_pipeline::content::{self, InvalidContent};
use rand::Rng;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use answer::{Away, Refused};
use key::{FetchedKey, SESSION_TIME, Session};
use url::{InvalidUrl, ShopUrl};

/// How a till encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JWE: any number of lines, and the shop notices tampering.
    Sealed,
    /// RSA alone, as the older tills do: at most 190 bytes.
    Classic,
}

/// A till: seals sales with its shop's public key and posts each until it is accepted.
pub struct Till {
    pub shop: ShopId,
    pub name: String,
    pub format: Format,
    /// Whose public key to seal with: its own shop's, unless it is misconfigured.
    pub key_of: ShopId,
    /// How long the till tries without an answer before it gives up.
    pub patience: Duration,
    /// Makes a span of each sale, if it is on, which the shop's spans are below.
    pub tracer: Tracer,
    /// Where the shop's public key is kept, if it is.
    pub key_file: Option<PathBuf>,
    /// Signs sealed sales, if the till is enrolled.
    pub signer: Option<Signer>,
    /// Whether each sale is sent with a `traceparent` in any case.
    pub traceparent: bool,
    /// Hears why the shop does not take sales, each time it does not.
    pub told: Box<dyn Fn(&Away) + Send + Sync>,
    url: ShopUrl,
    client: Client,
    clock: Clock,
    seq: AtomicU64,
    key: tokio::sync::Mutex<Option<FetchedKey>>,
    session: Mutex<Option<Session>>,
}

/// A sale ready to be posted, as often as it takes.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The till's counter.
    pub seq: u64,
    pub sale_id: SaleId,
    pub body: String,
}

/// What is sent of a sealed sale, alone or in a batch.
#[derive(Serialize, Deserialize)]
struct Member<'a> {
    #[serde(borrow)]
    message_id: &'a RawValue,
    #[serde(borrow)]
    sealed: &'a RawValue,
}

impl Prepared {
    /// What of it goes into a batch, which takes sealed sales only.
    fn member(&self) -> Option<Member<'_>> {
        serde_json::from_str(&self.body).ok()
    }

    fn format(&self) -> Format {
        if self.member().is_some() { Format::Sealed } else { Format::Classic }
    }
}

/// Why a sale was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TillError {
    #[error("{url} has no key of {shop}: {why}")]
    NoKey { url: String, shop: ShopId, why: String },
    #[error("the sale has {0} bytes; classic sales have at most 190, use --format sealed")]
    TooLong(usize),
    #[error("the shop would not take the sale: {0}")]
    Invalid(#[from] InvalidContent),
    #[error("the shop would not take the sale: its envelope has {0} bytes, of {MAX_ENVELOPE}")]
    TooLarge(usize),
    #[error("the sale cannot be encrypted")]
    Crypto,
    #[error("the shop refused the sale: {} {}", .0.status, .0.detail)]
    Refused(Refused),
    #[error("the shop did not accept the sale within {0:?}; the last answer was: {1}")]
    GaveUp(Duration, String),
    #[error("the shop does not take sales now: {0}")]
    Away(Away),
    #[error("{0}")]
    Url(#[from] InvalidUrl),
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
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

/// What is sold in one sale.
#[derive(Clone)]
pub struct Basket {
    pub lines: Vec<Line>,
    /// When, if not now. A classic sale has no place for it.
    pub sold_at: Option<Timestamp>,
}

impl From<Vec<Line>> for Basket {
    fn from(lines: Vec<Line>) -> Self {
        Self { lines, sold_at: None }
    }
}

impl From<&[Line]> for Basket {
    fn from(lines: &[Line]) -> Self {
        lines.to_vec().into()
    }
}

impl Till {
    /// A till of `shop` that posts to `url`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// If that is no shop's address, or no HTTP client can be made.
    pub fn new(url: &str, shop: ShopId, name: &str, format: Format, clock: Clock) -> Result<Self, TillError> {
        let url: ShopUrl = url.parse()?;
        // A shop sends nobody elsewhere: whatever does is not the shop. And no proxy stands before one of this machine.
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).pool_max_idle_per_host(1024);
        let client = if url.is_loopback() { client.no_proxy() } else { client }.build()?;
        Ok(Self {
            key_of: shop.clone(),
            shop,
            name: name.to_owned(),
            format,
            patience: Duration::from_mins(1),
            tracer: Tracer::default(),
            traceparent: false,
            told: Box::new(|_| {}),
            signer: None,
            key_file: None,
            url,
            client,
            clock,
            seq: AtomicU64::new(1),
            key: tokio::sync::Mutex::new(None),
            session: Mutex::new(None),
        })
    }

    #[must_use]
    pub fn url(&self) -> &ShopUrl {
        &self.url
    }

    /// Counts on from here: what a till sold before it was started.
    pub fn count_on(&self, seq: u64) {
        self.seq.store(seq, Ordering::Relaxed);
    }

    /// Rings up a sale: gives it an id and encrypts it. What the shop would refuse for what is in it is not rung up.
    ///
    /// # Errors
    /// [`TillError`] if there is no key to encrypt with, or the shop would not take it.
    pub async fn ring_up(&self, basket: impl Into<Basket>) -> Result<Prepared, TillError> {
        let basket = basket.into();
        match self.format {
            Format::Sealed => self.seal(SaleId::new(self.clock.now()), &basket).await,
            Format::Classic => self.encrypt(&basket.lines).await,
        }
    }

    async fn seal(&self, sale_id: SaleId, basket: &Basket) -> Result<Prepared, TillError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let content = SealedContent {
            sale_id: &sale_id,
            shop_id: &self.shop,
            till: &self.name,
            seq,
            sold_at: basket.sold_at.unwrap_or_else(|| self.clock.now()).to_string(),
            sales: &basket.lines,
        };
        let content = Zeroizing::new(serde_json::to_string(&content).map_err(|_| TillError::Crypto)?);
        // By the shop's own rules, while it can still be rung up otherwise.
        content::parse(content.as_bytes())?;
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
        if sealed.len() > MAX_ENVELOPE {
            return Err(TillError::TooLarge(sealed.len()));
        }
        let body = json!({"shop_id": self.shop, "message_id": sale_id, "sealed": sealed}).to_string();
        Ok(Prepared { seq, sale_id, body })
    }

    async fn encrypt(&self, lines: &[Line]) -> Result<Prepared, TillError> {
        let content = Zeroizing::new(json!({ "sales": lines }).to_string());
        content::parse(content.as_bytes())?;
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
}
