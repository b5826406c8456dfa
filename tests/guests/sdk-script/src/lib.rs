//! An operator whose records are little programs: commands apart by `;`, words of a command apart by blanks. Everything that an SDK
//! operator can do has a command, so a test can put any of it together, let any record fail at any point, and compare with a model.
//!
//! What commands answer goes to `main` as one row for each record: the answers joined by `;`. A record that answers nothing emits
//! nothing.

use tidegate_sdk::prelude::*;

#[operator(keyed, inputs = 2, outputs("main", "side"))]
pub struct Script {
    value: ValueState<u64>,
    text: ValueState<String>,
    map: MapState<String, u64>,
    list: ListState<String>,
    sum: ReducingState<SumS64>,
    greatest: ReducingState<MaxS64>,
    commands: Counter,
    size: Histogram,
    last: Gauge,
    #[config(default = "")]
    prefix: String,
}

impl Operator for Script {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let script = record.text()?;
        self.run(script, ctx)
    }

    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let fired = self.value.get(ctx);
        self.value.set(ctx, fired + 1);
        assert!(timer.tag != 666, "tag 666 is the end");
        if timer.tag == 13 {
            reject!("tag 13 brings bad luck");
        }
        ctx.emit(format!("timer {} {} after {fired}", timer.time, timer.tag));
        Ok(())
    }
}

impl Script {
    fn run(&mut self, script: &str, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let mut answers = Vec::new();
        for command in script.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            self.commands.add(ctx, 1);
            let words: Vec<&str> = command.split(' ').collect();
            if let Some(answer) = self.command(&words, ctx)? {
                answers.push(answer);
            }
        }
        self.size.observe(ctx, script.len() as f64);
        self.last.set(ctx, script.len() as f64);
        if !answers.is_empty() {
            ctx.emit_with(Self::MAIN, |out| write!(out, "{}{}", self.prefix, answers.join(";")))?;
        }
        Ok(())
    }

    fn command(&mut self, words: &[&str], ctx: &mut Ctx<'_>) -> Result<Option<String>, RecordError> {
        let number = |at: usize| -> Result<i64, RecordError> { Ok(words.get(at).copied().unwrap_or_default().parse()?) };
        let word = |at: usize| words.get(at).copied().unwrap_or_default().to_owned();
        match words[0] {
            "value" => return Ok(Some(self.value.get(ctx).to_string())),
            "set" => self.value.set(ctx, number(1)? as u64),
            "unset" => self.value.clear(ctx),
            "text" => return Ok(Some(self.text.get(ctx))),
            "write" => drop(self.text.update(ctx, |text| format!("{text}{}", word(1)))),
            "get" => return Ok(Some(format!("{:?}", self.map.get(ctx, &word(1))))),
            "put" => self.map.insert(ctx, &word(1), number(2)? as u64),
            "remove" => self.map.remove(ctx, &word(1)),
            "remove-from" => self.map.remove_range(ctx, word(1)..word(2)),
            "map" => return Ok(Some(format!("{:?}", self.map.range(ctx, ..)))),
            "first" => return Ok(Some(format!("{:?}", self.map.first(ctx)))),
            "empty-map" => self.map.clear(ctx),
            "append" => self.list.add(ctx, word(1)),
            "list" => return Ok(Some(self.list.get(ctx).join(","))),
            "length" => return Ok(Some(self.list.len(ctx).to_string())),
            "empty-list" => self.list.clear(ctx),
            "list-is" => self.list.replace(ctx, words[1..].iter().map(|&word| word.to_owned())),
            "add" => self.sum.add(ctx, number(1)?),
            "sum" => return Ok(Some(self.sum.get(ctx).to_string())),
            "unsum" => self.sum.clear(ctx),
            "reach" => self.greatest.add(ctx, number(1)?),
            "greatest" => return Ok(Some(format!("{:?}", self.greatest.get(ctx)))),
            "timer" => ctx.set_timer(TimeDomain::EventTime, number(1)?, number(2)? as u64),
            "alarm" => ctx.set_timer(TimeDomain::ProcessingTime, number(1)?, number(2)? as u64),
            "cancel" => ctx.cancel_timer(TimeDomain::EventTime, number(1)?, number(2)? as u64),
            "emit" => ctx.emit(word(1)),
            "side" => ctx.emit_to(Self::SIDE, word(1)),
            "forward" => ctx.forward(),
            "forward-side" => ctx.forward_to(Self::SIDE),
            "row" => {
                let mut headers = HeaderList::new();
                headers.add("from", b"script");
                let row = Row {
                    key: word(1).into_bytes().leak(),
                    value: None,
                    timestamp: Some(7),
                    change: ChangeKind::Retract,
                    headers: headers.as_headers(),
                };
                ctx.emit_row(Self::SIDE, &row);
            }
            "input" => return Ok(Some(ctx.input().to_string())),
            "now" => return Ok(Some(format!("{:?} {}", ctx.watermark(), ctx.processing_time()))),
            "log" => ctx.log_with(Level::Warn, &word(1), &[("why", "asked")]),
            "clock" => {
                let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?;
                return Ok(Some(since.as_millis().to_string()));
            }
            "file" => return Ok(Some(std::fs::read("/etc/passwd").map_or("no file".to_owned(), |_| "a file".to_owned()))),
            "network" => {
                return Ok(Some(
                    std::net::TcpStream::connect("127.0.0.1:22").map_or("no network".to_owned(), |_| "a network".to_owned()),
                ));
            }
            "environment" => return Ok(Some(std::env::vars().count().to_string())),
            "reject" => reject!("{}", word(1)),
            "fatal" => return Err(RecordError::fatal(word(1))),
            "transient" => return Err(RecordError::transient(word(1))),
            "spin" => loop {
                std::hint::black_box(words);
            },
            "panic" => panic!("{}", word(1)),
            other => reject!("there is no command {other:?}"),
        }
        Ok(None)
    }
}
