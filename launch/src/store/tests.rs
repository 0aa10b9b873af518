//! Real sockets on 127.0.0.1. Beats every 20 ms, so that what takes seconds in a run takes a blink here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::*;

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);
const QUICK: Timing = Timing { interval: Duration::from_millis(20), patience: Duration::from_secs(10) };

fn serve(world_size: u32) -> StoreServer {
    StoreServer::start(TcpListener::bind("127.0.0.1:0").unwrap(), "6.0.0", world_size).unwrap()
}

fn who(rank: u32, world_size: u32) -> Identity {
    Identity { generation: "6.0.0".into(), world_size, rank, host: format!("n{rank}") }
}

fn connect_as(port: u16, who: &Identity) -> Result<StoreClient, StoreError> {
    StoreClient::connect(&[format!("127.0.0.1:{port}")], who, QUICK, LONG)
}

fn join(server: &StoreServer, rank: u32, world_size: u32) -> StoreClient {
    connect_as(server.port(), &who(rank, world_size)).unwrap()
}

/// Waits until `holds`, or fails: what a beat brings comes a little later.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What the store answers to bytes of a stranger, until it closes.
fn shout(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn frame(head: &str, body: &[u8]) -> Vec<u8> {
    let lengths = [head.len() as u32, body.len() as u32].map(u32::to_be_bytes).concat();
    [&lengths, head.as_bytes(), body].concat()
}

#[test]
fn what_one_rank_sets_the_others_get() {
    let server = serve(2);
    let (a, b) = (join(&server, 0, 2), join(&server, 1, 2));
    assert_eq!(b.get("id"), Ok(None));
    let value: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    a.set("id", &value).unwrap();
    assert_eq!(b.get("id"), Ok(Some(value)));
    assert_eq!(a.add("n", 2), Ok(2));
    assert_eq!(b.add("n", -5), Ok(-3));
    assert_eq!(a.get("n"), Ok(Some(b"-3".to_vec())));
    let words = a.add("id", 1).unwrap_err().to_string();
    assert!(words.contains("`id` is no number"), "{words}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| b.wait("late", LONG));
        thread::sleep(Duration::from_millis(50));
        a.set("late", b"here").unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(b"here".to_vec()));
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_names_who_is_not_there() {
    let server = serve(3);
    let (a, b) = (join(&server, 0, 3), join(&server, 1, 3));
    drop(b);
    let words = a.wait("nccl-id", SOON).unwrap_err().to_string();
    assert!(words.starts_with("waited 0.2 s for the key `nccl-id`; missing: rank 1 on n1 (pid "), "{words}");
    assert!(words.contains("left 0.") && words.ends_with("; rank 2: never joined the store"), "{words}");
}

#[test]
fn sixty_four_ranks_pass_a_barrier_together_again_and_again() {
    let server = serve(64);
    thread::scope(|scope| {
        for rank in 0..64 {
            let server = &server;
            scope.spawn(move || {
                let client = join(server, rank, 64);
                for round in 1..=3 {
                    client.add("arrived", 1).unwrap();
                    client.barrier("step", LONG).unwrap();
                    let arrived = client.add("arrived", 0).unwrap();
                    assert!(arrived >= 64 * round, "round {round} let rank {rank} pass after {arrived}");
                    client.barrier("round", LONG).unwrap();
                }
            });
        }
    });
    assert!(server.close(LONG).is_empty());
}

#[test]
fn a_barrier_names_who_has_not_arrived_and_who_gave_up_does_not_count() {
    let server = serve(3);
    let clients: Vec<StoreClient> = (0..3).map(|rank| join(&server, rank, 3)).collect();
    clients[2].progress().enter(118, "validation");
    soon("rank 2 tells its progress", || clients[0].peers().get(2).is_some_and(|p| p.doing.sequence == 118));
    thread::scope(|scope| {
        let other = scope.spawn(|| clients[1].barrier("end", LONG));
        let Err(StoreError::Deadline { missing, .. }) = clients[0].barrier("end", SOON) else { panic!("passed") };
        let words: Vec<String> = missing.iter().map(Peer::to_string).collect();
        assert!(words.last().unwrap().ends_with("in `validation` (operation 118)"), "{words:?}");
        // ranks 1 and 2 must not pass without rank 0, which gave up
        let half = clients[2].barrier("end", SOON);
        assert!(
            matches!(&half, Err(StoreError::Deadline { missing, .. }) if missing.len() == 1 && missing[0].rank == 0)
        );
        let third = scope.spawn(|| clients[2].barrier("end", LONG));
        clients[0].barrier("end", LONG).unwrap();
        other.join().unwrap().unwrap();
        third.join().unwrap().unwrap();
    });
}

#[test]
fn a_rank_of_another_start_of_another_world_or_version_is_refused_in_words() {
    let server = serve(2);
    let refused = |who: Identity| connect_as(server.port(), &who).unwrap_err();
    let stale = refused(Identity { generation: "6.0.1".into(), ..who(1, 2) });
    assert_eq!(stale, StoreError::Stale { ours: "6.0.1".into(), theirs: "6.0.0".into() });
    assert_eq!(refused(who(1, 4)), StoreError::WorldSize { rank: 1, ours: 4, theirs: 2 });
    assert_eq!(refused(who(2, 2)), StoreError::WorldSize { rank: 2, ours: 2, theirs: 2 });
    let newer = r#"{"version":{"magic":"syncytia store","protocol":2,"version":"9.9.9"},"hello":["other","words"]}"#;
    let answer = shout(server.port(), &frame(newer, b""));
    assert!(answer.contains(r#""Version":{"ours":"9.9.9 (protocol 2)","theirs":""#), "{answer}");
}

#[test]
fn two_processes_cannot_have_one_rank_unless_the_first_is_gone() {
    let server = serve(2);
    let first = join(&server, 1, 2);
    let taken = connect_as(server.port(), &who(1, 2)).unwrap_err();
    assert_eq!(taken, StoreError::Taken { rank: 1, host: "n1".into(), pid: std::process::id() });
    drop(first);
    // more often than there is room for strangers: who is let in is none any more
    (0..150).for_each(|_| drop(join(&server, 1, 2)));
}

#[test]
fn an_abort_reaches_all_within_a_beat_and_ends_their_waits_and_the_first_counts() {
    let server = serve(3);
    let clients: Vec<StoreClient> = (0..3).map(|rank| join(&server, rank, 3)).collect();
    let first = Abort { rank: 1, reason: "loss is NaN".into(), code: 6 };
    thread::scope(|scope| {
        let barrier = scope.spawn(|| clients[0].barrier("never", LONG));
        let wait = scope.spawn(|| clients[2].wait("never", LONG));
        thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        assert_eq!(clients[1].abort("loss is NaN", 6), Some(first.clone()));
        assert_eq!(barrier.join().unwrap(), Err(StoreError::Aborted(first.clone())));
        assert_eq!(wait.join().unwrap(), Err(StoreError::Aborted(first.clone())));
        assert!(start.elapsed() < LONG / 2, "waits ended at their deadlines");
    });
    assert_eq!(clients[2].abort("a later one", 4), Some(first.clone()));
    drop(clients);
    let late = join(&server, 0, 3);
    soon("who joins later hears it too", || late.aborted() == Some(first.clone()));
}

#[test]
fn an_abort_does_not_wait_for_the_next_beat_and_reaches_ranks_that_call_nothing() {
    let server = serve(3);
    let slow = Timing { interval: LONG * 10, patience: LONG };
    let address = [format!("127.0.0.1:{}", server.port())];
    let join_slow = |rank| StoreClient::connect(&address, &who(rank, 3), slow, LONG).unwrap();
    let (a, b, watcher) = (join_slow(0), join_slow(1), join(&server, 2, 3));
    soon("the first beats", || !a.peers().is_empty() && !b.peers().is_empty());
    let start = Instant::now();
    let posted = a.abort("watchdog", 4).expect("posted at once");
    soon("the word arrives", || watcher.aborted() == Some(posted.clone()));
    assert_eq!(posted.to_string(), "rank 0 aborted the run (exit code 4): watchdog");
    assert_eq!(b.aborted(), None, "has not beaten since");
    assert_eq!(b.abort("also I", 6), Some(posted));
    drop((a, b));
    assert!(start.elapsed() < LONG, "a goodbye waited for the next beat");
}

#[test]
fn garbage_is_told_off_and_disturbs_nobody() {
    let server = serve(1);
    let client = join(&server, 0, 1);
    assert!(shout(server.port(), b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").contains("the limit is 4096"));
    assert!(shout(server.port(), &frame("[1,2", b"")).contains("not a message of the store"));
    assert!(
        shout(server.port(), &frame(r#"{"version":{"magic":"x","protocol":1,"version":""},"hello":0}"#, b""))
            .contains("not a client")
    );
    assert!(shout(server.port(), &frame(&"[".repeat(4000), b"")).contains("not a message"));
    // scanners that connect and say nothing, or a byte, and stay
    let scanners: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
            stream.write_all(&[0; 7][..n % 8]).unwrap();
            stream
        })
        .collect();
    client.set("still", b"here").unwrap();
    assert_eq!(client.get("still"), Ok(Some(b"here".to_vec())));
    drop(scanners);
    client.set(&"k".repeat(MAX_KEY), b"").unwrap();
    let words = client.set(&"k".repeat(MAX_KEY + 1), b"").unwrap_err().to_string();
    assert!(words.contains("a key of 257 bytes"), "{words}");
    assert!(client.set("", b"").is_err() && client.barrier("", LONG).is_err());
    let words = client.set("big", &vec![0; MAX_MESSAGE + 1]).unwrap_err().to_string();
    assert!(words.contains("the limit is 16777216"), "{words}");
    client.set("big", &vec![7; MAX_MESSAGE]).unwrap();
    assert_eq!(client.get("big").unwrap().unwrap().len(), MAX_MESSAGE);
}

#[test]
fn a_rank_that_speaks_garbage_after_its_hello_is_answered_and_closed() {
    let server = serve(1);
    let hello = format!(
        r#"{{"version":{{"magic":"syncytia store","protocol":1,"version":"{}"}},"hello":{{"generation":"6.0.0",
           "world_size":1,"rank":0,"host":"n9","pid":9,"token":9,"patience_ms":1000,"role":"Beats"}}}}"#,
        env!("CARGO_PKG_VERSION")
    );
    let answer = shout(server.port(), &[frame(&hello, b""), frame(r#"{"Drop":"tables"}"#, b"")].concat());
    assert!(answer.contains("\"Welcome\"") && answer.contains("unknown variant `Drop`"), "{answer}");
    // that connection had claimed the rank; its end frees it
    drop(join(&server, 0, 1));
}

#[test]
fn a_rank_may_knock_before_the_server_listens_and_a_dead_candidate_does_not_matter() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        StoreServer::start(TcpListener::bind(("127.0.0.1", port)).unwrap(), "6.0.0", 1).unwrap()
    });
    let other = StoreServer::start(TcpListener::bind("127.0.0.1:0").unwrap(), "another job", 1).unwrap();
    let candidates = [format!("127.0.0.1:{}", other.port()), "127.0.0.1:1".into(), format!("localhost:{port}")];
    let client = StoreClient::connect(&candidates, &who(0, 1), QUICK, LONG).unwrap();
    client.set("here", b"").unwrap();
    drop(client);
    drop(late.join().unwrap());
    let error = StoreClient::connect(&candidates[1..], &who(0, 1), QUICK, SOON).unwrap_err().to_string();
    assert!(error.starts_with("no store of rank 0 after 0.") && error.contains("127.0.0.1:1: "), "{error}");
}

#[test]
fn a_server_that_dies_is_lost_and_one_that_closes_waits_for_goodbyes() {
    let server = serve(2);
    let (a, b) = (join(&server, 0, 2), join(&server, 1, 2));
    assert_eq!(a.lost(), None);
    assert_eq!(server.close(SOON), [0, 1], "nobody has said goodbye");
    soon("rank 0 sees it", || a.lost().is_some());
    let words = b.barrier("end", LONG).unwrap_err().to_string();
    assert!(words.starts_with("lost the store of rank 0 ("), "{words}");
    assert!(matches!(b.get("x"), Err(StoreError::Lost(_))));
    assert_eq!(b.abort("no one hears", 4), None);

    let server = serve(1);
    let slow = join(&server, 0, 1);
    let end = thread::spawn(move || {
        thread::sleep(SOON);
        slow.get("x")
    });
    assert!(server.close(LONG).is_empty());
    assert_eq!(end.join().unwrap(), Ok(None), "the server left first");
}

#[test]
fn a_server_that_closes_does_not_wait_for_one_that_is_silent() {
    let server = serve(1);
    let mute = Timing { interval: LONG * 10, patience: SOON };
    let address = [format!("127.0.0.1:{}", server.port())];
    let _silent = StoreClient::connect(&address, &who(0, 1), mute, LONG).unwrap();
    let began = Instant::now();
    assert!(server.close(LONG).is_empty());
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

#[test]
fn a_process_that_dies_is_gone_and_not_said_to_have_left() {
    let server = serve(2);
    let watcher = join(&server, 0, 2);
    let doomed = join(&server, 1, 2);
    doomed.progress().enter(7, "gradients");
    soon("rank 1 tells its progress", || watcher.peers().get(1).is_some_and(|p| p.doing.entered));
    let panicked = thread::spawn(move || {
        let _client = doomed;
        std::panic::resume_unwind(Box::new("a bug")); // no message on stderr
    });
    assert!(panicked.join().is_err());
    soon("rank 0 sees it", || watcher.peers()[1].state == PeerState::Gone);
    let words = who_is_missing(&watcher.peers(), 8)[1].to_string();
    assert!(words.contains("its connection broke 0.") && words.ends_with("in `gradients` (operation 7)"), "{words}");
    assert_eq!(who_is_missing(&watcher.peers(), 7).len(), 1, "rank 1 had entered 7; only rank 0 is before it");
}

/// Forwards connections to `port` until cut; a cut connection stays open and silent, as when a link is pulled.
fn link_to(port: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
    let pulled = Arc::clone(&cut);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
            for (from, to) in ways.map(|(from, to)| (from.unwrap(), to.unwrap())) {
                let cut = Arc::clone(&pulled);
                thread::spawn(move || forward(from, to, &cut));
            }
        }
    });
    (own, cut)
}

fn forward(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !cut.load(Ordering::Relaxed) && to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    if cut.load(Ordering::Relaxed) {
        thread::sleep(LONG * 10); // the end of a cut connection is not heard either
    }
}

#[test]
fn a_cut_link_is_found_on_both_sides_by_silence_alone() {
    let server = serve(2);
    let (port, cut) = link_to(server.port());
    let timing = Timing { patience: Duration::from_millis(400), ..QUICK };
    let near = join(&server, 0, 2);
    let far = StoreClient::connect(&[format!("127.0.0.1:{port}")], &who(1, 2), timing, LONG).unwrap();
    far.set("before", b"").unwrap();
    thread::sleep(timing.patience * 2);
    assert_eq!(far.lost(), None, "a healthy link is not lost by waiting");
    cut.store(true, Ordering::Relaxed);
    let words = far.wait("after", LONG).unwrap_err().to_string();
    assert!(words.starts_with("lost the store of rank 0 (no answer within 0.4 s"), "{words}");
    assert!(far.lost().is_some_and(|lost| lost.for_s >= 0.4));
    soon("rank 0 sees silence", || {
        near.peers()[1].state == PeerState::Silent || near.peers()[1].state == PeerState::Gone
    });
}
