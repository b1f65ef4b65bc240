//! Wake-ups: a message that a subscriber has its own queue bring it after some time, for what is due at a moment and not at
//! the next minute. It goes straight to the queue, so nobody else of the topic hears of it.

/// Wake-ups by SQS.
#[cfg(feature = "aws")]
mod sqs;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::message::Message;
use crate::subscriber::Retry;
#[cfg(feature = "aws")]
pub use sqs::SqsWakes;

/// The attribute that no message of a topic has.
const WAKE_UP: &str = "wake_up";

/// A subscriber's own queue, to be woken by.
///
/// A wake-up is a reason to look and says nothing that is to be believed: whoever is woken looks at what there is, as at
/// every minute. So one that is forged, late or doubled does no harm, and one that is lost is made up for by the minute.
#[async_trait]
pub trait Wakes: Send + Sync {
    /// Has the subscriber brought [`Message::wake_up`] about something.
    ///
    /// It MUST come once or more, and not before the time is over, unless that is more than a minute, which it MAY be cut
    /// to.
    ///
    /// # Errors
    /// [`Retry`] if the queue did not take it.
    async fn wake(&self, about: &str, after: Duration) -> Result<(), Retry>;
}

impl Message {
    /// A wake-up about something.
    #[must_use]
    pub fn wake_up(about: &str) -> Self {
        Self {
            id: format!("wake-up {about}"),
            attributes: HashMap::from([(WAKE_UP.to_owned(), about.to_owned())]),
            // SQS takes no empty one.
            body: "wake-up".to_owned().into(),
            sent: None,
        }
    }

    /// What it wakes somebody about, if it is a wake-up and no message of a topic.
    #[must_use]
    pub fn woken(&self) -> Option<&str> {
        self.attributes.get(WAKE_UP).map(String::as_str)
    }
}
