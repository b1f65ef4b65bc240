//! The bootstraps to deploy: those that cargo built with the tests, or those in the folder that `KASSA_ARTIFACTS` names.
//!
//! Each package that has a bootstrap has a test of it, so that cargo builds it with `--workspace`, with the features and
//! the dependencies that the tests have.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::cloud::{python, root};

const ROOMS: [&str; 2] = ["pipeline", "subscribers"];

/// A folder with a zip for each room.
pub fn artifacts() -> PathBuf {
    given().unwrap_or_else(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bootstraps");
        fs::create_dir_all(&folder).unwrap();
        // Each test is a process of its own.
        let alone = File::create(folder.join("lock")).unwrap();
        alone.lock().unwrap();
        for room in ROOMS {
            zip(&fresh(room), &folder.join(format!("{room}.zip")));
        }
        folder
    })
}

/// A room's bootstrap, unzipped in `folder` if that is how it came.
pub fn program(room: &str, folder: &Path) -> PathBuf {
    let Some(artifacts) = given() else { return fresh(room) };
    let program = folder.join(room).join("bootstrap");
    if !program.exists() {
        let mut unzip = Command::new(python());
        unzip.args(["-m", "zipfile", "-e"]).arg(artifacts.join(format!("{room}.zip"))).arg(folder.join(room));
        assert!(unzip.status().unwrap().success());
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    program
}

fn given() -> Option<PathBuf> {
    std::env::var_os("KASSA_ARTIFACTS").map(PathBuf::from)
}

/// What cargo built, if it is newer than all it is made of.
#[track_caller]
fn fresh(room: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_kassa")).with_file_name(room);
    let again = "build it with the tests, by `cargo nextest run --workspace --all-features`";
    assert!(built.exists(), "there is no {}; {again}", built.display());
    for source in sources(room, &built.with_file_name("deps")) {
        let newer = modified(&source) > modified(&built);
        assert!(!newer, "{} is newer than {}; {again}", source.display(), built.display());
    }
    built
}

/// The files of ours that a bootstrap is made of, as rustc wrote them down in Makefiles' form. Those of unit tests are
/// not among them.
fn sources(room: &str, deps: &Path) -> BTreeSet<PathBuf> {
    let (bus, library, program) = ("kassa_bus-", format!("kassa_{room}-"), format!("{room}-"));
    let mut sources = BTreeSet::new();
    for entry in fs::read_dir(deps).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let ours = [bus, &library, &program].iter().any(|crate_name| name.starts_with(crate_name));
        if !ours || !ends_in(&file, "d") {
            continue;
        }
        for (target, files) in
            fs::read_to_string(&file).unwrap().lines().filter_map(|line| line.split_once(": "))
        {
            // Neither what clippy read, to which a manifest belongs, nor what was checked alone.
            let target = Path::new(target);
            if ends_in(target, "rlib") || (name.starts_with(&program) && target.extension().is_none()) {
                sources.extend(files.split_whitespace().map(|file| root().join(file)));
            }
        }
    }
    assert!(!sources.is_empty(), "nothing in {} says what {room} is made of", deps.display());
    sources
}

/// Not before there is none of this very build. It is zipped without symbols, as those are most of it.
fn zip(built: &Path, zip: &Path) {
    if zip.exists() && modified(zip) == modified(built) {
        return;
    }
    let bootstrap = zip.with_file_name("bootstrap");
    let strip = Command::new("strip").arg("-o").args([&bootstrap, built]).status();
    assert!(strip.is_ok_and(|status| status.success()), "{} cannot be stripped", built.display());
    let code = "import sys, zipfile
zip, bootstrap = sys.argv[1:]
with zipfile.ZipFile(zip, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as zip:
    zip.write(bootstrap, 'bootstrap')";
    let parts = zip.with_extension("part");
    let status = Command::new(python()).args(["-c", code]).args([&parts, &bootstrap]).status().unwrap();
    assert!(status.success(), "{} cannot be zipped", built.display());
    File::options().append(true).open(&parts).unwrap().set_modified(modified(built)).unwrap();
    fs::rename(parts, zip).unwrap();
    fs::remove_file(bootstrap).unwrap();
}

fn ends_in(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|of| of == ending)
}

/// One that is gone is not newer.
fn modified(file: &Path) -> SystemTime {
    fs::metadata(file).and_then(|about| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}
