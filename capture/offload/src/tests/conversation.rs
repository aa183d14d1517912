//! Conversations with the kernel as text: recorded from a real one, or taking its place.
//!
//! `> generic`, `> route`, `> ioctl NAME IF`, `> read PATH`, `> list PATH`, `> write PATH`, `> promiscuous INDEX` are what we say, `<` lines the
//! answers: `< data` (a datagram, or what an ioctl wrote), `< text`, `< ok` or `< error NUMBER`. Bytes are hexadecimal on the lines below, `00*20` is
//! twenty of them; `;` begins a comment, `#` a comment line. Sequence and port numbers of netlink are 0 in the text and ours in the conversation.

use crate::kernel::{Bus, Ioctl, Kernel, Live, Promiscuous};
use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex};

/// One `>` or `<` with its bytes, or with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    line: usize,
    head: String,
    bytes: Vec<u8>,
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(['>', '<']) {
            parts.push(Part { line: number + 1, head: line.to_owned(), bytes: Vec::new() });
        } else if let Some(part) = parts.last_mut() {
            for word in line.split_whitespace() {
                let (hex, times) = word.split_once('*').unwrap_or((word, "1"));
                let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
                part.bytes.extend(bytes.repeat(times.parse().unwrap()));
            }
        }
    }
    parts
}

/// Takes the kernel's place: every request must be the next one of the text, byte by byte.
#[derive(Clone)]
pub struct Replay {
    parts: Arc<Mutex<VecDeque<Part>>>,
    sequence: [u8; 4],
}

impl Replay {
    pub fn new(text: &str) -> Self {
        Self { parts: Arc::new(Mutex::new(parts(text).into())), sequence: [0; 4] }
    }

    /// Whether everything was said.
    pub fn is_finished(&self) -> bool {
        self.parts.lock().unwrap().is_empty()
    }

    fn next(&self) -> Part {
        self.parts.lock().unwrap().pop_front().expect("the recording goes on")
    }

    fn expect(&self, head: &str, bytes: &[u8]) {
        let part = self.next();
        assert_eq!(part.head, format!("> {head}"), "line {} of the recording", part.line);
        assert_eq!(hex(bytes), hex(&part.bytes), "line {} of the recording: {head}", part.line);
    }

    fn answer(&self) -> io::Result<Part> {
        let part = self.next();
        match part.head.strip_prefix("< error ") {
            Some(number) => Err(io::Error::from_raw_os_error(number.parse().unwrap())),
            None => Ok(part),
        }
    }

    fn text(&self) -> io::Result<String> {
        let part = self.answer()?;
        Ok(part.head.strip_prefix("< text").expect("an answer in text").trim().replace("\\n", "\n"))
    }
}

/// The messages of a datagram with another sequence number, and without a port number.
fn with_sequence(datagram: &[u8], sequence: [u8; 4]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 16) {
        header[8..12].copy_from_slice(&sequence);
        header[12..16].fill(0);
        let length = u32::from_ne_bytes(*header.first_chunk().unwrap()).max(16);
        at += length.next_multiple_of(4) as usize;
    }
    bytes
}

/// An acknowledgement repeats the request's header, with its sequence number.
fn echo(datagram: &mut [u8], sequence: [u8; 4]) {
    if datagram.get(4..6) == Some(&[2, 0])
        && let Some(echoed) = datagram.get_mut(28..36)
    {
        echoed[..4].copy_from_slice(&sequence);
        echoed[4..].fill(0);
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        if zeros >= 12 {
            let space = if text.is_empty() || text.ends_with(' ') { "" } else { " " };
            let _ = write!(text, "{space}00*{zeros} ");
            rest = &rest[zeros..];
        } else {
            let _ = write!(text, "{first:02x}");
            rest = &rest[1..];
            if (bytes.len() - rest.len()).is_multiple_of(4) {
                text.push(' ');
            }
        }
    }
    text.trim().to_owned()
}

fn bus_name(bus: Bus) -> &'static str {
    match bus {
        Bus::Route => "route",
        Bus::Generic => "generic",
    }
}

fn ioctl_name(request: Ioctl) -> &'static str {
    match request {
        Ioctl::Ethtool => "ethtool",
        Ioctl::GetTimestamps => "get-timestamps",
        Ioctl::SetTimestamps => "set-timestamps",
    }
}

impl Kernel for Replay {
    fn send(&mut self, bus: Bus, message: &[u8]) -> io::Result<()> {
        self.sequence = message[8..12].try_into().unwrap();
        self.expect(bus_name(bus), &with_sequence(message, [0; 4]));
        Ok(())
    }

    fn receive(&mut self, _: Bus) -> io::Result<Vec<u8>> {
        let mut datagram = with_sequence(&self.answer()?.bytes, self.sequence);
        echo(&mut datagram, self.sequence);
        Ok(datagram)
    }

    fn ioctl(&mut self, request: Ioctl, interface: &str, data: &mut [u8]) -> io::Result<()> {
        self.expect(&format!("ioctl {} {interface}", ioctl_name(request)), data);
        let answer = self.answer()?.bytes;
        if !answer.is_empty() {
            data.copy_from_slice(&answer);
        }
        Ok(())
    }

    fn read(&mut self, path: &str) -> io::Result<String> {
        self.expect(&format!("read {path}"), &[]);
        self.text()
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        self.expect(&format!("list {path}"), &[]);
        Ok(self.text()?.split_whitespace().map(str::to_owned).collect())
    }

    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.expect(&format!("write {path} {value}"), &[]);
        self.answer().map(drop)
    }

    fn promiscuous(&mut self, index: u32) -> io::Result<Promiscuous> {
        self.expect(&format!("promiscuous {index}"), &[]);
        self.answer().map(|_| Promiscuous::RECORDED)
    }
}

/// Writes down what is said to the running kernel, and what it answers.
pub struct Recorder {
    live: Live,
    text: Arc<Mutex<String>>,
}

impl Recorder {
    pub fn new() -> (Self, Arc<Mutex<String>>) {
        let text = Arc::<Mutex<String>>::default();
        (Self { live: Live::connect().unwrap(), text: text.clone() }, text)
    }

    fn say(&self, head: &str, bytes: &[u8]) {
        let mut text = self.text.lock().unwrap();
        let _ = writeln!(text, "{head}");
        for line in bytes.chunks(48) {
            let _ = writeln!(text, "  {}", hex(line));
        }
    }

    fn heard<T>(&self, result: io::Result<T>, say: impl FnOnce(&T)) -> io::Result<T> {
        match &result {
            Ok(value) => say(value),
            Err(error) => self.say(&format!("< error {}", error.raw_os_error().unwrap_or(0)), &[]),
        }
        result
    }
}

impl Kernel for Recorder {
    fn send(&mut self, bus: Bus, message: &[u8]) -> io::Result<()> {
        self.say(&format!("> {}", bus_name(bus)), &with_sequence(message, [0; 4]));
        self.live.send(bus, message)
    }

    fn receive(&mut self, bus: Bus) -> io::Result<Vec<u8>> {
        let result = self.live.receive(bus);
        self.heard(result, |datagram| {
            let mut datagram = with_sequence(datagram, [0; 4]);
            echo(&mut datagram, [0; 4]);
            self.say("< data", &datagram);
        })
    }

    fn ioctl(&mut self, request: Ioctl, interface: &str, data: &mut [u8]) -> io::Result<()> {
        self.say(&format!("> ioctl {} {interface}", ioctl_name(request)), data);
        let result = self.live.ioctl(request, interface, data);
        self.heard(result, |()| self.say("< data", data))
    }

    fn read(&mut self, path: &str) -> io::Result<String> {
        self.say(&format!("> read {path}"), &[]);
        let result = self.live.read(path);
        self.heard(result, |text| self.say(&format!("< text {}", text.replace('\n', "\\n")), &[]))
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        self.say(&format!("> list {path}"), &[]);
        let result = self.live.list(path);
        self.heard(result, |names| self.say(&format!("< text {}", names.join(" ")), &[]))
    }

    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.say(&format!("> write {path} {value}"), &[]);
        let result = self.live.write(path, value);
        self.heard(result, |()| self.say("< ok", &[]))
    }

    fn promiscuous(&mut self, index: u32) -> io::Result<Promiscuous> {
        self.say(&format!("> promiscuous {index}"), &[]);
        let result = self.live.promiscuous(index);
        self.heard(result, |_| self.say("< ok", &[]))
    }
}
