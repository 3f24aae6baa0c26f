//! The layer between the connection and the protocol: latency, `Date`, access log, faults of the reply.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{DATE, EXPECT, HeaderValue};
use hyper::{Request, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpResponse, StdError};
use tokio::time::Sleep;

use super::access_log::AccessRecord;
use super::core::Core;
use super::note::{Note, ReplyFault};

/// Bodies of refused requests are read up to this size, so that the client reads the answer and not a reset.
const DRAIN_LIMIT: u64 = 64 * 1024 * 1024;

/// Long enough for a written piece to reach the client's side of a loopback connection.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

/// The connection must close without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the reply is withheld by a fault rule")]
pub(super) struct Withheld;

#[derive(Clone)]
pub(super) struct Front {
    pub(super) core: Arc<Core>,
    pub(super) service: S3Service,
}

impl Front {
    pub(super) async fn answer(self, request: Request<Incoming>) -> Result<HttpResponse, Withheld> {
        let time = SystemTime::now();
        let latency = self.core.faults.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let note = Note::default();
        let (mut head, body) = request.into_parts();
        let waits = head.headers.contains_key(EXPECT);
        let (bucket, key) = split_path(head.uri.path());
        head.extensions.insert(note.clone());
        let upload = UploadBody::new(body, note.clone());
        let request = Request::from_parts(head, Body::http_body(upload.clone()));
        let outcome = self.service.call(request).await;
        let response = outcome.unwrap_or_else(|error| {
            let error: StdError = error.into();
            tracing::error!(%error, "the protocol layer gave up");
            let mut response = HttpResponse::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
        // At once: when the client hangs up, this future ends at its next await.
        self.log(time, &note, bucket, key, &response);
        if !(waits && upload.is_untouched()) {
            upload.drain().await;
        }
        let fault = note.lock().reply;
        self.deliver(response, fault)
    }

    fn log(
        &self,
        time: SystemTime,
        note: &Note,
        bucket: Option<String>,
        key: Option<String>,
        response: &HttpResponse,
    ) {
        let facts = note.lock();
        self.core.log.push(AccessRecord {
            time,
            access_key: facts.access_key.clone(),
            operation: facts.operation.clone().unwrap_or_else(|| "-".to_owned()),
            bucket,
            key,
            status: response.status().as_u16(),
            error: error_code(response),
            overwrote: facts.overwrote,
            bytes: facts.bytes,
            reply_lost: facts.reply == Some(ReplyFault::Lost),
        });
    }

    fn deliver(
        &self,
        mut response: HttpResponse,
        fault: Option<ReplyFault>,
    ) -> Result<HttpResponse, Withheld> {
        let date = httpdate::fmt_http_date(self.core.faults.date());
        let date = HeaderValue::try_from(date).expect("an HTTP date is plain ASCII");
        response.headers_mut().insert(DATE, date);
        match fault {
            Some(ReplyFault::Lost) => return Err(Withheld),
            Some(ReplyFault::Inside200) => *response.status_mut() = StatusCode::OK,
            Some(fault) => response = response.map(|inner| Body::http_body(DamagedBody::new(inner, fault))),
            None => {}
        }
        Ok(response)
    }
}

/// Bucket and key of a path-style path.
fn split_path(path: &str) -> (Option<String>, Option<String>) {
    let decoded =
        percent_encoding::percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy().into_owned();
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match decoded.split_once('/') {
        Some((bucket, key)) => (named(bucket), named(key)),
        None => (named(&decoded), None),
    }
}

/// The code inside an error document.
fn error_code(response: &HttpResponse) -> Option<String> {
    if response.status().is_success() {
        return None;
    }
    let document = response.body().bytes()?;
    let text = std::str::from_utf8(&document).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    Some(rest.split_once("</Code>")?.0.to_owned())
}

/// The request body, shared so that what the operation leaves can be read away afterwards.
#[derive(Clone)]
struct UploadBody(Arc<UploadState>);

struct UploadState {
    incoming: Mutex<Incoming>,
    received: AtomicU64,
    polled: AtomicU64,
    note: Note,
}

impl UploadBody {
    fn new(incoming: Incoming, note: Note) -> Self {
        let (received, polled) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(UploadState { incoming: Mutex::new(incoming), received, polled, note }))
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.0.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_untouched(&self) -> bool {
        self.0.polled.load(Ordering::Relaxed) == 0
    }

    async fn drain(&self) {
        let mut rest = 0;
        let broken = self.0.note.lock().upload_limit.is_some();
        while !broken && rest < DRAIN_LIMIT && !self.incoming().is_end_stream() {
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut *self.incoming()).poll_frame(context)).await;
            match frame {
                Some(Ok(frame)) => rest += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None => return,
            }
        }
    }
}

impl HttpBody for UploadBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.0.polled.fetch_add(1, Ordering::Relaxed);
        let frame = ready!(Pin::new(&mut *self.incoming()).poll_frame(context));
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        let more = frame.data_ref().map_or(0, |data| data.len() as u64);
        let received = self.0.received.fetch_add(more, Ordering::Relaxed) + more;
        if self.0.note.lock().upload_limit.is_some_and(|limit| received > limit) {
            return Poll::Ready(Some(Err("the upload is cut by a fault rule".into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming().size_hint()
    }
}

/// A reply body that breaks off, pauses or carries a wrong bit.
struct DamagedBody {
    inner: Body,
    fault: ReplyFault,
    sent: u64,
    /// Runs while nothing is sent; before a break it lets what was sent leave the server.
    pause: Option<Pin<Box<Sleep>>>,
    /// What of a piece is left for after the pause.
    rest: Option<Bytes>,
}

impl DamagedBody {
    fn new(inner: Body, fault: ReplyFault) -> Self {
        Self { inner, fault, sent: 0, pause: None, rest: None }
    }

    /// Waits where the fault says so; an error is the end of the connection.
    fn poll_fault(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        let (limit, time) = match self.fault {
            ReplyFault::Cut(limit) => (limit, FLUSH_PAUSE),
            ReplyFault::Stalled(limit, time) => (limit, time),
            _ => return Poll::Ready(Ok(())),
        };
        if self.sent < limit {
            return Poll::Ready(Ok(()));
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(pause.as_mut().poll(context));
        if matches!(self.fault, ReplyFault::Cut(_)) {
            return Poll::Ready(Err("the reply is cut by a fault rule".into()));
        }
        self.fault = ReplyFault::Stalled(u64::MAX, time);
        Poll::Ready(Ok(()))
    }

    fn damage(&mut self, mut data: Bytes) -> Bytes {
        match self.fault {
            ReplyFault::Cut(limit) | ReplyFault::Stalled(limit, _) => {
                let now = usize::try_from(limit - self.sent).unwrap_or(usize::MAX).min(data.len());
                let later = data.split_off(now);
                self.rest = (!later.is_empty()).then_some(later);
            }
            ReplyFault::Flipped(byte) if (self.sent..self.sent + data.len() as u64).contains(&byte) => {
                let mut changed = data.to_vec();
                changed[usize::try_from(byte - self.sent).expect("within a piece in memory")] ^= 1;
                data = Bytes::from(changed);
            }
            _ => {}
        }
        self.sent += data.len() as u64;
        data
    }
}

impl HttpBody for DamagedBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if let Err(broken) = ready!(self.poll_fault(context)) {
            return Poll::Ready(Some(Err(broken)));
        }
        let data = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            },
        };
        let data = self.damage(data);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.fault {
            ReplyFault::Cut(_) => SizeHint::default(),
            _ => self.inner.size_hint(),
        }
    }
}
