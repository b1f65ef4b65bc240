use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::{JournalError, failed};

/// Appends to a journal by a thread of its own: entries that come while it waits for the disk share the next wait.
pub(super) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    path: Arc<PathBuf>,
    /// Bytes that the disk has promised beyond the journal's end. Where that is enough, nobody need be asked.
    room: Arc<AtomicU64>,
}

enum Job {
    Append { bytes: Vec<u8>, sync: bool, done: oneshot::Sender<io::Result<u64>> },
    Reserve { done: oneshot::Sender<io::Result<()>> },
}

/// Room that is taken from the disk at once, and how much of it there must be for one sale more.
const ROOM: u64 = 4 * 1024 * 1024;
const ONE_SALE: u64 = 512 * 1024;

/// What the thread knows.
struct Desk {
    file: File,
    /// Where the next entry goes.
    end: u64,
    /// Up to where the disk has promised room.
    reserved: u64,
    room: Arc<AtomicU64>,
}

impl Writer {
    pub fn start(file: File, path: PathBuf, end: u64) -> Self {
        let (jobs, mut queue) = mpsc::unbounded_channel();
        let room = Arc::<AtomicU64>::default();
        let mut desk = Desk { file, end, reserved: end, room: Arc::clone(&room) };
        // Ends when the journal is closed.
        std::thread::spawn(move || {
            while let Some(first) = queue.blocking_recv() {
                let mut jobs = vec![first];
                while let Ok(more) = queue.try_recv() {
                    jobs.push(more);
                }
                desk.work(jobs);
            }
        });
        Self { jobs, path: Arc::new(path), room }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry, and says where. With `sync` it is on disk when this answers.
    pub async fn append(&self, bytes: Vec<u8>, sync: bool) -> Result<u64, JournalError> {
        let (done, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Append { bytes, sync, done });
        self.answered(answer.await)
    }

    pub async fn reserve(&self) -> Result<(), JournalError> {
        if self.room.load(Ordering::SeqCst) >= ONE_SALE {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Reserve { done });
        self.answered(answer.await)
    }

    fn answered<T>(
        &self,
        answer: Result<io::Result<T>, oneshot::error::RecvError>,
    ) -> Result<T, JournalError> {
        let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the journal's thread is gone")));
        answer.map_err(|why| failed(&self.path, why))
    }
}

impl Desk {
    /// Does all of these with one write and one wait for the disk.
    fn work(&mut self, jobs: Vec<Job>) {
        let (mut all, mut answers, mut sync) = (Vec::new(), Vec::new(), false);
        for job in jobs {
            match job {
                Job::Reserve { done } => {
                    // Whoever asked may have gone away.
                    let reserved = self.reserve();
                    self.tell_room();
                    let _ = done.send(reserved);
                }
                Job::Append { bytes, sync: wanted, done } => {
                    answers.push((self.end + all.len() as u64, done));
                    all.extend_from_slice(&bytes);
                    sync |= wanted;
                }
            }
        }
        if answers.is_empty() {
            return;
        }
        let written = self.write(&all, sync);
        self.tell_room();
        for (place, done) in answers {
            let _ = done.send(match &written {
                Ok(()) => Ok(place),
                Err(why) => Err(io::Error::new(why.kind(), why.to_string())),
            });
        }
    }

    fn tell_room(&self) {
        self.room.store(self.reserved.saturating_sub(self.end), Ordering::SeqCst);
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
