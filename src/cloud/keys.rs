use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{BuildError, SdkError};
use aws_sdk_kms::types::{KeySpec, KeyUsageType, Tag};
use kassa_bus::ShopId;
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::kms::KmsKeys;
use zeroize::Zeroizing;

use crate::plan::MakeKeys;

/// The shops' keys in KMS, where keys can be made as well.
pub struct KmsKeyMaker {
    client: Client,
    keys: KmsKeys,
    /// `<service>-<stage>`: whose keys these are, for whoever looks at them in the console.
    owner: String,
}

impl KmsKeyMaker {
    #[must_use]
    pub fn new(client: Client, prefix: &str, owner: String) -> Self {
        Self { keys: KmsKeys::new(client.clone(), prefix), client, owner }
    }
}

/// The key was made and has no alias: it costs money and opens nothing.
#[derive(Debug, thiserror::Error)]
#[error("key {key_id} was made, but not named {alias}; name it with `aws kms create-alias`, or delete it")]
struct Unnamed {
    key_id: String,
    alias: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn tag(name: &str, value: &str) -> Result<Tag, BuildError> {
    Tag::builder().tag_key(name).tag_value(value).build()
}

#[async_trait]
impl MakeKeys for KmsKeyMaker {
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError> {
        let request = self
            .client
            .create_key()
            .key_spec(KeySpec::Rsa2048)
            .key_usage(KeyUsageType::EncryptDecrypt)
            .description(format!("Opens the sales of {shop} ({})", self.owner))
            .tags(tag("kassa:shop", shop.as_str()).map_err(KeyError::unavailable)?)
            .tags(tag("kassa:stack", &self.owner).map_err(KeyError::unavailable)?);
        let made = request.send().await.map_err(KeyError::unavailable)?;
        let key =
            made.key_metadata.ok_or_else(|| KeyError::unavailable("KMS made a key and did not say which"))?;
        let alias = self.keys.alias(shop);
        let named = self.client.create_alias().alias_name(&alias).target_key_id(&key.key_id).send().await;
        named.map(|_| ()).map_err(|source: SdkError<_>| {
            KeyError::unavailable(Unnamed { key_id: key.key_id, alias, source: Box::new(source) })
        })
    }
}

#[async_trait]
impl ShopKeys for KmsKeyMaker {
    async fn decrypt(&self, shop: &ShopId, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.keys.decrypt(shop, ciphertext).await
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.keys.public_key(shop).await
    }
}
