//! The access token: 256 random bits made at first start, kept in a 0600 file, compared in constant time.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::runtime::failpoint;

/// SHA-256 of the token; the token itself is not kept in the process.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Whether `offered` is the token; takes the same time for every wrong one.
    pub fn admits(&self, offered: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(offered.as_bytes()).into();
        digest.ct_eq(&self.0).into()
    }
}

/// Whether the token file can be used, or can be made because it is absent; nothing is changed.
///
/// # Errors
/// When the file is readable by group or others, is not a token, or cannot be read.
pub fn check(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) => {
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                bail!("token file {} has mode {mode:04o}; others could read it. Run: chmod 600 {0}", path.display());
            }
            read(path).map(drop)
        }
        // Below a file there is nothing either; the store says what is wrong with the directory.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look at the token file {}", path.display())),
    }
}

/// Reads the token file, or makes it with a fresh token.
///
/// # Errors
/// As [`check`], or when the file cannot be written.
pub fn load_or_create(path: &Path) -> Result<TokenDigest> {
    check(path)?;
    if !path.exists() {
        create(path)?;
    }
    Ok(TokenDigest(Sha256::digest(read(path)?.as_bytes()).into()))
}

/// The token in the file, for the command line of the same user.
///
/// # Errors
/// When the file cannot be read or holds no token.
pub fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "nobody has run here yet: there is no token file {}; start the program with `triplegain run`, or name its store \
             with --store DIR",
            path.display()
        ),
        _ => anyhow!("cannot read the token file {}: {error}", path.display()),
    })?;
    let token = text.trim();
    if token.len() != 64 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("token file {} holds no token (64 hex digits); remove it and restart to make a new one", path.display());
    }
    Ok(token.to_owned())
}

/// Under another name first: a kill in the middle must not leave a token file without a token, which a start refuses.
fn create(path: &Path) -> Result<()> {
    let mut bytes = [0u8; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot draw a token")?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    failpoint::write("token.clear")?;
    let cleared =
        fs::remove_file(&temporary).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) });
    cleared.with_context(|| format!("cannot clear {}", temporary.display()))?;
    failpoint::write("token.create")?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("cannot make the token file {}", path.display()))?;
    failpoint::write("token.write")?;
    writeln!(file, "{}", hex::encode(bytes))?;
    failpoint::write("token.sync")?;
    file.sync_all()?;
    failpoint::write("token.rename")?;
    fs::rename(&temporary, path)?;
    // Before anybody could have read it, so that nobody keeps a token that a power loss takes back.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    failpoint::write("token.dir_sync")?;
    fs::File::open(parent)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_private_and_admits_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let digest = load_or_create(&path).unwrap();
        let token = read(&path).unwrap();
        assert!(digest.admits(&token));
        assert!(!digest.admits("0000"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(load_or_create(&path).unwrap().admits(&token), "a second start keeps the token");
    }

    #[test]
    fn k41_what_an_interrupted_first_start_left_of_a_token_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(folder.path().join("token.tmp"), "half a tok").unwrap();
        load_or_create(&path).unwrap();
        assert_eq!(read(&path).unwrap().len(), 64);
        assert!(!folder.path().join("token.tmp").exists());
    }

    #[test]
    fn a175_world_readable_token_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load_or_create(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_kill_while_the_token_is_made_leaves_none_and_the_next_start_makes_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        // What a kill between making and writing the file leaves.
        fs::write(folder.path().join("token.tmp"), "").unwrap();
        load_or_create(&path).unwrap();
        let made: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(made, ["token"], "the file appears by a rename, so that it is never seen without its content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_token_file_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "hello").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load_or_create(&path).err().unwrap().to_string().contains("remove it"));
    }
}
