//! Rows to the terminal, for looking at a job while it is built.
//!
//! What is printed can't be taken back, so this sink is at-least-once: rows after the last checkpoint come again after a restart.
//! Each batch is written and flushed as it comes; the batches' linger bounds how late that is.

use super::options::OptionReader;
use super::row_text::{FORMATS, RowText};
use super::{ConnectorContext, ConnectorError, PreCommit, Sink, SinkWriter, Visible};
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::job_graph::spec::{Delivery, SinkSpec};
use tidegate_core::problem::Problem;
use tidegate_core::row::Rows;

pub fn parse(spec: &SinkSpec) -> Result<RowText, Vec<Problem>> {
    let mut reader = OptionReader::new("sink", &spec.name, &spec.options);
    let format = reader.choice("format", &FORMATS).unwrap_or(RowText::Lines);
    let problems = reader.finish();
    if problems.is_empty() { Ok(format) } else { Err(problems) }
}

type Terminal = Arc<Mutex<dyn Write + Send>>;

pub struct Stdout {
    node: String,
    format: RowText,
    terminal: Terminal,
}

impl Stdout {
    pub fn build(spec: &SinkSpec, context: &ConnectorContext) -> Result<Self, Vec<Problem>> {
        Ok(Self { node: context.node.clone(), format: parse(spec)?, terminal: Arc::new(Mutex::new(std::io::stdout())) })
    }
}

impl Sink for Stdout {
    fn open(&self, _task: u32, _parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Writer {
            node: self.node.clone(),
            format: self.format,
            terminal: Arc::clone(&self.terminal),
            buffer: Vec::new(),
        }))
    }

    /// Nothing is ever staged, so there is nothing to finish, drop or look for.
    fn commit(&self, _committables: &[Committable]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn abort(&self, _committables: &[Committable]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn recover(&self, _decided: &[Committable], _first: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Nothing that anybody could look up, and nothing to take back.
    fn visible(&self, _epochs: Range<CheckpointId>, _named: &[Committable]) -> Result<Visible, ConnectorError> {
        Ok(Visible::default())
    }

    fn retract(&self, _epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        Ok(Vec::new())
    }

    fn strongest(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
}

struct Writer {
    node: String,
    format: RowText,
    terminal: Terminal,
    buffer: Vec<u8>,
}

impl SinkWriter for Writer {
    fn begin(&mut self, _epoch: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn write(&mut self, rows: &Rows) -> Result<(), ConnectorError> {
        self.buffer.clear();
        self.format.write(rows, &mut self.buffer);
        // One batch at a time, so that lines of two tasks do not mix.
        let mut terminal = self.terminal.lock().unwrap_or_else(PoisonError::into_inner);
        terminal.write_all(&self.buffer).and_then(|()| terminal.flush()).map_err(|error| {
            let remedy = "keep the reading end open, or write to a file sink";
            ConnectorError::fatal(format!("writing rows of sink {} to standard output", self.node), error, remedy)
        })
    }

    fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError> {
        Ok(Box::new(|| Ok(Vec::new())))
    }

    fn abort(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::row::Row;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.push(&Row::new(b"", b"one", 1));
        rows
    }

    #[test]
    fn a_batch_is_there_as_soon_as_it_is_written() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let sink = Stdout { node: "out".into(), format: RowText::Lines, terminal: out.clone() };
        let mut writer = sink.open(0, 1).expect("opens");
        writer.begin(1).expect("begins");
        writer.write(&rows()).expect("writes");
        assert_eq!(*out.lock().expect("not poisoned"), b"one\n");
        assert!(writer.pre_commit().expect("pre-commits")().expect("finishes").is_empty());
        assert_eq!(sink.strongest(), Delivery::AtLeastOnce);
    }

    #[test]
    fn a_closed_terminal_fails_the_job_with_the_reason() {
        let sink = Stdout { node: "out".into(), format: RowText::Lines, terminal: Arc::new(Mutex::new(Broken)) };
        let error = sink.open(0, 1).expect("opens").write(&rows()).expect_err("broken");
        assert!(!error.retry && error.to_string().contains("standard output"), "{error}");
    }
}
