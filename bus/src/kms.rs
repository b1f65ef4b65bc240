use std::time::Duration;

use crate::{ShopId, Thumbprint};
use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::SdkError;
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, KeySpec, KeyUsageType};
use pkcs1::RsaPublicKey;
use pkcs1::der::Decode;
use spki::SubjectPublicKeyInfoRef;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::jwe::RSA_2048_BYTES;
use crate::keys::{KeyError, PublicKey, ShopKeys};
use crate::trace;

/// The shops' keys in KMS: the present one under the alias `alias/<keyPrefix><shop_id>`, and each under
/// `alias/<keyPrefix><shop_id>/<kid>`, by which it is found after the shop has got another.
pub struct KmsKeys {
    client: Client,
    prefix: String,
    public: Cache<PublicKey, KeyError>,
    /// Keys that were found to have no alias of their own.
    unnamed: Cache<()>,
}

/// How long a key is taken to have no alias of its own.
const UNNAMED_TIME: Duration = Duration::from_mins(5);

/// How long a public key is given out before KMS is asked again.
const PUBLIC_KEY_TIME: Duration = Duration::from_mins(5);

impl KmsKeys {
    #[must_use]
    pub fn new(client: Client, prefix: impl Into<String>) -> Self {
        let public = Cache::new(10_000, PUBLIC_KEY_TIME);
        let unnamed = Cache::new(10_000, UNNAMED_TIME);
        Self { client, prefix: prefix.into(), public, unnamed }
    }

    /// The alias a shop's present key is found by.
    #[must_use]
    pub fn alias(&self, shop: &ShopId) -> String {
        format!("alias/{}{shop}", self.prefix)
    }

    /// The alias that a key keeps.
    #[must_use]
    pub fn alias_of(&self, shop: &ShopId, kid: &Thumbprint) -> String {
        format!("{}/{kid}", self.alias(shop))
    }

    /// The public key under the shop's alias as KMS has it now.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn fetch(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.fetch_alias(&self.alias(shop)).await
    }

    /// The public key under an alias, or of a key's id.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn fetch_alias(&self, alias: &str) -> Result<PublicKey, KeyError> {
        let request = self.client.get_public_key().key_id(alias);
        let answer = request.send().await.map_err(|error| match error.as_service_error() {
            Some(GetPublicKeyError::NotFoundException(_)) => KeyError::NoSuchKey,
            _ => KeyError::unavailable(error),
        })?;
        if (answer.key_spec.as_ref(), answer.key_usage.as_ref())
            != (Some(&KeySpec::Rsa2048), Some(&KeyUsageType::EncryptDecrypt))
        {
            let wrong = format!("{alias} is not an RSA_2048 key for ENCRYPT_DECRYPT");
            return Err(KeyError::unavailable(wrong));
        }
        let der =
            answer.public_key.ok_or_else(|| KeyError::unavailable("KMS answered without a public key"))?;
        let not_rsa = |_| KeyError::unavailable(format!("{alias} is not an RSA key"));
        let info = SubjectPublicKeyInfoRef::from_der(der.as_ref()).map_err(|e| not_rsa(e.to_string()))?;
        let key = RsaPublicKey::from_der(info.subject_public_key.raw_bytes())
            .map_err(|e| not_rsa(e.to_string()))?;
        PublicKey::new(key.modulus.as_bytes(), key.public_exponent.as_bytes()).map_err(KeyError::unavailable)
    }
}

impl KmsKeys {
    async fn open(&self, alias: String, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let request = self
            .client
            .decrypt()
            .key_id(alias)
            .encryption_algorithm(EncryptionAlgorithmSpec::RsaesOaepSha256)
            .ciphertext_blob(Blob::new(ciphertext));
        let span = trace::aws("KMS", "Decrypt");
        let answer = request.send().await.map_err(key_error);
        // That a key does not open an envelope is an answer.
        if let Err(error @ KeyError::Unavailable(_)) = &answer {
            span.fail("kms", error.to_string());
        }
        let answer = answer?;
        let plaintext =
            answer.plaintext.ok_or_else(|| KeyError::unavailable("KMS answered without a plaintext"))?;
        Ok(Zeroizing::new(plaintext.into_inner()))
    }
}

#[async_trait]
impl ShopKeys for KmsKeys {
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        // KMS would answer with an error that it has for other things as well.
        if ciphertext.len() != RSA_2048_BYTES {
            return Err(KeyError::DoesNotOpen);
        }
        let Some(kid) = kid else { return self.open(self.alias(shop), ciphertext).await };
        let own = || self.open(self.alias_of(shop, kid), ciphertext);
        if self.unnamed.get(kid.as_str().as_bytes()).await.is_none() {
            match own().await {
                Err(KeyError::NoSuchKey) => self.unnamed.insert(kid.as_str().as_bytes(), ()).await,
                opened => return opened,
            }
        }
        // It was made before keys had aliases of their own, and is the present one, or was a moment ago.
        match self.open(self.alias(shop), ciphertext).await {
            Err(KeyError::DoesNotOpen) => match own().await {
                Err(KeyError::NoSuchKey) => Err(KeyError::DoesNotOpen),
                opened => opened,
            },
            opened => opened,
        }
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.public.get_or_load(shop.as_str().as_bytes(), self.fetch(shop)).await
    }
}

/// A key that is disabled or about to be deleted may be mended, and then opens what waits.
fn key_error(error: SdkError<DecryptError>) -> KeyError {
    match error.as_service_error() {
        Some(DecryptError::NotFoundException(_)) => KeyError::NoSuchKey,
        Some(DecryptError::InvalidCiphertextException(_) | DecryptError::IncorrectKeyException(_)) => {
            KeyError::DoesNotOpen
        }
        _ => KeyError::unavailable(error),
    }
}
