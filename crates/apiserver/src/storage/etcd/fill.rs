//! Reading all of it once, and filling an empty prefix.

use tonic::Status;

use super::client::{Client, EtcdConfig, is_too_large};
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
    let mut puts = vec![PutRequest { key: keys.base(), value: base, lease: 0 }];
    for (key, object) in objects {
        let mut value = object.to_value();
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        puts.push(PutRequest { key: keys.object(key), value: value.to_string().into_bytes(), lease: 0 });
    }
    puts.push(PutRequest { key: keys.tip(), value: Vec::new(), lease: 0 });
    for success in transactions(puts) {
        let what = alone(&keys, &success);
        let answer = client.txn(TxnRequest { compare: Vec::new(), success }).await;
        answer.map_err(|status| failed(cause(&status, what, &keys)))?;
    }
    Ok(())
}

/// The object that has a transaction for itself, as the largest have, and its bytes.
fn alone(keys: &Keys, transaction: &[Operation]) -> Option<(String, usize)> {
    let [Operation { op: Some(Op::Put(put)) }] = transaction else { return None };
    keys.object_key(&put.key).map(|key| (key.to_owned(), put.value.len()))
}

/// Why a transaction was not done, and what to do.
fn cause(status: &Status, what: Option<(String, usize)>, keys: &Keys) -> String {
    let (why, half) = (status.message(), keys.half());
    match what {
        Some((key, bytes)) if is_too_large(status) => format!(
            "the object {key} has {bytes} bytes, more than this etcd takes: {why}; leave it out, or raise etcd's --max-request-bytes; {half}"
        ),
        _ => format!("{why}; {half}"),
    }
}

/// Packs writes into transactions that etcd takes.
fn transactions(puts: Vec<PutRequest>) -> Vec<Vec<Operation>> {
    let (mut all, mut bytes): (Vec<Vec<Operation>>, usize) = (Vec::new(), usize::MAX);
    for put in puts {
        let size = put.key.len() + put.value.len();
        bytes = bytes.saturating_add(size);
        let operation = Operation { op: Some(Op::Put(put)) };
        match all.last_mut() {
            Some(last) if bytes <= BYTES && last.len() < WRITES => last.push(operation),
            _ => {
                bytes = size;
                all.push(vec![operation]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn put(name: usize, bytes: usize) -> PutRequest {
        PutRequest {
            key: Keys::new("weft").object(&format!("core/configmaps/a/m{name}")),
            value: vec![0; bytes],
            lease: 0,
        }
    }

    fn size(operation: &Operation) -> usize {
        let Some(Op::Put(put)) = &operation.op else { return 0 };
        put.key.len() + put.value.len()
    }

    #[test]
    fn a_transaction_is_no_larger_than_etcd_takes() {
        let sizes = [BYTES - 100, BYTES - 100, 3 * BYTES, 1, BYTES / 2, BYTES / 2, BYTES / 2 - 200];
        let many = std::iter::repeat_n(1, 250);
        let puts: Vec<PutRequest> =
            sizes.into_iter().chain(many).enumerate().map(|(n, b)| put(n, b)).collect();
        let packed = transactions(puts.clone());
        let whole: Vec<Operation> =
            puts.into_iter().map(|put| Operation { op: Some(Op::Put(put)) }).collect();
        assert_eq!(packed.concat(), whole, "each once, in their order");
        for transaction in &packed {
            let bytes: usize = transaction.iter().map(size).sum();
            assert!(
                transaction.len() <= WRITES && (bytes <= BYTES || transaction.len() == 1),
                "{bytes} bytes"
            );
        }
        assert!(packed.len() <= 9, "{} transactions", packed.len());
    }

    #[test]
    fn an_object_that_is_too_large_is_named() {
        let keys = Keys::new("weft");
        let [large] = &transactions(vec![put(7, 2 * BYTES)])[..] else { panic!("one transaction") };
        let said = |code, why| cause(&Status::new(code, why), alone(&keys, large), &keys);
        let too_large = said(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(too_large.contains("core/configmaps/a/m7 has 2097152 bytes"), "{too_large}");
        assert!(too_large.contains("etcdctl del --prefix /weft/"), "{too_large}");
        let too_large = said(Code::ResourceExhausted, "grpc: received message larger than max (3 vs. 2)");
        assert!(too_large.contains("core/configmaps/a/m7"), "{too_large}");
        let away = said(Code::Unavailable, "no server");
        assert!(away.starts_with("no server; "), "{away}");
    }
}
