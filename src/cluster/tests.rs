//! What a stranger can try at an open port, and that it fails.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::handshake::{self, Claim, HandshakeError, HandshakeVerdict, Route, SocketKind};
use super::listener::ClusterListener;
use super::network::Frames;
use super::*;

const PATIENCE: Duration = Duration::from_secs(5);
const RUN: [u8; 16] = [7; 16];

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes()).expect("a long secret")
}

fn ours() -> Secret {
    secret("a secret that nobody guesses")
}

fn terms() -> ClusterTerms {
    ClusterTerms {
        version: "1".into(),
        dataflow: "retail".into(),
        definition: "0123".into(),
        workers: 2,
        processes: 2,
    }
}

const ROUTE: Route = Route {
    kind: SocketKind::Data,
    from: 1,
    to: 0,
};

/// The two ends of a new connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    (near, listener.accept().expect("accepted").0)
}

type Accepted = Result<(Claim, HandshakeVerdict), HandshakeError>;

/// Runs an acceptor against `connector`, and returns its result.
fn met(within: Duration, connector: impl FnOnce(TcpStream)) -> Accepted {
    let (near, far) = pair();
    let accepting =
        std::thread::spawn(move || handshake::accept(&far, &ours(), &terms(), |_| HandshakeVerdict::Welcome, within));
    connector(near);
    accepting.join().expect("accepting does not panic")
}

fn connect(stream: &TcpStream, secret: &Secret) -> Result<(), HandshakeError> {
    handshake::connect(stream, secret, ROUTE, RUN, &terms(), PATIENCE)
}

#[test]
fn who_knows_the_secret_is_welcome_and_says_what_it_runs() {
    let (claim, verdict) = met(PATIENCE, |stream| connect(&stream, &ours()).expect("welcome")).expect("proved");
    assert_eq!((claim.route, claim.run, claim.terms), (ROUTE, RUN, terms()));
    assert_eq!(verdict, HandshakeVerdict::Welcome);
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    let accepted = met(PATIENCE, |stream| {
        let refused = connect(&stream, &secret("a secret of somebody else"));
        assert!(matches!(refused, Err(HandshakeError::Unproved)), "{refused:?}");
    });
    assert!(matches!(accepted, Err(HandshakeError::Unproved)));
}

#[test]
fn an_acceptor_that_cannot_prove_itself_is_not_believed() {
    let (near, mut far) = pair();
    let rogue = std::thread::spawn(move || {
        let mut hello = [0; 51];
        far.read_exact(&mut hello).expect("a hello");
        far.write_all(&[b"alluvium".as_slice(), &[9; 32]].concat())
            .expect("a challenge");
        let mut claim = vec![0; 18];
        far.read_exact(&mut claim).expect("a claim");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([claim[16], claim[17]])) + 32];
        far.read_exact(&mut rest).expect("terms and a proof");
        // A reflection attack: the connector's own claim comes back as the verdict, with the connector's own proof.
        far.write_all(&[&[0], &claim[..], &rest[..]].concat())
            .expect("a verdict");
    });
    let refused = connect(&near, &ours());
    assert!(matches!(refused, Err(HandshakeError::Unproved)), "{refused:?}");
    rogue.join().expect("the rogue does not panic");
}

#[test]
fn what_was_heard_once_opens_nothing_again() {
    // A replay attack: records what a connector sends on its way to an acceptor.
    let (near, mut middle) = pair();
    let connecting = std::thread::spawn(move || connect(&near, &ours()));
    let mut said = Vec::new();
    let heard = met(PATIENCE, |mut far| {
        let mut hello = [0; 51];
        middle.read_exact(&mut hello).expect("a hello");
        far.write_all(&hello).expect("passed on");
        let mut challenge = [0; 40];
        far.read_exact(&mut challenge).expect("a challenge");
        middle.write_all(&challenge).expect("passed on");
        let mut claim = vec![0; 18];
        middle.read_exact(&mut claim).expect("a claim");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([claim[16], claim[17]])) + 32];
        middle.read_exact(&mut rest).expect("terms and a proof");
        far.write_all(&[&claim[..], &rest[..]].concat()).expect("passed on");
        said = [&hello[..], &claim[..], &rest[..]].concat();
        // Reading all of the answer avoids another failure: that of a connector that leaves too early.
        far.set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a patience");
        let mut answer = Vec::new();
        let _ = far.read_to_end(&mut answer);
        assert!(!answer.is_empty(), "an answer");
        middle.shutdown(Shutdown::Both).expect("cut off");
    });
    assert!(heard.is_ok(), "passed on as they were, they open");
    assert!(connecting.join().expect("no panic").is_err());
    let again = met(PATIENCE, |mut stream| {
        stream.write_all(&said).expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(
        matches!(again, Err(HandshakeError::Unproved)),
        "the challenge is another one"
    );
}

#[test]
fn every_changed_byte_of_what_is_proved_is_noticed() {
    // Offsets in the hello (protocol, kind, indices, nonce) and in the claim (run, terms, proof).
    for at in [9, 10, 14, 18, 30, 51, 66, 69, 100] {
        let (near, mut middle) = pair();
        let connecting = std::thread::spawn(move || connect(&near, &ours()));
        let heard = met(PATIENCE, |mut far| {
            let mut passed = 0;
            let mut pass = |length: usize, middle: &mut TcpStream, far: &mut TcpStream| {
                let mut bytes = vec![0; length];
                middle.read_exact(&mut bytes).expect("bytes");
                let original = bytes.clone();
                if (passed..passed + length).contains(&at) {
                    bytes[at - passed] ^= 3;
                }
                passed += length;
                let _ = far.write_all(&bytes);
                original
            };
            pass(51, &mut middle, &mut far);
            let mut challenge = [0; 40];
            if far.read_exact(&mut challenge).is_ok() {
                let _ = middle.write_all(&challenge);
                let claim = pass(18, &mut middle, &mut far);
                let rest = usize::from(u16::from_be_bytes([claim[16], claim[17]])) + 32;
                pass(rest, &mut middle, &mut far);
            }
            // Either end may have closed already.
            let _ = (middle.shutdown(Shutdown::Both), far.shutdown(Shutdown::Write));
        });
        assert!(heard.is_err(), "byte {at} was changed");
        assert!(connecting.join().expect("no panic").is_err());
    }
}

#[test]
fn garbage_oversize_and_truncated_words_are_refused_at_once() {
    let started = Instant::now();
    let hello = || {
        let mut hello = [0; 51];
        hello[..8].copy_from_slice(b"alluvium");
        hello[9] = 1;
        hello[10] = 2;
        hello
    };
    let says = |bytes: Vec<u8>| {
        met(Duration::from_secs(60), move |mut stream| {
            stream.write_all(&bytes).expect("sent");
            stream.shutdown(Shutdown::Write).expect("no more");
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    assert!(matches!(
        says(b"GET / HTTP/1.1\r\n".to_vec()),
        Err(HandshakeError::Stranger)
    ));
    assert!(matches!(says(vec![0xff; 4096]), Err(HandshakeError::Stranger)));
    assert!(matches!(says(vec![]), Err(HandshakeError::Io(_))));
    assert!(matches!(says(hello()[..40].to_vec()), Err(HandshakeError::Io(_))));
    // The acceptor does not wait for terms of 65,535 bytes.
    let oversize = [&hello()[..], &[0; 16], &[0xff, 0xff]].concat();
    assert!(matches!(says(oversize), Err(HandshakeError::Stranger)));
    // The terms are not JSON.
    let nonsense = [&hello()[..], &[0; 16], &[0, 3], b"{]}", &[0; 32]].concat();
    assert!(matches!(says(nonsense), Err(HandshakeError::Stranger)));
    assert!(started.elapsed() < PATIENCE, "nobody waited for the deadline");
}

#[test]
fn dribbled_bytes_do_not_move_the_deadline() {
    let started = Instant::now();
    let slow = met(Duration::from_millis(300), |mut stream| {
        for byte in b"alluvium".iter().cycle().take(200) {
            if stream.write_all(&[*byte]).is_err() || started.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(slow, Err(HandshakeError::Io(_))));
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn secrets_are_neither_short_nor_shown() {
    assert!(Secret::new(b"  too short       \n").is_err());
    assert!(Secret::new(&[b'x'; 5000]).is_err());
    assert_eq!(format!("{:?}", ours()), "Secret(***)");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let welcome = Arc::new(AtomicUsize::new(0));
    let admitted = welcome.clone();
    let gate = ClusterListener::open(
        listener,
        Arc::new(move |stream| {
            let judged = handshake::accept(
                &stream,
                &ours(),
                &terms(),
                |_| HandshakeVerdict::Welcome,
                Duration::from_secs(60),
            );
            judged.map_err(|e| e.to_string())?;
            admitted.fetch_add(1, Ordering::AcqRel);
            Ok(())
        }),
    )
    .expect("a gate");
    let mut idle: Vec<TcpStream> = Vec::new();
    for round in 0..10 {
        idle.extend((0..100).map(|_| TcpStream::connect(address).expect("accepted by the system")));
        if round % 2 == 0 {
            idle.last_mut().expect("some").write_all(b"allu").expect("sent");
        }
        let stream = TcpStream::connect(address).expect("connected");
        connect(&stream, &ours()).unwrap_or_else(|e| panic!("{} idle connections: {e}", idle.len()));
    }
    // The connector knows of its welcome before the listener's thread counts it.
    let started = Instant::now();
    while welcome.load(Ordering::Acquire) < 10 && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(welcome.load(Ordering::Acquire), 10);
    drop(gate);
    assert!(TcpStream::connect(address).is_err(), "a gate that is dropped is closed");
}

fn member(process: usize, hosts: &[String], secret: Secret) -> Member {
    Member {
        process,
        hosts: hosts.to_vec(),
        listen: None,
        secret,
    }
}

/// Addresses with ports that are free at the moment.
fn hosts(n: usize) -> Vec<String> {
    let listeners: Vec<TcpListener> = (0..n)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("an address").to_string())
        .collect()
}

#[test]
fn three_processes_find_each_other_in_any_order_and_each_pair_talks() {
    let hosts = hosts(3);
    let terms = ClusterTerms {
        processes: 3,
        ..terms()
    };
    let mut joined: Vec<ClusterConnections> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3)
            .map(|process| {
                let (hosts, terms) = (&hosts, &terms);
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(150 * (2 - process as u64)));
                    join(&member(process, hosts, ours()), terms).expect("joined")
                })
            })
            .collect();
        starting.into_iter().map(|s| s.join().expect("no panic")).collect()
    });
    for a in 0..3 {
        for b in 0..a {
            let mut near = joined[a].data[b].take().expect("a socket");
            let mut far = joined[b].data[a].take().expect("a socket");
            near.write_all(&[a as u8, b as u8]).expect("sent");
            let mut heard = [9, 9];
            far.read_exact(&mut heard).expect("heard");
            assert_eq!(heard, [a as u8, b as u8]);
        }
    }
    let controls = |j: &ClusterConnections| j.control.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(controls(&joined[0]), [false, true, true]);
    assert_eq!(controls(&joined[2]), [true, false, false]);
}

#[test]
fn wrong_secrets_and_other_definitions_are_told_and_the_right_process_still_joins() {
    let hosts = hosts(2);
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| join(&member(0, &hosts, ours()), &terms()));
        let wrong = join(&member(1, &hosts, secret("a secret of somebody else")), &terms());
        assert!(matches!(wrong, Err(ClusterError::Unproved(_))));
        let other = ClusterTerms {
            definition: "4567".into(),
            ..terms()
        };
        let Err(differs) = join(&member(1, &hosts, ours()), &other) else {
            panic!("joined with another definition")
        };
        let text = differs.to_string();
        assert!(
            text.contains("definition 4567") && text.contains("definition 0123"),
            "{text}"
        );
        let swapped: Vec<String> = hosts.iter().rev().cloned().collect();
        assert!(matches!(
            join(
                &Member {
                    listen: Some("127.0.0.1:0".into()),
                    hosts: vec![hosts[0].clone(); 2],
                    ..member(1, &swapped, ours())
                },
                &ClusterTerms { workers: 3, ..terms() }
            ),
            Err(ClusterError::Differs { .. })
        ));
        join(&member(1, &hosts, ours()), &terms()).expect("joined");
        leader.join().expect("no panic").expect("joined");
    });
}

#[test]
fn a_process_that_went_while_the_others_gathered_may_come_again() {
    let hosts = hosts(3);
    let terms = ClusterTerms {
        processes: 3,
        ..terms()
    };
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| join(&member(0, &hosts, ours()), &terms));
        // A process proves itself and leaves.
        let route = Route {
            kind: SocketKind::Control,
            from: 1,
            to: 0,
        };
        let started = Instant::now();
        loop {
            let proved = TcpStream::connect(&hosts[0])
                .map_err(HandshakeError::Io)
                .and_then(|s| handshake::connect(&s, &ours(), route, [0; 16], &terms, PATIENCE));
            if proved.is_ok() {
                break;
            }
            assert!(started.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        let first = scope.spawn(|| join(&member(1, &hosts, ours()), &terms));
        let second = scope.spawn(|| join(&member(2, &hosts, ours()), &terms));
        for joining in [leader, first, second] {
            joining.join().expect("no panic").expect("joined");
        }
    });
}

/// One end of a link, and the events that it reports.
fn link(stream: TcpStream) -> (Link, crossbeam_channel::Receiver<LinkEvent>) {
    let (sender, heard) = crossbeam_channel::unbounded();
    let link = Link::start(stream, "test", move |what| {
        let _ = sender.send(what);
    });
    (link.expect("threads"), heard)
}

#[test]
fn a_link_carries_messages_in_order_and_a_good_bye_is_no_loss() {
    let (near, far) = pair();
    let ((mut near, _near_heard), (far, heard)) = (link(near), link(far));
    let large = vec![7; 3 << 20];
    for message in [vec![1], large.clone(), vec![2, 3]] {
        near.send(message);
    }
    near.finish();
    far.wait(PATIENCE);
    let messages: Vec<Vec<u8>> = heard
        .try_iter()
        .map(|what| match what {
            LinkEvent::Message(message) => message,
            LinkEvent::Lost(loss) => panic!("lost: {loss}"),
        })
        .collect();
    assert_eq!(messages, [vec![1], large, vec![2, 3]]);
}

#[test]
fn a_peer_that_closes_or_says_nothing_is_lost_and_one_that_beats_is_not() {
    let (near, far) = pair();
    let (_link, heard) = link(near);
    drop(far);
    let Ok(LinkEvent::Lost(loss)) = heard.recv_timeout(PATIENCE) else {
        panic!("not told")
    };
    assert_eq!(loss, Loss::Closed);

    let ((near, far), (hung, silent)) = (pair(), pair());
    let ((_near, near_heard), (_far, far_heard)) = (link(near), link(far));
    let (_link, heard) = link(hung);
    let started = Instant::now();
    let Ok(LinkEvent::Lost(loss)) = heard.recv_timeout(SILENCE + Duration::from_secs(2)) else {
        panic!("not told")
    };
    assert_eq!(loss, Loss::Silent(SILENCE));
    assert!(started.elapsed() >= SILENCE - BEAT);
    drop(silent);
    assert!(
        near_heard.is_empty() && far_heard.is_empty(),
        "beats are heard, and are no messages"
    );
}

#[test]
fn an_endless_message_is_not_waited_for() {
    let (near, mut far) = pair();
    let (_link, heard) = link(near);
    far.write_all(&(u32::MAX - 1).to_be_bytes()).expect("sent");
    let Ok(LinkEvent::Lost(loss)) = heard.recv_timeout(PATIENCE) else {
        panic!("not told")
    };
    assert_eq!(loss, Loss::TooLong(u64::from(u32::MAX - 1)));
}

#[test]
fn what_is_missing_of_a_broken_off_stream_is_its_rest_and_a_last_header() {
    let message = |length: u64| {
        let mut bytes = vec![1; 48 + length as usize];
        bytes[32..40].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let whole = [message(100), message(1), message(300)].concat();
    for cut in 0..=whole.len() {
        let mut frames = Frames::default();
        // The split into pieces does not matter.
        whole[..cut].chunks(7).for_each(|piece| frames.observe(piece));
        let mut filled = 0;
        while frames.missing() > 0 {
            let n = frames.missing().min(5);
            frames.observe(&vec![0; n]);
            filled += n;
        }
        assert!(frames.ended, "cut at {cut}");
        assert!(
            (1..=348 + 48).contains(&filled),
            "cut at {cut}, filled up with {filled}"
        );
    }
}
