//! A till's journal: each sale is on disk before the shop hears of it, so that neither an outage of the shop nor a crash of
//! the till loses one. Sales are kept closed: nobody reads them there.

pub mod old;
mod store;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kassa_bus::{Clock, SaleId};
use serde::Serialize;
use store::{Change, Store};
use writer::Writer;

use super::Prepared;

/// A journal that is open. There is one for a till and the address its sales go to, and one process writes in it.
pub struct Journal {
    // In this order, so that whoever closes it last may write, and it is closed when another may open it.
    reader: Mutex<Store>,
    writer: Writer,
    path: PathBuf,
    next_seq: u64,
    /// What was found when it was opened.
    pub found: Found,
    clock: Clock,
    _lock: File,
}

/// What is told of a journal when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Sales that wait from before.
    pub waiting: u64,
    /// Journals that processes of older versions left beside it, and that are in it now.
    pub taken_over: usize,
    /// Places in those that could not be read.
    pub unreadable: u64,
    /// Where the damaged journal is kept, of which this is what could be read.
    pub damaged: Option<PathBuf>,
}

/// A sale as it is rung up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    pub seq: u64,
    pub sale_id: SaleId,
    pub at: Timestamp,
    /// Closed, as it is posted.
    pub body: Option<String>,
}

/// Why the shop refused a sale for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub status: u16,
    pub detail: String,
}

/// A sale that the shop refused, and that is kept until somebody drops it or sends it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub sale_id: SaleId,
    #[serde(flatten)]
    pub refusal: Refusal,
    /// Whether it can be sent again.
    pub kept: bool,
}

/// The sale that has waited longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    pub sale_id: SaleId,
    pub at: Timestamp,
}

/// What is known of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Rung up so far.
    pub journalled: u64,
    /// Answered with yes.
    pub sent: u64,
    /// Not answered for good.
    pub waiting: u64,
    /// Refused, of which the first are in `refused`.
    pub refusals: u64,
    /// Refused, and given up.
    pub dropped: u64,
    pub oldest: Option<Oldest>,
    pub refused: Vec<Refused>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path} is in use by another till process{by}; stop that, or choose another --till or --folder")]
    InUse { path: String, by: String },
    #[error(
        "the disk is full, or fails: {path} has no room for another sale, which was not rung up; make room and ring it up again ({why})"
    )]
    Full { path: String, why: String },
    #[error("the disk is full, or fails: {path} cannot be written; make room ({why})")]
    NoRoom { path: String, why: String },
    #[error("{path}: {why}")]
    Io { path: String, why: String },
    #[error(
        "{0} is damaged; kassa sell or kassa till drain puts it aside and goes on with what can be read of it"
    )]
    Damaged(String),
}

/// Room that is kept for what makes room: a yes takes some before it frees more.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 512 * 1024;

const JOURNAL: &str = "journal.db";
const LOCK: &str = "lock";

/// As journals were called before they were `SQLite`'s. Each process of a till had one of its own then, up to so many.
const OLD: &str = "journal";
const SIDE_BY_SIDE: u32 = 64;

fn failed(path: &Path, why: &rusqlite::Error) -> JournalError {
    let path = path.display().to_string();
    match why {
        why if store::is_full(why) => JournalError::Full { path, why: why.to_string() },
        why if store::is_damage(why) => JournalError::Damaged(path),
        why => JournalError::Io { path, why: why.to_string() },
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> JournalError {
    move |why| {
        let (path, why) = (path.display().to_string(), (why.kind(), why.to_string()));
        match why {
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge, why) => {
                JournalError::Full { path, why }
            }
            (_, why) => JournalError::Io { path, why },
        }
    }
}

impl Journal {
    /// Opens the journal in this folder, which is made if it is not there. One that is damaged is put aside, and what can be
    /// read of it goes on. What processes of older versions left in it and beside it is taken over.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, JournalError> {
        fs::create_dir_all(folder).map_err(io(folder))?;
        let lock = lock(folder)?;
        let path = folder.join(JOURNAL);
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        options.map_err(io(&path))?;
        let mut found = Found::default();
        let opened = match Store::open(&path) {
            Err(why) if store::is_damage(&why) => store::salvage(&path, clock.now()).and_then(|aside| {
                found.damaged = Some(aside);
                Store::open(&path)
            }),
            opened => opened,
        };
        let mut store = opened.map_err(|why| failed(&path, &why))?;
        take_over(folder, &mut store, &mut found)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))?;
        let counted = store.waiting().and_then(|waiting| Ok((waiting, store.next_seq()?)));
        let (waiting, next_seq) = counted.map_err(|why| failed(&path, &why))?;
        found.waiting = waiting;
        let reader = Store::look(&path).map_err(|why| failed(&path, &why))?;
        let gone = || JournalError::Io { path: path.display().to_string(), why: "is gone".into() };
        let reader = Mutex::new(reader.ok_or_else(gone)?);
        let reserve = folder.join(RESERVE);
        // Where there is no room for it, there may be enough for what is to be done.
        if fs::metadata(&reserve).map_or(true, |reserve| reserve.len() < RESERVE_BYTES as u64) {
            let _ = fs::write(&reserve, vec![b' '; RESERVE_BYTES]);
        }
        let writer = Writer::start(store, path.clone(), reserve, waiting).map_err(io(&path))?;
        Ok(Self { writer, reader, path, next_seq, found, clock, _lock: lock })
    }

    /// Looks at the journal in this folder, open or not, and changes nothing. Nothing if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn look(folder: &Path) -> Result<Option<State>, JournalError> {
        let path = folder.join(JOURNAL);
        let state = Store::look(&path).and_then(|store| store.map(|store| store.state()).transpose());
        match state.map_err(|why| failed(&path, &why))? {
            Some(state) => Ok(Some(state)),
            None => Ok(read_old(folder)?.map(|old| State::from(&old))),
        }
    }

    /// What is known of it now.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn state(&self) -> Result<State, JournalError> {
        self.reader().state().map_err(|why| failed(&self.path, &why))
    }

    /// That it does not keep what it is told.
    #[must_use]
    pub fn damaged(&self) -> JournalError {
        JournalError::Damaged(self.path.display().to_string())
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Store> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sales wait for the shop's answer.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.writer.waiting()
    }

    /// The number of the next sale, as of when it was opened.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Writes a sale down. It is on disk when this answers.
    ///
    /// # Errors
    /// [`JournalError`]; the sale is then not rung up.
    pub async fn ring_up(&self, sale: &Prepared) -> Result<(), JournalError> {
        let Prepared { seq, sale_id, body } = sale.clone();
        let rung = Rung { seq, sale_id, at: self.clock.now(), body: Some(body) };
        match self.writer.change(Change::RingUp(rung)).await? {
            0 => {
                let why = format!("sale {} is in it already", sale.sale_id);
                Err(JournalError::Io { path: self.path.display().to_string(), why })
            }
            _ => Ok(()),
        }
    }

    /// Writes the shop's yes down, and says whether it was the first. It need not be on disk: a sale that is posted again
    /// counts once.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn accepted(&self, sale_id: &SaleId) -> Result<bool, JournalError> {
        Ok(self.writer.change(Change::Accepted(sale_id.clone())).await? > 0)
    }

    /// Writes down that the shop refused a sale for good, and why; and says whether it was the first answer.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn refused(&self, sale_id: &SaleId, refusal: Refusal) -> Result<bool, JournalError> {
        Ok(self.writer.change(Change::Refused(sale_id.clone(), refusal)).await? > 0)
    }

    /// Has refused sales wait again, and says how many do.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn retry(&self, sales: Vec<SaleId>) -> Result<usize, JournalError> {
        self.writer.change(Change::Retry(sales)).await
    }

    /// Gives refused sales up, and says how many. Why is kept, and their bodies are not.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn drop_refused(&self, sales: Vec<SaleId>, why: String) -> Result<usize, JournalError> {
        self.writer.change(Change::Drop { sales, at: self.clock.now(), why }).await
    }

    /// Every refused sale.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn all_refused(&self) -> Result<Vec<Refused>, JournalError> {
        self.reader().refused(usize::MAX).map_err(|why| failed(&self.path, &why))
    }

    /// The oldest sales that wait, in the order they were rung up, up to so many and to so many bytes of requests.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn oldest(&self, most: usize, bytes: usize) -> Result<Vec<Prepared>, JournalError> {
        self.reader().oldest(most, bytes).map_err(|why| failed(&self.path, &why))
    }
}

impl From<&old::Old> for State {
    fn from(old: &old::Old) -> Self {
        let of = |refused: bool| old.open.iter().filter(move |(_, refusal)| refusal.is_some() == refused);
        let told = of(true).filter_map(|(sale, refusal)| {
            let (sale_id, kept) = (sale.sale_id.clone(), sale.body.is_some());
            Some(Refused { sale_id, refusal: refusal.clone()?, kept })
        });
        let oldest = of(false).next().map(|(sale, _)| Oldest { sale_id: sale.sale_id.clone(), at: sale.at });
        Self {
            journalled: old.journalled,
            sent: old.sent,
            waiting: of(false).count() as u64,
            refusals: of(true).count() as u64,
            dropped: 0,
            oldest,
            refused: told.take(store::TOLD).collect(),
        }
    }
}

/// Takes a journal for this process alone, and says in it who that is.
fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK);
    let options =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    let mut lock = options.map_err(io(&path))?;
    if lock.try_lock().is_err() {
        let mut pid = String::new();
        let _ = (&mut lock).take(20).read_to_string(&mut pid);
        let by = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
        return Err(JournalError::InUse { path: folder.display().to_string(), by });
    }
    // Of whoever dies here, the number is not known.
    let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
    Ok(lock)
}

fn read_old(folder: &Path) -> Result<Option<old::Old>, JournalError> {
    let path = folder.join(OLD);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(old::read(&bytes))),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        Err(why) => Err(io(&path)(why)),
    }
}

/// Takes over the old journal in this folder, and those beside it of processes that are gone. Each is removed once all of it
/// is on disk here.
fn take_over(folder: &Path, store: &mut Store, found: &mut Found) -> Result<(), JournalError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let beside = (2..=SIDE_BY_SIDE).map(|nth| folder.with_file_name(format!("{name}~{nth}")));
    for old_folder in std::iter::once(folder.to_owned()).chain(beside) {
        let Some(old) = read_old(&old_folder)? else { continue };
        let another = old_folder != folder;
        // Whoever has it open is of an older version, and is waited for.
        let _held = if another { Some(lock(&old_folder)?) } else { None };
        store.take_over(&old).map_err(|why| failed(&folder.join(JOURNAL), &why))?;
        found.taken_over += 1;
        found.unreadable += old.damaged;
        let (from, kept) = (old_folder.join(OLD), folder.join(format!("{OLD}.damaged-{}", found.taken_over)));
        // What could not be read of it may be worth somebody's time.
        let gone = if old.damaged > 0 { fs::rename(&from, kept) } else { fs::remove_file(&from) };
        gone.map_err(io(&old_folder))?;
        if another {
            fs::remove_dir_all(&old_folder).map_err(io(&old_folder))?;
        }
    }
    Ok(())
}

/// The journals of a folder of tills: shop, till, the address its sales go to, and where it is.
///
/// # Errors
/// If a folder cannot be read.
pub fn journals(folder: &Path) -> std::io::Result<Vec<([String; 3], PathBuf)>> {
    let folders = |path: &Path| -> std::io::Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        match fs::read_dir(path) {
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
