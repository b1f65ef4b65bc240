use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::{JournalError, failed};

/// Appends to a journal. Whoever comes first writes for all that ring up at the same time, with one wait for the disk;
/// those that come meanwhile share the next.
pub(super) struct Writer {
    /// What waits to be written.
    waiting: Mutex<Vec<Append>>,
    desk: tokio::sync::Mutex<Desk>,
    path: PathBuf,
    /// Bytes that the disk has promised beyond the journal's end. Where that is enough, nobody need be asked.
    room: AtomicU64,
}

struct Append {
    bytes: Vec<u8>,
    sync: bool,
    done: oneshot::Sender<io::Result<u64>>,
}

/// Room that is taken from the disk at once, and how much of it there must be for one sale more.
const ROOM: u64 = 4 * 1024 * 1024;
const ONE_SALE: u64 = 512 * 1024;

/// What whoever writes knows.
struct Desk {
    file: File,
    /// Where the next entry goes.
    end: u64,
    /// Up to where the disk has promised room.
    reserved: u64,
}

impl Writer {
    pub fn new(file: File, path: PathBuf, end: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            desk: tokio::sync::Mutex::new(Desk { file, end, reserved: end }),
            path,
            room: AtomicU64::new(0),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry, and says where. With `sync` it is on disk when this answers.
    pub async fn append(&self, bytes: Vec<u8>, sync: bool) -> Result<u64, JournalError> {
        let (done, mut answer) = oneshot::channel();
        self.waiting().push(Append { bytes, sync, done });
        let written = tokio::select! {
            biased;
            written = &mut answer => written,
            desk = self.desk.lock() => {
                self.write_all(desk).await;
                answer.await
            }
        };
        written
            .unwrap_or_else(|_| Err(io::Error::other("nobody wrote it")))
            .map_err(|why| failed(&self.path, why))
    }

    async fn write_all(&self, mut desk: tokio::sync::MutexGuard<'_, Desk>) {
        // Whoever rings up at this moment comes along.
        tokio::task::yield_now().await;
        let appends = std::mem::take(&mut *self.waiting());
        blocking(|| desk.append(appends));
        self.tell_room(&desk);
    }

    /// Takes room from the disk for one sale more, unless there is enough.
    pub async fn reserve(&self) -> Result<(), JournalError> {
        if self.room.load(Ordering::SeqCst) >= ONE_SALE {
            return Ok(());
        }
        let mut desk = self.desk.lock().await;
        let reserved = blocking(|| desk.reserve());
        self.tell_room(&desk);
        reserved.map_err(|why| failed(&self.path, why))
    }

    fn tell_room(&self, desk: &Desk) {
        self.room.store(desk.reserved.saturating_sub(desk.end), Ordering::SeqCst);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Append>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the disk, while other tasks go on where there is another thread for them.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Desk {
    /// Does all of these with one write and one wait for the disk.
    fn append(&mut self, appends: Vec<Append>) {
        let (mut all, mut answers, mut sync) = (Vec::new(), Vec::with_capacity(appends.len()), false);
        for Append { bytes, sync: wanted, done } in appends {
            answers.push((self.end + all.len() as u64, done));
            all.extend_from_slice(&bytes);
            sync |= wanted;
        }
        if answers.is_empty() {
            return;
        }
        let written = self.write(&all, sync);
        for (place, done) in answers {
            // Whoever asked may have gone away.
            let _ = done.send(match &written {
                Ok(()) => Ok(place),
                Err(why) => Err(io::Error::new(why.kind(), why.to_string())),
            });
        }
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.end);
        let written = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // What was said not to be rung up is not to be found there later, whole or half.
            self.reserved = self.end;
            self.file.set_len(self.end)?;
            return written;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes room from the disk, so that it is not full when the sale is to be written. A file system that cannot promise
    /// says so when it is written.
    fn reserve(&mut self) -> io::Result<()> {
        if self.reserved >= self.end + ONE_SALE {
            return Ok(());
        }
        let mut outcome = Ok(());
        for room in [ROOM, ONE_SALE] {
            outcome = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, room);
            match outcome {
                Ok(()) => {
                    self.reserved = self.end + room;
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                // Where there is not so much, there may be enough.
                Err(_) => {}
            }
        }
        Ok(outcome?)
    }
}
