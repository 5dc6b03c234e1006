//! Network configurations as the runtime's folder holds them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::version::Version;

/// No configuration is larger; what is, is an attack or a mistake.
const LARGEST: u64 = 1 << 20;

/// A network: its plugins in the order of ADD.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The version of the specification its plugins are spoken to in.
    pub cni_version: String,
    /// CHECK is not to be asked of its plugins.
    pub disable_check: bool,
    /// GC is not to be asked of its plugins.
    pub disable_gc: bool,
    /// The plugins' configurations, each with a `type`.
    pub plugins: Vec<Map<String, Value>>,
    /// The whole configuration, as the result cache keeps it.
    pub config: Value,
}

impl Network {
    /// The network `name` of a folder: the first by file name of its lists (`.conflist`), then
    /// of its single configurations (`.conf`, `.json`).
    pub fn find(dir: &Path, name: &str) -> Result<Network, CniError> {
        let mut broken = Vec::new();
        for extensions in [&["conflist"][..], &["conf", "json"]] {
            for path in files(dir, extensions)? {
                match Network::read(&path) {
                    Ok(network) if network.name == name => return Ok(network),
                    Ok(_) => {}
                    Err(error) => broken.push(error.message),
                }
            }
        }
        let mut message = format!("there is no network {name:?} in {}", dir.display());
        if !broken.is_empty() {
            message += &format!("; what cannot be read there: {}", broken.join("; "));
        }
        Err(invalid(&message))
    }

    /// The network of one file; a list's further plugins come from the folder beside it that
    /// has the network's name.
    pub fn read(path: &Path) -> Result<Network, CniError> {
        let named =
            |error: CniError| CniError::new(error.code, format!("{}: {}", path.display(), error.message));
        let network = Network::parse(&read(path)?).map_err(named)?;
        let inlined = network.config.get("loadOnlyInlinedPlugins");
        if network.config.get("type").is_some()
            || flag(&network.config, "loadOnlyInlinedPlugins").map_err(named)?
        {
            let empty = inlined.is_some() && network.plugins.is_empty();
            let missing = || invalid("plugins is missing although loadOnlyInlinedPlugins is true");
            return if empty { Err(named(missing())) } else { Ok(network) };
        }
        network.with_folder(path).map_err(named)
    }

    /// The network of a text: a list, or the configuration of a single plugin.
    pub fn parse(text: &[u8]) -> Result<Network, CniError> {
        let wrong = |error: &dyn std::fmt::Display| {
            CniError::new(code::DECODE, format!("it is no network configuration: {error}"))
        };
        let config: Value = serde_json::from_slice(text).map_err(|error| wrong(&error))?;
        let object = config.as_object().ok_or_else(|| wrong(&"it is no JSON object"))?;
        let name = string(object, "name")?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid("name is missing: give the network a name"))?.to_owned();
        let plugins = match (object.get("plugins"), object.get("type")) {
            (None, Some(_)) => vec![plugin(0, &config)?],
            (None, None) => Vec::new(),
            (Some(Value::Array(plugins)), _) if !plugins.is_empty() => {
                plugins.iter().enumerate().map(|(at, value)| plugin(at, value)).collect::<Result<_, _>>()?
            }
            (Some(Value::Array(_)), _) => return Err(invalid("plugins is empty: name a plugin")),
            (Some(_), _) => return Err(invalid("plugins: it is no list")),
        };
        Ok(Network {
            name,
            cni_version: version(object)?,
            disable_check: flag(&config, "disableCheck")?,
            disable_gc: flag(&config, "disableGC")?,
            plugins,
            config,
        })
    }

    fn with_folder(mut self, path: &Path) -> Result<Network, CniError> {
        // The name becomes part of a path.
        if !self.name.contains(['/', '\0']) && self.name != ".." && self.name != "." {
            let dir = path.parent().unwrap_or(Path::new("/")).join(&self.name);
            for file in files(&dir, &["conf"])? {
                let value: Value = serde_json::from_slice(&read(&file)?).map_err(|error| {
                    CniError::new(code::DECODE, format!("{}: it is no JSON: {error}", file.display()))
                })?;
                self.plugins.push(plugin(self.plugins.len(), &value)?);
            }
            // Whoever reads the configuration later, as from the cache, has all of it.
            self.config["plugins"] = self.plugins.iter().cloned().map(Value::Object).collect();
            self.config["loadOnlyInlinedPlugins"] = true.into();
        }
        if self.plugins.is_empty() {
            return Err(invalid("plugins is missing: name a plugin"));
        }
        Ok(self)
    }
}

/// The files of a folder with these extensions, by name; none when it is absent.
pub(crate) fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, CniError> {
    let failed =
        |error: std::io::Error| CniError::new(code::IO, format!("cannot list {}: {error}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let wanted = path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e));
        if wanted && fs::metadata(&path).is_ok_and(|m| m.is_file()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file's content, up to the limit.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CniError> {
    let failed =
        |error: std::io::Error| CniError::new(code::IO, format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(invalid(&format!("{} is larger than 1 MiB", path.display())));
    }
    Ok(bytes)
}

fn plugin(at: usize, value: &Value) -> Result<Map<String, Value>, CniError> {
    let wrong = |reason: &str| invalid(&format!("plugins[{at}]: {reason}"));
    let object = value.as_object().ok_or_else(|| wrong("it is no JSON object"))?;
    match object.get("type").and_then(Value::as_str) {
        Some(kind) if !kind.is_empty() => Ok(object.clone()),
        _ => Err(wrong("type is missing: name the plugin")),
    }
}

/// The highest of `cniVersion` and `cniVersions` that is known; what is not is left to the
/// plugins to refuse.
pub(crate) fn version(object: &Map<String, Value>) -> Result<String, CniError> {
    let single = string(object, "cniVersion")?;
    let several = match object.get("cniVersions") {
        None => Vec::new(),
        Some(value) => {
            let wrong = || invalid("cniVersions: it is no list of strings");
            let list = value.as_array().ok_or_else(wrong)?;
            list.iter().map(|v| v.as_str().ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let known = several.iter().copied().chain(single).filter_map(Version::parse).max();
    match (several.is_empty(), single, known) {
        (false, _, Some(known)) => Ok(known.text().to_owned()),
        (false, None, None) => Err(invalid("cniVersions: none of them is supported")),
        // The specification's first version knew no such key.
        (_, single, _) => Ok(single.unwrap_or(Version::V010.text()).to_owned()),
    }
}

fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, CniError> {
    let text = |value: &'a Value| value.as_str().ok_or_else(|| invalid(&format!("{key}: it is no string")));
    object.get(key).map(text).transpose()
}

/// A boolean, which may be written as a string.
fn flag(config: &Value, key: &str) -> Result<bool, CniError> {
    match config.get(key) {
        None => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(invalid(&format!("{key}: give true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Network, CniError> {
        Network::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_highest_known_version_is_spoken() {
        let version = |value: Value| {
            let mut config = json!({"name": "n", "plugins": [{"type": "p"}]});
            config.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            parse(config).map(|network| network.cni_version)
        };
        assert_eq!(version(json!({"cniVersion": "0.4.0"})).unwrap(), "0.4.0");
        assert_eq!(
            version(json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "9.0.0"]})).unwrap(),
            "1.1.0"
        );
        assert_eq!(version(json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0"]})).unwrap(), "1.0.0");
        assert_eq!(version(json!({"cniVersion": "9.0.0"})).unwrap(), "9.0.0");
        assert_eq!(version(json!({})).unwrap(), "0.1.0");
        assert!(version(json!({"cniVersions": ["9.0.0"]})).is_err());
        assert!(version(json!({"cniVersions": "1.0.0"})).is_err());
        assert!(version(json!({"cniVersion": 1})).is_err());
    }

    #[test]
    fn what_is_no_network_is_refused_by_its_key() {
        for (bad, says) in [
            (json!([]), "no JSON object"),
            (json!({"plugins": [{"type": "p"}]}), "name"),
            (json!({"name": 1}), "name"),
            (json!({"name": "n", "plugins": []}), "plugins"),
            (json!({"name": "n", "plugins": {}}), "plugins"),
            (json!({"name": "n", "plugins": [{}]}), "plugins[0]: type"),
            (json!({"name": "n", "plugins": [{"type": "p"}, 1]}), "plugins[1]"),
            (json!({"name": "n", "disableGC": "perhaps", "plugins": [{"type": "p"}]}), "disableGC"),
        ] {
            let error = parse(bad.clone()).unwrap_err();
            assert!(error.message.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn a_folder_gives_the_first_of_a_name_and_its_further_plugins() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        };
        write("10-a.conf", json!({"name": "a", "type": "single"}));
        write("20-a.conflist", json!({"name": "a", "plugins": [{"type": "listed"}]}));
        write("30-a.conflist", json!({"name": "a", "plugins": [{"type": "later"}]}));
        write("a/10.conf", json!({"type": "folder"}));
        write("a/20.json", json!({"type": "no"}));
        write("40-b.conf", json!({"name": "b", "type": "single"}));
        write(
            "50-c.conflist",
            json!({"name": "c", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "p"}]}),
        );
        write("c/10.conf", json!({"type": "folder"}));
        write("d/10.conf", json!({"type": "folder"}));
        write("60-d.conflist", json!({"name": "d"}));
        write("70-e.conflist", json!({"name": "e", "loadOnlyInlinedPlugins": true}));
        fs::write(dir.path().join("05-broken.conflist"), "{").unwrap();
        let kinds = |name: &str| -> Result<Vec<String>, CniError> {
            let network = Network::find(dir.path(), name)?;
            Ok(network.plugins.iter().map(|p| p["type"].as_str().unwrap().to_owned()).collect())
        };
        assert_eq!(kinds("a").unwrap(), ["listed", "folder"]);
        assert_eq!(kinds("b").unwrap(), ["single"]);
        let whole = Network::find(dir.path(), "a").unwrap();
        assert_eq!(Network::parse(whole.config.to_string().as_bytes()).unwrap().plugins, whole.plugins);
        assert_eq!(kinds("c").unwrap(), ["p"]);
        assert_eq!(kinds("d").unwrap(), ["folder"]);
        assert!(kinds("e").unwrap_err().message.contains("loadOnlyInlinedPlugins"));
        let error = kinds("x").unwrap_err();
        assert!(error.message.contains("\"x\"") && error.message.contains("05-broken.conflist"), "{error}");
    }
}
