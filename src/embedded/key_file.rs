//! One private key in a file: PKCS#8 in PEM.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
    PublicKeyComponents,
};
use aws_lc_rs::signature::KeyPair as _;
use kassa_bus::keys::{KeyError, PublicKey};
use zeroize::Zeroizing;

/// A private key, ready for work.
pub(super) struct Key {
    private: OaepPrivateDecryptingKey,
    pub(super) public: PublicKey,
}

const PEM: &str = "PRIVATE KEY";

/// How the files of keys end that are not disabled.
pub(super) const ENDING: &str = "pem";

/// And those that are.
pub(super) const RETIRED: &str = "retired";

/// Whether a file is a shop's key by its name, not one that is still being made.
pub(super) fn is_key(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == ENDING || ending == RETIRED)
}

impl Key {
    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let decrypted = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut plaintext, None);
        let length = decrypted.map_err(|_| KeyError::DoesNotOpen)?.len();
        plaintext.truncate(length);
        Ok(plaintext)
    }
}

/// Reads a key that its owner alone can read.
pub(super) fn load(path: &Path) -> Result<Key, KeyError> {
    let unavailable = |why: &str| unusable(path, why);
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(KeyError::NoSuchKey),
        Err(e) => return Err(unavailable(&format!("cannot be read: {e}"))),
    };
    let mode =
        fs::metadata(path).map_err(|e| unavailable(&format!("cannot be read: {e}")))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(unavailable("can be read by others; run chmod 600 on it"));
    }
    let not_a_key = |()| unavailable("is not an RSA private key in PKCS#8 PEM");
    let pem = pem::parse(text.as_bytes()).map_err(|_| not_a_key(()))?;
    let der = Zeroizing::new(pem.into_contents());
    let pair = KeyPair::from_pkcs8(&der).map_err(|_| not_a_key(()))?;
    let components = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let private = PrivateDecryptingKey::from_pkcs8(&der).map_err(|_| not_a_key(()))?;
    Ok(Key {
        private: OaepPrivateDecryptingKey::new(private).map_err(|_| not_a_key(()))?,
        public: PublicKey::new(&components.n, &components.e).map_err(|_| not_a_key(()))?,
    })
}

/// What is there and cannot be used may be put right.
pub(super) fn unusable(path: &Path, why: &str) -> KeyError {
    KeyError::unavailable(format!("{} {why}", path.display()))
}

/// Makes a key in a file that has no name yet, so that a crash leaves no half one.
pub(super) fn write_new_key(file: &Path) -> std::io::Result<()> {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)
        .map_err(|_| std::io::Error::other("no randomness"))?;
    let der: Pkcs8V1Der = key.as_der().map_err(|_| std::io::Error::other("the key cannot be encoded"))?;
    let text = Zeroizing::new(pem::encode(&pem::Pem::new(PEM, der.as_ref())));
    // Of whoever was killed while writing it.
    let _ = fs::remove_file(file);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
