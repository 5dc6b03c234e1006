//! Kubeconfigs: the one given to `lab up`, and what the lab makes of one for its own clients.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

/// Fields of a kubeconfig that name files, which are looked for beside it.
const FILES: [(&str, &str, &[&str]); 2] = [
    ("clusters", "cluster", &["certificate-authority"]),
    ("users", "user", &["client-certificate", "client-key", "tokenFile"]),
];

/// A kubeconfig given by the user.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    config: Value,
    path: PathBuf,
}

impl Given {
    /// Reads it, and makes the files that it names absolute.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Given> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Value =
            serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        for (list, one, fields) in FILES {
            for entry in config.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for field in fields {
                    let Some(Value::String(file)) = entry.pointer_mut(&format!("/{one}/{field}")) else {
                        continue;
                    };
                    *file = folder.join(&*file).display().to_string();
                }
            }
        }
        Ok(Given { config, path: path.into() })
    }

    /// The cluster of the current context.
    fn cluster(&mut self) -> anyhow::Result<&mut Value> {
        let named = |list: &Value, name: &str| -> Option<usize> {
            list.as_array()?.iter().position(|entry| entry["name"] == name)
        };
        let find = |config: &Value| {
            let context = named(config.get("contexts")?, config.get("current-context")?.as_str()?)?;
            let cluster = config["contexts"][context]["context"]["cluster"].as_str()?.to_owned();
            named(config.get("clusters")?, &cluster)
        };
        let Some(place) = find(&self.config) else {
            bail!("{} has no current context with a cluster", self.path.display());
        };
        Ok(&mut self.config["clusters"][place]["cluster"])
    }

    /// `HOST:PORT` of the server.
    pub(crate) fn server(mut self) -> anyhow::Result<String> {
        let (host, port) = host_and_port(self.cluster()?)?;
        Ok(format!("{host}:{port}"))
    }

    /// The kubeconfig as JSON, which every client reads.
    pub(crate) fn text(&self) -> String {
        format!("{:#}\n", self.config)
    }

    /// The same server under another URL.
    pub(crate) fn at(mut self, url: &str) -> anyhow::Result<Given> {
        self.cluster()?["server"] = url.into();
        Ok(self)
    }

    /// Clients go on checking the server's present name, whatever URL they reach it by.
    pub(crate) fn named(mut self) -> anyhow::Result<Given> {
        let cluster = self.cluster()?;
        let (host, _) = host_and_port(cluster)?;
        if cluster.get("tls-server-name").is_none_or(Value::is_null) {
            cluster["tls-server-name"] = host.trim_matches(['[', ']']).into();
        }
        Ok(self)
    }
}

/// The host as a URL has it, and the port.
fn host_and_port(cluster: &Value) -> anyhow::Result<(String, u16)> {
    let server = cluster["server"].as_str().unwrap_or_default();
    let Some(rest) = server.strip_prefix("https://") else {
        bail!("the kubeconfig's server {server:?} is no https URL");
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, Some(443)),
    };
    match port {
        Some(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => bail!("the kubeconfig's server {server:?} has no usable host and port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
clusters:
- {name: other, cluster: {server: https://other}}
- {name: mine, cluster: {server: 'https://127.0.0.1:7443/', certificate-authority: ca.crt}}
contexts: [{name: c, context: {cluster: mine, user: u}}]
current-context: c
users: [{name: u, user: {client-key: /abs/key, tokenFile: t}}]
";

    fn given(text: &str) -> (tempfile::TempDir, anyhow::Result<Given>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, text).unwrap();
        let given = Given::read(&path);
        (dir, given)
    }

    #[test]
    fn only_the_current_cluster_changes_for_clients_inside() {
        let (dir, given) = given(TEXT);
        let inside: Value = serde_json::from_str(
            &given.unwrap().named().unwrap().at("https://10.168.0.1:6443").unwrap().text(),
        )
        .unwrap();
        assert_eq!(inside["clusters"][0]["cluster"]["server"], "https://other");
        let mine = &inside["clusters"][1]["cluster"];
        assert_eq!(mine["server"], "https://10.168.0.1:6443");
        assert_eq!(mine["tls-server-name"], "127.0.0.1");
        let beside = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!(mine["certificate-authority"], beside("ca.crt"));
        assert_eq!(inside["users"][0]["user"]["client-key"], "/abs/key");
        assert_eq!(inside["users"][0]["user"]["tokenFile"], beside("t"));
    }

    #[test]
    fn the_server_is_the_current_context_s() {
        assert_eq!(given(TEXT).1.unwrap().server().unwrap(), "127.0.0.1:7443");
        for (server, found) in [
            ("https://a.example", "a.example:443"),
            ("https://[::1]:6", "[::1]:6"),
            ("https://[::1]", "[::1]:443"),
        ] {
            let text = TEXT.replace("https://127.0.0.1:7443/", server);
            assert_eq!(given(&text).1.unwrap().server().unwrap(), found);
        }
        for bad in ["http://a", "https://", "https://a:x", "7"] {
            let text = TEXT.replace("https://127.0.0.1:7443/", bad);
            assert!(given(&text).1.unwrap().server().is_err(), "{bad}");
        }
        assert!(given("clusters: 3").1.unwrap().server().is_err());
        assert!(given("{").1.is_err());
    }
}
