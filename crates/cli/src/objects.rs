//! `weft apiserver backup|restore|copy`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use weft_apiserver::{Backup, EtcdConfig, Place};

use crate::etcd_args::EtcdArgs;
use crate::{daemons, exit};

#[derive(Debug, Subcommand)]
pub(crate) enum ObjectsCommand {
    /// Write all objects to a new file
    #[command(
        after_help = "The server may run when its objects are in etcd; it must be stopped when they are in its data directory.\nThe file holds Secrets: only its owner can read it.\n\nExamples:\n  weft apiserver backup objects.weft --data-dir /var/lib/weft\n  weft apiserver backup objects.weft --etcd-servers http://10.0.0.1:2379"
    )]
    Backup(FileArgs),
    /// Fill an empty data directory or etcd from a backup
    #[command(
        after_help = "Clients that watched list again: resourceVersions go on far beyond the backup's.\n\nExample:\n  weft apiserver restore objects.weft --data-dir /var/lib/weft"
    )]
    Restore(FileArgs),
    /// Move all objects to another, empty, place
    #[command(
        after_help = "Stop the servers first: what they write meanwhile stays behind.\n\nExample:\n  weft apiserver copy --from /var/lib/weft --to http://10.0.0.1:2379,http://10.0.0.2:2379"
    )]
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The backup
    file: PathBuf,
    /// The data directory with the objects
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
    etcd: EtcdArgs,
}

/// Does it and says how much it was.
pub(crate) fn run(command: ObjectsCommand) -> anyhow::Result<u8> {
    daemons::runtime()?.block_on(async {
        let (backup, done) = match command {
            ObjectsCommand::Backup(options) => {
                let backup = Backup::of(&place(options.data_dir, options.etcd.config())?).await?;
                backup.save(&options.file)?;
                (backup, "saved")
            }
            ObjectsCommand::Restore(options) => {
                let backup = Backup::load(&options.file)?;
                backup.fill(&place(options.data_dir, options.etcd.config())?).await?;
                (backup, "restored")
            }
            ObjectsCommand::Copy(options) => {
                let side = |text: String| match text.starts_with("http") {
                    true => Place::Etcd(options.etcd.at(text.split(',').map(str::to_owned).collect())),
                    false => Place::Dir(text.into()),
                };
                let backup = Backup::of(&side(options.from)).await?;
                backup.fill(&side(options.to)).await?;
                (backup, "copied")
            }
        };
        println!("{} objects {done}", backup.len());
        Ok(exit::DONE)
    })
}

fn place(dir: Option<PathBuf>, etcd: Option<EtcdConfig>) -> anyhow::Result<Place> {
    let etcd = etcd.map(Place::Etcd);
    etcd.or(dir.map(Place::Dir)).context("give --data-dir or --etcd-servers")
}
