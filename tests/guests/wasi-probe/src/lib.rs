//! Tries what an operator has no business trying, through the standard library as an unknowing author would, and says what came
//! of it.

#![allow(unsafe_code, reason = "the bindings' glue; what is written here has none")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

wit_bindgen::generate!({
    inline: "
        package tidegate:wasi-probe;
        world probe {
            export run: func(what: string) -> list<string>;
        }
    ",
});

struct Probe;

export!(Probe);

impl Guest for Probe {
    fn run(what: String) -> Vec<String> {
        match what.as_str() {
            "print" => print(),
            "print-without-end" => {
                print!("no end");
                let _ = std::io::stdout().flush();
                Vec::new()
            }
            "flood" => {
                let line = "x".repeat(1000);
                (0..3000).for_each(|_| println!("{line}"));
                Vec::new()
            }
            "stdin" => {
                let mut text = String::new();
                vec![format!("{:?} {text:?}", std::io::stdin().read_to_string(&mut text))]
            }
            "hashmap" => (0..100).map(|i| (i, ())).collect::<HashMap<u32, ()>>().keys().map(u32::to_string).collect(),
            "time" => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                let start = Instant::now();
                vec![wall.as_nanos().to_string(), start.elapsed().as_nanos().to_string()]
            }
            "sleep" => {
                let wall = SystemTime::now();
                let start = Instant::now();
                std::thread::sleep(Duration::from_secs(3600));
                vec![
                    start.elapsed().as_secs().to_string(),
                    wall.elapsed().map(|slept| slept.as_secs().to_string()).unwrap_or_else(|error| error.to_string()),
                ]
            }
            "files" => files(),
            "environment" => vec![
                format!("{:?}", std::env::args().collect::<Vec<_>>()),
                format!("{:?}", std::env::vars().collect::<Vec<_>>()),
                format!("{:?}", std::env::var("HOME")),
            ],
            "network" => network(),
            "exit" => std::process::exit(3),
            "panic" => panic!("as asked"),
            other => vec![format!("unknown probe {other}")],
        }
    }
}

fn print() -> Vec<String> {
    println!("to the log");
    println!("{}", "long ".repeat(4000));
    eprintln!("an error\r");
    eprint!("in ");
    eprintln!("pieces");
    Vec::new()
}

/// What came of it: the error, or that there was none.
fn tell<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn files() -> Vec<String> {
    vec![
        tell(std::fs::read("/etc/passwd")),
        tell(std::fs::write("out.txt", "text")),
        tell(std::fs::read_dir(".").map(drop)),
        tell(std::fs::create_dir("folder")),
        tell(std::env::current_dir().and_then(std::fs::metadata)),
    ]
}

fn network() -> Vec<String> {
    let mut told = vec![tell(TcpStream::connect("127.0.0.1:80")), tell(UdpSocket::bind("127.0.0.1:0"))];
    // Again and again: handles that a denial leaves behind would add up.
    for _ in 0..2000 {
        let result = tell("example.com:80".to_socket_addrs().map(drop));
        if !told.contains(&result) {
            told.push(result);
        }
    }
    told
}
