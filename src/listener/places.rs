//! What a listener has room for, and who may have how much of it: whoever has no credentials can take a share, and no more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use futures::StreamExt;
use kassa_bus::ClientAddress;
use kassa_bus::shares::{Share, Shares};
use kassa_pipeline::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::descriptors;

/// How much there is of what clients take. An address has a quarter of each at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue until one ends.
    pub connections: usize,
    /// Requests at once that are there with their bodies.
    pub in_hand: usize,
    /// Bytes of bodies at once, whether they are there or on their way.
    pub body_bytes: usize,
    /// How long a body may take to come.
    pub body_time: Duration,
    /// How long a client may take to shake hands, to send a request's headers, and to take some of what it is sent.
    /// A connection that asks for nothing is closed after as long.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2_176,
            in_hand: 1_024,
            body_bytes: 24 * 1024 * 1024,
            body_time: Duration::from_secs(10),
            patience: Duration::from_secs(10),
        }
    }
}

/// How long more of a refused body is waited for.
const LINGER: Duration = Duration::from_millis(250);

/// The places of one listener.
pub struct Places {
    pub(super) limits: Limits,
    free: Arc<Semaphore>,
    connections: Arc<Shares<ClientAddress>>,
    in_hand: Arc<Shares<ClientAddress>>,
    body_bytes: Arc<Shares<ClientAddress>>,
}

/// A connection's place, until it is dropped.
pub(super) struct Connected {
    _free: OwnedSemaphorePermit,
    _share: Share<ClientAddress>,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    TooLarge,
    Slow,
    /// It ended too soon, or its chunks are none.
    CutOff,
    /// There is no room for it now.
    Full,
}

impl From<Unread> for Problem {
    fn from(why: Unread) -> Self {
        match why {
            Unread::TooLarge => Self::TooLarge,
            Unread::Slow => Self::Slow,
            Unread::CutOff => Self::CutOff,
            Unread::Full => Self::BUSY,
        }
    }
}

impl Places {
    /// No more connections than the system has descriptors for.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        let connections = limits.connections.min(descriptors::for_connections());
        let limits = Limits { connections, ..limits };
        Arc::new(Self {
            limits,
            free: Arc::new(Semaphore::new(limits.connections)),
            connections: Shares::quarters(limits.connections),
            in_hand: Shares::quarters(limits.in_hand),
            body_bytes: Shares::quarters(limits.body_bytes),
        })
    }

    /// Waits until one more connection may be accepted.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    pub(super) fn connect(&self, client: ClientAddress, free: OwnedSemaphorePermit) -> Option<Connected> {
        Some(Connected { _free: free, _share: self.connections.take(&client, 1)? })
    }

    /// Takes a request in hand whose body is there, until what is given is dropped.
    #[must_use]
    pub fn enter(&self, client: ClientAddress) -> Option<Share<ClientAddress>> {
        self.in_hand.take(&client, 1)
    }

    /// Room for a client's bytes, of which there is none yet.
    #[must_use]
    pub fn room(&self, client: ClientAddress) -> Received {
        Received { bytes: Zeroizing::default(), share: self.body_bytes.enter(&client, 0) }
    }

    /// Reads a request's body of so many bytes at most.
    ///
    /// # Errors
    /// [`Unread`].
    pub async fn read(&self, client: ClientAddress, body: Body, most: usize) -> Result<Received, Unread> {
        // What says that it is too large is not waited for.
        if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > most) {
            let _ = tokio::time::timeout(self.limits.body_time, skip(body.into_data_stream(), most)).await;
            return Err(Unread::TooLarge);
        }
        let (mut frames, mut received) = (body.into_data_stream(), self.room(client));
        let take = async {
            while let Some(frame) = frames.next().await {
                received.add(&frame.map_err(|_| Unread::CutOff)?, most)?;
            }
            Ok(())
        };
        let taken = tokio::time::timeout(self.limits.body_time, take).await.unwrap_or(Err(Unread::Slow));
        let Err(why) = taken else { return Ok(received) };
        drop(received);
        if why != Unread::Slow {
            // Not for longer than the body itself may take.
            let _ = tokio::time::timeout(self.limits.body_time, skip(frames, most)).await;
        }
        Err(why)
    }
}

/// Reads some more of what is refused: a client that still sends does not listen.
async fn skip(mut frames: BodyDataStream, mut most: usize) {
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(LINGER, frames.next()).await {
        match most.checked_sub(frame.len()) {
            Some(left) => most = left,
            None => return,
        }
    }
}

/// Bytes that a client sent, in the room that is its own. They may be sales in plaintext.
pub struct Received {
    bytes: Zeroizing<Vec<u8>>,
    share: Share<ClientAddress>,
}

impl Received {
    /// Takes in some more, copied, as a frame holds on to more memory than it shows.
    ///
    /// # Errors
    /// [`Unread::TooLarge`] beyond `most` bytes, [`Unread::Full`].
    pub fn add(&mut self, more: &[u8], most: usize) -> Result<(), Unread> {
        let needed = self.bytes.len() + more.len();
        if needed > most {
            return Err(Unread::TooLarge);
        }
        if needed > self.bytes.capacity() {
            let capacity = needed.max(2 * self.bytes.capacity()).min(most);
            if !self.share.grow(capacity - self.bytes.capacity()) {
                return Err(Unread::Full);
            }
            let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
