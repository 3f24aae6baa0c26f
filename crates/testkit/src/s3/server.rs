//! Starts and stops a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Error;
use super::access_log::{AccessLog, AccessRecord};
use super::api::Api;
use super::conditions::RivalGate;
use super::core::Core;
use super::faults::FaultControl;
use super::front::Front;
use super::model::{Change, Versioning};
use super::options::{BucketOptions, Credential, S3Options};
use super::permissions::{Gatekeeper, Secrets};
use super::store::Store;

/// How long running requests may finish after [`S3Server::stop`].
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A running S3 server on a loopback port; stops when dropped.
///
/// It has threads of its own, so it also answers while a test's runtime is blocked or its time is paused.
#[derive(Debug)]
pub struct S3Server {
    core: Arc<Core>,
    address: SocketAddr,
    cancel: CancellationToken,
    accepting: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts a server; it accepts connections when this returns.
    ///
    /// # Errors
    /// When the address is taken, or the directory is in use, not usable or damaged.
    pub async fn start(options: S3Options) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .map_err(|source| Error::Threads { source })?;
        // From here on `Drop` takes care of the runtime, which must not be dropped on an async thread.
        let mut guard = RuntimeGuard(Some(runtime));
        let handle = guard.handle();
        let address = options.listen;
        let listener = handle.spawn(async move { TcpListener::bind(address).await });
        let opening = handle.spawn_blocking(move || open(&options));
        let core = Arc::new(opening.await.map_err(join_error)??);
        let listener =
            listener.await.map_err(join_error)?.map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let cancel = CancellationToken::new();
        let front = Front { service: service(&core), core: Arc::clone(&core) };
        let accepting = handle.spawn(accept(listener, front, cancel.clone()));
        Ok(Self { core, address, cancel, accepting: Some(accepting), runtime: guard.0.take() })
    }

    /// URL for clients; use path-style requests.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Address the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes faults and misbehaviour while the server runs.
    #[must_use]
    pub fn faults(&self) -> &FaultControl {
        &self.core.faults
    }

    /// All requests so far, in the order of their answers; a request is in it before its client reads the reply.
    #[must_use]
    pub fn access_log(&self) -> Vec<AccessRecord> {
        self.core.log.snapshot()
    }

    /// Requests that came after the log was full (one million records).
    #[must_use]
    pub fn access_log_dropped(&self) -> u64 {
        self.core.log.dropped()
    }

    /// Forgets all records.
    pub fn clear_access_log(&self) {
        self.core.log.clear();
    }

    /// Stops accepting, lets running requests finish for two seconds, then closes.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Some(accepting) = self.accepting.take() {
            // An error means that the task panicked; then there is nothing left to wait for.
            let _ = accepting.await;
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Shuts the runtime down in the background when starting fails.
struct RuntimeGuard(Option<Runtime>);

impl RuntimeGuard {
    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("taken only at the end of start").handle().clone()
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn join_error(source: tokio::task::JoinError) -> Error {
    Error::Threads { source: std::io::Error::other(source) }
}

fn open(options: &S3Options) -> Result<Core, Error> {
    let store = match &options.directory {
        None => Store::memory(),
        Some(path) => Store::open(path)?,
    };
    let mut credentials = options.credentials.clone();
    if credentials.is_empty() {
        credentials.push(Credential::admin(Credential::DEFAULT_ACCESS_KEY, Credential::DEFAULT_SECRET_KEY));
    }
    let core = Core {
        store,
        credentials,
        min_part_size: options.min_part_size,
        opaque_etags: options.opaque_etags,
        faults: FaultControl::new(),
        log: AccessLog::default(),
        gate: RivalGate::default(),
    };
    options.buckets.iter().try_for_each(|bucket| create(&core, bucket))?;
    Ok(core)
}

/// Creates a bucket unless it is there from an earlier run.
fn create(core: &Core, options: &BucketOptions) -> Result<(), Error> {
    let bucket = options.name.clone();
    if !s3s::path::check_bucket_name(&bucket) {
        return Err(Error::BucketName { name: bucket });
    }
    let created = core.now();
    let made = core.store.transact(|index| {
        let mut changes = Vec::new();
        if !index.buckets.contains_key(&bucket) {
            changes.push(Change::BucketCreated {
                bucket: bucket.clone(),
                created,
                lock: options.object_lock,
            });
            if options.versioning {
                changes
                    .push(Change::VersioningSet { bucket: bucket.clone(), versioning: Versioning::Enabled });
            }
        }
        Ok((changes, ()))
    });
    made.map_err(|error| Error::Directory { path: bucket.into(), source: std::io::Error::other(error) })
}

fn service(core: &Arc<Core>) -> S3Service {
    let mut config = S3Config::default();
    // The gatekeeper compares with the server's own clock, which may be skewed.
    config.presigned_url_max_skew_time_secs = u32::MAX;
    let mut builder = S3ServiceBuilder::new(Api(Arc::clone(core)));
    builder.set_auth(Secrets(Arc::clone(core)));
    builder.set_access(Gatekeeper(Arc::clone(core)));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

async fn accept(listener: TcpListener, front: Front, cancel: CancellationToken) {
    let connections = TaskTracker::new();
    let kill = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, front.clone(), cancel.clone(), kill.clone()));
            }
            // Out of file descriptors, or a client that left already: the next one may fare better.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(STOP_GRACE, connections.wait()).await.is_err() {
        kill.cancel();
        connections.wait().await;
    }
}

async fn serve(stream: TcpStream, front: Front, cancel: CancellationToken, kill: CancellationToken) {
    // Without it small replies wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| front.clone().answer(request));
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = kill.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}
