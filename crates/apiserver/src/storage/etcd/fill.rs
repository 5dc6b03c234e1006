//! Reading all of it once, and filling an empty prefix.

use tonic::Status;

use super::client::{Client, EtcdConfig};
use super::keys::{Keys, revision};
use super::load;
use super::messages::{Op, Operation, PutRequest, RangeRequest, TxnRequest};
use crate::storage::error::StorageError;
use crate::storage::state::{Loaded, Objects};

/// Writes in one transaction; etcd allows 128 by default.
const WRITES: usize = 100;
/// Bytes in one transaction; etcd allows 1.5 MiB by default.
const BYTES: usize = 1024 * 1024;

/// Everything that is there, at one revision; servers may go on.
pub(crate) async fn read(config: &EtcdConfig) -> Result<Loaded, StorageError> {
    let client = Client::new(config)?;
    let failed = |e: load::LoadError| StorageError::Store {
        path: client.names().to_owned(),
        op: "be read",
        cause: e.to_string(),
    };
    Ok(load::load(&client, &Keys::new(&config.prefix)).await.map_err(failed)?.loaded)
}

/// Fills a prefix that is empty; all resourceVersions there are beyond `rv`.
pub(crate) async fn fill(config: &EtcdConfig, objects: &Objects, rv: u64) -> Result<(), StorageError> {
    let client = Client::new(config)?;
    let keys = Keys::new(&config.prefix);
    let path = client.names().to_owned();
    let failed = |cause: String| StorageError::Store { path: path.clone(), op: "be written", cause };
    let refused = |status: Status| failed(status.message().to_owned());
    let (key, range_end) = keys.all();
    let first = RangeRequest { key, range_end, limit: 1, revision: 0 };
    let found = client.range(first).await.map_err(refused)?;
    if !found.kvs.is_empty() {
        let why = format!("there are objects under {} already; choose another --etcd-prefix", config.prefix);
        return Err(failed(why));
    }
    let now = revision(found.header.unwrap_or_default().revision);
    let base = rv.saturating_sub(now).to_string().into_bytes();
    let mut puts = vec![PutRequest { key: keys.base(), value: base }];
    for (key, object) in objects {
        let mut value = object.to_value();
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        puts.push(PutRequest { key: keys.object(key), value: value.to_string().into_bytes() });
    }
    puts.push(PutRequest { key: keys.tip(), value: Vec::new() });
    for success in transactions(puts) {
        let answer = client.txn(TxnRequest { compare: Vec::new(), success }).await;
        answer.map_err(|status| failed(format!("{}; {}", status.message(), keys.half())))?;
    }
    Ok(())
}

/// Packs writes into transactions that etcd takes.
fn transactions(puts: Vec<PutRequest>) -> Vec<Vec<Operation>> {
    let (mut all, mut bytes): (Vec<Vec<Operation>>, usize) = (Vec::new(), usize::MAX);
    for put in puts {
        bytes = bytes.saturating_add(put.key.len() + put.value.len());
        let operation = Operation { op: Some(Op::Put(put)) };
        match all.last_mut() {
            Some(last) if bytes <= BYTES && last.len() < WRITES => last.push(operation),
            _ => {
                bytes = 0;
                all.push(vec![operation]);
            }
        }
    }
    all
}
