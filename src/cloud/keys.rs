//! The shops' keys in KMS, where they can be made and rotated as well.

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{BuildError, SdkError};
use aws_sdk_kms::operation::create_alias::CreateAliasError;
use aws_sdk_kms::operation::update_alias::UpdateAliasError;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, Tag};
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::kms::KmsKeys;
use kassa_bus::{ShopId, Thumbprint};
use zeroize::Zeroizing;

use crate::custody::KeepKeys;
use crate::plan::MakeKeys;
use crate::rotation::RotateKeys;

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

impl KmsKeyMaker {
    /// Makes a key that has no name yet, and says which.
    async fn create(&self, shop: &ShopId) -> Result<String, KeyError> {
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
        Ok(key.key_id)
    }

    /// Names a key. Again, it changes nothing.
    async fn name(&self, key_id: &str, alias: String) -> Result<(), KeyError> {
        let named = self.client.create_alias().alias_name(&alias).target_key_id(key_id).send().await;
        match named {
            Err(error)
                if error.as_service_error().is_some_and(CreateAliasError::is_already_exists_exception) =>
            {
                Ok(())
            }
            named => named.map(|_| ()).map_err(|source: SdkError<_>| {
                KeyError::unavailable(Unnamed { key_id: key_id.to_owned(), alias, source: Box::new(source) })
            }),
        }
    }

    /// Names a key by its thumbprint.
    async fn name_own(&self, shop: &ShopId, key_id: &str) -> Result<Thumbprint, KeyError> {
        let kid = self.keys.fetch_alias(key_id).await?.kid().clone();
        self.name(key_id, self.keys.alias_of(shop, &kid)).await?;
        Ok(kid)
    }

    async fn key_id(&self, alias: &str) -> Result<String, KeyError> {
        let described =
            self.client.describe_key().key_id(alias).send().await.map_err(KeyError::unavailable)?;
        let key = described.key_metadata.map(|key| key.key_id);
        key.ok_or_else(|| KeyError::unavailable(format!("KMS does not say which key {alias} is")))
    }

    /// A key of the shop that has a name of its own and is none of these.
    async fn left(&self, shop: &ShopId, known: &[Thumbprint]) -> Result<Option<Thumbprint>, KeyError> {
        let beginning = format!("{}/", self.keys.alias(shop));
        let mut aliases = self.client.list_aliases().into_paginator().items().send();
        while let Some(alias) = aliases.next().await {
            let alias = alias.map_err(KeyError::unavailable)?;
            let name = alias.alias_name.as_deref().unwrap_or_default();
            let kid = name.strip_prefix(&beginning).and_then(|kid| kid.parse().ok());
            if let Some(kid) = kid.filter(|kid| !known.contains(kid)) {
                return Ok(Some(kid));
            }
        }
        Ok(None)
    }
}

impl KeepKeys for KmsKeyMaker {
    fn place(&self, shop: &ShopId) -> String {
        self.keys.alias(shop)
    }

    fn put_back(&self, shop: &ShopId) -> String {
        format!(
            "Name it again (`aws kms create-alias` or `update-alias --alias-name {}`); one that is to be deleted is kept for days \
             (`aws kms cancel-key-deletion`)",
            self.keys.alias(shop)
        )
    }
}

#[async_trait]
impl MakeKeys for KmsKeyMaker {
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError> {
        let key_id = self.create(shop).await?;
        self.name(&key_id, self.keys.alias(shop)).await?;
        self.name_own(shop, &key_id).await.map(|_| ())
    }
}

#[async_trait]
impl RotateKeys for KmsKeyMaker {
    async fn name_present(&self, shop: &ShopId) -> Result<Thumbprint, KeyError> {
        let key_id = self.key_id(&self.keys.alias(shop)).await?;
        self.name_own(shop, &key_id).await
    }

    async fn make_next(&self, shop: &ShopId, known: &[Thumbprint]) -> Result<Thumbprint, KeyError> {
        if let Some(left) = self.left(shop, known).await? {
            return Ok(left);
        }
        let key_id = self.create(shop).await?;
        self.name_own(shop, &key_id).await
    }

    async fn promote(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        let key_id = self.key_id(&self.keys.alias_of(shop, kid)).await?;
        let moved = self.client.update_alias().alias_name(self.keys.alias(shop)).target_key_id(&key_id);
        match moved.send().await {
            // The alias was lost, and with it the key before.
            Err(error) if error.as_service_error().is_some_and(UpdateAliasError::is_not_found_exception) => {
                self.name(&key_id, self.keys.alias(shop)).await
            }
            moved => moved.map(|_| ()).map_err(KeyError::unavailable),
        }
    }

    async fn disable(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        let key_id = self.key_id(&self.keys.alias_of(shop, kid)).await?;
        let disabled = self.client.disable_key().key_id(key_id).send().await;
        disabled.map(|_| ()).map_err(KeyError::unavailable)
    }
}

#[async_trait]
impl ShopKeys for KmsKeyMaker {
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.keys.decrypt(shop, kid, ciphertext).await
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.keys.public_key(shop).await
    }
}
