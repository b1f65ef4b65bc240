use jiff::Timestamp;
use kassa_bus::jws::SigningKey;
use kassa_bus::table::Readable;
use kassa_bus::tills::{EnrolError, EnrolledTill};
use kassa_bus::{ShopId, TillId};
use serde::{Deserialize, Serialize};

use super::{QuestionError, Questions};

/// A till that is to be enrolled with this key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrolment {
    pub shop_id: ShopId,
    pub till: TillId,
    pub key: SigningKey,
}

/// A till whose right to sign is to be taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Revocation {
    pub shop_id: ShopId,
    pub till: TillId,
}

impl Questions {
    /// The tills that are or were enrolled.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn tills(&self, shop: Option<&str>) -> Result<Readable<EnrolledTill>, QuestionError> {
        let mut tills = Readable::default();
        for shop in self.shops(shop).await? {
            tills.append(self.books.registry.tills.of(&shop).await?);
        }
        Ok(tills)
    }

    /// Enrols a till. Again, it changes nothing.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn enrol(&self, enrolment: &Enrolment, now: Timestamp) -> Result<EnrolledTill, QuestionError> {
        let Enrolment { shop_id, till, key } = enrolment;
        self.shops(Some(shop_id.as_str())).await?;
        Ok(self.books.registry.tills.enrol(shop_id, till, *key, now).await?)
    }

    /// Takes a till's right to sign.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn revoke(
        &self,
        revocation: &Revocation,
        now: Timestamp,
    ) -> Result<EnrolledTill, QuestionError> {
        let Revocation { shop_id, till } = revocation;
        self.shops(Some(shop_id.as_str())).await?;
        let tills = &self.books.registry.tills;
        match tills.revoke(shop_id, till, now).await {
            Err(unknown @ EnrolError::NoSuchTill { .. }) => {
                let enrolled = tills.of(shop_id).await?.rows;
                let names: Vec<&str> = enrolled.iter().map(|till| till.till.as_str()).collect();
                let there = match names.join(", ") {
                    none if none.is_empty() => "none is enrolled".to_owned(),
                    names => format!("there are: {names}"),
                };
                Err(QuestionError::Refused(format!("{unknown}; {there}")))
            }
            revoked => Ok(revoked?),
        }
    }
}
