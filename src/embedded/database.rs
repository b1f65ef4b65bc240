//! The file that is the shop's tables, as SQLite sees it: whether it is one, whether it is whole, and a copy of it.
//!
//! What stands in the tables is asked of `dynamodb.rs` alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Why a file cannot be the shop's tables.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(
        "{} is damaged, or no SQLite database ({why}); move this folder away, and make it anew from a backup with \
         `kassa restore`", file.display()
    )]
    Damaged { file: PathBuf, why: String },
    #[error("{} is a database, but no shop's; choose another --data", file.display())]
    Foreign { file: PathBuf },
    #[error("cannot use the database {}: {why}", file.display())]
    Unusable { file: PathBuf, why: String },
}

impl DatabaseError {
    fn from_sqlite(file: &Path, error: &rusqlite::Error) -> Self {
        let (file, why) = (file.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged { file, why },
            _ => Self::Unusable { file, why },
        }
    }
}

/// Looks whether there is a database, or room for one. Writes nothing, so that what is damaged stays as it is for whoever
/// would save something of it.
///
/// `SQLite` would take a log that it cannot read for one that was never written, and a file that is empty for one that was never
/// used, and delete the log beside it, with the sales in it.
///
/// # Errors
/// [`DatabaseError`].
pub fn inspect(file: &Path, tables: &[String]) -> Result<(), DatabaseError> {
    if !is_there(file)? {
        return Ok(());
    }
    let failed = |error: rusqlite::Error| DatabaseError::from_sqlite(file, &error);
    let connection = open(file).map_err(failed)?;
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(failed)?;
    let there = there(&connection).map_err(failed)?;
    let is_ours = |name: &String| name == "_tables" || tables.contains(name);
    if there.is_empty() || there.iter().any(is_ours) {
        Ok(())
    } else {
        Err(DatabaseError::Foreign { file: file.to_owned() })
    }
}

/// Makes the file, if it is not there: readable by its owner only, as are the log and its index then.
///
/// # Errors
/// [`DatabaseError::Unusable`].
pub fn make(file: &Path) -> Result<(), DatabaseError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => {
            Err(DatabaseError::Unusable { file: file.to_owned(), why: why.to_string() })
        }
        _ => Ok(()),
    }
}

/// Whether there is a database, and a log beside it that `SQLite` would not pass over.
fn is_there(file: &Path) -> Result<bool, DatabaseError> {
    let unusable =
        |why: std::io::Error| DatabaseError::Unusable { file: file.to_owned(), why: why.to_string() };
    let damaged =
        |file: &Path, why: &str| DatabaseError::Damaged { file: file.to_owned(), why: why.to_owned() };
    let log = log_of(file);
    let (log_bytes, log_head) = head(&log).map_err(unusable)?;
    let (bytes, header) = head(file).map_err(unusable)?;
    if bytes == 0 {
        return match log_bytes {
            0 => Ok(false),
            _ => Err(damaged(file, "it is empty or gone, and the log beside it is not")),
        };
    }
    if log_bytes > 0 && !begins_a_log(&log_head) {
        return Err(damaged(&log, "it does not begin as a log does"));
    }
    if log_bytes == 0 && bytes_by_header(&header).is_some_and(|whole| bytes < whole) {
        return Err(damaged(file, "its end is cut off"));
    }
    Ok(true)
}

/// Looks for damage where something has failed that should not: reads all of it.
///
/// # Errors
/// [`DatabaseError::Damaged`], or that it cannot be read.
pub fn verify(file: &Path) -> Result<(), DatabaseError> {
    let failed = |error: rusqlite::Error| DatabaseError::from_sqlite(file, &error);
    let connection = open(file).map_err(failed)?;
    let found: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(DatabaseError::Damaged { file: file.to_owned(), why: found }),
    }
}

/// Whether any of these tables, or what is known of it, is missing.
///
/// # Errors
/// [`DatabaseError`].
pub fn lacks(file: &Path, tables: &[String]) -> Result<bool, DatabaseError> {
    let lacks = || {
        let connection = open(file)?;
        let (there, known) = (there(&connection)?, known(&connection)?);
        Ok(tables.iter().any(|table| !there.contains(table) || !known.contains(table)))
    };
    lacks().map_err(|error| DatabaseError::from_sqlite(file, &error))
}

/// Makes what is missing as it is in `template`, all of it or nothing: a table is two things, what is known of it and its
/// rows, and whoever is killed between the two leaves one that can neither be used nor made.
///
/// Gives the tables that were lost, and are empty now: where others hold rows, those that something was known of, and those
/// of `old`, which every version had. A stream whose events are lost says nothing, and is emptied.
///
/// # Errors
/// [`DatabaseError`].
pub fn complete(
    file: &Path,
    template: &Path,
    old: &[&String],
    (events, stream): (&str, &str),
) -> Result<Vec<String>, DatabaseError> {
    let complete = || {
        let mut connection = open(file)?;
        connection.execute("ATTACH ?1 AS template", [template.to_string_lossy()])?;
        let change = connection.transaction()?;
        let rows = |table: &String| {
            change.query_row(&format!("SELECT EXISTS (SELECT 1 FROM main.\"{table}\")"), [], |row| row.get(0))
        };
        let of_tables = there(&change)?.into_iter().filter(|table| !table.starts_with('_'));
        let used: Vec<bool> = of_tables.map(|table| rows(&table)).collect::<rusqlite::Result<_>>()?;
        let known = known(&change)?;
        let is_lost =
            |table: &String| used.contains(&true) && (known.contains(table) || old.contains(&table));
        let missing = pairs(
            &change,
            "SELECT name, sql FROM template.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT IN (SELECT name FROM main.sqlite_master)",
        )?;
        missing.iter().try_for_each(|(_, sql)| change.execute_batch(sql))?;
        // Columns by name: a file that is older may have them in another order.
        let columns: String = change.query_row(
            "SELECT group_concat(name) FROM pragma_table_info('_tables', 'template')",
            [],
            |row| row.get(0),
        )?;
        change.execute_batch(&format!(
            "INSERT INTO main._tables ({columns}) SELECT {columns} FROM template._tables \
             WHERE table_name NOT IN (SELECT table_name FROM main._tables)"
        ))?;
        let lost: Vec<String> = missing.into_iter().map(|(name, _)| name).filter(is_lost).collect();
        if lost.iter().any(|table| table == events) {
            change.execute_batch(&format!("DELETE FROM main.\"{stream}\""))?;
        }
        change.commit()?;
        Ok(lost)
    };
    complete().map_err(|error| DatabaseError::from_sqlite(file, &error))
}

/// Moves all of the log into the file, so that the file is the whole shop.
///
/// # Errors
/// [`DatabaseError`], also if somebody reads the log.
pub fn checkpoint(file: &Path) -> Result<(), DatabaseError> {
    let busy = open(file).and_then(|connection| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
    });
    match busy {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(DatabaseError::Unusable { file: file.to_owned(), why: "somebody reads its log".into() })
        }
        Err(error) => Err(DatabaseError::from_sqlite(file, &error)),
    }
}

/// Pages that are copied at once.
const PAGES: i32 = 1024;

/// How long a page's lock is waited for between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Copies a database as it is now, whoever else writes it meanwhile. `progress` hears how many bytes of how many are done.
///
/// # Errors
/// [`DatabaseError`].
pub fn copy(from: &Path, to: &Path, progress: &dyn Fn(u64, u64)) -> Result<(), DatabaseError> {
    let unusable =
        |why: std::io::Error| DatabaseError::Unusable { file: to.to_owned(), why: why.to_string() };
    if !is_there(from)? {
        let why = "it is empty".to_owned();
        return Err(DatabaseError::Damaged { file: from.to_owned(), why });
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(unusable)?;
    let copy = || {
        let source = open(from)?;
        // One moment's pages, to the last: what is written from here on is in the log, and not looked at.
        source.execute_batch("BEGIN")?;
        there(&source)?;
        let page_bytes: u64 = source.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut target = open(to)?;
        let backup = Backup::new(&source, &mut target)?;
        loop {
            let step = backup.step(PAGES)?;
            let done = backup.progress();
            let [of, left] =
                [done.pagecount, done.remaining].map(|pages| u64::try_from(pages).unwrap_or(0) * page_bytes);
            progress(of.saturating_sub(left), of);
            match step {
                StepResult::Done => return Ok(()),
                StepResult::Busy | StepResult::Locked => std::thread::sleep(PAUSE),
                _ => {}
            }
        }
    };
    copy().map_err(|error| DatabaseError::from_sqlite(from, &error))
}

/// The log that `SQLite` keeps beside a database.
#[must_use]
pub fn log_of(file: &Path) -> PathBuf {
    beside(file, "-wal")
}

/// The index of the log.
#[must_use]
pub fn index_of(file: &Path) -> PathBuf {
    beside(file, "-shm")
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Opens a file that is there. Closing it leaves the log as it is.
fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// How long a file is, and how it begins; nothing, if it is not there.
fn head(file: &Path) -> std::io::Result<(u64, Vec<u8>)> {
    let file = match File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut head = Vec::new();
    file.take(100).read_to_end(&mut head)?;
    Ok((about.len(), head))
}

/// How many bytes a database has by its header (<https://www.sqlite.org/fileformat.html>, 1.3), if that can be told.
fn bytes_by_header(header: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let size = match u16::from_be_bytes(header.get(16..18)?.try_into().ok()?) {
        1 => 65_536,
        size => u64::from(size),
    };
    // The count is valid for one state of the file only, which it names.
    (number(24)? == number(92)?).then_some(u64::from(number(28)?) * size)
}

/// Whether a log begins as `SQLite` begins one (4.1 of the same page). Where nothing was ever synced, a crash leaves zeros.
fn begins_a_log(head: &[u8]) -> bool {
    matches!(head, [0x37, 0x7f, 0x06, 0x82 | 0x83, ..]) || head.iter().all(|byte| *byte == 0)
}

/// The names of the tables there are, but `SQLite`'s own.
fn there(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    texts(connection, "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
}

/// The names of the tables that dynoxide knows of.
fn known(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    texts(connection, "SELECT table_name FROM _tables")
}

fn texts(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn pairs(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
    connection.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
