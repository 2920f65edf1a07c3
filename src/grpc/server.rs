//! Binds the port, puts services and layers together, serves, and drains at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::CompressionEncoding;
use tower::{Layer, Service};

use crate::admission::Access;
use crate::admission::concurrency_limit::ConcurrencyLimit;
use crate::admission::rpc::Rpc;
use crate::app::eligibility::EligibilityService;
use crate::app::import::settings::ImportSettings;
use crate::app::sensitive_attributes::SensitiveAttributes;
use crate::app::user_export::HoldingRules;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use coupons::eligibility::Policy;
use domain::error::InvalidField;
use domain::rating::RatingScale;
use recommender::evaluation::bias::options::BiasOptions;

use super::accept;
use super::accept::open_connections::{ConnectionLimits, OpenConnections};
use super::accept::open_files;
use super::campaign::CampaignHandler;
use super::catalog::CatalogHandler;
use super::coupon::CouponHandler;
use super::demand::DemandHandler;
use super::grpc_web::{Origins, Web};
use super::health;
use super::http::Http;
use super::import::ImportHandler;
use super::inventory::InventoryHandler;
use super::layers::Layers;
use super::message_size::MAX_ANSWER_BYTES;
use super::model::ModelHandler;
use super::options::ServerOptions;
use super::privacy::PrivacyHandler;
use super::proto::DESCRIPTORS;
use super::proto::v1::campaign_service_server::CampaignServiceServer;
use super::proto::v1::catalog_service_server::CatalogServiceServer;
use super::proto::v1::coupon_service_server::CouponServiceServer;
use super::proto::v1::demand_service_server::DemandServiceServer;
use super::proto::v1::import_service_server::ImportServiceServer;
use super::proto::v1::inventory_service_server::InventoryServiceServer;
use super::proto::v1::model_service_server::ModelServiceServer;
use super::proto::v1::privacy_service_server::PrivacyServiceServer;
use super::proto::v1::purchase_service_server::PurchaseServiceServer;
use super::proto::v1::rating_service_server::RatingServiceServer;
use super::proto::v1::recommendation_service_server::RecommendationServiceServer;
use super::purchase::PurchaseHandler;
use super::rating::RatingHandler;
use super::recommendation::RecommendationHandler;
use super::routes::{Routes, RoutesBuilder};
use super::threads::{self, ThreadError};
use super::tls::options::TlsOptions;
use super::tls::{self, Tls, TlsError, Watch};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {listen} (server.listen)")]
    Listen { listen: SocketAddr, source: io::Error },
    #[error(transparent)]
    Options(#[from] InvalidField),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the reflection service cannot be built")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// A bound port, on which nothing is answered yet.
pub struct Listener {
    listener: TcpListener,
    /// `None` for plain text.
    tls: Option<(Arc<Tls>, Watch)>,
    limits: ConnectionLimits,
    /// `None` when gRPC-Web is off.
    web_origins: Option<Origins>,
    pub address: SocketAddr,
}

/// `reserved_files`: the files that others than clients may need, such as connections to the database.
///
/// # Errors
/// [`ServerError::Listen`] when the port is taken; [`ServerError::Tls`] when a certificate or key file cannot be used.
pub async fn bind(options: &ServerOptions, tls: &TlsOptions, reserved_files: usize) -> Result<Listener, ServerError> {
    let web_origins = options.web_origins()?;
    let tls = tls::load(tls, web_origins.is_some())?;
    let error = |source| ServerError::Listen {
        listen: options.listen,
        source,
    };
    let listener = TcpListener::bind(options.listen).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    let limits = connection_limits(options, reserved_files);
    Ok(Listener {
        listener,
        tls,
        limits,
        web_origins,
        address,
    })
}

/// Returns the limits on open connections, as far as the process may open files.
fn connection_limits(options: &ServerOptions, reserved_files: usize) -> ConnectionLimits {
    let limits = options.connection_limits();
    match open_files::raise_limit() {
        Ok(Some(files)) => {
            let max = open_files::max_connections(files, reserved_files);
            if max < limits.max {
                tracing::warn!(
                    open_files = files,
                    max_connections = max,
                    "the limit on open files leaves room for fewer connections than server.max_connections"
                );
            }
            limits.within(max)
        }
        Ok(None) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            limits
        }
    }
}

/// Everything that the services need.
pub struct Services {
    pub pool: Pool,
    pub live: Live,
    pub scale: RatingScale,
    pub policy: Policy,
    pub sensitive: SensitiveAttributes,
    pub bias: BiasOptions,
    pub import: ImportSettings,
    pub rules: HoldingRules,
    pub access: Access,
}

/// Adds `$server` with `$handler` to `$routes`. It takes messages of up to as many bytes as each RPC takes, and `$limit` at
/// most, compressed or not, because bulk loaders are often far away. Answers are short and are not compressed; one that clients
/// would not accept is refused.
macro_rules! add {
    ($routes:expr, $server:ident, $handler:expr, $limit:expr) => {{
        let limit = $limit;
        let server = $server::new($handler)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        $routes.add_with(server, move |server, request| {
            let rpc = request.extensions().get::<Rpc>();
            let limit = rpc.map_or(limit, |rpc| rpc.max_request_bytes().min(limit));
            server.max_decoding_message_size(limit).call(request)
        })
    }};
}

/// Answers until `shutdown`, then lets the requests under way finish, at most `server.drain_timeout_ms`.
///
/// # Errors
/// [`ServerError::Thread`] when a serving thread ends.
pub async fn serve(
    listener: Listener,
    options: &ServerOptions,
    services: Services,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::begin(&reporter, &services.live).await;
    let health = tokio::spawn(health::report(reporter, services.live.clone(), shutdown.clone()));
    let layers = Layers::new(services.access.clone(), options.request_timeout_ms, Handle::current());
    let routes = add_services(Routes::builder(), services, options, &shutdown).add(health_service);
    let routes = add_reflection(routes)?.build();
    let http = Http::new(options.http());
    let (tls, watching) = match listener.tls {
        Some((tls, watch)) => (Some(tls), Some(AbortOnDropHandle::new(tokio::spawn(watch.follow())))),
        None => (None, None),
    };
    tracing::info!(address = %listener.address, tls = tls.is_some(), "serving on {}", listener.address);
    let stop = shutdown.clone().cancelled_owned();
    let open = OpenConnections::new(listener.limits);
    let connections = accept::connections(listener.listener, tls, open, options.handshake_timeout());
    let n_threads = threads::number(options.threads);
    let service = Web::new(layers.layer(routes), listener.web_origins);
    let served = threads::serve(http, service, n_threads, connections, shutdown.clone());
    let draining = tokio::spawn(async {
        stop.await;
        tracing::info!("draining: no new requests are taken");
    });
    let drain_timeout = Duration::from_millis(options.drain_timeout_ms);
    let drained_too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
    };
    let result = tokio::select! {
        served = served => served.map_err(ServerError::Thread),
        () = drained_too_long => {
            tracing::warn!(drain_timeout_ms = options.drain_timeout_ms, "requests were cut off at the drain timeout");
            Ok(())
        }
    };
    draining.abort();
    health.abort();
    drop(watching);
    result
}

fn add_services(
    routes: RoutesBuilder,
    services: Services,
    options: &ServerOptions,
    shutdown: &CancellationToken,
) -> RoutesBuilder {
    let Services {
        pool,
        live,
        scale,
        policy,
        sensitive,
        bias,
        import,
        rules,
        access: _,
    } = services;
    let limit = options.max_message_bytes;
    let catalog = CatalogHandler {
        pool: pool.clone(),
        live: live.clone(),
    };
    let rating = RatingHandler {
        pool: pool.clone(),
        live: live.clone(),
        scale,
    };
    let purchase = PurchaseHandler {
        pool: pool.clone(),
        live: live.clone(),
    };
    let campaign = CampaignHandler {
        pool: pool.clone(),
        live: live.clone(),
        sensitive,
        bias,
    };
    let coupon = CouponHandler {
        pool: pool.clone(),
        live: live.clone(),
        policy,
        eligibility: EligibilityService {
            pool: pool.clone(),
            live: live.clone(),
            policy,
        },
        token_secret: OnceCell::new(),
    };
    let privacy = PrivacyHandler {
        pool: pool.clone(),
        live: live.clone(),
        rules,
        token_secret: OnceCell::new(),
    };
    let inventory = InventoryHandler {
        pool: pool.clone(),
        live: live.clone(),
    };
    let import = ImportHandler {
        pool: pool.clone(),
        live: live.clone(),
        scale,
        settings: import,
        slots: ConcurrencyLimit::new(import.max_uploads),
        shutdown: shutdown.clone(),
    };
    let model = ModelHandler {
        pool: pool.clone(),
        live: live.clone(),
    };
    let demand = DemandHandler { live: live.clone() };
    let recommendation = RecommendationHandler::new(pool, live, scale, policy.privacy, options.answer_cache_bytes);
    let routes = add!(routes, RecommendationServiceServer, recommendation, limit);
    let routes = add!(routes, CouponServiceServer, coupon, limit);
    let routes = add!(routes, RatingServiceServer, rating, limit);
    let routes = add!(routes, PurchaseServiceServer, purchase, limit);
    let routes = add!(routes, CatalogServiceServer, catalog, limit);
    let routes = add!(routes, CampaignServiceServer, campaign, limit);
    let routes = add!(routes, PrivacyServiceServer, privacy, limit);
    let routes = add!(routes, DemandServiceServer, demand, limit);
    let routes = add!(routes, InventoryServiceServer, inventory, limit);
    let routes = add!(routes, ImportServiceServer, import, limit);
    add!(routes, ModelServiceServer, model, limit)
}

/// Adds the reflection service in both versions: grpcio-reflection and other clients still ask for the older one. It also
/// describes the types of error details, without which clients cannot decode these.
fn add_reflection(routes: RoutesBuilder) -> Result<RoutesBuilder, ServerError> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let current = described().build_v1().map_err(ServerError::Reflection)?;
    let older = described().build_v1alpha().map_err(ServerError::Reflection)?;
    Ok(routes.add(current).add(older))
}
