//! The machine a program runs on, which can be told to fail it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::SignedDuration;

/// A disk that can be slow or full and a clock that can jump, for the programs that are started under it.
pub struct Machine {
    // As `struct faults` of faults.c: numbers of eight bytes, one after the other.
    told: File,
    path: PathBuf,
}

/// What it did to them so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Times that the disk was waited for.
    pub syncs: u64,
    /// Writes that found no room.
    pub writes: u64,
}

const CLOCK: u64 = 0;
const SYNC: u64 = 1;
const FULL: u64 = 2;
const SYNCS: u64 = 3;
const WRITES: u64 = 4;
const DIES_AT: u64 = 5;
/// The last one is the library's own.
const NUMBERS: usize = 7;

impl Machine {
    pub fn new(path: &Path) -> Self {
        fs::write(path, [0; NUMBERS * 8]).unwrap();
        let told = File::options().read(true).write(true).open(path).unwrap();
        Self { told, path: path.to_owned() }
    }

    /// Has a program run on it.
    pub fn runs(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("KASSA_FAULTS", &self.path);
    }

    /// Its clock is that much ahead.
    pub fn clock(&self, by: SignedDuration) {
        self.set(CLOCK, i64::try_from(by.as_millis()).unwrap());
    }

    /// Its disk takes so much longer.
    pub fn slow(&self, by: Duration) {
        self.set(SYNC, i64::try_from(by.as_millis()).unwrap());
    }

    pub fn full(&self, full: bool) {
        self.set(FULL, i64::from(full));
    }

    /// Whatever runs on it is killed right before it changes its disk for the n-th time, from 1.
    pub fn dies_at(&self, change: u64) {
        self.set(DIES_AT, i64::try_from(change).unwrap());
    }

    pub fn done(&self) -> Done {
        Done { syncs: self.get(SYNCS), writes: self.get(WRITES) }
    }

    fn set(&self, place: u64, value: i64) {
        self.told.write_all_at(&value.to_ne_bytes(), place * 8).unwrap();
    }

    fn get(&self, place: u64) -> u64 {
        let mut value = [0; 8];
        self.told.read_exact_at(&mut value, place * 8).unwrap();
        u64::from_ne_bytes(value)
    }
}

/// faults.c, compiled.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chaos/faults.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        let beside = library.with_extension(std::process::id().to_string());
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&beside)
            .arg(source)
            .arg("-ldl");
        assert!(cc.status().expect("there is a C compiler").success(), "faults.c does not compile");
        fs::rename(beside, &library).unwrap();
        library
    })
}
