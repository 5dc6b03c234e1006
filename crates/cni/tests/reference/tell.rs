//! `ip`, kept running in a namespace: to start it for each question is most of what a comparison
//! costs.

use std::io::{BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::de::IoRead;
use serde_json::{StreamDeserializer, Value};
use weft_kernel::Netns;

/// A program that answers each line with one JSON text.
pub struct Teller {
    child: Child,
    questions: ChildStdin,
    answers: StreamDeserializer<'static, IoRead<BufReader<ChildStdout>>, Value>,
}

/// A question whose answer is known: a question that fails has none.
const END: &str = "link show dev lo";

impl Teller {
    /// Starts `ip` in a namespace, with `options`.
    pub fn start(ns: &Netns, options: &[&str]) -> Result<Teller, String> {
        let mut command = Command::new("ip");
        command.args(options).args(["-d", "-j", "-force", "-batch", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            ns.run(|| command.spawn()).map_err(|e| e.to_string())?.map_err(|e| format!("ip: {e}"))?;
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let answers = serde_json::Deserializer::from_reader(answers).into_iter();
        let mut teller = Teller { child, questions, answers };
        // From its first answer on it shows more of links.
        teller.ask([])?;
        Ok(teller)
    }

    /// The answers to these questions.
    pub fn ask<const N: usize>(&mut self, questions: [&str; N]) -> Result<[Value; N], String> {
        let lines: String = questions.iter().chain([&END]).flat_map(|line| [line, "\n"]).collect();
        self.questions.write_all(lines.as_bytes()).map_err(|e| format!("ip: {e}"))?;
        let mut told = Vec::new();
        loop {
            let one = self.answers.next().ok_or("ip has ended")?.map_err(|e| format!("ip: {e}"))?;
            if one[0]["ifname"] == "lo" && one[0].get("addr_info").is_none() {
                break;
            }
            told.push(one);
        }
        told.try_into().map_err(|told| format!("{questions:?}: {told:?}"))
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
