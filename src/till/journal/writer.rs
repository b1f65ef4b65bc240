use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::store::{self, Change, Store};
use super::{JournalError, failed};

/// The thread that writes in a journal: what comes while it waits for the disk is written together, with one wait.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Asked>>,
    thread: Option<JoinHandle<()>>,
    // Only the thread writes it.
    waiting: Arc<AtomicU64>,
    path: PathBuf,
}

struct Asked {
    change: Change,
    done: oneshot::Sender<Result<usize, JournalError>>,
}

/// Changes that are made together, at most.
const TOGETHER: usize = 1_024;

impl Writer {
    pub fn start(mut store: Store, path: PathBuf, reserve: PathBuf, waiting: u64) -> std::io::Result<Self> {
        let (changes, mut asked) = mpsc::channel::<Asked>(TOGETHER);
        let waiting = Arc::new(AtomicU64::new(waiting));
        let (counted, file) = (Arc::clone(&waiting), path.clone());
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            let mut together = Vec::new();
            while asked.blocking_recv_many(&mut together, TOGETHER) > 0 {
                write(&mut store, (&file, &reserve), &counted, &mut together);
            }
        })?;
        Ok(Self { changes: Some(changes), thread: Some(thread), waiting, path })
    }

    /// Makes a change, and says of how many sales it is true. What must last is on disk when this answers.
    pub async fn change(&self, change: Change) -> Result<usize, JournalError> {
        let gone =
            || JournalError::Io { path: self.path.display().to_string(), why: "its writer is gone".into() };
        let (done, answer) = oneshot::channel();
        let changes = self.changes.as_ref().ok_or_else(gone)?;
        changes.send(Asked { change, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// How many sales wait, as far as that is written.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }
}

fn write(store: &mut Store, (path, reserve): (&Path, &Path), waiting: &AtomicU64, together: &mut Vec<Asked>) {
    let rings_up = together.iter().any(|asked| matches!(asked.change, Change::RingUp(_)));
    let mut made = store.change(together.iter().map(|asked| &asked.change));
    // What was answered makes room, for which it takes some.
    if !rings_up && made.as_ref().is_err_and(store::is_full) && std::fs::remove_file(reserve).is_ok() {
        made = store.change(together.iter().map(|asked| &asked.change));
    }
    match made {
        Ok(made) => {
            let more: i64 = made.iter().map(|made| made.waiting).sum();
            let now = waiting.load(Ordering::SeqCst).saturating_add_signed(more);
            waiting.store(now, Ordering::SeqCst);
            for (asked, made) in together.drain(..).zip(made) {
                // Whoever asked may have gone away.
                let _ = asked.done.send(Ok(made.sales));
            }
        }
        Err(why) => {
            for asked in together.drain(..) {
                let failed = match failed(path, &why) {
                    JournalError::Full { path, why } if !rings_up => JournalError::NoRoom { path, why },
                    failed => failed,
                };
                let _ = asked.done.send(Err(failed));
            }
        }
    }
}

/// Waits until all is written, so that whoever opens the journal next finds it closed.
impl Drop for Writer {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
