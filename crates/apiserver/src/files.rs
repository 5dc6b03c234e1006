//! Files that outlive a power cut.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the name of a file durable: a new or renamed file is there after a power cut only when its folder
/// was written too.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        sync_folder(&dir.path().join("file")).unwrap();
        sync_folder(Path::new("in-this-folder")).unwrap();
        assert!(sync_folder(&dir.path().join("no/file")).is_err());
    }
}
