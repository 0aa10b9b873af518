//! The words on the wire between a rank and the store, and their frame. Must not know what the store does with them.
//!
//! ```text
//! u32 length of head │ u32 length of body │ head: JSON │ body: bytes of a value      (lengths big-endian)
//! ```
//! The first message of a connection is a [`Greeting`], answered by `Welcome` or `No`; then every request has one answer, in
//! order. A frame that cannot be read is answered by `No` and the connection is closed.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Abort, Doing, Peer, StoreError};

/// Raised whenever a message changes its meaning.
pub(super) const PROTOCOL: u32 = 1;

/// Says that the other side is a store at all.
pub(super) const MAGIC: &str = "syncytia store";

/// Largest head or body, 16 MiB: what passes here are addresses and reports, not tensors.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Largest message before a stranger has said who he is.
pub(super) const MAX_HELLO: usize = 4096;

/// Longest key or barrier name, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest text of a reason or of an operation's name, in characters.
pub(super) const MAX_TEXT: usize = 2000;

/// A hello and its answer must pass within this time, on both sides.
pub(super) const HELLO_TIME: Duration = Duration::from_secs(5);

/// Lengths of head and body.
pub(super) const PREFIX: usize = 8;

/// The first message. Read once with `H` ignored, so that another version is refused in words however it greets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting<H> {
    pub version: Version,
    pub hello: H,
}

/// The part of a greeting that never changes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Version {
    pub magic: String,
    pub protocol: u32,
    pub version: String,
}

impl Version {
    pub(super) fn ours() -> Version {
        Version { magic: MAGIC.into(), protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() }
    }

    pub(super) fn words(&self) -> String {
        format!("{} (protocol {})", self.version, self.protocol)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// Heartbeats. Claims the rank; its end is the end of the claim.
    Beats,
    /// Everything else.
    Calls,
}

/// Who opens a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    pub generation: String,
    pub world_size: u32,
    pub rank: u32,
    pub host: String,
    pub pid: u32,
    /// Drawn by the client: tells its two connections from those of another process with the same rank.
    pub token: u64,
    pub patience_ms: u64,
    pub role: Role,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Set { key: String },
    Get { key: String },
    Wait { key: String, deadline_ms: u64 },
    Add { key: String, amount: i64 },
    Barrier { name: String, deadline_ms: u64 },
    Beat { doing: Doing, abort: Option<Abort>, table: bool },
    Bye { doing: Doing },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    Welcome,
    Done,
    /// The body is the value.
    Value,
    Nothing,
    Sum(i64),
    News {
        abort: Option<Abort>,
        peers: Option<Vec<Peer>>,
    },
    No(StoreError),
}

/// One message as it is sent.
///
/// # Errors
/// [`StoreError::Refused`] when it is too large.
pub(super) fn encode(message: &impl Serialize, body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let head = serde_json::to_vec(message).map_err(|e| refused(e.to_string()))?;
    let (Some(head_len), Some(body_len)) = (length(&head), length(body)) else {
        return Err(refused(format!("a message of {} bytes; the limit is {MAX_MESSAGE}", head.len() + body.len())));
    };
    Ok([&head_len.to_be_bytes(), &body_len.to_be_bytes(), head.as_slice(), body].concat())
}

fn length(part: &[u8]) -> Option<u32> {
    (part.len() <= MAX_MESSAGE).then(|| u32::try_from(part.len()).ok()).flatten()
}

/// Lengths of head and body as a prefix tells them.
///
/// # Errors
/// [`StoreError::Refused`] when one exceeds `limit`, which is how most garbage is found.
pub(super) fn lengths(prefix: [u8; PREFIX], limit: usize) -> Result<(usize, usize), StoreError> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let parts = [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])];
    let [head, body] = parts.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if head.max(body) > limit {
        return Err(refused(format!(
            "a message of {head} + {body} bytes; the limit is {limit}, or this is no store's client"
        )));
    }
    Ok((head, body))
}

/// A head as a message.
///
/// # Errors
/// [`StoreError::Refused`] when it is none.
pub(super) fn decode<T: DeserializeOwned>(head: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(head).map_err(|e| refused(format!("not a message of the store: {e}")))
}

/// Checks a key or a barrier's name.
///
/// # Errors
/// [`StoreError::Refused`].
pub(super) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(refused(format!("a key of {} bytes; it must have 1 to {MAX_KEY}", key.len())));
    }
    Ok(())
}

pub(super) fn refused(reason: impl Into<String>) -> StoreError {
    StoreError::Refused { reason: reason.into() }
}

/// A text cut to what others are willing to read.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
