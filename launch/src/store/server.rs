//! The store's server: one thread beside rank 0's training, one tokio task per connection, the state behind a mutex that
//! is never held across a wait. Strangers (port scanners, another job's ranks) are told off and disturb nobody. Must not
//! know what keys mean.

use std::io;
use std::net;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::protocol::{self, Hello, Request, Response, Role, refused};
use super::state::State;
use super::{Abort, Doing, Peer, PeerState, StoreError};

/// Connections that have not said who they are. More wait in the listener's queue, at most [`protocol::HELLO_TIME`].
const MAX_STRANGERS: usize = 256;

/// The rest of a frame, and an answer, must pass within this time; a cut link ends so.
const TRANSFER_TIME: Duration = Duration::from_secs(30);

/// The store of one generation. Dropped, it stops and closes all connections.
#[derive(Debug)]
pub struct StoreServer {
    port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StoreServer {
    /// Serves on `listener`, from a thread of its own, until dropped.
    ///
    /// # Errors
    /// The system's, when the socket or the thread cannot be set up.
    pub fn start(listener: net::TcpListener, generation: &str, world_size: u32) -> io::Result<StoreServer> {
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(State::new(generation, world_size)), abort: watch::Sender::new(None) });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(&listener, &served) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(StoreServer { port, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops when every rank that joined has said goodbye, is gone or no longer heard, or after `grace`; the ranks still there. Rank 0
    /// ends with this: a server that just stops takes the last barrier's answer, or the word of an abort, with it. Drop
    /// rank 0's own client first.
    pub fn close(self, grace: Duration) -> Vec<u32> {
        let start = Instant::now();
        loop {
            let there = self.shared.state().there();
            if there.is_empty() || start.elapsed() >= grace {
                return there;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The first abort; waits end with it.
    abort: watch::Sender<Option<Abort>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self, who: &Hello, doing: Doing, abort: Option<Abort>, table: bool) -> Response {
        if let Some(abort) = abort {
            self.abort.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(abort);
                is_first
            });
        }
        let mut state = self.state();
        state.hear(who, doing);
        Response::News { abort: self.abort.borrow().clone(), peers: table.then(|| state.table()) }
    }

    /// The answer to a request, with its body.
    async fn answer(&self, request: Request, body: Vec<u8>, who: &Hello, stream: &TcpStream) -> Answer {
        self.state().check_holder(who)?;
        let bare = |response| Ok((response, Vec::new()));
        match request {
            Request::Set { key } => {
                protocol::check_key(&key)?;
                self.state().put(&key, body)?;
                bare(Response::Done)
            }
            Request::Get { key } => match self.state().value(&key) {
                Some(value) => Ok((Response::Value, value.clone())),
                None => bare(Response::Nothing),
            },
            Request::Add { key, amount } => {
                protocol::check_key(&key)?;
                let sum = self.state().add(&key, amount)?;
                bare(Response::Sum(sum))
            }
            Request::Wait { key, deadline_ms } => {
                protocol::check_key(&key)?;
                self.wait(key, Duration::from_millis(deadline_ms), stream).await
            }
            Request::Barrier { name, deadline_ms } => {
                protocol::check_key(&name)?;
                self.barrier(&name, who.rank, Duration::from_millis(deadline_ms), stream).await
            }
            Request::Beat { doing, abort, table } => bare(self.beat(who, doing, abort, table)),
            Request::Bye { doing } => {
                let mut state = self.state();
                state.hear(who, doing);
                state.end(who, PeerState::Left);
                bare(Response::Done)
            }
        }
    }

    async fn wait(&self, key: String, deadline: Duration, stream: &TcpStream) -> Answer {
        let set = {
            let mut state = self.state();
            if let Some(value) = state.value(&key) {
                return Ok((Response::Value, value.clone()));
            }
            state.await_key(&key)
        };
        let ended = self.until(set, deadline, stream).await;
        let mut state = self.state();
        if let Some(value) = state.value(&key) {
            return Ok((Response::Value, value.clone()));
        }
        state.await_no_more(&key);
        let missing = state.table().into_iter().filter(|p| p.state != PeerState::Alive).collect();
        Err(ended.error(format!("the key `{key}`"), deadline, missing))
    }

    async fn barrier(&self, name: &str, rank: u32, deadline: Duration, stream: &TcpStream) -> Answer {
        let full = self.state().arrive(name, rank);
        let ended = self.until(full.clone(), deadline, stream).await;
        let mut state = self.state();
        if *full.borrow() {
            return Ok((Response::Done, Vec::new()));
        }
        let missing = state.withdraw(name, rank);
        Err(ended.error(format!("the barrier `{name}`"), deadline, missing))
    }

    /// Waits for `ready`, unless an abort, the deadline, or the end of the asking rank's connection comes first.
    async fn until(&self, mut ready: watch::Receiver<bool>, deadline: Duration, stream: &TcpStream) -> Ended {
        let mut abort = self.abort.subscribe();
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = async { ready.wait_for(|ready| *ready).await.is_ok() } => Ended::Ready,
            abort = async { abort.wait_for(Option::is_some).await.ok().and_then(|abort| abort.clone()) } => {
                abort.map_or(Ended::Closed, Ended::Aborted)
            }
            _ = stream.peek(&mut byte) => Ended::Closed, // a client that waits sends nothing
            () = sleep(deadline) => Ended::Late,
        }
    }
}

type Answer = Result<(Response, Vec<u8>), StoreError>;

/// How a wait ended.
enum Ended {
    Ready,
    Aborted(Abort),
    Late,
    Closed,
}

impl Ended {
    fn error(self, what: String, deadline: Duration, missing: Vec<Peer>) -> StoreError {
        match self {
            Ended::Aborted(abort) => StoreError::Aborted(abort),
            Ended::Late | Ended::Ready => StoreError::Deadline { what, after_s: deadline.as_secs_f64(), missing },
            Ended::Closed => refused("the connection spoke or ended while its request was being waited for"),
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    loop {
        let Ok(stranger) = Arc::clone(&strangers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(shared), stranger));
            }
            // Out of file descriptors, or a connection that ended in the queue: the next one may do.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection from hello to end.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>, stranger: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let greeting = timeout(protocol::HELLO_TIME, read(&mut stream, protocol::MAX_HELLO)).await;
    let hello = match greeting {
        Ok(Ok(Some((head, _)))) => shared.state().admit(&head),
        Ok(Err(error)) => Err(error),
        Ok(Ok(None)) | Err(_) => return, // said nothing, or too slowly
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(error) => return turn_away(stream, error).await,
    };
    drop(stranger);
    if write(&mut stream, &Response::Welcome, &[]).await.is_ok() {
        converse(&mut stream, &shared, &hello).await;
    }
    if hello.role == Role::Beats {
        shared.state().end(&hello, PeerState::Gone);
    }
}

async fn converse(stream: &mut TcpStream, shared: &Shared, hello: &Hello) {
    loop {
        let request = match read(stream, protocol::MAX_MESSAGE).await {
            Ok(None) => return,
            Ok(Some((head, body))) => protocol::decode::<Request>(&head).map(|request| (request, body)),
            Err(error) => Err(error),
        };
        let (request, body) = match request {
            Ok(request) => request,
            Err(error) => {
                let _ = write(stream, &Response::No(error), &[]).await;
                return;
            }
        };
        let (response, body) =
            shared.answer(request, body, hello, stream).await.unwrap_or_else(|e| (Response::No(e), Vec::new()));
        if write(stream, &response, &body).await.is_err() {
            return;
        }
    }
}

/// Answers a stranger and closes.
async fn turn_away(mut stream: TcpStream, error: StoreError) {
    if write(&mut stream, &Response::No(error), &[]).await.is_ok() {
        let _ = stream.shutdown().await; // what he still sends resets the connection, but after the answer
    }
}

/// A head and its body; none when the connection ended, wherever.
async fn read(stream: &mut TcpStream, limit: usize) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
    let mut prefix = [0; protocol::PREFIX];
    if stream.read_exact(&mut prefix).await.is_err() {
        return Ok(None);
    }
    let (head_len, body_len) = protocol::lengths(prefix, limit)?;
    let rest = async {
        // Grows as bytes arrive: who announces 16 MiB must send them before they cost memory.
        let mut parts = Vec::new();
        let n = (&mut *stream).take((head_len + body_len) as u64).read_to_end(&mut parts).await.ok()?;
        (n == head_len + body_len).then(|| {
            let body = parts.split_off(head_len);
            (parts, body)
        })
    };
    Ok(timeout(TRANSFER_TIME, rest).await.ok().flatten())
}

async fn write(stream: &mut TcpStream, response: &Response, body: &[u8]) -> io::Result<()> {
    let frame = match protocol::encode(response, body) {
        Ok(frame) => frame,
        Err(error) => protocol::encode(&Response::No(error), &[]).unwrap_or_default(),
    };
    timeout(TRANSFER_TIME, stream.write_all(&frame)).await?
}
