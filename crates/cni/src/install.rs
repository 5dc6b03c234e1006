//! Puts the plugins into a runtime's folder, and takes them out again, on a running node: every
//! name is replaced by one rename, so at no moment is a plugin missing or half written.
//!
//! What had a plugin's name before is kept beside it as `NAME.orig`. Files of other names are
//! not touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::protocol::error::{CniError, code};

/// The executable's name in the folder.
pub const PROGRAM: &str = "weft-cni";

/// What was done with the plugins' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names that are ours now, or were ours and are gone.
    pub changed: Vec<String>,
    /// Names whose former file is kept as `NAME.orig`, or was brought back from there.
    pub originals: Vec<String>,
}

/// Installs `program` and a link to it for each plugin into `dir`, which is made if it is absent.
pub fn install(program: &Path, dir: &Path) -> Result<Changes, CniError> {
    let place = Place { dir };
    fs::create_dir_all(dir).map_err(place.failed("make the folder", dir))?;
    place.put_program(program)?;
    let mut changes = Changes::default();
    for name in super::names() {
        if place.keep_original(name)? {
            changes.originals.push(name.into());
        }
        place.replace(name, |aside| symlink(PROGRAM, aside))?;
        changes.changed.push(name.into());
    }
    place.sync()?;
    Ok(changes)
}

/// Takes out what [`install`] put into `dir`, and gives back what was there before.
pub fn remove(dir: &Path) -> Result<Changes, CniError> {
    let place = Place { dir };
    let mut changes = Changes::default();
    for name in super::names().filter(|name| place.is_ours(name)) {
        let (path, original) = (dir.join(name), place.original(name));
        if fs::symlink_metadata(&original).is_ok() {
            fs::rename(&original, &path).map_err(place.failed("bring back", &path))?;
            changes.originals.push(name.into());
        } else {
            fs::remove_file(&path).map_err(place.failed("remove", &path))?;
        }
        changes.changed.push(name.into());
    }
    // Whoever has read a link before it went still finds what it points to.
    place.sync()?;
    let program = dir.join(PROGRAM);
    match fs::remove_file(&program) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(place.failed("remove", &program)(error));
        }
        _ => {}
    }
    place.sync()?;
    Ok(changes)
}

struct Place<'a> {
    dir: &'a Path,
}

impl Place<'_> {
    fn put_program(&self, program: &Path) -> Result<(), CniError> {
        let mut source = File::open(program).map_err(self.failed("read", program))?;
        self.replace(PROGRAM, |aside| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(aside)?;
            io::copy(&mut source, &mut file)?;
            file.sync_all()
        })
    }

    /// Keeps what has a plugin's name and is not ours; says whether it is kept.
    fn keep_original(&self, name: &str) -> Result<bool, CniError> {
        let (path, original) = (self.dir.join(name), self.original(name));
        if self.is_ours(name) || fs::symlink_metadata(&path).is_err() {
            return Ok(fs::symlink_metadata(&original).is_ok());
        }
        // A second name for the same file: the first stays in its place until ours replaces it.
        let aside = self.aside(name);
        fs::remove_file(&aside).ok();
        fs::hard_link(&path, &aside)
            .and_then(|()| fs::rename(&aside, &original))
            .map_err(self.failed("keep", &path))?;
        Ok(true)
    }

    fn is_ours(&self, name: &str) -> bool {
        fs::read_link(self.dir.join(name)).is_ok_and(|target| target == Path::new(PROGRAM))
    }

    /// Makes a file beside `name` and renames it.
    fn replace(&self, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), CniError> {
        let (path, aside) = (self.dir.join(name), self.aside(name));
        fs::remove_file(&aside).ok();
        make(&aside).and_then(|()| fs::rename(&aside, &path)).map_err(|error| {
            fs::remove_file(&aside).ok();
            self.failed("write", &path)(error)
        })
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}.{}", std::process::id()))
    }

    fn original(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.orig"))
    }

    fn sync(&self) -> Result<(), CniError> {
        File::open(self.dir).and_then(|dir| dir.sync_all()).map_err(self.failed("sync", self.dir))
    }

    fn failed(&self, op: &'static str, path: &Path) -> impl Fn(io::Error) -> CniError + use<> {
        let path = path.to_owned();
        move |error| CniError::new(code::IO, format!("cannot {op} {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_was_there_before_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let program = at("new");
        fs::write(&program, "ours").unwrap();
        let bin = at("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("bridge"), "theirs").unwrap();
        symlink("elsewhere", bin.join("loopback")).unwrap();
        fs::write(bin.join("other"), "another's").unwrap();
        for _ in 0..2 {
            let done = install(&program, &bin).unwrap();
            assert_eq!(done.originals, ["bridge", "loopback"]);
            assert!(super::super::names().all(|name| content(&bin.join(name)) == "ours"));
            assert_eq!(content(&bin.join("bridge.orig")), "theirs");
        }
        assert_eq!(fs::metadata(bin.join(PROGRAM)).unwrap().permissions().mode() & 0o777, 0o755);
        let done = remove(&bin).unwrap();
        assert_eq!(done.originals, ["bridge", "loopback"]);
        let mut left: Vec<_> =
            fs::read_dir(&bin).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["bridge", "loopback", "other"]);
        assert_eq!(content(&bin.join("bridge")), "theirs");
        assert_eq!(fs::read_link(bin.join("loopback")).unwrap(), Path::new("elsewhere"));
        assert!(remove(&bin).unwrap().changed.is_empty());
    }

    #[test]
    fn no_moment_is_without_a_plugin() {
        let dir = tempfile::tempdir().unwrap();
        let (program, bin) = (dir.path().join("new"), dir.path().join("bin"));
        fs::write(&program, "whole").unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("bridge"), "whole").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(content(&bin.join("bridge")), "whole");
                }
            });
            for _ in 0..50 {
                install(&program, &bin).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
