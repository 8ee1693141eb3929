//! Connections: accepted, with or without TLS, and ended in order.
//!
//! A client has so long to shake hands, to send a request's head and to take what it is answered, and connections are
//! bounded; who holds one without asking for anything, or reading, loses it ([`super::seats`]). When the run ends none is accepted any more, and those that are there end behind the
//! request that is under way, or after [`DRAIN`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::seats::{Place, Seats, Watched};
use super::server::Admitted;
use crate::definition::Tls;

/// What clients may take of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerLimits {
    /// Connections at once.
    pub connections: usize,
    /// How long a client may take to shake hands, and to send a request's head, from the end of the last request on.
    pub head: Duration,
    /// How long it may take nothing of what is sent to it.
    pub unread: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits {
            connections: 1024,
            head: Duration::from_secs(10),
            unread: Duration::from_secs(10),
        }
    }
}

/// What a request's head may take at most.
const HEAD_BYTES: usize = 64 << 10;
/// How long requests that are under way may take when the run ends.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// The pause after a connection could not be accepted: too many files are open, mostly.
const PAUSE: Duration = Duration::from_millis(50);

/// What speaks TLS, by certificate and key.
pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let certificates = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", tls.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| format!("{}: {error}", tls.key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, key));
    let mut config = config.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until it is to close, and ends when all connections have ended.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ListenerLimits,
    mut closing: watch::Receiver<bool>,
) {
    let seats = Seats::new(limits.connections);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        while tasks.try_join_next().is_some() {}
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (tls, router, mut closing) = (tls.clone(), router.clone(), closing.clone());
        tasks.spawn(async move {
            let seat = place.seat.clone();
            let talked = async {
                match tls {
                    None => talk(stream, router, &place, limits, closing).await,
                    Some(tls) => {
                        let shaken = tokio::select! {
                            _ = closing.wait_for(|closing| *closing) => return,
                            shaken = tokio::time::timeout(limits.head, tls.accept(stream)) => shaken,
                        };
                        if let Ok(Ok(stream)) = shaken {
                            talk(stream, router, &place, limits, closing).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = talked => {}
                () = seat.gone() => {}
            }
        });
    }
    drop(listener);
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, ended).await; // those that are left go with the set
}

async fn accept(listener: &TcpListener, seats: &Arc<Seats>) -> Option<(TcpStream, Place)> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true); // a matter of speed alone
            Some((stream, seats.take().await))
        }
        Err(error) => {
            tracing::debug!(%error, "could not accept a connection");
            seats.free_one();
            None
        }
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    place: &Place,
    limits: ListenerLimits,
    mut closing: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.seat.clone());
        let (under_way, answer) = (place.begin_request(), router.call(request));
        async move {
            let answered = answer.await;
            if answered
                .as_ref()
                .is_ok_and(|answer| answer.extensions().get::<Admitted>().is_some())
            {
                place.seat.observe_answer();
            }
            drop(under_way);
            answered
        }
    });
    let stream = Watched::new(stream, place.seat.clone(), limits.unread);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Listens at an address.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
