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
    unpack("shop.db.gz", &data.join("shop.db"));
    keys(&kept().join("keys"), &data.join("keys"));
}

/// Puts the folder of its till there, which is enrolled, and has rung up two sales more that it sells at this address.
pub fn till(folder: &Path, address: &str) {
    let journal = folder.join(address);
    fs::create_dir_all(&journal).unwrap();
    unpack("till/journal.gz", &journal.join("journal"));
    fs::copy(kept().join("till/shop.jwk"), journal.join("shop.jwk")).unwrap();
    let key = folder.join("till.key");
    fs::copy(kept().join("till/till.key"), &key).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
}

fn unpack(from: &str, to: &Path) {
    let mut packed = GzDecoder::new(File::open(kept().join(from)).unwrap());
    std::io::copy(&mut packed, &mut File::create(to).unwrap()).unwrap();
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
