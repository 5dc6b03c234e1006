//! `weft apiserver backup|restore|copy`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use weft_apiserver::{Backup, EtcdConfig, Place, StorageError, sync_folder};
use weft_store::Api;

use crate::etcd_args::{EtcdAccess, EtcdArgs};
use crate::{daemons, exit};

#[derive(Debug, Subcommand)]
pub(crate) enum ObjectsCommand {
    /// Write all objects to a new file
    #[command(
        after_help = "The server may run or not. The file holds Secrets: only its owner can read it. What else is in the data directory (certificates, keys, tokens) is not in it.\n\nExamples:\n  weft apiserver backup objects.weft --data-dir /var/lib/weft\n  weft apiserver backup objects.weft --etcd-servers http://10.0.0.1:2379\nFrom afar, as a cluster-admin:\n  kubectl get --raw /weft/backup > objects.weft"
    )]
    Backup(FileArgs),
    /// Fill an empty data directory or etcd from a backup
    #[command(
        after_help = "Clients that watched list again: resourceVersions go on far beyond the backup's.\n\nExample:\n  weft apiserver restore objects.weft --data-dir /var/lib/weft"
    )]
    Restore(FileArgs),
    /// Copy all objects to another, empty, place
    #[command(
        after_help = "Stop the servers first: what they write meanwhile stays behind.\n\nExample:\n  weft apiserver copy --from /var/lib/weft --to http://10.0.0.1:2379,http://10.0.0.2:2379"
    )]
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The backup
    file: PathBuf,
    /// The data directory of the server
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "etcd_servers",
        conflicts_with = "etcd_servers"
    )]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// A data directory, or URLs of an etcd
    #[arg(long, value_name = "DIR|URLS")]
    from: String,
    /// A data directory, or URLs of an etcd
    #[arg(long, value_name = "DIR|URLS")]
    to: String,
    #[command(flatten)]
    etcd: EtcdAccess,
}

/// Does it and says how much it was.
pub(crate) fn run(command: ObjectsCommand) -> anyhow::Result<u8> {
    daemons::runtime()?.block_on(async {
        let (count, done) = match command {
            ObjectsCommand::Backup(options) => (save(options).await?, "saved"),
            ObjectsCommand::Restore(options) => {
                let backup = Backup::load(&options.file)?;
                backup.fill(&place(options.data_dir, options.etcd.config())?).await?;
                (backup.len(), "restored")
            }
            ObjectsCommand::Copy(options) => {
                let backup = Backup::of(&side(&options.from, &options.etcd)).await?;
                backup.fill(&side(&options.to, &options.etcd)).await?;
                (backup.len(), "copied")
            }
        };
        println!("{count} objects {done}");
        Ok(exit::DONE)
    })
}

/// One side of a copy: URLs say so.
fn side(text: &str, etcd: &EtcdAccess) -> Place {
    match ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
        true => Place::Etcd(etcd.at(text.split(',').map(str::to_owned).collect())),
        false => Place::Dir(text.into()),
    }
}

fn place(dir: Option<PathBuf>, etcd: Option<EtcdConfig>) -> anyhow::Result<Place> {
    let etcd = etcd.map(Place::Etcd);
    etcd.or(dir.map(Place::Dir)).context("give --data-dir or --etcd-servers")
}

async fn save(options: FileArgs) -> anyhow::Result<usize> {
    let place = place(options.data_dir, options.etcd.config())?;
    match (Backup::of(&place).await, &place) {
        (Err(StorageError::InUse { .. }), Place::Dir(dir)) => ask(dir, &options.file).await,
        (backup, _) => {
            let backup = backup?;
            backup.save(&options.file)?;
            Ok(backup.len())
        }
    }
}

/// Has the server that runs on a data directory tell its objects.
async fn ask(dir: &Path, path: &Path) -> anyhow::Result<usize> {
    let api = Api::from_kubeconfig(&dir.join("admin.kubeconfig")).await?;
    let mut answer = api.download("/weft/backup").await?;
    let failed = || format!("the backup {} could not be written", path.display());
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(failed)?;
    let whole = async {
        while let Some(piece) = answer.next().await? {
            file.write_all(&piece).with_context(failed)?;
        }
        file.sync_all().and_then(|()| sync_folder(path)).with_context(failed)?;
        anyhow::Ok(Backup::load(path)?.len())
    };
    whole.await.inspect_err(|_| {
        // Half a backup helps nobody.
        let _ = std::fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_url_is_an_etcd() {
        let etcd = EtcdAccess {
            etcd_prefix: "/weft".into(),
            etcd_cafile: None,
            etcd_certfile: None,
            etcd_keyfile: None,
        };
        for folder in ["httpdata", "https", "/var/lib/weft", "http:data"] {
            let Place::Dir(dir) = side(folder, &etcd) else { panic!("{folder} is a folder") };
            assert_eq!(dir, Path::new(folder));
        }
        let Place::Etcd(config) = side("https://a:2379,https://b:2379", &etcd) else { panic!("two URLs") };
        assert_eq!(config.servers, ["https://a:2379", "https://b:2379"]);
        assert!(matches!(side("http://a:2379", &etcd), Place::Etcd(_)));
    }
}
