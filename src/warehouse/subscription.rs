use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kassa_bus::cache::Cache;

use super::sns::{NotOurs, SigningCertificate, SnsMessage, TopicArn};

/// Gets what stands at a URL of SNS.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// MUST follow no redirect, and fail for any status but 200.
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError>;
}

/// SNS cannot be asked now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot ask SNS: {0}")]
pub struct FetchError(pub String);

/// Subscriptions to topics, over HTTP(S): whose messages are taken.
pub struct Subscriptions {
    topics: Vec<TopicArn>,
    fetch: Arc<dyn Fetch>,
    /// By URL; a certificate never changes.
    certificates: Cache<Arc<SigningCertificate>, SnsError>,
}

/// Why a message of SNS is not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SnsError {
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Subscriptions {
    #[must_use]
    pub fn new(topics: Vec<TopicArn>, fetch: Arc<dyn Fetch>) -> Self {
        // One in use, one that takes over, per region; all else is somebody trying names.
        let certificates = Cache::new(32, Duration::from_hours(24));
        Self { topics, fetch, certificates }
    }

    /// Reads a message that one of the topics sent.
    pub(super) async fn verified(&self, body: &[u8], now: Timestamp) -> Result<SnsMessage, SnsError> {
        let message = SnsMessage::read(body)?;
        let url = message.certificate_url(&self.topics, now)?;
        message.verify(&*self.certificate(url).await?, now)?;
        Ok(message)
    }

    async fn certificate(&self, url: &str) -> Result<Arc<SigningCertificate>, SnsError> {
        let fetch = async {
            let pem = self.fetch.get(url).await?;
            Ok(Arc::new(SigningCertificate::from_pem(&pem)?))
        };
        self.certificates.get_or_load(url.as_bytes(), fetch).await
    }

    /// Confirms the subscription that a verified message asks for.
    pub(super) async fn confirm(&self, message: &SnsMessage) -> Result<(), SnsError> {
        self.fetch.get(message.confirmation_url(&self.topics)?).await?;
        Ok(())
    }
}

/// SNS itself.
pub struct Https(reqwest::Client);

/// Bytes of an answer, at most: a certificate is two thousand.
const MAX_ANSWER: usize = 64 * 1024;

impl Https {
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10));
        Ok(Self(client.build()?))
    }
}

#[async_trait]
impl Fetch for Https {
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        // Without the URL: a confirmation's holds its token.
        let failed = |error: reqwest::Error| FetchError(kassa_bus::error::chain(&error.without_url()));
        let mut answer = self.0.get(url).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError(format!("it answers {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(FetchError("it answers too much".into()));
            }
        }
        Ok(body)
    }
}
