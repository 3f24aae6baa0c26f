//! A connection to a server: TCP or a Unix socket, encrypted or not.

mod paced;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;
use crate::source::{Endpoint, Tls};
use paced::Paced;

/// Largest file of certificates that is read.
const MAX_PEM: u64 = 4 << 20;

/// Bytes in both directions.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// From now on what comes may wait for some milliseconds, which costs a server less.
    fn pace(&mut self);
}

impl Transport for TlsStream<Box<dyn Transport>> {
    fn pace(&mut self) {
        self.get_mut().0.pace();
    }
}

/// Connects within that time, without saying a word.
///
/// # Errors
/// [`Error::Connect`] when nobody listens there, [`Error::Tls`] when the server is not the one that it should be.
pub(crate) async fn open(endpoint: &Endpoint, patience: Duration) -> Result<Box<dyn Transport>, Error> {
    let connecting = tokio::time::timeout(patience, plain(endpoint));
    let source = match connecting.await {
        Ok(Ok(stream)) => match &endpoint.tls {
            None => return Ok(stream),
            Some(tls) => return encrypted(endpoint, tls, stream, patience).await,
        },
        Ok(Err(source)) => source,
        Err(_) => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()))
        }
    };
    Err(Error::Connect { address: endpoint.address.clone(), source })
}

async fn plain(endpoint: &Endpoint) -> io::Result<Box<dyn Transport>> {
    let address = &endpoint.address;
    if let Some(path) = address.socket() {
        let stream = UnixStream::connect(path).await?;
        return Ok(Box::new(Paced::new(stream.into_std()?)?));
    }
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    // Acknowledgements are small and must not wait.
    stream.set_nodelay(true)?;
    Ok(Box::new(Paced::new(stream.into_std()?)?))
}

async fn encrypted(
    endpoint: &Endpoint,
    tls: &Tls,
    stream: Box<dyn Transport>,
    patience: Duration,
) -> Result<Box<dyn Transport>, Error> {
    let failed = |problem: String| Error::Tls { address: endpoint.address.clone(), problem };
    let (files, address) = (tls.clone(), endpoint.address.clone());
    let configured = tokio::task::spawn_blocking(move || {
        configuration(&files).map_err(|problem| Error::Tls { address, problem })
    });
    let configuration =
        configured.await.map_err(|_| failed("reading the certificates failed".to_owned()))??;
    let name = tls.server_name.clone().unwrap_or_else(|| endpoint.address.host.clone());
    let name = ServerName::try_from(name).map_err(|error| failed(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(configuration));
    match tokio::time::timeout(patience, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", patience.as_secs()))),
    }
}

/// Blocks on small files.
fn configuration(tls: &Tls) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots(tls.ca.as_deref())?);
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|error| format!("{} holds no private key: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("a certificate of our own needs its key, and the key its certificate".to_owned()),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let trusted = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(trusted);
    if store.is_empty() {
        return Err("no certificate to trust was found".to_owned());
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} holds no certificate", path.display())),
        Err(error) => Err(format!("{} holds no certificate: {error}", path.display())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if fs::metadata(path).map_err(failed)?.len() > MAX_PEM {
        return Err(format!("{} is too large for certificates", path.display()));
    }
    fs::read(path).map_err(failed)
}
