use jiff::Timestamp;

use super::{QuestionError, Questions};
use crate::rotation::{Retirement, RotateKeys, Rotated, Rotation, ShownKey, retire, rotate, shown};

impl Questions {
    /// The shops' keys as they stand.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn keys(&self, shop: Option<&str>, now: Timestamp) -> Result<Vec<ShownKey>, QuestionError> {
        let mut keys = Vec::new();
        for shop in self.shops(shop).await? {
            let shop = self.books.registry.afresh(&shop).await?;
            keys.extend(shop.iter().flat_map(|shop| shown(shop, now)));
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
