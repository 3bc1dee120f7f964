//! Files at plain URLs.

use reqwest::Url;

use super::{
    FetchError,
    client::{HttpClient, HttpRequest, HttpResponse, without_query},
    redirects::{RedirectPolicy, is_loopback},
    source::{ByteSource, OpenedSource, ResumePoint, interpret},
};

/// A file at a URL.
pub(super) struct UrlFile<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) url: Url,
    pub(super) policy: RedirectPolicy,
    /// Whether a hash of the file is known, so that the connection need not be trusted.
    pub(super) is_hashed: bool,
}

impl ByteSource for UrlFile<'_> {
    fn label(&self) -> String {
        without_query(&self.url)
    }

    fn open(&mut self, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError> {
        let label = self.label();
        if self.url.scheme() != "https" && !self.is_hashed && !is_loopback(&self.url) {
            return Err(FetchError::Address {
                address: label,
                expected: "https, because no hash of the file is known",
                found: "plain http".to_owned(),
            });
        }
        let request = HttpRequest { label: &label, url: self.url.clone(), policy: &self.policy, resume, token: None };
        let HttpResponse { response, .. } = self.client.get(&request)?;
        interpret(&label, response, resume)
    }
}
