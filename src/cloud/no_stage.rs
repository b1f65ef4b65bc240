use std::sync::Arc;

use kassa_bus::Publisher;

use super::restore::{Progress, Restore, RestoreError, Restored};
use super::{StageError, StageName};
use crate::monitor::Monitor;
use crate::questions::Books;
use crate::rotation::RotateKeys;

/// A deployed stage, of which a build without the feature `aws` has none.
pub enum Stage {}

#[expect(clippy::unused_async, reason = "the same signatures as with the feature")]
impl Stage {
    /// Says how to get a command that finds stages.
    ///
    /// # Errors
    /// [`StageError::NotBuiltIn`].
    pub async fn find(_: &str, _: &StageName) -> Result<Self, StageError> {
        Err(StageError::NotBuiltIn)
    }

    pub fn url(&self) -> Result<&str, StageError> {
        match *self {}
    }

    pub fn monitor(&self) -> Result<Arc<dyn Monitor>, StageError> {
        match *self {}
    }

    #[must_use]
    pub fn stack(&self) -> &str {
        match *self {}
    }

    #[must_use]
    pub fn place(&self) -> String {
        match *self {}
    }

    pub fn keys(&self) -> Result<Arc<dyn RotateKeys>, StageError> {
        match *self {}
    }

    pub fn to_decrypt(&self) -> Result<Arc<dyn Publisher>, StageError> {
        match *self {}
    }

    pub async fn books(&self) -> Result<Books, StageError> {
        match *self {}
    }

    pub async fn restore(&self, _: Restore, _: Progress<'_>) -> Result<Restored, RestoreError> {
        match *self {}
    }

    pub async fn discard_copies(&self, _: Progress<'_>) -> Result<Vec<String>, RestoreError> {
        match *self {}
    }
}
