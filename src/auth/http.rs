//! Asking an HTTP service: one request, one answer, within a time and a size.
//!
//! Answers are read whole. A GET follows redirects that stay on its host and scheme; anything else that is not
//! 200 is an error. Bodies and headers are in no error and no log: they carry passwords and keys.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Body, Bytes, Incoming},
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::config::auth::url::HttpUrl;

/// Redirects that a GET follows.
const REDIRECTS_MAX: usize = 3;

/// Connections that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// How long they are kept. Shorter than what most servers keep, so that a request seldom meets a closed one.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// A service at one URL.
pub struct Service {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: HttpUrl,
    headers: HeaderMap,
    limits: AnswerLimits,
}

/// What an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// From the first step of the request to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the body.
    pub bytes_max: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or it broke; with what the system says.
    Unreachable(String),
    /// It took too long.
    Timeout(Duration),
    /// The answer is larger than this many bytes.
    TooLarge(usize),
    /// Another status than 200.
    Status(u16),
    /// A redirect that is not followed.
    Redirect,
}

/// Why a service cannot be asked at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceError {
    /// The file of authorities cannot be read.
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is nobody to trust for https.
    NoAuthorities,
    /// The TLS library refuses.
    Tls(rustls::Error),
}

impl Service {
    /// Prepares to ask; no request is made.
    ///
    /// # Errors
    /// What the operator has to mend.
    pub fn new(
        url: HttpUrl,
        ca_file: Option<&Path>,
        mut headers: HeaderMap,
        limits: AnswerLimits,
    ) -> Result<Service, ServiceError> {
        let roots = match url.uri().scheme_str() {
            Some("https") => authorities(ca_file)?,
            _ => RootCertStore::empty(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ServiceError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // The scheme was checked with the URL, and redirects keep it.
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        let agent = concat!("dunlin/", env!("CARGO_PKG_VERSION"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        Ok(Service { client, url, headers, limits })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Fetches what is there.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn get(&self) -> Result<Vec<u8>, HttpError> {
        let fetch = async {
            let mut uri = self.url.uri().clone();
            for _ in 0..=REDIRECTS_MAX {
                let answer = self.send(Method::GET, &uri, Bytes::new()).await?;
                if !answer.status().is_redirection() {
                    return self.read(answer).await;
                }
                uri = redirect(&uri, &answer).ok_or(HttpError::Redirect)?;
            }
            Err(HttpError::Redirect)
        };
        self.in_time(fetch).await
    }

    /// Sends a JSON text and takes the answer. It is sent again only if it was not sent at all.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn post(&self, json: Vec<u8>) -> Result<Vec<u8>, HttpError> {
        let ask = async {
            let answer = self.send(Method::POST, self.url.uri(), json.into()).await?;
            if answer.status().is_redirection() {
                return Err(HttpError::Redirect);
            }
            self.read(answer).await
        };
        self.in_time(ask).await
    }

    async fn in_time(
        &self,
        request: impl Future<Output = Result<Vec<u8>, HttpError>>,
    ) -> Result<Vec<u8>, HttpError> {
        let timeout = self.limits.timeout;
        tokio::time::timeout(timeout, request).await.unwrap_or(Err(HttpError::Timeout(timeout)))
    }

    async fn send(&self, method: Method, uri: &Uri, body: Bytes) -> Result<Response<Incoming>, HttpError> {
        let has_body = method == Method::POST;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        if has_body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.client.request(request).await.map_err(|error| HttpError::Unreachable(innermost(&error)))
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Vec<u8>, HttpError> {
        let bytes_max = self.limits.bytes_max;
        if answer.status() != StatusCode::OK {
            return Err(HttpError::Status(answer.status().as_u16()));
        }
        if answer.body().size_hint().lower() > bytes_max as u64 {
            return Err(HttpError::TooLarge(bytes_max));
        }
        match Limited::new(answer.into_body(), bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge(bytes_max)),
            Err(error) => Err(HttpError::Unreachable(innermost(&*error))),
        }
    }
}

/// Where a redirect leads, if that is the same host by the same scheme.
fn redirect<B>(from: &Uri, answer: &Response<B>) -> Option<Uri> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let mut parts = from.clone().into_parts();
    if location.starts_with('/') && !location.starts_with("//") {
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    let to: Uri = location.parse().ok()?;
    let stays = to.scheme() == from.scheme() && to.authority() == from.authority();
    stays.then_some(to)
}

/// Whom to believe about the names of services: who the system believes, and those in the file.
fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, ServiceError> {
    let mut roots = RootCertStore::empty();
    // The system's store may hold certificates that are no longer understood, and often does.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let refuse = |why: String| ServiceError::Authorities { file: file.into(), why };
        let text = fs::read(file).map_err(|error| refuse(error.to_string()))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(refuse("it holds no certificate".into()));
        }
    }
    if roots.is_empty() { Err(ServiceError::NoAuthorities) } else { Ok(roots) }
}

/// Headers of the configuration, as the library takes them.
///
/// # Errors
/// The name is none, or the value holds what a header cannot.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header")?;
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "has a value with characters that no header can have")?;
    // The library's Debug output leaves it out then.
    value.set_sensitive(true);
    Ok((name, value))
}

/// The cause that says most: libraries wrap it in ones that say "error".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("url", &self.url)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Error for HttpError {}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            HttpError::Timeout(timeout) => write!(f, "it has not answered within {timeout:?}"),
            HttpError::TooLarge(bytes_max) => write!(f, "its answer is larger than {bytes_max} bytes"),
            HttpError::Status(status) => write!(f, "it answered with status {status}"),
            HttpError::Redirect => f.write_str("it answered with a redirect that is not followed"),
        }
    }
}

impl Error for ServiceError {}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Authorities { file, why } => {
                write!(f, "ca_file {} cannot be used: {why}", file.display())
            }
            ServiceError::NoAuthorities => f.write_str(
                "the system trusts no certificate authority; install its package of CA certificates, \
                 or name a ca_file",
            ),
            ServiceError::Tls(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a server on a thread of its own")]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        path::Path,
        sync::Arc,
        thread,
        time::Duration,
    };

    use hyper::HeaderMap;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

    use crate::{
        auth::test_server::{Reply, TestServer, run},
        config::auth::url::{HttpUrl, PlainHttp},
    };

    use super::{AnswerLimits, HttpError, Service, ServiceError};

    const LIMITS: AnswerLimits = AnswerLimits { timeout: Duration::from_secs(20), bytes_max: 100 };

    fn service(url: HttpUrl, ca_file: Option<&Path>) -> Result<Service, ServiceError> {
        Service::new(url, ca_file, HeaderMap::new(), LIMITS)
    }

    /// A server with a certificate of its own for 127.0.0.1. Returns its URL and the certificate.
    fn tls_server() -> (HttpUrl, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                // Who does not trust the certificate hangs up.
                if stream.read(&mut [0; 1024]).is_ok() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                    let _ = stream.flush();
                }
            }
        });
        (HttpUrl::parse(&url, PlainHttp::Loopback).unwrap(), made.cert.pem())
    }

    #[test]
    fn a_server_is_believed_if_an_authority_of_the_file_vouches_for_it() {
        let (url, certificate) = tls_server();
        let file = std::env::temp_dir().join(format!("dunlin-http-{}.pem", std::process::id()));
        std::fs::write(&file, certificate).unwrap();
        let trusting = service(url.clone(), Some(&file)).unwrap();
        assert_eq!(run(trusting.get()), Ok(b"{}".to_vec()));
        std::fs::write(&file, tls_server().1).unwrap();
        let doubting = service(url.clone(), Some(&file)).unwrap();
        assert!(matches!(run(doubting.get()), Err(HttpError::Unreachable(_))));
        std::fs::write(&file, "hello").unwrap();
        let why = service(url, Some(&file)).unwrap_err().to_string();
        assert!(why.contains(&file.display().to_string()) && why.contains("no certificate"), "{why}");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_get_follows_redirects_on_its_host_alone() {
        let there = TestServer::start(Reply::Body(200, "there".into()));
        let here = TestServer::start(Reply::Redirect(there.url().as_str().into()));
        assert_eq!(run(service(here.url(), None).unwrap().get()), Err(HttpError::Redirect));
        assert!(there.asked().is_empty());
        // In a circle.
        here.reply(Reply::Redirect(here.url().as_str().into()));
        assert_eq!(run(service(here.url(), None).unwrap().get()), Err(HttpError::Redirect));
        assert_eq!(here.asked().len(), 1 + 4);
        assert_eq!(run(service(here.url(), None).unwrap().post(b"{}".to_vec())), Err(HttpError::Redirect));
    }
}
