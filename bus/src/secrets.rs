use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::subscriber::Retry;

/// A secret's text. Wiped when dropped; cannot be printed.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for whoever signs with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Secrets by the setting that names them: in Secrets Manager on AWS, in the setting itself on one machine.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret's live values, the newest first: one, or two while it is being rotated.
    ///
    /// # Errors
    /// [`Retry`] if they cannot be had now, or the setting is missing.
    async fn live(&self, setting: &'static str) -> Result<Vec<SecretText>, Retry>;
}
