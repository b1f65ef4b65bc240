//! A till's journal as `SQLite` keeps it: what is written in it, and what is asked of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kassa_bus::SaleId;
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, params};
use serde::Deserialize;

use super::old::Old;
use super::{Oldest, Refusal, Refused, Rung, State};
use crate::till::Prepared;

/// What a journal is, in each version that was written: what a new one lacks is added.
const VERSIONS: [&str; 1] = ["
    CREATE TABLE sales (
        n INTEGER PRIMARY KEY, -- in the order they were rung up
        seq INTEGER NOT NULL, -- the till's counter
        sale_id TEXT NOT NULL UNIQUE,
        rung_up_at TEXT NOT NULL,
        body TEXT, -- closed, as it is posted; an older journal may have lost that of one that was refused
        status INTEGER, -- with which the shop refused it, if it did, and
        detail TEXT -- why
    ) STRICT;
    CREATE INDEX waiting ON sales (n) WHERE status IS NULL;
    CREATE INDEX refused ON sales (n) WHERE status IS NOT NULL;
    -- Refused sales that somebody gave up. Their bodies are gone.
    CREATE TABLE dropped (
        sale_id TEXT NOT NULL, dropped_at TEXT NOT NULL, why TEXT NOT NULL, status INTEGER, detail TEXT
    ) STRICT;
    CREATE TABLE till (next_seq INTEGER NOT NULL, journalled INTEGER NOT NULL, sent INTEGER NOT NULL) STRICT;
    INSERT INTO till VALUES (1, 0, 0);
"];

/// Of what was freed, so many pages are kept before the file is made smaller when it is opened: 4 MiB.
const FREE_PAGES: i64 = 1024;

/// Pages that the log has before they are put in their places: 1 MiB.
const LOG_PAGES: i64 = 256;

/// Refusals that are told one by one.
pub const TOLD: usize = 1_000;

/// Something that changes the journal.
pub enum Change {
    RingUp(Rung),
    Accepted(SaleId),
    Refused(SaleId, Refusal),
    /// To wait again, and be sent.
    Retry(Vec<SaleId>),
    Drop {
        sales: Vec<SaleId>,
        at: Timestamp,
        why: String,
    },
}

impl Change {
    /// Whether the disk must have it before anybody goes on. A yes that is lost is asked for again, which counts once.
    pub fn must_last(&self) -> bool {
        !matches!(self, Self::Accepted(_))
    }

    fn make(&self, to: &Transaction) -> rusqlite::Result<Made> {
        match self {
            Self::RingUp(Rung { seq, sale_id, at, body }) => {
                let sql =
                    "INSERT OR IGNORE INTO sales (seq, sale_id, rung_up_at, body) VALUES (?1, ?2, ?3, ?4)";
                let rung = params![number(*seq), sale_id.as_str(), at.to_string(), body];
                let new = to.prepare_cached(sql)?.execute(rung)?;
                if new > 0 {
                    let sql = "UPDATE till SET journalled = journalled + 1, next_seq = max(next_seq, ?1)";
                    to.prepare_cached(sql)?.execute([number(seq.saturating_add(1))])?;
                }
                Ok(Made::of(new, 1))
            }
            Self::Accepted(sale_id) => {
                let sql = "DELETE FROM sales WHERE sale_id = ?1 RETURNING status IS NULL";
                let waited =
                    to.prepare_cached(sql)?.query_row([sale_id.as_str()], |row| row.get::<_, bool>(0));
                let Some(waited) = waited.optional()? else { return Ok(Made::default()) };
                to.prepare_cached("UPDATE till SET sent = sent + 1")?.execute([])?;
                Ok(Made::of(1, -i64::from(waited)))
            }
            Self::Refused(sale_id, Refusal { status, detail }) => {
                let sql = "UPDATE sales SET status = ?2, detail = ?3 WHERE sale_id = ?1 AND status IS NULL";
                Ok(Made::of(to.prepare_cached(sql)?.execute(params![sale_id.as_str(), status, detail])?, -1))
            }
            Self::Retry(sales) => {
                let sql = "UPDATE sales SET status = NULL, detail = NULL \
                           WHERE sale_id = ?1 AND status IS NOT NULL AND body IS NOT NULL";
                let again = each(sales, |sale_id| to.prepare_cached(sql)?.execute([sale_id.as_str()]))?;
                Ok(Made::of(again, 1))
            }
            Self::Drop { sales, at, why } => {
                let dropped = each(sales, |sale_id| {
                    let sql = "INSERT INTO dropped SELECT sale_id, ?2, ?3, status, detail FROM sales \
                               WHERE sale_id = ?1 AND status IS NOT NULL";
                    to.prepare_cached(sql)?.execute(params![sale_id.as_str(), at.to_string(), why])?;
                    let sql = "DELETE FROM sales WHERE sale_id = ?1 AND status IS NOT NULL";
                    to.prepare_cached(sql)?.execute([sale_id.as_str()])
                })?;
                Ok(Made::of(dropped, 0))
            }
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Made {
    /// Of how many sales it was true.
    pub sales: usize,
    /// How many more wait for it.
    pub waiting: i64,
}

impl Made {
    fn of(sales: usize, waiting_each: i64) -> Self {
        Self { sales, waiting: i64::try_from(sales).unwrap_or_default() * waiting_each }
    }
}

fn each(sales: &[SaleId], make: impl Fn(&SaleId) -> rusqlite::Result<usize>) -> rusqlite::Result<usize> {
    sales.iter().map(make).sum()
}

/// `SQLite`'s numbers are signed. No till rings up so many sales.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(row: &Row, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or_default())
}

fn parsed<T: std::str::FromStr>(row: &Row, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    let wrong = || rusqlite::Error::FromSqlConversionFailure(at, Type::Text, "is not in its form".into());
    text.parse().map_err(|_| wrong())
}

/// A journal's file.
pub struct Store(Connection);

fn damaged(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why))
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or_default())
}

impl Store {
    /// Opens a journal to write in it, and makes it if it is not there.
    pub fn open(file: &Path) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(file)?;
        // The first thing that is read of the file. Whoever looks at it meanwhile does not block it.
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // What is in the log is lost if the log is: it is kept short.
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        let sound: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(damaged(sound));
        }
        let version = version(&connection)?;
        if version > VERSIONS.len() {
            return Err(rusqlite::Error::ToSqlConversionFailure(
                "was written by a later version of kassa".into(),
            ));
        }
        let to = connection.transaction()?;
        for (made, sql) in (1..).zip(VERSIONS).skip(version) {
            to.execute_batch(sql)?;
            to.pragma_update(None, "user_version", made)?;
        }
        to.commit()?;
        let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free > FREE_PAGES {
            connection.execute_batch("VACUUM")?;
        }
        let store = Self(connection);
        store.is_ours().map_err(|why| damaged(why.to_string()))?;
        Ok(store)
    }

    /// Whether each row can be read.
    fn is_ours(&self) -> rusqlite::Result<()> {
        self.next_seq()?;
        let mut rows = self.0.prepare("SELECT sale_id, rung_up_at FROM sales")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let _: (SaleId, Timestamp) = (parsed(row, 0)?, parsed(row, 1)?);
        }
        Ok(())
    }

    /// Opens a journal to look at it, open or not. Nothing if there is none.
    pub fn look(file: &Path) -> rusqlite::Result<Option<Self>> {
        if !file.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // Whoever was making it died.
        Ok((version(&connection)? > 0).then_some(Self(connection)))
    }

    /// Makes all of these changes or none, and says what each came to.
    pub fn change<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change> + Clone,
    ) -> rusqlite::Result<Vec<Made>> {
        let lasting = changes.clone().any(Change::must_last);
        self.0.pragma_update(None, "synchronous", if lasting { "FULL" } else { "NORMAL" })?;
        let to = self.0.transaction()?;
        let made = changes.map(|change| change.make(&to)).collect::<Result<_, _>>()?;
        to.commit()?;
        Ok(made)
    }

    pub fn next_seq(&self) -> rusqlite::Result<u64> {
        self.0.query_row("SELECT next_seq FROM till", [], |row| count(row, 0))
    }

    pub fn waiting(&self) -> rusqlite::Result<u64> {
        self.0.query_row("SELECT count(*) FROM sales WHERE status IS NULL", [], |row| count(row, 0))
    }

    /// The sales that wait and were rung up first, up to so many and to so many bytes of requests, but one in any case.
    pub fn oldest(&self, most: usize, bytes: usize) -> rusqlite::Result<Vec<Prepared>> {
        let sql = "SELECT seq, sale_id, body FROM sales WHERE status IS NULL ORDER BY n LIMIT ?1";
        let mut sql = self.0.prepare_cached(sql)?;
        let mut rows = sql.query([number(most as u64)])?;
        let (mut sales, mut size) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let sale = Prepared { seq: count(row, 0)?, sale_id: parsed(row, 1)?, body: row.get(2)? };
            size += sale.body.len();
            if size > bytes && !sales.is_empty() {
                break;
            }
            sales.push(sale);
        }
        Ok(sales)
    }

    /// The refused sales that were rung up first, up to so many.
    pub fn refused(&self, most: usize) -> rusqlite::Result<Vec<Refused>> {
        let sql = "SELECT sale_id, status, detail, body IS NOT NULL FROM sales WHERE status IS NOT NULL ORDER BY n LIMIT ?1";
        let mut sql = self.0.prepare_cached(sql)?;
        let refused = sql.query_map([number(most as u64)], |row| {
            let refusal = Refusal { status: row.get(1)?, detail: row.get(2)? };
            Ok(Refused { sale_id: parsed(row, 0)?, refusal, kept: row.get(3)? })
        })?;
        refused.collect()
    }

    /// What is known of it, as of one moment.
    pub fn state(&self) -> rusqlite::Result<State> {
        let at = self.0.unchecked_transaction()?;
        let [journalled, sent, waiting, refusals, dropped] = at.query_row(
            "SELECT journalled, sent, (SELECT count(*) FROM sales WHERE status IS NULL), \
             (SELECT count(*) FROM sales WHERE status IS NOT NULL), (SELECT count(*) FROM dropped) FROM till",
            [],
            |row| Ok([count(row, 0)?, count(row, 1)?, count(row, 2)?, count(row, 3)?, count(row, 4)?]),
        )?;
        let sql = "SELECT sale_id, rung_up_at FROM sales WHERE status IS NULL ORDER BY n LIMIT 1";
        let oldest =
            at.query_row(sql, [], |row| Ok(Oldest { sale_id: parsed(row, 0)?, at: parsed(row, 1)? }));
        let (oldest, refused) = (oldest.optional()?, self.refused(TOLD)?);
        at.finish()?;
        Ok(State { journalled, sent, waiting, refusals, dropped, oldest, refused })
    }

    /// Takes over what another journal holds. Again, it changes nothing.
    pub fn take_over(&mut self, old: &Old) -> rusqlite::Result<()> {
        let to = self.0.transaction()?;
        let mut taken = 0;
        for (Rung { seq, sale_id, at, body }, refusal) in &old.open {
            let sql = "INSERT OR IGNORE INTO sales (seq, sale_id, rung_up_at, body, status, detail) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (status, detail) = refusal.as_ref().map(|refusal| (refusal.status, &refusal.detail)).unzip();
            taken += to.execute(
                sql,
                params![number(*seq), sale_id.as_str(), at.to_string(), body, status, detail],
            )?;
        }
        // Whoever took it over before counted it then.
        if taken > 0 || old.open.is_empty() {
            let sql = "UPDATE till SET journalled = journalled + ?1, sent = sent + ?2, next_seq = max(next_seq, ?3)";
            to.execute(sql, [old.journalled, old.sent, old.next_seq].map(number))?;
        }
        to.commit()
    }
}

/// Keeps a copy of a damaged journal, and makes it anew of what can be read. Gives where the copy is.
pub fn salvage(file: &Path, now: Timestamp) -> rusqlite::Result<PathBuf> {
    let named = |name: &str, ending: &str| PathBuf::from(format!("{}{name}{ending}", file.display()));
    let damaged = format!(".damaged-{}", now.as_second());
    let (aside, beside) = (named(&damaged, ""), named(".new", ""));
    let failed = |why: std::io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(why));
    for ending in ["", "-wal"].iter().filter(|ending| named("", ending).exists()) {
        std::fs::copy(named("", ending), named(&damaged, ending)).map_err(failed)?;
    }
    for ending in ["", "-wal", "-shm"] {
        remove(&named(".new", ending)).map_err(failed)?;
    }
    Store::open(&beside)?.take_over(&readable(&aside))?;
    // A log of writes to the damaged one would be taken for one of the new.
    for ending in ["-wal", "-shm"] {
        remove(&named("", ending)).map_err(failed)?;
    }
    std::fs::rename(beside, file).map_err(failed)?;
    Ok(aside)
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What can be read of a damaged journal: from both ends up to the damage.
fn readable(damaged: &Path) -> Old {
    let Ok(damaged) = Connection::open(damaged) else { return Old { next_seq: 1, ..Old::default() } };
    let mut all: Vec<_> = ["ASC", "DESC"].iter().flat_map(|order| rows_of(&damaged, order)).collect();
    all.sort_by_key(|(n, ..)| *n);
    all.dedup_by_key(|(n, ..)| *n);
    let next = all.iter().map(|(_, (sale, _))| sale.seq.saturating_add(1)).max().unwrap_or(1);
    let counted = damaged.query_row("SELECT next_seq, journalled, sent FROM till", [], |row| {
        Ok((count(row, 0)?, count(row, 1)?, count(row, 2)?))
    });
    let (next_seq, journalled, sent) = counted.unwrap_or((next, all.len() as u64, 0));
    let open = all.into_iter().map(|(_, sale)| sale).collect();
    Old { next_seq: next_seq.max(next), journalled, sent, open, damaged: 1 }
}

/// The rows from one end up to where the file cannot be read. A sale's id stands in what is posted as well.
fn rows_of(damaged: &Connection, order: &str) -> Vec<(i64, (Rung, Option<Refusal>))> {
    let sql = format!(
        "SELECT n, seq, sale_id, rung_up_at, body, status, detail FROM sales NOT INDEXED ORDER BY n {order}"
    );
    let mut found = Vec::new();
    let Ok(mut sql) = damaged.prepare(&sql) else { return found };
    let rows = sql.query_map([], |row| {
        let body: Option<String> = row.get(4)?;
        let sale_id = match body.as_deref().and_then(|body| serde_json::from_str(body).ok()) {
            Some(Posted { message_id }) => message_id,
            None => parsed(row, 2)?,
        };
        let at = parsed(row, 3).unwrap_or(Timestamp::UNIX_EPOCH);
        let sale = Rung { seq: count(row, 1)?, sale_id, at, body };
        let status: Option<u16> = row.get(5)?;
        let refusal = status
            .map(|status| Ok::<_, rusqlite::Error>(Refusal { status, detail: row.get(6)? }))
            .transpose()?;
        Ok((row.get(0)?, (sale, refusal)))
    });
    if let Ok(rows) = rows {
        let is_read = |row: &rusqlite::Result<_>| !row.as_ref().is_err_and(is_damage);
        found.extend(rows.take_while(is_read).filter_map(Result::ok));
    }
    found
}

/// What is posted of a sale.
#[derive(Deserialize)]
struct Posted {
    message_id: SaleId,
}

/// Whether the file is no journal (any more), whatever the reason.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether there is no room, or the disk does not do what it is asked.
pub fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}
