//! How things look: tables, units, colour, progress.
//!
//! Invariants:
//! * colour and progress appear on a terminal only, and colour not where `NO_COLOR` is set;
//! * text from elsewhere loses its control characters: a record in a dead letter could otherwise rewrite the screen;
//! * a reader that closes the pipe early is no error.

use super::error::CliError;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tidegate_core::job_state::JobState;
use tidegate_core::row::END_OF_TIME;

pub struct Terminal {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Answers as JSON.
    pub json: bool,
    out_colour: bool,
    err_colour: bool,
    /// Bars and spinners may be drawn on stderr.
    progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Green,
    Yellow,
    Red,
    Bold,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Bold => "1",
        }
    }
}

impl Terminal {
    pub fn of_the_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            json: false,
            out_colour: colour_on(&io::stdout()),
            err_colour: colour_on(&io::stderr()),
            progress: io::stderr().is_terminal(),
        }
    }

    /// Without colour and progress.
    pub fn plain(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        let (out, err) = (Box::new(out), Box::new(err));
        Self { out, err, json: false, out_colour: false, err_colour: false, progress: false }
    }

    pub fn is_interactive(&self) -> bool {
        self.progress
    }

    /// The answer.
    pub fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.out, "{}", text.as_ref());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.out.write_all(bytes);
        let _ = self.out.flush();
    }

    /// The answer for programs; `false` where text is asked for.
    pub fn as_json(&mut self, answer: &impl Serialize) -> bool {
        if self.json {
            let text = serde_json::to_string_pretty(answer).expect("BUG: an answer is not JSON");
            self.line(text);
        }
        self.json
    }

    /// One of many answers for programs, on a line of its own; `false` where text is asked for.
    pub fn as_json_line(&mut self, answer: &impl Serialize) -> bool {
        if self.json {
            let text = serde_json::to_string(answer).expect("BUG: an answer is not JSON");
            self.line(text);
        }
        self.json
    }

    /// What goes on, for people.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.err, "{}", text.as_ref());
    }

    pub fn error(&mut self, error: &CliError) {
        let mut text = format!("{}: {}\n", paint("error", Colour::Red, self.err_colour), printable(&error.what));
        for problem in &error.problems {
            let _ = writeln!(text, "  {}", printable(&problem.to_string()));
        }
        if let Some(remedy) = &error.remedy {
            let _ = writeln!(text, "{}: {}", paint("help", Colour::Bold, self.err_colour), printable(remedy));
        }
        let _ = self.err.write_all(text.as_bytes());
    }

    pub fn clap(&mut self, error: &clap::Error) {
        let text = error.render();
        let (to, colour) = if error.use_stderr() { (&mut self.err, self.err_colour) } else { (&mut self.out, self.out_colour) };
        let _ = if colour { write!(to, "{}", text.ansi()) } else { write!(to, "{text}") };
    }

    pub fn paint(&self, text: &str, colour: Colour) -> String {
        paint(text, colour, self.out_colour)
    }

    pub fn table(&mut self, table: &Table) {
        let text = table.render(self.out_colour);
        let _ = self.out.write_all(text.as_bytes());
    }

    /// Turns until it is dropped; invisible where nobody looks.
    pub fn spinner(&self, message: impl Into<String>) -> Progress {
        let style = ProgressStyle::with_template("{spinner:.green} {msg} {elapsed:.dim}").expect("BUG: spinner template");
        self.progress(ProgressBar::new_spinner().with_style(style), message)
    }

    pub fn bytes_bar(&self, total: u64, message: impl Into<String>) -> Progress {
        let style = ProgressStyle::with_template("{spinner:.green} {msg} [{bar:30.green}] {bytes}/{total_bytes}")
            .expect("BUG: bar template")
            .progress_chars("=> ");
        self.progress(ProgressBar::new(total).with_style(style), message)
    }

    fn progress(&self, bar: ProgressBar, message: impl Into<String>) -> Progress {
        bar.set_draw_target(if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        bar.set_message(message.into());
        if self.progress {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Progress(bar)
    }
}

/// On a terminal, unless the user does not want it.
pub fn colour_on(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Gone from the screen when it is dropped.
pub struct Progress(pub ProgressBar);

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn paint(text: &str, colour: Colour, on: bool) -> String {
    if on { format!("\x1b[{}m{text}\x1b[0m", colour.code()) } else { text.to_owned() }
}

/// Without what a terminal would act on.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Beyond control characters: marks that turn the direction of what follows.
        if c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

pub fn state_colour(state: JobState) -> Colour {
    match state {
        JobState::Running | JobState::Finished => Colour::Green,
        JobState::Failed | JobState::Failing => Colour::Red,
        JobState::Created
        | JobState::Starting
        | JobState::Stopping
        | JobState::Cancelling
        | JobState::Restarting
        | JobState::Stopped
        | JobState::Cancelled => Colour::Yellow,
    }
}

// ---- tables ---------------------------------------------------------------------------------------------------------------------

pub struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

pub fn text(text: impl AsRef<str>) -> Cell {
    // One cell is one line.
    Cell { text: printable(text.as_ref()).replace(['\n', '\t'], " "), colour: None, right: false }
}

/// Numbers stand under each other.
pub fn number(text_of_number: impl AsRef<str>) -> Cell {
    Cell { right: true, ..text(text_of_number) }
}

impl Cell {
    pub fn colour(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }
}

pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        assert!(N == self.header.len(), "BUG: {N} cells under {} headings", self.header.len());
        self.rows.push(cells.into());
    }

    fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut out = String::new();
        let mut line = |cells: Vec<(&str, Option<Colour>, bool)>| {
            let mut text = String::new();
            for (i, (cell, paint_with, right)) in cells.iter().enumerate() {
                // Padded by what is seen: colours have no width.
                let space = " ".repeat(widths[i] - cell.chars().count());
                let painted = paint_with.map_or_else(|| (*cell).to_owned(), |with| paint(cell, with, colour));
                let gap = if i == 0 { "" } else { "  " };
                let _ = if *right { write!(text, "{gap}{space}{painted}") } else { write!(text, "{gap}{painted}{space}") };
            }
            out.push_str(text.trim_end());
            out.push('\n');
        };
        let right = |column: usize| self.rows.first().is_some_and(|row| row[column].right);
        line(self.header.iter().enumerate().map(|(i, name)| (*name, Some(Colour::Bold), right(i))).collect());
        for row in &self.rows {
            line(row.iter().map(|cell| (cell.text.as_str(), cell.colour, cell.right)).collect());
        }
        out
    }
}

// ---- units ----------------------------------------------------------------------------------------------------------------------

pub fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

pub fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// The two units that matter: `250 ms`, `1.5 s`, `3m 20s`, `2d 4h`.
pub fn duration(ms: u64) -> String {
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", s, ms % 1000 / 100),
        60_000..3_600_000 => format!("{m}m {}s", s % 60),
        3_600_000..86_400_000 => format!("{h}h {}m", m % 60),
        _ => format!("{}d {}h", h / 24, h % 24),
    }
}

pub fn micros(us: u64) -> String {
    if us < 1000 { format!("{us} us") } else { duration(us / 1000) }
}

pub fn time(ms: u64) -> String {
    moment(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A watermark.
pub fn event_time(ms: Option<i64>) -> String {
    match ms {
        None => "-".into(),
        Some(END_OF_TIME) => "end of input".into(),
        Some(ms) => moment(ms),
    }
}

fn moment(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

pub fn share(of_one: f64) -> String {
    format!("{:.0}%", of_one * 100.0)
}

pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        let shown = [0, 999, 1000, 59_999, 60_000, 3_599_999, 3_600_000, 90_000_000].map(duration);
        assert_eq!(shown, ["0 ms", "999 ms", "1.0 s", "59.9 s", "1m 0s", "59m 59s", "1h 0m", "1d 1h"]);
        assert_eq!(micros(12), "12 us");
        assert_eq!(event_time(Some(1_356_998_400_000)), "2013-01-01 00:00:00Z");
        assert_eq!(event_time(Some(END_OF_TIME)), "end of input");
        assert_eq!(event_time(Some(i64::MIN)), format!("{} ms", i64::MIN));
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn columns_stand_under_each_other_with_and_without_colour() {
        let mut table = Table::new(["NAME", "IN"]);
        table.row([text("a").colour(Colour::Green), number("1,000")]);
        table.row([text("längster"), number("7")]);
        assert_eq!(table.render(false), "NAME         IN\na         1,000\nlängster      7\n");
        let coloured = table.render(true);
        assert!(coloured.contains("\x1b[32ma\x1b[0m         1,000\n"), "{coloured:?}");
    }

    #[test]
    fn text_from_elsewhere_can_not_act_on_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(text("two\nlines\x07").text, "two lines\\u{7}");
    }
}
