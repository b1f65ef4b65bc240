use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use kassa_bus::Thumbprint;
use kassa_bus::jwe::{ContentKey, Sealer};
use kassa_bus::keys::PublicKey;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::answer::{Away, Heard};
use super::{Till, TillError};

/// Sales one content key seals, and for how long, at most.
const SESSION_SALES: u32 = 1_000;
pub const SESSION_TIME: Duration = Duration::from_hours(1);

/// How long a fetched public key is used.
const KEY_TIME: Duration = Duration::from_hours(1);

/// How long one that was kept is used before the shop is asked again.
const KEPT_KEY_TIME: Duration = Duration::from_mins(1);

/// How long the shop is asked for a key where there is one to go on with.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// How long a key that was just fetched is used, whatever the shop says.
const KEY_STANDS: Duration = Duration::from_secs(1);

/// The shop's public key.
pub struct FetchedKey {
    pub kid: Thumbprint,
    pub key: OaepPublicEncryptingKey,
    since: Instant,
    good_for: Duration,
}

/// A content key that several sales are sealed with.
pub struct Session {
    pub kid: Thumbprint,
    pub sealer: Sealer,
    pub left: u32,
    pub since: Instant,
}

impl Till {
    pub(super) async fn fresh_key<'k>(
        &self,
        fetched: &'k mut Option<FetchedKey>,
    ) -> Result<&'k FetchedKey, TillError> {
        if fetched.as_ref().is_none_or(|key| key.since.elapsed() >= key.good_for) {
            let kept = fetched.take().map(FetchedKey::kept).or_else(|| self.kept_key());
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
        let no_key =
            |why: String| TillError::NoKey { url: self.url.to_string(), shop: self.key_of.clone(), why };
        let request = || self.client.get(format!("{}/shop/{}/key", self.url, self.key_of));
        let told = |heard: &Heard| match heard.json::<PublicKey>() {
            Some(jwk) if heard.status == 200 => {
                let key = FetchedKey::of(&jwk, KEY_TIME).map_err(Away::because)?;
                Ok(Ok((jwk, key)))
            }
            _ => heard.refusal().map(Err),
        };
        let (told, _) =
            self.persist(request, told, patience).await.map_err(|error| no_key(error.to_string()))?;
        let (jwk, key) = told.map_err(|refused| no_key(refused.detail))?;
        self.keep_key(&jwk);
        Ok(key)
    }

    /// Has a key to seal with, or waits for one as long as the till has patience.
    ///
    /// # Errors
    /// [`TillError::NoKey`].
    pub async fn ready(&self) -> Result<(), TillError> {
        self.fresh_key(&mut *self.key.lock().await).await.map(|_| ())
    }

    /// The shop says which key it wants sales sealed with. Another than the one in hand is fetched before the next sale,
    /// but not again and again while the shop still gives out the old one.
    pub(super) async fn heard_of(&self, wanted: Option<&HeaderValue>) {
        let Some(wanted) = wanted.filter(|_| self.key_of == self.shop) else { return };
        let mut fetched = self.key.lock().await;
        if let Some(key) = &mut *fetched
            && wanted.as_bytes() != key.kid.as_str().as_bytes()
            && key.since.elapsed() >= KEY_STANDS
        {
            key.good_for = Duration::ZERO;
        }
    }
}

impl FetchedKey {
    /// To go on with, for a minute, where there is no newer one.
    fn kept(self) -> Self {
        Self { since: Instant::now(), good_for: KEPT_KEY_TIME, ..self }
    }

    pub fn of(jwk: &PublicKey, good_for: Duration) -> Result<Self, String> {
        let (n, e) = jwk.components().map_err(|e| e.to_string())?;
        let not_rsa = |_| "not an RSA key".to_owned();
        let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().map_err(not_rsa)?;
        let key = OaepPublicEncryptingKey::new(key).map_err(not_rsa)?;
        Ok(Self { kid: jwk.kid().clone(), key, since: Instant::now(), good_for })
    }

    pub fn wrap(&self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut ciphertext = vec![0; self.key.ciphertext_size()];
        let length = self.key.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut ciphertext, None).ok()?.len();
        ciphertext.truncate(length);
        Some(ciphertext)
    }
}

impl Session {
    pub fn new(key: &FetchedKey) -> Option<Self> {
        let mut content_key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(content_key.as_mut()).ok()?;
        let encrypted = key.wrap(content_key.as_ref())?;
        let sealer = Sealer::new(ContentKey::new(content_key.as_ref()).ok()?, &key.kid, &encrypted);
        Some(Self { kid: key.kid.clone(), sealer, left: SESSION_SALES, since: Instant::now() })
    }
}
