//! Keys of providers: read once at the start from a variable or a file, never printed.

use std::{fmt, fs, os::unix::fs::PermissionsExt, path::Path};

use sha2::{Digest, Sha256};

use crate::settings::ProviderSettings;

/// A secret. Its debug form is not the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// A key from its text.
    ///
    /// # Errors
    /// It is empty or holds characters no header may carry; the text is not repeated.
    pub fn new(text: &str) -> Result<Key, String> {
        let key = text.trim();
        if key.is_empty() {
            return Err("is empty".to_owned());
        }
        let plain = key.bytes().all(|byte| byte.is_ascii_graphic());
        if plain { Ok(Key(key.to_owned())) } else { Err("holds spaces or characters that are no ASCII".to_owned()) }
    }

    /// The secret, for the header of a call only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The text without the key, should somebody have repeated it.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }

    /// Tells two keys of one provider apart; four bytes of a hash give nothing of the key away.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::digest(self.0.as_bytes());
        hex::encode(hash.get(..4).unwrap_or_default())
    }
}

/// Reads the key of a provider; none for a provider that names no source. `variable` looks into the environment.
///
/// # Errors
/// Which variable or file has none, and what to do; the key is not repeated.
pub fn read(
    name: &str,
    settings: &ProviderSettings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Key>, String> {
    if !settings.key_env.is_empty() {
        let env = &settings.key_env;
        let text = variable(env)
            .ok_or_else(|| format!("provider {name}: the variable {env} is not set; export it before the start"))?;
        return Key::new(&text).map(Some).map_err(|why| format!("provider {name}: the variable {env} {why}"));
    }
    if settings.key_file.is_empty() {
        return Ok(None);
    }
    let path = Path::new(&settings.key_file);
    let at = |what: String| format!("provider {name}: the key file {} {what}", path.display());
    let found = fs::metadata(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    let mode = found.permissions().mode() & 0o777;
    if !found.is_file() || mode & 0o177 != 0 {
        return Err(at(format!("has mode {mode:04o}; others may read it: chmod 0600 {}", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    Key::new(&text).map(Some).map_err(at)
}
