//! Accepts connections, with or without TLS, and shuts them down in order.
//!
//! A client has limited time for the handshake, for sending a request's head and for reading the answer, and the
//! number of connections is bounded. A client that holds a connection without requests, or without reading, loses it
//! ([`super::connections`]). When the run ends, no connection is accepted any more, and the open ones close after the
//! request in progress, or after [`DRAIN`].

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

use super::connections::{ConnectionPermit, ConnectionSlots, TimedStream};
use super::server::Admitted;
use crate::definition::Tls;

/// Limits on the clients of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerLimits {
    /// The most connections at once.
    pub connections: usize,
    /// How long a client may take for the handshake, and for a request's head, counted from the end of the previous
    /// request.
    pub head: Duration,
    /// How long a client may leave unread what is sent to it.
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

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long requests in progress may take when the run ends.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// The pause after a connection could not be accepted, usually because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes a TLS acceptor from the certificate and the key.
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

/// Accepts connections until `closing`, and returns when all have ended, after [`DRAIN`] at the latest.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ListenerLimits,
    mut closing: watch::Receiver<bool>,
) {
    let slots = ConnectionSlots::new(limits.connections);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        while tasks.try_join_next().is_some() {}
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (tls, router, mut closing) = (tls.clone(), router.clone(), closing.clone());
        tasks.spawn(async move {
            let slot = place.slot.clone();
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
                () = slot.gone() => {}
            }
        });
    }
    drop(listener);
    let ended = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, ended).await; // dropping the set aborts the rest
}

async fn accept(listener: &TcpListener, slots: &Arc<ConnectionSlots>) -> Option<(TcpStream, ConnectionPermit)> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true); // this only affects latency
            Some((stream, slots.acquire().await))
        }
        Err(error) => {
            tracing::debug!(%error, "could not accept a connection");
            slots.free_one();
            None
        }
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    place: &ConnectionPermit,
    limits: ListenerLimits,
    mut closing: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.slot.clone());
        let (under_way, answer) = (place.begin_request(), router.call(request));
        async move {
            let answered = answer.await;
            if answered
                .as_ref()
                .is_ok_and(|answer| answer.extensions().get::<Admitted>().is_some())
            {
                place.slot.observe_answer();
            }
            drop(under_way);
            answered
        }
    });
    let stream = TimedStream::new(stream, place.slot.clone(), limits.unread);
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

/// Binds a listener to an address.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
