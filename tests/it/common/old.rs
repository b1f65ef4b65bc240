//! A shop that commit fc5a417 left behind, kept as data: 12 sales of both formats, one of an item that nobody declared, one that
//! was rejected, an enrolled till, a key that was rotated. Its keys were made for this and open nothing else.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/shop-of-fc5a417-with-test-keys")
}

/// Puts the shop's folder there.
pub fn shop(data: &Path) {
    fs::create_dir_all(data).unwrap();
    let mut packed = GzDecoder::new(File::open(kept().join("shop.db.gz")).unwrap());
    std::io::copy(&mut packed, &mut File::create(data.join("shop.db")).unwrap()).unwrap();
    keys(&kept().join("keys"), &data.join("keys"));
}

fn keys(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            keys(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
        }
    }
}
