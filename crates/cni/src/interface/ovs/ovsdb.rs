//! A client of an Open vSwitch database: JSON-RPC on a unix socket (RFC 7047).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::protocol::error::{CniError, code};

/// The database.
const DATABASE: &str = "Open_vSwitch";
/// No answer to a question of ours is larger: a node has some hundred ports, each some hundred
/// bytes.
const LARGEST: usize = 8 << 20;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(crate) struct Ovsdb {
    path: PathBuf,
    socket: UnixStream,
    /// What came and is not read yet.
    received: Vec<u8>,
    /// Number of the next request.
    next: u64,
}

impl Ovsdb {
    /// Connects to the server at `path`.
    pub(crate) fn connect(path: &Path) -> Result<Ovsdb, CniError> {
        let failed = |error| {
            let path = path.display();
            CniError::new(
                code::TRY_AGAIN,
                format!(
                    "socket_file: cannot connect to the Open vSwitch database at {path}: {error}; is ovsdb-server running?"
                ),
            )
        };
        let socket = UnixStream::connect(path).map_err(failed)?;
        Ok(Ovsdb { path: path.to_owned(), socket, received: Vec::new(), next: 1 })
    }

    /// Does `operations` all or not at all. Answers the result of each.
    pub(crate) fn transact(&mut self, operations: &[Value]) -> Result<Vec<Value>, CniError> {
        let id = self.next;
        self.next += 1;
        let mut params = vec![json!(DATABASE)];
        params.extend_from_slice(operations);
        let deadline = Instant::now() + PATIENCE;
        self.send(&json!({"method": "transact", "params": params, "id": id}), deadline)?;
        loop {
            let message = self.receive(deadline)?;
            if message["method"] == "echo" {
                // The server asks whether we are alive.
                let alive = json!({"result": message["params"], "error": null, "id": message["id"]});
                self.send(&alive, deadline)?;
            } else if message["id"] == id {
                return results(&message).map_err(|reason| self.failed(code::IO, &reason));
            }
        }
    }

    fn send(&mut self, message: &Value, deadline: Instant) -> Result<(), CniError> {
        let sent = remaining(deadline)
            .and_then(|time| self.socket.set_write_timeout(Some(time)))
            .and_then(|()| self.socket.write_all(message.to_string().as_bytes()));
        sent.map_err(|error| self.broken(&error))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value, CniError> {
        let mut scanner = Scanner::default();
        let mut chunk = vec![0; 16 << 10];
        loop {
            if let Some(end) = scanner.end(&self.received) {
                let message: Vec<u8> = self.received.drain(..end).collect();
                return serde_json::from_slice(&message)
                    .map_err(|error| self.failed(code::IO, &format!("its answer is no JSON: {error}")));
            }
            if self.received.len() > LARGEST {
                return Err(self.failed(code::IO, "its answer is larger than 8 MiB"));
            }
            let read = remaining(deadline)
                .and_then(|time| self.socket.set_read_timeout(Some(time)))
                .and_then(|()| self.socket.read(&mut chunk));
            match read {
                Ok(0) => return Err(self.failed(code::TRY_AGAIN, "it closed the connection")),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn broken(&self, error: &std::io::Error) -> CniError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                self.failed(code::TRY_AGAIN, &format!("it did not answer within {} s", PATIENCE.as_secs()))
            }
            _ => self.failed(code::TRY_AGAIN, &error.to_string()),
        }
    }

    fn failed(&self, code: u32, reason: &str) -> CniError {
        CniError::new(code, format!("Open vSwitch database at {}: {reason}", self.path.display()))
    }
}

fn remaining(deadline: Instant) -> std::io::Result<Duration> {
    let time = deadline.saturating_duration_since(Instant::now());
    if time.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(time) }
}

/// The results of a transaction, or why there was none: of the whole request, or of the operation
/// that failed.
pub(crate) fn results(message: &Value) -> Result<Vec<Value>, String> {
    if !message["error"].is_null() {
        return Err(described(&message["error"]));
    }
    let Some(results) = message["result"].as_array() else { return Err("its answer has no result".into()) };
    let failed = results.iter().find(|result| !result["error"].is_null());
    match failed {
        Some(Value::String(text)) => Err(text.clone()),
        Some(result) => Err(described(result)),
        None => Ok(results.clone()),
    }
}

fn described(error: &Value) -> String {
    let text = |key: &str| error[key].as_str().map(|text| text.chars().take(400).collect::<String>());
    match (text("error"), text("details")) {
        (Some(error), Some(details)) => format!("{error}: {details}"),
        (Some(error), None) => error,
        _ => error.to_string().chars().take(400).collect(),
    }
}

/// Finds the end of a JSON object in bytes that grow, looking at each only once.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    looked_at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scanner {
    /// Where the first object ends, if it is there whole.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.looked_at) {
            self.looked_at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                b'{' | b'[' if !self.in_text => self.depth += 1,
                b'}' | b']' if !self.in_text => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.looked_at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// A server that says `answers`, whatever is asked, in pieces of seven bytes.
    fn served(answers: &'static str) -> Result<Vec<Value>, CniError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut peer, _) = listener.accept().unwrap();
                let mut question = [0; 4096];
                assert!(peer.read(&mut question).unwrap() > 0);
                // Whoever hung up has seen enough.
                answers.as_bytes().chunks(7).all(|piece| peer.write_all(piece).is_ok());
                while !answers.is_empty() && peer.read(&mut question).is_ok_and(|count| count > 0) {}
            });
            Ovsdb::connect(&path).unwrap().transact(&[json!({"op": "select"})])
        })
    }

    #[test]
    fn an_answer_is_found_among_other_messages() {
        let echo = r#"{"method":"echo","params":[],"id":"echo"}"#;
        let answer = r#"{"id":1,"result":[{"rows":[{"name":"a\"}{"}]}],"error":null}"#;
        let both: &'static str = Box::leak(format!("{echo} {answer}").into_boxed_str());
        assert_eq!(served(both).unwrap(), [json!({"rows": [{"name": "a\"}{"}]})]);
    }

    #[test]
    fn a_refusal_says_why() {
        let cases = [
            (
                r#"{"id":1,"result":[{},{"error":"constraint violation","details":"no"}],"error":null}"#,
                "violation: no",
            ),
            (r#"{"id":1,"result":null,"error":"unknown database"}"#, "unknown database"),
            (r#"{"id":1,"error":null}"#, "no result"),
            ("{]", "no JSON"),
            ("", "closed"),
        ];
        for (answer, reason) in cases {
            let error = served(answer).unwrap_err();
            assert!(error.message.contains(reason), "{answer}: {error}");
        }
        let absent = Ovsdb::connect(Path::new("/nonexistent/db.sock")).unwrap_err();
        assert_eq!(absent.code, code::TRY_AGAIN);
    }

    proptest! {
        #[test]
        fn an_object_ends_where_it_ends(text in "[a\"\\\\{}\\[\\]]{0,20}", rest in "[{}a\"]{0,9}") {
            let object = json!({"a": [text]}).to_string();
            let whole = format!("{object}{rest}");
            let mut scanner = Scanner::default();
            let found = (1..=whole.len()).find_map(|len| scanner.end(&whole.as_bytes()[..len]));
            prop_assert_eq!(found, Some(object.len()));
        }
    }
}
