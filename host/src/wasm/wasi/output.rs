//! What a guest prints goes to the operator's log, line by line.
//!
//! Invariants: a line handed on has at most `log_line_bytes_max` bytes of the guest's; one call hands on at most
//! `output_bytes_per_call_max`; what was cut is said once where it was cut.

use super::WasiView;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The output of one call.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Line,
    stderr: Line,
    bytes_left: usize,
    dropped: bool,
}

/// A line whose end has not been written yet.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    cut_bytes: usize,
}

impl Output {
    pub(super) fn new(bytes: usize) -> Self {
        Self { stdout: Line::default(), stderr: Line::default(), bytes_left: bytes, dropped: false }
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8], bytes_max: usize) {
        let kept = bytes.len().min(bytes_max - self.bytes.len().min(bytes_max));
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.cut_bytes += bytes.len() - kept;
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.cut_bytes == 0
    }

    fn text(&self, bytes_max: usize) -> String {
        // Text on Windows' ways ends with a carriage return, which is no part of the line.
        let bytes = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        let text = String::from_utf8_lossy(bytes);
        match self.cut_bytes {
            0 => text.into_owned(),
            cut => format!("{text} [{cut} bytes cut: log_line_bytes_max is {bytes_max}]"),
        }
    }
}

/// Takes what the guest wrote and hands on the lines that are complete.
pub(super) fn write<T: WasiView>(view: &mut T, stream: Stream, bytes: &[u8]) {
    let state = view.wasi();
    let line_bytes_max = state.limits.log_line_bytes_max;
    let call_bytes_max = state.limits.output_bytes_per_call_max;
    let (kept, dropped) = bytes.split_at(bytes.len().min(state.output.bytes_left));
    state.output.bytes_left -= kept.len();
    let first_drop = !dropped.is_empty() && !std::mem::replace(&mut state.output.dropped, !dropped.is_empty());

    let mut line = std::mem::take(state.output.line(stream));
    for piece in kept.split_inclusive(|byte| *byte == b'\n') {
        match piece.strip_suffix(b"\n") {
            Some(end) => {
                line.push(end, line_bytes_max);
                view.log_line(stream, &line.text(line_bytes_max));
                line.bytes.clear();
                line.cut_bytes = 0;
            }
            None => line.push(piece, line_bytes_max),
        }
    }
    *view.wasi().output.line(stream) = line;

    if first_drop {
        let notice = format!("[further output of this call is dropped: output_bytes_per_call_max is {call_bytes_max}]");
        view.log_line(stream, &notice);
    }
}

/// A call into the guest has ended, well or not: lines without an end go to the log now, not with the next call's.
pub fn finish_call<T: WasiView>(view: &mut T) {
    for stream in [Stream::Stdout, Stream::Stderr] {
        let state = view.wasi();
        let bytes_max = state.limits.log_line_bytes_max;
        let line = std::mem::take(state.output.line(stream));
        if !line.is_empty() {
            view.log_line(stream, &line.text(bytes_max));
        }
    }
}
