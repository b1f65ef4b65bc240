use std::sync::Arc;

use jiff::Timestamp;
use kassa_bus::jwe::{Jwe, RSA_2048_BYTES};
use kassa_bus::keys::{ContentKeys, KeyError, ShopKeys};
use kassa_bus::message::{AcceptedSale, DecryptedSale, Envelope, Origin, Reason, SealedWith, decode_content};
use kassa_bus::registry::{Registry, Shop, ShopKey};
use kassa_bus::table::TableError;
use kassa_bus::{Metric, Metrics, Retry, SaleId, ShopId, Thumbprint, TillId};
use zeroize::Zeroizing;

use crate::content::{self, Content};
use crate::event::envelope_hash;
use crate::reject::Rejection;
use crate::signature;

/// Opens envelopes with their shop's key. Writes nothing.
pub struct Opener {
    pub registry: Registry,
    pub keys: Arc<dyn ShopKeys>,
    pub content_keys: ContentKeys,
    pub metrics: Metrics,
}

/// An envelope that opened.
struct Opened {
    content: Content,
    /// The key that opened it, where the envelope names it.
    key: Option<Thumbprint>,
    /// Whose that is, if it is another shop's.
    key_of: Option<ShopId>,
    signed_by: Option<TillId>,
}

/// What can become of an envelope, beside opening.
pub enum Closed {
    /// It can never be opened: a fact.
    Rejected(Rejection),
    /// It may open later.
    Retry(Retry),
}

impl From<Rejection> for Closed {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<TableError> for Closed {
    fn from(error: TableError) -> Self {
        Self::Retry(error.into())
    }
}

impl Opener {
    #[must_use]
    pub fn new(registry: Registry, keys: Arc<dyn ShopKeys>, metrics: Metrics) -> Self {
        let content_keys = ContentKeys::new(Arc::clone(&keys), metrics.clone());
        Self { registry, keys, content_keys, metrics }
    }

    /// The sale that was inside.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn open(&self, sale: &AcceptedSale) -> Result<DecryptedSale, Closed> {
        let opened = self.opened(sale).await?;
        Ok(decrypted(sale, opened))
    }

    async fn opened(&self, sale: &AcceptedSale) -> Result<Opened, Closed> {
        let unknown = || Rejection::because(Reason::UnknownShop, "no shop of this id is registered");
        let shop = self.registry.shop(&sale.shop_id).await?.ok_or_else(unknown)?;
        let accepted_at = sale.origin.accepted_at;
        let other = sale.origin.opened_with.as_ref();
        match &sale.envelope {
            Envelope::Classic { content_base64 } => {
                // There is no room for a signature in it.
                signature::unsigned(shop.unsigned)?;
                let (plaintext, key_of) =
                    self.open_classic(&shop, other, content_base64, accepted_at).await?;
                let content = read_content(&plaintext, None)?;
                Ok(Opened { content, key: None, key_of, signed_by: None })
            }
            Envelope::Sealed { sealed } => {
                let (plaintext, kid, owner) = self.open_sealed(&shop, other, sealed, accepted_at).await?;
                let key_of = Some(owner).filter(|owner| *owner != shop.shop_id);
                let verified = signature::verify(&self.registry, &shop, plaintext, accepted_at).await??;
                let content = read_content(&verified.json, verified.signed_by.as_ref())?;
                same_sale(&content, &sale.sale_id)?;
                if let Some(till) = &verified.signed_by {
                    signature::stands_for(&content, till, &sale.shop_id)?;
                }
                if key_of.is_some() {
                    names_no_other(&content, &sale.shop_id)?;
                }
                Ok(Opened { content, key: Some(kid), key_of, signed_by: verified.signed_by })
            }
        }
    }

    async fn open_classic(
        &self,
        shop: &Shop,
        opened_with: Option<&ShopId>,
        content_base64: &str,
        accepted_at: Timestamp,
    ) -> Result<(Zeroizing<Vec<u8>>, Option<ShopId>), Closed> {
        let ciphertext = decode_content(content_base64).filter(|c| c.len() == RSA_2048_BYTES);
        let malformed = || Rejection::because(Reason::Malformed, "an RSA-2048 ciphertext has 256 bytes");
        // OAEP does not tell a wrong key from a damaged ciphertext. Wrong keys are what happens.
        let wrong_key = || Rejection::because(Reason::WrongKey, "the shop's key does not open it");
        let ciphertext = ciphertext.ok_or_else(malformed)?;
        self.metrics.count(Metric::KeyUnwraps, 1);
        let mut opened = self.keys.decrypt(&shop.shop_id, None, &ciphertext).await;
        if matches!(opened, Err(KeyError::DoesNotOpen)) {
            // It does not say which key it is under: that of a moment ago, or before.
            let known = self.registry.afresh(&shop.shop_id).await?;
            let keys = known.as_ref().map_or(&[][..], |shop| &shop.keys);
            let others = keys.iter().rev().filter(|key| keys.len() > 1 && key.opens(accepted_at));
            for key in others {
                opened = self.keys.decrypt(&shop.shop_id, Some(&key.kid), &ciphertext).await;
                if !matches!(opened, Err(KeyError::DoesNotOpen)) {
                    break;
                }
            }
        }
        if matches!(opened, Err(KeyError::DoesNotOpen))
            && let Some(other) = opened_with
            && let Some(owner) = self.registry.afresh(other).await?
        {
            for key in owner.keys.iter().rev().filter(|key| key.opens(accepted_at)) {
                match self.keys.decrypt(other, Some(&key.kid), &ciphertext).await {
                    Err(KeyError::DoesNotOpen) => {}
                    opened => {
                        let opened = opened.map_err(|error| closed(error, wrong_key()))?;
                        return Ok((opened, Some(other.clone())));
                    }
                }
            }
        }
        Ok((opened.map_err(|error| closed(error, wrong_key()))?, None))
    }

    async fn open_sealed(
        &self,
        shop: &Arc<Shop>,
        opened_with: Option<&ShopId>,
        sealed: &str,
        accepted_at: Timestamp,
    ) -> Result<(Zeroizing<Vec<u8>>, Thumbprint, ShopId), Closed> {
        let jwe = Jwe::parse(sealed).map_err(|e| Rejection::because(Reason::Malformed, e.to_string()))?;
        let mut shop = Arc::clone(shop);
        if !shop.has_key(&jwe.kid)
            && let Some(known) = self.registry.afresh(&shop.shop_id).await?
        {
            shop = known;
        }
        if let Some(other) = opened_with
            && !shop.has_key(&jwe.kid)
            && let Some(other) = self.registry.afresh(other).await?
            && other.has_key(&jwe.kid)
        {
            shop = other;
        }
        let Some(known) = shop.key(&jwe.kid) else { return Err(self.wrong_key(jwe.kid).await?.into()) };
        if !known.opens(accepted_at) {
            return Err(retired_key(&shop, known).into());
        }
        let tampered =
            || Rejection::because(Reason::Tampered, "it names the shop's key, but that key does not open it");
        let key = self.content_keys.unwrap(&shop.shop_id, &jwe.kid, &jwe.encrypted_key).await;
        let key = key.map_err(|error| {
            // A key of which nothing is left but its name has no end.
            let present = shop.present_key() == Some(known) || known.until.is_some();
            closed(error, if present { tampered() } else { retired_key(&shop, known) })
        })?;
        let kid = jwe.kid.clone();
        Ok((jwe.open(&key).map_err(|_| tampered())?, kid, shop.shop_id.clone()))
    }

    async fn wrong_key(&self, kid: Thumbprint) -> Result<Rejection, TableError> {
        let shop_id = self.registry.owner(&kid).await?;
        let detail = match &shop_id {
            Some(owner) => format!("sealed with {owner}'s key"),
            None => "sealed with a key that no shop here has".to_owned(),
        };
        Ok(Rejection::because(Reason::WrongKey, detail).sealed_with(SealedWith { kid, shop_id }))
    }
}

fn retired_key(shop: &Shop, key: &ShopKey) -> Rejection {
    let sealed_with = SealedWith { kid: key.kid.clone(), shop_id: Some(shop.shop_id.clone()) };
    let detail = match key.ended() {
        Some(at) => format!("sealed with a key of {}'s own that opens nothing since {at:.0}", shop.shop_id),
        None => format!("sealed with a key that {} no longer has", shop.shop_id),
    };
    Rejection::because(Reason::WrongKey, detail).sealed_with(sealed_with)
}

/// Whether a key's failure is a fact about the envelope, or an error that may pass.
fn closed(error: KeyError, does_not_open: Rejection) -> Closed {
    match error {
        KeyError::DoesNotOpen => does_not_open.into(),
        KeyError::NoSuchKey => Rejection::because(Reason::UnknownShop, "the shop has no key").into(),
        KeyError::Unavailable(_) => Closed::Retry(error.into()),
    }
}

fn read_content(plaintext: &[u8], signed_by: Option<&TillId>) -> Result<Content, Rejection> {
    let till = || signed_by.cloned().or_else(|| content::till(plaintext));
    content::parse(plaintext).map_err(|e| Rejection::because(Reason::InvalidSale, e.to_string()).of(till()))
}

/// The id inside is the till's own word; the one outside anybody can write.
fn same_sale(content: &Content, outside: &SaleId) -> Result<(), Rejection> {
    let detail = match &content.sale_id {
        Some(inside) if inside == outside => return Ok(()),
        Some(_) => "the sale_id inside is not the message_id it came under",
        None => "there is no sale_id inside to match the message_id",
    };
    let till = content.till.as_ref().and_then(|till| till.parse().ok());
    Err(Rejection::because(Reason::Tampered, detail).of(till))
}

/// What another shop's key opened is the shop's all the same, if it says whose it is at all.
fn names_no_other(content: &Content, shop: &ShopId) -> Result<(), Rejection> {
    match &content.shop_id {
        Some(inside) if inside != shop => {
            let till = content.till.as_ref().and_then(|till| till.parse().ok());
            Err(Rejection::because(Reason::Tampered, "the shop_id inside is another shop's").of(till))
        }
        _ => Ok(()),
    }
}

fn decrypted(sale: &AcceptedSale, opened: Opened) -> DecryptedSale {
    let Opened { content, key, key_of, signed_by } = opened;
    let Content { lines, till, seq, sold_at, sale_id: _, shop_id: _ } = content;
    DecryptedSale {
        shop_id: sale.shop_id.clone(),
        sale_id: sale.sale_id.clone(),
        lines,
        // Whoever signed it is the till, whether it says so inside or not.
        till: till.or_else(|| signed_by.as_ref().map(ToString::to_string)),
        seq,
        sold_at,
        key,
        signed_by,
        envelope: envelope_hash(&sale.envelope),
        origin: Origin { opened_with: key_of, ..sale.origin.clone() },
    }
}
