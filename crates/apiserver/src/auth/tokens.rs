//! Bearer tokens that are known beforehand: the administrator's, and those of a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use super::user::{MASTERS, User};

/// A token file larger than this is refused, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The token file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the token file {path} cannot be used: {cause}")]
pub struct TokenError {
    path: PathBuf,
    cause: String,
}

/// Tokens and whose they are. They are kept by their digest, so that the time of a look-up tells nothing of them.
pub(super) struct Tokens {
    admin: ([u8; 32], User),
    file: Option<PathBuf>,
    users: RwLock<HashMap<[u8; 32], User>>,
    /// What the file was like when it was read last: its time and size.
    seen: Mutex<Option<(SystemTime, u64)>>,
}

impl Tokens {
    pub(super) fn new(admin: String, file: Option<&Path>) -> Result<Self, TokenError> {
        let user = User::known("admin", vec![MASTERS.to_owned()]);
        let tokens = Self {
            admin: (digest(&admin), user),
            file: file.map(Path::to_owned),
            users: RwLock::default(),
            seen: Mutex::default(),
        };
        tokens.refresh()?;
        Ok(tokens)
    }

    /// Reads the file if it changed; what was known stays when it cannot be read.
    pub(super) fn refresh(&self) -> Result<(), TokenError> {
        let Some(path) = &self.file else { return Ok(()) };
        let failed = |cause: String| TokenError { path: path.clone(), cause };
        let metadata = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
        let now = metadata.modified().ok().map(|time| (time, metadata.len()));
        if std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now) == now {
            return Ok(());
        }
        if metadata.len() > LARGEST {
            return Err(failed(format!("it is larger than {LARGEST} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let users = parse(&text).map_err(failed)?;
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        Ok(())
    }

    pub(super) fn user(&self, token: &str) -> Option<User> {
        let digest = digest(token);
        if digest == self.admin.0 {
            return Some(self.admin.1.clone());
        }
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }
}

fn digest(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().unwrap_or_default()
}

/// Lines of `token,user,uid[,"group1,group2"]`.
fn parse(text: &str) -> Result<HashMap<[u8; 32], User>, String> {
    let mut users = HashMap::new();
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let fields = fields(line).ok_or_else(|| format!("line {number}: a quote is not closed"))?;
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(format!("line {number}: expected token,user,uid[,\"group1,group2\"]"));
        };
        if token.is_empty() || name.is_empty() {
            return Err(format!("line {number}: the token and the user must not be empty"));
        }
        let groups = rest.first().map(String::as_str).unwrap_or_default();
        let groups = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned);
        let mut user = User::known(name, groups.collect());
        user.uid.clone_from(uid);
        if users.insert(digest(token), user).is_some() {
            return Err(format!("line {number}: the token is there twice"));
        }
    }
    Ok(users)
}

/// The fields of a CSV line; None when a quote is open at its end.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if last.is_empty() && !quoted => {}
            c => last.push(c),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_users_and_groups() {
        let text = "# who\nt1,ann,7\n\nt2, bob ,8,\"dev,ops\"\nt3,cy,,\"a \"\"b\"\"\"\n";
        let users = parse(text).unwrap();
        let of = |token: &str| users[&digest(token)].clone();
        assert_eq!((of("t1").name.as_str(), of("t1").uid.as_str()), ("ann", "7"));
        assert_eq!(of("t2").groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(of("t3").groups[0], "a \"b\"");
        for bad in ["t1,ann", "t1,,1", ",ann,1", "t,a,1,\"x", "t,a,1\nt,b,2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_went_bad_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        std::fs::write(&path, "secret,ann,7\n").unwrap();
        let tokens = Tokens::new("admin-token".into(), Some(&path)).unwrap();
        assert_eq!(tokens.user("secret").unwrap().name, "ann");
        assert!(tokens.user("admin-token").unwrap().is_in(MASTERS));
        assert!(tokens.user("").is_none() && tokens.user("secre").is_none());
        std::fs::write(&path, "secret,anna\n").unwrap();
        assert!(tokens.refresh().is_err());
        assert_eq!(tokens.user("secret").unwrap().name, "ann");
        std::fs::write(&path, "other,bob,8\n").unwrap();
        tokens.refresh().unwrap();
        assert!(tokens.user("secret").is_none() && tokens.user("other").is_some());
    }
}
