//! Manifests: files, folders and standard input → checked JSON objects, in the order to apply.

mod fields;
mod parse;
mod validate;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The longest manifest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 16 << 20;
/// How deep folders may nest: a symbolic link that leads back up ends here.
const DEPTH_LIMIT: usize = 32;

/// Why manifests cannot be used. Each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is longer than [`FILE_LIMIT`].
    #[error("{file}: longer than {} MiB: split it into several files", FILE_LIMIT >> 20)]
    TooLong {
        /// The file.
        file: String,
    },
    /// A file is not YAML or JSON.
    #[error("{file}:{line}: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// Line of the error, from 1; 0 when it is not known.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A document is no object of Kubernetes.
    #[error("{file}: document {document}: {field}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// Number of the document in the file, from 1; empty documents do not count.
        document: usize,
        /// Path of the field.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Nothing to apply.
    #[error("{given}: no manifest here: expected YAML or JSON with apiVersion, kind and metadata")]
    Empty {
        /// What was given.
        given: String,
    },
    /// Folders nest too deep.
    #[error("{}: folders nest deeper than {DEPTH_LIMIT}: does a symbolic link lead back up?", path.display())]
    TooDeep {
        /// Where the search ended.
        path: PathBuf,
    },
}

/// One object from a manifest file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The object, as given.
    pub value: Value,
    /// The file it is from; `standard input` for `-`.
    pub file: String,
    /// Number of the document in the file, from 1.
    pub document: usize,
}

impl Manifest {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// The API group: empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, where it is given.
    pub fn namespace(&self) -> Option<&str> {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty())
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Reads manifests from files, folders (recursively, in the order of their names) and, for
/// `-`, standard input. All of them are parsed and checked, or none is returned. Namespaces
/// come first, then CustomResourceDefinitions, then the rest as given.
pub fn read(sources: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut all = Vec::new();
    for source in sources {
        let before = all.len();
        if source.as_os_str() == "-" {
            parse::text("standard input", &stdin()?, &mut all)?;
        } else {
            for file in files(source)? {
                parse::text(&file.display().to_string(), &contents(&file)?, &mut all)?;
            }
        }
        if all.len() == before {
            return Err(ManifestError::Empty { given: source.display().to_string() });
        }
    }
    for manifest in &all {
        validate::check(manifest)?;
        fields::check(manifest)?;
    }
    all.sort_by_key(rank);
    Ok(all)
}

/// Parses and checks manifests from text, as [`read`] does; `file` names it in errors.
pub fn parse_text(file: &str, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut all = Vec::new();
    parse::text(file, text.as_bytes(), &mut all)?;
    for manifest in &all {
        validate::check(manifest)?;
        fields::check(manifest)?;
    }
    all.sort_by_key(rank);
    Ok(all)
}

fn rank(manifest: &Manifest) -> u8 {
    match (manifest.group(), manifest.kind()) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
        _ => 2,
    }
}

fn stdin() -> Result<Vec<u8>, ManifestError> {
    let read = |source| ManifestError::Read { path: "standard input".into(), source };
    bounded(std::io::stdin().lock(), "standard input", read)
}

fn contents(path: &Path) -> Result<Vec<u8>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    bounded(file, &path.display().to_string(), failed)
}

fn bounded(
    from: impl std::io::Read,
    name: &str,
    failed: impl Fn(std::io::Error) -> ManifestError,
) -> Result<Vec<u8>, ManifestError> {
    let mut bytes = Vec::new();
    from.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(ManifestError::TooLong { file: name.to_owned() });
    }
    Ok(bytes)
}

/// The manifest files that `source` stands for: itself, or what the folder holds.
fn files(source: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let metadata = metadata(source)?;
    if !metadata.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut found = Vec::new();
    walk(source, 0, &mut found)?;
    Ok(found)
}

fn metadata(path: &Path) -> Result<fs::Metadata, ManifestError> {
    fs::metadata(path).map_err(|source| ManifestError::Read { path: path.to_owned(), source })
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ManifestError> {
    if depth > DEPTH_LIMIT {
        return Err(ManifestError::TooDeep { path: folder.to_owned() });
    }
    let failed = |source| ManifestError::Read { path: folder.to_owned(), source };
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(failed)?.collect();
    let mut paths: Vec<PathBuf> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if metadata(&path)?.is_dir() {
            walk(&path, depth + 1, found)?;
        } else if is_manifest(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// By its name. `kustomization.yaml` tells kustomize how to build, and is no object.
fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    matches!(extension, "yaml" | "yml" | "json") && stem != "kustomization"
}

#[cfg(test)]
mod tests;
