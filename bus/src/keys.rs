use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::{Metric, Metrics, ShopId, Thumbprint};
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::jwe::ContentKey;

/// Why a key did not open something. The variants are what a caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// A fact: there is no key for this shop, and asking again will not make one.
    #[error("the shop has no key")]
    NoSuchKey,
    /// A fact: this key does not open this ciphertext.
    #[error("the shop's key does not open it")]
    DoesNotOpen,
    /// An error: throttled, disabled, unreachable; it may work later.
    #[error("the shop's key cannot be used now")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
}

impl KeyError {
    pub fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(why.into()))
    }
}

/// The shops' RSA-2048 keys: KMS on AWS, files on one machine.
#[async_trait]
pub trait ShopKeys: Send + Sync {
    /// Opens an `RSAES_OAEP_SHA_256` ciphertext with the shop's private key of this name, or its present one.
    ///
    /// An adapter MUST tell the three [`KeyError`]s apart by the kind of failure, never by its text,
    /// and MUST answer `DoesNotOpen` for a ciphertext of the wrong length or under another key, and for a key that
    /// the shop does not have; `NoSuchKey` only if it has none at all.
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError>;

    /// The shop's public key, which tills seal with.
    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError>;
}

/// An RSA public key as a JWK (RFC 7517, RFC 7518 section 6.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    kty: String,
    #[serde(rename = "use")]
    usage: String,
    alg: String,
    kid: Thumbprint,
    n: String,
    e: String,
}

/// A JWK that is not an RSA key for `RSA-OAEP-256` encryption, or whose `kid` is not its thumbprint.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the JWK is not a consistent RSA-OAEP-256 encryption key: {0}")]
pub struct InvalidPublicKey(&'static str);

impl PublicKey {
    /// From modulus and exponent, big-endian without leading zeros.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if SHA-256 in base64url is ever not a thumbprint, which it always is.
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidPublicKey> {
        let (n, e) = (URL64.encode(modulus), URL64.encode(exponent));
        Ok(Self {
            kty: "RSA".into(),
            usage: "enc".into(),
            alg: "RSA-OAEP-256".into(),
            kid: thumbprint(&n, &e)?,
            n,
            e,
        })
    }

    #[must_use]
    pub fn kid(&self) -> &Thumbprint {
        &self.kid
    }

    /// Modulus and exponent of a key that came from outside.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if a member is not what this format has, or the `kid` is another key's.
    pub fn components(&self) -> Result<(Vec<u8>, Vec<u8>), InvalidPublicKey> {
        if (self.kty.as_str(), self.usage.as_str(), self.alg.as_str()) != ("RSA", "enc", "RSA-OAEP-256") {
            return Err(InvalidPublicKey("kty, use or alg"));
        }
        if thumbprint(&self.n, &self.e)? != self.kid {
            return Err(InvalidPublicKey("kid"));
        }
        let decode = |text: &str| URL64.decode(text).map_err(|_| InvalidPublicKey("n or e"));
        Ok((decode(&self.n)?, decode(&self.e)?))
    }
}

/// RFC 7638: SHA-256 over the required members in lexicographic order.
fn thumbprint(n: &str, e: &str) -> Result<Thumbprint, InvalidPublicKey> {
    let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    let hash = digest(&SHA256, canonical.as_bytes());
    URL64.encode(hash.as_ref()).parse().map_err(|_| InvalidPublicKey("thumbprint"))
}

/// Content keys of till sessions, so that the private key is asked once per session and not once per
/// sale.
///
/// Bounded and expiring. Keyed by shop, key and SHA-256 of the encrypted key, so what is cached for one
/// shop never opens another's envelope. Concurrent misses of one session ask once.
pub struct ContentKeys {
    keys: Arc<dyn ShopKeys>,
    cache: Cache<Arc<ContentKey>, KeyError>,
    metrics: Metrics,
}

/// Sessions kept at most: some 10 MB.
const SESSIONS: u64 = 20_000;

/// A little over the hour a till may use one session for.
const SESSION_TIME: Duration = Duration::from_mins(65);

impl ContentKeys {
    #[must_use]
    pub fn new(keys: Arc<dyn ShopKeys>, metrics: Metrics) -> Self {
        let cache = Cache::new(SESSIONS, SESSION_TIME);
        Self { keys, cache, metrics }
    }

    /// The content key behind an encrypted key.
    ///
    /// # Errors
    /// As [`ShopKeys::decrypt`]; what opens to something else than 32 bytes does not open.
    pub async fn unwrap(
        &self,
        shop: &ShopId,
        kid: &Thumbprint,
        encrypted_key: &[u8],
    ) -> Result<Arc<ContentKey>, KeyError> {
        let mut session = aws_lc_rs::digest::Context::new(&SHA256);
        for name in [shop.as_str(), kid.as_str()] {
            session.update(name.as_bytes());
            session.update(b"#");
        }
        session.update(encrypted_key);
        let mut is_fresh = false;
        let load = async {
            is_fresh = true;
            self.metrics.count(Metric::KeyUnwraps, 1);
            let key = self.keys.decrypt(shop, Some(kid), encrypted_key).await?;
            ContentKey::new(&key).map(Arc::new).map_err(|_| KeyError::DoesNotOpen)
        };
        let key = self.cache.get_or_load(session.finish().as_ref(), load).await?;
        if !is_fresh {
            self.metrics.count(Metric::KeyCacheHits, 1);
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // given the key of RFC 7638 section 3.1
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        assert_eq!(thumbprint(n, "AQAB").unwrap().as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_jwk_with_another_keys_name_is_refused() {
        let key = PublicKey::new(&[0xC3; 256], &[1, 0, 1]).unwrap();
        assert!(key.components().is_ok());
        let renamed = PublicKey { kid: "A".repeat(43).parse().unwrap(), ..key };
        assert!(renamed.components().is_err());
    }
}
