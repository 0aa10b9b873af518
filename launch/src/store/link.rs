//! One connection of a client to the store: finding it, saying hello, a frame out and a frame in. Must not know what is
//! asked.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::StoreError;
use super::protocol::{self, Greeting, Hello, Response, Version};

/// One attempt to connect; a host that drops packets answers never.
const KNOCK: Duration = Duration::from_secs(2);

/// First and longest pause between two rounds of attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Reads wake this often to ask whether to give up.
const SLICE: Duration = Duration::from_millis(100);

/// One connection: a frame out, a frame in. Errors are reasons in words.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
}

impl Link {
    /// Connects and says hello.
    pub(super) fn open(address: SocketAddr, hello: &Hello, time: Duration) -> Result<Link, StoreError> {
        let start = Instant::now();
        let unreachable = |what: String| StoreError::Unreachable {
            after_s: start.elapsed().as_secs_f64(),
            tried: vec![format!("{address}: {what}")],
        };
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, time.clamp(SLICE, KNOCK))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SLICE))?;
            stream.set_write_timeout(Some(Duration::from_millis(hello.patience_ms).max(SLICE)))?;
            Ok(Link { stream })
        };
        let mut link = connect().map_err(|e: std::io::Error| unreachable(e.to_string()))?;
        let frame = protocol::encode(&Greeting { version: Version::ours(), hello }, &[])?;
        let give_up = || (start.elapsed() > time).then(|| "it took the connection and does not answer".to_owned());
        match link.ask(&frame, &give_up) {
            Ok((Response::Welcome, _)) => Ok(link),
            Ok((Response::No(error), _)) => Err(error),
            Ok((other, _)) => Err(unreachable(format!("greeted with {other:?}"))),
            Err(reason) => Err(unreachable(reason)),
        }
    }

    /// Sends a request's frame and reads the answer with its body; `give_up` is asked while nothing comes.
    pub(super) fn ask(
        &mut self,
        frame: &[u8],
        give_up: &dyn Fn() -> Option<String>,
    ) -> Result<(Response, Vec<u8>), String> {
        self.stream.write_all(frame).map_err(|e| format!("cannot write to it: {e}"))?;
        let mut prefix = [0; protocol::PREFIX];
        self.read(&mut prefix, give_up)?;
        let (head, body) = protocol::lengths(prefix, protocol::MAX_MESSAGE).map_err(|e| e.to_string())?;
        let (mut head, mut body) = (vec![0; head], vec![0; body]);
        self.read(&mut head, give_up)?;
        self.read(&mut body, give_up)?;
        Ok((protocol::decode(&head).map_err(|e| e.to_string())?, body))
    }

    fn read(&mut self, buffer: &mut [u8], give_up: &dyn Fn() -> Option<String>) -> Result<(), String> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err("it closed the connection".into()),
                Ok(n) => filled += n,
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&e.kind()) => {
                    give_up().map_or(Ok(()), Err)?;
                }
                Err(e) => return Err(format!("cannot read from it: {e}")),
            }
        }
        Ok(())
    }
}

/// Goes round the candidates until one lets us in.
pub(super) fn knock(
    candidates: &[String],
    hello: &Hello,
    deadline: Duration,
) -> Result<(Link, SocketAddr), StoreError> {
    let start = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        let (mut tried, mut refusals) = (Vec::new(), Vec::new());
        for candidate in candidates {
            match knock_at(candidate, hello, deadline.saturating_sub(start.elapsed())) {
                Ok(entered) => return Ok(entered),
                Err(StoreError::Unreachable { tried: what, .. }) => tried.extend(what),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if start.elapsed() + pause >= deadline || (tried.is_empty() && !refusals.is_empty()) {
            let after_s = start.elapsed().as_secs_f64();
            return Err(refusals.pop().unwrap_or(StoreError::Unreachable { after_s, tried }));
        }
        thread::sleep(pause + Duration::from_millis(u64::from(hello.rank % 16))); // ranks of one start knock apart
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Tries the addresses of one candidate. A store's refusal at one of them is the answer, whatever the others say: a name
/// often has an IPv6 address too, where nobody listens.
fn knock_at(candidate: &str, hello: &Hello, left: Duration) -> Result<(Link, SocketAddr), StoreError> {
    let unreachable = |tried| StoreError::Unreachable { after_s: 0.0, tried };
    let addresses = candidate.to_socket_addrs().map_err(|e| unreachable(vec![format!("{candidate}: {e}")]))?;
    let (mut tried, mut refusal) = (Vec::new(), None);
    for address in addresses {
        match Link::open(address, hello, left.clamp(SLICE, protocol::HELLO_TIME)) {
            Ok(link) => return Ok((link, address)),
            Err(StoreError::Unreachable { tried: what, .. }) => tried.extend(what),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| unreachable(tried)))
}
