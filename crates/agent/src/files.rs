use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Makes the file at `path` hold `content`: written beside it and renamed, so that nobody reads
/// half of it. Returns whether it had to be written.
pub(crate) fn ensure(path: &Path, content: &[u8]) -> Result<bool> {
    match std::fs::read(path) {
        Ok(found) if found == content => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    write(dir, path, content).with_context(|| format!("write {}", path.display()))?;
    Ok(true)
}

fn write(dir: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new().prefix(".weft-").tempfile_in(dir)?;
    file.write_all(content)?;
    // Others read it too: the runtime as another user, an operator.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_is_written_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        assert!(ensure(&path, b"one").unwrap());
        assert!(!ensure(&path, b"one").unwrap());
        assert!(ensure(&path, b"two").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = ensure(&dir.path().join("x").join("\0"), b"").unwrap_err();
        assert!(format!("{error:#}").contains("/x/"), "{error:#}");
    }
}
