use std::error::Error;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use kassa_bus::Clock;
use kassa_bus::error::chain;
use kassa_bus::webhook::{ID, SIGNATURE, TIMESTAMP, sign};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use zeroize::Zeroizing;

use super::answer::{Answer, Down, Meaning};
use super::delivery::Delivery;
use super::signing::Signing;
use super::target::Rules;

/// Bytes of an answer that are read.
const READ: usize = 4096;

/// The way to the warehouse.
pub struct Post {
    client: Client,
    url: Url,
    signing: Signing,
    clock: Clock,
}

/// A delivery ready to be posted, however often.
pub struct Letter {
    id: String,
    json: Zeroizing<Vec<u8>>,
    gzip: Vec<u8>,
}

impl Letter {
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        let json = delivery.body();
        Self { id: delivery.id(), gzip: gzip(&json), json }
    }
}

impl Post {
    /// # Errors
    /// If this machine has no TLS.
    pub fn new(
        url: Url,
        rules: Rules,
        timeout: Duration,
        signing: Signing,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("kassa/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .redirect(Policy::none())
            // A proxy would look up the name itself, unchecked.
            .no_proxy()
            .dns_resolver(Checked(rules))
            .build()?;
        Ok(Self { client, url, signing, clock })
    }

    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Posts once.
    pub async fn post(&self, letter: &Letter) -> Meaning {
        let now = self.clock.now();
        let secrets = match self.signing.secrets(now).await {
            Ok(secrets) => secrets,
            Err(why) => {
                let why = format!("the secret to sign with cannot be had: {why}");
                return Meaning::Down(Down { why, until: None, blip: false });
            }
        };
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .header(ID, &letter.id)
            .header(TIMESTAMP, now.as_second())
            .header(SIGNATURE, sign(&letter.id, now, &letter.json, &secrets))
            .body(letter.gzip.clone());
        match request.send().await {
            Ok(response) => answer(response).await.meaning(self.clock.now()),
            Err(error) => Meaning::Down(no_answer(error)),
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes whatever is written to it.
    let _ = gzip.write_all(bytes);
    gzip.finish().unwrap_or_default()
}

/// What was said, as far as it was heard: the status counts, even if the text breaks off.
async fn answer(mut response: Response) -> Answer {
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: retry_after.map(str::to_owned),
        text: Vec::new(),
    };
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = READ - answer.text.len();
        answer.text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if answer.text.len() == READ {
            break;
        }
    }
    answer
}

fn no_answer(error: reqwest::Error) -> Down {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let forbidden = causes.any(<dyn Error>::is::<OnlyPrivate>);
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { chain(&error.without_url()) };
    Down { why, until: None, blip: !forbidden }
}

/// The system's names, less the addresses that may not be connected to.
struct Checked(Rules);

#[derive(Debug, thiserror::Error)]
#[error("the warehouse's name has private addresses only (WAREHOUSE_ALLOW_PRIVATE=true permits them)")]
struct OnlyPrivate;

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(rules) = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<_> = found.filter(|address| rules.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(OnlyPrivate.into());
            }
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}
