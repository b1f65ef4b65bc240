/// What is written, and how it is read back.
pub mod record;
/// What is known of it.
mod state;
/// Writing it down, for all that ring up at once.
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kassa_bus::{Clock, SaleId};

pub use record::{Entry, Read, encode, read};
pub use state::{Refusal, State, Waiting};
use writer::Writer;

use super::Prepared;

/// A till's journal: each sale is on disk before the shop hears of it, so that neither an outage of the shop nor a crash
/// of the till loses one. Sales are kept closed: nobody reads them there.
pub struct Journal {
    writer: Writer,
    file: File,
    state: Mutex<State>,
    clock: Clock,
    // Held, and with it the lock, until the journal is closed.
    _lock: File,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{0} is in use by another till process; stop that, or choose another --till or --folder")]
    InUse(String),
    #[error(
        "the disk is full: {0} has no room for another sale, which was not rung up; make room and ring it up again"
    )]
    Full(String),
    #[error("{path}: {why}")]
    Io { path: String, why: io::Error },
}

const JOURNAL: &str = "journal";
const LOCK: &str = "lock";

/// Processes of one till that sell at once, at most.
const SIDE_BY_SIDE: u32 = 64;

/// Of what is done with, so much is kept before the journal is written anew when it is opened.
const SETTLED_BYTES: u64 = 256 * 1024;

fn failed(path: &Path, why: io::Error) -> JournalError {
    let path = path.display().to_string();
    match why.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            JournalError::Full(path)
        }
        _ => JournalError::Io { path, why },
    }
}

impl Journal {
    /// Opens the journal in a till's folder, which must be there. What was being written when the till died is cut off.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, JournalError> {
        let lock_path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|why| failed(&lock_path, why))?;
        lock.try_lock().map_err(|_| JournalError::InUse(folder.display().to_string()))?;
        let path = folder.join(JOURNAL);
        let (state, length) = Self::prepare(&path).map_err(|why| failed(&path, why))?;
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|why| failed(&path, why))?;
        let writer = Writer::new(file.try_clone().map_err(|why| failed(&path, why))?, path, length);
        Ok(Self { writer, file, state: Mutex::new(state), clock, _lock: lock })
    }

    /// Opens a till's journal in this folder, or, where another process of the same till sells, in one beside it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open_beside(folder: &Path, clock: &Clock) -> Result<Self, JournalError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut nth = 1;
        loop {
            let beside =
                if nth == 1 { folder.to_owned() } else { folder.with_file_name(format!("{name}~{nth}")) };
            std::fs::create_dir_all(&beside).map_err(|why| failed(&beside, why))?;
            match Self::open(&beside, clock.clone()) {
                Err(JournalError::InUse(_)) if nth < SIDE_BY_SIDE => nth += 1,
                opened => return opened,
            }
        }
    }

    /// Looks at a till's journal, open or not, and changes nothing. Nothing if there is none.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn look(folder: &Path) -> Result<Option<State>, JournalError> {
        let path = folder.join(JOURNAL);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(State::of(&bytes))),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(failed(&path, why)),
        }
    }

    /// Reads what there is, cuts off a half-written end, and leaves out what is done with where that is much.
    fn prepare(path: &Path) -> io::Result<(State, u64)> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        let bytes = std::fs::read(path)?;
        let mut state = State::of(&bytes);
        let mut length = state.end;
        if state.settled_bytes(&bytes) > SETTLED_BYTES {
            let anew = state.anew(&bytes);
            let beside = path.with_extension("new");
            std::fs::write(&beside, &anew)?;
            File::open(&beside)?.sync_all()?;
            std::fs::rename(&beside, path)?;
            state = State { torn: state.torn, damaged: state.damaged, ..State::of(&anew) };
            length = state.end;
        } else if bytes.len() as u64 > length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        Ok((state, length))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of it now.
    #[must_use]
    pub fn now(&self) -> State {
        self.state().clone()
    }

    /// How many sales wait for the shop's answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// The refusals after the first so many.
    #[must_use]
    pub fn refused_after(&self, known: usize) -> Vec<Refusal> {
        self.state().refused.get(known..).map_or_else(Vec::new, <[Refusal]>::to_vec)
    }

    /// How many sales were refused.
    #[must_use]
    pub fn refusals(&self) -> usize {
        self.state().refused.len()
    }

    /// The number of the next sale.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.state().next_seq
    }

    /// Makes sure that there is room for a sale, before it is rung up.
    ///
    /// # Errors
    /// [`JournalError::Full`].
    pub async fn reserve(&self) -> Result<(), JournalError> {
        self.writer.reserve().await
    }

    /// Writes a sale down. It is on disk when this answers.
    ///
    /// # Errors
    /// [`JournalError`]; the sale is then not rung up.
    pub async fn ring_up(&self, seq: u64, sale: &Prepared) -> Result<(), JournalError> {
        let (sale_id, at) = (sale.sale_id.clone(), self.clock.now());
        let entry = Entry::Sale { seq, sale_id: sale_id.clone(), at, body: sale.body.clone() };
        let bytes = encode(&entry);
        let length = bytes.len();
        let place = self.writer.append(bytes, true).await?;
        self.state().rung_up(seq, Waiting { sale_id, at, place, length });
        Ok(())
    }

    /// Writes the shop's answer down, and says whether it was the first. It need not be on disk: a sale that is posted again
    /// counts once.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn accepted(&self, sale_id: &SaleId) -> Result<bool, JournalError> {
        if !self.waits(sale_id) {
            return Ok(false);
        }
        self.writer.append(encode(&Entry::Accepted { sale_id: sale_id.clone() }), false).await?;
        Ok(self.state().accepted(sale_id))
    }

    fn waits(&self, sale_id: &SaleId) -> bool {
        self.state().seqs.contains_key(sale_id)
    }

    /// Writes down that the shop refused a sale for good, and why; and says whether it was the first answer.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn refused(&self, sale_id: &SaleId, status: u16, detail: &str) -> Result<bool, JournalError> {
        if !self.waits(sale_id) {
            return Ok(false);
        }
        let (sale_id, detail) = (sale_id.clone(), detail.to_owned());
        let entry = Entry::Refused { sale_id: sale_id.clone(), status, detail: detail.clone() };
        self.writer.append(encode(&entry), true).await?;
        self.state().refused(Refusal { sale_id, status, detail });
        Ok(true)
    }

    /// The oldest sales that wait, in the order they were rung up, up to so many and to so many bytes of requests.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn oldest(&self, most: usize, bytes: usize) -> Result<Vec<Prepared>, JournalError> {
        let waiting: Vec<Waiting> = self.state().waiting.values().take(most).cloned().collect();
        let (mut sales, mut size) = (Vec::new(), 0);
        for Waiting { place, length, .. } in waiting {
            let mut buffer = vec![0; length];
            self.file.read_exact_at(&mut buffer, place).map_err(|why| failed(self.writer.path(), why))?;
            let Some((_, _, Entry::Sale { seq, sale_id, body, .. })) = read(&buffer).entries.pop() else {
                let path = self.writer.path().display().to_string();
                return Err(JournalError::Io { path, why: ErrorKind::InvalidData.into() });
            };
            size += body.len();
            if size > bytes && !sales.is_empty() {
                break;
            }
            sales.push(Prepared { seq, sale_id, body });
        }
        Ok(sales)
    }
}

/// The journals of a folder of tills: shop, till, the address its sales go to, and where it is.
///
/// # Errors
/// If a folder cannot be read.
pub fn journals(folder: &Path) -> io::Result<Vec<([String; 3], PathBuf)>> {
    let folders = |path: &Path| -> io::Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        match std::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
                    }
                }
            }
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
        found.sort();
        Ok(found)
    };
    let mut all = Vec::new();
    for (shop, path) in folders(folder)? {
        for (till, path) in folders(&path)? {
            let addresses = folders(&path)?.into_iter();
            all.extend(addresses.map(|(address, path)| ([shop.clone(), till.clone(), address], path)));
        }
    }
    Ok(all)
}
