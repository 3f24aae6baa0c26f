//! S3 servers on loopback: one that works, and one for each way in which one may fail; the same behind TLS, for tools
//! that insist on it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backstay_testkit::s3::{Credential, Effect, FaultRule, Faults, S3Options, S3Server};
use backstay_testkit::{PortLease, ProcessGuard};

use crate::fault::Defect;

pub(crate) const BUCKET: &str = "matrix";
pub(crate) const KEY: &str = "matrix";
pub(crate) const SECRET: &str = "matrix-secret";

/// All servers.
pub(crate) struct Endpoints {
    servers: Vec<Endpoint>,
    _tls: ProcessGuard,
}

struct Endpoint {
    defect: Option<Defect>,
    server: S3Server,
    tls: PortLease,
}

impl Endpoints {
    /// Starts them all; their files go to `folder`.
    pub(crate) async fn start(folder: &Path) -> Self {
        let expired = Effect::Error { status: 400, code: "ExpiredToken".to_owned() };
        let kinds = [
            (None, None),
            (Some(Defect::Forbidden), Some(Effect::AccessDenied)),
            (Some(Defect::InternalError), Some(Effect::InternalError)),
            (Some(Defect::Unavailable), Some(Effect::ServiceUnavailable)),
            (Some(Defect::Timeout), Some(Effect::Delay(Duration::from_secs(3600)))),
            (Some(Defect::Expired), Some(expired)),
        ];
        let mut servers = Vec::new();
        for (defect, effect) in kinds {
            let options = S3Options::memory().bucket(BUCKET).credential(Credential::admin(KEY, SECRET));
            let server = S3Server::start(options).await.expect("the S3 server starts");
            if let Some(effect) = effect {
                server.faults().set(Faults::default().rule(FaultRule::any(effect)));
            }
            let tls = PortLease::reserve().expect("a free port");
            servers.push(Endpoint { defect, server, tls });
        }
        let tls = start_tls(folder, &servers);
        Self { servers, _tls: tls }
    }

    /// The port of the server with this defect; of the working one where the defect lies elsewhere.
    pub(crate) fn port(&self, defect: Option<Defect>, tls: bool) -> u16 {
        let found = self.servers.iter().find(|endpoint| endpoint.defect == defect);
        let endpoint = found.unwrap_or(&self.servers[0]);
        if tls { endpoint.tls.port() } else { endpoint.server.address().port() }
    }

    /// Stops them all.
    pub(crate) async fn stop(self) {
        for endpoint in self.servers {
            endpoint.server.stop().await;
        }
    }
}

fn start_tls(folder: &Path, servers: &[Endpoint]) -> ProcessGuard {
    let pair = folder.join("tls.pem");
    let line = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {0} -out {0}.crt 2>/dev/null && cat {0}.crt >> {0}",
        pair.display()
    );
    let made = Command::new("bash").args(["-c", &line]).status();
    assert!(made.is_ok_and(|status| status.success()), "openssl made no certificate");
    let mut text = "foreground = yes\npid =\n".to_owned();
    for (number, endpoint) in servers.iter().enumerate() {
        let (accept, connect) = (endpoint.tls.port(), endpoint.server.address().port());
        let _ = write!(
            text,
            "[s3-{number}]\naccept = 127.0.0.1:{accept}\nconnect = 127.0.0.1:{connect}\ncert = {}\n",
            pair.display()
        );
    }
    let file = folder.join("tls.conf");
    std::fs::write(&file, text).expect("the scratch folder is writable");
    let mut command = Command::new("stunnel");
    command.arg(&file);
    let mut guard =
        ProcessGuard::spawn(&command, None, "TERM", &folder.join("tls.log")).expect("stunnel starts");
    let last = servers.last().expect("there are servers").tls.port();
    guard
        .wait_ready("stunnel", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", last)).is_ok()
        })
        .expect("stunnel listens");
    guard
}
