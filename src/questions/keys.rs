use jiff::Timestamp;

use super::{QuestionError, Questions};
use crate::rotation::{Retirement, RotateKeys, Rotated, Rotation, ShownKey, retire, rotate, shown};

impl Questions {
    /// The shops' keys as they stand.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn keys(&self, only: Option<&str>, now: Timestamp) -> Result<Vec<ShownKey>, QuestionError> {
        let mut keys = Vec::new();
        for shop in self.shops(only).await? {
            match self.books.registry.afresh(&shop).await {
                Ok(shop) => keys.extend(shop.iter().flat_map(|shop| shown(shop, now))),
                // Of one shop alone, that is the answer; others do not wait for it.
                Err(error) if error.is_unreadable() && only.is_none() => {
                    tracing::error!(%error, "left out");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(keys)
    }

    /// Gives a shop another key.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn rotate(
        &self,
        keys: &dyn RotateKeys,
        rotation: &Rotation,
        now: Timestamp,
    ) -> Result<Rotated, QuestionError> {
        self.shops(Some(rotation.shop_id.as_str())).await?;
        Ok(rotate(keys, &self.books.registry, rotation, now).await?)
    }

    /// Disables a shop's old key.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn retire(
        &self,
        keys: &dyn RotateKeys,
        retirement: &Retirement,
        now: Timestamp,
    ) -> Result<ShownKey, QuestionError> {
        self.shops(Some(retirement.shop_id.as_str())).await?;
        Ok(retire(keys, &self.books.registry, retirement, now).await?)
    }
}
