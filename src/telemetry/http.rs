//! The HTTP port: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever watches the process. Plain HTTP without
//! authentication, as nothing of the data shows here.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::{Readiness, process};

/// The version of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN_TYPE: &str = "text/plain; charset=utf-8";

/// Time between two clean-ups of the recorder, which would otherwise grow while nobody asks for the metrics.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Time between attempts to accept while none succeeds.
const PAUSE: Duration = Duration::from_millis(100);

/// # Errors
/// When the port is taken.
pub(super) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers for as long as the runtime runs.
pub(super) async fn serve(listener: TcpListener, recorded: PrometheusHandle, readiness: Readiness) {
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        let connection = tokio::select! {
            _ = upkeep.tick() => {
                recorded.run_upkeep();
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => connection,
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (recorded, readiness) = (recorded.clone(), readiness.clone());
        let answer = move |request| {
            let answered = answer(&request, &recorded, &readiness);
            async { Ok::<_, Infallible>(answered) }
        };
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(connection), service_fn(answer));
        // An error is the client's, which is gone or speaks no HTTP.
        tokio::spawn(async { drop(served.await) });
    }
}

fn answer(request: &Request<Incoming>, recorded: &PrometheusHandle, readiness: &Readiness) -> Response<Full<Bytes>> {
    let (status, content_type, text) = match request.uri().path() {
        "/metrics" | "/livez" | "/readyz" if ![Method::GET, Method::HEAD].contains(request.method()) => {
            let mut refused = text_response(
                StatusCode::METHOD_NOT_ALLOWED,
                PLAIN_TYPE,
                "only GET and HEAD\n".to_owned(),
            );
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        "/metrics" => (StatusCode::OK, METRICS_TYPE, recorded.render() + &process::metrics()),
        "/livez" => (StatusCode::OK, PLAIN_TYPE, "ok\n".to_owned()),
        "/readyz" => match readiness.get() {
            Ok(()) => (StatusCode::OK, PLAIN_TYPE, "ok\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN_TYPE, format!("{reason}\n")),
        },
        _ => {
            let paths = "there are /metrics, /livez and /readyz\n".to_owned();
            (StatusCode::NOT_FOUND, PLAIN_TYPE, paths)
        }
    };
    text_response(status, content_type, text)
}

fn text_response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
