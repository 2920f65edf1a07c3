//! Sends each call to the service that its path names.
//!
//! tonic brings a router of its own, built on axum's. For a path `/package.Service/Method` it does more than is needed
//! (captured parameters, boxed bodies, a service cloned into a box), and that takes as long as a short answer does.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The answer of a service, and of every layer around the services.
pub type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The services by name. A clone shares them.
#[derive(Clone, Default)]
pub struct Routes {
    services: Arc<Vec<Route>>,
}

struct Route {
    /// For example `likemind.v1.RatingService`.
    name: &'static str,
    call: Box<dyn Fn(Request<Body>) -> Answer + Send + Sync>,
}

/// Collects the services.
#[derive(Default)]
pub struct RoutesBuilder {
    services: Vec<Route>,
}

impl RoutesBuilder {
    /// `service`: a generated server, which is always ready. Calls are looked up in the order of the services, so that the
    /// service that is called most should be the first.
    pub fn add<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.add_with(service, |mut service, request| service.call(request))
    }

    /// The same for a service whose calls are made by `call`, which is given a clone of it.
    pub fn add_with<S>(mut self, service: S, call: impl Fn(S, Request<Body>) -> Answer + Send + Sync + 'static) -> Self
    where
        S: NamedService + Clone + Send + Sync + 'static,
    {
        self.services.push(Route {
            name: S::NAME,
            call: Box::new(move |request| call(service.clone(), request)),
        });
        self
    }

    pub fn build(self) -> Routes {
        Routes {
            services: Arc::new(self.services),
        }
    }
}

impl Routes {
    pub fn builder() -> RoutesBuilder {
        RoutesBuilder::default()
    }

    fn find(&self, path: &str) -> Option<&Route> {
        let path = path.strip_prefix('/')?;
        self.services
            .iter()
            .find(|route| path.strip_prefix(route.name).is_some_and(|rest| rest.starts_with('/')))
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.find(request.uri().path()) {
            Some(route) => (route.call)(request),
            // A generated server answers the same to a method that it does not have.
            None => Box::pin(ready(Ok(Status::unimplemented("").into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_service() {
        let route = |name| Route {
            name,
            call: Box::new(|_| unreachable!("nothing is called")),
        };
        let routes = RoutesBuilder {
            services: vec![route("a.v1.Rating"), route("a.v1.RatingService")],
        }
        .build();
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(routes.find(path).map(|route| route.name), expected, "{path}");
        };
        check("/a.v1.RatingService/Get", Some("a.v1.RatingService"));
        check("/a.v1.Rating/Get", Some("a.v1.Rating"));
        check("/a.v1.Rating/", Some("a.v1.Rating"));
        for path in ["/a.v1.Rating", "/a.v1.RatingServices/Get", "a.v1.Rating/Get", "/", ""] {
            check(path, None);
        }
    }
}
